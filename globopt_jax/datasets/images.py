"""Make images smaller and gray: cut out the center, weight the colours, average over areas."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from globopt_jax.inputs import finite, integer

__all__ = ["Steps", "gray", "shrink"]

#: The weights of red, green and blue in ITU-R BT.601's luma.
_LUMA = np.array([0.299, 0.587, 0.114])
_CHUNK = 2000  # images that are converted at a time, so that no copy of all pixels in float64 is made


def shrink(X: np.ndarray, crop: int, size: int, channels: int = 1) -> Float[np.ndarray, "m n"]:
    """Cut out the central square of images, and average it, so that size x size pixels are left.

    The square is divided into size x size equal areas, and each pixel of the result is the mean over an area.

    Where crop is no multiple of size, a pixel that lies in several areas counts in each of them by the share of the
    pixel that lies there. KHK19 takes crop = 24 and size = 8 for MNIST, and does not say how it averages.

    Args:
        X: square images (m, h h channels), row by row, the channels of a pixel side by side.
        crop: the side of the central square, in pixels; at most h.
        size: the side of the result, in areas; at most crop.
        channels: the number of channels: 1 for gray images, 3 for colours.

    Returns:
        Images (m, size size channels), row by row.

    Raises:
        ValueError: the images are not square, or crop or size is out of range.
        TypeError: X does not hold real numbers.

    Example:
        >>> shrink(np.arange(16.0)[None], 4, 2).tolist()
        [[2.5, 4.5, 10.5, 12.5]]
    """
    X = finite("X", X)
    channels = integer("channels", channels, 1)
    side = round((X.shape[1] / channels) ** 0.5) if X.ndim == 2 else 0
    if not side or side**2 * channels != X.shape[1]:
        layout = "(m, h w)" if channels == 1 else f"(m, h w {channels})"
        raise ValueError(f"X: Expected: square images row by row, {layout}. Received: {X.shape}.")
    crop = integer("crop", crop, 1, side)
    size = integer("size", size, 1, crop)
    images = _center(X.reshape(-1, side, side, channels), crop)
    return _average(images, size).reshape(len(X), -1)


def gray(X: np.ndarray) -> Float[np.ndarray, "m n"]:
    """Return colour images as gray images, by the weights of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.

    Args:
        X: images (m, h w 3), the red, green and blue of a pixel side by side.

    Returns:
        Images (m, h w).

    Raises:
        ValueError: the number of columns is no multiple of 3.
        TypeError: X does not hold real numbers.

    Example:
        >>> gray(np.array([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])).round(3).tolist()
        [[1.0, 0.299]]
    """
    X = finite("X", X)
    if X.ndim != 2 or not X.shape[1] or X.shape[1] % 3:
        raise ValueError(f"X: Expected: colour images, (m, h w 3). Received: {X.shape}.")
    X = np.ascontiguousarray(X)  # the order of memory decides about the last digit
    return _luma(X.reshape(len(X), -1, 3)).astype(X.dtype if X.dtype.kind == "f" else np.float64)


class Steps(NamedTuple):
    """The steps that make images smaller, checked for images of one side and number of channels."""

    crop: int
    """The side of the central square."""
    gray: bool
    """Whether colours become gray."""
    size: int
    """The side of the result; equal to crop if nothing is averaged."""
    words: tuple[str, ...]
    """The steps in words; empty if nothing is done."""

    @classmethod
    def checked(cls, side: int, channels: int, crop: int | None, gray: bool, size: int | None) -> "Steps":
        """Return the steps for images (side, side, channels).

        Raises:
            ValueError: crop or size is out of range, or gray is no truth value.
        """
        words = []
        center = side if crop is None else integer("crop", crop, 1, side)
        if center < side:
            words.append(f"the central {center} x {center} pixels")
        if not isinstance(gray, bool | np.bool_):
            raise ValueError(f"gray: Expected: True or False. Received: {gray!r}.")
        if gray and channels == 3:
            words.append("gray by 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)")
        areas = center if size is None else integer("size", size, 1, center)
        if areas < center:
            words.append(f"averaged over {areas} x {areas} equal areas")
        return cls(center, bool(gray) and channels == 3, areas, tuple(words))

    def apply(self, pixels: np.ndarray, scale: float) -> Float[np.ndarray, "m n"]:
        """Return images (m, h, w, channels) as rows of float64, divided by scale."""
        channels = 1 if self.gray else pixels.shape[3]
        X = np.empty((len(pixels), self.size, self.size, channels))
        for begin in range(0, len(pixels), _CHUNK):
            images = _center(pixels[begin : begin + _CHUNK], self.crop) / scale
            images = _luma(images)[..., None] if self.gray else images
            X[begin : begin + _CHUNK] = images if self.size == self.crop else _average(images, self.size)
        return X.reshape(len(X), -1)


def _center(images: np.ndarray, crop: int) -> np.ndarray:
    begin = (images.shape[1] - crop) // 2
    return images[:, begin : begin + crop, begin : begin + crop]


def _luma(images: np.ndarray) -> np.ndarray:
    return np.einsum("...c,c->...", images, _LUMA)


def _average(images: np.ndarray, size: int) -> np.ndarray:
    crop = images.shape[1]
    edges, pixels = np.arange(size + 1) * crop / size, np.arange(crop)
    # The length of the part of pixel [p, p + 1] that lies in area [e_i, e_(i+1)].
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(overlap, 0) * size / crop
    return np.einsum("ih,mhwc,jw->mijc", weights, images, weights, optimize=True)
