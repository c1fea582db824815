"""Deep linear networks: what is the global minimum, is this critical point one, how far is any point from it, which way
is down? (YSJ18 sections 2 and 3, K18 section 2.1)

``Yhat = X W_1 ... W_{H+1}`` with the loss ``1/2 ||Yhat - Y||_F^2``; samples are rows, kernels ``W_l (d_{l-1}, d_l)``.
"""

from globopt_jax.deep_linear.bounds import GapBounds, gap_bounds, suboptimality_bound
from globopt_jax.deep_linear.classify import Classification, classify
from globopt_jax.deep_linear.critical import critical_point
from globopt_jax.deep_linear.minimum import (
    Fit,
    GlobalMinimum,
    factors,
    global_minimum,
    least_squares,
    relaxed_loss,
)
from globopt_jax.deep_linear.network import gradients, loss, predict, product

__all__ = [
    "Classification",
    "Fit",
    "GapBounds",
    "GlobalMinimum",
    "classify",
    "critical_point",
    "factors",
    "gap_bounds",
    "global_minimum",
    "gradients",
    "least_squares",
    "loss",
    "predict",
    "product",
    "relaxed_loss",
    "suboptimality_bound",
]
