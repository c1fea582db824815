"""The grading of weights: dual points, the rigorous lower bounds that they prove, and the certificate of the best one.

A dual point is an array like the targets. It proves a lower bound of the global minimum if its polar is at most lam.
`stages` orders the work, `subject` holds the weights and their problem, `evaluate` turns a dual point into a bound,
`dual_ascent` finds better dual points, and `certificate` is the result.
"""

from globopt_jax.homogeneous.grading.certificate import Certificate
from globopt_jax.homogeneous.grading.stages import Refinement, refine
from globopt_jax.homogeneous.grading.subject import describe

__all__ = ["Certificate", "Refinement", "describe", "refine"]
