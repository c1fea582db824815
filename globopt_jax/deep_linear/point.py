"""Everything that bounds, verdicts and escapes ask about one point, computed once from the reduced data."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.fit import Fit, hidden, tail
from globopt_jax.deep_linear.network import Weights, widths_of
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array

__all__ = ["Point", "at", "gap_of", "kept_directions", "shares", "stationarity"]


class Point(NamedTuple):
    """Partial products at weights; T and C are the fit's inputs and targets, l = 0..H+1.

    ``before[l]``: ``T P_l`` (q, d_l). ``after[l]``: ``S_l`` (d_l, dy). ``before_error``, ``after_error`` (H+2,): what
    rounding may have done to them, in the Frobenius norm. ``prefix_norms``, ``suffix_norms`` (H+2,): ``||P_l||_2``,
    ``||S_l||_2``. ``residual`` (q, dy): ``T R - C``. ``gradients``: dL/dW_l, l = 1..H+1. ``reach``: ``||diag(n) R||_F``
    at most, with n the norms of X's columns.
    """

    before: list[Any]
    after: list[Any]
    before_error: Array
    after_error: Array
    prefix_norms: Array
    suffix_norms: Array
    residual: Array
    gradients: list[Any]
    reach: Array


def at(weights: Weights, fit: Fit) -> Point:
    """Sweep forward and backward once."""
    dtype, dy = fit.inputs.dtype, fit.targets.shape[1]
    widths = widths_of(weights)
    norms = [linalg.norm(w) for w in weights]
    prefix: Any = None
    before: list[Any] = [fit.inputs]
    error: list[Any] = [jnp.zeros((), dtype)]
    prefix_norms: list[Any] = [jnp.ones((), dtype)]
    for w, norm, inner in zip(weights, norms, widths, strict=False):
        error.append(linalg.product_error(error[-1], linalg.norm(before[-1]), norm, inner, dtype))
        before.append(matmul(before[-1], w))
        prefix = w if prefix is None else matmul(prefix, w)
        prefix_norms.append(linalg.spectral_norm(prefix))
    after: list[Any] = [jnp.eye(dy, dtype=dtype)]
    after_error: list[Any] = [jnp.zeros((), dtype)]
    for w, norm, inner in zip(reversed(weights), reversed(norms), reversed(widths), strict=False):
        # The last kernel meets the identity: exact.
        inner = inner if len(after) > 1 else 0
        after_error.append(linalg.product_error(after_error[-1], linalg.norm(after[-1]), norm, inner, dtype))
        after.append(w if len(after) == 1 else matmul(w, after[-1]))
    after, after_error = after[::-1], after_error[::-1]
    # What layer l adds passes through S_l, which is mostly far smaller than the product of the later layers' norms.
    suffix_norms = [linalg.spectral_norm(s) for s in after]
    first = fit.columns[:, None] * weights[0]
    size = linalg.norm(first)
    spread = linalg.product_error(after_error[1], linalg.norm(after[1]), size, widths[1], dtype)
    scaled = linalg.norm(fit.inputs / jnp.where(fit.columns > 0, fit.columns, 1)[None])
    sizes = [scaled * size, *(linalg.norm(a) * w for a, w in zip(before[1:], norms[1:], strict=False))]
    passed = [linalg.product_rounding(inner, dtype) * a for a, inner in zip(sizes, widths, strict=False)]
    through = [1.01 * s + off for s, off in zip(suffix_norms[1:], after_error[1:], strict=True)]
    error[-1] = jnp.minimum(error[-1], sum(a * b for a, b in zip(passed, through, strict=True)))
    residual = before[-1] - fit.targets
    gradients = [matmul(matmul(before[l].T, residual), after[l + 1].T) for l in range(len(weights))]
    return Point(
        before,
        after,
        jnp.stack(error),
        jnp.stack(after_error),
        jnp.stack(prefix_norms),
        jnp.stack(suffix_norms),
        residual,
        gradients,
        linalg.norm(matmul(first, after[1])) + spread,
    )


def gap_of(point: Point, fit: Fit, k: int) -> tuple[Array, Array]:
    """``L - L*`` in closed form, and how far the exact gap may be from it.

    The unexplained part of the loss cancels exactly; for ``k = min(dx, dy)`` nothing else is subtracted.

    The exact gap is ``1/2 ||X R||^2 - <X R, Y> + 1/2 N(P Y)^2``, with P the projector on the column space of X, and N
    the norm of the k largest singular values. The reduced data ``Q T`` and ``Q C + rest`` are those of an X and a Y
    that differ by rounding: ``||dX R|| <= accuracy (||X R|| + ||diag(n) R||)`` with the norms n of X's columns, so that
    badly scaled columns cost nothing, and ``||dY|| <= accuracy ||Y||``. So X R is off by some e, rounding of the
    products included, which moves the first two terms by ``e (||X R - Y|| + e / 2)``.

    As to P: let A be the span of ``X M``, where M (dx, a) maps to the leading a columns of Q up to rounding. It lies in
    the column space of X, it is turned from those columns by an angle t of the size of dX M, and takes ``f = Q_a C_a``
    to within ``s = ||dX M C_a||`` of itself. With ``g = Y - f``, ``<Y, P_A Y>`` is thus off by ``2 s ||g||`` and the
    larger of ``(t ||g||)^2`` and ``s^2``: twice `turn`. Beside A the column space has ``rank X - a`` directions of
    which nothing is known but their number; they add no more than as many of the largest singular values of
    ``(I - P_A) Y``, squared (Ky Fan). These are `hidden`, to within ``hidden_error = s + accuracy ||Y||``. Every a
    will do; `least_squares` takes the best one.
    """
    size, fitted = linalg.norm(point.residual), linalg.norm(point.before[-1])
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
    """``eta = max_l ||dL/dW_l|| / (||P_{l-1}||_2 ||S_l||_2 ||X||_2 (||X R|| + ||Y||))``, with 0 / 0 = 0.

    Free of units: neither scaling the data nor moving scale from one layer to another changes it much. Where E = 0 it
    is 0, unlike a norm divided by ||E||. The first layer counts with whitened inputs as well,
    ``||P[X] (X R - Y) S_1^T|| / (||S_1||_2 (||X R|| + ||Y||))``: a small input makes a gradient small, not zero.
    """
    scale = point.prefix_norms[:-1] * point.suffix_norms[1:] * fit.scales[0]
    size = jnp.stack([*map(linalg.norm, point.gradients), linalg.norm(matmul(point.residual, point.after[1].T))])
    scale = jnp.append(scale, point.suffix_norms[1]) * (linalg.norm(point.before[-1]) + fit.size)
    return jnp.max(jnp.where(size > 0, size / jnp.where(scale > 0, scale, 1), 0))


def kept_directions(point: Point, fit: Fit) -> Array:
    """``c_i = <F u_i, X R u_i> / s_i^2`` (n,): 1 where a critical point keeps direction i of the fit, else 0.

    0 where ``s_i`` is 0 to rounding. Between repeated singular values any numbers with an integer sum can appear.
    """
    return jnp.diagonal(shares(point, fit))


def shares(point: Point, fit: Fit) -> Array:
    """``<F u_i, X R u_j> / s_i^2`` (n, n): at critical points ``X R = F Pi``, and this is ``U^T Pi U``."""
    s = fit.singular_values
    along = matmul(matmul(fit.targets, fit.directions).T, matmul(point.before[-1], fit.directions))
    alive = s > linalg.cutoff(fit.targets, s)
    return jnp.where(alive[:, None], along / jnp.where(alive, s * s, 1)[:, None], 0)
