"""Exact integer arithmetic for two questions that rounding hides: whether a step lowers the loss, and the rank of X.

A float is an integer times a power of two, and so are exact sums and products of floats. Python's integers hold them.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from globopt_jax import linalg
from globopt_jax.inputs import finite

__all__ = ["AFFORDABLE", "increments", "known_rank", "work"]

#: The most integer multiplications (a few tenths of a microsecond each) that exact arithmetic may take.
AFFORDABLE = 1e7
#: The largest denominator of the coefficients that `known_rank` looks for in relations between columns.
DENOMINATOR = 1000


class _Dyadic(NamedTuple):
    """The array ``numbers * 2^-scale``."""

    numbers: np.ndarray
    """Python integers in an array of objects."""
    scale: int
    """The exponent, the same for all entries."""

    def times(self, other: "_Dyadic") -> "_Dyadic":
        return _Dyadic(self.numbers @ other.numbers, self.scale + other.scale)

    def at(self, scale: int) -> np.ndarray:
        return self.numbers * (1 << (scale - self.scale))


def _dyadic(array: Any) -> _Dyadic:
    mantissa, exponent = np.frexp(np.asarray(array, np.float64))
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    exponent = np.where(whole != 0, exponent, 53) - 53
    scale = max(-int(np.min(exponent)), 0)
    numbers = np.empty(whole.shape, object)
    for place, number in np.ndenumerate(whole):
        numbers[place] = int(number) << (scale + int(exponent[place]))
    return _Dyadic(numbers, scale)


def known_rank(X: Any) -> int:
    """Return a proved upper bound of the exact rank of X.

    A factorization in floats cannot prove that columns are linearly dependent, and an arbitrarily small independent
    direction of X can change the optimum. So the factorization only suggests relations between columns, such as ``x_4 =
    x_1 + x_2 + x_3`` for an intercept beside one-hot columns. Their coefficients are rounded to fractions, and the
    relations are checked in integers. The bound is the number of nonzero columns minus the number of relations that
    hold. If X has fewer rows than columns, rows take the place of columns.

    Relations whose coefficients have large denominators are not found. The result is then larger than the rank, and
    bounds that use it hold but are wider than necessary.

    A host function: it cannot be traced. `least_squares` takes the result as its ``rank``.

    Args:
        X: inputs (m, dx).

    Returns:
        The bound, an integer from 0 to min(m, dx).

    Raises:
        ValueError: X is no matrix, is empty, or has NaN or inf.
        TypeError: X does not hold real numbers.

    Example:
        >>> known_rank(np.array([[1.0, 0.1, 1.1], [1.0, 0.5, 1.5], [1.0, 0.7, 3.0]]))
        3
        >>> known_rank(np.array([[1.0, 0.25, 1.25], [1.0, 0.5, 1.5], [1.0, 0.75, 1.75]]))
        2
    """
    from scipy.linalg import qr, solve_triangular  # imported here since scipy.linalg loads slowly

    host = finite("X", X)
    if host.ndim != 2 or not host.size:
        raise ValueError(f"X: Expected: shape (m, dx). Received: {host.shape}.")
    tall = np.asarray(host if len(host) >= host.shape[1] else host.T, np.float64)
    tall = tall[:, np.any(tall != 0, axis=0)]
    count = tall.shape[1]
    if not count:
        return 0
    scale = np.frexp(np.max(np.abs(tall), axis=0))[1]
    scaled = np.ldexp(tall, -scale)  # columns of one size have coefficients of one size
    pivoted: Any = qr(np.linalg.qr(scaled, mode="r"), mode="r", pivoting=True)
    R, order = pivoted
    size = np.abs(np.diag(R))
    rank = int(np.sum(size > linalg.machine_epsilon(np.float64) * sum(tall.shape) * size[0]))
    coefficients = solve_triangular(R[:rank, :rank], R[:rank, rank:])
    proved = 0
    for column, parts in zip(order[rank:], coefficients.T, strict=True):
        chosen = np.flatnonzero(np.abs(parts) > 1 / DENOMINATOR**2)
        shares = [Fraction(float(part)).limit_denominator(DENOMINATOR) for part in parts[chosen]]
        common = math.lcm(*(share.denominator for share in shares))
        if len(tall) * (len(chosen) + 1) > AFFORDABLE / count or common > 2**62:
            continue
        # The unscaled columns are checked, since scaling may have rounded tiny entries.
        columns = [*order[chosen], column]
        numbers = [*(int(share * common) for share in shares), -common]
        highest = max(int(scale[j]) for j in columns)
        relation = [c << (highest - int(scale[j])) for c, j in zip(numbers, columns, strict=True)]
        proved += not np.any(_dyadic(tall[:, columns]).numbers @ np.array(relation, object))
    return count - proved


def work(weights: Sequence[Any], X: Any) -> int:
    """Return the number of multiplications of one prediction."""
    return len(X) * sum(int(np.size(w)) for w in weights)


def increments(weights: Sequence[Any], X: Any, Y: Any) -> Callable[[Sequence[Any]], float]:
    """Return a function ``new -> loss(new) - loss(weights)``, exact for the stored floats up to one final rounding.

    It evaluates ``1/2 sum (Z' - Z) (Z' + Z - 2 Y)``, with the old and new predictions Z and Z' in integers.

    Example:
        >>> tiny = 2.0**-40
        >>> increments([np.ones((1, 1))], np.ones((1, 1)), np.ones((1, 1)))([np.full((1, 1), 1 + tiny)]) == tiny**2 / 2
        True
    """
    inputs, targets = _dyadic(X), _dyadic(Y)

    def predict(kernels: Sequence[Any]) -> _Dyadic:
        Z = inputs
        for w in kernels:
            Z = Z.times(_dyadic(w))
        return Z

    old = predict(weights)

    def increment(new: Sequence[Any]) -> float:
        Z = predict(new)
        scale = max(Z.scale, old.scale, targets.scale)
        a, b, y = Z.at(scale), old.at(scale), targets.at(scale)
        return float(Fraction(int(np.sum((a - b) * (a + b - 2 * y))), 2 << (2 * scale)))

    return increment
