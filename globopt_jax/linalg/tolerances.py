"""What counts as zero: the only home of cutoffs and tolerances."""

from typing import Any

import jax.numpy as jnp

from globopt_jax.shapes import Array, Scalar

__all__ = [
    "CRITERIA",
    "check_criterion",
    "cutoff",
    "cutoff_of",
    "decision_tolerance",
    "factorization_error",
    "largest_finite",
    "machine_epsilon",
    "product_error",
    "product_rounding",
    "rounding_margin",
    "smallest_normal",
]

#: The names that `cutoff` knows; the first is the default everywhere.
CRITERIA = ("press", "golub", "lapack")


def machine_epsilon(dtype: Any) -> float:
    """Return eps, the spacing of the numbers of a floating-point dtype at 1: twice the unit roundoff."""
    return float(jnp.finfo(dtype).eps)


def smallest_normal(dtype: Any) -> float:
    """Return the smallest positive number of a floating-point dtype that has all its digits."""
    return float(jnp.finfo(dtype).tiny)


def largest_finite(dtype: Any) -> float:
    """Return the largest number of a floating-point dtype; beyond it numbers overflow."""
    return float(jnp.finfo(dtype).max)


def check_criterion(criterion: str) -> None:
    """Raise ValueError unless the criterion is one of `CRITERIA`."""
    if criterion not in CRITERIA:
        raise ValueError(f"cutoff: Expected: one of {', '.join(CRITERIA)}. Received: {criterion!r}.")


def cutoff(M: Array, singular_values: Array, criterion: str = "press") -> Scalar:
    """Return the value at or below which singular values of M (p, q) count as zero (KHK19 appendix C).

    ========= =====================================================
    criterion value
    ========= =====================================================
    press     ``1/2 sigma_max eps sqrt(p + q + 1)``
    golub     ``1/2 eps max_i sum_j |M_ij|``
    lapack    ``sigma_max eps``
    ========= =====================================================

    The last two lie below the noise of the SVD itself where M is tall: for a (3000, 624) Jacobian in float64 `golub`
    counted 621 where the rank is 305. They are there to compare with.

    Args:
        M: (p, q). singular_values: (n,), its own, largest first; may be empty.
        criterion: one of `CRITERIA`.

    Raises:
        ValueError: an unknown criterion.

    Example:
        >>> float(cutoff(jnp.eye(3), jnp.ones(3)) / machine_epsilon(jnp.eye(3).dtype))  # sqrt(7) / 2
        1.322...
    """
    check_criterion(criterion)
    row_sum = jnp.max(jnp.sum(jnp.abs(M), axis=1), initial=0.0) if criterion == "golub" else 0.0
    return cutoff_of(M.shape, machine_epsilon(M.dtype), jnp.max(singular_values, initial=0.0), row_sum, criterion)


def cutoff_of(shape: tuple[int, ...], eps: float, largest: Any, row_sum: Any, criterion: str = "press") -> Any:
    """`cutoff` of a matrix that is not there: from its shape, largest singular value and largest absolute row sum."""
    if criterion == "golub":
        return 0.5 * eps * row_sum
    if criterion == "lapack":
        return eps * largest
    return 0.5 * eps * float(sum(shape) + 1) ** 0.5 * largest


def decision_tolerance(dtype: Any) -> float:
    """sqrt(eps): how small a dimensionless residual has to be before a decision calls it zero.

    Residuals of exact critical points stayed below 3e-12 in float64 and those of random points above 7e-3.
    """
    return machine_epsilon(dtype) ** 0.5


def product_error(error: Scalar, left: Scalar, right: Scalar, inner: int, dtype: Any) -> Scalar:
    """Bound the Frobenius error of a computed product ``A B`` whose left factor is off by `error`.

    ``||fl(A B) - A B||_F <= error ||B||_F + n u / (1 - n u) ||A||_F ||B||_F``, n = inner and u = eps / 2, which holds
    for every order of summation.

    Args:
        error: of A in the Frobenius norm. left, right: the Frobenius norms of A and B. inner: columns of A.
    """
    return (error + product_rounding(inner, dtype) * left) * right


def product_rounding(inner: int, dtype: Any) -> float:
    """``n u / (1 - n u)``, u = eps / 2: what n roundings may do to a sum of products, in any order; at most 1 + n u."""
    small = 0.5 * inner * machine_epsilon(dtype)
    return small / (1 - small) if small < 0.5 else 1 + small


def factorization_error(rows: int, dtype: Any) -> float:
    """``8 sqrt(rows) eps``: what a QR factorization may do to a matrix with that many rows, relative to its norm.

    Nine times the worst that was seen, which are constant columns, where rounding errors do not cancel (100 to 10^6
    rows, float32 and float64). It is the probabilistic bound (Higham & Mary 2019), not the worst case of ``rows columns
    eps``, which would say nothing in float32.
    """
    return 8 * max(rows, 1) ** 0.5 * machine_epsilon(dtype)


def rounding_margin(scale: Scalar, dtype: Any) -> Scalar:
    """``8 eps scale``: what rounding may do to a difference of two sums of squares, `scale` their sum."""
    return 8 * machine_epsilon(dtype) * scale
