"""What the host functions check before they compute anything."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from globopt_jax.inputs import check_range, common_dtype, finite, integer
from globopt_jax.local_minima.spaces import METHODS
from globopt_jax.shapes import Array

__all__ = ["checked"]


def checked(
    apply: Callable[[Any, Any], Any], params: Any, X: Any, Y: Any, method: str, memory: int
) -> tuple[Any, Array, Array]:
    """Arrays of one dtype, and an output that fits Y; nothing is computed before.

    Raises:
        ValueError: NaN or inf, shapes that do not fit, an unknown method, a budget that is not positive.
        TypeError: arrays that are not real numbers, or traced; `apply` is no function.
    """
    if method not in ("auto", *METHODS):
        raise ValueError(f"method: Expected: auto, {', '.join(METHODS)}. Received: {method!r}.")
    _ = integer("memory", memory)
    if not callable(apply):
        raise TypeError(f"apply: Expected: a function of (params, X). Received: {apply!r}.")
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    host = [finite(f"params{jax.tree_util.keystr(path)}", leaf) for path, leaf in leaves]
    # Sharded arrays stay where they are; the checks look at a copy.
    targets = finite("Y", Y)
    dtype = common_dtype([finite("X", X), targets, *host], stacklevel=4)
    X, Y = jnp.asarray(X, dtype), jnp.asarray(Y, dtype)
    params = jax.tree.unflatten(tree, [jnp.asarray(leaf, dtype) for _, leaf in leaves])
    if X.ndim < 1 or Y.ndim != 2 or len(X) != len(Y) or not Y.size:
        hint = " Scalar targets need Y.reshape(m, 1)." if Y.ndim == 1 else ""
        raise ValueError(f"X, Y: Expected: shapes (m, ...) and (m, dy). Received: {X.shape} and {Y.shape}.{hint}")
    check_range("Y", targets, dtype, tiny=True)  # its squares are what all of this is about
    out = jax.eval_shape(apply, params, X)
    if getattr(out, "ndim", None) != 2:
        raise ValueError(f"apply: Expected: a function that returns an array (m, dy). Received: {out}.")
    if out.dtype != dtype:  # its rounding would count as rank
        raise ValueError(f"apply: Expected: an output in {dtype}, as the parameters. Received: {out.dtype}.")
    if out.shape != Y.shape:
        raise ValueError(f"Y: Expected: the shape of apply(params, X), {out.shape}. Received: {Y.shape}.")
    return params, X, Y
