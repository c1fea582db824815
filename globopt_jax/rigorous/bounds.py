"""The certificate itself: a dual point whose polar is at most lam gives a lower bound of the global minimum."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from globopt_jax.rigorous.polar import polar_bound
from globopt_jax.rigorous.relaxation import Multipliers, empty_multipliers
from globopt_jax.rigorous.scaling import lengths, product, up
from globopt_jax.rigorous.sizes import lipschitz, norm_factor, spectral_norm
from globopt_jax.rigorous.values import dual_value, gradient, predict

__all__ = ["PRECISION", "RESERVE", "UNDERFLOW", "lower_bound", "polar_at", "polar_of", "trivial_bound"]

#: The relative reserve with which bounds of the polar are claimed and dual points are scaled, so that the check also
#: passes on another machine, whose linear algebra rounds in another way.
RESERVE = 1e-11
#: The relative precision of an objective in float64: a gap below it counts as none, and an objective whose rounding
#: error is larger (subnetworks cancel) is claimed as an upper bound. Errors below `UNDERFLOW` are those of numbers that
#: underflow, at an objective of 0.
PRECISION, UNDERFLOW = 10 * RESERVE, 1e-290


def lower_bound(
    problem: Mapping[str, Any],
    V: np.ndarray,
    multipliers: Multipliers,
    X: np.ndarray,
    Y: np.ndarray,
    caution: int = 1,
) -> tuple[float, float]:
    """Return the lower bound of the global minimum that V proves (or -inf), and the upper bound of the polar at -V.

    Args:
        problem: plain values: bound, loss, lam, layers, slopes, theta, norms, sizes.
        V: the dual point (m, dy).
        multipliers: the multipliers of the polar's bound at -V.
        X: inputs (m, dx).
        Y: targets (m, dy).
        caution: the factor of the rounding margins, see `dual_value`.

    Returns:
        The lower bound, -inf where the polar is not proved to be at most lam, and the polar's upper bound.

    Raises:
        ValueError: a name in `problem` is unknown.
    """
    value, moved = dual_value(problem["loss"], V, Y, caution)
    bound = polar_of(problem, problem["bound"], V, multipliers, X)
    if moved > 0:
        bound = up(bound + polar_of_length(problem, moved, X))
    return (value if bound <= problem["lam"] else -math.inf), bound


def trivial_bound(problem: Mapping[str, Any], X: np.ndarray, Y: np.ndarray, caution: int = 1) -> float:
    """Return the lower bound that the dual point 0 proves: the minimum of the loss.

    Args:
        problem: plain values: bound, loss, lam, layers, slopes, theta, norms, sizes.
        X: inputs (m, dx).
        Y: targets (m, dy).
        caution: the factor of the rounding margins, see `dual_value`.

    Returns:
        The lower bound; -inf where it is not proved, as for softmax cross-entropy with targets whose rows are too far
        from a sum of 1.

    Raises:
        ValueError: a name in `problem` is unknown.
    """
    return lower_bound(problem, np.zeros_like(Y), empty_multipliers(), X, Y, caution)[0]


def polar_at(
    problem: Mapping[str, Any], weights: Sequence[np.ndarray], multipliers: Multipliers, X: np.ndarray, Y: np.ndarray
) -> float:
    """Return an upper bound of the polar at -G, with the loss's gradient G at the weights; it covers G's rounding.

    Args:
        problem: plain values: bound, loss, lam, layers, slopes, theta, norms, sizes.
        weights: W1..WK, stacked subnetworks.
        multipliers: the multipliers of the polar's bound at -G.
        X: inputs (m, dx).
        Y: targets (m, dy).

    Returns:
        The upper bound; +inf where none is known.

    Raises:
        ValueError: a name in `problem` is unknown.
    """
    Z, error = predict(weights, X, tuple(problem["slopes"]))
    G, off = gradient(problem["loss"], Z, Y, error)
    kinds = {problem["bound"], "linear" if problem["bound"] == "linear" else "product"}
    found = min(polar_of(problem, kind, G, multipliers, X) for kind in kinds)
    return up(found + polar_of_length(problem, float(lengths(off)) * (1 + 1e-10), X))


def polar_of(problem: Mapping[str, Any], kind: str, U: np.ndarray, multipliers: Multipliers, X: np.ndarray) -> float:
    """Return `polar_bound` for a problem given by plain values.

    Args:
        problem: plain values, of which slopes, layers, norms and sizes are used.
        kind: the kind of bound, one of `BOUNDS`.
        U: the point (m, dy) of the polar.
        multipliers: the multipliers of the relaxation; other kinds need none.
        X: inputs (m, dx).

    Returns:
        The upper bound; +inf where the kind does not apply to the problem.

    Raises:
        ValueError: the kind is unknown.
    """
    return polar_bound(
        kind, U, X, tuple(problem["slopes"]), problem["layers"], multipliers, problem["norms"], problem["sizes"]
    )


def polar_of_length(problem: Mapping[str, Any], length: float, X: np.ndarray) -> float:
    """Return an upper bound of the polar at every U with ``||U||_F <= length``."""
    factor = norm_factor(problem["norms"], problem["sizes"])
    return product(length, lipschitz(tuple(problem["slopes"]), problem["layers"]), spectral_norm(X), factor)
