"""Upper bounds of the polar ``sup <U, phi(w)>`` over ``theta(w) <= 1``, true of the stored arrays as real numbers."""

import math
from collections.abc import Sequence

import numpy as np

from globopt_jax.rigorous.relaxation import Multipliers, relaxation_bound
from globopt_jax.rigorous.scaling import U_ROUND, lengths, product, rows_scaled, slopes_scaled, up
from globopt_jax.rigorous.sizes import norm_factor, spectral_norm, steepest

__all__ = ["BOUNDS", "arcs", "linear_bound", "polar_bound"]

BOUNDS = ("none", "linear", "arcs", "relaxation", "product", "unfoldings")


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
    """Return an upper bound of the polar ``sup <U, phi(w)>`` over theta(w) <= 1.

    phi is the output of a subnetwork with piecewise linear activations; theta is the product of the norms of its layers
    or the mean of their K-th powers, which have the same polar. The polar is even in U, since the last layer may change
    sign.

    Args:
        kind: linear (exact up to rounding), arcs (exact up to rounding, dx <= 2), relaxation, product, unfoldings (for
            tensors of rank one), or none (+inf).
        U: the point (m, dy) of the polar.
        X: inputs (m, dx).
        slopes: the slopes (negative, positive) of the activation.
        layers: the number K of weight layers.
        multipliers: the multipliers of the relaxation; other kinds need none.
        norms: the norm of each layer: l1, l2, linf or l21.
        sizes: the number of weights of each layer in one subnetwork, which linf norms need.

    Returns:
        The upper bound; +inf where the kind does not apply to the problem.

    Raises:
        ValueError: the kind is unknown, or the relaxation lacks its multipliers.

    Example:
        >>> polar_bound("linear", np.array([[3.0]]), np.array([[2.0]]), (1.0, 1.0), sizes=(1, 1))  # sup 6 w1 w2
        6.0...
    """
    if kind not in BOUNDS:
        raise ValueError(f"kind: Expected: one of {', '.join(BOUNDS)}. Received: {kind!r}.")
    if not np.all(np.isfinite(U)):
        return math.inf
    if not np.any(U):
        return 0.0
    if not _applies(kind, slopes, layers, X.shape[1]):
        return math.inf
    if kind in ("linear", "unfoldings"):
        return _multilinear_bound(kind, U, X, slopes, layers, norms, sizes)
    # The bounds below are for l2 norms; others are at least l2, but for ||w||_2 <= sqrt(n) ||w||_inf.
    outer = norm_factor(norms[1:], None if sizes is None else sizes[1:])
    if kind == "relaxation":
        inner = norms[0] if norms[0] != "l21" and (sizes is None or sizes[0] == X.shape[1]) else "l2"
        factor = 1.0 if inner == norms[0] else norm_factor(norms[:1], sizes[:1] if sizes else None)
        if multipliers is None:
            raise ValueError("multipliers: Expected: an array tuple for the relaxation. Received: None.")
        return product(factor, outer, relaxation_bound(U, X, slopes, multipliers, inner))
    factor = product(outer, norm_factor(norms[:1], None if sizes is None else sizes[:1]))
    if kind == "arcs":
        values, _, margin, exponent = _arcs(U, X, slopes)
        return product(factor, up(float(values.max()) + margin), exponent=exponent)
    return product(factor, *steepest(slopes, layers), spectral_norm(U), spectral_norm(X))


def _multilinear_bound(
    kind: str,
    U: np.ndarray,
    X: np.ndarray,
    slopes: tuple[float, float],
    layers: int,
    norms: Sequence[str],
    sizes: Sequence[int] | None,
) -> float:
    """Bound the polar of a map that is linear in each layer."""
    if kind == "unfoldings":
        return _unfoldings_bound(U, X, norms, sizes)
    if layers == 1:
        return _single_layer_bound(U, X, norms[0])
    return product(linear_bound(U, X, norms, sizes), *[abs(slopes[1])] * (layers - 1))


def _applies(kind: str, slopes: tuple[float, float], layers: int, dx: int) -> bool:
    """Whether a kind holds for a problem: a stored certificate may ask for one that does not."""
    if kind == "linear":
        return layers == 1 or slopes[0] == slopes[1]
    if kind == "product":
        return layers > 1
    if kind == "unfoldings":
        return layers > 1 and slopes[0] == slopes[1] == 1
    return layers == 2 and (kind == "relaxation" or (kind == "arcs" and dx <= 2))


