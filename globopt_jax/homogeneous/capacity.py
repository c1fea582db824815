"""Zero subnetworks pad a capacity that doubles, so that everything compiled sees O(log r) shapes."""

from typing import Any

import jax
import numpy as np

from globopt_jax.shapes import Params

__all__ = ["ROOM", "alive", "pad", "pad_to_power_of_two", "width"]

#: The smallest capacity: most problems then live in one compiled shape.
ROOM = 16


def width(params: Params) -> int:
    """The number r of stacked subnetworks."""
    return jax.tree.leaves(params)[0].shape[0]


def alive(params: Params) -> np.ndarray:
    """Which of the stacked subnetworks have any non-zero weight, shape (r,)."""
    return np.any([np.any(np.asarray(w).reshape(len(w), -1) != 0, axis=1) for w in jax.tree.leaves(params)], axis=0)


def pad(params: Params, capacity: int) -> Params:
    """The living subnetworks first, then zeros up to the capacity (at least as many as live)."""
    keep = np.flatnonzero(alive(params))
    capacity = max(capacity, len(keep))

    def padded(w: Any) -> jax.Array:
        w = np.asarray(w)
        zeros = np.zeros((capacity - len(keep), *w.shape[1:]), w.dtype)
        return jax.device_put(np.concatenate([w[keep], zeros]))  # `jnp.asarray` compiles for every new shape

    return jax.tree.map(padded, params)


def pad_to_power_of_two(params: Params) -> Params:
    """The subnetworks as they are, followed by zeros up to a power of two, at least `ROOM`."""
    r = width(params)
    extra = max(ROOM, 1 << (r - 1).bit_length()) - r
    return jax.tree.map(lambda w: jax.device_put(np.pad(np.asarray(w), [(0, extra)] + [(0, 0)] * (w.ndim - 1))), params)
