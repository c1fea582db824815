"""How far is this point from a global minimum at most? (YSJ18 Prop 3.4 and 3.5, at any point and any layer)"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.minimum import Fit, least_squares, tail
from globopt_jax.deep_linear.network import Weights, arrays, check_chain, widths_of
from globopt_jax.deep_linear.point import Point, at, gap_of
from globopt_jax.shapes import Array, Inputs, Scalar, Targets

__all__ = ["GapBounds", "bounds_at", "gap_bounds", "suboptimality_bound"]


class GapBounds(NamedTuple):
    """Upper bounds of ``L - L*``, inf where a hypothesis fails; all with the margin for rounding.

    ``layers`` (H+1,): from each layer's gradient. ``first``, ``last``: from the first and the last layer's gradient and
    what their products cannot reach; finite with a bottleneck, too. ``best``: the smallest. ``margin``: the part of it
    that stands for rounding.
    """

    layers: Array
    first: Array
    last: Array
    best: Array
    margin: Array


def gap_bounds(weights: Weights, X: Inputs, Y: Targets) -> GapBounds:
    """Bound ``L - L*`` from above at any point, critical or not, in all the ways that the gradients allow.

    With ``P_{l-1} = W_1..W_{l-1}``, ``S_l = W_{l+1}..W_{H+1}``, r = rank X, and sigma_j = 0 where a matrix has fewer:

        ``L - L* <= ||dL/dW_l||^2 / (2 c_l^2)``,   ``c_l = sigma_r(X P_{l-1}) sigma_dy(S_l)``

    for every layer l (YSJ18 Prop 3.4 and 3.5, there for the first and last layer at critical points). With a bottleneck
    ``k < min(dx, dy)`` all c_l can be 0. Then, with Pi the projector on the row space of S_1 and rho its dimension,

        ``L - L* <= ||dL/dW_1||^2 / (2 sigma_rho(S_1)^2 sigma_r(X)^2)``
        ``          + 1/2 (||(X R - F)(I - Pi)||^2 - sum_{i>k} s_i^2)``,

    and its mirror image with the column space of X P_H and the last layer's gradient. Both hold for any part of the
    spaces, so that the numerical rank may be wrong and the bound is not.

    The bounds are rigorous for the numerical rank of X (`least_squares`) up to rounding, for which they are widened: in
    the products by the worst case, in the factorization of the data by a relative ``8 sqrt(m) eps``, nine times the
    worst that was seen (`linalg.factorization_error`). `classify` has the gap itself, from the closed-form optimum.

    Args:
        weights: kernels W_l (d_{l-1}, d_l). X: (m, dx). Y: (m, dy).

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> found = gap_bounds([jnp.eye(2), jnp.eye(2)], jnp.eye(2), 2 * jnp.eye(2))  # the gap is 1
        >>> found.layers.round(5).tolist(), round(float(found.best), 5)
        ([1.0, 1.0], 1.0)
    """
    weights, X, Y = arrays(weights, X, Y)
    _ = check_chain(weights, X, Y)
    return _gap_bounds(weights, X, Y)


@jax.jit  # operation by operation the first call would take ten seconds
def _gap_bounds(weights: Weights, X: Inputs, Y: Targets) -> GapBounds:
    fit = least_squares(X, Y)
    return bounds_at(at(weights, fit), fit, min(widths_of(weights)))


def suboptimality_bound(weights: Weights, X: Inputs, Y: Targets) -> Scalar:
    """Return the best of `gap_bounds`: a number that ``L - L*`` does not exceed, at any point.

    Array function: pure, works under `jit` and `vmap`. It goes to the margin for rounding as the gradient goes to zero,
    unless the point approaches a saddle.

    Args:
        weights: kernels W_l (d_{l-1}, d_l). X: (m, dx). Y: (m, dy).

    Returns:
        A scalar >= 0, inf only where no hypothesis holds (X R = 0 beyond a bottleneck leaves the trivial bound).

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> round(float(suboptimality_bound([jnp.eye(2), jnp.eye(2)], jnp.eye(2), 2 * jnp.eye(2))), 5)
        1.0
    """
    return gap_bounds(weights, X, Y).best


def bounds_at(point: Point, fit: Fit, k: int) -> GapBounds:
    """`gap_bounds` from what is known already."""
    dtype, layers = fit.inputs.dtype, len(point.gradients)
    dy = fit.targets.shape[1]
    worst = point.before_error[-1]
    margin = gap_of(point, fit, k)[1] + (linalg.norm(point.residual) + worst) * worst
    unit = linalg.unit(dtype)
    size = linalg.norm(point.before[-1]) + linalg.norm(fit.targets)
    row = linalg.svd(point.after[1].T)  # its columns span the row space of S_1
    column = linalg.svd(point.before[-2])
    # The singular values of the inputs are known.
    spectra = [fit.scales, *(linalg.singular_values(a) for a in point.before[1:-2]), column.s][:layers]
    suffix = [row.s, *(linalg.singular_values(s) for s in point.after[2:])]

    def slack(l: int) -> Array:
        """What rounding may have done to the gradient of layer l (0-based)."""
        left, right = linalg.norm(point.before[l]), linalg.norm(point.after[l + 1])
        residual = linalg.norm(point.residual)
        inner = sum(point.before[l].shape) + dy
        return (
            point.before_error[l] * residual * right
            + left * residual * point.after_error[l + 1]
            + left * right * (point.before_error[-1] + inner * unit * size + 2 * fit.accuracy * (size + fit.size))
        )

    def squared(l: int, c: Array) -> Array:
        """``||dL/dW_l||^2 / (2 c^2)``, inf where c is 0, or so small that the gradient may have underflowed."""
        g = linalg.norm(point.gradients[l]) + slack(l)
        solid = c > float(jnp.finfo(dtype).tiny) / unit
        return jnp.where(solid, 0.5 * jnp.square(g / jnp.where(solid, c, 1)), jnp.inf)

    def safe(values: Array, index: Array | int, error: Array, largest: Array) -> Array:
        """The singular value with that 1-based index, less what rounding may have added; 0 if there is none."""
        there = (index >= 1) & (index <= len(values))
        value = jnp.take(values, jnp.clip(jnp.asarray(index) - 1, 0, len(values) - 1))
        return jnp.where(there, jnp.maximum(value - error - 8 * unit * largest, 0), 0)

    def before(l: int, index: Array | int) -> Array:
        error = point.before_error[l] + fit.accuracy * fit.scales[0] * point.prefix_norms[l]
        return safe(spectra[l], index, error, spectra[l][0])

    def after(l: int, index: Array | int) -> Array:
        return safe(suffix[l], index, point.after_error[l + 1], suffix[l][0])

    by_layer = jnp.stack([squared(l, before(l, fit.rank) * after(l, dy)) for l in range(layers)])

    outside = row.project_out(point.residual.T)
    beyond = tail(fit, k)
    first = squared(0, before(0, fit.rank) * after(0, row.rank)) + 0.5 * jnp.sum(jnp.square(outside)) - beyond
    outside = column.project_out(point.residual)
    last = squared(layers - 1, before(layers - 1, column.rank)) + 0.5 * jnp.sum(jnp.square(outside)) - beyond
    # A product that is zero reaches nothing: then all of the residual lies outside, and no gradient is needed.
    trivial = 0.5 * jnp.sum(jnp.square(point.residual)) - beyond
    first = jnp.where(row.rank == 0, trivial, first)
    last = jnp.where(column.rank == 0, trivial, last)
    # X = 0: nothing can be gained.
    nothing = fit.rank == 0
    by_layer, first, last = (jnp.where(nothing, 0, jnp.maximum(b, 0)) + margin for b in (by_layer, first, last))
    best = jnp.minimum(jnp.min(by_layer), jnp.minimum(first, last))
    return GapBounds(by_layer, first, last, best, margin)
