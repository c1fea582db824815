"""J as a pure function of arrays (KHK19 Theorem 1), for `jit`, `vmap`, `scan` and `grad`.

A host function may look at the numbers and go on until they are right. A traced function has one program for all
numbers, so it makes a fixed number of steps and says whether they were enough:

1. The Gram matrix of the Jacobian A with columns of unit norm, and its Cholesky factorization with pivots, select
   columns that are independent at the precision of a Gram matrix. They span the column space but for its weakest
   directions.
2. `TRIALS` random combinations of all that seems to be null are made orthogonal to the selected columns, through A
   itself. The singular values of their images are compared with the cutoff; those above it join the space.
3. A few steps of iterative refinement project the targets out of the space, with each residual computed from A.

The derivative is that of variable projection (Golub & Pereyra 1973): with r = PN[A] y and A x = P[A] y,
``dJ = -<r, dA x>`` where the rank is constant.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg
from globopt_jax.inputs import check_data, integer, real
from globopt_jax.linalg import matmul
from globopt_jax.linalg.columns import pivoted_cholesky
from globopt_jax.linalg.tolerances import check_criterion, cutoff_of
from globopt_jax.local_minima.balance import traced_balanced
from globopt_jax.local_minima.jacobian import FeedForwardModel, GeneralModel, model_of
from globopt_jax.local_minima.passes import (
    MEMORY,
    Jacobian,
    dense_of,
    gram_of,
    images_of,
    residuals_of,
    row_sum_of,
    samples_in_chunks,
)
from globopt_jax.shapes import Array, Scalar

__all__ = ["TangentValue", "tangent_value"]

#: The number of random combinations of the presumed null space, and of the steps that make them orthogonal.
TRIALS, ORTHOGONAL = 64, 3
#: The steps of iterative refinement.
REFINEMENTS = 3
#: Singular values within these multiples of the cutoff leave the rank open.
DOUBT = (0.4, 40.0)
#: "auto" takes the dense way up to this number of columns.
SMALL = 64


class TangentValue(NamedTuple):
    """J with its rank, as arrays that may be traced."""

    value: Array
    """``J = 1/2 ||PN[A] vec Y||^2``, half the squared distance from the targets to the tangent space."""
    rank: Array
    """The numerical rank of A."""
    sure: Array
    """A bool: whether no singular value that was looked at lies near the cutoff, so that value and rank are those of
    `tangent_projection`. By "gram" random combinations stand for the weak directions: strong evidence, no proof."""


class _Found(NamedTuple):
    """The residual of the targets, with what the derivative needs."""

    r: Array
    """``r = PN[A] y`` (m, dy)."""
    x: Array
    """x (N,) with ``A x = P[A] y``."""
    rank: Array
    """The numerical rank of A."""
    sure: Array
    """Whether the rank seems settled."""


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
    function can be jitted, vmapped over networks of one shape, scanned, and differentiated once in params, X and Y.
    The host function `tangent_projection` says more and goes on until the rank is settled; here ``.sure`` says whether
    it seems so, as for most networks. No number is checked: NaN in, NaN out.

    Derivative: ``dJ = -<r, dA x> + <r, dY>`` with r = PN[A] y and A x = P[A] y. It holds where the rank is constant.
    Where the rank changes, J jumps and has no derivative.

    On the host: the scale of a feed-forward network, and the pivoted Cholesky factorization of "gram", are computed in
    NumPy by `jax.pure_callback`, one network after the other under `vmap`.

    Args:
        apply: a differentiable function (params, X) -> Yhat that treats samples one by one; a static argument.
        params: a pytree of arrays.
        X: inputs (m, ...).
        Y: targets (m, dy).
        method: "dense" (a QR factorization and the singular values of its factor), "gram" (the columns' Gram matrix),
            or "auto", which takes "gram" in float64 where A has at least as many rows as columns, and more than 64
            columns. In float32 a Gram matrix resolves too little, and "gram" is rarely sure. "dense" stores A.
        cutoff: which singular values of A count as zero, see `linalg.cutoff`.
        memory: the bytes that the chunks of a pass of "gram" may take.

    Returns:
        A `TangentValue`.

    Raises:
        ValueError: `method` or `cutoff` is unknown, `memory` is not positive, or shapes do not fit.
        TypeError: an array does not hold real numbers.

    Example:
        >>> from globopt_jax import networks
        >>> X, Y = jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [0.0]])
        >>> found = tangent_value(networks.feed_forward("linear"), [jnp.array([[2.0]])], X, Y)
        >>> round(float(found.value), 6), int(found.rank), bool(found.sure)
        (0.4, 1, True)
    """
    check_criterion(cutoff)
    if method not in ("auto", "dense", "gram"):
        raise ValueError(f"method: Expected: auto, dense or gram. Received: {method!r}.")
    params = jax.tree.map(lambda w: real("params", w), params)
    X, Y = real("X", X), real("Y", Y)
    check_data(X, Y, flat=False)
    model = model_of(apply)
    out = jax.eval_shape(apply, params, X)
    if getattr(out, "shape", None) != Y.shape:
        raise ValueError(f"Y: Expected: the shape of apply(params, X). Received: {Y.shape} for {out}.")
    return _value(model, method, cutoff, integer("memory", memory), traced_balanced(model, params), X, Y)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _value(model: Known, method: str, criterion: str, memory: int, params: Any, X: Array, Y: Array) -> TangentValue:
    return _forward(model, method, criterion, memory, params, X, Y)[0]


