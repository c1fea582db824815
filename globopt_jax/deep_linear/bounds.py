"""How far is this point from a global minimum at most? (YSJ18 Prop 3.4 and 3.5, at any point and any layer)"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.fit import Fit, least_squares, tail
from globopt_jax.deep_linear.network import Weights, arrays, check_chain, widths_of
from globopt_jax.deep_linear.point import Point, at, gap_of
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Scalar, Targets

__all__ = ["GapBounds", "bounds_at", "gap_bounds", "suboptimality_bound"]


class GapBounds(NamedTuple):
    """Upper bounds of ``L - L*``, inf where a hypothesis fails; all with the margin.

    ``layers`` (H+1,): from each layer's gradient. ``first``, ``last``: from the first and the last layer's gradient for
    the part of the residual that they reach well, and the rest of it as it is; finite always. ``best``: the smallest.
    ``margin``: the part of it that stands for rounding, and for what directions of X below its numerical rank may
    explain.
    """

    layers: Array
    first: Array
    last: Array
    best: Array
    margin: Array


def gap_bounds(weights: Weights, X: Inputs, Y: Targets, rank: Any = None) -> GapBounds:
    """Bound ``L - L*`` from above at any point, critical or not, in all the ways that the gradients allow.

    With ``P_{l-1} = W_1..W_{l-1}``, ``S_l = W_{l+1}..W_{H+1}``, r = rank X, and sigma_j = 0 where a matrix has fewer:

        ``L - L* <= ||dL/dW_l||^2 / (2 c_l^2)``,   ``c_l = sigma_r(X P_{l-1}) sigma_dy(S_l)``

    for every layer l (YSJ18 Prop 3.4 and 3.5, there for the first and last layer at critical points). With a bottleneck
    ``k < min(dx, dy)`` all c_l can be 0, and with ill-conditioned data they are small. But a part of the residual does
    as well: with Q the projector on a leading left singular directions of X and Pi on rho right ones of S_1,

        ``L - L* <= ||dL/dW_1||^2 / (2 sigma_a(X)^2 sigma_rho(S_1)^2)``
        ``          + 1/2 (||X R - F||^2 - ||Q (X R - F) Pi||^2 - sum_{i>k} s_i^2)``

    for all a and rho, of which the best are taken: never much more than the loss itself. Likewise with the leading left
    singular directions of X P_H and the last layer's gradient. No numerical rank enters, but that of X.

    The bounds are rigorous for the weights and data as they are stored: the margin covers what rounding may do to the
    gap (`point.gap_of`), in the products by the worst case, in the factorization of the data by a relative
    ``8 sqrt(m) eps``, nine times the worst that was seen (`linalg.factorization_error`). Where X has directions that
    are not known, since they lie below its numerical rank or nearly so, the margin has what they could explain of Y at
    most. `classify` has the gap itself, from the closed-form optimum.

    Args:
        weights: kernels W_l (d_{l-1}, d_l). X: (m, dx). Y: (m, dy).
        rank: a number that the exact rank of X is known not to exceed; it may be traced. None: the number of its rows
            or columns that are not zero and no power of two times another one. Where other columns depend on each
            other, the bound is tight only with ``rank=known_rank(X)``.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> found = gap_bounds([jnp.eye(2), jnp.eye(2)], jnp.eye(2), 2 * jnp.eye(2))  # the gap is 1
        >>> found.layers.round(5).tolist(), round(float(found.best), 5)
        ([1.0, 1.0], 1.0)
    """
    weights, X, Y = arrays(weights, X, Y)
    _ = check_chain(weights, X, Y)
    return _gap_bounds(weights, X, Y, rank)


@jax.jit  # operation by operation the first call would take ten seconds
def _gap_bounds(weights: Weights, X: Inputs, Y: Targets, rank: Any) -> GapBounds:
    fit = least_squares(X, Y, rank=rank)
    return bounds_at(at(weights, fit), fit, min(widths_of(weights)))


def suboptimality_bound(weights: Weights, X: Inputs, Y: Targets, rank: Any = None) -> Scalar:
    """Return the best of `gap_bounds`: a number that ``L - L*`` does not exceed, at any point.

    Array function: pure, works under `jit` and `vmap`. It goes to the margin for rounding as the gradient goes to zero,
    unless the point approaches a saddle.

    Args:
        weights: kernels W_l (d_{l-1}, d_l). X: (m, dx). Y: (m, dy). rank: see `gap_bounds`.

    Returns:
        A scalar >= 0, finite: where no gradient says anything (all products are zero), it is the gap in closed form.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> round(float(suboptimality_bound([jnp.eye(2), jnp.eye(2)], jnp.eye(2), 2 * jnp.eye(2))), 5)
        1.0
    """
    return gap_bounds(weights, X, Y, rank).best


def bounds_at(point: Point, fit: Fit, k: int) -> GapBounds:
    """Derive `gap_bounds` from a point and a fit that are known already; k: the narrowest width."""
    layers, dy = len(point.gradients), fit.targets.shape[1]
    _, margin = gap_of(point, fit, k)
    row = linalg.svd(point.after[1].T)  # its columns span the row space of S_1
    column = linalg.svd(point.before[-2])
    reach = _reach_of(point, fit, row, column)
    by_layer = jnp.stack(
        [reach.from_gradient(l, reach.before(l, fit.rank) * reach.after(l, dy)) for l in range(layers)]
    )

    beyond = tail(fit, k)
    columns = jnp.arange(1, len(fit.scales) + 1, dtype=jnp.int32)
    lost, rho = _lost(row, point.residual.T, columns)
    first = jnp.min(reach.from_gradient(0, reach.before(0, columns[None, :]) * reach.after(0, rho)) + lost) - beyond
    lost, rho = _lost(column, point.residual, jnp.full(1, dy, jnp.int32))
    last = jnp.min(reach.from_gradient(layers - 1, reach.before(layers - 1, rho)) + lost) - beyond
    # Where the products are zero, no gradient reaches the residual: all of it is lost.
    trivial = 0.5 * jnp.sum(jnp.square(point.residual)) - beyond
    first, last = (jnp.where(jnp.isfinite(b), b, trivial) for b in (first, last))
    # X = 0: nothing can be gained.
    nothing = fit.rank == 0
    by_layer, first, last = (jnp.where(nothing, 0, jnp.maximum(b, 0)) + margin for b in (by_layer, first, last))
    best = jnp.minimum(jnp.min(by_layer), jnp.minimum(first, last))
    return GapBounds(by_layer, first, last, best, margin)


class _Reach(NamedTuple):
    """How well each layer's gradient sees the residual; rounding counts against the bound.

    ``spectra[l]``, ``suffix[l]``: the singular values of ``X P_l`` and of ``S_{l+1}``, for the layers l = 0..H.
    """

    point: Point
    fit: Fit
    spectra: list[Array]
    suffix: list[Array]

    @property
    def eps(self) -> float:
        """Of the dtype of the data."""
        return linalg.machine_epsilon(self.fit.inputs.dtype)

    def from_gradient(self, l: int, c: Array) -> Array:
        """``||dL/dW_l||^2 / (2 c^2)``, inf where c is 0, or so small that the gradient may have underflowed."""
        g = linalg.norm(self.point.gradients[l]) + self._slack(l)
        solid = c > linalg.smallest_normal(self.fit.inputs.dtype) / self.eps
        return jnp.where(solid, 0.5 * jnp.square(g / jnp.where(solid, c, 1)), jnp.inf)

    def _slack(self, l: int) -> Array:
        """Bound what rounding may have done to the gradient of layer l (0-based)."""
        point, fit = self.point, self.fit
        left, right = linalg.norm(point.before[l]), linalg.norm(point.after[l + 1])
        residual = linalg.norm(point.residual)
        size = linalg.norm(point.before[-1]) + linalg.norm(fit.targets)
        inner = sum(point.before[l].shape) + fit.targets.shape[1]
        return (
            point.before_error[l] * residual * right
            + left * residual * point.after_error[l + 1]
            + left * right * (point.before_error[-1] + inner * self.eps * size + 2 * fit.accuracy * (size + fit.size))
        )

    def before(self, l: int, index: Array | int) -> Array:
        """A lower bound of the singular value of ``X P_l`` with that 1-based index."""
        point, fit = self.point, self.fit
        error = point.before_error[l] + fit.accuracy * fit.scales[0] * point.prefix_norms[l]
        return _at_least(self.spectra[l], index, error, self.eps)

    def after(self, l: int, index: Array | int) -> Array:
        """A lower bound of the singular value of ``S_{l+1}`` with that 1-based index."""
        return _at_least(self.suffix[l], index, self.point.after_error[l + 1], self.eps)


def _reach_of(point: Point, fit: Fit, row: linalg.Svd, column: linalg.Svd) -> _Reach:
    """Collect the singular values of all products; those of the inputs, of S_1 and of X P_H are known."""
    layers = len(point.gradients)
    spectra = [fit.scales, *(linalg.singular_values(a) for a in point.before[1:-2]), column.s][:layers]
    suffix = [row.s, *(linalg.singular_values(s) for s in point.after[2:])]
    return _Reach(point, fit, spectra, suffix)


def _at_least(values: Array, index: Array | int, error: Array, eps: float) -> Array:
    """The singular value with that 1-based index, less what rounding may have added; 0 if there is none."""
    there = (index >= 1) & (index <= len(values))
    value = jnp.take(values, jnp.clip(jnp.asarray(index) - 1, 0, len(values) - 1))
    return jnp.where(there, jnp.maximum(value - error - 8 * eps * values[0], 0), 0)


def _lost(space: linalg.Svd, B: Array, index: Array) -> tuple[Array, Array]:
    """Half the square of B's part outside the leading rho directions of a space and B's leading columns.

    Args:
        space: the directions. B: the residual, or its transpose. index (n,): how many leading columns of B count.

    Returns:
        The lost part (q, n) for every rho = 1..q, and these rho (q, 1).
    """
    along = matmul(space.U.T, B)
    outside, _ = linalg.split(space.U, B)
    e, rest = jnp.square(along), jnp.sum(jnp.square(outside), axis=0)
    # Of each column the part beyond the leading rho directions is lost; the columns that do not count are lost whole.
    later = jnp.cumsum(e[::-1], axis=0)[::-1]
    beside = jnp.concatenate([later[1:], jnp.zeros_like(later[:1])]) + rest[None]
    whole = jnp.cumsum((later[0] + rest)[::-1])[::-1]
    lost = jnp.cumsum(beside, axis=1) + jnp.append(whole[1:], jnp.zeros((), B.dtype))[None]
    return 0.5 * jnp.take(lost, index - 1, axis=1), jnp.arange(1, len(e) + 1, dtype=jnp.int32)[:, None]
