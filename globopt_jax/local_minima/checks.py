"""What the host functions check before they compute anything."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg
from globopt_jax.inputs import check_range, common_dtype, finite, integer
from globopt_jax.local_minima.jacobian import Anything, Model
from globopt_jax.local_minima.spaces import METHODS
from globopt_jax.shapes import Array

__all__ = ["checked", "prediction"]


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
    if not isinstance(apply, Hashable):
        raise TypeError(
            f"apply: Expected: a function with a hash, under which its compilation is kept. Received: {apply}."
        )
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


def prediction(model: Model, params: Any, X: Array) -> Array:
    """The output.

    Raises:
        ValueError: it or its squares are not finite, or a sample's depends on the others.
    """
    found = _output(model, params, X)
    size = float(jnp.max(jnp.abs(found)))
    if not np.isfinite(float(jnp.sum(jnp.square(found)))):
        raise ValueError(
            f"apply: Expected: a finite output for these params and X, and squares that {X.dtype} can hold. Received: "
            f"{size:.3g}."
        )
    if isinstance(model, Anything) and len(X) > 1:
        alone, turned = _output(model, params, X[:1]), _output(model, params, X[::-1])[::-1]
        change = float(jnp.maximum(jnp.max(jnp.abs(alone - found[:1])), jnp.max(jnp.abs(turned - found))))
        if change > linalg.decision_tolerance(X.dtype) * size:
            raise ValueError(
                "apply: Expected: a model that treats samples one by one, as without batch statistics. Received: an "
                f"output that changes by {change:.3g} when a sample comes alone, or in another order."
            )
    return found


@partial(jax.jit, static_argnums=0)
def _output(model: Model, params: Any, X: Array) -> Array:
    return model.output(params, X)
