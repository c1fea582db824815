"""NumPy functions inside traced programs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from globopt_jax.shapes import Array

__all__ = ["on_host"]


def on_host(function: Callable[..., Sequence[Any]], like: Sequence[jax.ShapeDtypeStruct], *arrays: Array) -> list[Any]:
    """Return what a pure function of NumPy arrays returns, as arrays of the shapes and dtypes of `like`.

    Under `vmap` it runs for one after the other. On CPUs it reads and writes the program's memory. `jax.pure_callback`
    copies its arguments there by a thread of the program, and waits forever if that is the thread which runs the
    callback, as on a single core.
    """

    def in_place(*arrays: Array) -> list[Any]:
        def fill(_: Any, out: Sequence[Any], *given: Any) -> None:
            for place, result in zip(out, function(*map(np.asarray, given)), strict=True):
                np.asarray(place)[...] = result

        return list(buffer_callback(fill, tuple(like), vmap_method="sequential")(*arrays))

    def copied(*arrays: Array) -> list[Any]:
        def crossing(*given: Any) -> list[np.ndarray]:
            back = [_from_bits(np.asarray(bits), a.dtype) for bits, a in zip(given, arrays, strict=True)]
            return [_bits(np.asarray(a, one.dtype)) for a, one in zip(function(*back), like, strict=True)]

        wanted = [jax.ShapeDtypeStruct(_shape(one.shape, one.dtype), np.uint32) for one in like]
        given = [jax.lax.bitcast_convert_type(a, jnp.uint32) for a in arrays]
        found = jax.pure_callback(crossing, wanted, *given, vmap_method="sequential")
        return [jax.lax.bitcast_convert_type(a, one.dtype) for a, one in zip(found, like, strict=True)]

    return jax.lax.platform_dependent(*arrays, cpu=in_place, default=copied)


# `jax.pure_callback` casts to what JAX's configuration allows when it runs, not when it was traced. Therefore the
# arrays, of 32 or 64 bits an entry, cross as their bits.


def _shape(shape: tuple[int, ...], dtype: Any) -> tuple[int, ...]:
    return (*shape, 2) if np.dtype(dtype).itemsize == 8 else shape


def _bits(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a).reshape(-1).view(np.uint32).reshape(_shape(a.shape, a.dtype))


def _from_bits(bits: np.ndarray, dtype: Any) -> np.ndarray:
    shape = bits.shape[:-1] if np.dtype(dtype).itemsize == 8 else bits.shape
    return np.ascontiguousarray(bits).reshape(-1).view(dtype).reshape(shape)
