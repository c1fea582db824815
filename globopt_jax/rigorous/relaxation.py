"""The semidefinite relaxation of one neuron's polar: a bound in any dimension, proved by multipliers."""

import math
from typing import Any, NamedTuple

import numpy as np

from globopt_jax.rigorous.scaling import U_ROUND, lengths, product, rows_scaled, slopes_scaled, up
from globopt_jax.rigorous.sizes import lipschitz, spectral_norm

__all__ = ["MANY_INPUTS", "Multipliers", "empty_multipliers", "relaxation_bound"]

#: Above this many inputs, and above the number of samples, inputs are reduced to the span of the samples.
MANY_INPUTS = 500


class Multipliers(NamedTuple):
    """What proves a relaxation bound: any non-negative arrays do, good ones give a tight bound.

    Every cut is a product of two linear forms that are >= 0 for every w: ``Vz[:, a]^T z`` and ``Vn[:, b]^T (z - a)``
    with ``z = relu(X w)``, ``a = X w``. mu (m,) > 0 weighs the identities ``z_i (z_i - a_i) = 0``.
    """

    mu: Any
    Vz: Any
    Vn: Any
    N: Any


def empty_multipliers() -> Multipliers:
    """For the bounds that need none."""
    return Multipliers(np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0)))


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused
def relaxation_bound(
    U: np.ndarray, X: np.ndarray, slopes: tuple[float, float], multipliers: Multipliers, norm: str = "l2"
) -> float:
    """One neuron in any dimension: ``||U^T act(X w)||`` over ``||w|| <= 1`` is at most the value returned.

    With ``z = relu(a)``, ``a = X w``, ``act(a) = negative a + kappa z``, forms ``f = Gam^T Vall^T z + Psi^T w >= 0``
    and entrywise non-negative symmetric N,

        ||U^T act(a)||^2 <= ||kappa U^T z + Lam w||^2 + f^T N f - sum_i mu_i z_i (z_i - a_i)
                          = -z^T M z + z^T R w + w^T C w        (every added term is >= 0, the last is 0)
                         <= w^T (1/4 R^T M^-1 R + C) w           whenever M is positive definite,

    M = D - F Q F^T, F = [U, Vz, Vn], D = diag(mu), Q = blkdiag(kappa^2 I, N), R = D X + F [2 kappa Lam; 2 N Psi^T],
    C = Lam^T Lam + Psi N Psi^T, Lam = negative U^T X, Psi = [0, -X^T Vn]. Returns +inf where M is not safely so.
    """
    proof = _admissible(multipliers, len(X))
    if proof is None:
        return math.inf
    U, X, q, exponent = rows_scaled(U, X)
    negative, positive, more = slopes_scaled(slopes)
    exponent += more
    proof = _multipliers_scaled(proof, X, q, exponent)
    if proof is None:
        return math.inf
    stretch, off = 1.0, 0.0
    if X.shape[1] > max(len(X), MANY_INPUTS):
        # ||w||_2 <= ||w||_1, and ||w||_2 <= sqrt(dx) ||w||_inf.
        ball, norm = up(math.sqrt(X.shape[1])) if norm == "linf" else 1.0, "l2"
        X, stretch, rest = _row_space(X)
        stretch = product(ball, stretch)
        off = product(ball, lipschitz((negative, positive), 2), float((lengths(U, axis=1) * rest).sum()), 1 + 1e-12)
    found = _without_z(_form(U, X, negative, positive - negative, proof))
    if found is None:
        return math.inf
    top = _largest(*found, norm)
    value = math.sqrt(max(top, 0.0) * (1 + 16 * U_ROUND)) * (1 + 4 * U_ROUND)
    return product(up(product(stretch, value) + off), exponent=exponent)


