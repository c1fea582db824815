"""float64 inside a program of float32."""

from collections.abc import Callable
from typing import Any

import jax
import jax.custom_batching
import jax.numpy as jnp
import numpy as np

from globopt_jax.shapes import Array

__all__ = ["from_words", "in_double", "words"]


def in_double(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of pytrees of arrays that may compute in float64 where JAX's configuration forbids it.

    Its arguments and results have dtypes of 32 bits. Under `vmap` JAX evaluates what was traced once more, under the
    configuration of the caller, and would cast to float32 without a word. Therefore the function says itself what
    `vmap` shall do.
    """

    def inside(*args: Any) -> Any:
        with jax.enable_x64(True):
            return function(*args)

    call = jax.custom_batching.custom_vmap(jax.jit(inside))

    @call.def_vmap
    def batched(axis_size: int, is_batched: Any, *args: Any) -> tuple[Any, Any]:
        axes = jax.tree.map(lambda yes: 0 if yes else None, tuple(is_batched))
        found = in_double(jax.vmap(function, in_axes=axes, axis_size=axis_size))(*args)
        return found, jax.tree.map(lambda _: True, found)

    del batched
    return call


def words(x: Array) -> Array:
    """Return the bits of x, which no configuration casts."""
    return jax.lax.bitcast_convert_type(x, jnp.uint32)


def from_words(bits: Array) -> Array:
    """Return the float64 array with these bits."""
    return jax.lax.bitcast_convert_type(bits, np.float64)