def _forward(
    model: Known, method: str, criterion: str, memory: int, params: Any, X: Array, Y: Array
) -> tuple[TangentValue, Any]:
    A = Jacobian(model, params, X, Y.shape[1], memory)
    rows, columns = A.shape
    suits = SMALL < columns <= rows and A.dtype == np.float64
    gram = columns > 0 and (method == "gram" or (method == "auto" and suits))
    found = _by_gram(A, Y, criterion) if gram else _by_dense(A, Y, criterion)
    value = TangentValue(0.5 * jnp.sum(jnp.square(found.r)), found.rank, found.sure)
    return value, (params, X, found.r, found.x)


def _backward(model: Known, method: str, criterion: str, memory: int, saved: Any, cotangent: TangentValue) -> Any:
    del method, criterion, memory
    params, X, r, x = saved

    def inner(params: Any, X: Array) -> Scalar:
        moved = jax.jvp(lambda p: model.output(p, X), (params,), (model.direction(params, x),))[1]
        return -jnp.sum(r * moved)

    to_params, to_X = jax.grad(inner, (0, 1))(params, X)
    scale = cotangent.value
    return jax.tree.map(lambda g: scale * g, to_params), scale * to_X, scale * r


_ = _value.defvjp(_forward, _backward)


def _by_dense(A: Jacobian, Y: Array, criterion: str) -> _Found:
    """By a QR factorization of A or its transpose, and the singular values of the triangular factor."""
    rows, columns = A.shape
    y = Y.reshape(-1)
    if not columns:
        return _Found(Y, jnp.zeros(0, Y.dtype), jnp.asarray(0, jnp.int32), jnp.asarray(True))
    dense = dense_of(A.model, A.params, samples_in_chunks(A.X, len(A.X)))
    tall = rows >= columns
    Q, R = jnp.linalg.qr(dense if tall else dense.T)
    # The variant without vectors is the more accurate one for values that should be zero.
    s = jnp.linalg.svd(R, compute_uv=False)
    U, values, Vt = jnp.linalg.svd(R)
    limit = linalg.cutoff(dense, s, criterion)
    counts = s > limit
    left, right = (matmul(Q, U), Vt.T) if tall else (Vt.T, matmul(Q, U))
    inverse = jnp.where(counts, 1 / jnp.where(counts, values, 1), 0)
    x, r = jnp.zeros(columns, y.dtype), y
    for _ in range(REFINEMENTS):
        # From V and A^T r, not from U, which is tilted where singular values are small.
        x = x + matmul(right, inverse**2 * matmul(right.T, matmul(dense.T, r)))
        r = y - matmul(dense, x)
    r = r - matmul(left, jnp.where(counts, matmul(left.T, r), 0))
    sure = ~jnp.any((s > DOUBT[0] * limit) & (s < DOUBT[1] * limit)) & jnp.all(jnp.isfinite(s))
    return _Found(r.reshape(Y.shape), x, jnp.sum(counts, dtype=jnp.int32), sure)


