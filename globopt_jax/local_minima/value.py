"""J as a pure function of arrays (KHK19 Theorem 1), for `jit`, `vmap`, `scan` and `grad`.

A host function may look at the numbers and go on until they are right. A traced function has one program for all
numbers, so it makes a fixed number of steps (`traced`) and says whether they were enough.

The derivative is that of variable projection (Golub & Pereyra 1973): with r = PN[A] y and A x = P[A] y,
``dJ = -<r, dA x>`` where the rank is constant.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.inputs import check_data, integer, one_of, real
from globopt_jax.linalg.tolerances import check_criterion
from globopt_jax.local_minima.balance import traced_balanced
from globopt_jax.local_minima.inputs import check_function, output
from globopt_jax.local_minima.jacobian import FeedForwardModel, GeneralModel, model_of
from globopt_jax.local_minima.passes import MEMORY, Jacobian
from globopt_jax.local_minima.traced.dense import by_dense
from globopt_jax.local_minima.traced.double import from_words, in_double, words
from globopt_jax.local_minima.traced.project import by_dual, by_gram
from globopt_jax.shapes import Array, Scalar

__all__ = ["TangentValue", "tangent_value"]

#: "auto" takes the dense way up to this number of columns, or rows.
SMALL = 64
WAYS = {"dense": by_dense, "gram": by_gram, "dual": by_dual}


class TangentValue(NamedTuple):
    """J with its rank, as arrays that may be traced.

    `value` is J, `rank` the numerical rank of the Jacobian, and `sure` says whether both are settled.
    """

    value: Array
    """``J = 1/2 ||PN[A] vec Y||^2``, half the squared distance from the targets to the tangent space."""
    rank: Array
    """The numerical rank of A."""
    sure: Array
    """A bool: whether no singular value that was looked at lies near the cutoff, and A x = P[A] y keeps its digits, so
    that value and rank are those of `tangent_projection`. By "gram" and "dual" random combinations stand for the weak
    directions: strong evidence, no proof."""


Known = FeedForwardModel | GeneralModel


def tangent_value(
    apply: Callable[[Any, Any], Any],
    params: Any,
    X: Any,
    Y: Any,
    *,
    method: str = "auto",
    cutoff: str = "press",
    memory: int = MEMORY,
) -> TangentValue:
    """Compute J, half the squared distance from the targets to the tangent space, as a pure function of arrays.

    ``J = 1/2 ||PN[A] vec Y||^2``, where A (m dy, N) is the Jacobian of ``apply(params, X)`` in its N parameters. The
    function can be jitted, vmapped over networks of one shape, scanned, and differentiated once in params, X and Y, in
    reverse mode (`jax.grad`, `jax.vjp`, `jax.jacrev`).
    The host function `tangent_projection` says more and goes on until the rank is settled; here ``.sure`` says whether
    it seems so, as for most networks. No number is checked: NaN in, NaN out.

    Derivative: ``dJ = -<r, dA x> + <r, dY>`` with r = PN[A] y and A x = P[A] y. It holds where the rank is constant.
    Where the rank changes, J jumps and has no derivative.

    On the host: the scale of a feed-forward network, and the pivoted Cholesky factorizations of "gram" and "dual", are
    computed in NumPy by callbacks, one network after the other under `vmap`.

    Args:
        apply: a differentiable function (params, X) -> Yhat that treats samples one by one; a static argument. This
            is not checked: a model that mixes samples gets a wrong value, and `tangent_projection` refuses it.
        params: a pytree of arrays.
        X: inputs (m, ...).
        Y: targets (m, dy).
        method: "dense" (a QR factorization and the singular values of its factor; it stores A), "gram" (the Gram matrix
            of the columns), "dual" (that of the rows), or "auto", which takes "dense" if A has at most 64 columns or
            rows, and otherwise the smaller side. "gram" and "dual" compute float32 numbers in float64, since Gram
            matrices resolve too little in float32: J and rank are those of the same numbers in float64. "dense" stays
            in float32, and so does "auto" for a model that does not compute in float64 when it is given float64.
        cutoff: which singular values of A count as zero, see `linalg.cutoff`.
        memory: the bytes that the chunks of a pass may take, by "gram" and "dual".

    Returns:
        A `TangentValue`.

    Raises:
        ValueError: `method` or `cutoff` is unknown, `memory` is not positive, or shapes do not fit.
        TypeError: an array does not hold real numbers, or `apply` is no function.

    Example:
        >>> from globopt_jax import networks
        >>> X, Y = jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [0.0]])
        >>> found = tangent_value(networks.feed_forward("linear"), [jnp.array([[2.0]])], X, Y)
        >>> round(float(found.value), 6), int(found.rank), bool(found.sure)
        (0.4, 1, True)
    """
    check_criterion(cutoff)
    check_function(apply)
    _ = one_of("method", method, ("auto", *WAYS))
    params = jax.tree.map(lambda w: real("params", w), params)
    X, Y = real("X", X), real("Y", Y)
    check_data(X, Y, flat=False)
    model = model_of(apply)
    _ = output(apply, params, X, Y)
    size = integer("memory", memory)
    way = _way(model, method, params, X, Y)
    return _compiled(model, way, cutoff, size, params, X, Y)


class _Way(NamedTuple):
    """How J is computed."""

    method: str
    """A key of `WAYS`."""
    double: bool
    """Whether float32 numbers are cast to float64 first."""


def _way(model: Known, method: str, params: Any, X: Array, Y: Array) -> _Way:
    rows, columns = Y.size, sum(leaf.size for leaf in jax.tree.leaves(params))
    if method == "dense" or not columns:
        return _Way("dense", double=False)
    single = X.dtype == np.float32
    double = single and _can_double(model, params, X)
    if method != "auto":
        return _Way(method, double)
    if min(rows, columns) <= SMALL or (single and not double):
        return _Way("dense", double=False)
    return _Way("gram" if columns <= rows else "dual", double)


def _can_double(model: Known, params: Any, X: Array) -> bool:
    """Whether the model computes in float64 when it is given float64."""
    if isinstance(model, FeedForwardModel):
        return True
    with jax.enable_x64(True):
        try:
            wide = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, np.float64), (params, X))
            out = jax.eval_shape(model.output, *wide)
        except TypeError:  # dtypes that do not fit together, where JAX is told not to promote them
            return False
    return out.dtype == np.float64


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _compiled(model: Known, way: _Way, criterion: str, memory: int, params: Any, X: Array, Y: Array) -> TangentValue:
    return _value(model, way, criterion, memory, traced_balanced(model, params), X, Y)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _value(model: Known, way: _Way, criterion: str, memory: int, params: Any, X: Array, Y: Array) -> TangentValue:
    return _forward(model, way, criterion, memory, params, X, Y)[0]


def _forward(
    model: Known, way: _Way, criterion: str, memory: int, params: Any, X: Array, Y: Array
) -> tuple[TangentValue, Any]:
    project = partial(_project, model, way, criterion, memory)
    value, r, x = (in_double(project) if way.double else project)(params, X, Y)
    return value, (params, X, r, x)


def _project(
    model: Known, way: _Way, criterion: str, memory: int, params: Any, X: Array, Y: Array
) -> tuple[TangentValue, Array, Array]:
    """Return the value with r and x; if float32 is computed in float64, x as its bits, since it may be large."""
    dtype = Y.dtype
    if way.double:
        params, X, Y = _widened((params, X, Y))
    found = WAYS[way.method](Jacobian(model, params, X, Y.shape[1], memory), Y, criterion)
    value = (0.5 * jnp.sum(jnp.square(found.r))).astype(dtype)
    x = words(found.x) if way.double else found.x
    return TangentValue(value, found.rank, found.sure), found.r.astype(dtype), x


def _backward(model: Known, way: _Way, criterion: str, memory: int, saved: Any, cotangent: TangentValue) -> Any:
    del criterion, memory
    params, X, r, x = saved
    slopes = partial(_slopes, model, way)
    to_params, to_X = (in_double(slopes) if way.double else slopes)(params, X, r, x)
    scale = cotangent.value
    return jax.tree.map(lambda g: scale * g, to_params), scale * to_X, scale * r


def _slopes(model: Known, way: _Way, params: Any, X: Array, r: Array, x: Array) -> tuple[Any, Array]:
    """Return the derivative of ``-<r, A x>`` in params and X, with r and x held fixed."""
    like = params, X
    if way.double:
        params, X, r = _widened((params, X, r))
        x = from_words(x)

    def inner(params: Any, X: Array) -> Scalar:
        moved = jax.jvp(lambda p: model.output(p, X), (params,), (model.direction(params, x),))[1]
        return -jnp.sum(r * moved)

    return jax.tree.map(lambda g, a: g.astype(a.dtype), jax.grad(inner, (0, 1))(params, X), like)


_ = _value.defvjp(_forward, _backward)


def _widened(tree: Any) -> Any:
    return jax.tree.map(lambda a: a.astype(np.float64), tree)
