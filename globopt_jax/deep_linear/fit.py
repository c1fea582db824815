"""The least-squares fit of Y by X, and the data reduced to what every deep linear network depends on."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.exact import known_rank
from globopt_jax.inputs import check_data, real
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Scalar, Targets

__all__ = ["Fit", "hidden", "least_squares", "optimum", "proved_fit", "tail", "within"]


class Fit(NamedTuple):
    """The least-squares fit ``F = X R_ls`` of Y, in coordinates in which the number of samples no longer matters.

    With ``X = Q_x diag(scales) V^T`` the reduced data are ``inputs = diag(scales) V^T`` and ``targets = Q_x^T Y``.
    Every R has ``1/2 ||X R - Y||^2 = 1/2 ||inputs R - targets||^2 + unexplained``, so that the functions here give
    the same gradients, bounds and gaps for ``(inputs, targets)`` as for ``(X, Y)``, from min(m, dx) rows.

    ``inputs`` (q, dx), ``targets`` (q, dy), q = min(m, dx): rows beyond the rank of X are zero. ``unexplained``:
    ``1/2 ||Y - F||^2``. ``rank``: numerical rank r of X. ``scales`` (q,): singular values of X, largest first, 0 beyond
    the rank. ``map`` (dx, dy): ``R_ls = X^+ Y``. ``singular_values`` (n,), n = min(dx, dy): ``s_1 >= s_2 >= ...`` of F.
    ``directions`` (dy, n): the right singular vectors u_i of F as columns (zero where min(q, dy) < n). ``size``:
    ``||Y||_F``. ``spread``: ``1/2 ||Y - mean||^2``, the loss of the best constant, inf where all rows of Y are equal.
    ``correlation_rank``: numerical rank of ``X^T Y``. ``accuracy``: relative error of the targets.

    What rounding and directions of X below the numerical rank may have done (`gap_of` has the proof): ``columns``
    (dx,): the norms n_j of X's columns. ``spill``: ``||T diag(n)^-1||_F`` of the rows T that count as zero. ``turn``:
    how far the squared norm of the fitted values may be off, halved. ``hidden`` (dy,): the singular values of what is
    left of Y, as many as X may have directions that are not known, and ``hidden_error``: how far their norm may be off.
    """

    inputs: Array
    targets: Array
    unexplained: Array
    rank: Array
    scales: Array
    map: Array
    singular_values: Array
    directions: Array
    size: Array
    spread: Array
    correlation_rank: Array
    accuracy: Array
    columns: Array
    spill: Array
    turn: Array
    hidden: Array
    hidden_error: Array


def least_squares(X: Inputs, Y: Targets, cutoff: str = "press", rank: Any = None) -> Fit:
    """Fit Y by a linear map of X, and reduce the data to the sufficient statistics of every linear network.

    One QR factorization of ``[X, Y]`` without Q, then decompositions of matrices with min(m, dx) rows. Nothing is
    squared, so that singular values of X are resolved down to eps times the largest.

    Args:
        X: (m, dx), of any rank. Y: (m, dy).
        cutoff: which singular values of X count as zero, see `linalg.cutoff`.
        rank: a number that the exact rank of X is known not to exceed, such as `known_rank` proves; it may be traced.
            None: what `linalg.rank_at_most` tells. Bounds are tight only where the numerical rank is as large: what
            else X may have by way of directions could explain what is left of Y.

    Raises:
        ValueError: shapes that do not fit, an unknown cutoff.

    Example:
        >>> fit = least_squares(jnp.eye(3)[:, :2], jnp.array([[2.0], [0.0], [1.0]]))
        >>> fit.map.round(6).tolist(), float(fit.unexplained), int(fit.rank)
        ([[2.0], [0.0]], 0.5, 2)
    """
    X, Y = real("X", X), real("Y", Y)
    check_data(X, Y)
    return _least_squares(X, Y, cutoff, min(X.shape) if rank is None else rank)


@partial(jax.jit, static_argnums=2)  # operation by operation the first call would take seconds
def _least_squares(X: Inputs, Y: Targets, cutoff: str, most: Any) -> Fit:
    dx, dy = X.shape[1], Y.shape[1]
    data = _reduced(X, Y, cutoff)
    kept = data.kept
    inputs, targets = kept[:, None] * data.rotated, kept[:, None] * data.coordinates
    left_over = jnp.sum(jnp.square((1 - kept)[:, None] * data.coordinates)) + jnp.sum(jnp.square(data.below))
    sigma, directions, correlation = _directions(targets, min(dx, dy))
    per_column = jnp.where(data.columns > 0, data.columns, 1)[None]
    spread = 0.5 * jnp.sum(jnp.square(Y - jnp.mean(Y, axis=0, keepdims=True)))
    # How many directions X may have besides the leading a = 0..q.
    most = jnp.minimum(jnp.asarray(most, jnp.int32), linalg.rank_at_most(X))
    unknown = jnp.maximum(most - jnp.arange(len(kept) + 1, dtype=jnp.int32), 0)
    turn, hidden, hidden_error = _uncertain(data, targets, unknown)
    return Fit(
        inputs=inputs,
        targets=targets,
        unexplained=0.5 * left_over,
        rank=data.rank,
        scales=data.scales,
        map=matmul(data.inverse, targets),
        singular_values=sigma,
        directions=directions,
        size=data.size,
        spread=jnp.where(jnp.all(Y[:1] == Y), jnp.inf, spread),
        correlation_rank=correlation,
        accuracy=data.accuracy,
        columns=data.columns,
        spill=linalg.norm((1 - kept)[:, None] * data.rotated / per_column),
        turn=turn,
        hidden=hidden,
        hidden_error=hidden_error,
    )


class _Reduced(NamedTuple):
    """X and Y in the coordinates of X's singular vectors, those included that count as zero.

    ``kept`` (q,): 1 where a singular value counts, else 0. ``scales`` (q,), ``rank``: of X. ``rotated`` (q, dx):
    ``Q_x^T X``. ``coordinates`` (q, dy): ``Q_x^T Y``, and ``below``: the rest of Y. ``inverse`` (dx, q):
    ``V diag(scales)^+``. ``columns`` (dx,): the norms of X's columns. ``size``: ``||Y||``. ``accuracy``: relative
    error of all of these.
    """

    kept: Array
    scales: Array
    rank: Array
    rotated: Array
    coordinates: Array
    below: Array
    inverse: Array
    columns: Array
    size: Array
    accuracy: Array


def _reduced(X: Inputs, Y: Targets, cutoff: str) -> _Reduced:
    """Reduce the data by a QR factorization of ``[X, Y]`` and a decomposition of its part for X."""
    m, dx = X.shape
    q = min(m, dx)
    factor = jnp.linalg.qr(jnp.concatenate([X, Y], axis=1), mode="r")
    head = factor[:q, :dx]
    U, s, Vt, rank, kept = linalg.svd(head, cutoff, of=X)
    scales = kept * s
    return _Reduced(
        kept=kept,
        scales=scales,
        rank=rank,
        # Rotated, not put together from the factors: every column then keeps its own relative accuracy.
        rotated=matmul(U.T, head),
        coordinates=matmul(U.T, factor[:q, dx:]),
        below=factor[q:, dx:],
        inverse=Vt.T * (kept / jnp.where(scales > 0, scales, 1))[None],
        columns=jax.vmap(linalg.norm, 1)(X),
        size=linalg.norm(Y),
        accuracy=jnp.asarray(linalg.factorization_error(m, factor.dtype), factor.dtype),
    )


def _directions(targets: Array, n: int) -> tuple[Array, Array, Array]:
    """The n leading singular values of the fit, its right singular vectors as columns, and the rank of ``X^T Y``."""
    _, sigma, directions, correlation, _ = linalg.svd(targets)  # X^T Y = X^T F has the rank of F
    pad = max(n - len(sigma), 0)
    return jnp.pad(sigma, (0, pad))[:n], jnp.pad(directions, ((0, pad), (0, 0)))[:n].T, correlation


class _Leading(NamedTuple):
    """What is known of the leading a directions of X, an entry for each a = 0..q.

    ``known``: whether rounding leaves them in the column space at all. ``angle``: how far it may turn them. ``shift``:
    how far it may move the fit within them, relative to the fit. ``explained``, ``rest``: the norms of the parts of Y
    along them, and beside them. ``carried``: a bound of ``||diag(n) R||`` for the map R that reaches this part of Y.
    """

    known: Array
    angle: Array
    shift: Array
    explained: Array
    rest: Array
    carried: Array


def _leading(data: _Reduced) -> _Leading:
    """Bound by how much the leading directions may be turned, and how much they take the fit with them."""
    off = jnp.square(matmul(data.rotated, data.inverse) - jnp.eye(len(data.kept), dtype=data.rotated.dtype))
    lengths = jax.vmap(linalg.norm, 1)(data.columns[:, None] * data.inverse)
    total, within = jnp.cumsum(jnp.sum(off, axis=0)), jnp.diagonal(jnp.cumsum(jnp.cumsum(off, axis=0), axis=1))
    outside = jnp.sqrt(jnp.maximum(total - within, 0))
    sure = 1 - jnp.sqrt(total)
    angle = (outside + data.accuracy * jnp.sqrt(jnp.cumsum(jnp.square(1 + lengths)))) / jnp.where(sure > 0, sure, 1)
    known = jnp.append(True, (sure > 0) & (data.kept > 0) & (angle < 1))
    angle = jnp.where(known, _from_zero(angle), 1)
    heights = jnp.sum(jnp.square(data.coordinates), axis=1)
    return _Leading(
        known=known,
        angle=angle,
        shift=_from_zero(outside + jnp.sqrt(total) * angle[1:]),
        explained=jnp.sqrt(_from_zero(jnp.cumsum(heights))),
        rest=jnp.sqrt(jnp.append(jnp.cumsum(heights[::-1])[::-1], 0) + jnp.sum(jnp.square(data.below))),
        carried=_from_zero(jnp.cumsum(lengths * jnp.sqrt(heights))),
    )


def _uncertain(data: _Reduced, targets: Array, unknown: Array) -> tuple[Array, Array, Array]:
    """`Fit.turn`, `Fit.hidden` and `Fit.hidden_error`, by the leading directions that cost the bound least.

    Args:
        data: the reduced data. targets: the fit's. unknown (q + 1,): how many directions X may have besides.
    """
    q, dy = len(data.kept), targets.shape[1]
    leading = _leading(data)

    def prices(carried: Array) -> tuple[Array, Array, Array]:
        """Turn, error and total cost for the bound, if R takes the fit ``||diag(n) R|| = carried`` to each of them."""
        explained, rest = leading.explained, leading.rest
        slip = data.accuracy * (explained + carried) + leading.shift * explained
        turn = slip * rest + 0.5 * jnp.square(jnp.maximum(leading.angle * rest, slip))
        slip = slip + data.accuracy * data.size
        return turn, slip, turn + jnp.where(unknown > 0, 0.5 * jnp.square(rest + slip), 0)

    best = jnp.argmin(jnp.where(leading.known, prices(leading.carried)[2], jnp.inf)).astype(jnp.int32)
    chosen = (jnp.arange(q, dtype=jnp.int32) < best).astype(targets.dtype)
    reach = linalg.norm(data.columns[:, None] * matmul(data.inverse * chosen[None], targets))
    turn, slip, _ = prices(reach)
    hidden = linalg.singular_values(jnp.concatenate([(1 - chosen)[:, None] * data.coordinates, data.below]))
    hidden = jnp.pad(hidden, (0, max(dy - len(hidden), 0)))
    return (
        turn[best],
        jnp.where(jnp.arange(dy, dtype=jnp.int32) < unknown[best], hidden, 0),
        jnp.where(unknown[best] > 0, slip[best], 0),
    )


def _from_zero(a: Array) -> Array:
    """The values for the leading 1, 2, ... directions, after the value 0 for none."""
    return jnp.append(jnp.zeros(1, a.dtype), a)


def proved_fit(X: Inputs, Y: Targets) -> Fit:
    """`least_squares` of arrays that are not traced, with the rank that exact arithmetic proves where that matters."""
    fit = least_squares(X, Y)
    return least_squares(X, Y, rank=known_rank(X)) if float(fit.hidden_error) > 0 else fit


def tail(fit: Fit, rank: Any) -> Scalar:
    """``1/2 sum_{i > rank} s_i^2``: what maps of that rank cannot reach of the fit."""
    return 0.5 * jnp.sum(jnp.where(within(fit, rank), 0, jnp.square(fit.singular_values)))


def hidden(fit: Fit, rank: Any) -> Scalar:
    """What directions of X that are not known may explain of Y besides, at most, by maps of that rank."""
    known = jnp.arange(len(fit.hidden), dtype=jnp.int32) >= jnp.asarray(rank, jnp.int32)
    return 0.5 * jnp.square(linalg.norm(jnp.where(known, 0, fit.hidden)) + fit.hidden_error)


def within(fit: Fit, rank: Any) -> Array:
    """Which directions come before `rank`; bool (n,)."""
    return jnp.arange(len(fit.singular_values), dtype=jnp.int32) < jnp.asarray(rank, jnp.int32)


def optimum(fit: Fit, rank: Any) -> Scalar:
    """``L*`` of networks whose narrowest layer has `rank` units: ``1/2 ||Y - F||^2 + 1/2 sum_{i > rank} s_i^2``."""
    return fit.unexplained + tail(fit, rank)
