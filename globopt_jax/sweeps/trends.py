"""Count in how many cases J falls in a landscape: with the width, with the depth, and by training."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from globopt_jax.shapes import Array

if TYPE_CHECKING:
    import xarray

__all__ = ["Trends", "averaged", "trends"]

#: Differences of J below this share of the largest J are rounding: a network that fits all targets has J = 1e-25.
ROUNDING = 1e-9


class Trends(NamedTuple):
    """Numbers of pairs, in three columns: J falls, stays the same, rises. J is the mean over the seeds of a shape.

    `width` compares neighbouring widths and `depth` neighbouring depths, with a row for each stage: initial, trained.
    `training` compares the stages of each shape, a depth and a width. `reason` has the counts in sentences.
    """

    width: Array
    """(2, 3): from one width to the next of the same depth. The rows are the stages: initial, trained."""
    depth: Array
    """(2, 3): from one depth to the next of the same width. The rows are the stages: initial, trained."""
    training: Array
    """(3,): from the initial to the trained weights of the same shape."""

    @property
    def reason(self) -> str:
        """The counts in sentences; an axis with one value has none."""
        found = []
        for name, counts in (("width", self.width), ("depth", self.depth)):
            if np.sum(counts):
                before, after = np.asarray(counts)
                found.append(
                    f"From one {name} to the next, J falls in {before[0]} of {sum(before)} cases before training"
                    f"{_same(before)}, and in {after[0]} of {sum(after)} after it{_same(after)}."
                )
        if np.sum(self.training):
            falls, stays, rises = (int(n) for n in self.training)
            more = f", and raises it in {rises}" * bool(rises)
            found.append(f"Training lowers J in {falls} of {falls + stays + rises} cases{_same(self.training)}{more}.")
        return " ".join(found)


def trends(found: "xarray.Dataset") -> Trends:
    """Count in how many pairs of neighbouring shapes of a landscape J falls, as the text of KHK19's Figure 1 says.

    J is averaged over the seeds first. Pairs with a shape that has no J are not counted, and differences below 1e-9 of
    the largest J count as none. Host function.

    Args:
        found: the result of `landscape`, or of `sweep` or `Store.to_xarray` with the dimensions depth, width and stage.
            Every further dimension but the seeds has pairs for each of its values.

    Returns:
        A `Trends`; `.reason` has the counts in sentences.

    Raises:
        ValueError: the dataset has no J, or lacks one of the three dimensions.

    Example:
        >>> from globopt_jax.sweeps import landscape
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
        >>> found = trends(landscape(X, Y, depths=[1, 2], widths=[2, 3], seeds=2, epochs=0))
        >>> found.width.sum(axis=1), found.depth.sum(axis=1), found.training
        (array([2, 2]), array([2, 2]), array([0, 4, 0]))
    """
    mean, _ = averaged(found)
    mean = mean.transpose("stage", ..., "depth", "width")
    J = mean.sel(stage=["initial", "trained"]).to_numpy()
    largest = float(np.nanmax(J, initial=0.0, where=np.isfinite(J)))

    def counts(differences: np.ndarray) -> np.ndarray:
        small = ROUNDING * largest
        return np.array(
            [np.sum(differences < -small), np.sum(np.abs(differences) <= small), np.sum(differences > small)]
        )

    width, depth = (np.stack([counts(rows) for rows in np.diff(J, axis=axis)]) for axis in (-1, -2))
    return Trends(width, depth, counts(J[1] - J[0]))


def averaged(found: "xarray.Dataset", name: str = "J") -> tuple[Any, Any]:
    """Return mean and standard deviation of a variable over the seeds, where there are seeds.

    Seeds whose value is missing are left out. The standard deviation of fewer than two values is missing.

    Raises:
        ValueError: the dataset has no such variable, or lacks the dimensions depth, width and stage.
    """
    if name not in getattr(found, "data_vars", ()):
        raise ValueError(f"found: Expected: a dataset with {name}. Received: {_names(found)}.")
    values = found[name]
    missing = [dim for dim in ("depth", "width", "stage") if dim not in values.dims]
    if missing:
        raise ValueError(
            f"found: Expected: the dimensions depth, width and stage. Received: none of the name {missing[0]}; give "
            "depths and widths as lists, also where they have one value."
        )
    if "seed" not in values.dims:
        return values, values * np.nan
    there = values.notnull().sum("seed")
    mean = values.sum("seed").where(there > 0) / there.clip(min=1)
    squares = ((values - mean) ** 2).sum("seed")
    return mean, ((squares / (there - 1).clip(min=1)) ** 0.5).where(there > 1)


def _same(counts: Any) -> str:
    return f" (it stays the same in {int(counts[1])})" * bool(counts[1])


def _names(found: Any) -> str:
    return ", ".join(map(str, getattr(found, "data_vars", ()))) or type(found).__name__
