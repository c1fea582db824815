"""What a network's tangent space says about its local minima (KHK19): J, the loss that every one of them would have.

>>> import jax
>>> from globopt_jax import networks
>>> X, Y, first, last = (
...     jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(30, 3), (30, 2), (3, 4), (4, 2)])
... )
>>> W = [first, last]
>>> found = tangent_projection(networks.feed_forward("relu"), W, X, Y)
>>> bool(found.value <= found.loss), int(found.rank)
(True, 16)

Every shape compiles programs of its own, for seconds. A loop over hundreds of shapes in one process calls
`jax.clear_caches()` now and then: each program keeps maps of memory, and XLA crashes where the system has no more.
"""

from globopt_jax.local_minima.blocks import jacobian_blocks, vec
from globopt_jax.local_minima.decomposition import Decomposition, decompose
from globopt_jax.local_minima.regression import RegressionBounds, regression_bounds
from globopt_jax.local_minima.spaces import METHODS
from globopt_jax.local_minima.tangent import TangentProjection, tangent_projection
from globopt_jax.local_minima.units import LinearUnits, linear_units, with_linear_units
from globopt_jax.local_minima.white_noise import (
    PhaseChange,
    WhiteNoiseBound,
    phase_change,
    smallest_pattern_value,
    white_noise_bound,
    white_noise_quantile,
)

__all__ = [
    "METHODS",
    "Decomposition",
    "LinearUnits",
    "PhaseChange",
    "RegressionBounds",
    "TangentProjection",
    "WhiteNoiseBound",
    "decompose",
    "jacobian_blocks",
    "linear_units",
    "phase_change",
    "regression_bounds",
    "smallest_pattern_value",
    "tangent_projection",
    "vec",
    "white_noise_bound",
    "white_noise_quantile",
    "with_linear_units",
]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
