"""Upper bounds of the distance of a loss from the global minimum (YSJ18 Prop 3.4 and 3.5, at any point and layer)."""

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
    """Upper bounds of ``L - L*``. Every bound includes the margin."""

    layers: Array
    """(H+1,): the bound from each layer's gradient; inf where its hypothesis fails (``c_l = 0`` in `gap_bounds`)."""
    first: Array
    """The bound from the first layer's gradient. It counts the part of the residual that this gradient does not see at
    its full size, so it is always finite."""
    last: Array
    """The bound from the last layer's gradient, likewise; always finite."""
    best: Array
    """The smallest of all bounds."""
    margin: Array
    """The reserve in every bound for rounding, and for the part of Y that directions of X below its numerical rank may
    explain."""


def gap_bounds(weights: Weights, X: Inputs, Y: Targets, rank: Any = None) -> GapBounds:
    """Bound ``L - L*`` from above at any point, critical or not, by the gradients of the layers.

    With ``P_{l-1} = W_1..W_{l-1}``, ``S_l = W_{l+1}..W_{H+1}``, r = rank X, and sigma_j = 0 for a matrix with fewer
    than j singular values, every layer l proves

        ``L - L* <= ||dL/dW_l||^2 / (2 c_l^2)``,   ``c_l = sigma_r(X P_{l-1}) sigma_dy(S_l)``.

    (YSJ18 Prop 3.4 and 3.5 state this for the first and the last layer at critical points.) With a bottleneck, which is
    ``k < min(dx, dy)``, all c_l can be 0, and with ill-conditioned data they are small. Then only a part of the
    residual is bounded by the gradient, and the other part is counted at its full size. Let F be the least-squares fit
    with singular values s_i, Q the projector on the a leading left singular vectors of X, and Pi the projector on the
    rho leading right singular vectors of S_1. Then

        ``L - L* <= ||dL/dW_1||^2 / (2 sigma_a(X)^2 sigma_rho(S_1)^2)``
        ``          + 1/2 (||X R - F||^2 - ||Q (X R - F) Pi||^2 - sum_{i>k} s_i^2)``

    for all a and rho. The smallest of these bounds is taken; it is never much larger than the loss itself. The last
    layer's gradient gives the same kind of bound with the leading left singular vectors of X P_H. The numerical rank of
    X is the only numerical rank on which the bounds depend.

    The bounds hold for the weights and data as they are stored, because every bound includes a margin for rounding
    (`point.gap_of`). The margin takes the worst case for the products. For the factorization of the data it takes the
    relative error ``8 sqrt(m) eps``, which is nine times the worst error that was seen (`linalg.factorization_error`).
    X may have directions at or below its numerical rank that rounding hides. The margin then includes the most that
    they could explain of Y. `classify` computes the gap itself from the closed-form optimum.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).
        Y: targets (m, dy).
        rank: an upper bound of the exact rank of X; it may be traced. None counts the rows or the columns, whichever
            are fewer, without zeros and without those that are a power of two times another one. Where columns depend
            on each other in another way, the bounds are tight only with ``rank=known_rank(X)``.

    Returns:
        `GapBounds` with ``.layers``, ``.first``, ``.last``, ``.best`` and ``.margin``, in units of the loss.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: an array does not hold real numbers.

    Example:
        >>> found = gap_bounds([jnp.eye(2), jnp.eye(2)], jnp.eye(2), 2 * jnp.eye(2))  # the gap is 1
        >>> found.layers.round(5).tolist(), round(float(found.best), 5)
        ([1.0, 1.0], 1.0)
    """
    weights, X, Y = arrays(weights, X, Y)
    _ = check_chain(weights, X, Y)
    return _gap_bounds(weights, X, Y, rank)


@jax.jit  # without jit the first call would take ten seconds
def _gap_bounds(weights: Weights, X: Inputs, Y: Targets, rank: Any) -> GapBounds:
    fit = least_squares(X, Y, rank=rank)
    return bounds_at(at(weights, fit), fit, min(widths_of(weights)))


def suboptimality_bound(weights: Weights, X: Inputs, Y: Targets, rank: Any = None) -> Scalar:
    """Return an upper bound of ``L - L*`` at any point: the smallest of `gap_bounds`.

    As the gradient goes to zero the bound goes to the margin for rounding, unless the point approaches a saddle.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).
        Y: targets (m, dy).
        rank: an upper bound of the exact rank of X, or None; see `gap_bounds`.

    Returns:
        A finite scalar >= 0 in units of the loss. Where all partial products are zero, so that no gradient proves
        anything, the bound is the gap in closed form plus the margin.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: an array does not hold real numbers.

    Example:
        >>> round(float(suboptimality_bound([jnp.eye(2), jnp.eye(2)], jnp.eye(2), 2 * jnp.eye(2))), 5)
        1.0
    """
    return gap_bounds(weights, X, Y, rank).best


