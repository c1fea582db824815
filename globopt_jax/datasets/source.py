"""What a module of a data set gives to `load`: a description, the shape of the images, and a reader."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from globopt_jax.datasets.description import Description
from globopt_jax.datasets.places import Place

__all__ = ["Images", "Source", "counted"]


class Images(NamedTuple):
    """The images of one split as they are in the files."""

    pixels: np.ndarray
    """Images (m, h, w, channels)."""
    labels: np.ndarray
    """Class labels (m,) from 0 to 9."""
    notes: tuple[str, ...] = ()
    """Sentences on what differs from the official split."""


class Source(NamedTuple):
    """A data set of images."""

    description: Description
    """The official training split in words."""
    side: int
    """The height and the width of an image."""
    channels: int
    """1 or 3."""
    white: float
    """The largest value of a pixel, by which pixels are divided."""
    counts: dict[str, int]
    """The official number of images of each split."""
    read: Callable[[Place | None, str], Images]
    """Reads a split from a place; a set that comes with a package needs no place."""
    base: str | None = None
    """The address of the official folder; None if nothing is downloaded."""
    unpacked: str | None = None
    """The name of the folder that the official archive unpacks to."""


def counted(found: int, official: int, split: str) -> tuple[str, ...]:
    """Return a sentence if a file has another number of images than the official one, and else no sentence."""
    if found == official:
        return ()
    kind = "training" if split == "train" else "test"
    return (f"{found:,} images; the official {kind} set has {official:,}.",)
