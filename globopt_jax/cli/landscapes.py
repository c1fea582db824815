"""The work of `globopt landscape`: J over depth, width and seeds, cell by cell into a store that survives a kill."""

import contextlib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from globopt_jax import datasets, runs, sweeps
from globopt_jax.cli import report
from globopt_jax.cli.cluster import errors_in_words
from globopt_jax.cli.folder_run import FolderRun
from globopt_jax.cli.meter import Meter
from globopt_jax.cli.task import check_numbers, data_named, in_dtype, integers, is_float64
from globopt_jax.cli.terminal import check_memory
from globopt_jax.inputs import check_range
from globopt_jax.reproductions.report import around
from globopt_jax.sweeps.plan import MOST_SEEDS
from globopt_jax.sweeps.trends import averaged, trends

if TYPE_CHECKING:
    import xarray

__all__ = ["Choices", "Run", "Task", "prepared", "show"]

STORE = "cells.sqlite"
#: The quantities whose mean and spread are in the result, if they were measured.
QUANTITIES = ("J", "loss", "accuracy")
#: The titles of the printed tables.
TITLES = {"initial": "J before training, mean ± standard deviation over seeds", "trained": "J after training"}


class Choices(NamedTuple):
    """The options of the sweep, as they were typed; the help of `globopt landscape` describes them."""

    data: str
    depths: str
    widths: str
    seeds: int
    epochs: int
    samples: int | None
    batch: int
    rate: float
    momentum: float
    dtype: str


class Task(NamedTuple):
    """A sweep whose options were checked. Nothing has been computed or written yet."""

    X: np.ndarray
    Y: np.ndarray
    axes: dict[str, tuple[int, ...]]
    """The values of depth, width and seed."""
    configuration: dict[str, Any]
    """The options and the hash of the data, to which the run folder belongs."""

    @property
    def networks(self) -> int:
        """The number of networks: one for each depth, width and seed."""
        return int(np.prod([len(values) for values in self.axes.values()]))

    @property
    def target(self) -> float:
        """J and loss of a network that explains nothing, ``1/2 ||Y||^2``."""
        return 0.5 * float(np.sum(np.square(self.Y, dtype=np.float64)))


def prepared(choices: Choices) -> Task:
    """Check the options and load the data.

    Args:
        choices: the options, as they were typed.

    Raises:
        ValueError: an option or the data are wrong, or a network does not fit into memory.
        OSError: a file cannot be read.
    """
    depths, widths = (_axis(f"--{name}", getattr(choices, name)) for name in ("depths", "widths"))
    check_numbers(seeds=choices.seeds, batch=choices.batch)
    if not 0 <= choices.epochs < 2**31:
        raise ValueError(f"--epochs: Expected: an integer from 0 to 2^31 - 1. Received: {choices.epochs}.")
    if not (np.isfinite(choices.rate) and choices.rate > 0):
        raise ValueError(f"--rate: Expected: a positive number. Received: {choices.rate}.")
    if not is_float64(choices.dtype) and not 1e-38 < choices.rate < 1e38:
        raise ValueError(f"--rate: Expected: a number from 1e-38 to 1e38 in float32. Received: {choices.rate}.")
    if not 0 <= choices.momentum < 1:
        raise ValueError(f"--momentum: Expected: a number from 0 to 1, without 1. Received: {choices.momentum}.")
    if max(depths) > 999:  # the compilation of a thousand layers would take days
        raise ValueError(f"--depths: Expected: numbers below 1000. Received: {max(depths)}.")
    if choices.seeds > MOST_SEEDS:
        raise ValueError(f"--seeds: Expected: at most {MOST_SEEDS} seeds. Received: {choices.seeds}.")
    itemsize = 8 if is_float64(choices.dtype) else 4
    X, Y = _samples(*data_named(choices.data), choices.samples)
    X, Y = in_dtype("X", X, choices.dtype), in_dtype("Y", Y, choices.dtype)
    for name, array in (("X", X), ("Y", Y)):
        check_range(name, array, np.dtype(np.float64), tiny=True)  # J is computed in float64
    sizes = (X.shape[1], *[max(widths)] * max(depths), Y.shape[1])
    weights = sum(a * b for a, b in pairwise(sizes))
    check_memory("--widths", choices.widths, 4 * weights * itemsize)  # weights, gradient, momentum, next weights
    configuration = {
        "command": "landscape",
        **choices._asdict(),
        "data": choices.data if choices.data in datasets.names() else Path(choices.data).name,
        "data_sha256": runs.hash_arrays({"X": X, "Y": Y}),
        "depths": list(depths),
        "widths": list(widths),
    }
    return Task(X, Y, {"depth": depths, "width": widths, "seed": tuple(range(choices.seeds))}, configuration)


