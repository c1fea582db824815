"""Linear residual networks and their population risk (YSJ18 Corollary 2.3, Hardt & Ma 2017 Theorem 2.2).

With X drawn with covariance Sigma and ``y = x R + noise``, the risk of ``M = prod_l (I + W_l)`` is, up to the constant
1/2 tr Gamma of the noise, the squared loss of the deep linear network with kernels ``I + W_l`` on the data ``X =
Sigma^(1/2)``, ``Y = Sigma^(1/2) R``. So every function for deep linear networks speaks of residual ones, too.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from globopt_jax import linalg
from globopt_jax.deep_linear.network import Weights, floats, gradients, loss, widths_of
from globopt_jax.inputs import real
from globopt_jax.linalg import matmul
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
    """Return ``I + W_l``, the kernels of the deep linear network that a residual one is.

    Raises:
        ValueError: kernels that are not square, or not all of one size.

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
    """Return data (X, Y), dx samples, whose squared loss is the population risk without the noise.

    ``X^T X = Sigma`` and ``Y = X R``: then ``1/2 ||X M - Y||_F^2 = 1/2 tr((M - R)^T Sigma (M - R))`` for every M.

    Args:
        R: (dx, dy), the true map. covariance: Sigma (dx, dx), symmetric and positive semidefinite; negative
            eigenvalues, which can only be rounding, count as 0.

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
    values, V = jnp.linalg.eigh(0.5 * (covariance + covariance.T))
    try:
        low, high = float(values[0]), float(values[-1])
    except jax.errors.ConcretizationTypeError:
        low = high = 0.0  # traced: nobody knows
    if low < -1e-3 * max(high, -low):
        raise ValueError(
            f"covariance: Expected: a positive semidefinite matrix. Received: eigenvalues from {low:.3g} to {high:.3g}."
        )
    X = jnp.sqrt(jnp.maximum(values, 0))[:, None] * V.T
    return X, matmul(X, R)


def residual_risk(weights: Weights, R: Square, covariance: Square, noise: Square | None = None) -> Scalar:
    """Return ``1/2 tr((M - R)^T Sigma (M - R)) + 1/2 tr Gamma`` with ``M = prod_l (I + W_l)``.

    Args:
        weights: W_l (d, d). R: (d, d), the true map. covariance: Sigma (d, d) of the inputs.
        noise: Gamma (d, d), the covariance of the noise; None: none.

    Raises:
        ValueError: kernels that are not square, or do not fit R.

    Example:
        >>> float(residual_risk([jnp.zeros((2, 2))], 2 * jnp.eye(2), jnp.eye(2), jnp.eye(2)).round(5))
        2.0
    """
    risk = loss(residual_kernels(weights), *population_data(R, covariance))
    return risk if noise is None else risk + 0.5 * jnp.trace(real("noise", noise))


def residual_gradients(weights: Weights, R: Square, covariance: Square) -> list[Any]:
    """Return ``(prod_{j<l} (I + W_j))^T Sigma (M - R) (prod_{j>l} (I + W_j))^T`` for every layer l.

    Raises:
        ValueError: kernels that are not square, or do not fit R.

    Example:
        >>> residual_gradients([jnp.zeros((2, 2))], 2 * jnp.eye(2), jnp.eye(2))[0].round(5).tolist()
        [[-1.0, 0.0], [0.0, -1.0]]
    """
    return gradients(residual_kernels(weights), *population_data(R, covariance))


class ResidualGap(NamedTuple):
    """``gap``: risk - optimum, (). ``bound``: an upper bound of it. ``norms`` (L,): ``||W_l||_2``.

    The bound is inf where two norms are 1 or more. ``inside``: whether all norms are below 1 by more than rounding in
    them, where every critical point is a global minimum.
    """

    gap: Array
    bound: Array
    norms: Array
    inside: Array


def residual_gap(weights: Weights, R: Square, covariance: Square) -> ResidualGap:
    """Bound how far a linear residual network is from the global minimum of its population risk.

        ``L - L* <= ||dL/dW_l||^2 / (2 lambda_min(Sigma) prod_{j != l} (1 - ||W_j||_2)^2)``

    for every layer l; the best is taken. A critical point with all ``||W_l||_2 < 1`` is a global minimum (YSJ18
    Corollary 2.3; the determinant of R plays no role, but for ``det R <= 0`` the region has no critical point).

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: W_l (d, d). R: (d, d), the true map. covariance: Sigma (d, d), positive definite.

    Raises:
        ValueError: kernels that are not square, or do not fit R.

    Example:
        >>> found = residual_gap([jnp.zeros((2, 2))] * 2, 2 * jnp.eye(2), jnp.eye(2))
        >>> bool(found.inside), round(float(found.gap), 5), round(float(found.bound), 5)
        (True, 1.0, 1.0)
    """
    kernels, data = residual_kernels(weights), population_data(R, covariance)
    gap = loss(kernels, *data)
    norms = jnp.stack([linalg.spectral_norm(w) for w in weights])
    # The Gram matrix behind a spectral norm is off by d eps, relative to the square of the Frobenius norm.
    eps = linalg.machine_epsilon(gap.dtype)
    unsure = 2 * len(R) * eps * (1 + jnp.stack([jnp.square(linalg.norm(w)) for w in weights]))
    room = jnp.maximum(1 - norms - unsure, 0)
    # Rounding: d eps a product, relative to the sizes of what is multiplied.
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
    # The square root of the covariance is off by as much, in relation to its largest eigenvalue.
    bounds = bounds * (1 + error * jnp.square(s[0]) / jnp.where(weakest > 0, weakest, 1))
    return ResidualGap(gap, jnp.min(bounds), norms, jnp.all(room > 0))
