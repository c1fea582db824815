"""Independent answers to compare the package with: NumPy float64, dense, slow, none of the package's formulas."""

import inspect
import sys
import warnings
from fractions import Fraction
from typing import Any

import cvxpy as cp
import numpy as np
from scipy.optimize import minimize

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


def without(condition: str, function: Any) -> Any:
    """The function with one condition in its module replaced by True: what a test must be able to tell apart."""
    module = sys.modules[function.__module__]
    source = inspect.getsource(module)
    assert source.count(condition) == 1, f"{condition} is not in {module.__name__} exactly once"
    namespace = dict(vars(module))
    exec(source.replace(condition, "True"), namespace)
    return namespace[function.__name__]


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
    """The optimum over all widths of the two-layer problem with dy = 1 and dx <= 2."""
    problem = convex_program(name, X, Y, lam, slopes)
    solve(problem, 1e-11)
    return float(problem.value)  # pyright: ignore[reportArgumentType]


def plain_lbfgs(name: str, start: Any, X: np.ndarray, Y: np.ndarray, lam: float) -> float:
    """The objective at which SciPy's L-BFGS-B ends: (w1 (r, dx), w2 (r, dy)), relu, sums of squares, two losses."""
    r, dx = np.shape(start[0])

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w1, w2 = flat[: r * dx].reshape(r, dx), flat[r * dx :].reshape(r, -1)
        a = X @ w1.T
        h = np.maximum(a, 0)
        Z = h @ w2
        if name == "squared":
            G = Z - Y
            fit = 0.5 * np.sum(G * G)
        else:
            top = Z.max(axis=1, keepdims=True)
            e = np.exp(Z - top)
            total = e.sum(axis=1, keepdims=True)
            fit, G = np.sum(np.log(total) + top - np.sum(Y * Z, axis=1, keepdims=True)), e / total - Y
        g1 = ((G @ w2.T) * (a > 0)).T @ X + lam * w1
        return float(fit + lam / 2 * np.sum(flat * flat)), np.concatenate([g1.ravel(), (h.T @ G + lam * w2).ravel()])

    flat = np.concatenate([np.asarray(w, np.float64).ravel() for w in start])
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}
    return float(minimize(value, flat, jac=True, method="L-BFGS-B", options=options).fun)


def solve(problem: cp.Problem, tolerance: float) -> None:
    """Solve by Clarabel's interior point method."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate": short of these tolerances, not of ours
        _ = problem.solve(solver="CLARABEL", tol_gap_abs=tolerance, tol_gap_rel=tolerance, tol_feas=tolerance)


def convex_program(name: str, X: np.ndarray, Y: np.ndarray, lam: float, slopes: Slopes = (0.0, 1.0)) -> cp.Problem:
    """The two-layer problem with dy = 1 and dx <= 2 over all widths, as a convex program.

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
        delta: Any = float(name.removeprefix("huber:"))
        # cvxpy's Huber function is t^2 near 0: twice ours.
        fit = 0.5 * cp.sum(cp.huber(prediction - y, delta))
    return cp.Problem(cp.Minimize(fit + lam * penalty), constraints)


# --- exact linear algebra on floats as fractions ------------------------------------------------------------------

Exact = list[list[Fraction]]


def exactly(A: Any) -> Exact:
    """A matrix of floats as the rational numbers that they are."""
    return [[Fraction(float(v)) for v in row] for row in np.atleast_2d(A)]


def transposed(A: Exact) -> Exact:
    return [list(column) for column in zip(*A, strict=True)]


def product(A: Exact, B: Exact) -> Exact:
    columns = transposed(B)
    return [[sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in columns] for row in A]


def combined(A: Exact, B: Exact, factor: Fraction | int = 1) -> Exact:
    """A + factor B."""
    return [[a + factor * b for a, b in zip(x, y, strict=True)] for x, y in zip(A, B, strict=True)]


def pivots(A: Exact) -> list[Fraction] | None:
    """The pivots of A = L D L^T, or None where a zero pivot has entries left beside it (A is indefinite then)."""
    A, out = [list(row) for row in A], []
    while A:
        pivot, row, *_ = A[0][0], A[0][1:]
        if pivot == 0 and any(row):
            return None
        out.append(pivot)
        A = [
            [a - (row[i] * r / pivot if pivot else 0) for a, r in zip(x[1:], row, strict=True)]
            for i, x in enumerate(A[1:])
        ]
    return out


def is_positive(A: Exact, *, strictly: bool = False) -> bool:
    """Whether the symmetric A is positive semidefinite (or definite)."""
    found = pivots(A)
    return found is not None and all(p > 0 if strictly else p >= 0 for p in found)


def solved(A: Exact, B: Exact) -> Exact:
    """A^-1 B for a positive definite A (Gauss and Jordan, no pivoting needed)."""
    n = len(A)
    rows = [list(a) + list(b) for a, b in zip(A, B, strict=True)]
    for k in range(n):
        rows[k] = [v / rows[k][k] for v in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [v - factor * w for v, w in zip(rows[i], rows[k], strict=True)]
    return [row[n:] for row in rows]
