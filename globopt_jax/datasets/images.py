"""Make images smaller by cutting out the center and averaging over areas."""

import numpy as np
from jaxtyping import Float

from globopt_jax.inputs import finite, integer

__all__ = ["shrink"]


def shrink(X: np.ndarray, crop: int, size: int) -> Float[np.ndarray, "m n"]:
    """Cut out the central square of gray images, and average it over size x size equal areas.

    Where crop is no multiple of size, a pixel that lies in several areas counts in each of them by the share of the
    pixel that lies there. KHK19 takes crop = 24 and size = 8 for MNIST, and does not say how it averages.

    Args:
        X: square images (m, h h), row by row.
        crop: the side of the central square, in pixels; at most h.
        size: the side of the result, in areas; at most crop.

    Returns:
        Images (m, size size), row by row.

    Raises:
        ValueError: the images are not square, or crop or size is out of range.
        TypeError: X does not hold real numbers.

    Example:
        >>> shrink(np.arange(16.0)[None], 4, 2).tolist()
        [[2.5, 4.5, 10.5, 12.5]]
    """
    X = finite("X", X)
    side = round(X.shape[1] ** 0.5) if X.ndim == 2 else 0
    if not side or side**2 != X.shape[1]:
        raise ValueError(f"X: Expected: square images row by row, (m, h w). Received: {X.shape}.")
    crop = integer("crop", crop, 1, side)
    size = integer("size", size, 1, crop)
    begin = (side - crop) // 2
    edges, pixels = np.arange(size + 1) * crop / size, np.arange(crop)
    # The length of the part of pixel [p, p + 1] that lies in area [e_i, e_(i+1)].
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(overlap, 0) * size / crop
    center = X.reshape(-1, side, side)[:, begin : begin + crop, begin : begin + crop]
    return np.einsum("ih,mhw,jw->mij", weights, center, weights, optimize=True).reshape(len(X), -1)
