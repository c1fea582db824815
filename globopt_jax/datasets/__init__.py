"""Data to train on: samples are rows, class labels are one-hot, scalar targets have one column.

`load` knows data sets by name, one module each; `load_npz` reads a user's own file; `validate` judges it.

    >>> X, Y, labels = load("digits")
    >>> X.shape, Y.shape, labels[:5].tolist()
    ((1797, 64), (1797, 10), [0, 1, 2, 3, 4])
    >>> describe("digits").source
    "scikit-learn's own copy"
"""

import os
import pathlib

from globopt_jax.datasets import digits, mnist
from globopt_jax.datasets.arrays import Dataset, load_npz, one_hot, validate
from globopt_jax.datasets.description import Description
from globopt_jax.datasets.images import shrink

__all__ = ["Dataset", "Description", "describe", "load", "load_npz", "names", "one_hot", "shrink", "validate"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__


_MODULES = {"digits": digits, "mnist": mnist}  # a data set is a module with DESCRIPTION and load(root)


def names() -> tuple[str, ...]:
    """Return the names that `load` knows."""
    return tuple(_MODULES)


def describe(name: str) -> Description:
    """Say what a data set is, where it comes from and how it may be used, without loading it.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
    """
    return _module(name).DESCRIPTION


def load(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: one of `names()`.
        root: the folder that holds the official files; data that come with a package ignore it.

    Returns:
        X: (m, dx), Y: (m, dy) and labels: (m,), NumPy arrays.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones; if a file is not what its name says.
        FileNotFoundError: if the folder lacks a file.
    """
    return _module(name).load(None if root is None else pathlib.Path(root))


def _module(name: str):
    if name not in _MODULES:
        raise ValueError(f"name: Expected: one of {', '.join(_MODULES)}. Received: {name!r}.")
    return _MODULES[name]
