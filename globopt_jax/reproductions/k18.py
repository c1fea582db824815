"""Tables 4.1 and 4.2 of K18: test accuracy on CIFAR-10 under penalties of several degrees.

The thesis states neither learning rate, nor strength of the penalty, nor number of epochs. Each column of a table,
which is one penalty, is tuned on a validation split: the rate, the strength and the number of epochs with the largest
mean accuracy over some rows. Then every cell is trained on all training images with several seeds, for the chosen
number of epochs. A second budget, one rate and number of epochs for all columns, is the one whose accuracies without a
penalty on the validation split are closest to those that the thesis prints.
"""

import abc
import functools
import pathlib
from typing import Any, ClassVar, NamedTuple

import numpy as np
import optax
import scipy.special

from globopt_jax import datasets, sweeps
from globopt_jax.origin import hash_arrays
from globopt_jax.reproductions.report import Experiment, Told, loaded, root_of, spread, table
from globopt_jax.sweeps.plan import column

__all__ = ["Choice", "Size", "Table41", "Table42"]

#: The columns of both tables, with the strengths among which the penalty is tuned.
STRENGTHS = {
    "none": (0.0,),
    "l1": (1e-6, 1e-5, 1e-4),
    "l2": (1e-5, 1e-4, 1e-3),
    "l3": (1e-4, 1e-3, 1e-2),
}


class Size(NamedTuple):
    """How large the experiment is."""

    width: int
    """The number of units of each hidden layer."""
    epochs: tuple[int, ...]
    """The numbers of passes over the samples among which is tuned, ascending."""
    rates: tuple[float, ...]
    """The learning rates among which is tuned."""
    seeds: int
    """The number of networks of each cell."""
    batch: int
    """The number of samples of a step."""
    samples: int | None
    """The number of training images; None takes all that are there."""


PRESETS = {
    "quick": Size(100, (1, 3, 6), (0.03, 0.1), seeds=2, batch=128, samples=3000),
    "full": Size(500, (1, 2, 3, 5, 10, 20, 40), (0.01, 0.03, 0.1), seeds=3, batch=128, samples=None),
}
#: The share of the training images on which the columns are tuned, and the seed of tuning, which no cell has.
HELD_OUT, TUNING_SEED = 0.2, 1_000_000


class Choice(NamedTuple):
    """The settings of a column."""

    lam: float
    """The strength of the penalty."""
    rate: float
    """The learning rate."""
    epochs: int
    """The number of passes over the samples."""
    accuracy: float
    """The mean accuracy on the validation split, over the rows that were tuned on."""

    def store(self, folder: pathlib.Path, penalty: str) -> pathlib.Path:
        """Return the file of the networks that are trained with these settings."""
        return folder / f"{penalty}-lam-{self.lam:g}-rate-{self.rate:g}-epochs-{self.epochs}.sqlite"


