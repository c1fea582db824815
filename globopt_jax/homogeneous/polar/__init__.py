"""The polar ``sup <U, phi(w)>`` over ``theta(w) <= 1`` of K18 (A.2): searches, exact values and upper bounds.

The polar at U is the largest inner product with U that the output of one subnetwork of penalty 1 can have. At a global
minimum the polar at minus the loss's gradient is at most lam. Its upper bounds are of five kinds:

========== ======================================= ==========================================
kind       holds for                               upper bound
========== ======================================= ==========================================
linear     linear activations, any depth           exact (spectral norm of ``X^T U`` for l2)
arcs       one hidden layer, dx <= 2               exact (every arc of constant pattern)
relaxation one hidden layer, any dx and dy         semidefinite relaxation, fitted multipliers
product    any depth                               product of spectral norms: true, but large
none       a user's own map or regularizer         +inf
========== ======================================= ==========================================

`bounds` has an object for each kind. The multi-start ascent in `ascent`, which `search` uses, gives lower bounds.
"""

from globopt_jax.homogeneous.polar.bounds import PolarBound, bound_of
from globopt_jax.homogeneous.polar.search import Directions, directions, look

__all__ = ["Directions", "PolarBound", "bound_of", "directions", "look"]
