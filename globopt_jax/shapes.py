"""The letters of array shapes, and the type aliases of arrays, that all topics share.

The letters follow the papers, but samples are rows:

====== ==============================================================
letter meaning
====== ==============================================================
m      number of samples
dx     input dimension, ``d_0``
dy     output dimension, ``d_{H+1}``
r      number of parallel subnetworks
K      number of weight layers of one subnetwork, which is its degree
n_k    width of layer k of one subnetwork, ``n_0 = dx``, ``n_K = dy``
c      number of cuts in a relaxation
====== ==============================================================
"""

from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float

#: An array of JAX or NumPy.
Array: TypeAlias = jax.Array | np.ndarray
#: A 0-d array of floats.
Scalar: TypeAlias = Float[Array, ""]
#: The inputs X (m, dx).
Inputs: TypeAlias = Float[Array, "m dx"]
#: The targets Y (m, dy), or any array of their shape, such as predictions and dual points.
Targets: TypeAlias = Float[Array, "m dy"]

#: The weights of one subnetwork: a pytree of arrays, one array for each layer.
Weights: TypeAlias = Any
#: The weights of r subnetworks: the same pytree with a leading axis of length r.
Params: TypeAlias = Any
