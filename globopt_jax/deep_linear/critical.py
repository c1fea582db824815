"""Critical points by construction: any set of singular directions, any depth, any basis between the layers."""

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
    """Build weights at which every gradient vanishes, and which keep a chosen set of directions of the fit.

    With u_i the right singular vectors of the fitted values F, U_I those of the n indices, and R_ls = X^+ Y:

        ``W_1 = [R_ls U_I, Z_1]``,   ``W_l = [[I_n, 0], [0, Z_l]]``,   ``W_{H+1} = [[U_I^T], [Z_{H+1}]]``

    which makes ``X R = F U_I U_I^T`` and ``L = 1/2 ||Y - F||^2 + 1/2 sum_{i not in I} s_i^2``. A global minimum
    exactly if ``sum_I s_i^2 = sum_{i<=k} s_i^2``, a saddle otherwise. With a key, ``W_l <- G_{l-1}^{-1} W_l G_l`` with
    random invertible G_l between the layers, so that nothing looks diagonal any more.

    Host function. The gradients vanish to rounding: to about eps times the condition number, over all layers.

    Args:
        X: (m, dx). Y: (m, dy).
        widths: all of d_0..d_{H+1}.
        indices: the directions kept, 0-based, at most min(widths) of them and below the rank of X^T Y; () for none.
            Without a hidden layer only the full set is critical.
        key: of the basis changes and blocks; None: none of them.
        condition: the condition number of each G_l, at least 1.
        blocks: layers (0-based) whose redundant block Z is random instead of zero; at least two layers are left out.

    Returns:
        Kernels W_l (d_{l-1}, d_l).

    Raises:
        ValueError: widths that do not fit the data, indices that are repeated, too many or out of range, a condition
            that is no number of at least 1, blocks without a key or with fewer than two layers left.
        TypeError: data that are not real numbers, widths, indices or blocks that are no integers.

    Example:
        >>> X, Y = jnp.eye(2), jnp.diag(jnp.array([3.0, 1.0]))
        >>> saddle = critical_point(X, Y, (2, 2, 2), [1])  # keeps 1, leaves 3
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
    # In NumPy: a compilation for every number of directions would take far longer than the assembly.
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
    """A random (n, n) matrix G with singular values from ``condition^-1/2`` to ``condition^1/2``, and its inverse."""
    U, V = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    s = condition ** np.linspace(0.5, -0.5, n)
    return (U * s) @ V.T, (V / s) @ U.T


def _integers(name: str, values: Sequence[Any]) -> list[int]:
    """The values as Python integers; no fraction is cut off."""
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
            f"indices: Expected: at most {k} different ones (the narrowest layer) from 0 to {rank - 1} (the rank of "
            f"X^T Y is {rank}). Received: {chosen}."
        )
    if len(widths) == 2 and len(chosen) < rank:
        raise ValueError(
            f"indices: Expected: all of 0..{rank - 1}, since without a hidden layer only the least-squares fit is "
            f"critical. Received: {chosen}."
        )
    return chosen
