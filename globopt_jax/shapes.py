"""Shape letters, array aliases and the protocols that the topics share.

The letters follow the papers, with samples as rows:

====== ==============================================================
letter meaning
====== ==============================================================
m      number of samples
dx     input dimension, ``d_0``
dy     output dimension, ``d_{H+1}``
r      number of parallel subnetworks
K      number of weight layers of one subnetwork (its degree)
n_k    width of layer k of one subnetwork, ``n_0 = dx``, ``n_K = dy``
c      number of cuts in a relaxation
====== ==============================================================
"""

from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

Array: TypeAlias = jax.Array | np.ndarray
Scalar: TypeAlias = Float[Array, ""]
Inputs: TypeAlias = Float[Array, "m dx"]
Targets: TypeAlias = Float[Array, "m dy"]

#: The weights of one subnetwork: a pytree of arrays, layer by layer.
Weights: TypeAlias = Any
#: The weights of r subnetworks: the same pytree with a leading axis of length r.
Params: TypeAlias = Any


@runtime_checkable
class ElementalMap(Protocol):
    """A positively homogeneous map ``phi(weights, X)`` of one subnetwork."""

    @property
    def degree(self) -> int | float:
        """p with ``phi(a w) = a^p phi(w)`` for every a >= 0."""
        ...

    def __call__(self, weights: Weights, X: Any) -> Any:
        """The output of one subnetwork, shape (m, dy)."""
        ...

    def total(self, params: Params, X: Any) -> Any:
        """The sum over the leading axis of r subnetworks, shape (m, dy)."""
        ...

    def inner(self, weights: Weights, U: Any, X: Any) -> Any:
        """``<U, phi(weights, X)>`` for U (m, dy), a scalar."""
        ...


@runtime_checkable
class Regularizer(Protocol):
    """A positively homogeneous penalty ``theta(weights)`` of one subnetwork."""

    @property
    def degree(self) -> int | float | None:
        """p with ``theta(a w) = a^p theta(w)``; None while no map has bound it."""
        ...

    def __call__(self, weights: Weights) -> Any:
        """The penalty of one subnetwork, a scalar >= 0."""
        ...

    def bind(self, phi: ElementalMap) -> "Regularizer":
        """The same penalty with its free exponent fixed by phi."""
        ...
