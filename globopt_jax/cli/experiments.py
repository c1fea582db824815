"""The work of `globopt reproduce`: an experiment of a paper in its run folder, and its report."""

import contextlib
import datetime
import json
import math
import shlex
import sys
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.markdown import Markdown

from globopt_jax import plotting, runs, sweeps
from globopt_jax.cli import report
from globopt_jax.cli.cluster import errors_in_words
from globopt_jax.cli.meter import Meter
from globopt_jax.inputs import one_of
from globopt_jax.reproductions import EXPERIMENTS, Experiment

__all__ = ["REPORT", "document", "prepared", "show"]

#: The name of the file with the report.
REPORT = "report.md"
#: The options by the names of the arguments that they become.
_OPTIONS = {"preset": "--preset", "root": "--root", "data": "--data", "name": "--data", "split": "--data"}


def prepared(name: str, preset: str, root: Path | None, data: str | None) -> Experiment:
    """Return the experiment of a name, with its data.

    Args:
        name: a name of `reproductions.EXPERIMENTS`.
        preset: quick or full.
        root: the folder with the official files; None downloads them.
        data: names of data sets, separated by commas; None takes the paper's.

    Raises:
        ValueError: a name is unknown, or a file is damaged.
        OSError: files are missing.
    """
    _ = one_of("EXPERIMENT", name, EXPERIMENTS)
    try:
        return EXPERIMENTS[name](preset, root, None if data is None else data.split(","))
    except (ValueError, FileNotFoundError) as error:
        head, colon, rest = str(error).partition(": ")
        if colon and head in _OPTIONS:
            raise type(error)(f"{_OPTIONS[head]}: {rest}") from error
        raise


def document(experiment: Experiment, folder: runs.RunFolder, client: Any = None, *, quiet: bool) -> dict[str, Any]:
    """Do what is left of an experiment, write its report and pictures, and return the result."""
    if (result := folder.result) is not None:
        if not (folder.path / REPORT).is_file():
            raise FileNotFoundError(
                f"{folder.path / REPORT}: Expected: the report of this finished run. Received: none. Remove "
                "result.json beside it, and the same command writes both again from the stored networks."
            )
        _check(experiment, folder, result)
        return result
    folder.claim()
    with contextlib.ExitStack() as at_work:
        at_work.enter_context(jax.enable_x64(False))  # training in float32; J switches to float64 by itself
        meter = at_work.enter_context(_Parts(quiet=quiet))
        with errors_in_words():
            experiment.run(folder.path, meter.told, client)
    text, numbers = experiment.report(folder.path)
    for name, figure in experiment.pictures(folder.path).items():
        folder.write_bytes(name, plotting.png(figure))
    origin = runs.provenance(dtype="float32")
    folder.write_text(REPORT, f"# {experiment.title}\n\n{_made(origin)}\n\n{text}\n")
    result = {"numbers": numbers, "configuration": folder.config, "provenance": origin}
    folder.finish(result)
    return result


def _check(experiment: Experiment, folder: runs.RunFolder, result: dict[str, Any]) -> None:
    """Raise ValueError unless the numbers of a finished run follow from its stores."""
    try:
        numbers = experiment.report(folder.path)[1]
    except (LookupError, ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"{folder.path}: Expected: all networks of this finished run. Received: stores without some, or damaged "
            f"ones ({error})."
        ) from error
    if not _alike(json.loads(runs.canonical_json(numbers)), result.get("numbers")):
        raise ValueError(
            f"{folder.path / 'result.json'}: Expected: the numbers of the stored networks. Received: others."
        )


def _alike(a: Any, b: Any) -> bool:
    """Whether two values of JSON are the same, up to the rounding of a mean."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b


def show(result: dict[str, Any], folder: Path, *, json: bool, quiet: bool) -> None:
    """Print the report, or with `json` the numbers of the result."""
    if json:
        report.document(result | {"folder": str(folder)})
    elif not quiet:
        console = Console()
        console.print(Markdown((folder / REPORT).read_text(encoding="utf-8")))
        console.print(f"Report: {folder / REPORT}", soft_wrap=True, highlight=False)


def _made(origin: dict[str, Any]) -> str:
    """Return the sentence on how a report was made, with the command as it was typed."""
    arguments = shlex.join(["globopt", *sys.argv[1:]])
    versions = f"globopt_jax {origin['globopt_jax']}, jax {origin['jax']}, Python {origin['python']}"
    day = datetime.datetime.fromisoformat(origin["time"]).date()
    return f"Made by `{arguments}` on {day}, with {versions}, on {origin['device']}."


class _Parts(Meter):
    """A meter for the sweeps of an experiment, one after the other."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.part = ""

    def told(self, part: str, progress: sweeps.Progress) -> None:
        """Show the cells that were finished last, and of which part of the experiment they are."""
        if part != self.part:
            self.part = part
            self.begin(progress.done - len(progress.latest), progress.total)
        self.update(progress, part)
