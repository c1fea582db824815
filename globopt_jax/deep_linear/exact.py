"""Increments of the loss in exact integer arithmetic, for steps whose effect lies below the rounding of floats.

A float is an integer times a power of two, and so is every sum and product of floats. Python's integers do the rest.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

__all__ = ["AFFORDABLE", "increments", "work"]

#: Multiplications of integers (some tenths of a microsecond each) up to which `increments` is worth its time.
AFFORDABLE = 1e7


class _Dyadic(NamedTuple):
    """``numbers * 2^-scale``, entry by entry: Python integers in an array of objects."""

    numbers: np.ndarray
    scale: int

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


def work(weights: Sequence[Any], X: Any) -> int:
    """The multiplications that one prediction takes."""
    return len(X) * sum(int(np.size(w)) for w in weights)


def increments(weights: Sequence[Any], X: Any, Y: Any) -> Callable[[Sequence[Any]], float]:
    """Return a function ``new -> loss(new) - loss(weights)``, exact for the floats as they are but for one rounding.

    ``1/2 sum (Z' - Z) (Z' + Z - 2 Y)`` with the predictions Z and Z' as integers.

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