def _admissible(multipliers: Multipliers, samples: int) -> Multipliers | None:
    """The multipliers in float64; None where shapes or signs are not those that a proof needs."""
    mu, Vz, Vn, N = (np.asarray(a, dtype=np.float64) for a in multipliers)
    cuts = Vz.shape[1] + Vn.shape[1]
    if mu.shape != (samples,) or len(Vz) != samples or len(Vn) != samples or N.shape != (cuts, cuts):
        return None
    # Checked, not assumed: without these signs the inequalities of `relaxation_bound` are false.
    if not (np.all(mu > 0) and np.all(Vz >= 0) and np.all(Vn >= 0) and np.all(N >= 0) and np.array_equal(N, N.T)):
        return None
    return Multipliers(mu, Vz, Vn, N)


def _multipliers_scaled(multipliers: Multipliers, X: np.ndarray, q: np.ndarray, exponent: int) -> Multipliers | None:
    """The multipliers in the units of `rows_scaled`; None where they are not finite there.

    In these units z_i is 2^(q_i) times smaller and the square 4^exponent times: mu, V and N go along. A column v / t
    goes with its row and column of N times t: all of size 1, or the margins for rounding would refuse. What over- or
    underflows makes other multipliers, as good as any: mu > 0 is all that is asked of it.
    """
    mu, Vz, Vn, N = multipliers
    alive = np.any(X, axis=1)  # elsewhere z_i = 0 whatever w is, and any multipliers do
    mu = np.where(alive, np.clip(np.ldexp(mu, 2 * (q - exponent)), 2.0**-300, None), 1.0)
    Vz, Vn = (np.where(alive[:, None], np.ldexp(V, q[:, None]), 0.0) for V in (Vz, Vn))
    tops = np.concatenate([np.abs(V).max(axis=0, initial=0.0) for V in (Vz, Vn)])
    t = np.frexp(tops)[1]
    Vz, Vn = np.ldexp(Vz, -t[: Vz.shape[1]]), np.ldexp(Vn, -t[Vz.shape[1] :])
    N = np.where((tops > 0)[:, None] & (tops > 0)[None], np.ldexp(N, t[:, None] + t[None, :] - 2 * exponent), 0.0)
    scaled = Multipliers(mu, Vz, Vn, N)
    return scaled if all(np.all(np.isfinite(a)) for a in scaled) else None


class _Form(NamedTuple):
    """``-z^T M z + z^T R w + w^T C w`` with ``M = diag(mu) - F Q F^T``, see `relaxation_bound`.

    ``R_size``, ``C_size``: the sums of the sizes of all terms in R and C. ``rounding``: what the evaluation of such a
    sum may lose, relative to the sizes.
    """

    mu: np.ndarray
    F: np.ndarray
    Q: np.ndarray
    R: np.ndarray
    R_size: np.ndarray
    C: np.ndarray
    C_size: np.ndarray
    rounding: float


def _form(U: np.ndarray, X: np.ndarray, negative: float, kappa: float, multipliers: Multipliers) -> _Form:
    """The form of z and w that bounds the square, from multipliers in the units of U and X."""
    mu, Vz, Vn, N = multipliers
    dy, cuts_z = U.shape[1], Vz.shape[1]
    F = np.hstack([U, Vz, Vn])
    Q = np.zeros((F.shape[1], F.shape[1]))
    Q[:dy, :dy] = kappa**2 * np.eye(dy)
    Q[dy:, dy:] = N
    PsiT = np.vstack([np.zeros((cuts_z, X.shape[1])), -(Vn.T @ X)])
    PsiTa = np.vstack([np.zeros((cuts_z, X.shape[1])), Vn.T @ np.abs(X)])
    Lam, Lama = negative * (U.T @ X), abs(negative) * (np.abs(U).T @ np.abs(X))
    return _Form(
        mu=mu,
        F=F,
        Q=Q,
        R=mu[:, None] * X + F @ np.vstack([2 * kappa * Lam, 2 * (N @ PsiT)]),
        R_size=mu[:, None] * np.abs(X) + np.abs(F) @ np.vstack([2 * abs(kappa) * Lama, 2 * (N @ PsiTa)]),
        C=Lam.T @ Lam + PsiT.T @ N @ PsiT,
        C_size=Lama.T @ Lama + PsiTa.T @ N @ PsiTa,
        rounding=4 * (sum(X.shape) + 2 * F.shape[1] + 10) * U_ROUND,
    )


