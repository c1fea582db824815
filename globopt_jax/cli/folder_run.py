"""What every run in a folder does: it is opened once, worked off in steps that survive a kill, and shown again."""

import abc
import contextlib
from pathlib import Path
from typing import Any

from globopt_jax import runs
from globopt_jax.cli import report
from globopt_jax.cli.terminal import say

__all__ = ["FolderRun", "opened"]


def opened(configuration: dict[str, Any], out: Path | None, *, resume: bool) -> runs.RunFolder:
    """The run folder of a configuration, locked; nothing is written before.

    Args:
        configuration: what was asked for; its hash names the folder.
        out: another folder; None is the one that is named by the hash.
        resume: whether there has to be a run to go on with.

    Raises:
        ValueError: another run lives there, or `resume` finds nothing to go on with.
        FolderInUse: another process is at work there.
    """
    folder = runs.RunFolder(configuration, out)
    if resume and not folder.started:
        raise ValueError(f"--resume: Expected: a run in {folder.path}. Received: no such run.")
    if folder.result is None:
        folder.claim()
        if folder.unlocked is not None:
            say(
                f"{folder.path} is not locked, since its file system has no locks ({folder.unlocked}): start no second "
                "run there"
            )
    return folder


class FolderRun(abc.ABC):
    """A run in its folder."""

    def __init__(self, folder: runs.RunFolder) -> None:
        self.folder = folder

    def document(self) -> dict[str, Any]:
        """Do what is left of the run and return its result, which is in the folder, too."""
        if (result := self.folder.result) is not None:
            return self._again(result)
        with contextlib.ExitStack() as at_work:
            self._enter(at_work)
            result = self._work()
            self.folder.finish(result)
            report.draw(self.folder, self._picture)
            return result

    @abc.abstractmethod
    def _enter(self, at_work: contextlib.ExitStack) -> None:
        """Enter the contexts in which the work is done: the dtype, and a display."""

    @abc.abstractmethod
    def _work(self) -> dict[str, Any]:
        """Do what is left, saving on the way; the result, all files but result.json written."""

    @abc.abstractmethod
    def _again(self, result: dict[str, Any]) -> dict[str, Any]:
        """A finished run's result, checked anew: nothing in the folder is believed."""

    @abc.abstractmethod
    def _picture(self, figure: Any) -> None:
        """Draw the run's page of plots."""
