"""The polar ``sup <U, phi(w)>`` over ``theta(w) <= 1`` of K18 (A.2): search, exact values, upper bounds.

========== ======================================= ==========================================
kind       holds for                               upper bound
========== ======================================= ==========================================
linear     linear activations, any depth           exact (spectral norm of ``X^T U`` for l2)
arcs       one hidden layer, dx <= 2               exact (every arc of constant pattern)
relaxation one hidden layer, any dx and dy         semidefinite relaxation, fitted multipliers
product    any depth                               product of spectral norms: sound and crude
none       a user's own map or regularizer         +inf
========== ======================================= ==========================================

The searches of `ascent` are lower bounds.
"""

from globopt_jax.homogeneous.maps import DeepSubnetwork, Neuron
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.homogeneous.regularizers import ProductOfNorms, SumOfPowers

__all__ = ["bound_kind"]


def bound_kind(problem: Problem, dx: int) -> str:
    """Which upper bound of the polar applies to the problem; see the table above."""
    phi, theta = problem.phi, problem.theta
    if not (isinstance(phi, Neuron | DeepSubnetwork) and isinstance(theta, ProductOfNorms | SumOfPowers)):
        return "none"
    negative, positive = phi.slopes
    if phi.layers == 1 or negative == positive:
        return "linear"
    if phi.layers > 2:
        return "product"
    return "arcs" if dx <= 2 else "relaxation"
