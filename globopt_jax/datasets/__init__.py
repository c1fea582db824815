"""Data to train on: samples are rows, class labels are one-hot, and scalar targets have one column.

`load` returns a data set by its name, `khk19` prepares it as Figure 1 of that paper does, `load_npz` reads a user's
file, and `validate` checks arrays.

    >>> X, Y, labels = load("digits")
    >>> X.shape, Y.shape, labels[:5].tolist()
    ((1797, 64), (1797, 10), [0, 1, 2, 3, 4])
    >>> describe("digits").source
    'the copy in scikit-learn'
"""

from globopt_jax.datasets.arrays import Dataset, load_npz, one_hot, validate
from globopt_jax.datasets.description import Description
from globopt_jax.datasets.idx import read_idx
from globopt_jax.datasets.images import gray, shrink
from globopt_jax.datasets.loading import describe, khk19, load, names, subset

__all__ = ["Dataset", "Description", "describe", "gray", "khk19", "load", "load_npz", "names", "one_hot", "read_idx"]
__all__ += ["shrink", "subset", "validate"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return sorted(__all__)
