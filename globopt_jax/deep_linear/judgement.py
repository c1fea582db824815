"""What is this point? The value decides, the structure explains (YSJ18 Theorems 2.1 and 2.2, K18 2.4 and 2.5)."""

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

#: What a verdict can say; the code is the index.
KINDS = ("global_minimum", "saddle", "not_critical", "undecided")
GLOBAL, SADDLE, NOT_CRITICAL, UNDECIDED = range(len(KINDS))

#: The papers' assumptions, in the order of `Judgement.assumptions`, with what the failure of each costs.
ASSUMPTIONS = (
    ("rank(X^T Y) >= k", "the rank of the product decides nothing any more"),
    ("s_k > s_(k+1)", "several subspaces are equally good, and the row space of S_p decides nothing any more"),
    ("X has full column rank", "that costs nothing, the pseudo-inverse takes the place of the inverse"),
    ("m >= dx", "that costs nothing"),
    ("m >= dy", "that costs nothing"),
    ("X^T Y has full rank", "that costs nothing, rank(X^T Y) >= k is what is needed"),
    ("the s_i are distinct", "that costs nothing, s_k > s_(k+1) is what is needed"),
)
#: How far the shares may be from those of a projection near a critical point.
SETTLED = 0.02
#: From which share on a direction counts as present near a global minimum.
PRESENT = 0.9


class Judgement(NamedTuple):
    """What the values say about a point; arrays only, so that it can be taken under `jit` and `vmap`.

    ``code``: index into `KINDS`. ``loss``, ``optimum``, ``gap`` = loss - optimum, computed without the cancellation.
    ``gap_bound``: `suboptimality_bound`. ``rounding``: how far the exact gap may be from this one (`gap_of`).
    ``hidden``: the part of it that directions below the numerical rank of X may explain. ``scale``: what a gap is
    measured by, see `gap_scale`. ``tolerance``: the relative gap, and the stationarity, that count as zero.
    ``stationarity``: eta, see `point.stationarity`. ``rank``: numerical rank of the product R. ``kept`` (n,): the share
    of each direction of the fit. ``assumptions`` (7,): bool,
    see `ASSUMPTIONS`.
    """

    code: Array
    loss: Array
    optimum: Array
    gap: Array
    gap_bound: Array
    rounding: Array
    hidden: Array
    scale: Array
    tolerance: Array
    stationarity: Array
    rank: Array
    kept: Array
    assumptions: Array


def judgement_at(weights: Weights, fit: Fit, samples: int) -> tuple[Judgement, Point]:
    """Judge weights against the fit of data with that many samples."""
    k, dtype = min(widths_of(weights)), fit.inputs.dtype
    point = at(weights, fit)
    gap, rounding = gap_of(point, fit, k)
    eta = stationarity(point, fit)
    tolerance = jnp.asarray(linalg.decision_tolerance(dtype), dtype)
    best, scale = optimum(fit, k), gap_scale(fit, k)

    # Rounding is a worst case, and most often far smaller: so it may exceed the tolerance by far, but not hide the gap.
    resolved = rounding <= tolerance**0.5 * scale
    # Where the fit itself is rounding of Y, there is nothing to gain but rounding.
    nothing = (linalg.norm(fit.targets) <= fit.accuracy * fit.size) & (rounding <= 0.5 * tolerance * fit.size**2)
    tiny_gap = ((gap <= tolerance * scale) & resolved) | (nothing & (gap <= rounding))
    directions = _directions(point, fit, k, gap, rounding)
    # Without a hidden layer the loss is convex, and has no saddles.
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
    """How a point stands to the directions of the fit, if it is critical.

    ``kept`` (n,): the share of each. ``complete``: whether the point has all those whose absence the gap would tell.
    ``settled``: whether the shares are those of a projection. ``left_out``: whether a direction is missing altogether
    while all are settled, which makes a critical point a saddle, however weak the direction is.
    """

    kept: Array
    complete: Array
    settled: Array
    left_out: Array


def _directions(point: Point, fit: Fit, k: int, gap: Array, rounding: Array) -> _Directions:
    """Read the directions off the shares, as far as rounding leaves them clear."""
    energy = 0.5 * jnp.square(fit.singular_values)
    share = shares(point, fit)
    kept = jnp.diagonal(share)
    clear = energy > rounding
    counts = (jnp.arange(len(energy)) < k) & clear
    share = jnp.where(clear[:, None] & clear[None], share, 0)
    # Near a critical point the map is the fit times a projection; elsewhere a small gradient means a bad condition.
    settled = jnp.all(jnp.abs(matmul(share, share) - share) <= SETTLED)
    return _Directions(
        kept=kept,
        complete=jnp.all(jnp.where(counts, kept >= PRESENT, True)),
        settled=settled,
        # Where the gap is rounding, the direction gave its place to another one that is as strong.
        left_out=settled & (gap > rounding) & jnp.any(jnp.where(counts, kept <= SETTLED, False)),
    )


def gap_scale(fit: Fit, k: int) -> Array:
    """What a gap has to be small against: what the optimum explains of Y, or less.

    Targets far from zero, or inputs, let the fit explain a large constant, beside which everything else looks small. So
    no more counts than what the optimum gains on the best constant, or the optimum itself where that is larger.
    """
    best = optimum(fit, k)
    explained = 0.5 * jnp.sum(jnp.square(fit.singular_values)) - tail(fit, k)
    return jnp.minimum(explained, jnp.maximum(fit.spread - best, best))


def product_rank(weights: Weights) -> Array:
    """The number of singular values of R that rounding in the product cannot explain."""
    dtype = weights[0].dtype
    R, error = weights[0], jnp.zeros((), dtype)
    for w in weights[1:]:
        error = linalg.product_error(error, linalg.norm(R), linalg.norm(w), w.shape[0], dtype)
        R = matmul(R, w)
    s = linalg.singular_values(R)
    return jnp.sum(s > error + linalg.cutoff(R, s), dtype=jnp.int32)


def _assumptions(fit: Fit, k: int, samples: int) -> Array:
    """Which of `ASSUMPTIONS` hold."""
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
