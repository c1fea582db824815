"""What every method of `tangent_value` returns."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from globopt_jax.shapes import Array, Scalar

__all__ = ["DOUBT", "REFINEMENTS", "Found", "converged", "norm", "resolved"]

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
    """Whether the rank seems settled, and the value right."""


def converged(left: Scalar, y: Array, eps: float) -> Array:
    """Whether the last step of the refinement was small, given its norm; not so where the square of y overflows."""
    return (left <= eps**0.5 * norm(y)) & jnp.isfinite(norm(y))


def resolved(push: Callable[[Array], Array], x: Array, y: Array, eps: float) -> Array:
    """Whether the digits of ``A x = sum_j x_j a_j`` are right, given y and push(V) = A V.

    If two columns are nearly equal, both have large coefficients, which leave few digits of their sum, and of J: it
    moves by ``-<r, dA x>`` when A moves by its rounding. The size of the terms, ``sum_j x_j^2 ||a_j||^2``, is the mean
    of ``||A (x * xi)||^2`` over signs xi that are drawn. Here a few cosines stand for them: JAX draws with integers
    that its configuration narrows, also inside `in_double`.
    """
    count = jnp.arange(1, len(x) + 1, dtype=x.dtype)
    cosines = jnp.cos(jnp.outer(count, jnp.sqrt(jnp.asarray([2, 3, 5, 7], x.dtype))))
    terms = norm(push(x[:, None] * cosines)) / (cosines.shape[1] / 2) ** 0.5
    return eps**0.5 * terms <= norm(y)


def norm(v: Array) -> Scalar:
    """Return the norm of all entries."""
    return jnp.sqrt(jnp.sum(jnp.square(v)))