def _correlation(U: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return (M, E, e) with ``X^T U = 2^e (M + D)`` and ``|D| <= E``, entry by entry."""
    U, X, _, exponent = rows_scaled(U, X)
    E = 2 * (len(X) + 4) * U_ROUND * (np.abs(X).T @ np.abs(U)) + len(X) * 2.0**-1000 * np.any(U)
    return X.T @ U, E, exponent


def _single_layer_bound(U: np.ndarray, X: np.ndarray, norm: str) -> float:
    """Bound the polar of ``phi(W) = X W``: the dual norm of ``X^T U``."""
    M, E, exponent = _correlation(U, X)
    A = np.abs(M) + E
    value = {"l1": A.max(), "l2": lengths(A), "linf": A.sum(), "l21": lengths(A, axis=1).max()}[norm]
    return product(float(value), 1 + 8 * (A.size + 4) * U_ROUND, exponent=exponent)


def linear_bound(U: np.ndarray, X: np.ndarray, norms: Sequence[str], sizes: Sequence[int] | None) -> float:
    """Bound the polar of linear subnetworks with slope 1, ``max w1^T (X^T U) w2``; for l2 norms the spectral norm."""
    M, E, exponent = _correlation(U, X)
    A = np.abs(M) + E
    flat = tuple(norms) if len(norms) == 2 and sizes is not None and tuple(sizes) == M.shape else None
    if flat == ("l1", "l1"):
        value = A.max()
    elif flat == ("l1", "l2"):
        value = lengths(A, axis=1).max()
    elif flat == ("l2", "l1"):
        value = lengths(A, axis=0).max()
    elif flat == ("l1", "linf"):
        value = A.sum(axis=1).max()
    elif flat == ("linf", "l1"):
        value = A.sum(axis=0).max()
    else:
        value = product(norm_factor(norms, sizes), up(spectral_norm(M) + float(lengths(E))))
    return product(float(value), 1 + 8 * (sum(M.shape) + 4) * U_ROUND, exponent=exponent)


def _unfoldings_bound(U: np.ndarray, X: np.ndarray, norms: Sequence[str], sizes: Sequence[int] | None) -> float:
    """Bound the polar of tensors of rank one by the spectral norms of the unfoldings of ``X^T U``."""
    M, E, exponent = _correlation(U, X)
    if sizes is None or sizes[0] != len(M) or math.prod(sizes[1:]) != M.shape[1]:
        return math.inf
    whole = M.reshape(tuple(sizes))
    unfolded = (np.moveaxis(whole, k, 0).reshape(sizes[k], -1) for k in range(len(sizes)))
    value = up(min(map(spectral_norm, unfolded)) + float(lengths(np.abs(E))))
    return product(norm_factor(norms, sizes), value, 1 + 8 * (sum(M.shape) + 4) * U_ROUND, exponent=exponent)


def arcs(U: np.ndarray, X: np.ndarray, slopes: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the maximum of ``||U^T act(X w)||``, w = (cos t, sin t), on every arc of constant activation pattern.

    This is the polar of one neuron with dx <= 2 inputs. Between two consecutive angles t at which some ``x_j . w``
    changes sign, ``U^T act(X w)`` is linear, M w. Its squared length is ``mean + radius cos(2 t - phase)``, with its
    maximum at the peak, if the peak lies inside the arc, or at an end.

    Args:
        U: the point (m, dy) of the polar.
        X: inputs (m, dx), dx <= 2.
        slopes: the slopes (negative, positive) of the activation.

    Returns:
        The maximum on each arc, the angles that attain these maxima, and a margin for rounding. The supremum over all w
        is at most ``max(maxima) + margin``.
    """
    values, angles, margin, exponent = _arcs(U, X, slopes)
    return np.ldexp(values, exponent), angles, float(np.ldexp(margin, exponent))


def _arcs(U: np.ndarray, X: np.ndarray, slopes: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Do `arcs` with values and margin divided by ``2^exponent``; the exponent comes last."""
    X = np.hstack([X, np.zeros((len(X), 2 - X.shape[1]))])
    U, X, _, exponent = rows_scaled(U, X)
    negative, positive, more = slopes_scaled(slopes)
    kappa = positive - negative
    B = U[:, :, None] * X[:, None, :]  # the contribution of sample j to M while it is active
    center = np.arctan2(X[:, 1], X[:, 0])
    rise, fall = np.mod(center - np.pi / 2, 2 * np.pi), np.mod(center + np.pi / 2, 2 * np.pi)
    order = np.argsort(np.concatenate([rise, fall]), kind="stable")
    lo = np.concatenate([rise, fall])[order]
    signs = np.repeat([1.0, -1.0], len(X))[order]
    # A sample is active on the arc through angle 0 iff its rise comes after its fall in [0, 2 pi).
    start = negative * B.sum(axis=0) + kappa * B[rise > fall].sum(axis=0)
    M = start + kappa * np.cumsum(signs[:, None, None] * np.concatenate([B, B])[order], axis=0)
    hi = np.append(lo[1:], lo[0] + 2 * np.pi)
    a, d = (M[:, :, 0] ** 2).sum(axis=1), (M[:, :, 1] ** 2).sum(axis=1)
    b = (M[:, :, 0] * M[:, :, 1]).sum(axis=1)
    mean, radius, phase = (a + d) / 2, np.hypot((a - d) / 2, b), np.arctan2(b, (a - d) / 2)
    peak = phase / 2 + np.pi * np.ceil((lo - 1e-7 - phase / 2) / np.pi)
    inside = peak <= hi + 1e-7  # the slack makes values too large by 2e-14 at most, and never too small
    # At the ends the length of M w is computed directly: mean + radius cos(...) cancels where M is large and M w small.
    ends = (np.stack([np.cos(t), np.sin(t)], axis=1) for t in (lo, hi))
    at_lo, at_hi = (np.linalg.norm(np.einsum("kdi,ki->kd", M, w), axis=1) for w in ends)
    values = np.where(inside, np.sqrt(mean + radius), np.maximum(at_lo, at_hi))
    angles = np.where(inside, np.clip(peak, lo, hi), np.where(at_lo >= at_hi, lo, hi))
    # Rounding moves the ends of arcs by at most 1e-14; a sample on the wrong side adds |x_j . w| <= 1e-14 ||x_j||.
    # Sums of 2m terms lose at most 2m u times the sum of the terms' sizes.
    total = float((np.linalg.norm(U, axis=1) * np.linalg.norm(X, axis=1)).sum()) * (abs(negative) + abs(kappa))
    margin = total * (4e-14 + 8 * (2 * len(X) + U.shape[1] + 10) * U_ROUND)
    return values, angles, margin, exponent + more