def bounds_at(point: Point, fit: Fit, k: int) -> GapBounds:
    """Compute `gap_bounds` from a point and a fit that are known already; k is the smallest width."""
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
    # Where the products are zero, the gradients bound no part of the residual.
    trivial = 0.5 * jnp.sum(jnp.square(point.residual)) - beyond
    first, last = (jnp.where(jnp.isfinite(b), b, trivial) for b in (first, last))
    # Where X = 0 the loss is constant, and the gap is 0.
    nothing = fit.rank == 0
    by_layer, first, last = (jnp.where(nothing, 0, jnp.maximum(b, 0)) + margin for b in (by_layer, first, last))
    best = jnp.minimum(jnp.min(by_layer), jnp.minimum(first, last))
    return GapBounds(by_layer, first, last, best, margin)


class _Reach(NamedTuple):
    """How well each layer's gradient sees the residual. Rounding makes every estimate more pessimistic."""

    point: Point
    """The partial products and gradients."""
    fit: Fit
    """The reduced data."""
    spectra: list[Array]
    """For the layers l = 0..H: the singular values of ``X P_l``."""
    suffix: list[Array]
    """For the layers l = 0..H: the singular values of ``S_{l+1}``."""
    gradients: Array
    """(H+1,): upper bounds of ``||dL/dW_l||``."""

    @property
    def eps(self) -> float:
        """The machine epsilon of the data's dtype."""
        return linalg.machine_epsilon(self.fit.inputs.dtype)

    def from_gradient(self, l: int, c: Array) -> Array:
        """Return ``||dL/dW_l||^2 / (2 c^2)``; inf where c is 0 or so small that the gradient may have underflowed."""
        solid = c > linalg.smallest_normal(self.fit.inputs.dtype) / self.eps
        return jnp.where(solid, 0.5 * jnp.square(self.gradients[l] / jnp.where(solid, c, 1)), jnp.inf)

    def before(self, l: int, index: Array | int) -> Array:
        """Return a lower bound of the singular value of ``X P_l`` with this 1-based index."""
        point, fit = self.point, self.fit
        error = point.before_error[l] + fit.accuracy * fit.scales[0] * point.prefix_norms[l]
        return _at_least(self.spectra[l], index, error, self.eps)

    def after(self, l: int, index: Array | int) -> Array:
        """Return a lower bound of the singular value of ``S_{l+1}`` with this 1-based index."""
        return _at_least(self.suffix[l], index, self.point.after_error[l + 1], self.eps)


def _reach_of(point: Point, fit: Fit, row: linalg.Svd, column: linalg.Svd) -> _Reach:
    """Collect the singular values of all products. The decompositions of S_1 and of X P_H are given."""
    layers = len(point.gradients)
    spectra = [fit.scales, *(linalg.singular_values(a) for a in point.before[1:-2]), column.s][:layers]
    suffix = [row.s, *(linalg.singular_values(s) for s in point.after[2:])]
    return _Reach(point, fit, spectra, suffix, point.gradient_norms + _slack(point, fit))


def _slack(point: Point, fit: Fit) -> Array:
    """Bound the rounding errors of the gradients of all layers."""
    dtype, dy = fit.inputs.dtype, fit.targets.shape[1]
    left, right, residual = point.before_norms[:-1], point.after_norms[1:], point.residual_norm
    size = point.before_norms[-1] + linalg.norm(fit.targets)
    inner = jnp.asarray([sum(a.shape) + dy for a in point.before[:-1]], dtype)
    off = point.before_error[-1] + inner * linalg.machine_epsilon(dtype) * size + 2 * fit.accuracy * (size + fit.size)
    return point.before_error[:-1] * residual * right + left * residual * point.after_error[1:] + left * right * off


def _at_least(values: Array, index: Array | int, error: Array, eps: float) -> Array:
    """Return the singular value with this 1-based index minus its rounding error; 0 if there is none."""
    there = (index >= 1) & (index <= len(values))
    value = jnp.take(values, jnp.clip(jnp.asarray(index) - 1, 0, len(values) - 1))
    return jnp.where(there, jnp.maximum(value - error - 8 * eps * values[0], 0), 0)


def _lost(space: linalg.Svd, B: Array, index: Array) -> tuple[Array, Array]:
    """Return half the squared norm of the part of B that a gradient does not bound.

    This is B without its part in the leading columns and in the leading rho directions of a space.

    Args:
        space: a decomposition whose U holds the directions.
        B: the residual, or its transpose.
        index: (n,), how many leading columns of B count.

    Returns:
        The lost part (q, n) for every rho = 1..q, and these rho (q, 1).
    """
    along = matmul(space.U.T, B)
    outside, _ = linalg.split(space.U, B)
    e, rest = jnp.square(along), jnp.sum(jnp.square(outside), axis=0)
    # A column that counts loses its part beyond the leading rho directions; any other column is lost as a whole.
    later = jnp.cumsum(e[::-1], axis=0)[::-1]
    beside = jnp.concatenate([later[1:], jnp.zeros_like(later[:1])]) + rest[None]
    whole = jnp.cumsum((later[0] + rest)[::-1])[::-1]
    lost = jnp.cumsum(beside, axis=1) + jnp.append(whole[1:], jnp.zeros((), B.dtype))[None]
    return 0.5 * jnp.take(lost, index - 1, axis=1), jnp.arange(1, len(e) + 1, dtype=jnp.int32)[:, None]
