"""Everything that bounds, verdicts and escapes ask about one point, computed once from the reduced data."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.minimum import Fit, tail
from globopt_jax.deep_linear.network import Weights, widths_of
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array

__all__ = ["Point", "at", "gap_of", "kept_directions", "shares", "stationarity"]


class Point(NamedTuple):
    """Partial products at weights; T and C are the fit's inputs and targets, l = 0..H+1.

    ``before[l]``: ``T P_l`` (q, d_l). ``after[l]``: ``S_l`` (d_l, dy). ``before_error``, ``after_error`` (H+2,): what
    rounding may have done to them, in the Frobenius norm. ``prefix_norms``, ``suffix_norms`` (H+2,): ``||P_l||_2``,
    ``||S_l||_2``. ``residual`` (q, dy): ``T R - C``. ``gradients``: dL/dW_l, l = 1..H+1.
    """

    before: list[Any]
    after: list[Any]
    before_error: Array
    after_error: Array
    prefix_norms: Array
    suffix_norms: Array
    residual: Array
    gradients: list[Any]


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
    residual = before[-1] - fit.targets
    gradients = [matmul(matmul(before[l].T, residual), after[l + 1].T) for l in range(len(weights))]
    suffix_norms = [linalg.spectral_norm(s) for s in after]
    return Point(
        before,
        after,
        jnp.stack(error),
        jnp.stack(after_error),
        jnp.stack(prefix_norms),
        jnp.stack(suffix_norms),
        residual,
        gradients,
    )


def gap_of(point: Point, fit: Fit, k: int) -> tuple[Array, Array]:
    """``L - L*`` in closed form, and what rounding does to it where the products are well conditioned.

    The unexplained part of the loss cancels exactly; for ``k = min(dx, dy)`` nothing else is subtracted. Of the targets
    Y only their rounding is left in the fitted ones.
    """
    gap = 0.5 * jnp.sum(jnp.square(point.residual)) - tail(fit, k)
    moved = fit.accuracy * (linalg.norm(point.before[-1]) + fit.size)
    return gap, moved * (linalg.norm(point.residual) + linalg.norm(fit.targets) + moved)


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
