"""Cutoffs, tolerances and rounding errors: the only place in the package that defines them."""

from typing import Any

import jax.numpy as jnp

from globopt_jax.inputs import one_of
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

#: The names of the criteria of `cutoff`; the first is the default everywhere.
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
    _ = one_of("cutoff", criterion, CRITERIA)


def cutoff(M: Array, singular_values: Array, criterion: str = "press") -> Scalar:
    """Return the value at or below which singular values of M (p, q) count as zero (KHK19 appendix C).

    ========= =====================================================
    criterion value
    ========= =====================================================
    press     ``1/2 sigma_max eps sqrt(p + q + 1)``
    golub     ``1/2 eps max_i sum_j |M_ij|``
    lapack    ``sigma_max eps``
    ========= =====================================================

    Use `golub` and `lapack` for comparisons only: for tall matrices they lie below the rounding errors of the singular
    value decomposition. For a (3000, 624) Jacobian of rank 305 in float64, `golub` counted 621.

    Args:
        M: (p, q).
        singular_values: (n,), the singular values of M, largest first; may be empty.
        criterion: one of `CRITERIA`.

    Raises:
        ValueError: the criterion is unknown.

    Example:
        >>> float(cutoff(jnp.eye(3), jnp.ones(3)) / machine_epsilon(jnp.eye(3).dtype))  # sqrt(7) / 2
        1.322...
    """
    check_criterion(criterion)
    row_sum = jnp.max(jnp.sum(jnp.abs(M), axis=1), initial=0.0) if criterion == "golub" else 0.0
    return cutoff_of(M.shape, machine_epsilon(M.dtype), jnp.max(singular_values, initial=0.0), row_sum, criterion)


def cutoff_of(shape: tuple[Any, ...], eps: float, largest: Any, row_sum: Any, criterion: str = "press") -> Any:
    """Return `cutoff` of a matrix from its shape, eps, largest singular value and largest absolute row sum."""
    if criterion == "golub":
        return 0.5 * eps * row_sum
    if criterion == "lapack":
        return eps * largest
    return 0.5 * eps * (sum(shape) + 1.0) ** 0.5 * largest


def decision_tolerance(dtype: Any) -> float:
    """Return sqrt(eps), the largest dimensionless residual that decisions treat as zero.

    In float64 this is 1.5e-8. Residuals of exact critical points stayed below 3e-12, residuals of random points above
    7e-3.
    """
    return machine_epsilon(dtype) ** 0.5


def product_error(error: Scalar, left: Scalar, right: Scalar, inner: int, dtype: Any) -> Scalar:
    """Bound the Frobenius error of a computed product ``A B`` whose left factor has an error already.

    The bound is ``error ||B||_F + n u / (1 - n u) ||A||_F ||B||_F`` with n = inner and u = eps / 2. It holds for every
    order of summation.

    Args:
        error: a bound of the error of A in the Frobenius norm.
        left: the Frobenius norm of A.
        right: the Frobenius norm of B.
        inner: the number of columns of A.
        dtype: the dtype of the computation.
    """
    return (error + product_rounding(inner, dtype) * left) * right


def product_rounding(inner: int, dtype: Any) -> float:
    """Return ``n u / (1 - n u)`` (at most 1 + n u), the relative error of a sum of n products in any order.

    Here n = inner and u = eps / 2, and the error is relative to the sum of the products' absolute values.
    """
    small = 0.5 * inner * machine_epsilon(dtype)
    return small / (1 - small) if small < 0.5 else 1 + small


def factorization_error(rows: int, dtype: Any) -> float:
    """Return ``8 sqrt(rows) eps``, the assumed error of a QR factorization relative to the norm of the matrix.

    It has the form of the probabilistic bound of Higham & Mary (2019) and is not proved in every case: the worst case
    ``rows columns eps`` would be useless in float32. The largest error that was seen is nine times smaller (100 to 10^6
    rows, float32 and float64). It occurs for constant columns, where rounding errors do not cancel.
    """
    return 8 * max(rows, 1) ** 0.5 * machine_epsilon(dtype)


def rounding_margin(scale: Scalar, dtype: Any) -> Scalar:
    """Return ``8 eps scale``, the rounding error of a difference of two sums of squares, where scale is their sum."""
    return 8 * machine_epsilon(dtype) * scale
