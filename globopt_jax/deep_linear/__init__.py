"""Deep linear networks: the global minimum in closed form, the kind of a critical point, the distance of any point's
loss from the minimum, and a way down from a saddle (YSJ18 sections 2 and 3, K18 section 2.1).

A network predicts ``Yhat = X W_1 ... W_{H+1}`` and has the loss ``L = 1/2 ||Yhat - Y||_F^2``. Samples are rows, and
kernels are ``W_l (d_{l-1}, d_l)``. The matrix factorization ``1/2 ||U V^T - Y||_F^2`` is the case of X = I and the
weights [U, V^T].

These letters are used throughout: ``R = W_1 ... W_{H+1}`` is the product of all kernels, ``P_l = W_1 ... W_l`` and
``S_l = W_{l+1} ... W_{H+1}`` are partial products, ``E = X^T (X R - Y)`` is the gradient in R, ``k = min_l d_l`` is the
smallest width, and L* is the global minimum of L. F is the least-squares fit of Y by X (the fitted values), with the
singular values ``s_1 >= s_2 >= ...`` and the right singular vectors u_i, which are called the directions of the fit.

Pure array functions are `loss`, `predict`, `product`, `gradients`, `least_squares`, `global_minimum`, `relaxed_loss`,
`factors`, `gap_bounds`, `suboptimality_bound`, `bottleneck_conditions` and the functions for residual networks. Host
functions are `classify`, `critical_point`, `escape`, `ascend` and `known_rank`. `monitor` is an optax transformation.

    >>> import jax.numpy as jnp
    >>> Y = jnp.diag(jnp.array([3.0, 1.0]))
    >>> U, Vt = jnp.array([[0.0], [1.0]]), jnp.array([[0.0, 1.0]])  # keeps singular value 1; a minimum keeps 3
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
    """The public names alone, which editors offer."""
    return __all__
