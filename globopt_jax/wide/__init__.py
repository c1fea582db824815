"""Wide networks with biases and analytic activations: when is a critical point a global minimum, and how much loss can
a point with a small gradient have (NH17, and Nguyen & Hein 2018)?

A network has the layers l = 1..L with ``F_0 = X``, ``G_l = F_{l-1} W_l + b_l``, ``F_l = act(G_l)`` for l < L, and the
output ``F_L = G_L``. Samples are rows, N is their number, kernels are ``W_l (n_{l-1}, n_l)``, and the loss is
``1/2 ||F_L - Y||^2``. If the features of one layer have rank N and the layers above it keep signals apart, every
critical point fits the data.

Pure array functions are `loss_bound` and `loss_bounds`. Host functions are `assumption`, `classify` and `interpolate`.

    >>> import jax.numpy as jnp
    >>> assumption(jnp.eye(3), "sigmoid").holds
    True
"""

from globopt_jax.wide.assumption import Assumption, assumption
from globopt_jax.wide.bound import LossBounds, loss_bound, loss_bounds
from globopt_jax.wide.catalogue import ACTIVATIONS, FAILURES, LOSSES, Smooth, smooth
from globopt_jax.wide.interpolation import Interpolation, interpolate
from globopt_jax.wide.theorem import Criticality, classify

__all__ = [
    "ACTIVATIONS",
    "FAILURES",
    "LOSSES",
    "Assumption",
    "Criticality",
    "Interpolation",
    "LossBounds",
    "Smooth",
    "assumption",
    "classify",
    "interpolate",
    "loss_bound",
    "loss_bounds",
    "smooth",
]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
