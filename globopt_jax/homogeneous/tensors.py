"""Tensors of rank one as elemental maps: the network is a CP decomposition (HV17 section 4)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from globopt_jax.homogeneous.maps import ElementalMap
from globopt_jax.inputs import integer, typed_key
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets, Weights

__all__ = ["CPTensor", "cp_tensor"]


@dataclass(frozen=True)
class CPTensor(ElementalMap):
    """``phi(w1, ..., wK) = (X w1) (x) w2 (x) ... (x) wK``: a tensor of rank one, of degree K (HV17 section 4).

    The last K - 1 modes are flat in the output, (m, d_2 ... d_K) in the order of rows. Weights are a tuple of vectors;
    r of them are a tuple of arrays (r, dx), (r, d_2), ..., (r, d_K).
    """

    dims: tuple[int, ...]
    is_known = True
    multilinear = True

    @property
    def degree(self) -> int:
        return 1 + len(self.dims)

    def __call__(self, weights: Weights, X: Inputs) -> Float[Array, "m dy"]:
        first, *rest = weights
        return matmul(X, first)[:, None] * _kronecker([w[None] for w in rest])

    def total(self, params: Params, X: Inputs) -> Float[Array, "m dy"]:
        """The sum of all subnetworks' outputs, shape (m, dy)."""
        first, *rest = params
        return matmul(matmul(X, first.T), _kronecker(rest))

    def inner(self, weights: Weights, U: Targets, X: Inputs) -> Scalar:
        """``<U, phi(weights, X)>`` without forming the (m, dy) output."""
        first, *rest = weights
        return jnp.sum(matmul(matmul(X, first), U) * _kronecker([w[None] for w in rest])[0])

    def init(self, key: Array, *, r: int, dx: int, dy: int = 0, widths: tuple[int, ...] = ()) -> Params:
        """r random subnetworks, entries of standard deviation 1; dy and widths follow from the dims."""
        del dy, widths
        if r < 1:
            raise ValueError(f"r: Expected: at least one subnetwork. Received: {r}.")
        keys = jax.random.split(typed_key(key), 1 + len(self.dims))
        return tuple(jax.random.normal(k, (r, d)) for k, d in zip(keys, (dx, *self.dims), strict=True))

    def unfolded(self, T: np.ndarray) -> list[np.ndarray]:
        """The tensor T (dx, d_2 ... d_K) as a matrix for each mode, (d_k, the product of the others)."""
        whole = T.reshape(len(T), *self.dims)
        return [np.moveaxis(whole, k, 0).reshape(whole.shape[k], -1) for k in range(whole.ndim)]


def _kronecker(factors: list[Any]) -> Any:
    """The Kronecker products of the rows of arrays (r, d_k), shape (r, d_2 ... d_K)."""
    found = factors[0]
    for factor in factors[1:]:
        found = (found[:, :, None] * factor[:, None, :]).reshape(len(found), -1)
    return found


def cp_tensor(*dims: int) -> CPTensor:
    """Make the map of a tensor of rank one, ``(X w1) (x) w2 (x) ... (x) wK``, of degree K (HV17 section 4).

    With ``X = I`` the network is a CP decomposition of a tensor (dx, d_2, ..., d_K).

    Args:
        dims: the sizes d_2, ..., d_K of the modes after the first; at least one.

    Raises:
        ValueError: there are no sizes, or one is below 1.

    >>> import jax
    >>> phi = cp_tensor(3, 2)
    >>> phi.degree, [w.shape for w in phi.init(jax.random.key(0), r=5, dx=4)]
    (3, [(5, 4), (5, 3), (5, 2)])
    """
    if not dims:
        raise ValueError("dims: Expected: the sizes of the modes after the first. Received: none.")
    return CPTensor(tuple(integer("dims", d) for d in dims))
