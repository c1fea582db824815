"""The plan of a sweep: data, axes and settings, all checked before any work; and its cells in portions of work."""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from globopt_jax import __version__
from globopt_jax.inputs import check_data, check_range, common_dtype, finite, integer, number
from globopt_jax.origin import hash_arrays
from globopt_jax.sweeps.padding import Arrays, Shape, arrays_for
from globopt_jax.sweeps.recipe import Recipe, power_of

__all__ = [
    "AXES",
    "MOST_SEEDS",
    "Cell",
    "Data",
    "Plan",
    "Portion",
    "Row",
    "Values",
    "column",
    "is_one",
    "planned",
    "seeds_of",
]

#: On CPUs the seeds of a cell are trained in one call, and as many cells as there are cores at the same time, while the
#: weights of a network take at most this many bytes. Larger weights leave the caches of a processor, and then one
#: network after the other is faster.
CACHED = 2**20
#: The most seeds that a number may stand for: with more the axis alone would fill the memory.
MOST_SEEDS = 10**6
#: On accelerators all networks whose arrays have one shape are trained in one call, up to this many bytes of weights.
TOGETHER = 2**28


#: One value of an axis, or several of them: a list, a tuple, a range, an array.
Values: TypeAlias = Any


class Cell(NamedTuple):
    """The coordinates of a cell, without its seed."""

    depth: int
    """The number H of hidden layers."""
    width: int
    """The number of units of each hidden layer."""
    subnetworks: int
    """The number r of parallel subnetworks, whose outputs are added."""
    penalty: str
    """none, or lP for lam times the sum of ``|w|^P`` over all weights."""
    lam: float
    """The strength of the penalty."""
    rate: float
    """The learning rate."""

    @property
    def shape(self) -> Shape:
        """The shape of the network."""
        return Shape(self.depth, self.width, self.subnetworks)


#: The names of the axes, in the order of the dimensions.
AXES = (*Cell._fields, "seed")


def column(name: str, stage: str) -> str:
    """Return the name under which a row of a store holds a quantity of a stage.

    Example:
        >>> column("loss", "epoch 3")
        'loss_epoch_3'
    """
    return f"{name}_{stage.replace(' ', '_')}"


#: A finished cell: its coordinates and numbers by the names of the columns of a store.
Row: TypeAlias = dict[str, Any]


class Data(NamedTuple):
    """Arrays of one dtype."""

    X: np.ndarray
    """Inputs (m, dx)."""
    Y: np.ndarray
    """Targets (m, dy)."""
    test: tuple[np.ndarray, np.ndarray] | None
    """Inputs and targets of samples that are not trained on; None if there are none."""

    @property
    def classes(self) -> bool:
        """Whether the targets are one-hot, so that accuracies have a meaning."""
        return self.Y.shape[1] > 1 and bool(np.all((self.Y == 0) | (self.Y == 1)) and np.all(self.Y.sum(axis=1) == 1))


class Portion(NamedTuple):
    """Work that is done and stored as a whole."""

    cells: tuple[Cell, ...]
    """The cells, whose networks have arrays of one shape."""
    seeds: tuple[int, ...]
    """The seeds of each cell."""

    @property
    def members(self) -> list[tuple[Cell, int]]:
        """The networks, which are trained in one call: the seeds of the first cell, then those of the next."""
        return [*itertools.product(self.cells, self.seeds)]


