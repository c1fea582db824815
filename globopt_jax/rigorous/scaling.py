"""Numbers of any size: powers of two, which are exact, bring arrays near 1; bounds are rounded upwards.

Arrays are scaled row by row where the map is homogeneous, so that no square overflows, and what underflows is far below
the margins for rounding.
"""

import math
from typing import Any

import numpy as np

__all__ = ["LEAST", "U_ROUND", "lengths", "power_of_two_scaled", "product", "rows_scaled", "slopes_scaled", "up"]

#: The unit roundoff u of float64.
U_ROUND = 2.0**-53
#: The smallest positive number: what a product that underflows can be off by.
LEAST = 2.0**-1074


def product(*factors: float, exponent: int = 0) -> float:
    """An upper bound of the product of numbers >= 0 and ``2^exponent``; nothing over- or underflows on the way."""
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
    """The next larger number: a sum or a root rounded upwards; 0 is what it is."""
    return math.nextafter(value, math.inf) if value else value


def power_of_two_scaled(A: np.ndarray) -> tuple[np.ndarray, int]:
    """A divided by the power of two that brings its largest entry between 1 and 2, and the exponent."""
    A = np.asarray(A, dtype=np.float64)
    top = float(np.abs(A).max(initial=0.0))
    if top == 0.0 or not math.isfinite(top):
        return A, 0
    exponent = math.frexp(top)[1] - 1
    return np.ldexp(A, -exponent), exponent


def rows_scaled(U: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(U', X', q, e) with ``sum_j U_j act(x_j w) = 2^e sum_j U'_j act(x'_j w)``, ``x_j = 2^(q_j) x'_j``.

    act is homogeneous, so the size of a row of X may go to U: rows of X' are of size 1 or zero, and so is U' as a
    whole. Rows without effect are zero in both. Rows of U' below 2^-1000 underflow: far below every margin.
    """
    tops = np.abs(X).max(axis=1, initial=0.0)
    q = np.frexp(tops)[1] - 1
    size = np.abs(U).max(axis=1, initial=0.0)
    p = np.frexp(size)[1] - 1
    alive = (tops > 0) & (size > 0)
    units = (p + q)[alive] if alive.any() else q[tops > 0]  # where nothing has an effect, any will do
    exponent = int(units.max()) if len(units) else 0
    rows = np.where(alive[:, None], np.ldexp(U, -p[:, None]), 0.0)
    q = np.where(tops > 0, q, 0)
    return np.ldexp(rows, (p + q - exponent)[:, None]), np.ldexp(X, -q[:, None]), q, exponent


def slopes_scaled(slopes: tuple[float, float]) -> tuple[float, float, int]:
    """The slopes divided by the power of two that brings the larger one between 1 and 2, and the exponent."""
    (negative, positive), exponent = power_of_two_scaled(np.asarray(slopes))
    return float(negative), float(positive), exponent


def lengths(A: np.ndarray, axis: int | None = None) -> Any:
    """l2 norms without overflow; what underflows is below 2^-500 times the largest entry."""
    A, exponent = power_of_two_scaled(A)
    return np.ldexp(np.sqrt((A * A).sum(axis=axis)), exponent)
