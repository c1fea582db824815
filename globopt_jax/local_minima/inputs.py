"""Checks that the host functions on tangent spaces make before they compute, beyond `globopt_jax.inputs`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg
from globopt_jax.inputs import all_finite, check_data, check_range, common_dtype, integer, one_of
from globopt_jax.local_minima.balance import Balanced
from globopt_jax.local_minima.jacobian import GeneralModel, Model
from globopt_jax.local_minima.mesh import on_automatic_axes
from globopt_jax.local_minima.spaces import METHODS
from globopt_jax.shapes import Array

__all__ = ["check", "check_function", "output", "prediction"]

ONE_BY_ONE = "apply: Expected: a model that treats samples one by one, as without batch statistics. Received: "
#: How many samples are differentiated both one by one and together.
SOME = 8


def check(
    apply: Callable[[Any, Any], Any], params: Any, X: Any, Y: Any, method: str, memory: int, name: str = "params"
) -> tuple[Any, Array, Array]:
    """Return params, X and Y as arrays of one dtype, checked against the shape of the output.

    Args:
        apply: the model, a function of (params, X).
        params: a pytree of arrays.
        X: inputs (m, ...).
        Y: targets (m, dy).
        method: the method, one of `METHODS` or auto.
        memory: the bytes that the chunks of a pass may take.
        name: the caller's name for params in messages.

    Raises:
        ValueError: an array holds NaN or inf, or the shapes do not fit together.
        ValueError: the method is unknown, or the budget of memory is not positive.
        ValueError: the shape of the output does not follow the number of samples.
        TypeError: an array does not hold real numbers, or is traced.
        TypeError: `apply` is no function, or has no hash.
    """
    _ = one_of("method", method, ("auto", *METHODS))
    _ = integer("memory", memory)
    check_function(apply)
    try:
        _ = hash(apply)
    except TypeError as error:
        raise TypeError(
            f"apply: Expected: a function with a hash, under which its compilation is kept. Received: {apply}."
        ) from error
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    named = [("X", X), ("Y", Y), *((f"{name}{jax.tree_util.keystr(path)}", leaf) for path, leaf in leaves)]
    host = all_finite(named)
    dtype = common_dtype([*host.values()])
    # Sharded arrays stay where they are; the checks look at a copy.
    placed = (on_automatic_axes(a) if isinstance(a, jax.Array) else host[label] for label, a in named)
    X, Y, *arrays = (jnp.asarray(a, dtype) for a in placed)
    params = jax.tree.unflatten(tree, arrays)
    check_data(X, Y, flat=False)
    check_range("Y", host["Y"], dtype, tiny=True)  # all results are sums of its squares
    out = output(apply, params, X, Y)
    if out.dtype != dtype:  # its rounding would count as rank
        raise ValueError(f"apply: Expected: an output in {dtype}, as the parameters. Received: {out.dtype}.")
    one = jax.eval_shape(lambda p, x: apply(p, x[:1]), params, X)
    if one.shape != (1, Y.shape[1]):
        raise ValueError(f"{ONE_BY_ONE}an output of shape {one.shape} for one sample.")
    return params, X, Y


def check_function(apply: Any) -> None:
    """Raise TypeError if a model is no function, as where it and its weights were swapped."""
    if not callable(apply):
        raise TypeError(f"apply: Expected: a function of (params, X). Received: {type(apply).__name__}.")


def output(apply: Callable[[Any, Any], Any], params: Any, X: Array, Y: Array) -> jax.ShapeDtypeStruct:
    """Return shape and dtype of the output, which nothing computes.

    Raises:
        ValueError: the output is no array with the shape of Y.
    """
    out = jax.eval_shape(apply, params, X)
    if getattr(out, "ndim", None) != 2:
        raise ValueError(
            f"apply: Expected: a function that returns an array (m, dy). Received: {getattr(out, 'shape', out)}."
        )
    if out.shape != Y.shape:
        raise ValueError(f"Y: Expected: the shape of apply(params, X), {out.shape}. Received: {Y.shape}.")
    return out


def prediction(model: Model, point: Balanced, X: Array) -> Array:
    """Return the output of the given network, at its own scale.

    Raises:
        ValueError: the output or its squares are not finite.
        ValueError: the output of a sample, or its derivative, depends on other samples.
    """
    params = point.params
    found, size, square = _stated(model, params, X, point.exponent, point.bias)
    size = float(size)
    if not np.isfinite(float(square)):
        raise ValueError(
            f"apply: Expected: a finite output for these params and X, and squares that {X.dtype} can hold. Received: "
            f"{size:.3g}."
        )
    if isinstance(model, GeneralModel) and len(X) > 1:
        change = float(_apart(model, params, X, found))
        if change > linalg.decision_tolerance(X.dtype) * size:
            raise ValueError(
                f"{ONE_BY_ONE}an output that changes by {change:.3g} when a sample comes alone, or in another order."
            )
        # With a last layer of zeros only the derivative shows that samples depend on each other.
        change, size = map(float, _pulls(model, params, X))
        if change > linalg.decision_tolerance(X.dtype) * size:
            raise ValueError(
                f"{ONE_BY_ONE}derivatives that differ by {change:.3g}, of up to {size:.3g}, when samples come alone."
            )
    return found


@partial(jax.jit, static_argnums=0)
def _pulls(model: Model, params: Any, X: Array) -> tuple[Array, Array]:
    """Return how far ``A^T u`` of some samples together is from the sum over single ones, and its size (random u)."""
    X = X[:: -(-len(X) // SOME)]
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def pulled(X: Any, u: Any) -> Any:
        return jax.vjp(lambda v: model.output(unravel(v), X), flat)[1](u)[0]

    out = jax.eval_shape(model.output, params, X)
    u = jax.random.normal(jax.random.key(0), out.shape, out.dtype)
    together = pulled(X, u)
    alone = jnp.sum(jax.lax.map(lambda one: pulled(one[0][None], one[1][None]), (X, u)), axis=0)
    size = jnp.maximum(jnp.max(jnp.abs(alone), initial=0), jnp.max(jnp.abs(together), initial=0))
    return jnp.max(jnp.abs(together - alone), initial=0), size


@partial(jax.jit, static_argnums=0)
def _stated(model: Model, params: Any, X: Array, exponent: Any, bias: Any) -> tuple[Array, Array, Array]:
    """Return the output at its own scale, its largest absolute entry, and its sum of squares."""
    found = jnp.ldexp(model.output(params, X), exponent) + bias
    return found, jnp.max(jnp.abs(found)), jnp.sum(jnp.square(found))


@partial(jax.jit, static_argnums=0)
def _apart(model: Model, params: Any, X: Array, found: Array) -> Array:
    """Return how far outputs are from `found` where a sample comes alone, and where all come in the reverse order."""
    alone, turned = model.output(params, X[:1]), model.output(params, X[::-1])[::-1]
    return jnp.maximum(jnp.max(jnp.abs(alone - found[:1])), jnp.max(jnp.abs(turned - found)))