class _Selected(NamedTuple):
    """Independent columns of A from a pivoted Cholesky factorization; masks keep the shapes."""

    factor: Array
    """(N, N), upper triangular: R of the selected columns, continued by the identity."""
    crossing: Array
    """(N, N): the dependent columns in terms of the selected ones, in the order of the pivots."""
    order: Array
    """(N,): the columns in the order of the pivots."""
    place: Array
    """(N,): the inverse of `order`."""
    live: Array
    """(N,): 1 for selected columns, in the order of the pivots."""
    inverse: Array
    """(N,): one over the norms of the columns, 0 where they are tiny."""

    def coefficients(self, products: Array) -> Array:
        """Return x (N, q), zero but at the selected columns, with ``A x = P B``, given ``A^T B`` (N, q)."""
        scaled = (products * self.inverse[:, None])[self.order] * self.live[:, None]
        half = jax.scipy.linalg.solve_triangular(self.factor, scaled, trans=1)
        found = jax.scipy.linalg.solve_triangular(self.factor, half) * self.live[:, None]
        return found[self.place] * self.inverse[:, None]

    def null(self, mixed: Array) -> Array:
        """Return combinations (N, q) of columns that the selected ones cancel, given weights of the dependent ones."""
        weights = mixed[self.order] * (1 - self.live)[:, None]
        inverse = self.inverse[self.order][:, None]
        norms = jnp.where(inverse > 0, 1 / jnp.where(inverse > 0, inverse, 1), 0)
        cancel = jax.scipy.linalg.solve_triangular(self.factor, matmul(self.crossing, norms * weights))
        return (weights - cancel * self.live[:, None] * inverse)[self.place]


