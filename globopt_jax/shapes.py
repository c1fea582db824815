"""Shape letters and array aliases that the topics share.

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

from typing import Any, TypeAlias

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
