"""Deep linear networks: what is the global minimum, is this critical point one, how far is any point from it, which way
is down? (YSJ18 sections 2 and 3, K18 section 2.1)

``Yhat = X W_1 ... W_{H+1}`` with the loss ``1/2 ||Yhat - Y||_F^2``; samples are rows, kernels ``W_l (d_{l-1}, d_l)``.
Matrix factorization ``1/2 ||U V^T - Y||_F^2`` is the case X = I, weights [U, V^T].

Array functions, pure: `loss`, `predict`, `product`, `gradients`, `least_squares`, `global_minimum`, `relaxed_loss`,
`factors`, `gap_bounds`, `suboptimality_bound`, `bottleneck_conditions`, and those for residual networks. Host
functions: `classify`, `critical_point`, `escape`, `ascend`, `known_rank`. `monitor` is an optax transformation.

    >>> import jax.numpy as jnp
    >>> Y = jnp.diag(jnp.array([3.0, 1.0]))
    >>> U, Vt = jnp.array([[0.0], [1.0]]), jnp.array([[0.0, 1.0]])  # keeps 1, should keep 3
    >>> classify([U, Vt], jnp.eye(2), Y).kind
    'saddle'
"""

from globopt_jax.deep_linear.ascent import Ascent, ascend
from globopt_jax.deep_linear.bounds import GapBounds, gap_bounds, suboptimality_bound
from globopt_jax.deep_linear.classify import Classification, classify
from globopt_jax.deep_linear.conditions import BottleneckConditions, bottleneck_conditions
from globopt_jax.deep_linear.critical import critical_point
from globopt_jax.deep_linear.escape import Escape, escape
from globopt_jax.deep_linear.exact import known_rank
from globopt_jax.deep_linear.fit import Fit, least_squares
from globopt_jax.deep_linear.minimum import GlobalMinimum, factors, global_minimum, relaxed_loss
from globopt_jax.deep_linear.monitor import History, history, monitor
from globopt_jax.deep_linear.network import gradients, loss, predict, product
from globopt_jax.deep_linear.residual import (
    ResidualGap,
    population_data,
    residual_gap,
    residual_gradients,
    residual_kernels,
    residual_risk,
)

__all__ = [
    "Ascent",
    "BottleneckConditions",
    "Classification",
    "Escape",
    "Fit",
    "GapBounds",
    "GlobalMinimum",
    "History",
    "ResidualGap",
    "ascend",
    "bottleneck_conditions",
    "classify",
    "critical_point",
    "escape",
    "factors",
    "gap_bounds",
    "global_minimum",
    "gradients",
    "history",
    "known_rank",
    "least_squares",
    "loss",
    "monitor",
    "population_data",
    "predict",
    "product",
    "relaxed_loss",
    "residual_gap",
    "residual_gradients",
    "residual_kernels",
    "residual_risk",
    "suboptimality_bound",
]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
