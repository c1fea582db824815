"""What every method of `tangent_value` returns."""

from typing import NamedTuple

import jax.numpy as jnp

from globopt_jax.shapes import Array, Scalar

__all__ = ["DOUBT", "REFINEMENTS", "Found", "converged", "norm"]

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


def converged(left: Scalar, y: Array, eps: float) -> Array:
    """Whether the last step of the refinement was small, given its norm; not so where the square of y overflows.

    It is not where singular values differ by more than the digits of A x resolve.
    """
    return (left <= eps**0.5 * norm(y)) & jnp.isfinite(norm(y))


def norm(v: Array) -> Scalar:
    """Return the norm of a vector."""
    return jnp.sqrt(jnp.sum(jnp.square(v)))