def _without_z(form: _Form) -> tuple[np.ndarray, float] | None:
    """(H, error): the form is at most ``w^T H w + error ||w||^2`` for every z; None where M is not safely definite."""
    mu, F, Q, R, Ra, C, Ca, kap = form
    G, lam = _deflation(form)
    if not lam < 1 - 1e-12:
        return None
    lam = max(lam, 0.0)
    Fa, Qa = np.abs(F), np.abs(Q)
    # Y approximates M^-1 R (Woodbury). Whatever Y is, R^T M^-1 R = Y^T R + R^T Y - Y^T M Y + E^T M^-1 E, E = R - M Y.
    DR = R / mu[:, None]
    Y = DR + (F / mu[:, None]) @ np.linalg.solve(np.eye(len(G)) - Q @ G, Q @ (F.T @ DR))
    Ya = np.abs(Y)
    MY = mu[:, None] * Y - F @ (Q @ (F.T @ Y))
    MYa = mu[:, None] * Ya + Fa @ (Qa @ (Fa.T @ Ya))
    YR = Y.T @ R
    H = (YR + YR.T - Y.T @ MY) / 4 + C
    H = (H + H.T) / 2
    error = kap * float(np.linalg.norm((Ya.T @ Ra + Ra.T @ Ya + Ya.T @ MYa) / 4 + Ca)) + kap * float(np.linalg.norm(H))
    rest = (np.abs(R - MY) + kap * (Ra + MYa)) / np.sqrt(mu)[:, None]
    # U and the rows of X are of size 1 here: squares that underflow are far below 1e-150.
    error += float((rest * rest).sum()) / (4 * (1 - lam)) + 1e-150
    return (H, error) if np.all(np.isfinite(H)) and math.isfinite(error) else None


def _deflation(form: _Form) -> tuple[np.ndarray, float]:
    """``G = F^T D^-1 F`` and an upper bound lam of ``lambda_max(Q G)``, inf where none is found; D = diag(mu).

    lam < 1 makes ``M >= (1 - lam) D`` positive definite. The jitter makes G too large, which is the safe side.
    """
    S = form.F / np.sqrt(form.mu)[:, None]
    G = S.T @ S
    try:
        L = np.linalg.cholesky(G + (form.rounding * np.trace(G) + 1e-300) * np.eye(len(G)))
    except np.linalg.LinAlgError:
        return G, math.inf
    LQL = L.T @ form.Q @ L
    if not np.all(np.isfinite(LQL)):
        return G, math.inf
    error = form.rounding * float(np.linalg.norm(np.abs(L).T @ np.abs(form.Q) @ np.abs(L)))
    return G, float(np.linalg.eigvalsh((LQL + LQL.T) / 2)[-1]) + error


def _largest(H: np.ndarray, error: float, norm: str) -> float:
    """An upper bound of ``w^T H w`` over the norm's unit ball, for H positive semidefinite up to `error`."""
    if norm == "l1":
        return float(np.diag(H).max()) + error
    if norm == "linf":
        return min(float(np.abs(H).sum()), len(H) * (float(np.linalg.eigvalsh(H)[-1]) + error)) + len(H) * error
    return float(np.linalg.eigvalsh(H)[-1]) + error


def _row_space(X: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """(L, stretch, off): L (m, m) such that every X w with ``||w|| <= 1`` is L v + d, ``||v|| <= stretch``, |d| <= off.

    ``X^T = Q R + E`` with any Q and R: ``X w = R^T (Q^T w) + E^T w``. Nothing rests on Q being orthonormal.
    """
    Q, R = np.linalg.qr(X.T)
    E = np.abs(X.T - Q @ R) + 4 * (len(X) + 4) * U_ROUND * (np.abs(Q) @ np.abs(R) + np.abs(X.T))
    return R.T, spectral_norm(Q), lengths(E, axis=0) * (1 + 8 * len(E) * U_ROUND) + 2.0**-500
