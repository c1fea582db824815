"""The handwritten digits that come with scikit-learn: a small set of real data that needs no download."""

import numpy as np

from globopt_jax.datasets.description import Description
from globopt_jax.datasets.places import Place
from globopt_jax.datasets.source import Images, Source

__all__ = ["DIGITS"]


def _read(place: Place | None, split: str) -> Images:
    """Return all 1797 digits.

    Raises:
        ImportError: scikit-learn is not installed; the message names the extra that installs it.
    """
    del place, split
    try:
        from sklearn.datasets import load_digits  # imported here: it takes a second, for this data set alone
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is missing: pip install 'globopt_jax[app]'"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    return Images(np.asarray(pixels, np.float64).reshape(-1, 8, 8, 1), np.asarray(labels))


DIGITS = Source(
    description=Description(
        name="digits",
        about="Handwritten digits, 8 x 8 gray pixels of 0 to 16 divided by 16, row by row; one-hot labels.",
        shape=(1797, 64, 10),
        source="the copy in scikit-learn",
        licence="CC BY 4.0 (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, doi 10.24432/C50P49)",
    ),
    side=8,
    channels=1,
    white=16.0,
    counts={"train": 1797},
    read=_read,
)
