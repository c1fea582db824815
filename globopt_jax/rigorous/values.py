"""A lower bound of the dual value ``-loss*(V)``, and the objective with a bound of its rounding error."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from globopt_jax.rigorous.scaling import LEAST, U_ROUND, lengths

__all__ = ["dual_value", "gradient", "kind_of", "loss_value", "objective", "penalty", "predict"]


def kind_of(name: Any) -> tuple[str, float]:
    """Return the kind of a loss and its parameter (0 where it has none); ValueError for an unknown name."""
    kind, colon, parameter = name.partition(":") if isinstance(name, str) else ("", "", "")
    try:
        delta = float(parameter) if colon else 0.0
    except ValueError:
        delta = math.nan
    plain = kind in ("squared", "softmax_cross_entropy", "logistic") and not colon
    if plain or (kind == "huber" and math.isfinite(delta) and delta > 0):
        return kind, delta
    raise ValueError(f"loss: Expected: squared, huber:DELTA, softmax_cross_entropy or logistic. Received: {name!r}.")


def dual_value(loss: str, V: np.ndarray, Y: np.ndarray, caution: int = 1) -> tuple[float, float]:
    """Return a lower bound of ``-loss*(V')``, V' in the conjugate's domain, and an upper bound of ``||V' - V||_F``.

    V' is V, except for softmax cross-entropy. There the rows of ``V + Y`` must sum to 1 exactly, and V' is a nearby
    point for which they do.

    Args:
        loss: the name: squared, huber:DELTA, softmax_cross_entropy or logistic.
        V: the dual point (m, dy).
        Y: targets (m, dy).
        caution: the factor of the margins for rounding. Claims are made with 2 and checked with 1, so that they also
            hold with another machine's rounding.

    Returns:
        The lower bound and the distance; (-inf, 0) if V is outside the domain. V is not clipped.

    Raises:
        ValueError: the loss is unknown.

    Example:
        >>> dual_value("squared", np.array([[-1.0]]), np.array([[2.0]]))  # -1/2 V^2 - V Y
        (1.49999..., 0.0)
    """
    u = caution * U_ROUND
    kind, delta = kind_of(loss)
    if kind in ("squared", "huber"):
        if kind == "huber" and np.abs(V).max(initial=0.0) > delta:
            return -math.inf, 0.0
        sizes = np.abs(V) * (np.abs(V) / 2 + np.abs(Y))
        margin = 4 * u * math.fsum(sizes.ravel()) + 2 * caution * LEAST * np.count_nonzero(V)
        return _down(-math.fsum((V * (V / 2 + Y)).ravel()), margin), 0.0
    if kind == "logistic":
        q = -Y * V
        if np.any(q < 0) or np.any(q > 1) or not np.all(np.abs(Y) == 1):
            return -math.inf, 0.0
        terms = _xlogx(q) + np.where(q < 1, (1 - q) * np.log1p(-np.where(q < 1, q, 0.0)), 0.0)
        return _down(-math.fsum(terms.ravel()), 16 * u * math.fsum((np.abs(terms) + q).ravel())), 0.0
    q = V + Y
    if np.any(q < 0):
        return -math.inf, 0.0
    total = q.sum(axis=1, keepdims=True)
    if not np.all(np.abs(total - 1) <= 1e-6):
        return -math.inf, 0.0
    exact = _sum_to_one(V, Y)[:, None]
    terms = _xlogx(np.where(exact, q, q / total))
    off = np.where(exact, 0.0, q.shape[1] * (q + 1))  # the rounding of q and of the total
    margin = 16 * u * math.fsum((4 * np.abs(terms) + off).ravel()) + 16 * u * math.fsum((np.abs(terms) * off).ravel())
    # The distance of 1 / total from 1, given |total - 1| <= 1e-6:
    away = np.where(exact, 0.0, np.abs(total - 1) * (1 + 2e-6) + (q.shape[1] + 4) * u)
    moved = np.where(away > 0, q * away + 2 * u * (np.abs(V) + np.abs(Y)), 0.0)
    return _down(-math.fsum(terms.ravel()), margin), float(lengths(moved)) * (1 + 1e-10)


def _sum_to_one(V: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return which rows of V + Y sum to 1 exactly, given entries >= 0 and sums near 1.

    The sums are computed in integers, for rows whose entries are multiples of 2^-53; other rows count as not exact.
    """
    fine = [np.ldexp(A, 53) for A in (V, Y)]
    whole = np.all([(np.rint(A) == A) & (np.abs(A) <= 2.0**54) for A in fine], axis=(0, 2))
    entries = sum(np.where(whole[:, None], A, 0.0).astype(np.int64) for A in fine)
    return whole & (np.sum(entries, axis=1) == 2**53)


def _xlogx(q: np.ndarray) -> np.ndarray:
    return q * np.log(np.where(q > 0, q, 1.0))


def _down(value: float, margin: float) -> float:
    """Return the value minus the margin, rounded down; without a margin the value itself."""
    return math.nextafter(value - margin, -math.inf) if margin > 0 and math.isfinite(value) else value + 0.0


def _rounding(terms: int) -> float:
    """Return a bound of the relative error of a sum of products with that many terms, in any order of summation."""
    return 2 * (terms + 4) * U_ROUND


def _layer(Z: np.ndarray, error: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Z @ kernel, and a bound of its error, entry by entry; `error` bounds the error of Z."""
    size = np.abs(kernel)
    off = error @ size + _rounding(len(kernel)) * (np.abs(Z) @ size) + len(kernel) * LEAST
    return Z @ kernel, off


def _activated(Z: np.ndarray, error: np.ndarray, slopes: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the activation of Z, and a bound of its error, entry by entry; `error` bounds the error of Z."""
    out = np.where(Z > 0, slopes[1] * Z, slopes[0] * Z)
    return out, max(abs(slopes[0]), abs(slopes[1])) * error + 2 * U_ROUND * np.abs(out) + LEAST


def predict(weights: Sequence[np.ndarray], X: np.ndarray, slopes: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of r subnetworks with stacked weights, and a bound of its rounding error, entry by entry.

    Args:
        weights: neurons ((r, dx), (r, dy)), tensors of rank one ((r, dx), (r, d_2), ..., (r, d_K)), K > 2, or kernels
            (r, n_{k-1}, n_k).
        X: inputs (m, dx).
        slopes: the slopes (negative, positive) of the activation; tensors have none.

    Returns:
        The prediction (m, dy) and the bound of its error (m, dy).

    Example:
        >>> Z, error = predict([np.ones((1, 1)), np.ones((1, 1))], np.array([[3.0]]), (0.0, 1.0))
        >>> Z.tolist(), bool(error[0, 0] < 1e-13)
        ([[3.0]], True)
    """
    if weights[0].ndim == 2 and len(weights) > 2:
        return _tensors(weights, X)
    if weights[0].ndim == 2:
        stacks: Any = [(weights[0].T, weights[1])]
    else:
        stacks = zip(*weights, strict=True)
    total = error = size = np.zeros((len(X), weights[-1].shape[-1]))
    for kernels in stacks:
        Z, off = X, np.zeros_like(X)
        for kernel in kernels[:-1]:
            Z, off = _activated(*_layer(Z, off, kernel), slopes)
        Z, off = _layer(Z, off, kernels[-1])
        total, error, size = total + Z, error + off, size + np.abs(Z)
    return total, error * (1 + 1e-9) + _rounding(len(weights[0])) * size


def _tensors(weights: Sequence[np.ndarray], X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of r tensors of rank one, its modes after the first flat, and a bound of its rounding error."""
    first, *rest = weights
    last, off = np.ones((len(first), 1)), np.zeros((len(first), 1))
    for factor in rest:
        size = np.abs(factor)[:, None, :]
        off = (off[:, :, None] * size + 2 * U_ROUND * np.abs(last)[:, :, None] * size + LEAST).reshape(len(last), -1)
        last = (last[:, :, None] * factor[:, None, :]).reshape(len(last), -1)
    A, error = _layer(X, np.zeros_like(X), first.T)
    B, more = _layer(A, error, last)
    return B, (more + (np.abs(A) + error) @ off) * (1 + 1e-9)


def loss_value(loss: str, Z: np.ndarray, Y: np.ndarray, error: Any = 0.0) -> tuple[float, float]:
    """Return the loss of predictions, and a bound of its error.

    Args:
        loss: the name: squared, huber:DELTA, softmax_cross_entropy or logistic.
        Z: predictions (m, dy).
        Y: targets (m, dy).
        error: a bound of the error of Z, entry by entry; the loss's error covers all predictions within it.

    Returns:
        The loss and the bound of its error.

    Raises:
        ValueError: the loss is unknown.

    Example:
        >>> value, error = loss_value("squared", np.array([[3.0]]), np.array([[1.0]]))
        >>> value, error < 1e-14
        (2.0, True)
    """
    kind, delta = kind_of(loss)
    u = 8 * U_ROUND
    t = np.abs(Z - Y)
    if kind == "squared":
        value = 0.5 * math.fsum((t * t).ravel())
        return value, math.fsum((t * error + error * error).ravel()) + u * value + t.size * LEAST
    if kind == "huber":
        inner = np.minimum(t, delta)
        off = np.minimum(t + error, delta) * error + u * inner * t + 2 * LEAST
        return math.fsum((inner * (t - inner / 2)).ravel()), math.fsum(off.ravel())
    if kind == "logistic":
        values = np.logaddexp(0.0, -Y * Z)
        return math.fsum(values.ravel()), math.fsum((error + u * values + LEAST).ravel())
    top = Z.max(axis=1, keepdims=True)
    logs = np.log(np.exp(Z - top).sum(axis=1))
    values = top[:, 0] + logs - (Y * Z).sum(axis=1)
    # log sum exp changes by at most the largest error of the row; the terms of its sum are at most 1.
    sizes = np.abs(top[:, 0]) + np.abs(logs) + (Y * np.abs(Z)).sum(axis=1) + 2
    off = (np.max(error + 0 * Z, axis=1) + (Y * error).sum(axis=1)) + (Z.shape[1] + 4) * u * sizes
    return math.fsum(values.ravel()), math.fsum(off.ravel())


def gradient(loss: str, Z: np.ndarray, Y: np.ndarray, error: Any = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss's gradient in the prediction, and a bound of its error, entry by entry.

    Args:
        loss: the name: squared, huber:DELTA, softmax_cross_entropy or logistic.
        Z: predictions (m, dy).
        Y: targets (m, dy).
        error: a bound of the error of Z, entry by entry; the gradient's error covers all predictions within it.

    Returns:
        The gradient (m, dy) and the bound of its error (m, dy).

    Raises:
        ValueError: the loss is unknown.

    Example:
        >>> gradient("squared", np.array([[3.0]]), np.array([[1.0]]))[0].tolist()
        [[2.0]]
    """
    kind, delta = kind_of(loss)
    u = 8 * U_ROUND
    if kind == "squared" or kind == "huber":
        G = Z - Y
        off = error + u * np.abs(G)
        return (G, off) if kind == "squared" else (np.clip(G, -delta, delta), off)
    if kind == "logistic":
        q = np.exp(-np.logaddexp(0.0, Y * Z))
        return -Y * q, error / 4 + u * q * (1 + np.abs(Z)) + LEAST
    logs = Z - Z.max(axis=1, keepdims=True)
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    p = np.exp(logs)
    # The logarithm changes by at most twice the largest error of the row, and by its own rounding.
    moved = 2 * np.max(error + 0 * Z, axis=1, keepdims=True) + u * (
        np.abs(Z).max(axis=1, keepdims=True) + Z.shape[1] + 4
    )
    off = np.maximum(np.exp(np.minimum(logs + moved, 0.0)) - p, p * -np.expm1(-moved)) * (1 + u)
    return p - Y, off + 4 * u * (p + np.abs(p - Y)) + 4 * LEAST


def penalty(theta: str, weights: Sequence[np.ndarray], norms: Sequence[str]) -> tuple[float, float]:
    """Return the penalty ``sum_i theta(W_i)``, and a bound of its error.

    Args:
        theta: product_of_norms, or sum_of_powers (the sum of the layers' norms to the power K, divided by K).
        weights: W1..WK, stacked subnetworks.
        norms: the norm of each layer: l1, l2, linf or l21.

    Returns:
        The penalty and the bound of its error.

    Example:
        >>> round(penalty("sum_of_powers", [np.array([[3.0, 4.0]]), np.array([[1.0]])], ("l2", "l2"))[0], 12)
        13.0
    """
    scaled, exponents = (
        np.stack(a) for a in zip(*(_norms(w, n) for w, n in zip(weights, norms, strict=True)), strict=True)
    )
    K = len(weights)
    relative = _rounding(max(w[0].size for w in weights) + 8 * K) * K
    if theta == "product_of_norms":
        # Mantissas and exponents apart: a partial product may underflow, and the next factor be large.
        mantissas, more = np.frexp(scaled)
        value = math.fsum(np.ldexp(mantissas.prod(axis=0), (exponents + more).sum(axis=0)))
        return value, relative * value + scaled.shape[1] * 2 * LEAST
    sizes = np.ldexp(scaled, exponents)
    value = math.fsum((sizes**K).sum(axis=0) / K)
    return value, relative * value + K * sizes.size * 2.0**-1000 * (1 + float(sizes.max()))


def _norms(stack: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the norm of a layer in every subnetwork, divided by a power of two, and the exponent of the power."""
    rows = stack.reshape(len(stack), -1)
    exponent = np.frexp(np.abs(rows).max(axis=1, initial=0.0))[1]
    rows = np.ldexp(rows, -exponent[:, None])
    if name == "l21":
        return np.linalg.norm(rows.reshape(stack.shape), axis=2).sum(axis=1), exponent
    return np.linalg.norm(rows, {"l1": 1, "l2": 2, "linf": np.inf}[name], axis=1), exponent


def objective(
    problem: Mapping[str, Any], weights: Sequence[np.ndarray], X: np.ndarray, Y: np.ndarray
) -> tuple[float, float]:
    """Return the objective ``f_r(W)`` and a bound of its rounding error.

    Args:
        problem: plain values, of which slopes, theta, norms, loss and lam are used.
        weights: W1..WK, stacked subnetworks.
        X: inputs (m, dx).
        Y: targets (m, dy).

    Returns:
        The objective and the bound of its error.

    Raises:
        ValueError: the loss is unknown.
    """
    Z, error = predict(weights, X, tuple(problem["slopes"]))
    fit, fit_error = loss_value(problem["loss"], Z, Y, error)
    cost, cost_error = penalty(problem["theta"], weights, problem["norms"])
    value = fit + problem["lam"] * cost
    off = fit_error + problem["lam"] * cost_error + 4 * U_ROUND * (abs(fit) + problem["lam"] * cost)
    return value, off * (1 + 1e-9)
