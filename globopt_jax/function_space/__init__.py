"""Layers as functions: sufficient conditions for global minima in function space (YSJ18 section 4 and appendix A).

A network is a composition ``h = h_{H+1} o ... o h_1`` of functions of one vector with ``h_i(0) = 0``, and each of them
may be changed by any function. The risk is ``1/2 mean ||h(x) - h*(x)||^2`` over the samples, with ``h*(x) = E[Y|x]``;
it is ``L - L*``. If the Jacobian of the layers above a layer has full row rank everywhere, a critical point of the risk
is a global minimum. The direction down may lie outside of what a network of fixed layers can represent.

Pure array functions are `output`, `risk`, `derivative`, `operator_norm`, `descent_direction`, `at`, `inequality` and
`sigma_min_bound`. `layers_of` and `global_minimum` return layers.

    >>> import jax.numpy as jnp
    >>> layers = layers_of([jnp.eye(2), jnp.eye(2)], "leaky_relu")
    >>> X, Y = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])
    >>> float(risk(layers, X, Y)), round(float(derivative(layers, X, Y, descent_direction(layers, X, Y))), 6)
    (2.0, -4.0)
"""

from globopt_jax.function_space.conditions import Inequality, inequality, sigma_min_bound
from globopt_jax.function_space.construction import global_minimum
from globopt_jax.function_space.frechet import (
    At,
    at,
    derivative,
    descent_direction,
    layers_of,
    operator_norm,
    output,
    risk,
)

__all__ = [
    "At",
    "Inequality",
    "at",
    "derivative",
    "descent_direction",
    "global_minimum",
    "inequality",
    "layers_of",
    "operator_norm",
    "output",
    "risk",
    "sigma_min_bound",
]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
