"""The semidefinite relaxation of one neuron's polar: a bound in any dimension, proved by multipliers."""

import math
from typing import Any, NamedTuple

import numpy as np

from globopt_jax.rigorous.scaling import U_ROUND, lengths, product, rows_scaled, slopes_scaled, up
from globopt_jax.rigorous.sizes import lipschitz, spectral_norm

__all__ = ["MANY_INPUTS", "Multipliers", "empty_multipliers", "relaxation_bound"]

#: With more inputs than this, and more than samples, the inputs are reduced to the span of the samples.
MANY_INPUTS = 500


class Multipliers(NamedTuple):
    """The multipliers that prove a relaxation bound. Every choice of the right signs proves one; good ones a tight one.

    Let ``a = X w`` and ``z = relu(a)``. The columns of Vz and Vn give linear forms ``Vz[:, j]^T z`` and
    ``Vn[:, j]^T (z - a)``, which are >= 0 for every w. A cut is a product of two such forms.
    """

    mu: Any
    """(m,), > 0: the weights of the identities ``z_i (z_i - a_i) = 0``."""
    Vz: Any
    """(m, cz), >= 0: the forms in z."""
    Vn: Any
    """(m, cn), >= 0: the forms in z - a."""
    N: Any
    """(cz + cn, cz + cn), >= 0 and symmetric: the weights of the cuts."""


def empty_multipliers() -> Multipliers:
    """Return multipliers of size zero, for the bounds that need none."""
    return Multipliers(np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0)))


@np.errstate(over="ignore", invalid="ignore")  # results that are not finite are refused
def relaxation_bound(
    U: np.ndarray, X: np.ndarray, slopes: tuple[float, float], multipliers: Multipliers, norm: str = "l2"
) -> float:
    """Return an upper bound of the polar of one neuron, ``max ||U^T act(X w)||`` over ``||w|| <= 1``, in any dimension.

    With ``z = relu(a)``, ``a = X w``, ``act(a) = negative a + kappa z``, forms ``f = Gam^T Vall^T z + Psi^T w >= 0``
    and entrywise non-negative symmetric N,

        ||U^T act(a)||^2 <= ||kappa U^T z + Lam w||^2 + f^T N f - sum_i mu_i z_i (z_i - a_i)
                          = -z^T M z + z^T R w + w^T C w        (every added term is >= 0, the last is 0)
                         <= w^T (1/4 R^T M^-1 R + C) w           whenever M is positive definite,

    M = D - F Q F^T, F = [U, Vz, Vn], D = diag(mu), Q = blkdiag(kappa^2 I, N), R = D X + F [2 kappa Lam; 2 N Psi^T],
    C = Lam^T Lam + Psi N Psi^T, Lam = negative U^T X, Psi = [0, -X^T Vn].

    Args:
        U: the point (m, dy) of the polar.
        X: inputs (m, dx).
        slopes: the slopes (negative, positive) of the activation; kappa is their difference.
        multipliers: the multipliers of the cuts and identities.
        norm: the norm of w: l1, l2 or linf.

    Returns:
        The upper bound; 0 where no row is non-zero both in U and in X. +inf where U or X is not finite, where the
        shapes or signs of the multipliers are wrong, or where M is not positive definite with a margin for rounding.
    """
    proof = _admissible(multipliers, len(X))
    if proof is None or not (np.all(np.isfinite(U)) and np.all(np.isfinite(X))):
        return math.inf
    U, X, q, exponent = rows_scaled(U, X)
    if not U.any():
        return 0.0  # no row has an effect, and with them the units of the multipliers are missing
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
    """Return the multipliers in float64; None where shapes or signs are not those that the proof needs."""
    mu, Vz, Vn, N = (np.asarray(a, dtype=np.float64) for a in multipliers)
    cuts = Vz.shape[1] + Vn.shape[1]
    if mu.shape != (samples,) or len(Vz) != samples or len(Vn) != samples or N.shape != (cuts, cuts):
        return None
    # Without these signs the inequalities of `relaxation_bound` are false.
    if not (np.all(mu > 0) and np.all(Vz >= 0) and np.all(Vn >= 0) and np.all(N >= 0) and np.array_equal(N, N.T)):
        return None
    return Multipliers(mu, Vz, Vn, N)


