"""The kind of a point, decided by the loss and its optimum (YSJ18 Theorems 2.1 and 2.2, K18 Theorems 2.4 and 2.5)."""

from typing import NamedTuple

import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.bounds import bounds_at
from globopt_jax.deep_linear.fit import Fit, hidden, optimum, tail
from globopt_jax.deep_linear.network import Weights, widths_of
from globopt_jax.deep_linear.point import Point, at, gap_of, shares, stationarity
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array

__all__ = ["ASSUMPTIONS", "KINDS", "Judgement", "judgement_at", "product_rank"]

#: The kinds of points; `Judgement.code` is the index.
KINDS = ("global_minimum", "saddle", "not_critical", "undecided")
GLOBAL, SADDLE, NOT_CRITICAL, UNDECIDED = range(len(KINDS))

#: The papers' assumptions, in the order of `Judgement.assumptions`, each with the consequence if it fails.
ASSUMPTIONS = (
    ("rank(X^T Y) >= k", "the rank of the product no longer tells global minima from saddles"),
    ("s_k > s_(k+1)", "several subspaces are equally good, so that the row space of S_p tells nothing"),
    ("X has full column rank", "no consequence, the pseudo-inverse replaces the inverse"),
    ("m >= dx", "no consequence"),
    ("m >= dy", "no consequence"),
    ("X^T Y has full rank", "no consequence, rank(X^T Y) >= k suffices"),
    ("the s_i are distinct", "no consequence, s_k > s_(k+1) suffices"),
)
#: The largest deviation of the shares from a projection that counts as rounding or as closeness to a critical point.
SETTLED = 0.02
#: The smallest share with which a direction counts as kept near a global minimum.
PRESENT = 0.9


class Judgement(NamedTuple):
    """The part of a classification that works under `jit` and `vmap`; arrays only."""

    code: Array
    """The index of the kind in `KINDS`."""
    loss: Array
    """The loss L."""
    optimum: Array
    """The global minimum L*."""
    gap: Array
    """``L - L*``, computed without subtracting the two losses."""
    gap_bound: Array
    """The bound of `suboptimality_bound`."""
    rounding: Array
    """The most by which the exact gap may differ from ``gap``, see `gap_of`."""
    hidden: Array
    """The part of ``rounding`` that comes from directions of X below its numerical rank."""
    scale: Array
    """The loss that a gap is compared with, see `gap_scale`."""
    tolerance: Array
    """The relative gap, and the stationarity, up to which a value counts as zero."""
    stationarity: Array
    """The dimensionless gradient eta, see `point.stationarity`."""
    rank: Array
    """The numerical rank of the product R."""
    kept: Array
    """(n,): the share of each direction of the fit that the point keeps, see `point.kept_directions`."""
    assumptions: Array
    """(7,): bool, whether each of `ASSUMPTIONS` holds."""


def judgement_at(weights: Weights, fit: Fit, samples: int) -> tuple[Judgement, Point]:
    """Judge weights against the fit of data; samples is the number m of samples."""
    k, dtype = min(widths_of(weights)), fit.inputs.dtype
    point = at(weights, fit)
    gap, rounding = gap_of(point, fit, k)
    eta = stationarity(point, fit)
    tolerance = jnp.asarray(linalg.decision_tolerance(dtype), dtype)
    best, scale = optimum(fit, k), gap_scale(fit, k)

    # The rounding is a worst case and mostly far smaller, so it may exceed the tolerance, up to the tolerance's root.
    resolved = rounding <= tolerance**0.5 * scale
    # Where the fit itself is rounding of Y, any gap is rounding as well.
    nothing = (linalg.norm(fit.targets) <= fit.accuracy * fit.size) & (rounding <= 0.5 * tolerance * fit.size**2)
    tiny_gap = ((gap <= tolerance * scale) & resolved) | (nothing & (gap <= rounding))
    directions = _directions(point, fit, k, gap, rounding)
    # Without a hidden layer the loss is convex and has no saddles.
    doubtful = (gap <= rounding) | directions.complete | ~directions.settled | (len(weights) == 1)
    at_rest = jnp.where(
        tiny_gap,
        jnp.where(directions.left_out & (len(weights) > 1), SADDLE, GLOBAL),
        jnp.where(doubtful, UNDECIDED, SADDLE),
    )
    moving = jnp.where(tiny_gap, GLOBAL, jnp.where(gap <= rounding, UNDECIDED, NOT_CRITICAL))
    code = jnp.where(eta <= tolerance, at_rest, moving)
    judgement = Judgement(
        code=code.astype(jnp.int32),
        loss=gap + best,
        optimum=best,
        gap=gap,
        gap_bound=bounds_at(point, fit, k).best,
        rounding=rounding,
        hidden=hidden(fit, k),
        scale=scale,
        tolerance=tolerance,
        stationarity=eta,
        rank=product_rank(weights),
        kept=directions.kept,
        assumptions=_assumptions(fit, k, samples),
    )
    return judgement, point


