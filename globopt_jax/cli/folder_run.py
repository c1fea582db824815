"""Runs in folders: open a folder, do the work in steps that survive a kill, and check a finished result again."""

import abc
import contextlib
from pathlib import Path
from typing import Any

from globopt_jax import runs
from globopt_jax.cli import report
from globopt_jax.cli.terminal import say

__all__ = ["FolderRun", "opened"]


def opened(configuration: dict[str, Any], out: Path | None, *, resume: bool) -> runs.RunFolder:
    """Return the run folder of a configuration, locked unless the run is finished.

    Args:
        configuration: the options of the run; its hash is the default name of the folder.
        out: another folder; None is the folder that is named by the hash.
        resume: whether the folder must already hold this run.

    Raises:
        ValueError: the folder holds another run or other files, or `resume` is set and the folder holds no run.
        FolderInUse: another process is writing the folder.
    """
    folder = runs.RunFolder(configuration, out)
    if resume and not folder.started:
        raise ValueError(f"--resume: there is no such run in {folder.path}. Leave --resume out to start one.")
    if folder.result is None:
        folder.claim()
        if folder.unlocked is not None:
            say(
                f"{folder.path} is not locked, since its file system has no locks ({folder.unlocked}); do not start a "
                "second run there"
            )
    return folder


class FolderRun(abc.ABC):
    """The base class of all runs in folders."""

    picture = "plots.png"
    """The name of the file with the run's picture."""

    def __init__(self, folder: runs.RunFolder) -> None:
        self.folder = folder

    def document(self) -> dict[str, Any]:
        """Do the remaining work of the run and return its result, which the folder then holds, too."""
        if (result := self.folder.result) is not None:
            return self._again(result)
        with contextlib.ExitStack() as at_work:
            self._enter(at_work)
            result = self._work()
            self.folder.finish(result)
            report.draw(self.folder, self._picture, self.picture)
            return result

    @abc.abstractmethod
    def _enter(self, at_work: contextlib.ExitStack) -> None:
        """Enter the contexts of the work: the precision, and a display if there is one."""

    @abc.abstractmethod
    def _work(self) -> dict[str, Any]:
        """Do the remaining work with checkpoints, write all files except result.json, and return the result."""

    @abc.abstractmethod
    def _again(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a finished run, after checking it against the files of the folder."""

    @abc.abstractmethod
    def _picture(self, figure: Any) -> None:
        """Draw the run's page of plots."""