def _multipliers_scaled(multipliers: Multipliers, X: np.ndarray, q: np.ndarray, exponent: int) -> Multipliers | None:
    """Return the multipliers in the units of `rows_scaled`; None where they are not finite there.

    In these units z_i is smaller by 2^(q_i) and the square of the bound by 4^exponent; mu, V and N are scaled
    accordingly. Columns of V are then divided by powers of two, and the rows and columns of N multiplied, so that all
    columns have a size near 1: otherwise the margins for rounding would be too large. Overflow and underflow only
    change the multipliers to other ones, which prove a bound as well if their signs are right.
    """
    mu, Vz, Vn, N = multipliers
    alive = np.any(X, axis=1)  # elsewhere z_i = 0 for every w, and any multipliers suffice
    mu = np.where(alive, np.clip(np.ldexp(mu, 2 * (q - exponent)), 2.0**-300, None), 1.0)
    Vz, Vn = (np.where(alive[:, None], np.ldexp(V, q[:, None]), 0.0) for V in (Vz, Vn))
    tops = np.concatenate([np.abs(V).max(axis=0, initial=0.0) for V in (Vz, Vn)])
    t = np.frexp(tops)[1]
    Vz, Vn = np.ldexp(Vz, -t[: Vz.shape[1]]), np.ldexp(Vn, -t[Vz.shape[1] :])
    N = np.where((tops > 0)[:, None] & (tops > 0)[None], np.ldexp(N, t[:, None] + t[None, :] - 2 * exponent), 0.0)
    scaled = Multipliers(mu, Vz, Vn, N)
    return scaled if all(np.all(np.isfinite(a)) for a in scaled) else None


class _Form(NamedTuple):
    """The form ``-z^T M z + z^T R w + w^T C w`` with ``M = diag(mu) - F Q F^T``, see `relaxation_bound`."""

    mu: np.ndarray
    """The diagonal of D in M."""
    F: np.ndarray
    """The columns U, Vz and Vn side by side."""
    Q: np.ndarray
    """The symmetric matrix between F and F^T."""
    R: np.ndarray
    """The matrix between z and w."""
    R_size: np.ndarray
    """For each entry of R the sum of the absolute values of its terms."""
    C: np.ndarray
    """The symmetric matrix of w."""
    C_size: np.ndarray
    """For each entry of C the sum of the absolute values of its terms."""
    rounding: float
    """The rounding error of such a sum, relative to the sum of its terms' absolute values, at most."""


def _form(U: np.ndarray, X: np.ndarray, negative: float, kappa: float, multipliers: Multipliers) -> _Form:
    """Return the form of z and w that bounds the square, from multipliers in the units of U and X."""
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
    """Return (H, error): for every z the form is at most ``w^T H w + error ||w||^2``.

    None where M is not positive definite with a margin for rounding.
    """
    mu, F, Q, R, Ra, C, Ca, kap = form
    G, lam = _deflation(form)
    if not lam < 1 - 1e-12:
        return None
    lam = max(lam, 0.0)
    Fa, Qa = np.abs(F), np.abs(Q)
    # Y approximates M^-1 R (Woodbury). For every Y, R^T M^-1 R = Y^T R + R^T Y - Y^T M Y + E^T M^-1 E, E = R - M Y.
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
    # U and the rows of X have size 1 here, so that squares that underflow are far below 1e-150.
    error += float((rest * rest).sum()) / (4 * (1 - lam)) + 1e-150
    return (H, error) if np.all(np.isfinite(H)) and math.isfinite(error) else None


def _deflation(form: _Form) -> tuple[np.ndarray, float]:
    """Return ``G = F^T D^-1 F``, D = diag(mu), and an upper bound lam of ``lambda_max(Q G)``, inf where none is found.

    If lam < 1, then ``M >= (1 - lam) D`` is positive definite. The jitter makes G larger, which errs on the safe side.
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
    """Return an upper bound of ``w^T H w`` over the norm's unit ball, for H positive semidefinite up to `error`."""
    if norm == "l1":
        return float(np.diag(H).max()) + error
    if norm == "linf":
        return min(float(np.abs(H).sum()), len(H) * (float(np.linalg.eigvalsh(H)[-1]) + error)) + len(H) * error
    return float(np.linalg.eigvalsh(H)[-1]) + error


def _row_space(X: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Return (L, stretch, off): every X w with ``||w|| <= 1`` is L v + d with ``||v|| <= stretch`` and |d| <= off.

    With ``X^T = Q R + E``, ``X w = R^T (Q^T w) + E^T w``. This holds for every Q and R, so that the bound does not
    depend on how orthonormal Q is. L is (m, m).
    """
    Q, R = np.linalg.qr(X.T)
    E = np.abs(X.T - Q @ R) + 4 * (len(X) + 4) * U_ROUND * (np.abs(Q) @ np.abs(R) + np.abs(X.T))
    return R.T, spectral_norm(Q), lengths(E, axis=0) * (1 + 8 * len(E) * U_ROUND) + 2.0**-500
