"""The rigorous part, in NumPy float64 and nothing else: read this file to trust a certificate.

The problem is ``min f(W) = loss(sum_i phi(W_i), Y) + lam sum_i theta(W_i)`` over all weights and all widths r. For a
dual point V (an array like Y) whose polar ``P(-V) = sup <-V, phi(w)> over theta(w) <= 1`` is at most lam,

    f(W) >= <V, Phi> - loss*(V) + lam Theta >= -loss*(V)        for every W and every r,

by Fenchel-Young and the definition of the polar. So a certificate is V with a proof that ``P(-V) <= lam``, and this
file computes both sides: `polar_bound`, an upper bound of P, and `dual_value`, a lower bound of ``-loss*(V)``. Each
adds what floating point arithmetic can have lost (u = 2^-53 is the unit roundoff), so both are true of the
stored arrays as exact real numbers. `objective` is plain float64.

Run it alone, without JAX: ``python rigorous.py RUN_FOLDER``.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

U_ROUND = 2.0**-53
BOUNDS = ("none", "linear", "arcs", "relaxation", "product")


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


# ---------------------------------------------------------------------------------------------------------------
# Upper bounds of the polar
# ---------------------------------------------------------------------------------------------------------------


def polar_bound(
    kind: str,
    U: np.ndarray,
    X: np.ndarray,
    slopes: tuple[float, float],
    layers: int = 2,
    multipliers: Multipliers | None = None,
    norms: Sequence[str] = ("l2", "l2"),
    sizes: Sequence[int] | None = None,
) -> float:
    """An upper bound of ``sup <U, phi(w)>`` over weights whose norms' product (or mean power) is at most 1.

    Args:
        kind: linear (exact up to rounding), arcs (the same, dx <= 2), relaxation, product, or none (+inf).
        U: (m, dy); the polar is even in U since the last weight layer may change sign.
        X: inputs (m, dx).
        slopes: of the activation, (negative, positive).
        layers: the number K of weight layers.
        multipliers: for the relaxation.
        norms: the norm of each layer; sizes: the number of entries of each layer (for l-inf norms).
    """
    if kind == "none" or not np.all(np.isfinite(U)):
        return math.inf
    if kind == "linear" and layers == 1:
        return _single_layer_bound(U, X, norms[0])
    if (kind == "linear" and slopes[0] != slopes[1]) or (kind == "arcs" and X.shape[1] > 2):
        return math.inf  # a stored certificate may ask for a bound that does not hold for its problem
    if kind == "linear":
        return linear_bound(U, X, abs(slopes[1]) ** (layers - 1), norms, sizes)
    if layers == 1 or (layers > 2 and kind != "product"):
        return math.inf  # those bounds speak of one hidden layer
    # From here on l2 norms; ||w||_2 <= ||w||_1 and ||w||_2 <= sqrt(n) ||w||_inf carry the bound over.
    outer = _norm_factor(norms[1:], None if sizes is None else sizes[1:])
    if kind == "relaxation":
        if multipliers is None:
            raise ValueError("multipliers: Expected: an array tuple for the relaxation. Received: None.")
        inner = norms[0] if sizes is None or sizes[0] == X.shape[1] else "l2"
        factor = 1.0 if inner == norms[0] else _norm_factor(norms[:1], sizes[:1] if sizes else None)
        return factor * outer * relaxation_bound(U, X, slopes, multipliers, inner)
    factor = outer * _norm_factor(norms[:1], None if sizes is None else sizes[:1])
    if kind == "arcs":
        values, _, margin = arcs(U, X, slopes)
        return factor * (float(values.max()) + margin)
    if kind == "product":
        slope = max(abs(slopes[0]), abs(slopes[1]))
        return factor * slope ** (layers - 1) * spectral_norm(U) * spectral_norm(X) * (1 + 1e-14)
    raise ValueError(f"kind: Expected: one of {', '.join(BOUNDS)}. Received: {kind!r}.")


def _norm_factor(norms: Sequence[str], sizes: Sequence[int] | None) -> float:
    if any(n == "linf" for n in norms) and sizes is None:
        return math.inf
    factor = 1.0
    for i, name in enumerate(norms):
        factor *= math.sqrt(sizes[i]) * (1 + 4 * U_ROUND) if name == "linf" and sizes is not None else 1.0
    return factor


def spectral_norm(A: np.ndarray) -> float:
    """An upper bound of the largest singular value, tight to rounding."""
    A, scale = _power_of_two_scaled(A)
    if not A.size or not np.any(A):
        return 0.0
    if A.shape[0] < A.shape[1]:
        A = A.T
    gram = A.T @ A
    error = 4 * (sum(A.shape) + 10) * U_ROUND * float(np.trace(gram))
    return math.sqrt(float(np.linalg.eigvalsh(gram)[-1]) + 2 * error) * (1 + 4 * U_ROUND) * scale


def _single_layer_bound(U: np.ndarray, X: np.ndarray, norm: str) -> float:
    """``phi(W) = X W``: the dual norm of ``X^T U``."""
    X, x_scale = _power_of_two_scaled(X)
    U, u_scale = _power_of_two_scaled(U)
    M = np.abs(X.T @ U) + 2 * (len(X) + 4) * U_ROUND * (np.abs(X).T @ np.abs(U))
    value = {"l1": M.max(), "l2": np.linalg.norm(M), "linf": M.sum()}[norm]
    return float(value) * x_scale * u_scale * (1 + 8 * (M.size + 4) * U_ROUND)


def linear_bound(
    U: np.ndarray, X: np.ndarray, slope: float, norms: Sequence[str], sizes: Sequence[int] | None
) -> float:
    """Linear subnetworks: ``slope * max w1^T (X^T U) w2``, the spectral norm for l2 norms of every layer."""
    X, x_scale = _power_of_two_scaled(X)
    U, u_scale = _power_of_two_scaled(U)
    M = np.abs(M_signed := X.T @ U)
    scale = slope * x_scale * u_scale
    # The computed M is off by at most this, entry by entry.
    E = 2 * (len(X) + 4) * U_ROUND * (np.abs(X).T @ np.abs(U))
    flat = tuple(norms) if len(norms) == 2 and sizes is not None and tuple(sizes) == M.shape else None
    if flat == ("l1", "l1"):
        value = float((M + E).max())
    elif flat == ("l1", "l2"):
        value = float(np.linalg.norm(M + E, axis=1).max())
    elif flat == ("l2", "l1"):
        value = float(np.linalg.norm(M + E, axis=0).max())
    elif flat == ("l1", "linf"):
        value = float((M + E).sum(axis=1).max())
    elif flat == ("linf", "l1"):
        value = float((M + E).sum(axis=0).max())
    else:
        value = _norm_factor(norms, sizes) * (spectral_norm(M_signed) + float(np.linalg.norm(E)))
    return value * scale * (1 + 8 * (sum(M.shape) + 4) * U_ROUND)


def arcs(U: np.ndarray, X: np.ndarray, slopes: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, float]:
    """One neuron in dx <= 2: ``||U^T act(X w)||``, w = (cos t, sin t), maximized on every arc of constant pattern.

    Between two consecutive angles at which some ``x_j . w`` changes sign the map is linear, M w, so its square is
    ``mean + radius cos(2 t - phase)`` with its maximum at the peak, if inside the arc, or at an end.

    Returns:
        values: the maximum on each arc. angles: where it is attained. margin: what rounding can have hidden; the
        supremum over all w is at most ``max(values) + margin``.
    """
    X = np.hstack([X, np.zeros((len(X), 2 - X.shape[1]))])
    U, u_scale = _power_of_two_scaled(U)
    X, x_scale = _power_of_two_scaled(X)
    negative, positive = slopes
    kappa = positive - negative
    B = U[:, :, None] * X[:, None, :]  # what sample j adds to M while it is active
    center = np.arctan2(X[:, 1], X[:, 0])
    rise, fall = np.mod(center - np.pi / 2, 2 * np.pi), np.mod(center + np.pi / 2, 2 * np.pi)
    order = np.argsort(np.concatenate([rise, fall]), kind="stable")
    lo = np.concatenate([rise, fall])[order]
    signs = np.repeat([1.0, -1.0], len(X))[order]
    # A sample is active on the arc through angle 0 iff it rises after it falls: decided by the events, not anew.
    start = negative * B.sum(axis=0) + kappa * B[rise > fall].sum(axis=0)
    M = start + kappa * np.cumsum(signs[:, None, None] * np.concatenate([B, B])[order], axis=0)
    hi = np.append(lo[1:], lo[0] + 2 * np.pi)
    a, d = (M[:, :, 0] ** 2).sum(axis=1), (M[:, :, 1] ** 2).sum(axis=1)
    b = (M[:, :, 0] * M[:, :, 1]).sum(axis=1)
    mean, radius, phase = (a + d) / 2, np.hypot((a - d) / 2, b), np.arctan2(b, (a - d) / 2)
    peak = phase / 2 + np.pi * np.ceil((lo - 1e-7 - phase / 2) / np.pi)
    inside = peak <= hi + 1e-7  # the slack makes values too large by 2e-14 at most, and never too small
    # The length of M w itself: mean + radius cos(...) would cancel where M is large and M w is small.
    ends = (np.stack([np.cos(t), np.sin(t)], axis=1) for t in (lo, hi))
    at_lo, at_hi = (np.linalg.norm(np.einsum("kdi,ki->kd", M, w), axis=1) for w in ends)
    values = np.where(inside, np.sqrt(mean + radius), np.maximum(at_lo, at_hi))
    angles = np.where(inside, np.clip(peak, lo, hi), np.where(at_lo >= at_hi, lo, hi))
    # Events are off by at most 1e-14; a sample on the wrong side there adds |x_j . w| <= 1e-14 ||x_j||. Sums of 2m
    # terms lose at most 2m u of the sum of sizes.
    total = float((np.linalg.norm(U, axis=1) * np.linalg.norm(X, axis=1)).sum()) * (abs(negative) + abs(kappa))
    margin = total * (4e-14 + 8 * (2 * len(X) + U.shape[1] + 10) * U_ROUND)
    return values * u_scale * x_scale, angles, margin * u_scale * x_scale


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
    X, x_scale = _power_of_two_scaled(X)
    U, u_scale = _power_of_two_scaled(U)
    mu, Vz, Vn, N = (np.asarray(a, dtype=np.float64) for a in multipliers)
    # U / u goes with mu / u^2 and N / u^2, a column v / t with its row and column of N times t: all of size 1, or the
    # margins below would refuse. Powers of two are exact, and what underflows makes other multipliers, as good as any.
    mu, N = mu / u_scale / u_scale, N / u_scale / u_scale
    tops = np.concatenate([np.abs(V).max(axis=0, initial=0.0) for V in (Vz, Vn)])
    t = np.ldexp(1.0, np.frexp(tops)[1])
    Vz, Vn = Vz / t[: Vz.shape[1]], Vn / t[Vz.shape[1] :]
    t = np.where(tops == 0, 0.0, t)  # a column of zeros needs no multiplier
    N = N * t[:, None] * t[None, :]
    # Checked, not assumed: without these signs the inequalities above are false.
    if not (np.all(mu > 0) and np.all(Vz >= 0) and np.all(Vn >= 0) and np.all(N >= 0) and np.array_equal(N, N.T)):
        return math.inf
    if not all(np.all(np.isfinite(a)) for a in (mu, Vz, Vn, N)):
        return math.inf
    # Rescaling X rescales a and z alike, and every term is quadratic in them: the multipliers stay what they are.
    negative, positive = slopes
    kappa = positive - negative
    dy, cuts_z = U.shape[1], Vz.shape[1]
    F = np.hstack([U, Vz, Vn])
    Fa = np.abs(F)
    Q = np.zeros((F.shape[1], F.shape[1]))
    Q[:dy, :dy] = kappa**2 * np.eye(dy)
    Q[dy:, dy:] = N
    Qa = np.abs(Q)
    n = sum(X.shape) + 2 * F.shape[1] + 10
    kap = 4 * n * U_ROUND
    # lambda_max(Q G) < 1, G = F^T D^-1 F, makes M >= (1 - lambda) D positive definite. The jitter makes G too large,
    # which is the safe side.
    S = F / np.sqrt(mu)[:, None]
    G = S.T @ S
    try:
        L = np.linalg.cholesky(G + (kap * np.trace(G) + 1e-300) * np.eye(len(G)))
    except np.linalg.LinAlgError:
        return math.inf
    LQL = L.T @ Q @ L
    lam = float(np.linalg.eigvalsh((LQL + LQL.T) / 2)[-1]) + kap * np.linalg.norm(np.abs(L).T @ Qa @ np.abs(L))
    if not lam < 1 - 1e-12:
        return math.inf
    lam = max(lam, 0.0)
    PsiT = np.vstack([np.zeros((cuts_z, X.shape[1])), -(Vn.T @ X)])
    PsiTa = np.vstack([np.zeros((cuts_z, X.shape[1])), Vn.T @ np.abs(X)])
    Lam, Lama = negative * (U.T @ X), abs(negative) * (np.abs(U).T @ np.abs(X))
    R = mu[:, None] * X + F @ np.vstack([2 * kappa * Lam, 2 * (N @ PsiT)])
    Ra = mu[:, None] * np.abs(X) + Fa @ np.vstack([2 * abs(kappa) * Lama, 2 * (N @ PsiTa)])
    C = Lam.T @ Lam + PsiT.T @ N @ PsiT
    Ca = Lama.T @ Lama + PsiTa.T @ N @ PsiTa
    # Y approximates M^-1 R (Woodbury). Whatever Y is, R^T M^-1 R = Y^T R + R^T Y - Y^T M Y + E^T M^-1 E, E = R - M Y.
    DR = R / mu[:, None]
    Y = DR + (F / mu[:, None]) @ np.linalg.solve(np.eye(len(G)) - Q @ G, Q @ (F.T @ DR))
    Ya = np.abs(Y)
    MY = mu[:, None] * Y - F @ (Q @ (F.T @ Y))
    MYa = mu[:, None] * Ya + Fa @ (Qa @ (Fa.T @ Ya))
    YR = Y.T @ R
    H = (YR + YR.T - Y.T @ MY) / 4 + C
    H = (H + H.T) / 2
    error = kap * np.linalg.norm((Ya.T @ Ra + Ra.T @ Ya + Ya.T @ MYa) / 4 + Ca) + kap * np.linalg.norm(H)
    rest = (np.abs(R - MY) + kap * (Ra + MYa)) / np.sqrt(mu)[:, None]
    error += float((rest * rest).sum()) / (4 * (1 - lam))
    # H is positive semidefinite up to `error`; its maximum over the norm's unit ball:
    if norm == "l1":
        top = float(np.diag(H).max()) + error
    elif norm == "linf":
        top = min(float(np.abs(H).sum()), len(H) * (float(np.linalg.eigvalsh(H)[-1]) + error)) + len(H) * error
    else:
        top = float(np.linalg.eigvalsh(H)[-1]) + error
    return math.sqrt(max(top, 0.0) * (1 + 16 * U_ROUND)) * (1 + 4 * U_ROUND) * x_scale * u_scale


def _power_of_two_scaled(A: np.ndarray) -> tuple[np.ndarray, float]:
    """A divided by a power of two that brings its largest entry near 1 (exact, and squares cannot overflow)."""
    A = np.asarray(A, dtype=np.float64)
    top = float(np.abs(A).max()) if A.size else 0.0
    if top == 0.0 or not math.isfinite(top):
        return A, 1.0
    scale = 2.0 ** math.frexp(top)[1]
    return A / scale, scale


# ---------------------------------------------------------------------------------------------------------------
# The other side: -loss*(V), and the primal objective
# ---------------------------------------------------------------------------------------------------------------


def dual_value(loss: str, V: np.ndarray, Y: np.ndarray) -> tuple[float, float]:
    """A lower bound of ``-loss*(V')`` for a V' in the conjugate's domain, and ``||V' - V||_F`` at most.

    V' = V but for softmax cross-entropy, where the rows of ``V + Y`` must sum to 1 exactly and V' is the nearby point
    whose rows do. (-inf, 0) if V is outside the domain; nothing is clipped.
    """
    u = U_ROUND
    name, _, parameter = loss.partition(":")
    if name == "squared" or name == "huber":
        if name == "huber" and np.abs(V).max() > float(parameter):
            return -math.inf, 0.0
        sizes = np.abs(V) * (np.abs(V) / 2 + np.abs(Y))
        return _down(-math.fsum((V * (V / 2 + Y)).ravel()), 4 * u * math.fsum(sizes.ravel())), 0.0
    if name == "softmax_cross_entropy":
        q = V + Y
        total = q.sum(axis=1, keepdims=True)
        if q.min() < 0 or np.abs(total - 1).max() > 1e-6:
            return -math.inf, 0.0
        away = np.abs(total - 1) * (1 + 2e-6) + (q.shape[1] + 4) * u  # of 1 / total from 1, with |total - 1| <= 1e-6
        moved = np.abs(q) * away + 2 * u * (np.abs(V) + np.abs(Y))
        terms = _xlogx(q / total)
        return _down(
            -math.fsum(terms.ravel()), 16 * (q.shape[1] + 4) * u * (math.fsum(np.abs(terms).ravel()) + len(q))
        ), (float(np.linalg.norm(moved)) * (1 + 1e-10))
    if name == "logistic":
        q = -Y * V
        if q.min() < 0 or q.max() > 1 or not np.all(np.abs(Y) == 1):
            return -math.inf, 0.0
        terms = _xlogx(q) + _xlogx(1 - q)
        return _down(-math.fsum(terms.ravel()), 16 * u * (math.fsum(np.abs(terms).ravel()) + q.size)), 0.0
    raise ValueError(f"loss: Expected: squared, huber:DELTA, softmax_cross_entropy or logistic. Received: {loss!r}.")


def _xlogx(q: np.ndarray) -> np.ndarray:
    return q * np.log(np.where(q > 0, q, 1.0))


def _down(value: float, margin: float) -> float:
    return math.nextafter(value - margin, -math.inf) if math.isfinite(value) else value


def loss_value(loss: str, Z: np.ndarray, Y: np.ndarray) -> float:
    """The loss of predictions Z, float64."""
    name, _, parameter = loss.partition(":")
    if name == "squared":
        return 0.5 * math.fsum(((Z - Y) ** 2).ravel())
    if name == "huber":
        t = Z - Y
        inner = np.clip(t, -float(parameter), float(parameter))
        return math.fsum((inner * (t - inner / 2)).ravel())
    if name == "logistic":
        return math.fsum(np.logaddexp(0.0, -Y * Z).ravel())
    if name == "softmax_cross_entropy":
        top = Z.max(axis=1, keepdims=True)
        return math.fsum((top[:, 0] + np.log(np.exp(Z - top).sum(axis=1)) - (Y * Z).sum(axis=1)).ravel())
    raise ValueError(f"loss: Expected: squared, huber:DELTA, softmax_cross_entropy or logistic. Received: {loss!r}.")


def predict(weights: Sequence[np.ndarray], X: np.ndarray, slopes: tuple[float, float]) -> np.ndarray:
    """The sum of r subnetworks with stacked weights: neurons ((r, dx), (r, dy)) or kernels (r, n_{k-1}, n_k)."""
    if weights[0].ndim == 2:
        a = X @ weights[0].T
        return np.where(a > 0, slopes[1] * a, slopes[0] * a) @ weights[1]
    Z = np.zeros((len(X), weights[-1].shape[2]))
    for kernels in zip(*weights, strict=True):
        features = X
        for kernel in kernels[:-1]:
            a = features @ kernel
            features = np.where(a > 0, slopes[1] * a, slopes[0] * a)
        Z += features @ kernels[-1]
    return Z


def penalty(theta: str, weights: Sequence[np.ndarray], norms: Sequence[str]) -> float:
    """``sum_i theta(W_i)``: product_of_norms, or sum_of_powers with the power K."""
    orders = {"l1": 1, "l2": 2, "linf": np.inf}
    flat = [w.reshape(len(w), -1) for w in weights]
    sizes = np.stack([np.linalg.norm(w, orders[n], axis=1) for w, n in zip(flat, norms, strict=True)])
    K = len(weights)
    return math.fsum(sizes.prod(axis=0) if theta == "product_of_norms" else (sizes**K).sum(axis=0) / K)


def objective(problem: Mapping[str, Any], weights: Sequence[np.ndarray], X: np.ndarray, Y: np.ndarray) -> float:
    """``f_r(W)`` for a problem described by plain values: slopes, theta, norms, loss, lam."""
    Z = predict(weights, X, tuple(problem["slopes"]))
    return loss_value(problem["loss"], Z, Y) + problem["lam"] * penalty(problem["theta"], weights, problem["norms"])


# ---------------------------------------------------------------------------------------------------------------
# A stored certificate
# ---------------------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What the check found; `holds` is the answer, `reason` a sentence."""

    holds: bool
    objective: float
    lower_bound: float
    polar_bound: float
    reason: str


def lower_bound(
    problem: Mapping[str, Any], V: np.ndarray, multipliers: Multipliers, X: np.ndarray, Y: np.ndarray
) -> tuple[float, float]:
    """(lower bound of the global minimum or -inf, upper bound of the polar at -V): the certificate itself."""
    value, moved = dual_value(problem["loss"], V, Y)
    slopes, norms, sizes = tuple(problem["slopes"]), problem["norms"], problem["sizes"]
    bound = polar_bound(problem["bound"], V, X, slopes, problem["layers"], multipliers, norms, sizes)
    if moved > 0:
        slope = max(abs(slopes[0]), abs(slopes[1])) ** (problem["layers"] - 1)
        bound += moved * slope * spectral_norm(X) * _norm_factor(norms, sizes) * (1 + 1e-14)
    return (value if bound <= problem["lam"] else -math.inf), bound


def check_certificate(
    problem: Mapping[str, Any],
    weights: Sequence[np.ndarray],
    V: np.ndarray,
    multipliers: Multipliers,
    X: np.ndarray,
    Y: np.ndarray,
    claimed: Mapping[str, float],
) -> Verdict:
    """Recompute objective, feasibility of the dual point and lower bound, and compare with what was claimed."""
    weights = [np.asarray(w, dtype=np.float64) for w in weights]
    X, Y, V = (np.asarray(a, dtype=np.float64) for a in (X, Y, V))
    if len(weights) != problem["layers"] or [w[0].size for w in weights] != list(problem["sizes"]):
        reason = "The weights are not those of the problem described: other numbers of layers or of entries."
        return Verdict(False, math.nan, -math.inf, math.inf, reason)
    value = objective(problem, weights, X, Y)
    # The trivial bound: V = 0 is always feasible.
    trivial, _ = dual_value(problem["loss"], np.zeros_like(Y), Y)
    found, polar = lower_bound(problem, V, multipliers, X, Y) if V.size else (-math.inf, math.inf)
    bound = max(found, trivial)
    tolerance = 1e-9 * max(abs(value), abs(bound), 1e-300)
    if not math.isfinite(value):
        return Verdict(False, value, bound, polar, "The weights give an objective that is not finite.")
    if not abs(value - claimed["objective"]) <= tolerance:
        return Verdict(False, value, bound, polar, "The weights do not have the claimed objective.")
    if not bound >= claimed["lower_bound"] - tolerance:
        why = (
            f"the dual point is not feasible: its polar is bounded by {polar:.9g} > lam = {problem['lam']:.9g}"
            if V.size and not polar <= problem["lam"]
            else "the dual point does not give it"
        )
        return Verdict(False, value, bound, polar, f"The claimed lower bound is not proved: {why}.")
    if bound > value + tolerance:
        return Verdict(False, value, bound, polar, "The lower bound exceeds the objective: the two contradict.")
    gap = max(value - bound, 0.0)
    reason = (
        f"Proved: the objective {value:.9g} is at most {gap:.3g} ({gap / max(abs(value), 1e-300):.3g} of it) above the "
        "global minimum over all widths."
    )
    return Verdict(True, value, bound, polar, reason)


def check_folder(folder: str | Path) -> Verdict:
    """Check a run folder: problem.npz (X, Y), weights.npz (W1..WK), certificate.npz, certificate.json.

    Objective and lower bound are proved, in every file that holds them; searches and configuration are not looked at.
    """
    folder = Path(folder)
    missing = [
        n for n in ("problem.npz", "weights.npz", "certificate.npz", "certificate.json") if not (folder / n).is_file()
    ]
    if missing:
        raise ValueError(
            f"{folder}: Expected: a run folder with a certificate. Received: none of {', '.join(missing)}."
        )
    meta = json.loads((folder / "certificate.json").read_text())
    with np.load(folder / "problem.npz") as data, np.load(folder / "weights.npz") as weights:
        X, Y = data["X"], data["Y"]
        stacked = [weights[f"W{k + 1}"] for k in range(len(weights.files))]
    with np.load(folder / "certificate.npz") as stored:
        multipliers = Multipliers(*(stored[name] for name in Multipliers._fields))
        V = stored["dual_point"]
        copies = {"certificate.npz": {n: stored[n] for n in meta["claimed"]}, "certificate.json": meta["certificate"]}
    if (folder / "result.json").is_file():
        copies["result.json"] = json.loads((folder / "result.json").read_text())["certificate"]
    verdict = check_certificate(meta["problem"], stacked, V, multipliers, X, Y, meta["claimed"])
    # What people and programs read are copies of the two numbers that were checked.
    for name, copy in copies.items() if verdict.holds else ():
        for number, claim in meta["claimed"].items():
            if float(copy[number]) != float(claim):
                reason = f"{name} says that the {number} is {copy[number]}, the claim that was checked is {claim}."
                return verdict._replace(holds=False, reason=reason)
    return verdict


if __name__ == "__main__":
    verdict = check_folder(sys.argv[1])
    print(verdict.reason)
    sys.exit(0 if verdict.holds else 1)
