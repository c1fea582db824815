"""Pictures: functions that take a matplotlib Axes, draw on it and return it. Each topic has a module.

    homogeneous  a training run and its certificate: objective, gap, subnetworks, polar; Omega's unit ball
    deep_linear  the training of a deep linear network: loss, gap, singular values
    local_minima the tangent space: J during training, the share of each unit
    sweeps       J over depth and width, before and after training
    wide         the loss of a wide network during training, and its bounds
    path_sums    the active units and paths of a ReLU network
    shared       colours, and a figure that needs no display and appears as a picture in a notebook

Proved values are drawn solid, and values that a search suggests are dashed. Only `figure` and `png` import matplotlib,
and only when they are called; the other functions draw on the given Axes.

>>> import numpy as np
>>> from globopt_jax import plotting
>>> page = plotting.figure((4, 3))
>>> plotting.subnetworks(page.subplots(), np.array([2.0, 1.0])).get_ylabel()
'penalty $\\\\theta(W_i)$'
"""

from globopt_jax.plotting.deep_linear import certified_gap, growth, staircase
from globopt_jax.plotting.homogeneous import (
    PolarCurve,
    bound_history,
    gap,
    polar,
    polar_curve,
    progress,
    subnetworks,
    unit_ball,
)
from globopt_jax.plotting.local_minima import tangent_trace, unit_shares
from globopt_jax.plotting.path_sums import active_paths
from globopt_jax.plotting.shared import figure, png
from globopt_jax.plotting.sweeps import landscape
from globopt_jax.plotting.wide import loss_bounds

__all__ = [
    "PolarCurve",
    "active_paths",
    "bound_history",
    "certified_gap",
    "figure",
    "gap",
    "growth",
    "landscape",
    "loss_bounds",
    "png",
    "polar",
    "polar_curve",
    "progress",
    "staircase",
    "subnetworks",
    "tangent_trace",
    "unit_ball",
    "unit_shares",
]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
