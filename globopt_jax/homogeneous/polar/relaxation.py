"""The upper bound of one neuron's polar in any dimension: a semidefinite relaxation in its dual, fitted with optax.

``max ||U^T act(X w)||`` over ``||w||_2 <= 1`` is bounded by the value of a quadratic form with non-negative
multipliers; the inequality and its proof stand in `rigorous.relaxation_bound`, which evaluates the final bound with
its rounding margin. Here the same formula is differentiable, so that the multipliers, the cut columns and the
dual point U itself are learned by Adam.

The cut columns start from the positive and negative parts of U's columns, split into groups of samples: more groups
give a tighter and dearer bound, O(m (c + dy + dx)^2) a step with c = 4 dy groups columns in all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from globopt_jax import linalg, rigorous
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Scalar, Targets

__all__ = ["Coordinates", "bound", "groups_of", "initial", "multipliers"]

#: The least value of ``1 / lambda_max(Q G) - 1``. Below 1e-14, rounding made the formula smaller than the polar.
SLACK = 1e-4


class Coordinates(NamedTuple):
    """Unconstrained coordinates of the multipliers, see `rigorous.Multipliers`: logarithms."""

    mu: Array
    """(m,): the logarithms of mu, up to a factor that the slack determines."""
    Vz: Array
    """(m, c): the logarithms of Vz."""
    Vn: Array
    """(m, c): the logarithms of Vn."""
    N: Array
    """(2 c, 2 c): the logarithms of a matrix whose symmetric part is N."""
    slack: Array
    """The logarithm of the slack, by which ``1 / lambda_max(Q G) - 1`` exceeds its least value."""


def groups_of(X: np.ndarray, count: int) -> np.ndarray:
    """One-hot membership (m, count) of the samples in k-means clusters of the inputs."""
    if count <= 1 or len(X) <= count:
        return np.ones((len(X), 1))
    from scipy.cluster.vq import kmeans2  # imported late: only a high effort asks for it

    _, labels = kmeans2(np.asarray(X, np.float64), count, minit="++", rng=np.random.default_rng(0))
    return np.eye(count)[labels]


@jax.jit
def initial(U: Targets, groups: Array) -> Coordinates:
    """Return coordinates to start a fit from: the sign parts of U in each group of samples, with a floor.

    Args:
        U: the dual point (m, dy).
        groups: one-hot membership of the samples (m, g). A row of zeros is padding: its cuts are 0 and stay 0.
    """
    parts = jnp.concatenate([jnp.maximum(U, 0), jnp.maximum(-U, 0)], axis=1)
    columns = (groups[:, :, None] * parts[:, None, :]).reshape(U.shape[0], -1)
    top = jnp.max(jnp.abs(U))
    top = jnp.where(top > 0, top, 1)
    # A column of zeros would never learn; the floor is small against the largest entry.
    V = jnp.where(jnp.any(groups > 0, axis=1, keepdims=True), jnp.log(jnp.maximum(columns / top, 1e-3)), -jnp.inf)
    c = 2 * V.shape[1]
    rows = jnp.linalg.norm(U, axis=1) / top
    # `bound` works with U of size 1; small cuts against U's own products are a good start.
    size = jnp.linalg.norm(U)
    N = 0.005 * jnp.where(size > 0, top / jnp.where(size > 0, size, 1), 1) ** 2
    return Coordinates(
        mu=jnp.log(jnp.maximum(rows, 1e-2)),
        Vz=V,
        Vn=V,
        N=jnp.full((c, c), jnp.log(N)),
        slack=jnp.asarray(-2.0, V.dtype),
    )


def _top(H: Float[Array, "n n"]) -> Scalar:
    """Return lambda_max, with the gradient at the fixed top eigenvector, not through the eigendecomposition."""
    v = jax.lax.stop_gradient(jnp.linalg.eigh(H)[1][:, -1])
    return v @ matmul(H, v)


def _scaled(U: Targets, slopes: tuple[float, float], at: Coordinates) -> tuple[jax.Array, ...]:
    """Return mu, Vz, Vn, N, F, Q, G for U of size 1, with mu scaled so that ``lambda_max(Q G) = 1 / (1 + slack)``."""
    kappa = slopes[1] - slopes[0]
    Vz, Vn, E = jnp.exp(at.Vz), jnp.exp(at.Vn), jnp.exp(at.N)
    N = (E + E.T) / 2
    F = jnp.concatenate([U, Vz, Vn], axis=1)
    dy = U.shape[1]
    Q = jnp.zeros((F.shape[1],) * 2, F.dtype).at[:dy, :dy].set(kappa**2 * jnp.eye(dy, dtype=F.dtype))
    Q = Q.at[dy:, dy:].set(N)
    raw = jnp.exp(at.mu)
    S = F / jnp.sqrt(raw)[:, None]
    G = matmul(S.T, S)
    jitter = 4 * sum(F.shape) * linalg.machine_epsilon(F.dtype) * jnp.trace(G)
    L = jnp.linalg.cholesky(G + jitter * jnp.eye(len(G), dtype=G.dtype))
    lam = _top(matmul(matmul(L.T, Q), L))
    mu = raw * lam * (1 + SLACK + jnp.exp(at.slack))
    return mu, Vz, Vn, N, F, Q, G * (raw / mu)[0]


_jitted = jax.jit(_scaled, static_argnums=1)  # for calls on the host; callers of `bound` trace it themselves


def bound(U: Targets, X: Inputs, slopes: tuple[float, float], at: Coordinates) -> Scalar:
    """Compute the relaxation's value, differentiable in U and the coordinates.

    The value is an estimate until `rigorous` evaluates the same formula with its rounding margin.

    Args:
        U: the dual point (m, dy).
        X: inputs (m, dx).
        slopes: the negative and the positive slope of the activation.
        at: the coordinates of the multipliers.
    """
    kappa = slopes[1] - slopes[0]
    size = jnp.linalg.norm(U)
    size = jnp.where(size > 0, size, 1)
    U = U / size
    mu, _, Vn, N, F, Q, G = _scaled(U, slopes, at)
    n_forms = Vn.shape[1]
    PsiT = jnp.zeros((len(N), X.shape[1]), X.dtype).at[len(N) - n_forms :].set(-matmul(Vn.T, X))
    Lam = slopes[0] * matmul(U.T, X)
    NPsiT = matmul(N, PsiT)
    K = jnp.concatenate([2 * kappa * Lam, 2 * NPsiT])
    # R^T M^-1 R = R^T D^-1 R + (F^T D^-1 R)^T W (F^T D^-1 R), W = Q (I - G Q)^-1 (Woodbury)
    FX = matmul(F.T, X)
    FDR = FX + matmul(G, K)
    W = jnp.linalg.solve(jnp.eye(len(G), dtype=G.dtype) - matmul(Q, G), Q)
    RDR = matmul(X.T, mu[:, None] * X) + matmul(FX.T, K) + matmul(K.T, FX) + matmul(K.T, matmul(G, K))
    H = (RDR + matmul(FDR.T, matmul(W, FDR))) / 4 + matmul(Lam.T, Lam) + matmul(PsiT.T, NPsiT)
    return size * jnp.sqrt(jnp.maximum(_top((H + H.T) / 2), 0))


def multipliers(U: Targets, slopes: tuple[float, float], at: Coordinates) -> rigorous.Multipliers:
    """Return the multipliers as `rigorous.relaxation_bound` takes them: float64, for U itself instead of U / ||U||."""
    host = np.asarray(U)
    size = host.dtype.type(np.linalg.norm(host) or 1)
    mu, Vz, Vn, N, *_ = _jitted(jax.device_put(host / size), slopes, at)
    arrays = [np.asarray(a, dtype=np.float64) for a in (mu, Vz, Vn, N)]
    scale = float(size) ** 2
    return rigorous.Multipliers(arrays[0] * scale, arrays[1], arrays[2], arrays[3] * scale)
