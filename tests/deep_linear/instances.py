"""Random profiles, data, and the closed forms again, in NumPy float64 with none of the package's code."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from globopt_jax import deep_linear

#: Three profiles in every run, fifty in the slow set, since each of them compiles its own programs: without a hidden
#: layer and with few samples, without a bottleneck, and with a bottleneck and dependent columns.
PROFILES = [pytest.param(seed, marks=() if seed in (0, 3, 8) else pytest.mark.slow) for seed in range(50)]


class Profile(NamedTuple):
    """A shape of network, and data for it."""

    widths: tuple[int, ...]
    X: np.ndarray
    Y: np.ndarray

    @property
    def k(self) -> int:
        return min(self.widths)


def profile(seed: int, *, hidden: int | None = None, deficient: bool | None = None) -> Profile:
    """H = 0..6 in turn, widths 1..12, the bottleneck in every position in turn, dx below, at and above dy."""
    rng = np.random.default_rng([7, seed])
    H = seed % 7 if hidden is None else hidden
    dx, dy = sorted(rng.integers(2, 13, 2))
    dx, dy = ((dx, dy), (dy, dx), (dx, dx))[seed % 3]
    middle = [int(d) for d in rng.integers(1, 13, H)]
    if H and seed % 2:  # every other one has a bottleneck, wandering through the layers
        middle = [max(d, 2) for d in middle]
        middle[(seed // 2) % H] = max(1, min(dx, dy, *middle) - 1)
    m = int(rng.integers(max(dx, dy), 30)) if seed % 5 else int(rng.integers(1, max(dx, 2)))
    X = rng.normal(size=(m, dx)) * rng.uniform(0.3, 2)
    if seed % 4 == 3 if deficient is None else deficient:  # rank-deficient, to the last bit
        X[:, -1] = 0
        if dx > 2:
            X[:, -2] = 2 * X[:, 0]
    Y = X @ rng.normal(size=(dx, dy)) + rng.normal(size=(m, dy))
    return Profile((int(dx), *map(int, middle), int(dy)), X, Y)


def weights(profile: Profile, seed: int = 0, scale: float = 1.0, count: int | None = None) -> list[np.ndarray]:
    """Random kernels; with a count, that many networks on a leading axis."""
    rng = np.random.default_rng([11, seed])
    lead = () if count is None else (count,)
    return [scale * rng.normal(size=(*lead, a, b)) / a**0.5 for a, b in itertools.pairwise(profile.widths)]


class Truth(NamedTuple):
    """The fit and the optimum, from NumPy's lstsq and SVD of the whole data."""

    map: np.ndarray
    fitted: np.ndarray
    s: np.ndarray
    U: np.ndarray
    optimum: float

    def minimum(self, Y: np.ndarray, k: int) -> float:
        return 0.5 * np.sum((Y - self.fitted) ** 2) + 0.5 * np.sum(self.s[k:] ** 2)


def truth(X: np.ndarray, Y: np.ndarray, k: int) -> Truth:
    """The closed form of Eckart and Young."""
    R = np.linalg.lstsq(X, Y, rcond=1e-10)[0]
    fitted = X @ R
    s, Vt = np.linalg.svd(fitted)[1:]
    n = min(X.shape[1], Y.shape[1])
    s = np.pad(s, (0, max(n - len(s), 0)))[:n]
    found = Truth(R, fitted, s, Vt.T, 0.0)
    return found._replace(optimum=found.minimum(Y, k))


def loss(weights, X, Y) -> Any:
    """Multiplied out in extended precision: the rounding of ill-conditioned kernels is larger than that of the loss."""
    Z = np.asarray(X, np.longdouble)
    for w in weights:
        Z = Z @ np.asarray(w, np.longdouble)
    return np.longdouble(0.5) * np.sum((Z - np.asarray(Y, np.longdouble)) ** 2)


def alternating(X: np.ndarray, Y: np.ndarray, k: int, seed: int, sweeps: int = 400) -> float:
    """The least loss of maps A B of rank k that alternating least squares reaches from random starts."""
    rng = np.random.default_rng(seed)
    best, A = np.inf, np.zeros((X.shape[1], k))
    for _ in range(5):
        B = rng.normal(size=(k, Y.shape[1]))
        for _ in range(sweeps):
            A = np.linalg.lstsq(X, Y @ np.linalg.pinv(B), rcond=None)[0]
            B = np.linalg.lstsq(X @ A, Y, rcond=1e-12)[0]
        best = min(best, 0.5 * np.sum((X @ A @ B - Y) ** 2))
    return float(best)


def hessian(weights, X, Y) -> np.ndarray:
    """The dense Hessian at flat weights, by automatic differentiation."""
    flat = jax.numpy.concatenate([jax.numpy.ravel(w) for w in weights])
    return np.asarray(_hessian(tuple(w.shape for w in weights), flat, X, Y))


@functools.partial(jax.jit, static_argnums=0)
def _hessian(shapes, flat, X, Y):
    def value(v):
        kernels, start = [], 0
        for shape in shapes:
            size = shape[0] * shape[1]
            kernels.append(v[start : start + size].reshape(shape))
            start += size
        return deep_linear.loss(kernels, X, Y)

    return jax.hessian(value)(flat)


def subsets(profile: Profile, most: int = 6) -> list[tuple[int, ...]]:
    """Every set of kept directions that fits, of the first `most`; without a hidden layer the full one."""
    s = truth(profile.X, profile.Y, profile.k).s
    rank = int(np.sum(s > 1e-10 * s[0])) if s[0] else 0
    if len(profile.widths) == 2:
        return [tuple(range(rank))]
    top = range(min(rank, most))
    found = [c for size in range(min(profile.k, len(top)) + 1) for c in itertools.combinations(top, size)]
    full = tuple(range(min(profile.k, rank)))
    return found if full in found else [*found, full]
