"""The blocks ``D_k^(l)`` of a feed-forward network's Jacobian, written out (KHK19 section 4.2 and Lemma 1)."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from globopt_jax.inputs import real
from globopt_jax.local_minima.jacobian import Layered, Restricted
from globopt_jax.networks import Activation, feed_forward, kernels_of
from globopt_jax.shapes import Array, Inputs

__all__ = ["jacobian_blocks", "unit_columns", "vec"]


def vec(B: Any) -> Array:
    """The columns of B (m, n) one below the other, (m n,): KHK19's order of the outputs, ``B.T.ravel()``.

    Example:
        >>> vec(jnp.array([[1, 2], [3, 4]])).tolist()
        [1.0, 3.0, 2.0, 4.0]
    """
    return jnp.ravel(real("B", B).T)


def jacobian_blocks(weights: Any, X: Inputs, activation: Activation = "relu") -> list[Array]:
    """Return ``D_k^(l)`` for l = 1..H+1: what moves the output when the kernel of one unit moves (KHK19 Theorem 1).

    ``D_k^(l) = sum_(k_(l+1)..k_H) (W^(l+1)[k, k_(l+1)] .. W^(H+1)[k_H, :])^T (x) (Lam_(l,k) .. Lam_(H,k_H) Phi^(l-1))``

    and ``D_j^(H+1)``, whose blocks side by side are ``I_dy (x) Phi^(H)``. Then ``vec(Yhat) = sum_k D_k^(l) W_l[:, k]``
    for every l, and D_k^(l) is the derivative of vec(Yhat) in W_l[:, k] at differentiable points (Lemma 1). These are
    dense, m dy rows each: for small networks. `tangent_projection` and `decompose` never store them.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: kernels W_l (d_{l-1}, d_l). X: (m, dx). activation: see `networks.feed_forward`.

    Returns:
        H+1 arrays (d_l, m dy, d_{l-1}); the rows are those of `vec`.

    Raises:
        ValueError: shapes that do not fit, biases (their columns belong to no block).

    Example:
        >>> D = jacobian_blocks([jnp.array([[1.0]]), jnp.array([[3.0]])], jnp.array([[2.0], [-1.0]]))
        >>> [d[0, :, 0].tolist() for d in D]
        [[6.0, -0.0], [2.0, -0.0]]
    """
    X = real("X", X)
    weights = [real(f"weights[{l}]", w).astype(X.dtype) for l, w in enumerate(kernels_of(weights))]
    A = Layered(feed_forward(activation)).chunk(weights, X, jnp.ones(len(X), X.dtype))
    pairs = zip(A.signals, A.features, strict=True)
    return [jnp.einsum("ijk,ia->kjia", s, f).reshape(s.shape[2], -1, f.shape[1]) for s, f in pairs]


def unit_columns(model: Layered | Restricted, params: Any, dy: int) -> list[np.ndarray]:
    """For each block of columns, which of them belong to which unit: (signals, features) indices a block."""
    found, start = [], 0
    for a, d in model.sizes(params, dy):
        found.append(start + np.arange(a * d).reshape(a, d).T)
        start += a * d
    return found
