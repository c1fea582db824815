"""What every method of `tangent_value` returns."""

from typing import NamedTuple

from globopt_jax.shapes import Array

__all__ = ["DOUBT", "REFINEMENTS", "Found"]

#: The steps of iterative refinement.
REFINEMENTS = 3
#: Singular values within these multiples of the cutoff leave the rank open.
DOUBT = (0.4, 40.0)


class Found(NamedTuple):
    """The residual of the targets, with what the derivative needs."""

    r: Array
    """``r = PN[A] y`` (m, dy)."""
    x: Array
    """x (N,) with ``A x = P[A] y``."""
    rank: Array
    """The numerical rank of A."""
    sure: Array
    """Whether the rank seems settled, and the refinement has converged."""