@dataclass(frozen=True)
class Plan:
    """A sweep whose arguments were checked. Nothing has been computed yet."""

    data: Data
    """The samples."""
    axes: dict[str, tuple[Any, ...]]
    """The values of each axis of `AXES`."""
    scalars: frozenset[str]
    """The axes that were given as one value and are no dimensions of the result."""
    recipe: Recipe
    """The settings that all cells share."""

    @property
    def cells(self) -> list[Cell]:
        """All cells, in the order of the axes."""
        return [Cell(*point) for point in itertools.product(*(self.axes[name] for name in Cell._fields))]

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the numbers of a cell beside its coordinates."""
        data, hashes = self.data, {"X": self.data.X, "Y": self.data.Y}
        if data.test is not None:
            hashes |= {"X_test": data.test[0], "Y_test": data.test[1]}
        return {
            "globopt_jax": __version__,
            "data": hash_arrays(hashes),
            "dtype": data.X.dtype.name,
            **self.recipe.described(),
        }

    @functools.cached_property
    def arrays(self) -> dict[Shape, Arrays]:
        """The padded arrays of each shape."""
        return arrays_for([cell.shape for cell in self.cells], self.data.X.shape[1], self.data.Y.shape[1])

    def is_cached(self, cell: Cell) -> bool:
        """Whether the weights of a network, with their padding, take at most `CACHED` bytes."""
        return self._size(cell) <= CACHED

    def _size(self, cell: Cell) -> int:
        """Return the bytes of the padded weights of a network."""
        return self.arrays[cell.shape].parameters * self.data.X.dtype.itemsize

    def portions(self, finished: Iterable[tuple[Any, ...]] = (), *, alone: bool | None = None) -> list[Portion]:
        """Return the work that is left, given the coordinates (cell and seed) that are finished.

        Args:
            finished: coordinates of networks.
            alone: whether each cell is trained in a call of its own. By default this is so on CPUs, where one call for
                several cells is hardly faster, since it computes the missing layers of shallow networks, too; and
                cells are stored sooner.
        """
        done, arrays = set(finished), self.arrays
        alone = jax.default_backend() == "cpu" if alone is None else alone
        alike: dict[Any, list[Cell]] = {}
        for cell in self.cells:
            missing = tuple(seed for seed in self.axes["seed"] if (*cell, seed) not in done)
            if missing:
                alike.setdefault((cell if alone else arrays[cell.shape], missing), []).append(cell)
        cut = _one_cell_each if alone else _as_many_as_fit
        return [portion for (_, seeds), cells in alike.items() for portion in cut(cells, seeds, self._size(cells[0]))]

    def cost(self, portion: Portion) -> float:
        """Return a rough number of operations of a portion, for estimates of the time left."""
        m, dy = self.data.Y.shape
        total = 0.0
        for cell in portion.cells:
            N = cell.shape.parameters(self.data.X.shape[1], dy)
            # A step on a small network takes as long as one on a network of some 2,000 weights.
            total += 6.0 * self.recipe.epochs * m * (N + 2000)
            smaller = min(N, m * dy)  # the side of the Gram matrix
            total += 2 * (float(m) * N * smaller + 500.0 * m * dy * N) if self.recipe.tangent else 0.0
        return len(portion.seeds) * total


def _one_cell_each(cells: Sequence[Cell], seeds: tuple[int, ...], size: int) -> list[Portion]:
    """Return a portion for each cell, or for each of its networks if the weights of one, of `size` bytes, are large."""
    groups = [seeds] if size <= CACHED else [(seed,) for seed in seeds]
    return [Portion((cell,), group) for cell in cells for group in groups]


def _as_many_as_fit(cells: Sequence[Cell], seeds: tuple[int, ...], size: int) -> list[Portion]:
    """Return portions of at most `TOGETHER` bytes of weights, with `size` bytes for each network."""
    fit = max(TOGETHER // size, 1)
    if fit < len(seeds):
        return [Portion((cell,), seeds[i : i + fit]) for cell in cells for i in range(0, len(seeds), fit)]
    count = fit // len(seeds)
    return [Portion(tuple(cells[i : i + count]), seeds) for i in range(0, len(cells), count)]


def planned(X: Any, Y: Any, test: Any, axes: Mapping[str, Any], options: Mapping[str, Any]) -> Plan:
    """Return the plan of a sweep, or raise an error that names the argument that is wrong.

    Args:
        X: inputs (m, dx).
        Y: targets (m, dy).
        test: a pair of inputs and targets, or None.
        axes: the values of each axis; a single value is no dimension of the result.
        options: the settings, see `Recipe.of`.
    """
    data = _data(X, Y, test)
    checked, scalars = {}, set()
    for name in AXES:
        checked[name], scalar = _axis(name, axes[name])
        if scalar:
            scalars.add(name)
    recipe = Recipe.of(options)
    powers = tuple(dict.fromkeys(power_of(p) for p in checked["penalty"]))
    for name in ("lam", "rate"):
        _check_held(name, checked[name], data.X.dtype)
    if any(powers) and not any(checked["lam"]):
        named = ", ".join(p for p in checked["penalty"] if power_of(p))
        raise ValueError(f"lams: Expected: a strength above 0 for the penalty {named}. Received: 0.")
    plan = Plan(data, checked, frozenset(scalars), replace(recipe, powers=powers))
    padded = any(arrays.depth > shape.depth or arrays.width > shape.width for shape, arrays in plan.arrays.items())
    if padded and recipe.epochs and not recipe.optimizer.keeps_padding():
        raise ValueError(
            "optimizer: Expected: an optimizer whose updates do not depend on the size of a layer, so that networks of "
            f"several shapes can share one program. Received: {recipe.optimizer.name}; sweep one shape at a time."
        )
    parallel = any(cell.subnetworks > 1 for cell in plan.cells)
    if parallel and 0 in plan.axes["depth"]:  # the arrays hold one matrix, which is trained at another rate than a sum
        raise ValueError(
            f"depths: Expected: at least 1 hidden layer in {max(plan.axes['subnetworks'])} subnetworks. Received: 0."
        )
    if parallel and recipe.epochs and not recipe.optimizer.keeps_arrangement():
        raise ValueError(
            "optimizer: Expected: an optimizer whose updates do not depend on how the weights of subnetworks lie in an "
            f"array. Received: {recipe.optimizer.name}, which fits networks with subnetworks=1."
        )
    return plan


def seeds_of(given: Any) -> Any:
    """Return the seeds 0 to n - 1 for a number n."""
    return range(integer("seeds", given, 1, MOST_SEEDS)) if is_one(given) else given


def is_one(given: Values) -> bool:
    """Whether an axis was given as one value."""
    return isinstance(given, str) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0


def _data(X: Any, Y: Any, test: Any) -> Data:
    pairs = {"X": X, "Y": Y}
    if test is not None:
        if not isinstance(test, tuple | list) or len(test) != 2:
            raise ValueError(f"test: Expected: a pair (X, Y). Received: {type(test).__name__}.")
        pairs |= {"test[0]": test[0], "test[1]": test[1]}
    arrays = {name: finite(name, array) for name, array in pairs.items()}
    dtype = common_dtype([*arrays.values()])
    arrays = {name: np.array(array, dtype) for name, array in arrays.items()}
    check_data(arrays["X"], arrays["Y"])
    if not np.any(arrays["X"]):
        raise ValueError("X: Expected: inputs that are not all 0. Received: zeros, from which no network can learn.")
    for name in ("X", "Y"):
        check_range(name, arrays[name], np.dtype(np.float64), tiny=True)  # J is computed in float64
    if test is None:
        return Data(arrays["X"], arrays["Y"], None)
    held = arrays["test[0]"], arrays["test[1]"]
    try:
        check_data(*held)
    except ValueError as error:
        raise ValueError(f"test: {error}") from error
    if held[0].shape[1:] != arrays["X"].shape[1:] or held[1].shape[1:] != arrays["Y"].shape[1:]:
        raise ValueError(
            f"test: Expected: {arrays['X'].shape[1]} inputs and {arrays['Y'].shape[1]} targets, as in X and Y. "
            f"Received: shapes {held[0].shape} and {held[1].shape}."
        )
    return Data(arrays["X"], arrays["Y"], held)


def _check_held(name: str, values: Sequence[float], dtype: np.dtype) -> None:
    """Check that the values of an axis stay positive and finite, or zero, in the dtype of training."""
    for value in values:
        with np.errstate(over="ignore"):
            held = dtype.type(value)
        if not np.isfinite(held) or (value and not held):
            argument = _CHECKS[name][0]
            raise ValueError(f"{argument}: Expected: numbers that {dtype} can hold, as X. Received: {value!r}.")


#: For each axis: the name of the argument, what is expected, and a function that returns a value or raises ValueError.
_CHECKS: dict[str, Any] = {
    "depth": ("depths", lambda name, v: integer(name, v, 0)),
    "width": ("widths", lambda name, v: integer(name, v, 1)),
    "subnetworks": ("subnetworks", lambda name, v: integer(name, v, 1)),
    "penalty": ("penalties", lambda name, v: (power_of(v), v)[1]),
    "lam": ("lams", lambda name, v: number(name, v, "a number that is not negative", lambda x: x >= 0)),
    "rate": ("rates", lambda name, v: number(name, v, "a positive number", lambda x: x > 0)),
    "seed": ("seeds", lambda name, v: integer(name, v, 0, 2**32 - 1)),
}


def _axis(name: str, given: Any) -> tuple[tuple[Any, ...], bool]:
    """Return the values of an axis, and whether it was given as one value."""
    argument, check = _CHECKS[name]
    scalar = is_one(given)
    values = [given] if scalar else list(given)
    if not values:
        raise ValueError(f"{argument}: Expected: at least one value. Received: none.")
    found = tuple(check(argument, v.item() if isinstance(v, np.generic | jax.Array) else v) for v in values)
    twice = [v for i, v in enumerate(found) if v in found[:i]]
    if twice:
        raise ValueError(f"{argument}: Expected: different values. Received: {twice[0]!r} more than once.")
    return found, scalar
