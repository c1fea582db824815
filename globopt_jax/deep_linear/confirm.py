"""Increments of the loss in float64 with bounds of their rounding errors, from the data and weights as stored."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["distance", "increments"]

#: The unit roundoff of float64, and the largest error of a product that underflows.
UNIT, TINY = 2.0**-53, 2.0**-1022
#: A factor that makes up for the rounding of the error bounds themselves, which are sums of positive numbers.
WIDER = 1 + 1e-6


def increments(weights: Sequence[Any], X: Any, Y: Any) -> Callable[[Sequence[Any]], tuple[float, float]]:
    """Return a function ``new -> (increment, error)`` with ``|loss(new) - loss(weights) - increment| <= error``.

    The increment is ``<Z - Y, dZ> + 1/2 ||dZ||^2``, where Z are the old and Z + dZ the new predictions. The change is
    computed layer by layer, ``dZ_l = dZ_{l-1} W'_l + Z_{l-1} (W'_l - W_l)``, with an error bound for every entry: the
    rounding error of ``fl(A B)`` is at most ``n u |A| |B|`` for n terms in any order (u is the unit roundoff), and an
    error E of A adds ``E |B|``. The error is inf or nan where numbers overflow.

    Example:
        >>> height, error = increments([np.ones((1, 1))], np.ones((1, 1)), np.ones((1, 1)))([np.full((1, 1), 3.0)])
        >>> height, error < 1e-13
        (2.0, True)
    """
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    old = [np.asarray(w, np.float64) for w in weights]
    with np.errstate(all="ignore"):
        Z, E = [X], [np.zeros(X.shape)]
        for w in old:
            E.append(_error(Z[-1], E[-1], w))
            Z.append(Z[-1] @ w)
        residual = Z[-1] - Y
        residual_error = E[-1] + UNIT * np.abs(residual)

    def increment(new: Sequence[Any]) -> tuple[float, float]:
        with np.errstate(all="ignore"):
            dZ, error = np.zeros(X.shape), np.zeros(X.shape)
            for l, (a, v) in enumerate(zip(old, new, strict=True)):
                b = np.asarray(v, np.float64)
                move = b - a
                moved = Z[l] @ move
                error = _error(dZ, error, b) + _error(Z[l], E[l] + UNIT * np.abs(Z[l]), move)
                dZ = dZ @ b + moved
                error = error + UNIT * np.abs(dZ)
            terms = residual * dZ + 0.5 * dZ * dZ
            off = np.abs(residual) * error + residual_error * (np.abs(dZ) + error) + (np.abs(dZ) + 0.5 * error) * error
            size = np.abs(residual * dZ) + 0.5 * dZ * dZ
            off = np.sum(off + 4 * UNIT * size + 8 * TINY)
            # NumPy sums pairwise, so that every term passes through fewer than 64 roundings.
            return float(np.sum(terms.ravel())), float(WIDER * (off + 64 * UNIT * np.sum(size)))

    return increment


def _error(A: np.ndarray, E: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Bound the error of every entry of ``fl(A B)``, where E bounds the error of A."""
    size, n = np.abs(B), len(B)
    return WIDER * ((E + (n * UNIT) * np.abs(A)) @ size) + n * TINY


def distance(old: Sequence[Any], new: Sequence[Any]) -> float:
    """Return the Frobenius norm of the change of all weights, rounded up: at least the exact norm."""
    moves = [
        np.abs(np.asarray(b, np.float64) - np.asarray(a, np.float64)).ravel() for a, b in zip(old, new, strict=True)
    ]
    entries = np.concatenate(moves)
    largest = float(np.max(entries))
    if not 0 < largest < np.inf:
        return largest
    return largest * math.sqrt(math.fsum(np.square(entries / largest))) * (1 + 8 * UNIT)
