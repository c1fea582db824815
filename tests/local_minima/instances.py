"""Random networks and data, and what NumPy says about them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

SLOPES = {"relu": (0.0, 1.0), "leaky_relu": (0.01, 1.0), "absolute": (-1.0, 1.0)}


def instance(seed, largest=6, inputs=12):
    """A random network and data: mixed units, dead units, duplicate samples, an input that is zero."""
    rng = np.random.default_rng([5, seed])
    H = 1 + seed % 5
    widths = [int(d) for d in (rng.integers(1, inputs + 1), *rng.integers(1, largest + 1, H), 1 + seed % 5)]
    m = int(rng.integers(10, 12 * largest))
    X = rng.normal(size=(m, widths[0]))
    if seed % 3 == 1:
        X[m // 2 :] = X[: m - m // 2]
    if seed % 3 == 2 and widths[0] > 1:
        X[:, 0] = 0
    W = [rng.normal(size=s) * (2 / s[0]) ** 0.5 for s in itertools.pairwise(widths)]
    if seed % 4 == 3:
        W[0][:, 0] = 0  # dead
    table = np.array(list(SLOPES.values()))
    names = list(SLOPES)
    activation = names[seed % 4] if seed % 4 < 3 else [table[rng.integers(0, 3, d)] for d in widths[1:-1]]
    return W, X, rng.normal(size=(m, widths[-1])), activation


def _predict(W, X, slopes):
    Z = X
    for w, (negative, positive) in zip(W[:-1], slopes, strict=True):
        Z = Z @ w
        Z = jnp.where(Z > 0, positive * Z, jnp.where(Z < 0, negative * Z, 0 * Z))
    return Z @ W[-1]


_jacobian = jax.jit(jax.jacrev(_predict))


def jacobian(W, X, activation):
    """By autodiff of a network written out here, in float64; (m dy, N)."""
    slopes = [SLOPES[activation]] * (len(W) - 1) if isinstance(activation, str) else activation

    pairs = [np.asarray(one, np.float64).reshape(-1, 2).T[:, None] for one in slopes]
    rows = _jacobian([np.asarray(w, np.float64) for w in W], np.asarray(X, np.float64), pairs)
    return np.concatenate([np.asarray(r).reshape(X.shape[0] * W[-1].shape[1], -1) for r in rows], axis=1)


def close(error, size, A, Y):
    """Ten digits of J, or as many as are known: the entries of A are sums of products, so rounded several times."""
    return abs(error) <= 1e-10 * size or abs(error) <= 10 * doubt(A, Y)


def doubt(A, Y):
    """How far the oracle's J moves when each entry of A is rounded once more: J is not known any better."""
    rng, J = np.random.default_rng(0), oracle(A, Y)[0]
    eps = np.finfo(np.float64).eps
    return max(abs(oracle(A * (1 + eps * rng.uniform(-0.5, 0.5, A.shape)), Y)[0] - J) for _ in range(3))


def oracle(A, Y):
    """J, the rank, and whether a singular value is within a factor of 10 of the cutoff.

    NumPy's decomposition, and two corrections in extended precision: U alone is tilted where singular values are small.
    """
    (_, values, Vt), s = np.linalg.svd(A, full_matrices=False), np.linalg.svd(A, compute_uv=False)  # s has less noise
    limit = 0.5 * s[0] * np.finfo(np.float64).eps * (sum(A.shape) + 1) ** 0.5
    rank = int(np.sum(s > limit))
    A, y, V, squares = (a.astype(np.longdouble) for a in (A, Y.ravel(), Vt[:rank].T, values[:rank] ** 2))
    left = y
    for _ in range(3):
        left = left - A @ (V @ ((V.T @ (A.T @ left)) / squares))
    return float(0.5 * np.sum(left**2)), rank, bool(np.any((s > limit / 10) & (s < 10 * limit)))
