"""What a person sees while a command works: a live table on a terminal, plain lines elsewhere, or nothing."""

import time
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

__all__ = ["Display", "Row"]


class Row(NamedTuple):
    """One line: what happened and where it stands. polar is over lam (0: not known yet), gap is relative."""

    step: str
    event: str
    width: int
    objective: float
    polar: float
    lower_bound: float
    gap: float
    rigorous: bool
    seconds: float

    def cells(self) -> list[str]:
        """The row in words: an estimated gap wears a ~, an upper bound of the polar a ≤."""
        gap = "" if self.gap == float("inf") else f"{'' if self.rigorous else '~'}{100 * self.gap:.3g} %"
        return [
            self.step,
            self.event,
            str(self.width),
            f"{self.objective:.8g}",
            f"{'≤ ' if self.rigorous else ''}{self.polar:{'.6f' if self.polar < 1e6 else '.6g'}}" if self.polar else "",
            gap,
            f"{self.seconds:.1f}",
        ]


COLUMNS = ("step", "what happened", "r", "objective", "polar / lam", "gap", "seconds")
WIDTHS = (4, 40, 5, 13, 13, 12, 8)


class Display:
    """A `with` block that shows rows and remarks on stderr as they come.

    Args:
        title: above the table. quiet: show nothing. rows: how many of the last rows a terminal keeps in view.
    """

    def __init__(self, title: str, *, quiet: bool = False, rows: int = 20) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.title, self.quiet, self.keep = title, quiet, rows
        self.rows: list[Row] = []
        self.doing, self.began = "", time.monotonic()
        self.live: Live | None = None
        if self.console.is_terminal and not quiet:
            self.live = Live(self, console=self.console, refresh_per_second=4)

    def __enter__(self) -> "Display":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.doing = ""
        if self.live is not None:
            self.live.stop()

    def remark(self, text: str) -> None:
        """A sentence above the table."""
        self.console.print(Text(text), soft_wrap=True)

    def now(self, doing: str) -> None:
        """Say what is being worked on; a terminal shows for how long."""
        self.doing, self.began = doing, time.monotonic()

    def row(self, row: Row) -> None:
        """Add a row."""
        first = not self.rows
        self.rows.append(row)
        self.began = time.monotonic()
        if self.live is None and not self.quiet:
            if first:
                self.console.print(_line(COLUMNS), soft_wrap=True)
            self.console.print(_line(row.cells()), soft_wrap=True)

    def __rich__(self) -> Any:
        """The table as it stands; called again and again by `rich`."""
        table = Table(title=self.title, box=SIMPLE_HEAD, pad_edge=False)
        table.title_style, table.title_justify, table.caption_justify = "bold", "left", "left"
        for name in COLUMNS:
            left = name in COLUMNS[:2]
            table.add_column(name, justify="left" if left else "right", no_wrap=name != COLUMNS[1])
        for row in self.rows[-self.keep :]:
            style = "bold green" if row.rigorous else "dim" if row.polar == 0 else ""
            table.add_row(*map(Text, row.cells()), style=style)
        note = "~ an estimate from the search; without it, proved"
        busy = f"{self.doing} ({time.monotonic() - self.began:.0f} s)   " if self.doing else ""
        table.caption = busy + note
        return table


def _line(cells: Any) -> Text:
    """Columns of fixed width, for logs."""
    left = [f"{c:<{w}.{w}}" for c, w in zip(cells[:2], WIDTHS[:2], strict=True)]
    right = [f"{c:>{w}}" for c, w in zip(cells[2:], WIDTHS[2:], strict=True)]
    return Text(" ".join(left + right))
