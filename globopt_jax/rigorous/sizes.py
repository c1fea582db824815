"""How large norms, slopes and matrices can be at most, as true of the stored arrays as the bounds that use them."""

import math
from collections.abc import Sequence

import numpy as np

from globopt_jax.rigorous.scaling import U_ROUND, power_of_two_scaled, product, up

__all__ = ["NORMS", "lipschitz", "norm_factor", "spectral_norm", "steepest"]

NORMS = {"l1": 1, "l2": 2, "linf": np.inf}


def norm_factor(norms: Sequence[str], sizes: Sequence[int] | None) -> float:
    """What the layers' l2 norms may exceed their own norms by, all together."""
    if any(n == "linf" for n in norms) and sizes is None:
        return math.inf
    return product(*(up(math.sqrt(sizes[i])) for i, n in enumerate(norms) if n == "linf" and sizes is not None))


def lipschitz(slopes: tuple[float, float], layers: int) -> float:
    """How much the activations of a subnetwork can stretch."""
    return product(*steepest(slopes, layers))


def steepest(slopes: tuple[float, float], layers: int) -> list[float]:
    """The largest slope of every activation of a subnetwork."""
    return [max(abs(slopes[0]), abs(slopes[1]))] * (layers - 1)


def spectral_norm(A: np.ndarray) -> float:
    """An upper bound of the largest singular value, tight to rounding."""
    A, exponent = power_of_two_scaled(A)
    if not np.any(A):
        return 0.0
    if A.shape[0] < A.shape[1]:
        A = A.T
    gram = A.T @ A
    error = 4 * (sum(A.shape) + 10) * U_ROUND * float(np.trace(gram))
    return product(up(math.sqrt(float(np.linalg.eigvalsh(gram)[-1]) + 2 * error)), exponent=exponent)
