"""Positively homogeneous networks with matched regularizers: train them, and prove how good they are.

The theory is HV17 (Haeffele & Vidal, CVPR 2017) and K18 (Koh 2018, chapter 3). A `Problem` is an elemental map phi, a
regularizer theta of the same degree, a loss and a strength lam; the network is a sum of r subnetworks. `minimize` runs
the meta-algorithm of HV17 Theorem 2 over all widths, `certify` grades any weights with a rigorous lower bound of the
global minimum.
"""

from globopt_jax import rigorous
from globopt_jax.homogeneous.certificate import Certificate, describe
from globopt_jax.homogeneous.dual import EFFORTS, Effort
from globopt_jax.homogeneous.grading import Refinement, certify, refine
from globopt_jax.homogeneous.lam_max import LamMax, lam_max
from globopt_jax.homogeneous.maps import (
    DeepSubnetwork,
    Elemental,
    Neuron,
    deep_subnetwork,
    elemental,
    neuron,
    rank_one,
    relu_neuron,
)
from globopt_jax.homogeneous.meta import EVENTS, Progress, Trace, iterate
from globopt_jax.homogeneous.minimize import Solution, minimize, path
from globopt_jax.homogeneous.polar import bound_kind
from globopt_jax.homogeneous.problem import Problem, check_degrees, measured_degree, objective, predict
from globopt_jax.homogeneous.regularizers import product_of_norms, regularizer, sum_of_powers

__all__ = [
    "EFFORTS",
    "EVENTS",
    "Certificate",
    "DeepSubnetwork",
    "Effort",
    "Elemental",
    "LamMax",
    "Neuron",
    "Problem",
    "Progress",
    "Refinement",
    "Solution",
    "Trace",
    "bound_kind",
    "certify",
    "check_degrees",
    "deep_subnetwork",
    "describe",
    "elemental",
    "iterate",
    "lam_max",
    "measured_degree",
    "minimize",
    "neuron",
    "objective",
    "path",
    "predict",
    "product_of_norms",
    "rank_one",
    "refine",
    "regularizer",
    "relu_neuron",
    "rigorous",
    "sum_of_powers",
]