class _Directions(NamedTuple):
    """The directions of the fit that a critical point keeps."""

    kept: Array
    """(n,): the share of each direction that the point keeps."""
    complete: Array
    """Whether the point keeps all of the top k directions that are stronger than rounding."""
    settled: Array
    """Whether the shares are those of a projection, as at critical points."""
    left_out: Array
    """Whether the shares are settled and one of the top k directions is missing entirely. A critical point is then a
    saddle, however weak the direction is."""


def _directions(point: Point, fit: Fit, k: int, gap: Array, rounding: Array) -> _Directions:
    """Find the directions that a point keeps, among those that are stronger than rounding."""
    energy = 0.5 * jnp.square(fit.singular_values)
    share = shares(point, fit)
    kept = jnp.diagonal(share)
    clear = energy > rounding
    counts = (jnp.arange(len(energy)) < k) & clear
    share = jnp.where(clear[:, None] & clear[None], share, 0)
    # Near a critical point the map is the fit times a projection. Elsewhere the gradient is small only because the
    # problem is badly conditioned.
    settled = jnp.all(jnp.abs(matmul(share, share) - share) <= SETTLED)
    return _Directions(
        kept=kept,
        complete=jnp.all(jnp.where(counts, kept >= PRESENT, True)),
        settled=settled,
        # Where the gap is rounding, another direction of equal strength has replaced the missing one.
        left_out=settled & (gap > rounding) & jnp.any(jnp.where(counts, kept <= SETTLED, False)),
    )


def gap_scale(fit: Fit, k: int) -> Array:
    """Return the loss that a gap is compared with: the part of the loss that the optimum explains, or less.

    If targets or inputs are far from zero the fit explains a large constant, and every gap looks small beside it. So
    the scale is at most the gain of the optimum over the best constant, or the optimum itself if that is larger.
    """
    best = optimum(fit, k)
    explained = 0.5 * jnp.sum(jnp.square(fit.singular_values)) - tail(fit, k)
    return jnp.minimum(explained, jnp.maximum(fit.spread - best, best))


def product_rank(weights: Weights) -> Array:
    """Return the number of singular values of R that are larger than the rounding error of the product."""
    dtype = weights[0].dtype
    R, error = weights[0], jnp.zeros((), dtype)
    for w in weights[1:]:
        error = linalg.product_error(error, linalg.norm(R), linalg.norm(w), w.shape[0], dtype)
        R = matmul(R, w)
    s = linalg.singular_values(R)
    return jnp.sum(s > error + linalg.cutoff(R, s), dtype=jnp.int32)


def _assumptions(fit: Fit, k: int, samples: int) -> Array:
    """Return which of `ASSUMPTIONS` hold."""
    s = fit.singular_values
    dx, dy = fit.map.shape
    apart = linalg.decision_tolerance(s.dtype) * s[0]
    following = s[k] if k < len(s) else jnp.zeros((), s.dtype)
    return jnp.stack(
        [
            fit.correlation_rank >= k,
            s[k - 1] > following + (apart if k < len(s) else 0),
            fit.rank >= dx,
            jnp.asarray(samples >= dx),
            jnp.asarray(samples >= dy),
            fit.correlation_rank >= min(dx, dy),
            jnp.all(s[:-1] - s[1:] > apart),
        ]
    )
