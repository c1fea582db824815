"""The global minimum in closed form, and the rank-constrained problem behind it (YSJ18 Prop 3.1, K18 section 2.1)."""

import operator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from globopt_jax import linalg
from globopt_jax.deep_linear.fit import Fit, least_squares, optimum, within
from globopt_jax.inputs import real
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Scalar, Targets

__all__ = ["GlobalMinimum", "factors", "global_minimum", "relaxed_loss"]


class GlobalMinimum(NamedTuple):
    """The minimum of ``1/2 ||X R - Y||_F^2`` over maps R of limited rank."""

    value: Array
    """The minimum L*, a scalar."""
    map: Array
    """(dx, dy): a minimizer R*. Its columns lie in the row space of X."""
    singular_values: Array
    """(min(dx, dy),): the singular values of the fitted values F, largest first."""


def global_minimum(X: Inputs, Y: Targets, rank: Any) -> GlobalMinimum:
    """Return the minimum of ``1/2 ||X R - Y||_F^2`` over maps R of rank at most k, in closed form.

    Let ``F = X X^+ Y = V S U^T`` be the singular value decomposition of the fitted values, and U_k (dy, k) the first k
    columns of U. Then

        ``R* = X^+ Y U_k U_k^T``,   ``L* = 1/2 ||Y - F||^2 + 1/2 sum_{i > k} s_i^2``

    (YSJ18 Prop 3.1, K18 (2.3); the papers misprint the shape of the decomposed matrix). L* is also the global minimum
    of every deep linear network whose smallest width, inputs and outputs included, is k. It is a sum of nonnegative
    terms, so that no digits cancel. If X is rank-deficient, R* is the solution of smallest norm. If ``s_k = s_{k+1}``
    there are several minimizers R*, and one of them is returned.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        X: inputs (m, dx).
        Y: targets (m, dy).
        rank: k >= 0, an integer, which may be traced. Ranks of min(dx, dy) and more constrain nothing.

    Returns:
        A `GlobalMinimum` with ``.value``, ``.map`` and ``.singular_values``.

    Raises:
        ValueError: the shapes do not fit, or the rank is negative (a traced rank is not checked).
        TypeError: the rank is not an integer, or an array does not hold real numbers.

    Example:
        >>> best = global_minimum(jnp.eye(2), jnp.diag(jnp.array([3.0, 1.0])), 1)
        >>> float(best.value), best.map.round(6).tolist(), best.singular_values.round(6).tolist()
        (0.5, [[3.0, 0.0], [0.0, 0.0]], [3.0, 1.0])
    """
    rank = _rank(rank)
    return _truncated(least_squares(X, Y), rank)


@partial(jax.jit, inline=True)  # one program, where eager operations are ten
def _truncated(fit: Fit, rank: Any) -> GlobalMinimum:
    U = fit.directions * within(fit, rank).astype(fit.map.dtype)[None]
    return GlobalMinimum(optimum(fit, rank), matmul(matmul(fit.map, U), U.T), fit.singular_values)


def relaxed_loss(R: Float[Array, "dx dy"], X: Inputs, Y: Targets) -> Scalar:
    """Return ``L_0(R) = 1/2 ||X R - Y||_F^2``, the relaxation of a deep network's loss to maps R (YSJ18 section 3.1).

    Over maps of rank at most ``k = min_l d_l`` it has the same minimum as the network. `product` turns weights into a
    map with the same loss, and `factors` turns any such map into weights. The product of a local minimum of the network
    is a local minimum of the relaxed problem, and every local minimum of the relaxed problem is global (K18 Theorems
    2.1 to 2.3, Lu & Kawaguchi 2017).

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        R: the map (dx, dy).
        X: inputs (m, dx).
        Y: targets (m, dy).

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: an array does not hold real numbers.

    Example:
        >>> float(relaxed_loss(jnp.eye(2), jnp.eye(2), jnp.zeros((2, 2))))
        1.0
    """
    R, X, Y = real("R", R), real("X", X), real("Y", Y)
    fits = [jnp.ndim(a) for a in (R, X, Y)] == [2, 2, 2] and len(X) == len(Y)
    if not fits or jnp.shape(R) != (X.shape[1], Y.shape[1]):
        shapes = ", ".join(str(jnp.shape(a)) for a in (R, X, Y))
        raise ValueError(f"R, X, Y: Expected: shapes (dx, dy), (m, dx) and (m, dy). Received: {shapes}.")
    return 0.5 * jnp.sum(jnp.square(matmul(X, R) - Y))


def factors(R: Float[Array, "dx dy"], widths: tuple[int, ...]) -> list[Array]:
    """Return balanced kernels with the product R (Lu & Kawaguchi 2017).

    Balanced means ``W_l^T W_l = W_{l+1} W_{l+1}^T``. With ``R = A diag(s) B^T`` every layer carries the factor
    ``diag(s)^(1/(H+1))``. If R has more than k = min(widths) nonzero singular values, only the k largest are kept, and
    the product is the best approximation of R of rank k.

    Array function: pure, works under `jit` and `vmap`; the widths are static.

    Args:
        R: the map (dx, dy).
        widths: all widths d_0..d_{H+1}, with d_0 = dx and d_{H+1} = dy.

    Returns:
        The kernels W_l (d_{l-1}, d_l).

    Raises:
        ValueError: R is no matrix, or the widths do not begin with dx, do not end with dy, or are not positive.
        TypeError: R does not hold real numbers.

    Example:
        >>> W = factors(jnp.diag(jnp.array([4.0, 1.0])), (2, 3, 2))
        >>> [w.shape for w in W], matmul(W[0], W[1]).round(5).tolist()
        ([(2, 3), (3, 2)], [[4.0, 0.0], [0.0, 1.0]])
    """
    R = real("R", R)
    if jnp.ndim(R) != 2:
        raise ValueError(f"R: Expected: shape (dx, dy). Received: {jnp.shape(R)}.")
    if len(widths) < 2 or (widths[0], widths[-1]) != R.shape or min(widths) < 1:
        raise ValueError(f"widths: Expected: {R.shape[0]}, ..., {R.shape[1]}, all positive. Received: {widths}.")
    return _factors(R, tuple(widths))


@partial(jax.jit, static_argnums=1, inline=True)
def _factors(R: Array, widths: tuple[int, ...]) -> list[Array]:
    k = min(widths)
    A, s, Bt, *_ = linalg.svd(R)
    if len(widths) == 2:
        return [matmul(A * s[None], Bt)]
    share = s[:k] ** (1 / (len(widths) - 1))
    first = jnp.pad(A[:, :k] * share[None], ((0, 0), (0, widths[1] - k)))
    middle = [jnp.pad(jnp.diag(share), ((0, a - k), (0, b - k))) for a, b in pairwise(widths[1:-1])]
    last = jnp.pad(share[:, None] * Bt[:k], ((0, widths[-2] - k), (0, 0)))
    return [first, *middle, last]


def _rank(rank: Any) -> Any:
    """Return the rank, traced or a Python integer, after checks of its type and sign."""
    if isinstance(rank, jax.Array) and (rank.shape or not jnp.issubdtype(rank.dtype, jnp.integer)):
        raise TypeError(f"rank: Expected: an integer. Received: shape {rank.shape} and dtype {rank.dtype}.")
    try:
        known = operator.index(rank)
    except jax.errors.TracerIntegerConversionError:
        return rank
    except TypeError:
        raise TypeError(f"rank: Expected: an integer. Received: {rank!r}.") from None
    if known < 0:
        raise ValueError(f"rank: Expected: at least 0. Received: {rank}.")
    return known
