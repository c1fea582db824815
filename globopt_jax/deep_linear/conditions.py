"""Conditions at the narrowest hidden layer (the bottleneck) for critical points of full rank (YSJ18 Prop 3.6, 3.7)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.fit import least_squares, tail
from globopt_jax.deep_linear.judgement import product_rank
from globopt_jax.deep_linear.network import Weights, arrays, check_chain
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Targets

__all__ = ["BottleneckConditions", "bottleneck_conditions"]


class BottleneckConditions(NamedTuple):
    """The residuals of Prop 3.6 and 3.7; all fields are scalars.

    Let ``A = S_p`` (k, dy), ``B = P_p`` (dx, k) and ``E = X^T (X R - Y)``. Pi is the projector on the row space of A,
    F is the least-squares fit with the singular values s_i, and U_k holds its k leading right singular vectors.
    """

    rank: Array
    """The numerical rank of the product R. The propositions assume that it is k."""
    backward: Array
    """``||E A^T||``; zero at critical points of rank k."""
    forward: Array
    """``||B^T E||``; zero at critical points of rank k."""
    first_gradient: Array
    """``||dL/dW_1||``; at least ``first_factor * backward``."""
    last_gradient: Array
    """``||dL/dW_{H+1}||``; at least ``last_factor * forward``."""
    first_factor: Array
    """``sigma_k(W_2..W_p)``, or 1 for p = 1."""
    last_factor: Array
    """``sigma_k(W_{p+1}..W_H)``, or 1 for p = H."""
    stationarity: Array
    """The larger of ``backward`` and ``forward``, each divided by its scale so that it is dimensionless."""
    map_residual: Array
    """``||X R - F Pi||``; zero at critical points of rank k."""
    gap: Array
    """``1/2 (sum_{i<=k} s_i^2 - ||F Pi||^2)``; it is ``L - L*`` at critical points of rank k."""
    distance: Array
    """``||Pi - U_k U_k^T||_2``; zero at global minima of rank k if ``s_k > s_{k+1}``."""
    critical: Array
    """Bool: whether the rank is k and the stationarity is zero to the tolerance."""
    global_minimum: Array
    """Bool: whether the point is critical and the gap is zero to the tolerance."""


def bottleneck_conditions(weights: Weights, X: Inputs, Y: Targets, layer: int | None = None) -> BottleneckConditions:
    """Return the residuals of the conditions for critical points of full rank and for global minima among them.

    Let p be a hidden layer of the smallest width k, ``A = S_p``, ``B = P_p``, ``E = X^T (X R - Y)``, and let R have
    rank k. The point is critical iff ``E A^T = 0`` and ``B^T E = 0`` (YSJ18 Prop 3.6). At a critical point ``X R = F
    Pi``, where F is the least-squares fit and Pi is the projector on the row space of A. The critical point is a global
    minimum iff ``||F Pi||^2 = sum_{i<=k} s_i^2``; if ``s_k > s_{k+1}`` this means ``Pi = U_k U_k^T`` (Prop 3.7).

    Array function: pure, works under `jit` and `vmap`. The tolerance is sqrt(eps), see `linalg.decision_tolerance`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l), with a hidden layer of the smallest width.
        X: inputs (m, dx).
        Y: targets (m, dy).
        layer: p, 1..H; None is the first hidden layer of the smallest width.

    Returns:
        `BottleneckConditions`.

    Raises:
        ValueError: the shapes do not fit, or the layer is not hidden or not of the smallest width.
        TypeError: an array does not hold real numbers.

    Example:
        >>> Y = jnp.diag(jnp.array([3.0, 1.0]))
        >>> found = bottleneck_conditions([jnp.array([[0.0], [1.0]]), jnp.array([[0.0, 1.0]])], jnp.eye(2), Y)
        >>> bool(found.critical), bool(found.global_minimum), round(float(found.gap), 5)
        (True, False, 4.0)
    """
    weights, X, Y = arrays(weights, X, Y)
    widths = check_chain(weights, X, Y)
    k = min(widths)
    narrow = [p for p in range(1, len(widths) - 1) if widths[p] == k]
    p = layer if layer is not None else (narrow or [0])[0]
    if p not in narrow:
        raise ValueError(
            f"layer: Expected: a hidden layer (1..{len(widths) - 2}) of the smallest width {k} of {widths}. Received: "
            f"{layer if layer is not None else 'none, and no hidden layer has this width'}."
        )
    return _conditions(list(weights), X, Y, p, k)


@partial(jax.jit, static_argnums=(3, 4))  # without jit the first call would take seconds
def _conditions(weights: Weights, X: Inputs, Y: Targets, p: int, k: int) -> BottleneckConditions:
    fit = least_squares(X, Y)
    before, after = _products(weights[:p]), _products(weights[p:])
    residual = matmul(matmul(fit.inputs, before), after) - fit.targets
    E = matmul(fit.inputs.T, residual)
    backward, forward = matmul(E, after.T), matmul(before.T, E)
    middle_first, middle_last = weights[1:p], weights[p:-1]
    size = fit.scales[0] * (linalg.norm(residual + fit.targets) + fit.size)
    lengths = [linalg.norm(backward), linalg.norm(forward)]
    scales = [size * linalg.spectral_norm(after), size * linalg.spectral_norm(before)]
    stationarity = jnp.max(
        jnp.stack([jnp.where(a > 0, a / jnp.where(b > 0, b, 1), 0) for a, b in zip(lengths, scales, strict=True)])
    )
    row = linalg.svd(after)
    V = row.Vt.T * row.kept[None]
    projected = matmul(matmul(fit.targets, V), V.T)
    U = fit.directions[:, :k]
    best = 0.5 * jnp.sum(jnp.square(fit.singular_values)) - tail(fit, k)
    gap = best - 0.5 * jnp.sum(jnp.square(projected))
    tolerance = linalg.decision_tolerance(gap.dtype)
    rank = product_rank(weights)
    critical = (rank == k) & (stationarity <= tolerance)
    return BottleneckConditions(
        rank=rank,
        backward=lengths[0],
        forward=lengths[1],
        first_gradient=linalg.norm(matmul(backward, _products(middle_first).T) if middle_first else backward),
        last_gradient=linalg.norm(matmul(_products(middle_last).T, forward) if middle_last else forward),
        first_factor=_smallest(middle_first, k, gap.dtype),
        last_factor=_smallest(middle_last, k, gap.dtype),
        stationarity=stationarity,
        map_residual=linalg.norm(residual + fit.targets - projected),
        gap=gap,
        distance=linalg.spectral_norm(matmul(V, V.T) - matmul(U, U.T)),
        critical=critical,
        global_minimum=critical & (gap <= tolerance * best),
    )


def _products(weights: Weights) -> Any:
    product = weights[0]
    for w in weights[1:]:
        product = matmul(product, w)
    return product


def _smallest(weights: Weights, k: int, dtype: Any) -> Array:
    """Return ``sigma_k`` of a product of matrices with at least k rows and columns; 1 for the empty product."""
    return linalg.singular_values(_products(weights))[k - 1] if weights else jnp.ones((), dtype)
