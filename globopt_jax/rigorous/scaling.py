"""Scaling of arrays by powers of two, which is exact, and bounds that are rounded upwards.

Scaled arrays have a size near 1. Where the map is homogeneous they are scaled row by row. Then no square overflows, and
entries that underflow are far below the margins for rounding.
"""

import math
from typing import Any

import numpy as np

__all__ = ["LEAST", "U_ROUND", "lengths", "power_of_two_scaled", "product", "rows_scaled", "slopes_scaled", "up"]

#: The unit roundoff u of float64.
U_ROUND = 2.0**-53
#: The smallest positive number: the error of a product that underflows is at most this.
LEAST = 2.0**-1074


def product(*factors: float, exponent: int = 0) -> float:
    """Return an upper bound of the product of numbers >= 0 and ``2^exponent``, without overflow on the way."""
    if any(math.isnan(factor) for factor in factors):
        return math.inf
    if 0.0 in factors:
        return 0.0
    mantissa = 1.0
    for factor in factors:
        part, power = math.frexp(factor)
        mantissa, carried = math.frexp(mantissa * part)
        exponent += power + carried
    try:
        value = math.ldexp(mantissa * (1 + 2 * (len(factors) + 1) * U_ROUND), exponent)
    except OverflowError:
        return math.inf
    return value if value > 2.0**-1000 else math.nextafter(value, math.inf)  # subnormal numbers round down, too


def up(value: float) -> float:
    """Return the next larger number, which rounds a sum or a root upwards; 0 stays 0."""
    return math.nextafter(value, math.inf) if value else value


def power_of_two_scaled(A: np.ndarray) -> tuple[np.ndarray, int]:
    """Return A divided by the power of two that brings its largest entry into [1, 2), and the exponent."""
    A = np.asarray(A, dtype=np.float64)
    top = float(np.abs(A).max(initial=0.0))
    if top == 0.0 or not math.isfinite(top):
        return A, 0
    exponent = math.frexp(top)[1] - 1
    return np.ldexp(A, -exponent), exponent


def rows_scaled(U: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return (U', X', q, e) with ``sum_j U_j act(x_j w) = 2^e sum_j U'_j act(x'_j w)`` and ``x_j = 2^(q_j) x'_j``.

    act is homogeneous, so that the size of a row of X can move to U. Each row of X', and U' as a whole, has a size near
    1 or is zero. Rows of U' without effect are zero. Rows of U' below 2^-1000 underflow, far below every margin.
    """
    tops = np.abs(X).max(axis=1, initial=0.0)
    q = np.frexp(tops)[1] - 1
    size = np.abs(U).max(axis=1, initial=0.0)
    p = np.frexp(size)[1] - 1
    alive = (tops > 0) & (size > 0)
    units = (p + q)[alive] if alive.any() else q[tops > 0]  # any value suffices where no row has an effect
    exponent = int(units.max()) if len(units) else 0
    rows = np.where(alive[:, None], np.ldexp(U, -p[:, None]), 0.0)
    q = np.where(tops > 0, q, 0)
    return np.ldexp(rows, (p + q - exponent)[:, None]), np.ldexp(X, -q[:, None]), q, exponent


def slopes_scaled(slopes: tuple[float, float]) -> tuple[float, float, int]:
    """Return the slopes divided by the power of two that brings the larger one into [1, 2), and the exponent."""
    (negative, positive), exponent = power_of_two_scaled(np.asarray(slopes))
    return float(negative), float(positive), exponent


def lengths(A: np.ndarray, axis: int | None = None) -> Any:
    """Return l2 norms without overflow; entries below 2^-500 times the largest one may underflow."""
    A, exponent = power_of_two_scaled(A)
    return np.ldexp(np.sqrt((A * A).sum(axis=axis)), exponent)
