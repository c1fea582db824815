"""The handwritten digits that come with scikit-learn: small, real, and there without a download."""

import pathlib

import numpy as np

from globopt_jax.datasets.arrays import Dataset, one_hot
from globopt_jax.datasets.description import Description

DESCRIPTION = Description(
    name="digits",
    about="Handwritten digits, 8 x 8 gray pixels of 0 to 16 divided by 16, row by row; one-hot labels.",
    shape=(1797, 64, 10),
    source="scikit-learn's own copy",
    licence="CC BY 4.0 (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, doi 10.24432/C50P49)",
)


def load(root: pathlib.Path | None = None) -> Dataset:
    """Return all 1797 digits in float64; `root` is of no use here.

    Raises:
        ImportError: if scikit-learn is not installed; the message names the extra that brings it.
    """
    del root
    try:
        from sklearn.datasets import load_digits  # late: a second's import, for one data set
    except ImportError as error:
        raise ImportError("Expected scikit-learn, which brings the digits: pip install 'globopt_jax[app]'") from error
    pixels, labels = load_digits(return_X_y=True)
    labels = np.asarray(labels)
    return Dataset(X=np.asarray(pixels, np.float64) / 16, Y=one_hot(labels), labels=labels)
