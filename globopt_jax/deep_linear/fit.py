"""The least-squares fit of Y by X, and the reduced data on which the loss of every deep linear network depends."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.exact import known_rank
from globopt_jax.inputs import check_data, real
from globopt_jax.linalg import lapack, matmul
from globopt_jax.shapes import Array, Inputs, Scalar, Targets

__all__ = ["Fit", "hidden", "least_squares", "optimum", "proved_fit", "tail", "within"]


class Fit(NamedTuple):
    """The least-squares fit ``F = X R_ls`` of Y and the reduced data, which have min(m, dx) rows instead of m.

    With ``X = Q_x diag(scales) V^T`` the reduced data are ``inputs = diag(scales) V^T`` and ``targets = Q_x^T Y``.
    Every map R has ``1/2 ||X R - Y||^2 = 1/2 ||inputs R - targets||^2 + unexplained``. So gradients, bounds and gaps
    are the same for ``(inputs, targets)`` as for ``(X, Y)``. The last five fields bound the effects of rounding and of
    directions of X below its numerical rank; `point.gap_of` has the proof.
    """

    inputs: Array
    """(q, dx), q = min(m, dx): the reduced inputs. Rows beyond the rank of X are zero."""
    targets: Array
    """(q, dy): the reduced targets. Rows beyond the rank of X are zero."""
    unexplained: Array
    """``1/2 ||Y - F||^2``, the part of the loss that no map can lower."""
    rank: Array
    """The numerical rank r of X."""
    scales: Array
    """(q,): the singular values of X, largest first, and 0 beyond the rank."""
    map: Array
    """(dx, dy): the least-squares map ``R_ls = X^+ Y``."""
    singular_values: Array
    """(n,), n = min(dx, dy): the singular values ``s_1 >= s_2 >= ...`` of F."""
    directions: Array
    """(dy, n): the right singular vectors u_i of F as columns. Columns beyond min(q, dy) are zero."""
    size: Array
    """``||Y||_F``."""
    spread: Array
    """``1/2 ||Y - mean||^2``, the loss of the best constant prediction; inf where all rows of Y are equal."""
    correlation_rank: Array
    """The numerical rank of ``X^T Y``."""
    accuracy: Array
    """The relative error of the reduced data."""
    columns: Array
    """(dx,): the norms n_j of the columns of X."""
    spill: Array
    """``||T diag(n)^-1||_F``, where T are the rows of the rotated X that count as zero."""
    turn: Array
    """Half the largest possible error of the squared norm of the fitted values."""
    hidden: Array
    """(dy,): the leading singular values of the unexplained part of Y, as many as X may have unknown directions; 0
    beyond them."""
    hidden_error: Array
    """The largest possible error of the norm of ``hidden``; 0 if X has no unknown directions."""


def least_squares(X: Inputs, Y: Targets, cutoff: str = "press", rank: Any = None) -> Fit:
    """Fit Y by a linear map of X, and reduce the data to the sufficient statistics of every deep linear network.

    The cost is one QR factorization of ``[X, Y]`` without Q, and decompositions of matrices with min(m, dx) rows. No
    Gram matrix is formed, so that singular values of X are resolved down to eps times the largest.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        X: inputs (m, dx), of any rank.
        Y: targets (m, dy).
        cutoff: the criterion for singular values of X that count as zero, see `linalg.cutoff`.
        rank: an upper bound of the exact rank of X, such as `known_rank` proves; it may be traced. None takes the bound
            of `linalg.rank_at_most`. Bounds of gaps are tight only if this number equals the numerical rank, since
            further directions of X might explain the rest of Y.

    Returns:
        A `Fit`.

    Raises:
        ValueError: the shapes do not fit, or the cutoff is unknown.
        TypeError: an array does not hold real numbers.

    Example:
        >>> fit = least_squares(jnp.eye(3)[:, :2], jnp.array([[2.0], [0.0], [1.0]]))
        >>> fit.map.round(6).tolist(), float(fit.unexplained), int(fit.rank)
        ([[2.0], [0.0]], 0.5, 2)
    """
    X, Y = real("X", X), real("Y", Y)
    check_data(X, Y)
    return _least_squares(X, Y, cutoff, min(X.shape) if rank is None else rank)


@partial(jax.jit, static_argnums=2)  # without jit the first call would take seconds
def _least_squares(X: Inputs, Y: Targets, cutoff: str, most: Any) -> Fit:
    dx, dy = X.shape[1], Y.shape[1]
    data = _reduced(X, Y, cutoff)
    kept = data.kept
    inputs, targets = kept[:, None] * data.rotated, kept[:, None] * data.coordinates
    left_over = jnp.sum(jnp.square((1 - kept)[:, None] * data.coordinates)) + jnp.sum(jnp.square(data.below))
    sigma, directions, correlation = _directions(targets, min(dx, dy))
    per_column = jnp.where(data.columns > 0, data.columns, 1)[None]
    spread = 0.5 * jnp.sum(jnp.square(Y - jnp.mean(Y, axis=0, keepdims=True)))
    # The number of directions that X may have besides the leading a = 0..q.
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
    """X and Y in the coordinates of all left singular vectors of X, also those that count as zero."""

    kept: Array
    """(q,): 1 where a singular value counts, else 0."""
    scales: Array
    """(q,): the singular values of X, 0 where they do not count."""
    rank: Array
    """The numerical rank of X."""
    rotated: Array
    """(q, dx): ``Q_x^T X``."""
    coordinates: Array
    """(q, dy): ``Q_x^T Y``."""
    below: Array
    """The coordinates of the rest of Y."""
    inverse: Array
    """(dx, q): ``V diag(scales)^+``."""
    columns: Array
    """(dx,): the norms of the columns of X."""
    size: Array
    """``||Y||_F``."""
    accuracy: Array
    """The relative error of the arrays above."""


def _reduced(X: Inputs, Y: Targets, cutoff: str) -> _Reduced:
    """Reduce the data by a QR factorization of ``[X, Y]`` and a decomposition of its part for X."""
    m, dx = X.shape
    q = min(m, dx)
    factor = lapack.qr(jnp.concatenate([X, Y], axis=1), mode="r")
    head = factor[:q, :dx]
    U, s, Vt, rank, kept = linalg.svd(head, cutoff, of=X)
    scales = kept * s
    return _Reduced(
        kept=kept,
        scales=scales,
        rank=rank,
        # The product diag(s) Vt is the same, but here every column keeps its relative accuracy.
        rotated=matmul(U.T, head),
        coordinates=matmul(U.T, factor[:q, dx:]),
        below=factor[q:, dx:],
        inverse=Vt.T * (kept / jnp.where(scales > 0, scales, 1))[None],
        columns=jax.vmap(linalg.norm, 1)(X),
        size=linalg.norm(Y),
        accuracy=jnp.asarray(linalg.factorization_error(m, factor.dtype), factor.dtype),
    )


def _directions(targets: Array, n: int) -> tuple[Array, Array, Array]:
    """Return n leading singular values of the fit, its right singular vectors as columns, and the rank of ``X^T Y``."""
    _, sigma, directions, correlation, _ = linalg.svd(targets)  # X^T Y = X^T F has the rank of F
    pad = max(n - len(sigma), 0)
    return jnp.pad(sigma, (0, pad))[:n], jnp.pad(directions, ((0, pad), (0, 0)))[:n].T, correlation


class _Leading(NamedTuple):
    """Error bounds for the leading a directions of X. Every field has an entry for each a = 0..q."""

    known: Array
    """Whether the directions lie in the column space of X in spite of rounding."""
    angle: Array
    """A bound of the angle by which rounding may turn them."""
    shift: Array
    """A bound of the error of the fit along them, relative to the fit."""
    explained: Array
    """The norm of the part of Y along them."""
    rest: Array
    """The norm of the part of Y outside them."""
    carried: Array
    """A bound of ``||diag(n) R||`` for the map R with ``X R`` = the part of Y along them."""


def _leading(data: _Reduced) -> _Leading:
    """Bound the errors of the leading directions and of the fit along them."""
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
    """Return `Fit.turn`, `Fit.hidden` and `Fit.hidden_error` for the number of directions with the tightest bound.

    Args:
        data: the reduced data.
        targets: the targets of the fit.
        unknown: (q + 1,), the number of directions that X may have besides the leading a = 0..q.
    """
    q, dy = len(data.kept), targets.shape[1]
    leading = _leading(data)

    def prices(carried: Array) -> tuple[Array, Array, Array]:
        """Return turn, error and total cost for every a, for maps with ``||diag(n) R|| = carried``."""
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
    """Prepend 0, the value for no direction, to the values for the leading 1, 2, ... directions."""
    return jnp.append(jnp.zeros(1, a.dtype), a)


def proved_fit(X: Inputs, Y: Targets) -> Fit:
    """Return `least_squares` of arrays that are not traced, with the proved rank of X where it makes a difference."""
    fit = least_squares(X, Y)
    return least_squares(X, Y, rank=known_rank(X)) if float(fit.hidden_error) > 0 else fit


def tail(fit: Fit, rank: Any) -> Scalar:
    """Return ``1/2 sum_{i > rank} s_i^2``, the part of the fit that maps of this rank cannot explain."""
    return 0.5 * jnp.sum(jnp.where(within(fit, rank), 0, jnp.square(fit.singular_values)))


def hidden(fit: Fit, rank: Any) -> Scalar:
    """Return the most that maps of this rank may additionally explain of Y by unknown directions of X."""
    known = jnp.arange(len(fit.hidden), dtype=jnp.int32) >= jnp.asarray(rank, jnp.int32)
    return 0.5 * jnp.square(linalg.norm(jnp.where(known, 0, fit.hidden)) + fit.hidden_error)


def within(fit: Fit, rank: Any) -> Array:
    """Return a bool (n,): whether each direction is among the leading `rank` ones."""
    return jnp.arange(len(fit.singular_values), dtype=jnp.int32) < jnp.asarray(rank, jnp.int32)


def optimum(fit: Fit, rank: Any) -> Scalar:
    """Return ``L* = 1/2 ||Y - F||^2 + 1/2 sum_{i > rank} s_i^2`` of networks with the smallest width `rank`."""
    return fit.unexplained + tail(fit, rank)
