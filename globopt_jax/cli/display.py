"""The display of a command at work: a live table on a terminal, plain lines elsewhere, or nothing."""

import time
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

__all__ = ["Display", "Row"]


class Row(NamedTuple):
    """One row of the table: an event, and the numbers after it."""

    step: str
    """The outer step of training; empty for a stage of the bound."""
    event: str
    """The event in words."""
    width: int
    """The number of subnetworks that are not zero."""
    objective: float
    """The objective."""
    polar: float
    """The polar divided by lam: a value that a search found, or a proved upper bound if `rigorous`; 0 if unknown."""
    lower_bound: float
    """The lower bound of the global minimum; an estimate unless `rigorous`."""
    gap: float
    """The relative gap; an estimate unless `rigorous`."""
    rigorous: bool
    """Whether lower bound, gap and upper bound of the polar are proved."""
    seconds: float
    """The seconds that training and certificate have taken so far."""

    def cells(self) -> list[str]:
        """Return the cells as text. A ~ marks an estimated gap, a ≤ an upper bound of the polar."""
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
    """A `with` block that shows rows and remarks on stderr as soon as they are added.

    Args:
        title: the title of the table.
        quiet: whether to show nothing.
        rows: the number of last rows that a terminal shows.
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
        """Print a sentence above the table."""
        self.console.print(Text(text), soft_wrap=True)

    def now(self, doing: str) -> None:
        """Name the work in progress. A terminal shows it below the table, with the seconds since this call."""
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
        """Return the current table. `rich` calls this method for every refresh."""
        table = Table(title=self.title, box=SIMPLE_HEAD, pad_edge=False)
        table.title_style, table.title_justify, table.caption_justify = "bold", "left", "left"
        for name in COLUMNS:
            left = name in COLUMNS[:2]
            table.add_column(name, justify="left" if left else "right", no_wrap=name != COLUMNS[1])
        for row in self.rows[-self.keep :]:
            style = "bold green" if row.rigorous else "dim" if row.polar == 0 else ""
            table.add_row(*map(Text, row.cells()), style=style)
        note = "~ marks an estimate from a search; a gap without it is proved"
        busy = f"{self.doing} ({time.monotonic() - self.began:.0f} s)   " if self.doing else ""
        table.caption = busy + note
        return table


def _line(cells: Any) -> Text:
    """Return a line with columns of fixed width, for logs."""
    left = [f"{c:<{w}.{w}}" for c, w in zip(cells[:2], WIDTHS[:2], strict=True)]
    right = [f"{c:>{w}}" for c, w in zip(cells[2:], WIDTHS[2:], strict=True)]
    return Text(" ".join(left + right))
