"""The blocks ``D_k^(l)`` of a feed-forward network's Jacobian as dense arrays (KHK19 section 4.2 and Lemma 1)."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from globopt_jax.inputs import real
from globopt_jax.local_minima.jacobian import FeedForwardModel, Restricted
from globopt_jax.networks import Activation, feed_forward, kernels_of
from globopt_jax.shapes import Array, Inputs

__all__ = ["jacobian_blocks", "unit_columns", "vec"]


def vec(B: Any) -> Array:
    """Return the columns of B stacked into one vector, ``B.T.ravel()``: the order of the outputs in KHK19.

    Args:
        B: a matrix (m, n).

    Returns:
        The vector (m n,).

    Raises:
        TypeError: B does not hold real numbers.

    Example:
        >>> vec(jnp.array([[1, 2], [3, 4]])).tolist()
        [1.0, 3.0, 2.0, 4.0]
    """
    return jnp.ravel(real("B", B).T)


def jacobian_blocks(weights: Any, X: Inputs, activation: Activation = "relu") -> list[Array]:
    """Return ``D_k^(l)``, the derivative of the output in the weights into unit k of layer l (KHK19 Theorem 1).

    For the hidden layers l = 1..H,

    ``D_k^(l) = sum_(k_(l+1)..k_H) (W^(l+1)[k, k_(l+1)] .. W^(H+1)[k_H, :])^T (x) (Lam_(l,k) .. Lam_(H,k_H) Phi^(l-1))``

    where Phi^(l) are the features of layer l and Lam_(l,k) is the diagonal matrix of the activation's derivatives of
    unit k on the samples. The blocks ``D_j^(H+1)`` of the output layer, side by side, are ``I_dy (x) Phi^(H)``. Then
    ``vec(Yhat) = sum_k D_k^(l) W_l[:, k]`` for every l, and D_k^(l) is the derivative of vec(Yhat) in W_l[:, k] at
    differentiable points (Lemma 1).

    Each block is a dense array with m dy rows, which suits small networks. `tangent_projection` and `decompose` compute
    with the same blocks and never store them.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: kernels W_l (d_{l-1}, d_l), without biases.
        X: inputs (m, dx).
        activation: the activation, see `networks.feed_forward`.

    Returns:
        H+1 arrays (d_l, m dy, d_{l-1}), one for each layer l = 1..H+1; the rows are in the order of `vec`.

    Raises:
        ValueError: the shapes do not fit together.
        ValueError: a layer has a bias, whose column belongs to no block.
        TypeError: an array does not hold real numbers.

    Example:
        >>> D = jacobian_blocks([jnp.array([[1.0]]), jnp.array([[3.0]])], jnp.array([[2.0], [-1.0]]))
        >>> [d[0, :, 0].tolist() for d in D]
        [[6.0, -0.0], [2.0, -0.0]]
    """
    X = real("X", X)
    weights = [real(f"weights[{l}]", w).astype(X.dtype) for l, w in enumerate(kernels_of(weights))]
    A = FeedForwardModel(feed_forward(activation)).chunk(weights, X, jnp.ones(len(X), X.dtype))
    pairs = zip(A.signals, A.features, strict=True)
    return [jnp.einsum("ijk,ia->kjia", s, f).reshape(s.shape[2], -1, f.shape[1]) for s, f in pairs]


def unit_columns(model: FeedForwardModel | Restricted, params: Any, dy: int) -> list[np.ndarray]:
    """Return for each block of columns an index array (signals, features): the columns that belong to each unit."""
    found, start = [], 0
    for a, d in model.sizes(params, dy):
        found.append(start + np.arange(a * d).reshape(a, d).T)
        start += a * d
    return found
