"""Positively homogeneous networks with matched regularizers: train them, and prove how good they are.

The theory is HV17 (Haeffele & Vidal, CVPR 2017) and K18 (Koh 2018, chapter 3). A `Problem` is an elemental map phi, a
regularizer theta of the same degree, a loss and a strength lam; the network is a sum of r subnetworks. `minimize` runs
the meta-algorithm of HV17 Theorem 2 over all widths, `certify` grades any weights with a rigorous lower bound of the
global minimum.
"""

from globopt_jax import rigorous
from globopt_jax.homogeneous.certify import certify
from globopt_jax.homogeneous.cones import non_negative
from globopt_jax.homogeneous.degrees import check_degrees, layer_degrees, measured_degree
from globopt_jax.homogeneous.effort import EFFORTS, Effort
from globopt_jax.homogeneous.grading import Certificate, Refinement, describe, refine
from globopt_jax.homogeneous.lam_max import LamMax, lam_max
from globopt_jax.homogeneous.maps import (
    DeepSubnetwork,
    ElementalMap,
    Neuron,
    deep_subnetwork,
    neuron,
    rank_one,
    relu_neuron,
)
from globopt_jax.homogeneous.minimize import Solution, minimize, path
from globopt_jax.homogeneous.mismatch import ZeroBasin, split, zero_basin
from globopt_jax.homogeneous.omega import Omega, omega
from globopt_jax.homogeneous.own_maps import Elemental, FlaxSubnetwork, elemental, flax_subnetwork
from globopt_jax.homogeneous.path_norms import path_norm
from globopt_jax.homogeneous.polar import PolarBound, bound_of
from globopt_jax.homogeneous.problem import Problem, objective, predict
from globopt_jax.homogeneous.prune import prune
from globopt_jax.homogeneous.regularizers import (
    Regularizer,
    product_of_norms,
    regularizer,
    sum_of_powers,
)
from globopt_jax.homogeneous.tensors import CPTensor, cp_tensor
from globopt_jax.homogeneous.training import EVENTS, Progress, Trace, iterate

__all__ = [
    "EFFORTS",
    "EVENTS",
    "CPTensor",
    "Certificate",
    "DeepSubnetwork",
    "Effort",
    "Elemental",
    "ElementalMap",
    "FlaxSubnetwork",
    "LamMax",
    "Neuron",
    "Omega",
    "PolarBound",
    "Problem",
    "Progress",
    "Refinement",
    "Regularizer",
    "Solution",
    "Trace",
    "ZeroBasin",
    "bound_of",
    "certify",
    "check_degrees",
    "cp_tensor",
    "deep_subnetwork",
    "describe",
    "elemental",
    "flax_subnetwork",
    "iterate",
    "lam_max",
    "layer_degrees",
    "measured_degree",
    "minimize",
    "neuron",
    "non_negative",
    "objective",
    "omega",
    "path",
    "path_norm",
    "predict",
    "product_of_norms",
    "prune",
    "rank_one",
    "refine",
    "regularizer",
    "relu_neuron",
    "rigorous",
    "split",
    "sum_of_powers",
    "zero_basin",
]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
