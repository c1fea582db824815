"""The loss of local minima, from the tangent space of a network (Kawaguchi, Huang & Kaelbling 2019, KHK19).

The tangent space at given weights is the span of the derivatives of the output in all weights. J is half the squared
distance from the targets to this space. At a differentiable local minimum of a network with a linear last layer, the
squared loss equals J (KHK19 Theorem 1). Weights that are no local minimum have a J too: the loss of the local minima
that have the same tangent space.

>>> import jax
>>> from globopt_jax import networks
>>> X, Y, first, last = (
...     jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(30, 3), (30, 2), (3, 4), (4, 2)])
... )
>>> W = [first, last]
>>> found = tangent_projection(networks.feed_forward("relu"), W, X, Y)
>>> bool(found.value <= found.loss), int(found.rank)
(True, 16)

Every new shape of the arrays is compiled, which takes seconds. A process that loops over a hundred shapes should call
`jax.clear_caches()` now and then: every compiled program holds memory maps, and XLA crashes when the system has no more
of them.
"""

from globopt_jax.local_minima.blocks import jacobian_blocks, vec
from globopt_jax.local_minima.decomposition import Decomposition, decompose
from globopt_jax.local_minima.regression import RegressionBounds, regression_bounds
from globopt_jax.local_minima.spaces import METHODS
from globopt_jax.local_minima.tangent import TangentProjection, tangent_projection
from globopt_jax.local_minima.units import LinearUnits, linear_units, with_linear_units
from globopt_jax.local_minima.value import TangentValue, tangent_value
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
    "TangentValue",
    "WhiteNoiseBound",
    "decompose",
    "jacobian_blocks",
    "linear_units",
    "phase_change",
    "regression_bounds",
    "smallest_pattern_value",
    "tangent_projection",
    "tangent_value",
    "vec",
    "white_noise_bound",
    "white_noise_quantile",
    "with_linear_units",
]


def __dir__() -> list[str]:
    """Return the public names, which an editor offers."""
    return __all__
