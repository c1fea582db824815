"""Linear residual networks and their population risk (YSJ18 Corollary 2.3, Hardt & Ma 2017 Theorem 2.2).

Let inputs x have the covariance Sigma, and let ``y = x R + noise``, where the noise has the covariance Gamma. The
population risk of ``M = prod_l (I + W_l)`` is the squared loss of the deep linear network with the kernels ``I + W_l``
on the data ``X = Sigma^(1/2)`` and ``Y = Sigma^(1/2) R``, plus the constant 1/2 tr Gamma. So every function for deep
linear networks also applies to linear residual networks.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from globopt_jax import linalg
from globopt_jax.deep_linear.network import Weights, floats, gradients, loss, widths_of
from globopt_jax.inputs import is_traced, real
from globopt_jax.linalg import lapack, matmul
from globopt_jax.shapes import Array, Scalar

__all__ = [
    "ResidualGap",
    "population_data",
    "residual_gap",
    "residual_gradients",
    "residual_kernels",
    "residual_risk",
]

Square = Float[Array, "d d"]


def residual_kernels(weights: Weights) -> list[Any]:
    """Return ``I + W_l``, the kernels of the deep linear network that equals a residual network.

    Args:
        weights: the residual kernels W_l (d, d).

    Returns:
        The kernels I + W_l (d, d).

    Raises:
        ValueError: the kernels are not square, or not all of one size.
        TypeError: a kernel does not hold real numbers.

    Example:
        >>> residual_kernels([jnp.zeros((2, 2))])[0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    weights = floats(weights)
    widths = widths_of(weights)
    if len(set(widths)) > 1:
        raise ValueError(f"weights: Expected: square kernels of one size. Received: widths {widths}.")
    return [w + jnp.eye(widths[0], dtype=w.dtype) for w in weights]


def population_data(R: Float[Array, "dx dy"], covariance: Float[Array, "dx dx"]) -> tuple[Array, Array]:
    """Return data with dx samples whose squared loss is the population risk without the noise.

    The data have ``X^T X = Sigma`` and ``Y = X R``, so that every M has
    ``1/2 ||X M - Y||_F^2 = 1/2 tr((M - R)^T Sigma (M - R))``.

    Args:
        R: the true map (dx, dy).
        covariance: Sigma (dx, dx), symmetric and positive semidefinite. Slightly negative eigenvalues are taken as
            rounding and count as 0.

    Returns:
        X (dx, dx) and Y (dx, dy).

    Raises:
        ValueError: the shapes do not fit, or the covariance has clearly negative eigenvalues (not checked under `jit`).
        TypeError: an array does not hold real numbers.

    Example:
        >>> X, Y = population_data(2 * jnp.eye(2), jnp.eye(2))
        >>> jnp.abs(matmul(X.T, Y)).round(6).tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    R, covariance = real("R", R), real("covariance", covariance)
    if jnp.ndim(covariance) != 2 or jnp.ndim(R) != 2 or jnp.shape(covariance) != (len(R), len(R)):
        raise ValueError(
            f"R, covariance: Expected: shapes (dx, dy) and (dx, dx). Received: {jnp.shape(R)} and "
            f"{jnp.shape(covariance)}."
        )
    values, V = lapack.eigh(0.5 * (covariance + covariance.T))
    if not is_traced(values) and values[0] < -1e-3 * max(values[-1], -values[0]):
        raise ValueError(
            "covariance: Expected: a positive semidefinite matrix. Received: eigenvalues from "
            f"{float(values[0]):.3g} to {float(values[-1]):.3g}."
        )
    X = jnp.sqrt(jnp.maximum(values, 0))[:, None] * V.T
    return X, matmul(X, R)


def residual_risk(weights: Weights, R: Square, covariance: Square, noise: Square | None = None) -> Scalar:
    """Return the population risk ``1/2 tr((M - R)^T Sigma (M - R)) + 1/2 tr Gamma`` with ``M = prod_l (I + W_l)``.

    Args:
        weights: the residual kernels W_l (d, d).
        R: the true map (d, d).
        covariance: Sigma (d, d), the covariance of the inputs.
        noise: Gamma (d, d), the covariance of the noise; None is no noise.

    Returns:
        The risk, a scalar.

    Raises:
        ValueError: the kernels are not square, or do not fit R.
        TypeError: an array does not hold real numbers.

    Example:
        >>> float(residual_risk([jnp.zeros((2, 2))], 2 * jnp.eye(2), jnp.eye(2), jnp.eye(2)).round(5))
        2.0
    """
    risk = loss(residual_kernels(weights), *population_data(R, covariance))
    return risk if noise is None else risk + 0.5 * jnp.trace(real("noise", noise))


def residual_gradients(weights: Weights, R: Square, covariance: Square) -> list[Any]:
    """Return the gradients of `residual_risk`, one (d, d) array for each layer l.

    They are ``(prod_{j<l} (I + W_j))^T Sigma (M - R) (prod_{j>l} (I + W_j))^T`` with ``M = prod_l (I + W_l)``.

    Args:
        weights: the residual kernels W_l (d, d).
        R: the true map (d, d).
        covariance: Sigma (d, d), the covariance of the inputs.

    Returns:
        A list with the gradient of each kernel.

    Raises:
        ValueError: the kernels are not square, or do not fit R.
        TypeError: an array does not hold real numbers.

    Example:
        >>> residual_gradients([jnp.zeros((2, 2))], 2 * jnp.eye(2), jnp.eye(2))[0].round(5).tolist()
        [[-1.0, 0.0], [0.0, -1.0]]
    """
    return gradients(residual_kernels(weights), *population_data(R, covariance))


class ResidualGap(NamedTuple):
    """The gap of a linear residual network and an upper bound of it."""

    gap: Array
    """The risk minus its global minimum, a scalar."""
    bound: Array
    """An upper bound of the gap; inf where two of the norms are 1 or more."""
    norms: Array
    """(L,): ``||W_l||_2`` of every layer."""
    inside: Array
    """Bool: whether all norms are below 1 by more than their rounding errors. There every critical point is a global
    minimum."""


def residual_gap(weights: Weights, R: Square, covariance: Square) -> ResidualGap:
    """Bound the distance of a linear residual network from the global minimum of its population risk.

    If all norms but that of layer l are below 1,

        ``L - L* <= ||dL/dW_l||^2 / (2 lambda_min(Sigma) prod_{j != l} (1 - ||W_j||_2)^2)``,

    and the smallest of these bounds is returned. A critical point with all ``||W_l||_2 < 1`` is a global minimum (YSJ18
    Corollary 2.3). The bound holds for every R; for ``det R <= 0`` the region ``||W_l||_2 < 1`` has no critical point.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: the residual kernels W_l (d, d).
        R: the true map (d, d).
        covariance: Sigma (d, d), the covariance of the inputs, positive definite.

    Returns:
        A `ResidualGap` with ``.gap``, ``.bound``, ``.norms`` and ``.inside``.

    Raises:
        ValueError: the kernels are not square, or do not fit R.
        TypeError: an array does not hold real numbers.

    Example:
        >>> found = residual_gap([jnp.zeros((2, 2))] * 2, 2 * jnp.eye(2), jnp.eye(2))
        >>> bool(found.inside), round(float(found.gap), 5), round(float(found.bound), 5)
        (True, 1.0, 1.0)
    """
    kernels, data = residual_kernels(weights), population_data(R, covariance)
    gap = loss(kernels, *data)
    norms = jnp.stack([linalg.spectral_norm(w) for w in weights])
    # The Gram matrix of a spectral norm has an error of d eps, relative to the squared Frobenius norm.
    eps = linalg.machine_epsilon(gap.dtype)
    unsure = 2 * len(R) * eps * (1 + jnp.stack([jnp.square(linalg.norm(w)) for w in weights]))
    room = jnp.maximum(1 - norms - unsure, 0)
    # Every product adds a rounding error of d eps, relative to the norms of its factors.
    layers = len(kernels)
    error = 2 * len(R) * layers * eps
    reach = linalg.norm(data[0]) * jnp.prod(1 + norms)
    off = error * reach * (reach + linalg.norm(data[1]))
    sizes = jnp.square(jnp.stack([linalg.norm(g) for g in gradients(kernels, *data)]) + off)
    s = linalg.singular_values(data[0])
    weakest = jnp.square(jnp.maximum(s[-1] - error * s[0], 0))
    others = jnp.where(jnp.eye(layers, dtype=bool), 1, room[None])
    scale = 2 * weakest * jnp.square(jnp.prod(others, axis=1))
    bounds = jnp.where(scale > 0, sizes / jnp.where(scale > 0, scale, 1), jnp.inf)
    # The square root of the covariance has the same error, relative to its largest eigenvalue.
    bounds = bounds * (1 + error * jnp.square(s[0]) / jnp.where(weakest > 0, weakest, 1))
    return ResidualGap(gap, jnp.min(bounds), norms, jnp.all(room > 0))
