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

`bounds` has the kinds. The multi-start ascent of `ascent` and the `search` that uses it give lower bounds.
"""

from globopt_jax.homogeneous.polar.bounds import PolarBound, bound_of
from globopt_jax.homogeneous.polar.search import Directions, directions, look

__all__ = ["Directions", "PolarBound", "bound_of", "directions", "look"]
