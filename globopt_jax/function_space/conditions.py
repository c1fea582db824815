"""Theorems 4.1 and 4.2 of YSJ18: their conditions, and both sides of their inequalities."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.function_space.frechet import Layers, at, norm_at
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
    """The smallest ``sigma_dy(A)`` on the samples; 0 where layer j has fewer than dy outputs."""
    left: Array
    """The left side."""
    right: Array
    """The right side."""

    @property
    def reason(self) -> str:
        """The inequality in a sentence."""
        theorem, j = "4.1" if int(self.layer) == 1 else "4.2", int(self.layer)
        eps = float(self.eps1) * float(self.eps2)
        if not eps:
            return (
                f"Theorem {theorem} says nothing at layer {j}: a Jacobian of the layers above lacks full row rank, or "
                "the layers below map a sample to zero."
            )
        return (
            f"Theorem {theorem} at layer {j}: {float(self.left):.6g} >= {float(self.right):.6g}, so that the gap "
            f"L - L* = {float(self.gap):.6g} is at most {float(self.left) / (2 * eps):.6g}."
        )

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def inequality(layers: Layers, X: Any, Y: Any, layer: int = 1) -> Inequality:
    """Return both sides of the inequality of Theorem 4.1 (layer 1) or 4.2 on samples.

    The constants are the smallest values on these samples, for which the inequality holds on these samples. The
    theorems ask for constants that hold everywhere, see `sigma_min_bound`; with them a critical point of the risk in
    function space is a global minimum. The factor 2 is best possible; the paper's text absorbs it.

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
        Yun, Sra & Jadbabaie 2018, Theorems 4.1 and 4.2 and appendix A.

    Example:
        >>> print(inequality([lambda z: 2 * z, lambda z: 3 * z], jnp.ones((1, 1)), jnp.zeros((1, 1))))
        Theorem 4.1 at layer 1: 108 >= 108, so that the gap L - L* = 18 is at most 18.
    """
    found = at(layers, X, Y, layer)
    X = real("X", X)
    dy, width = found.jacobians.shape[1:]
    sizes, errors, inputs = (jnp.linalg.norm(a, axis=1) for a in (X, found.errors, found.inputs))
    s = lapack.svd(found.jacobians, compute_uv=False, full_matrices=False)
    norm, gap = norm_at(found), 0.5 * jnp.mean(jnp.square(errors))
    distance = jnp.max(errors / jnp.where(sizes > 0, sizes, 1))
    eps1 = jnp.min(inputs / jnp.where(sizes > 0, sizes, 1))
    eps2 = jnp.min(s[:, -1]) if width >= dy else jnp.zeros((), X.dtype)
    sides = norm * distance, 2 * eps1 * eps2 * gap
    return Inequality(jnp.asarray(layer, jnp.int32), norm, distance, gap, eps1, eps2, *sides)


def sigma_min_bound(weights: Any, slope: float, layer: int = 1) -> Scalar:
    """Return a lower bound of ``sigma_dy(J[h_{H+1:j+1}](z))`` over all z, for ``h_i(z) = act(z W_i)``.

    If every slope of the activation is at least ``slope`` in absolute value, and the layers above layer j narrow down
    (``d_j >= d_{j+1} >= ... >= dy``), then ``sigma >= slope^(H - j) prod_{i>j} sigma_{d_i}(W_i)``. The last layer is
    linear. The bound is lowered by the rounding errors of the singular values, `linalg.factorization_error`.

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

    Example:
        >>> round(float(sigma_min_bound([jnp.eye(3), jnp.eye(3), 2 * jnp.eye(3)], slope=0.1)), 6)
        0.2
    """
    kernels = [real("weights", w) for w in kernels_of(weights)]
    slope = number("slope", slope, "a number that is not negative", lambda v: v >= 0)
    j = integer("layer", layer, 1, len(kernels))
    dtype = kernels[0].dtype
    bound = jnp.ones((), dtype)
    for w in kernels[j:]:
        if w.shape[1] > w.shape[0]:
            return jnp.zeros((), dtype)
        s = linalg.singular_values(w)
        bound = bound * jnp.maximum(s[-1] - linalg.factorization_error(w.shape[0], dtype) * s[0], 0)
    below = slope ** max(len(kernels) - 1 - j, 0) * (1 - 4 * len(kernels) * linalg.machine_epsilon(dtype))
    bound = bound * np.asarray(below, dtype)
    return jnp.where(bound > linalg.smallest_normal(dtype), bound, 0)  # below it numbers are rounded up as well
