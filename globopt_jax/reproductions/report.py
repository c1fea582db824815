"""What all experiments share: their interface, and Markdown tables."""

import abc
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from globopt_jax.datasets import Dataset
from globopt_jax.sweeps import Progress

__all__ = ["Experiment", "Told", "around", "loaded", "root_of", "spread", "table"]

#: A function that is told how far an experiment is: the part of the experiment, and the progress of its sweep.
Told = Callable[[str, Progress], object]


class Experiment(abc.ABC):
    """An experiment of a paper at one of its sizes, whose arguments were checked. Nothing has been computed yet."""

    #: The heading of the report.
    title: ClassVar[str]

    @property
    @abc.abstractmethod
    def configuration(self) -> dict[str, Any]:
        """The settings and the hashes of the data, to which a folder belongs."""

    @abc.abstractmethod
    def run(self, folder: pathlib.Path, told: Told, client: Any = None) -> None:
        """Train and measure what is missing in the stores of the folder."""

    @abc.abstractmethod
    def report(self, folder: pathlib.Path) -> tuple[str, dict[str, Any]]:
        """Return the report in Markdown, and its numbers, from the finished stores of a folder."""

    def pictures(self, folder: pathlib.Path) -> dict[str, Any]:
        """Return figures by the names of their files."""
        del folder
        return {}


def root_of(root: pathlib.Path | None, name: str) -> pathlib.Path | None:
    """Return the folder of a data set below a common root: one of its own, or the root itself."""
    if root is None or name == "khk19-synthetic":
        return None
    for candidate in (root / name, root / f"{name}-batches-bin"):
        if candidate.is_dir():
            return candidate
    return root


def loaded(loads: Mapping[str, Callable[[], Dataset]]) -> dict[str, Dataset]:
    """Return the data sets that the functions load.

    Raises:
        FileNotFoundError: files are missing; the message names those of all data sets.
    """
    found: dict[str, Dataset] = {}
    missing: list[str] = []
    for name, load in loads.items():
        try:
            found[name] = load()
        except FileNotFoundError as error:
            missing.append(str(error))
    if missing:
        raise FileNotFoundError("; ".join(dict.fromkeys(missing)))
    return found


def table(corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table in Markdown, with numbers aligned at the right.

    Example:
        >>> print(table("depth", ["1", "2"], [("J", ["3.0", "2.5"])]))
        | depth | 1 | 2 |
        | --- | --: | --: |
        | J | 3.0 | 2.5 |
    """
    lines = [[corner, *columns], ["---", *["--:"] * len(columns)], *([name, *cells] for name, cells in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def spread(values: Any) -> str:
    """Return mean ± standard deviation of the finite values; the number of values that are missing follows.

    Example:
        >>> spread([1.0, 3.0]), spread([2.0]), spread([np.nan, 2.0])
        ('2.0 ± 1.4', '2', '2 (1 missing)')
    """
    values = np.ravel(np.asarray(values, float))
    known = values[np.isfinite(values)]
    if not len(known):
        return "none"
    missing = f" ({len(values) - len(known)} missing)" * (len(known) < len(values))
    return around(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None) + missing


def around(mean: float, deviation: float | None) -> str:
    """Return mean ± deviation: the deviation has two digits, and the mean ends where it ends.

    Example:
        >>> around(20951.7, 611.0), around(0.5, None), around(3.0, 0.0)
        ('20950 ± 610', '0.5', '3 ± 0')
    """
    if not deviation:
        return f"{mean:.4g}{' ± 0' * (deviation is not None)}"
    decimals = 1 - int(np.floor(np.log10(deviation)))
    if decimals > 6:
        return f"{mean:.4g} ± {deviation:.2g}"
    return " ± ".join(f"{round(value, decimals):.{max(decimals, 0)}f}" for value in (mean, deviation))
