"""Upper bounds of norms, slopes and singular values, true of the stored arrays as exact real numbers."""

import math
from collections.abc import Sequence

import numpy as np

from globopt_jax.rigorous.scaling import U_ROUND, power_of_two_scaled, product, up

__all__ = ["NORMS", "lipschitz", "norm_factor", "spectral_norm", "steepest"]

#: The norms of layers. The mixed norm l21 is the sum of the l2 norms of a kernel's rows, and at least the l2 norm.
NORMS = ("l1", "l2", "linf", "l21")


def norm_factor(norms: Sequence[str], sizes: Sequence[int] | None) -> float:
    """Return an upper bound of the product of the layers' l2 norms divided by the product of the norms named here."""
    if any(n == "linf" for n in norms) and sizes is None:
        return math.inf
    return product(*(up(math.sqrt(sizes[i])) for i, n in enumerate(norms) if n == "linf" and sizes is not None))


def lipschitz(slopes: tuple[float, float], layers: int) -> float:
    """Return an upper bound of the product of the Lipschitz constants of a subnetwork's activations."""
    return product(*steepest(slopes, layers))


def steepest(slopes: tuple[float, float], layers: int) -> list[float]:
    """Return the largest absolute slope of the activation, once for each hidden layer of a subnetwork."""
    return [max(abs(slopes[0]), abs(slopes[1]))] * (layers - 1)


def spectral_norm(A: np.ndarray) -> float:
    """Return an upper bound of the largest singular value of a matrix, tight up to rounding.

    Args:
        A: a matrix (p, q).

    Returns:
        The upper bound.

    Example:
        >>> spectral_norm(np.diag([3.0, 1.0]))
        3.0000...
    """
    A, exponent = power_of_two_scaled(A)
    if not np.any(A):
        return 0.0
    if A.shape[0] < A.shape[1]:
        A = A.T
    gram = A.T @ A
    error = 4 * (sum(A.shape) + 10) * U_ROUND * float(np.trace(gram))
    return product(up(math.sqrt(float(np.linalg.eigvalsh(gram)[-1]) + 2 * error)), exponent=exponent)
