"""Critical points by construction, for any set of kept singular directions, any depth, any basis between layers."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.deep_linear.fit import Fit, least_squares
from globopt_jax.deep_linear.inputs import check_pair
from globopt_jax.inputs import check_key, number

__all__ = ["basis_change", "critical_point"]


def critical_point(
    X: Any,
    Y: Any,
    widths: Sequence[Any],
    indices: Sequence[Any],
    key: Any | None = None,
    *,
    condition: Any = 10.0,
    blocks: Sequence[Any] = (),
) -> list[Any]:
    """Build a critical point of a deep linear network that keeps a chosen set of directions of the least-squares fit.

    Let u_i be the right singular vectors of the fitted values F, U_I the matrix of the n chosen ones, and R_ls = X^+ Y.
    The weights are

        ``W_1 = [R_ls U_I, Z_1]``,   ``W_l = [[I_n, 0], [0, Z_l]]``,   ``W_{H+1} = [[U_I^T], [Z_{H+1}]]``

    so that ``X R = F U_I U_I^T`` and ``L = 1/2 ||Y - F||^2 + 1/2 sum_{i not in I} s_i^2``. The point is a global
    minimum if ``sum_I s_i^2 = sum_{i<=k} s_i^2``, where k is the smallest width, and a saddle otherwise. The blocks Z_l
    are zero unless `blocks` names them. With a key the weights become ``G_{l-1}^{-1} W_l G_l`` with random invertible
    G_l between the layers, which hides the diagonal structure.

    A host function. The gradients vanish up to rounding, about eps times the condition number in each layer.

    Args:
        X: inputs (m, dx).
        Y: targets (m, dy).
        widths: all widths d_0..d_{H+1}.
        indices: the directions to keep, 0-based; at most min(widths) of them, each below the rank of X^T Y; () keeps
            none. Without a hidden layer only the full set gives a critical point.
        key: the random key of the basis changes and blocks; None makes no basis changes and no random blocks.
        condition: the condition number of each G_l, at least 1.
        blocks: layers (0-based) whose block Z_l is random instead of zero; at least two layers must not be named.

    Returns:
        The kernels W_l (d_{l-1}, d_l).

    Raises:
        ValueError: the widths do not fit the data; indices are repeated, too many or out of range; the condition is no
            number of at least 1; blocks are given without a key or for all layers but one or none.
        TypeError: the data are not real numbers, or widths, indices or blocks are not integers.

    Example:
        >>> X, Y = jnp.eye(2), jnp.diag(jnp.array([3.0, 1.0]))
        >>> saddle = critical_point(X, Y, (2, 2, 2), [1])  # keeps the singular value 1, not 3
        >>> (saddle[0] @ saddle[1]).round(6).tolist()
        [[0.0, 0.0], [0.0, 1.0]]
    """
    X, Y = check_pair(X, Y)
    widths = _check_widths(widths, X.shape[1], Y.shape[1])
    if key is not None:
        key = check_key(key)
    condition = number("condition", condition, "at least 1", lambda v: v >= 1)
    fit = least_squares(X, Y)
    chosen = _check_indices(indices, widths, fit)
    layers, n = len(widths) - 1, len(chosen)
    blocks = _integers("blocks", blocks)
    if blocks and (key is None or len(set(blocks)) > layers - 2 or not set(blocks) <= set(range(layers))):
        raise ValueError(
            f"blocks: Expected: a key, and at most {layers - 2} different layers of 0..{layers - 1}. Received: "
            f"{blocks} and {'no key' if key is None else 'a key'}."
        )
    if layers == 1:
        return [fit.map]
    # NumPy assembles the weights, since JAX would compile for every number of directions.
    rng = None if key is None else np.random.default_rng(np.asarray(jax.random.key_data(key)))
    U = np.asarray(fit.directions, np.float64)[:, chosen]
    cores = [np.asarray(fit.map, np.float64) @ U, *[np.eye(n)] * (layers - 2), U.T]
    weights = []
    for l, (core, rows, columns) in enumerate(zip(cores, widths[:-1], widths[1:], strict=True)):
        # The block lies beside the core in the first layer, below it in the last, diagonally in between.
        top, left = (rows if l == 0 else n), (columns if l == layers - 1 else n)
        below, right = (0 if l == 0 else n), (0 if l == layers - 1 else n)
        w = np.zeros((rows, columns))
        if l in blocks and rng is not None:
            w[below:, right:] = rng.normal(size=(rows - below, columns - right))
        w[:top, :left] = core
        weights.append(w)
    if rng is not None:
        for l in range(1, layers):
            G, inverse = basis_change(rng, widths[l], condition)
            weights[l - 1], weights[l] = weights[l - 1] @ G, inverse @ weights[l]
    return [jnp.asarray(w, X.dtype) for w in weights]


def basis_change(rng: np.random.Generator, n: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a random (n, n) matrix with singular values from condition^-1/2 to condition^1/2, and its inverse."""
    U, V = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    s = condition ** np.linspace(0.5, -0.5, n)
    return (U * s) @ V.T, (V / s) @ U.T


def _integers(name: str, values: Sequence[Any]) -> list[int]:
    """Return the values as Python integers; a number with a fraction raises TypeError."""
    try:
        if any(isinstance(value, bool | np.bool_) for value in values):
            raise TypeError
        return [operator.index(value) for value in values]
    except TypeError:
        raise TypeError(f"{name}: Expected: integers. Received: {values!r}.") from None


def _check_widths(widths: Sequence[Any], dx: int, dy: int) -> tuple[int, ...]:
    sizes = tuple(_integers("widths", widths))
    if len(sizes) < 2 or sizes[0] != dx or sizes[-1] != dy or min(sizes) < 1:
        raise ValueError(
            f"widths: Expected: all widths from dx = {dx} to dy = {dy}, both included. Received: {tuple(widths)}."
        )
    return sizes


def _check_indices(indices: Sequence[Any], widths: tuple[int, ...], fit: Fit) -> list[int]:
    chosen = _integers("indices", indices)
    k, rank = min(widths), int(fit.correlation_rank)
    inside = all(0 <= i < rank for i in chosen) and len(set(chosen)) == len(chosen)
    if not inside or len(chosen) > k:
        raise ValueError(
            f"indices: Expected: at most {k} different ones (the smallest width) from 0 to {rank - 1} (the rank of "
            f"X^T Y is {rank}). Received: {chosen}."
        )
    if len(widths) == 2 and len(chosen) < rank:
        raise ValueError(
            f"indices: Expected: all of 0..{rank - 1}, since without a hidden layer only the least-squares fit is "
            f"critical. Received: {chosen}."
        )
    return chosen