def _axis(name: str, text: str) -> tuple[int, ...]:
    """Return the values of an option such as --widths 4,8, or raise ValueError."""
    found = integers(name, text)
    if not found:
        raise ValueError(f"{name}: Expected: integers such as 4,8. Received: none.")
    for value in found:
        if not 1 <= value < 2**31:
            raise ValueError(f"{name}: Expected: integers from 1 to 2^31 - 1. Received: {value}.")
        if found.count(value) > 1:
            raise ValueError(f"{name}: Expected: different values. Received: {value} more than once.")
    return found


def _samples(X: np.ndarray, Y: np.ndarray, count: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the random subset that the seed 0 draws, which is the same at every call."""
    if count is None:
        return X, Y
    if not 1 <= count <= len(X):
        raise ValueError(f"--samples: Expected: from 1 to {len(X)} samples, as the data have. Received: {count}.")
    rows = datasets.subset(len(X), count, key=0)
    return X[rows], Y[rows]


class Run(FolderRun):
    """A sweep in its folder.

    Args:
        task: the checked options and the data.
        folder: the run folder.
        client: a Dask client whose workers do the work; None computes in this process.
        quiet: whether to show no progress.
    """

    picture = "landscape.png"

    def __init__(self, task: Task, folder: runs.RunFolder, client: Any = None, *, quiet: bool = False) -> None:
        super().__init__(folder)
        self.task, self.client = task, client
        self.meter = Meter(quiet=quiet)
        self.found: xarray.Dataset | None = None

    @property
    def store(self) -> Path:
        """The file of the finished cells."""
        return self.folder.path / STORE

    def _enter(self, at_work: contextlib.ExitStack) -> None:
        at_work.enter_context(jax.enable_x64(is_float64(self.task.configuration["dtype"])))
        _ = at_work.enter_context(self.meter)

    def _work(self) -> dict[str, Any]:
        task, options = self.task, self.task.configuration
        self.folder.claim()
        done = len(self._stored()) if self.store.exists() else 0
        self.meter.begin(done, task.networks)
        with errors_in_words():
            self.found = sweeps.landscape(
                task.X,
                task.Y,
                depths=task.axes["depth"],
                widths=task.axes["width"],
                seeds=task.axes["seed"],
                epochs=options["epochs"],
                batch=min(options["batch"], len(task.X)),
                rate=options["rate"],
                momentum=options["momentum"],
                store=self.store,
                client=self.client,
                progress=self.meter.update,
            )
        _ = sweeps.Store(self.store).to_csv(self.folder.path / "cells.csv")
        return {
            **self._derived(self.found),
            "locked": self.folder.unlocked is None,
            "configuration": options,
            "provenance": runs.provenance({"X": task.X, "Y": task.Y}, task.X.dtype),
        }

    def _again(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a finished run, computed again from its store.

        Raises:
            ValueError: result.json differs from the recomputed result, the store lacks cells or belongs to other data
                or settings, or a file cannot be read.
        """
        stored, options = sweeps.Store(self.store), self.task.configuration
        identity = stored.identity or {}
        batch = min(options["batch"], len(self.task.X))
        for name, right in (
            ("data", options["data_sha256"]),
            ("dtype", options["dtype"]),
            ("epochs", options["epochs"]),
            ("batch", batch),
        ):
            if identity.get(name) != right:
                raise ValueError(
                    f"{self.store}: Expected: cells with {name} {right}. Received: {identity.get(name, 'none')}."
                )
        cells = self._stored()
        if len(cells) < self.task.networks:
            raise ValueError(
                f"{self.store}: Expected: the {self.task.networks} cells of this run. Received: {len(cells)} of them."
            )
        wanted = {name: list(values) for name, values in self.task.axes.items()}
        derived = self._derived(stored.to_xarray().sel(wanted))
        if not _same(derived["J"], result.get("J")):
            raise ValueError(f"{self.folder.path / 'result.json'}: Expected: J as in {STORE}. Received: other values.")
        return {**result, **derived}

    def _stored(self) -> list[tuple[Any, ...]]:
        """Return those cells of the store that belong to this run."""
        axes = self.task.axes
        cells = sweeps.Store(self.store).finished()
        return [c for c in cells if c[0] in axes["depth"] and c[1] in axes["width"] and c[-1] in axes["seed"]]

    def _derived(self, found: "xarray.Dataset") -> dict[str, Any]:
        """Return the part of the result that follows from the cells."""
        counts = trends(found)
        missing, sure = found.J.isnull(), found.get("sure")
        diverged = int(missing.sel(stage="trained").sum())
        host = 0 if sure is None else int((sure == 0).sum())
        total, epochs = self.task.networks, self.task.configuration["epochs"]
        shown = counts if epochs else counts._replace(training=np.zeros(3, int))  # nothing was trained
        words = [shown.reason]
        if diverged:
            words.append(
                f"{diverged} of {total} networks diverged and have no J after training; a smaller --rate may help."
            )
        measured = (1 + bool(epochs)) * total - int(missing.sum())
        if host:
            words.append(
                f"{host} of {measured} values of J are from tangent_projection, since tangent_value was unsure."
            )
        return {
            "command": "landscape",
            "reason": " ".join(filter(None, words)) or "There is one cell, so that nothing can be compared.",
            "axes": self.task.axes,
            "samples": len(self.task.X),
            "target": self.task.target,
            **{name: _table(found, name) for name in QUANTITIES if name in found},
            "trends": counts._asdict(),
            "networks": total,
            "diverged": diverged,
            "from_tangent_projection": host,
            "seconds": float(found.seconds.sum()),
        }

    def _picture(self, figure: Any) -> None:
        assert self.found is not None  # the work is done
        picture(self.found, figure)


def picture(found: "xarray.Dataset", figure: Any) -> None:
    """Draw the two heat maps on an empty figure, whose size follows the number of cells."""
    from globopt_jax import plotting  # late: it loads matplotlib

    columns, rows = found.sizes["width"], found.sizes["depth"]
    figure.set_size_inches(float(np.clip(2 + 1.3 * columns, 7, 16)), float(np.clip(1.6 + 0.45 * rows, 3, 12)))
    left, right = figure.subplots(1, 2, sharey=True)
    _ = plotting.landscape((left, right), found)


def _table(found: "xarray.Dataset", name: str) -> dict[str, Any]:
    """Return mean and standard deviation over the seeds, as depth x width tables of each stage; None where missing."""
    parts = [part.transpose("stage", "depth", "width") for part in averaged(found, name)]
    return {
        stage: {
            kind: [[None if np.isnan(v) else float(v) for v in row] for row in part.sel(stage=stage).to_numpy()]
            for kind, part in zip(("mean", "spread"), parts, strict=True)
        }
        for stage in ("initial", "trained")
    }


def _same(derived: dict[str, Any], said: Any) -> bool:
    """Whether result.json has the derived table, up to the rounding of a sum."""
    try:
        pairs = [
            (np.array(table, float), np.array(said[stage][kind], float))
            for stage, tables in derived.items()
            for kind, table in tables.items()
        ]
    except (KeyError, TypeError, ValueError):
        return False
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-20, equal_nan=True) for a, b in pairs)


def show(result: dict[str, Any], *, json: bool, quiet: bool) -> None:
    """Print the result of a run: its reason, J in two tables, and the run folder."""
    if json:
        report.document(result)
        return
    if quiet:
        return
    depths, widths = result["axes"]["depth"], result["axes"]["width"]
    console = Console()
    lines = [
        ("networks", f"{result['networks']} on {result['samples']} samples, {result['seconds']:.0f} s of computation"),
        ("J without a network", f"{result['target']:.6g}, half of the squared targets"),
        ("run folder", report.place(result, result["folder"])),
    ]
    report.facts(result["reason"], lines)
    for stage in ("initial", "trained"):
        numbers = result["J"][stage]
        table = Table(title=TITLES[stage], box=None, pad_edge=False)
        table.title_justify, table.title_style = "left", "bold"
        table.add_column("depth", justify="right")
        for width in widths:
            table.add_column(f"width {width}", justify="right")
        for depth, means, spreads in zip(depths, numbers["mean"], numbers["spread"], strict=True):
            table.add_row(
                str(depth), *(Text("none" if m is None else around(m, s)) for m, s in zip(means, spreads, strict=True))
            )
        console.print(table)
