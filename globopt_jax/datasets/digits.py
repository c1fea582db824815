"""The handwritten digits that come with scikit-learn: a small set of real data that needs no download."""

import pathlib

import numpy as np

from globopt_jax.datasets.arrays import Dataset, one_hot
from globopt_jax.datasets.description import Description

DESCRIPTION = Description(
    name="digits",
    about="Handwritten digits, 8 x 8 gray pixels of 0 to 16 divided by 16, row by row; one-hot labels.",
    shape=(1797, 64, 10),
    source="the copy in scikit-learn",
    licence="CC BY 4.0 (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, doi 10.24432/C50P49)",
)


def load(root: pathlib.Path | None = None) -> Dataset:
    """Return all 1797 digits in float64.

    Args:
        root: not used, since the digits come with scikit-learn.

    Raises:
        ImportError: scikit-learn is not installed; the message names the extra that installs it.
    """
    del root
    try:
        from sklearn.datasets import load_digits  # imported here: it takes a second, for this data set alone
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is missing: pip install 'globopt_jax[app]'"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    labels = np.asarray(labels)
    return Dataset(X=np.asarray(pixels, np.float64) / 16, Y=one_hot(labels), labels=labels)
