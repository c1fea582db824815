"""The partial products, gradients, gap and shares at one point, computed once from the reduced data."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.fit import Fit, hidden, tail
from globopt_jax.deep_linear.network import Weights, widths_of
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array

__all__ = ["Point", "at", "gap_of", "kept_directions", "shares", "stationarity"]


class Point(NamedTuple):
    """The partial products at given weights; T and C are the inputs and targets of the fit, and l = 0..H+1."""

    before: list[Any]
    """``T P_l`` (q, d_l) for every l."""
    after: list[Any]
    """``S_l`` (d_l, dy) for every l."""
    before_norms: Array
    """(H+2,): the Frobenius norms of ``before``."""
    after_norms: Array
    """(H+2,): the Frobenius norms of ``after``."""
    before_error: Array
    """(H+2,): bounds of the rounding errors of ``before`` in the Frobenius norm."""
    after_error: Array
    """(H+2,): bounds of the rounding errors of ``after`` in the Frobenius norm."""
    prefix_norms: Array
    """(H+2,): ``||P_l||_2``."""
    suffix_norms: Array
    """(H+2,): ``||S_l||_2``."""
    residual: Array
    """(q, dy): ``T R - C``."""
    residual_norm: Array
    """``||T R - C||_F``."""
    gradients: list[Any]
    """dL/dW_l for l = 1..H+1."""
    gradient_norms: Array
    """(H+1,): the Frobenius norms of ``gradients``."""
    reach: Array
    """An upper bound of ``||diag(n) R||_F``, where n are the norms of the columns of X."""


def at(weights: Weights, fit: Fit) -> Point:
    """Compute the partial products in one forward and one backward sweep."""
    dtype, dy = fit.inputs.dtype, fit.targets.shape[1]
    widths = widths_of(weights)
    norms = [linalg.norm(w) for w in weights]
    prefix: Any = None
    before: list[Any] = [fit.inputs]
    before_norms: list[Any] = [linalg.norm(fit.inputs)]
    error: list[Any] = [jnp.zeros((), dtype)]
    prefix_norms: list[Any] = [jnp.ones((), dtype)]
    for w, norm, inner in zip(weights, norms, widths, strict=False):
        error.append(linalg.product_error(error[-1], before_norms[-1], norm, inner, dtype))
        before.append(matmul(before[-1], w))
        before_norms.append(linalg.norm(before[-1]))
        prefix = w if prefix is None else matmul(prefix, w)
        prefix_norms.append(linalg.spectral_norm(prefix))
    after: list[Any] = [jnp.eye(dy, dtype=dtype)]
    after_norms: list[Any] = [jnp.asarray(dy**0.5, dtype)]
    after_error: list[Any] = [jnp.zeros((), dtype)]
    for w, norm, inner in zip(reversed(weights), reversed(norms), reversed(widths), strict=False):
        # The last kernel is multiplied by the identity, which is exact.
        inner = inner if len(after) > 1 else 0
        after_error.append(linalg.product_error(after_error[-1], after_norms[-1], norm, inner, dtype))
        after.append(w if len(after) == 1 else matmul(w, after[-1]))
        after_norms.append(linalg.norm(after[-1]))
    after, after_norms, after_error = after[::-1], after_norms[::-1], after_error[::-1]
    # The error of layer l passes through S_l, whose norm is mostly far smaller than the product of the later norms.
    suffix_norms = [linalg.spectral_norm(s) for s in after]
    first = fit.columns[:, None] * weights[0]
    size = linalg.norm(first)
    spread = linalg.product_error(after_error[1], after_norms[1], size, widths[1], dtype)
    scaled = linalg.norm(fit.inputs / jnp.where(fit.columns > 0, fit.columns, 1)[None])
    sizes = [scaled * size, *(a * w for a, w in zip(before_norms[1:], norms[1:], strict=False))]
    passed = [linalg.product_rounding(inner, dtype) * a for a, inner in zip(sizes, widths, strict=False)]
    through = [1.01 * s + off for s, off in zip(suffix_norms[1:], after_error[1:], strict=True)]
    error[-1] = jnp.minimum(error[-1], sum(a * b for a, b in zip(passed, through, strict=True)))
    residual = before[-1] - fit.targets
    gradients = [matmul(matmul(before[l].T, residual), after[l + 1].T) for l in range(len(weights))]
    return Point(
        before,
        after,
        jnp.stack(before_norms),
        jnp.stack(after_norms),
        jnp.stack(error),
        jnp.stack(after_error),
        jnp.stack(prefix_norms),
        jnp.stack(suffix_norms),
        residual,
        linalg.norm(residual),
        gradients,
        jnp.stack([linalg.norm(g) for g in gradients]),
        linalg.norm(matmul(first, after[1])) + spread,
    )


def gap_of(point: Point, fit: Fit, k: int) -> tuple[Array, Array]:
    """Return ``L - L*`` in closed form, and a bound of its distance from the exact gap.

    The part of the loss that X cannot explain appears in L and in L*, and is never added. For ``k = min(dx, dy)``
    nothing is subtracted. The error bound has two parts.

    1. Errors of the data and products. The exact gap is ``1/2 ||X R||^2 - <X R, Y> + 1/2 N(P Y)^2``, where P is the
       projector on the column space of X, and N is the Euclidean norm of the k largest singular values. The computed
       reduced data are the exact reduced data of perturbed arrays X + dX and Y + dY, with ``||dY|| <= accuracy ||Y||``
       and ``||dX R|| <= accuracy (||X R|| + ||diag(n) R||)``. Here n are the norms of the columns of X, so that badly
       scaled columns do no harm. Let e bound the resulting error of X R, including the rounding of the products. It
       changes the first two terms by at most ``e (||X R - Y|| + e / 2)``.

    2. The error of P. Let M (dx, a) be the matrix for which ``X M`` is, up to rounding, the leading a columns of Q, and
       let A be the span of ``X M``, which lies in the column space of X. A is turned from these columns by an angle t
       of the size of dX M, and ``f = Q_a C_a`` lies within ``s = ||dX M C_a||`` of A. With ``g = Y - f``, the error of
       ``<Y, P_A Y>`` is at most ``2 s ||g||`` plus the larger of ``(t ||g||)^2`` and ``s^2``; half of this is `turn`.
       Outside A the column space has ``rank X - a`` further directions, which are unknown. They add at most the sum of
       as many of the largest squared singular values of ``(I - P_A) Y`` (Ky Fan). These values are `hidden`, up to an
       error of ``hidden_error = s + accuracy ||Y||``. The argument holds for every a; `least_squares` takes the a
       with the smallest bound.
    """
    size, fitted = point.residual_norm, point.before_norms[-1]
    beyond, squares = tail(fit, k), 0.5 * jnp.square(size)
    off = fit.accuracy * (fitted + point.reach) + fit.spill * point.reach + point.before_error[-1]
    moved = fit.accuracy * fit.size
    left = jnp.sqrt(jnp.square(size) + 2 * fit.unexplained) + moved
    height = linalg.norm(fit.singular_values[:k])
    rounding = (
        off * (left + 0.5 * off)
        + moved * (fitted + height + 0.5 * moved)
        + fit.accuracy * (squares + beyond)
        + fit.turn
        + hidden(fit, k)
    )
    return squares - beyond, rounding


def stationarity(point: Point, fit: Fit) -> Array:
    """Return ``eta = max_l ||dL/dW_l|| / (||P_{l-1}||_2 ||S_l||_2 ||X||_2 (||X R|| + ||Y||))``, with 0 / 0 = 0.

    Eta is dimensionless: scaling the data, or moving scale from one layer to another, changes it little. It is 0 where
    E = 0, unlike a norm that is divided by ||E||. The maximum also includes the first layer with whitened inputs,
    ``||P[X] (X R - Y) S_1^T|| / (||S_1||_2 (||X R|| + ||Y||))``, so that an input of small size does not hide its
    gradient.
    """
    scale = point.prefix_norms[:-1] * point.suffix_norms[1:] * fit.scales[0]
    size = jnp.append(point.gradient_norms, linalg.norm(matmul(point.residual, point.after[1].T)))
    scale = jnp.append(scale, point.suffix_norms[1]) * (point.before_norms[-1] + fit.size)
    return jnp.max(jnp.where(size > 0, size / jnp.where(scale > 0, scale, 1), 0))


def kept_directions(point: Point, fit: Fit) -> Array:
    """Return the shares ``c_i = <F u_i, X R u_i> / s_i^2`` (n,) of the directions of the fit.

    At a critical point c_i is 1 if the point keeps direction i, and 0 otherwise. For repeated singular values the
    shares can be any numbers with an integer sum. Where ``s_i`` is 0 to rounding, c_i is 0.
    """
    return jnp.diagonal(shares(point, fit))


def shares(point: Point, fit: Fit) -> Array:
    """Return ``<F u_i, X R u_j> / s_i^2`` (n, n); at critical points ``X R = F Pi``, so that it is ``U^T Pi U``."""
    s = fit.singular_values
    along = matmul(matmul(fit.targets, fit.directions).T, matmul(point.before[-1], fit.directions))
    alive = s > linalg.cutoff(fit.targets, s)
    return jnp.where(alive[:, None], along / jnp.where(alive, s * s, 1)[:, None], 0)
