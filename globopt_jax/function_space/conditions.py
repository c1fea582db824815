"""Theorems 4.1 and 4.2 of YSJ18: their conditions, and both sides of their inequalities."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.function_space.frechet import At, Layers, at, norm_at
from globopt_jax.inputs import integer, number, real
from globopt_jax.linalg import lapack
from globopt_jax.networks import kernels_of
from globopt_jax.shapes import Array, Scalar

__all__ = ["Inequality", "inequality", "sigma_min_bound"]


class Inequality(NamedTuple):
    """Both sides of ``||D_{h_j} L||_op ||h - h*||_nl >= 2 eps1 eps2 (L - L*)`` on samples."""

    layer: Array
    """The layer j; Theorem 4.1 is j = 1 with eps1 = 1."""
    operator_norm: Array
    """``||D_{h_j} L||_op``."""
    distance: Array
    """``||h - h*||_nl = max ||h(x) - h*(x)|| / ||x||``."""
    gap: Array
    """``L - L*``."""
    eps1: Array
    """The smallest ``||h_{j-1:1}(x)|| / ||x||`` on the samples; 1 for j = 1."""
    eps2: Array
    """The smallest ``sigma_dy(A)`` on the samples; 0 if it is rounding, or if layer j has fewer than dy outputs."""
    left: Array
    """The left side."""
    right: Array
    """The right side."""
    sizes: Array
    """A bool: whether the sizes are those of the theorem, ``dx >= dy`` for Theorem 4.1, and ``d_{j-1} = dx <= dy`` for
    Theorem 4.2, and ``d_j >= dy`` for both. Without them the inequality is one on these samples alone."""
    distinct: Array
    """A bool: whether no two samples give layer j the same input. If two do, no function of that input can tell them
    apart, and `operator_norm` is larger than the norm over such functions."""

    @property
    def reason(self) -> str:
        """The inequality in a few sentences, with what of the theorem's conditions the samples show."""
        theorem, j = "4.1" if int(self.layer) == 1 else "4.2", int(self.layer)
        eps1, eps2 = float(self.eps1), float(self.eps2)
        if not np.isfinite(float(self.left) + float(self.right)):
            return "Nothing is known: a number is NaN or infinite, or overflows."
        if not self.distinct:
            return (
                f"Theorem {theorem} says nothing at layer {j}: two samples have the same input there, and no function "
                "of that input tells them apart."
            )
        if not eps1 or not eps2:
            lacking = "a Jacobian of the layers above lacks full row rank"
            lacking = lacking if not eps2 else "the layers below map a sample to zero"
            return f"Theorem {theorem} says nothing at layer {j}: {lacking}."
        said = (
            f"Theorem {theorem} at layer {j}: {float(self.left):.6g} >= {float(self.right):.6g}, so that the gap "
            f"L - L* = {float(self.gap):.6g} is at most {float(self.left) / (2 * eps1 * eps2):.6g}."
        )
        if self.sizes:
            return said
        wanted = f"dx >= dy and d_{j} >= dy" if j == 1 else f"d_{j - 1} = dx <= dy and d_{j} >= dy"
        return f"{said} This holds on these samples alone: the theorem itself wants {wanted}."

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def inequality(layers: Layers, X: Any, Y: Any, layer: int = 1) -> Inequality:
    """Return both sides of the inequality of Theorem 4.1 (layer 1) or 4.2 on samples.

    The constants are the smallest values on these samples, for which the inequality holds on these samples. With
    constants that hold for all inputs, a critical point of the risk in function space is a global minimum. The
    conditions are

    - for Theorem 4.1 (layer 1): ``dx >= dy``, and ``sigma_dy(J[h_{H+1:2}](z)) >= eps2 > 0`` for all z;
    - for Theorem 4.2 (layer j): ``dx <= dy``, ``d_{j-1} = dx``, ``d_j >= dy``, the layers below j are invertible with
      ``||h_{j-1:1}(x)|| >= eps1 ||x||``, and ``sigma_dy(J[h_{H+1:j+1}](z)) >= eps2`` for all z, with both above 0.

    `sigma_min_bound` proves an eps2 for all z. The fields `sizes` and `distinct` say what samples can say of the rest.
    The factor 2 is best possible; the paper's text absorbs it.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        layers: functions of one vector, first to last, with the value 0 at 0.
        X: inputs (m, dx), distinct and not zero.
        Y: the values of h* at the samples, (m, dy).
        layer: the layer j, from 1 to H + 1.

    Returns:
        An `Inequality`.

    Raises:
        ValueError: the shapes do not fit, or the layer is out of range.
        TypeError: an array does not hold real numbers.

    References:
        Yun, Sra & Jadbabaie 2018, Theorems 4.1 and 4.2, and appendix A.

    Example:
        >>> print(inequality([lambda z: 2 * z, lambda z: 3 * z], jnp.ones((1, 1)), jnp.zeros((1, 1))))
        Theorem 4.1 at layer 1: 108 >= 108, so that the gap L - L* = 18 is at most 18.
    """
    return _inequality(at(layers, X, Y, layer), real("X", X), int(layer))