def _selected(G: Array, largest: Scalar, resolved: float) -> tuple[_Selected, Array]:
    """Select independent columns, given the Gram matrix; also return their number."""
    N = len(G)
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(G), 0))
    tall = norms > resolved**0.5 * largest
    inverse = jnp.where(tall, 1 / jnp.where(tall, norms, 1), 0)
    shapes = (
        jax.ShapeDtypeStruct((N, N), G.dtype),
        jax.ShapeDtypeStruct((N,), np.int32),
        jax.ShapeDtypeStruct((), np.int32),
    )

    def host(S: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        factor, order, count = pivoted_cholesky(np.array(S, np.float64), resolved)
        return factor.astype(S.dtype), order.astype(np.int32), np.asarray(count, np.int32)

    factor, order, count = jax.pure_callback(
        host, shapes, G * inverse[:, None] * inverse[None], vmap_method="sequential"
    )
    live = jnp.arange(N, dtype=np.int32) < count
    upper = jnp.where(live[:, None], jnp.triu(factor), 0)
    own = jnp.where(live[None], upper, jnp.eye(N, dtype=G.dtype))
    crossing = jnp.where(live[None], 0, upper)
    place = jnp.zeros(N, jnp.int32).at[order].set(jnp.arange(N, dtype=jnp.int32))
    return _Selected(own, crossing, order, place, live.astype(G.dtype), inverse), count


def _by_gram(A: Jacobian, Y: Array, criterion: str) -> _Found:
    """By the Gram matrix of the columns, for more rows than columns; the module's docstring has the steps."""
    columns, eps, dtype = A.shape[1], A.eps, Y.dtype
    samples = A.chunks(4 * TRIALS)
    G = gram_of(A.model, A.params, samples)
    largest = jnp.sqrt(_spectral_radius(G))
    row_sum = row_sum_of(A.model, A.params, A.chunks(2 * columns)) if criterion == "golub" else 0.0
    limit = jnp.maximum(cutoff_of(A.shape, eps, largest, row_sum, criterion), jnp.finfo(dtype).tiny)
    selected, count = _selected(G, largest, 1e3 * columns**0.5 * eps)
    tail = _tail(A, samples, selected, jnp.diagonal(G) > 0, limit)

    def inside(products: Array, along: Array) -> Array:
        return selected.coefficients(products) + matmul(tail.coefficients, along)

    nothing = jnp.zeros((columns, 1), dtype), jnp.zeros((1, 1), dtype)

    def refine(_: Any, found: tuple[Array, Array]) -> tuple[Array, Array]:
        x, _ = found
        r, products, _ = residuals_of(A.model, A.params, samples, Y[..., None], x, *nothing)
        return x + inside(products, jnp.einsum("ijp,ijq->pq", tail.image, r, precision="highest")), r

    x, r = jax.lax.fori_loop(0, REFINEMENTS + 1, refine, (nothing[0], Y[..., None]))
    return _Found(r[..., 0], x[:, 0], count + tail.rank, tail.sure & jnp.all(jnp.isfinite(r)))


class _Tail(NamedTuple):
    """The weak directions that a Gram matrix does not see."""

    image: Array
    """(m, dy, TRIALS): an orthonormal basis; zeros for what does not count."""
    coefficients: Array
    """(N, TRIALS): the basis is A times these."""
    rank: Array
    """Their number."""
    sure: Array
    """Whether no other direction can be expected to count."""


def _tail(A: Jacobian, samples: Any, selected: _Selected, alive: Array, limit: Scalar) -> _Tail:
    columns, dtype = A.shape[1], A.dtype
    mixed = jnp.where(alive[:, None], jax.random.normal(jax.random.key(0), (columns, TRIALS), dtype), 0)
    Z = _orthonormal(selected.null(mixed))

    def orthogonal(_: Any, Z: Array) -> Array:
        return Z - selected.coefficients(images_of(A.model, A.params, samples, Z)[0])

    Z = jax.lax.fori_loop(0, ORTHOGONAL, orthogonal, Z)
    zero = jnp.zeros((len(A.X), A.dy, TRIALS), dtype), jnp.zeros_like(Z), jnp.zeros((1, TRIALS), dtype)
    image = -residuals_of(A.model, A.params, samples, zero[0], Z, zero[1][:, :1], zero[2])[0]
    Q, R = jnp.linalg.qr(image.reshape(-1, TRIALS))
    U, s, Vt = jnp.linalg.svd(R, full_matrices=False)
    counts = s > limit
    basis = jnp.where(counts[None], matmul(Q, U), 0)
    weights = matmul(Z, Vt.T) * jnp.where(counts, 1 / jnp.where(counts, s, 1), 0)[None]
    doubtful = jnp.any((s > DOUBT[0] * limit) & (s < DOUBT[1] * limit))
    many = jnp.sum(selected.live == 0, dtype=jnp.int32) > TRIALS
    return _Tail(
        basis.reshape(*image.shape[:2], -1),
        weights,
        jnp.sum(counts, dtype=jnp.int32),
        ~doubtful & ~(jnp.all(counts) & many),
    )


def _orthonormal(Z: Array) -> Array:
    """An orthonormal basis of the columns of Z (N, q), with zeros for what depends on the others."""
    for _ in range(2):
        size = jnp.sqrt(jnp.max(jnp.sum(jnp.square(Z), axis=0)))
        Z = Z / jnp.where(size > 0, size, 1)
        values, V = jnp.linalg.eigh(matmul(Z.T, Z))
        keep = values > 1e-6 * values[-1]
        Z = matmul(Z, V) * jnp.where(keep, 1 / jnp.sqrt(jnp.where(keep, values, 1)), 0)[None]
    return Z


def _spectral_radius(G: Array) -> Scalar:
    """The largest eigenvalue of a positive semidefinite matrix, by some steps of Lanczos."""
    size = jnp.max(jnp.diagonal(G))
    G = G / jnp.where(size > 0, size, 1)
    found = linalg.lowest_curvature(lambda v: matmul(G, v), len(G), jax.random.key(1), steps=16, dtype=G.dtype)
    return size * found.scale
