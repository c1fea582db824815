"""Independent answers to compare the package with: NumPy float64, dense, slow, and none of the package's own formulas."""

from typing import Any

import cvxpy as cp
import numpy as np

Slopes = tuple[float, float]


def activation(slopes: Slopes, a: np.ndarray) -> np.ndarray:
    """The piecewise linear activation."""
    return np.where(a > 0, slopes[1] * a, slopes[0] * a)


def neuron_values(U: np.ndarray, X: np.ndarray, slopes: Slopes, directions: np.ndarray) -> np.ndarray:
    """``||U^T act(X w)||`` for rows w of `directions`, each scaled to length 1 first."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    W = directions / np.where(lengths > 0, lengths, 1)
    return np.linalg.norm(activation(slopes, X @ W.T).T @ U, axis=1)


def directions_of(X: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Random directions, the samples, their opposites, and directions on the kinks of random samples."""
    dx = X.shape[1]
    random = rng.normal(size=(count, dx))
    normal = X[rng.integers(0, len(X), count)]
    size = np.einsum("ij,ij->i", normal, normal)[:, None]
    on_kinks = random - normal * np.einsum("ij,ij->i", random, normal)[:, None] / np.where(size > 0, size, 1)
    return np.concatenate([random, X, -X, on_kinks, np.eye(dx), -np.eye(dx)])


def fan(count: int) -> np.ndarray:
    """Directions of the plane, evenly spaced."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def loss_values(name: str, Z: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """The loss of predictions Z (..., m, dy), written out."""
    if name == "squared":
        return 0.5 * ((Z - Y) ** 2).sum(axis=(-2, -1))
    if name == "logistic":
        return np.logaddexp(0, -Y * Z).sum(axis=(-2, -1))
    if name == "softmax_cross_entropy":
        top = Z.max(axis=-1, keepdims=True)
        return (top[..., 0] + np.log(np.exp(Z - top).sum(axis=-1)) - (Y * Z).sum(axis=-1)).sum(axis=-1)
    delta = float(name.removeprefix("huber:"))
    t = np.abs(Z - Y)
    return np.where(t <= delta, 0.5 * t * t, delta * (t - 0.5 * delta)).sum(axis=(-2, -1))


def patterns(X: np.ndarray) -> np.ndarray:
    """All activation patterns of one neuron in the plane, as rows of zeros and ones."""
    angles = np.arctan2(X[:, 1], X[:, 0])
    events = np.sort(np.mod(np.concatenate([angles - np.pi / 2, angles + np.pi / 2]), 2 * np.pi))
    middles = (events + np.append(events[1:], events[0] + 2 * np.pi)) / 2
    return np.unique((X @ np.stack([np.cos(middles), np.sin(middles)]) > 0).T, axis=0)


def global_minimum(name: str, X: np.ndarray, Y: np.ndarray, lam: float, slopes: Slopes = (0.0, 1.0)) -> float:
    """The optimum over all widths of the two-layer problem with dy = 1 and dx <= 2: a convex program.

    Pilanci & Ergen 2020: within an activation pattern D the subnetworks are v = w1 |w2| for w2 > 0 and u for
    w2 < 0, the prediction is ``sum D X (v - u)``, the penalty ``lam (||v|| + ||u||)`` (l2 norms, balanced layers).
    """
    X = np.hstack([X, np.zeros((len(X), 2 - X.shape[1]))])
    y = Y[:, 0]
    prediction: Any = 0
    penalty: Any = 0
    constraints = []
    for pattern in patterns(X):
        v, u = cp.Variable(2), cp.Variable(2)
        slope = np.where(pattern, slopes[1], slopes[0])
        prediction = prediction + cp.multiply(slope, X @ (v - u))
        penalty = penalty + cp.norm(v) + cp.norm(u)
        side = np.where(pattern, 1.0, -1.0)[:, None] * X
        constraints += [side @ v >= 0, side @ u >= 0]
    if name == "squared":
        fit = 0.5 * cp.sum_squares(prediction - y)
    elif name == "logistic":
        fit = cp.sum(cp.logistic(-cp.multiply(y, prediction)))
    else:
        # cvxpy's Huber function is t^2 near 0: twice ours.
        fit = 0.5 * cp.sum(cp.huber(prediction - y, float(name.removeprefix("huber:"))))
    problem = cp.Problem(cp.Minimize(fit + lam * penalty), constraints)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return float(problem.value)  # pyright: ignore[reportArgumentType]