class _Table(Experiment, abc.ABC):
    """A table of K18.

    Args:
        preset: quick or full.
        root: a folder with the official files of CIFAR-10; None downloads them.
        only: the data set, cifar-10; another one, such as digits, runs the same experiment on it.

    Raises:
        ValueError: the preset or the data set is unknown, or a file is damaged.
        FileNotFoundError: files are missing.
    """

    name: ClassVar[str]
    thesis: ClassVar[dict[str, tuple[float, ...]]]
    rows: ClassVar[tuple[int, ...]]
    tuned_on: ClassVar[tuple[int, ...]]
    axis: ClassVar[str]
    dim: ClassVar[str]
    row_name: ClassVar[str]
    matched: ClassVar[dict[int, str]]
    longest: ClassVar[int]
    about: ClassVar[str]

    def __init__(self, preset: str = "quick", root: pathlib.Path | None = None, only: Any = None):
        if preset not in PRESETS:
            raise ValueError(f"preset: Expected: {' or '.join(PRESETS)}. Received: {preset!r}.")
        chosen = ["cifar-10"] if only is None else list(only)
        if len(chosen) != 1:
            raise ValueError(f"data: Expected: one data set. Received: {', '.join(chosen) or 'none'}.")
        size = PRESETS[preset]
        self.preset, self.size = preset, size._replace(epochs=tuple(n for n in size.epochs if n <= self.longest))
        self.train, self.test = self._data(chosen[0], root)

    def _data(self, name: str, root: pathlib.Path | None) -> tuple[datasets.Dataset, datasets.Dataset]:
        """Return training and test samples."""
        if name == "digits":  # they have no test samples of their own
            whole = datasets.load(name, samples=1797, key=0)
            return _part(whole, slice(0, 1300)), _part(whole, slice(1300, None))
        folder = root_of(root, name)
        count = self.size.samples
        key = None if count is None else 0
        load = functools.partial(datasets.load, name, folder, key=key)
        try:
            found = loaded(
                {
                    "train": functools.partial(load, samples=count),
                    "test": functools.partial(load, split="test", samples=count and count // 3),
                }
            )
        except ValueError as error:
            if not str(error).startswith("samples:"):
                raise
            raise ValueError(
                f"root: Expected: files with {count:,} training samples or more, and a third as many test samples, for "
                f"the preset {self.preset}. Received: fewer ({str(error).removesuffix('.')})."
            ) from error
        return found["train"], found["test"]

    @property
    def configuration(self) -> dict[str, Any]:
        hashes = {n: hash_arrays({"X": d.X, "Y": d.Y}) for n, d in (("train", self.train), ("test", self.test))}
        size = {**self.size._asdict(), "strengths": {name: list(s) for name, s in STRENGTHS.items()}}
        return {"experiment": self.name, "preset": self.preset, **size, "data": hashes}

    def run(self, folder: pathlib.Path, told: Told, client: Any = None) -> None:
        for penalty in STRENGTHS:
            self._tune(folder, penalty, functools.partial(told, f"tuning {penalty}"), client)
        for part, choices in (("column", self.choices(folder)), ("budget", self.budget(folder))):
            for penalty, choice in choices.items():
                self._train(folder, penalty, choice, functools.partial(told, f"{part} {penalty}"), client)

    def _tune(self, folder: pathlib.Path, penalty: str, progress: Any, client: Any) -> None:
        X, Y = self.train.X, self.train.Y
        order = np.random.Generator(np.random.Philox(key=[TUNING_SEED, 0])).permutation(len(X))
        held, used = np.split(order, [int(HELD_OUT * len(X))])
        self._sweep(
            (X[used], Y[used]),
            (X[held], Y[held]),
            rows=self.tuned_on,
            penalty=penalty,
            lams=STRENGTHS[penalty],
            rates=self.size.rates,
            epochs=self.size.epochs[-1],
            snapshots=self.size.epochs[:-1],
            seeds=[TUNING_SEED],
            store=folder / "tuning.sqlite",
            progress=progress,
            client=client,
        )

    def _train(self, folder: pathlib.Path, penalty: str, choice: Choice, progress: Any, client: Any) -> None:
        self._sweep(
            (self.train.X, self.train.Y),
            (self.test.X, self.test.Y),
            rows=self.rows,
            penalty=penalty,
            lams=[choice.lam],
            rates=[choice.rate],
            epochs=choice.epochs,
            seeds=self.size.seeds,
            store=choice.store(folder, penalty),
            progress=progress,
            client=client,
        )

    def _sweep(self, train: Any, test: Any, *, rows: Any, penalty: str, **options: Any) -> None:
        shape = {"depths": 1, "widths": self.size.width, self.axis: rows}
        arrays = [(X.astype(np.float32), Y.astype(np.float32)) for X, Y in (train, test)]
        _ = sweeps.sweep(
            *arrays[0],
            test=arrays[1],
            **shape,
            penalties=penalty,
            batch=self.size.batch,
            optimizer=optax.sgd,
            loss="softmax_cross_entropy",
            initial="glorot",
            tangent=False,
            **options,
        )

    def choices(self, folder: pathlib.Path) -> dict[str, Choice]:
        """Return the tuned settings of each column."""
        return {penalty: max(self._candidates(folder, penalty), key=lambda c: c.accuracy) for penalty in STRENGTHS}

    def budget(self, folder: pathlib.Path) -> dict[str, Choice]:
        """Return settings with one rate and one number of epochs, closest to the thesis where there is no penalty."""
        printed = dict(zip(self.rows, self.thesis["none"], strict=True))

        def distance(choice: Choice) -> float:
            found = self._accuracies(folder, "none")[choice[:3]]
            return sum((100 * found[row] - printed[row]) ** 2 for row in self.tuned_on)

        nearest = min(self._candidates(folder, "none"), key=distance)
        found = {}
        for penalty in STRENGTHS:
            alike = [
                c for c in self._candidates(folder, penalty) if (c.rate, c.epochs) == (nearest.rate, nearest.epochs)
            ]
            found[penalty] = max(alike, key=lambda c: c.accuracy)
        return found

    def _candidates(self, folder: pathlib.Path, penalty: str) -> list[Choice]:
        """Return all settings that were tried for a column."""
        found = self._accuracies(folder, penalty)
        return [Choice(*settings, float(np.mean([*rows.values()]))) for settings, rows in found.items()]

    def _accuracies(self, folder: pathlib.Path, penalty: str) -> dict[tuple[float, float, int], dict[int, float]]:
        """Return the accuracy on the validation split of each row, by strength, rate and number of epochs."""
        *early, last = self.size.epochs
        stages = {epochs: f"epoch {epochs}" for epochs in early} | {last: "trained"}
        found: dict[tuple[float, float, int], dict[int, float]] = {}
        for row in sweeps.Store(folder / "tuning.sqlite").rows():
            for epochs, stage in stages.items() if row["penalty"] == penalty else ():
                accuracy = row[column("test_accuracy", stage)]
                found.setdefault((row["lam"], row["rate"], epochs), {})[row[self.dim]] = accuracy
        return found

    def report(self, folder: pathlib.Path) -> tuple[str, dict[str, Any]]:
        tuned, fixed = self.choices(folder), self.budget(folder)
        ours, near = self._tested(folder, tuned), self._tested(folder, fixed)
        (any_fixed, *_) = fixed.values()
        parts = [
            self.about + self._elsewhere(),
            _PROTOCOL.format(
                rows=self._tuned_on(),
                width=self.size.width,
                batch=self.size.batch,
                candidates=_tried(self.size),
                train=len(self.train.X),
                test=len(self.test.X),
                seeds=self.size.seeds,
                minutes=self._seconds(folder, tuned, fixed) / 60,
            ),
            " ".join(dict.fromkeys([str(self.train.description), str(self.test.description)])),
            "## The thesis\n\n" + self._printed(),
            "## Tuned\n\n" + self._shown(ours),
            _chosen(tuned) + self._edges(tuned),
            self._reading(ours),
            f"## One budget for all columns: rate {any_fixed.rate:g}, epochs {any_fixed.epochs}\n\n"
            + _BUDGET.format(rows=self._tuned_on())
            + self._shown(near),
            _chosen(fixed),
            self._reading(near),
        ]
        numbers = {
            name: {penalty: {str(row): list(v) for row, v in rows.items()} for penalty, rows in found.items()}
            for name, found in (("tuned", ours), ("budget", near))
        }
        settings = {
            name: {p: c._asdict() for p, c in found.items()} for name, found in (("tuned", tuned), ("budget", fixed))
        }
        return "\n\n".join(parts), {"accuracy": numbers, "settings": settings}

    def _tested(self, folder: pathlib.Path, choices: dict[str, Choice]) -> dict[str, dict[int, list[float]]]:
        """Return the test accuracies in percent of all seeds, by column and row."""
        found: dict[str, dict[int, list[float]]] = {penalty: {row: [] for row in self.rows} for penalty in choices}
        for penalty, choice in choices.items():
            for row in sweeps.Store(choice.store(folder, penalty)).rows():
                found[penalty][row[self.dim]].append(100 * row[column("test_accuracy", "trained")])
        return found

    def _seconds(self, folder: pathlib.Path, *chosen: dict[str, Choice]) -> float:
        """Return how long all networks took."""
        stores = {choice.store(folder, penalty) for choices in chosen for penalty, choice in choices.items()}
        return sum(row["seconds"] for path in (folder / "tuning.sqlite", *stores) for row in sweeps.Store(path).rows())

    def _printed(self) -> str:
        rows = [(str(row), [f"{self.thesis[p][i]:.2f}" for p in STRENGTHS]) for i, row in enumerate(self.rows)]
        return table(self.row_name, list(STRENGTHS), rows)

    def _shown(self, found: dict[str, dict[int, list[float]]]) -> str:
        rows = [(str(row), [spread(found[p][row]) for p in STRENGTHS]) for row in self.rows]
        return "Test accuracy in percent, mean and standard deviation over the seeds:\n\n" + table(
            self.row_name, list(STRENGTHS), rows
        )

    def _reading(self, found: dict[str, dict[int, list[float]]]) -> str:
        """Return sentences on whether the matched degree wins, and by how much against the noise of the seeds."""
        said, resolved = [], 100 / len(self.test.X)
        for row, matched in self.matched.items():
            others = {p: float(np.mean(found[p][row])) for p in STRENGTHS if p != matched}
            rival = max(others, key=lambda p: others[p])
            difference = np.subtract(found[matched][row], found[rival][row])  # seeds share weights and orders
            mean, n = float(np.mean(difference)), len(difference)
            error = float(np.std(difference, ddof=1)) / n**0.5 if n > 1 else float("nan")
            if abs(mean) < resolved:
                said.append(
                    f"{row} {self._rows(row)}: the matched penalty {matched} and the best other column, "
                    f"{rival}, differ by less than {resolved:.2g} points, a single one of the test images."
                )
                continue
            if n < 3:
                clear = "; so few seeds cannot tell this from noise"
            else:
                limit = float(scipy.special.stdtrit(n - 1, 0.975)) * error
                clear = ", which is within the noise" if abs(mean) < limit else ", which is clear of the noise"
            verb = "beats" if mean > 0 else "loses to"
            said.append(
                f"{row} {self._rows(row)}: the matched penalty {matched} {verb} the best other column, "
                f"{rival}, by {abs(mean):.2f} ± {error:.2f} points (standard error of {n} paired seeds)"
                f"{clear}."
            )
        unmatched = [row for row in self.rows if row not in self.matched]
        said.extend(f"{row} {self._rows(row)}: no column has the degree of the network." for row in unmatched)
        return "\n".join(f"- {sentence}" for sentence in said)

    def _edges(self, choices: dict[str, Choice]) -> str:
        """Return a sentence on chosen settings that are the smallest or largest tried; empty if there are none."""
        found = []
        for name in ("lam", "rate", "epochs"):
            at = []
            for penalty, choice in choices.items():
                tried = {"lam": STRENGTHS[penalty], "rate": self.size.rates, "epochs": self.size.epochs}[name]
                if len(tried) > 1 and getattr(choice, name) in (min(tried), max(tried)):
                    at.append(penalty)
            if at:
                found.append(f"{name} in {' and '.join([', '.join(at[:-1])] * (len(at) > 1) + at[-1:])}")
        return f"\n\nAt an end of what was tried: {'; '.join(found)}." if found else ""

    def _tuned_on(self) -> str:
        """Return the rows on which the columns are tuned, in words."""
        return f"{' and '.join(map(str, self.tuned_on))} {self.row_name}"

    def _rows(self, row: int) -> str:
        """Return the noun of a row, such as "hidden layer" for 1."""
        return self.row_name.removesuffix("s") if row == 1 else self.row_name

    def _elsewhere(self) -> str:
        """Return a sentence that warns of figures for other data; empty on the data of the thesis."""
        name = getattr(self.train.description, "name", "cifar-10")
        if name == "cifar-10":
            return ""
        return (
            f" **This run is on the data set {name}.** Its columns can be compared with each other, but its accuracies "
            "cannot be compared with those of the thesis."
        )


class Table41(_Table):
    """Table 4.1: fully connected networks with 0 to 3 hidden layers of 500 units."""

    name, title = "k18-table-4.1", "Table 4.1 of K18 again"
    axis, dim, row_name = "depths", "depth", "hidden layers"
    rows, tuned_on = (0, 1, 2, 3), (1, 2)
    matched: ClassVar = {0: "l1", 1: "l2", 2: "l3"}
    longest = 40
    thesis: ClassVar = {
        "none": (23.48, 32.47, 32.90, 30.49),
        "l1": (24.87, 32.25, 33.52, 30.81),
        "l2": (24.83, 33.01, 34.54, 31.64),
        "l3": (23.63, 32.31, 34.41, 31.87),
    }
    about = (
        "The thesis gives the accuracy on the test images of CIFAR-10 of ReLU networks with 0 to 3 hidden layers of "
        "500 units, without a penalty and with `lam sum |w|^p` over all weights, p = 1, 2, 3. A network with h hidden "
        "layers is positively homogeneous of degree h + 1 in its weights; the thesis expects the penalty of the same "
        "degree to do best."
    )


class Table42(_Table):
    """Table 4.2: 4, 8 and 12 parallel subnetworks with one hidden layer of 500 units."""

    name, title = "k18-table-4.2", "Table 4.2 of K18 again"
    axis, dim, row_name = "subnetworks", "subnetworks", "subnetworks"
    rows, tuned_on = (4, 8, 12), (4,)
    matched: ClassVar = {4: "l2", 8: "l2", 12: "l2"}
    longest = 20  # more would take many hours on two cores: the largest network has 18 million weights
    thesis: ClassVar = {
        "none": (38.92, 40.11, 42.24),
        "l1": (40.80, 42.50, 43.45),
        "l2": (42.82, 43.17, 44.79),
        "l3": (40.50, 42.10, 42.32),
    }
    about = (
        "The thesis gives the accuracy on the test images of CIFAR-10 of sums of 4, 8 and 12 ReLU networks with one "
        "hidden layer of 500 units, without a penalty and with `lam sum |w|^p` over all weights, p = 1, 2, 3. The "
        "degree of each network in its weights is 2; the thesis expects the penalty of the same degree, l2, to do best."
    )


_PROTOCOL = """\
The thesis states cross-entropy, gradient descent, ReLU, and no other regularization. It states neither learning rate,
nor strength of the penalty, nor number of epochs, nor initial weights, nor batch. Here: {width} units in each hidden
layer, stochastic gradient descent without momentum on batches of {batch}, no biases, initial weights of standard
deviation `sqrt(2/(d_in + d_out))`. Each column was tuned on a fifth of the training images, which were held out: the
learning rate, strength and number of epochs with the largest accuracy of one seed, at {rows}. They hold for all rows of
the column. {candidates} Then every network was trained on all {train:,} training images for the chosen
number of epochs, with {seeds} seeds, and tested on {test:,} other images. The computation, tuning included, took
{minutes:.1f} minutes. Below, a difference is clear of the noise if zero is outside the 95 % confidence interval of its
mean (Student's t). The best other column is chosen by the accuracies that are compared, which favours it, and one
comparison in twenty is clear of the noise by chance."""

_BUDGET = """\
The rate and the number of epochs, the same for all columns, whose accuracies on the held-out fifth without a penalty,
at {rows}, are closest to those that the thesis prints. The strengths are the best ones of each column.

"""


def _tried(size: Size) -> str:
    """Return the values among which the columns are tuned, in sentences."""
    rates, epochs = (", ".join(f"{value:g}" for value in values) for values in (size.rates, size.epochs))
    strengths = (
        f"{', '.join(f'{lam:g}' for lam in lams)} for {name}" for name, lams in STRENGTHS.items() if name != "none"
    )
    return f"Tried were the rates {rates}, the epochs {epochs}, and the strengths {'; '.join(strengths)}."


def _chosen(choices: dict[str, Choice]) -> str:
    """Return the settings of each column as a table."""
    rows = [
        (name, [f"{c.lam:g}", f"{c.rate:g}", f"{c.epochs}", f"{100 * c.accuracy:.2f}"]) for name, c in choices.items()
    ]
    return table("column", ["lam", "rate", "epochs", "accuracy on the held-out fifth"], rows)


def _part(data: datasets.Dataset, chosen: slice) -> datasets.Dataset:
    """Return some samples of a data set, with its description."""
    labels = None if data.labels is None else data.labels[chosen]
    part = datasets.Dataset(data.X[chosen], data.Y[chosen], labels)
    return part if data.description is None else part.described(data.description)
