"""Deep linear networks: the prediction, the loss, and the analytic gradients (YSJ18 section 2.1 and Lemma 3.2)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import jax.numpy as jnp
from jaxtyping import Float

from globopt_jax.inputs import real
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Scalar, Targets

__all__ = ["Weights", "arrays", "check_chain", "gradients", "loss", "predict", "product", "widths_of"]

#: The kernels ``W_l (d_{l-1}, d_l)``, l = 1..H+1, of a deep linear network.
Weights: TypeAlias = Sequence[Float[Array, "_ _"]]


def widths_of(weights: Any) -> tuple[int, ...]:
    """Return all widths d_0..d_{H+1}; d_0 is dx and d_{H+1} is dy.

    Raises:
        ValueError: there are no kernels, a kernel is no matrix or is empty, or the kernels do not fit together.

    Example:
        >>> widths_of([jnp.zeros((3, 2)), jnp.zeros((2, 4))])
        (3, 2, 4)
    """
    shapes = [jnp.shape(w) for w in weights]
    fits = shapes and all(len(s) == 2 and min(s) > 0 for s in shapes) and all(a[1] == b[0] for a, b in pairwise(shapes))
    if not fits:
        turned = shapes and all(len(s) == 2 for s in shapes) and all(a[0] == b[1] for a, b in pairwise(shapes))
        raise ValueError(
            "weights: Expected: kernels of shapes (d_0, d_1), (d_1, d_2), ..., (d_H, d_H+1), at least one. Received: "
            f"shapes {shapes}{', which fit if each kernel is transposed (PyTorch stores W.T)' if turned else ''}."
        )
    return (shapes[0][0], *(s[1] for s in shapes))


def arrays(weights: Any, X: Any, Y: Any) -> tuple[list[Any], Any, Any]:
    """Return weights and data as arrays of floats.

    Raises:
        TypeError: an array does not hold real numbers.
    """
    return floats(weights), real("X", X), real("Y", Y)


def floats(weights: Any) -> list[Any]:
    """Return weights as arrays of floats.

    Raises:
        TypeError: a kernel does not hold real numbers.
    """
    return [real(f"weights[{l}]", w) for l, w in enumerate(weights)]


def check_chain(weights: Any, X: Any, Y: Any) -> tuple[int, ...]:
    """Check that a network fits X (m, dx) and Y (m, dy), and return its widths.

    Raises:
        ValueError: the shapes do not fit; the message names all of them.
    """
    widths = widths_of(weights)
    x, y = jnp.shape(X), jnp.shape(Y)
    if len(x) != 2 or len(y) != 2 or x[0] != y[0] or (x[1], y[1]) != (widths[0], widths[-1]):
        raise ValueError(
            f"X, Y: Expected: shapes (m, {widths[0]}) and (m, {widths[-1]}) for weights with the widths {widths}. "
            f"Received: {x} and {y}."
        )
    return widths


def product(weights: Weights) -> Float[Array, "dx dy"]:
    """Return ``R = W_1 ... W_{H+1}``, multiplied in the order that takes the fewest operations.

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).

    Returns:
        The map R (dx, dy).

    Raises:
        ValueError: the kernels do not fit together.
        TypeError: a kernel does not hold real numbers.

    Example:
        >>> product([jnp.ones((3, 2)), jnp.ones((2, 1))]).tolist()
        [[2.0], [2.0], [2.0]]
    """
    weights = floats(weights)
    _ = widths_of(weights)
    return _chain(weights)


def predict(weights: Weights, X: Inputs) -> Float[Array, "m dy"]:
    """Return ``Yhat = X W_1 ... W_{H+1}``, multiplied in the order that takes the fewest operations.

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).

    Returns:
        The predictions Yhat (m, dy).

    Raises:
        ValueError: the shapes do not fit.
        TypeError: an array does not hold real numbers.

    Example:
        >>> predict([2 * jnp.eye(2), 3 * jnp.eye(2)], jnp.ones((1, 2))).tolist()
        [[6.0, 6.0]]
    """
    chain = [real("X", X), *floats(weights)]
    _ = widths_of(chain)
    return _chain(chain)


def loss(weights: Weights, X: Inputs, Y: Targets) -> Scalar:
    """Return ``L = 1/2 ||X W_1 ... W_{H+1} - Y||_F^2``, a sum over samples (YSJ18 (1)).

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).
        Y: targets (m, dy).

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: an array does not hold real numbers.

    Example:
        >>> float(loss([jnp.eye(2)], jnp.eye(2), jnp.zeros((2, 2))))
        1.0
    """
    weights, X, Y = arrays(weights, X, Y)
    _ = check_chain(weights, X, Y)
    return 0.5 * jnp.sum(jnp.square(predict(weights, X) - Y))


def gradients(weights: Weights, X: Inputs, Y: Targets) -> list[Any]:
    """Return ``dL/dW_l = P_{l-1}^T E S_l^T`` for every layer (YSJ18 Lemma 3.2).

    Here ``P_{l-1} = W_1..W_{l-1}``, ``S_l = W_{l+1}..W_{H+1}`` and ``E = X^T (X R - Y)``. All partial products are
    computed in one sweep. There are three orders of multiplication: through the samples (back-propagation, m rows),
    through the inputs (E first, then dx rows), or through the outputs (E first, then dy rows). The shapes decide at
    trace time which order takes the fewest operations. With many samples the last two save most of the work.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l), l = 1..H+1. One kernel (H = 0) is linear regression.
        X: inputs (m, dx).
        Y: targets (m, dy).

    Returns:
        A list with the gradient of each kernel, in the common dtype of weights and data.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: an array does not hold real numbers.

    Example:
        >>> W = [jnp.ones((2, 1)), jnp.ones((1, 2))]
        >>> [g.tolist() for g in gradients(W, jnp.eye(2), jnp.eye(2))]
        [[[1.0], [1.0]], [[1.0, 1.0]]]
    """
    weights, X, Y = arrays(weights, X, Y)
    widths = check_chain(weights, X, Y)
    way = cheapest_way(len(X), widths)
    if way == "samples":
        return _sweep(weights, X, lambda last: matmul(last, weights[-1]) - Y)
    if way == "inputs":
        return _sweep(weights, None, lambda last: _pull_back(_join(last, weights[-1]), weights, X, Y))
    # The transposed network from outputs to inputs has the transposed gradients, in reverse order.
    mirrored = [w.T for w in reversed(weights)]
    found = _sweep(mirrored, None, lambda last: _pull_back(_join(last, mirrored[-1]).T, weights, X, Y).T)
    return [g.T for g in reversed(found)]


def cheapest_way(m: int, widths: tuple[int, ...]) -> str:
    """Return the order of `gradients` with the fewest multiplications: "samples", "inputs" or "outputs"."""
    layers = [a * b for a, b in pairwise(widths)]
    dx, dy = widths[0], widths[-1]
    total = sum(layers)
    residual = min(m * dx * dy, _chain_cost((m, *widths))) + m * dx * dy
    cost = {
        "samples": m * (3 * total - layers[0]),  # forward, gradients of kernels, backward except to the inputs
        "inputs": residual + dx * (3 * total - 3 * layers[0]),
        "outputs": residual + dy * (3 * total - 3 * layers[-1]),
    }
    return min(cost, key=lambda way: cost[way])


def _sweep(weights: Weights, start: Any, end: Any) -> list[Any]:
    """Return ``(start P_{l-1})^T D S_l^T`` for every l, with D = end(start P_H); a start of None is the identity."""
    before = [start]
    for w in weights[:-1]:
        before.append(_join(before[-1], w))
    signal, found = end(before[-1]), []
    for l in range(len(weights) - 1, -1, -1):
        found.append(signal if before[l] is None else matmul(before[l].T, signal))
        if l:
            signal = matmul(signal, weights[l].T)
    return found[::-1]


def _pull_back(R: Array, weights: Weights, X: Inputs, Y: Targets) -> Array:
    """Return ``E = X^T (X R - Y)``, with X R computed layer by layer where a bottleneck makes that cheaper."""
    m, dx = X.shape
    narrow = _chain_cost((m, *widths_of(weights))) < m * dx * Y.shape[1]
    return matmul(X.T, (_chain([X, *weights]) if narrow else matmul(X, R)) - Y)


def _join(A: Any, B: Array) -> Array:
    """Return ``A B``, where an A of None is the identity."""
    return B if A is None else matmul(A, B)


def _chain(matrices: Sequence[Array]) -> Array:
    if len(matrices) == 1:
        return jnp.asarray(matrices[0])
    return jnp.linalg.multi_dot(list(matrices), precision="highest")


def _chain_cost(sizes: tuple[int, ...]) -> int:
    """Return the fewest multiplications for a product of matrices of shapes (sizes[i], sizes[i + 1])."""
    n = len(sizes) - 1
    best = [[0] * n for _ in range(n)]
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            best[i][j] = min(best[i][k] + best[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j))
    return best[0][n - 1]