@partial(jax.jit, static_argnums=2)
def _inequality(found: At, X: Any, layer: int) -> Inequality:
    dy, width = found.jacobians.shape[1:]
    sizes, errors, inputs = (jax.vmap(linalg.norm)(a) for a in (X, found.errors, found.inputs))
    s = lapack.svd(found.jacobians, compute_uv=False, full_matrices=False)
    norm, gap = norm_at(found), 0.5 * jnp.mean(jnp.square(errors))
    distance = jnp.max(errors / jnp.where(sizes > 0, sizes, 1))
    eps1 = jnp.min(inputs / jnp.where(sizes > 0, sizes, 1))
    rounding = linalg.factorization_error(max(dy, width), X.dtype) * s[:, 0]
    weakest = jnp.where(s[:, -1] <= rounding, 0, s[:, -1])  # NaN stays
    eps2 = jnp.min(weakest) if width >= dy else jnp.zeros((), X.dtype)
    sides = norm * distance, 2 * eps1 * eps2 * gap
    dx, own = X.shape[1], found.inputs.shape[1]
    fits = width >= dy and (dx >= dy if layer == 1 else own == dx <= dy)
    return Inequality(
        jnp.asarray(layer, jnp.int32),
        norm,
        distance,
        gap,
        eps1,
        eps2,
        *sides,
        sizes=jnp.asarray(fits),
        distinct=_distinct(found.inputs),
    )


def _distinct(rows: Any) -> Any:
    """Whether no two rows are equal: equal ones are neighbours after sorting."""
    ordered = rows[jnp.lexsort(rows.T)]
    return ~jnp.any(jnp.all(ordered[1:] == ordered[:-1], axis=1))


def sigma_min_bound(weights: Any, slope: float, layer: int = 1) -> Scalar:
    """Return a lower bound of ``sigma_dy(J[h_{H+1:j+1}](z))`` over all z, for ``h_i(z) = act(z W_i)``.

    If every slope of the activation is at least ``slope`` in absolute value, and the layers above layer j narrow down
    (``d_j >= d_{j+1} >= ... >= dy``), then ``sigma >= slope^max(H - j, 0) prod_{i>j} sigma_{d_i}(W_i)``. The last
    layer is linear. The bound is lowered by the rounding errors of the singular values, `linalg.factorization_error`.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: all kernels W_i (d_{i-1}, d_i).
        slope: the smallest |act'(t)| over all t. It is 0 for tanh, sigmoid, softplus and ReLU, of which the theorems
            then say nothing; for leaky ReLU, and a smooth function like it, it is the slope of the negative side.
        layer: the layer j, from 1 to H + 1; the product is over the layers above it.

    Returns:
        A scalar, 0 where the layers do not narrow down or a kernel lacks rank.

    Raises:
        ValueError: the kernels do not fit, the slope is negative, or the layer is out of range.
        TypeError: a kernel does not hold real numbers.

    References:
        Yun, Sra & Jadbabaie 2018, the condition of Theorems 4.1 and 4.2. The bound is ours.

    Example:
        >>> round(float(sigma_min_bound([jnp.eye(3), jnp.eye(3), 2 * jnp.eye(3)], slope=0.1)), 6)
        0.2
    """
    kernels = [real("weights", w) for w in kernels_of(weights)]
    slope = number("slope", slope, "a number that is not negative", lambda v: v >= 0)
    j = integer("layer", layer, 1, len(kernels))
    dtype = kernels[0].dtype
    if any(w.shape[1] > w.shape[0] for w in kernels[j:]):
        return jnp.zeros((), dtype)
    smallest = []
    for w in kernels[j:]:
        s = linalg.singular_values(w)
        smallest.append(jnp.maximum(s[-1] - linalg.factorization_error(w.shape[0], dtype) * s[0], 0))
    slopes = [min(slope, linalg.largest_finite(dtype))] * max(len(kernels) - 1 - j, 0)
    below = 1 - 4 * len(kernels) * linalg.machine_epsilon(dtype)
    return linalg.product_at_most([below, *smallest, *slopes], dtype)
