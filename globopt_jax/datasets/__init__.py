"""Data to train on: samples are rows, class labels are one-hot, and scalar targets have one column.

`load` returns a data set by its name, `load_npz` reads a user's file, and `validate` checks arrays.

    >>> X, Y, labels = load("digits")
    >>> X.shape, Y.shape, labels[:5].tolist()
    ((1797, 64), (1797, 10), [0, 1, 2, 3, 4])
    >>> describe("digits").source
    'the copy in scikit-learn'
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


_MODULES = {"digits": digits, "mnist": mnist}  # each module has DESCRIPTION and load(root)


def names() -> tuple[str, ...]:
    """Return the names of all data sets.

    >>> names()
    ('digits', 'mnist')
    """
    return tuple(_MODULES)


def describe(name: str) -> Description:
    """Return the description of a data set without loading it: its content, source and licence.

    Args:
        name: one of `names()`.

    Raises:
        ValueError: the name is unknown; the message lists the known names.

    >>> describe("mnist").shape
    (60000, 784, 10)
    """
    return _module(name).DESCRIPTION


def load(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: one of `names()`.
        root: the folder that holds the official files. None downloads the files once into the user's cache folder. Data
            sets that come with a package, such as digits, do not use it.

    Returns:
        A `Dataset` of NumPy arrays: X (m, dx), Y (m, dy) and labels (m,).

    Raises:
        ValueError: the name is unknown (the message lists the known names), or a file has not the format that its name
            promises.
        FileNotFoundError: the folder lacks a file.
        ImportError: a package is missing that has the data or downloads them; the message says how to install it.

    >>> load("digits").X.shape
    (1797, 64)
    """
    return _module(name).load(None if root is None else pathlib.Path(root))


def _module(name: str):
    if name not in _MODULES:
        raise ValueError(f"name: Expected: one of {', '.join(_MODULES)}. Received: {name!r}.")
    return _MODULES[name]
