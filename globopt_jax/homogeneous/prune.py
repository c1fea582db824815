"""Fewer subnetworks with the same output, at no higher penalty (HV17 Proposition 1 and Theorem 2)."""

from typing import Any

import jax
import numpy as np

from globopt_jax import linalg
from globopt_jax.homogeneous.capacity import alive
from globopt_jax.homogeneous.inputs import check_network
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.homogeneous.training.steps import each, reduce, rescaled
from globopt_jax.inputs import one_of
from globopt_jax.shapes import Params

__all__ = ["METHODS", "cheapest", "exact", "prune"]

#: The ways of `prune`.
METHODS = ("program", "steps")


def prune(problem: Problem, params: Params, X: Any, *, method: str = "program") -> Params:
    """Remove subnetworks without changing the output and without raising ``sum theta``.

    Since ``c phi(W) = phi(c^{1/p} W)`` for c >= 0, the cheapest scales of the given subnetworks solve a linear program:

        min sum_i c_i theta(W_i)   subject to   sum_i c_i phi(W_i) = Z,  c >= 0

    with the output Z of the network. A vertex of the program has at most ``rank [phi(W_1) ... phi(W_r)]`` positive
    scales, which is at most card(Z) = m dy (HV17 Proposition 1). The steps of HV17 Theorem 2 reach that number, too:
    each null vector of the outputs removes a subnetwork. They do not look for the lowest penalty. The output moves by
    rounding, which is relative to the sum of the norms of the subnetworks' outputs.

    Host function.

    Args:
        problem: map and regularizer of the same degree; loss and lam play no part.
        params: r subnetworks on a leading axis.
        X: inputs (m, dx).
        method: "program", all at once by a linear program (HiGHS), or "steps", one after the other.

    Returns:
        The weights of the subnetworks that are left, at least one; they are multiples of given ones.

    Raises:
        ValueError: the degrees differ, the weights do not fit, or the method is unknown.
        TypeError: an array does not hold real numbers.

    Example:
        >>> from globopt_jax import homogeneous
        >>> problem = homogeneous.Problem("linear", "sum_of_powers", "squared", 1.0)
        >>> params = np.ones((4, 1)), np.array([[3.0], [-2.0], [1.0], [2.0]])  # 4 in parts; 1 * 1 is the cheapest
        >>> [w.round(6).tolist() for w in prune(problem, params, np.eye(1))]
        [[[2.0]], [[2.0]]]
    """
    _ = one_of("method", method, METHODS)
    params, X = check_network(problem, params, X)
    reduced = rescaled(params, _cheapest_scales(problem, params, X)) if method == "program" else params
    reduced = reduce(problem, reduced, X)  # after the program it finds nothing, but for ties and rounding
    keep = np.flatnonzero(alive(reduced))
    keep = keep if len(keep) else np.arange(1)
    return jax.tree.map(lambda w: jax.device_put(np.asarray(w)[keep]), reduced)


def _cheapest_scales(problem: Problem, params: Params, X: jax.Array) -> np.ndarray:
    """Return the factor of each subnetwork's weights; all that have an output get 1 where the program saves nothing."""
    outputs, costs = (np.asarray(a, np.float64) for a in each(problem, params, X))
    sizes = np.linalg.norm(outputs, axis=1)
    paid = np.flatnonzero(sizes > 0)
    factors = np.where(sizes > 0, 1.0, 0.0)
    if not len(paid):
        return factors
    # Scales of outputs of norm 1: what an output is worth does not depend on what it costs.
    columns, start = outputs[paid].T / sizes[paid], sizes[paid]
    found = cheapest(columns, start, costs[paid] / sizes[paid])
    if found is None or costs[paid] @ (found / start) > costs[paid].sum():
        return factors
    factors[paid] = (found / start) ** (1 / problem.phi.degree)
    return factors


def exact(columns: np.ndarray, scales: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """Return the scales >= 0 of those columns that a program's solution uses, with the accuracy of least squares.

    Columns whose scale is not positive then are left out.
    """
    t, support = np.zeros(len(scales)), np.flatnonzero(scales > 1e-9 * np.max(scales))
    while len(support):
        t[support] = np.linalg.lstsq(columns[:, support], Z, rcond=None)[0]
        if np.all(t[support] > 0):
            break
        t[support[t[support] <= 0]] = 0.0
        support = support[t[support] > 0]
    return t


def cheapest(columns: np.ndarray, start: np.ndarray, prices: np.ndarray) -> np.ndarray | None:
    """Return a vertex of ``min <prices, t>`` subject to ``columns t = columns start`` and ``t >= 0``.

    The columns have norm 1. None is returned if rounding spoils the vertex. The rows of the program are an orthonormal
    basis of the row space, which does not change its solutions. HiGHS solves it to 1e-9 or so; the scales that it
    leaves positive are computed again by least squares.
    """
    from scipy.optimize import linprog  # imported late: only pruning needs it

    _, s, right = np.linalg.svd(columns, full_matrices=False)
    eps = linalg.machine_epsilon(columns.dtype)
    rank = int(np.sum(s > 0.5 * eps * (sum(columns.shape) + 1) ** 0.5 * s[0]))
    rows, Z = right[:rank], columns @ start
    wanted = rows @ start
    scale = float(np.max(np.abs(wanted), initial=0.0))
    if scale <= 10 * eps * np.sum(start):  # the output is zero
        return np.zeros(columns.shape[1])
    solved = linprog(prices / (prices.max() or 1.0), A_eq=rows, b_eq=wanted / scale, method="highs-ds")
    if solved.x is None:
        return None
    t = exact(columns, solved.x, Z)
    return t if np.linalg.norm(columns @ t - Z) <= 1e3 * eps * np.sum(t + start) else None
