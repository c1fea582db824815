"""The arrays X and Y in the form that the whole package takes, and the checks of users' data."""

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from globopt_jax import npz
from globopt_jax.datasets.description import Description
from globopt_jax.inputs import check_data, finite, numbers


class _Arrays(NamedTuple):
    X: np.ndarray
    Y: np.ndarray
    labels: np.ndarray | None


class Dataset(_Arrays):
    """Inputs, targets and labels: arrays only, so that a data set is a pytree; and words beside them.

    ``X, Y, labels = load("digits")`` unpacks the arrays. The words do not pass through `jit` or `jax.tree.map`, whose
    results have other arrays than those that the words describe.
    """

    # A NamedTuple has no room for words, so they are an attribute of this subclass; jax treats it as a NamedTuple. The
    # fields stand here again, so that they have descriptions.
    X: np.ndarray = _Arrays.X  # pyright: ignore[reportIncompatibleVariableOverride]
    """Inputs (m, dx)."""
    Y: np.ndarray = _Arrays.Y  # pyright: ignore[reportIncompatibleVariableOverride]
    """Targets (m, dy)."""
    labels: np.ndarray | None = _Arrays.labels  # pyright: ignore[reportIncompatibleVariableOverride]
    """Class labels (m,) from 0 to dy - 1; None if Y is not one-hot."""
    description: Description | None = None
    """What `load` did and found, in words; None if the arrays come from elsewhere."""

    def described(self, description: Description) -> "Dataset":
        """Return the same arrays with a description."""
        same = Dataset(*self)
        same.description = description
        return same

    def __str__(self) -> str:
        """Return the description in a few sentences, or the shapes if there is none."""
        return f"X {self.X.shape}, Y {self.Y.shape}" if self.description is None else str(self.description)


def one_hot(labels: ArrayLike, classes: int | None = None) -> Float[np.ndarray, "m classes"]:
    """Return class labels as targets: ``Y[i, j] = 1`` if ``labels[i] = j``, else 0, in float64.

    Args:
        labels: (m,) integers from 0 to classes - 1.
        classes: the number of classes, dy. None is the largest label plus one.

    Raises:
        ValueError: the labels are no vector of integers, or are not in that range.

    Example:
        >>> one_hot([2, 0, 1])
        array([[0., 0., 1.],
               [1., 0., 0.],
               [0., 1., 0.]])
    """
    try:
        labels = numbers("labels", labels)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "iu":
        received = f"shape {labels.shape} and dtype {labels.dtype}"
        raise ValueError(f"labels: Expected: a vector of integers. Received: {received}.")
    if classes is None:
        classes = int(labels.max()) + 1
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels: Expected: labels from 0 to {classes - 1}. Received: labels from {labels.min()} to {labels.max()}."
        )
    return (labels[:, None] == np.arange(classes)).astype(np.float64)


def validate(X: ArrayLike, Y: ArrayLike) -> tuple[Float[np.ndarray, "m dx"], Float[np.ndarray, "m dy"]]:
    """Check inputs and targets, and return them as floating-point arrays.

    float32 and float64 keep their dtype, in this machine's byte order. Integers, booleans and other floats become
    float64. Sparse arrays and arrays with masked entries are refused, as in the whole package (`globopt_jax.inputs`).

    Args:
        X: finite inputs (m, dx), samples in rows.
        Y: finite targets (m, dy): one-hot for classes, one column for a scalar target.

    Raises:
        ValueError: an array has the wrong number of dimensions (for labels that should be one-hot, the message says
            how to convert them), is empty, does not hold real numbers, or holds NaN or infinities (the message says
            how many, and where the first is); or X and Y have different numbers of rows.

    Example:
        >>> X, Y = validate([[0, 1], [2, 3]], [[1.0], [2.0]])
        >>> X.dtype, X.shape, Y.shape
        (dtype('float64'), (2, 2), (2, 1))
    """
    X, Y = _real("X", X), _real("Y", Y)
    check_data(X, Y)
    return finite("X", X), finite("Y", Y)


def load_npz(path: str | os.PathLike[str]) -> Dataset:
    """Read X (m, dx) and Y (m, dy) from an .npz and check them. If Y is one-hot, the labels are derived from Y.

    Args:
        path: the file; arrays with other names in it are ignored.

    Returns:
        A `Dataset`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no .npz, lacks X or Y (the message names the keys that the file has), or holds arrays
            that `validate` refuses.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "data.npz"
    ...     np.savez(path, X=np.zeros((3, 2)), Y=one_hot([0, 1, 1]))
    ...     load_npz(path).labels
    array([0, 1, 1])
    """
    arrays = npz.read_arrays(path, only=("X", "Y"))
    missing = [name for name in ("X", "Y") if name not in arrays]
    if missing:
        raise ValueError(
            f"{path}: Expected: arrays X (m, dx) and Y (m, dy). Received: a file without {' and '.join(missing)}, but "
            f"with the keys: {', '.join(npz.names(path)) or 'none'}."
        )
    try:
        X, Y = validate(arrays["X"], arrays["Y"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Dataset(X, Y, _labels(Y))


def _real(name: str, array: ArrayLike) -> np.ndarray:
    """Return an array of float32 or float64, or raise ValueError."""
    try:
        found = numbers(name, array)
    except TypeError as error:  # not real: complex, objects, text, times, records; sparse
        raise ValueError(str(error)) from error
    given = np.asarray(array).dtype
    return found if given.kind == "f" and given.itemsize in (4, 8) else found.astype(np.float64)


def _labels(Y: np.ndarray) -> Int[np.ndarray, " m"] | None:
    """Return the labels of one-hot targets with two or more classes, or None for other targets."""
    one_hot_rows = Y.shape[1] > 1 and bool(np.all((Y == 0) | (Y == 1)) and np.all(Y.sum(axis=1) == 1))
    return Y.argmax(axis=1) if one_hot_rows else None
