"""The progress of a sweep on a terminal or in a log."""

import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Task as Shown
from rich.text import Text

from globopt_jax import sweeps

__all__ = ["Meter"]


class Meter:
    """A `with` block that shows the progress of a sweep on stderr: a bar on a terminal, lines elsewhere, or nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.bar: Progress | None = None
        self.shown: Any = None
        if self.console.is_terminal and not quiet:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _Left()
            self.bar = Progress(*columns, console=self.console, transient=True)

    def __enter__(self) -> Any:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, done: int, total: int) -> None:
        """Show how many networks there are, before the first of them is finished."""
        if self.bar is not None:
            self.shown = self.bar.add_task("compiling", total=total, completed=done, left=None, at=time.monotonic())
        elif done:
            self.console.print(Text(f"{done} of {total} networks are in the folder already"), soft_wrap=True)

    def update(self, progress: sweeps.Progress, part: str = "") -> None:
        """Show the cells that were finished last, after the name of the part of the work that they belong to."""
        row = progress.latest[-1]
        place = f"{part}: {_place(row)}, rate {row['rate']:g}" if part else _place(row)
        if self.bar is not None:
            values = {"completed": progress.done, "left": progress.left, "at": time.monotonic()}
            self.bar.update(self.shown, description=f"after {place}", **values)
            return
        column = "J" if "J_initial" in row else "test_accuracy"
        name = "held-out accuracy" if part.startswith("tuning") else column.replace("_", " ")
        before, after = (
            _mean([r.get(f"{column}_{stage}") for r in progress.latest]) for stage in ("initial", "trained")
        )
        self.console.print(
            Text(
                f"{progress.done} of {progress.total} networks, {place}: {name} {before} before training and {after} "
                f"after it; {progress.seconds:.0f} s, about {_clock(progress.left)} left"
            ),
            soft_wrap=True,
        )


class _Left(ProgressColumn):
    """The time left by the sweep's own estimate, which knows that deep and wide networks take longer."""

    def render(self, task: Shown) -> Text:
        left, at = task.fields["left"], task.fields["at"]
        return Text("" if left is None else f"about {_clock(max(left - (time.monotonic() - at), 0))} left")


def _place(row: dict[str, Any]) -> str:
    """Return the coordinates of a cell that are worth saying."""
    found = [f"depth {row['depth']}", f"width {row['width']}"]
    if row.get("subnetworks", 1) > 1:
        found.append(f"{row['subnetworks']} subnetworks")
    if row.get("penalty", "none") != "none":
        found.append(f"{row['lam']:g} {row['penalty']}")
    return ", ".join(found)


def _mean(values: list[Any]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.5g}" if known else "none"


def _clock(seconds: float) -> str:
    """Return a number of seconds as 40 s, 5:20 min or 2:05 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"
