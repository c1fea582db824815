"""Grading weights: dual points, the rigorous bounds that they prove, and the certificate that keeps the best.

`stages` orders the work, `subject` holds what is graded, `evaluate` turns a dual point into a bound, `dual_ascent`
finds better dual points, and `certificate` is the result.
"""

from globopt_jax.homogeneous.grading.certificate import Certificate
from globopt_jax.homogeneous.grading.stages import Refinement, refine
from globopt_jax.homogeneous.grading.subject import describe

__all__ = ["Certificate", "Refinement", "describe", "refine"]
