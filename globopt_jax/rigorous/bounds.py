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

__all__ = ["RESERVE", "lower_bound", "polar_at", "polar_of", "trivial_bound"]

#: Bounds of the polar are claimed, and dual points scaled, with this relative reserve: another machine's linear algebra
#: rounds in another way.
RESERVE = 1e-11


def lower_bound(
    problem: Mapping[str, Any],
    V: np.ndarray,
    multipliers: Multipliers,
    X: np.ndarray,
    Y: np.ndarray,
    caution: int = 1,
) -> tuple[float, float]:
    """(lower bound of the global minimum or -inf, upper bound of the polar at -V): the certificate itself."""
    value, moved = dual_value(problem["loss"], V, Y, caution)
    bound = polar_of(problem, problem["bound"], V, multipliers, X)
    if moved > 0:
        bound = up(bound + polar_of_length(problem, moved, X))
    return (value if bound <= problem["lam"] else -math.inf), bound


def trivial_bound(problem: Mapping[str, Any], X: np.ndarray, Y: np.ndarray, caution: int = 1) -> float:
    """The lower bound that the dual point 0 proves: the minimum of the loss, where the targets allow it."""
    return lower_bound(problem, np.zeros_like(Y), empty_multipliers(), X, Y, caution)[0]


def polar_at(
    problem: Mapping[str, Any], weights: Sequence[np.ndarray], multipliers: Multipliers, X: np.ndarray, Y: np.ndarray
) -> float:
    """An upper bound of the polar at -G, G the loss's gradient at the weights, the rounding of G included."""
    Z, error = predict(weights, X, tuple(problem["slopes"]))
    G, off = gradient(problem["loss"], Z, Y, error)
    kinds = {problem["bound"], "linear" if problem["bound"] == "linear" else "product"}
    found = min(polar_of(problem, kind, G, multipliers, X) for kind in kinds)
    return up(found + polar_of_length(problem, float(lengths(off)) * (1 + 1e-10), X))


def polar_of(problem: Mapping[str, Any], kind: str, U: np.ndarray, multipliers: Multipliers, X: np.ndarray) -> float:
    """`polar_bound` of a problem, in one of the kinds that hold for it."""
    return polar_bound(
        kind, U, X, tuple(problem["slopes"]), problem["layers"], multipliers, problem["norms"], problem["sizes"]
    )


def polar_of_length(problem: Mapping[str, Any], length: float, X: np.ndarray) -> float:
    """What any U with ``||U||_F <= length`` adds to a polar at most."""
    factor = norm_factor(problem["norms"], problem["sizes"])
    return product(length, lipschitz(tuple(problem["slopes"]), problem["layers"]), spectral_norm(X), factor)
