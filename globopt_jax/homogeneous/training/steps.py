"""The discrete steps of HV17's meta-algorithm (Theorem 2): tidy, refit, reduce, append. None increases the objective.

All are host functions: they decide how many subnetworks live on.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg
from globopt_jax.homogeneous.capacity import alive, pad, pad_to_power_of_two, width
from globopt_jax.homogeneous.polar.ascent import normalize
from globopt_jax.homogeneous.problem import Problem, objective, penalty, predict
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets

__all__ = ["append", "each", "reduce", "refit", "rescaled", "tidy"]


@jax.jit
def tidy(problem: Problem, params: Params, X: Inputs, Y: Targets) -> Params:
    """Balance the layers of every subnetwork, and zero the subnetworks whose penalty exceeds what they gain.

    Balancing does not change phi, and does not increase a sum of powers (inequality of arithmetic and geometric means).
    Then the subnetworks are tried one after the other, and one is zeroed if ``<-G, phi> + 1/2 ||phi||^2 <= lam theta``.
    That does not increase the objective, since the losses have curvature at most 1. The rule zeroes subnetworks with
    ``phi = 0`` and ``theta > 0``, the case ``beta = -e_i`` of HV17 Theorem 2. At a local minimum
    ``<-G, phi> = lam theta`` (K18 (A.10)), so the rule zeroes no other subnetwork there.
    """
    balanced = jax.vmap(problem.theta.balance)(params)
    lam = jnp.asarray(problem.lam, Y.dtype)

    def one(Z: Targets, weights: Any) -> tuple[Targets, Any]:
        Phi = problem.phi(weights, X)
        worth = jnp.sum(-problem.loss.gradient(Z, Y) * Phi) + 0.5 * jnp.sum(Phi * Phi)
        idle = worth <= lam * problem.theta(weights)
        return Z - jnp.where(idle, Phi, 0), jax.tree.map(lambda w: jnp.where(idle, jnp.zeros_like(w), w), weights)

    # One subnetwork at a time: r outputs of shape (m, dy) are never held together.
    _, tidied = jax.lax.scan(one, predict(problem, balanced, X), balanced)
    before = objective(problem, params, X, Y)
    better = objective(problem, tidied, X, Y) <= before + 4 * linalg.machine_epsilon(before.dtype) * jnp.abs(before)
    return jax.tree.map(lambda a, b: jnp.where(better, a, b), tidied, params)


@jax.jit
def each(problem: Problem, params: Params, X: Inputs) -> tuple[Array, Array]:
    """The output of every subnetwork, flat (r, m dy), and its penalty (r,)."""
    return jax.lax.map(lambda w: problem.phi(w, X).ravel(), params), penalty(problem, params)


def rescaled(params: Params, factors: np.ndarray) -> Params:
    """Every subnetwork times its factor."""

    def scaled(w: Any) -> jax.Array:
        w = np.asarray(w)
        return jax.device_put(w * factors.astype(w.dtype).reshape(-1, *[1] * (w.ndim - 1)))  # compiles nothing

    return jax.tree.map(scaled, params)


@jax.jit
def _at_scales(problem: Problem, c: Array, outputs: Array, costs: Array, Y: Targets) -> tuple[Scalar, Array]:
    def value(c: Array) -> Scalar:
        Z = matmul(c, outputs).reshape(Y.shape)
        return problem.loss(Z, Y) + jnp.asarray(problem.lam, Y.dtype) * jnp.sum(c * costs)

    return jax.value_and_grad(value)(c)


def refit(problem: Problem, params: Params, X: Inputs, Y: Targets) -> Params:
    """Find the best scales: ``min over c >= 0 of loss(sum_i c_i phi(W_i), Y) + lam sum_i c_i theta(W_i)``.

    ``c_i phi(W_i) = phi(c_i^{1/p} W_i)``, and theta scales in the same way. So the problem in c is convex and smooth,
    even if theta has kinks in the weights, and scipy's L-BFGS-B solves it. A scale of 0 zeroes its subnetwork.
    """
    from scipy.optimize import minimize  # imported late: only regularizers with kinks ask for it

    outputs, costs = each(problem, params, X)

    def value(c: np.ndarray) -> tuple[float, np.ndarray]:
        now, g = _at_scales(problem, jnp.asarray(c, Y.dtype), outputs, costs, Y)
        return float(now), np.asarray(g, np.float64)

    ones = np.ones(len(costs))
    options = {"maxiter": 500, "ftol": 0.0, "gtol": 0.0, "maxcor": 30}
    found = minimize(value, ones, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(ones), options=options)
    factors = found.x ** (1 / problem.phi.degree)
    return rescaled(params, factors)


def reduce(problem: Problem, params: Params, X: Inputs) -> Params:
    """Zero subnetworks along linear dependences of their outputs, until the outputs are independent.

    With ``sum_i beta_i phi(W_i) = 0``, min beta = -1 and ``sum_i beta_i theta(W_i) <= 0``, the step
    ``W_i <- (1 + beta_i)^{1/p} W_i`` leaves the prediction as it is, changes the objective by ``lam sum beta_i
    theta_i``, which is <= 0, and zeroes a subnetwork (HV17 Theorem 2, step 3; the choice of sign makes it hold away
    from local minima too). The null vectors come from one QR factorization of the outputs, scaled to norm 1, and stay
    orthonormal as subnetworks go. A step that would change the prediction beyond rounding is not taken. A subnetwork
    without output is zeroed.
    """
    living = alive(params)
    found, costs = (np.asarray(a, np.float64) for a in each(problem, params, X))
    size = np.linalg.norm(found, axis=1)
    keep = np.flatnonzero(living & (size > 0))
    outputs, size, prices = found[keep].T / size[keep], size[keep], costs[keep] / size[keep]
    eps = linalg.machine_epsilon(jax.tree.leaves(params)[0].dtype)
    # A null vector g of the outputs of norm 1 is g_i = beta_i size_i, and <prices, g> is what the penalty changes by.
    R = np.linalg.qr(outputs, mode="r")
    scales = size.copy()  # the norms of the outputs as the reductions go on
    left = np.arange(len(keep))
    while len(left) > 1:
        null, before = _null_space(np.take(R, left, axis=1), eps * max(outputs.shape)), len(left)
        while null.shape[1] and len(left) > 1:
            g = null[:, -1]
            g = -g if prices[left] @ g > 0 else g
            g = -g if g.min() >= 0 else g
            beta = g / scales[left]
            beta = beta / -beta.min()
            moved = np.linalg.norm(np.take(R, left, axis=1) @ (beta * scales[left]))
            if moved > 1e3 * eps * scales.sum():  # among very different outputs, what is null for a large one is not
                null = null[:, :-1]
                continue
            scales[left] *= 1 + beta
            scales[left[np.argmin(beta)]] = 0.0  # exactly: (2e-16)^{1/2} = 1.4e-8 would be left of it
            stays = scales[left] > 0  # ties vanish together
            # The null vectors of the columns that stay are those that are zero on the others.
            rotation = np.linalg.qr(null[~stays].T, mode="complete")[0]
            null, left = (null @ rotation[:, (~stays).sum() :])[stays], left[stays]
        if len(left) == before:
            break
    if len(left) == living.sum():
        return params
    factors = np.zeros(len(living))
    factors[keep] = (scales / size) ** (1 / problem.phi.degree)
    return rescaled(params, factors)


def _null_space(M: np.ndarray, tolerance: float) -> np.ndarray:
    """Return an orthonormal basis (n, k) of the null vectors of M (m, n); tolerance is relative to its norm."""
    _, sigma, right = np.linalg.svd(M, full_matrices=True)
    sigma = np.append(sigma, np.zeros(len(right) - len(sigma)))
    return right[sigma <= tolerance * sigma[0]].T


@jax.jit
def _added(problem: Problem, params: Params, slots: Array, candidates: Params, X: Inputs, Y: Targets) -> Any:
    lam = jnp.asarray(problem.lam, Y.dtype)
    p = problem.phi.degree
    eps = linalg.machine_epsilon(Y.dtype)

    def add(Z: Targets, weights: Any) -> tuple[Targets, tuple[Any, Scalar]]:
        unit = normalize(problem.theta, weights)
        Phi, cost = problem.phi(unit, X), lam * problem.theta(unit)

        def slope(t: Scalar) -> Scalar:
            return jnp.sum(problem.loss.gradient(Z + t * Phi, Y) * Phi) + cost

        square = jnp.sum(Phi * Phi)
        # All losses have curvature at most 1, so the minimum lies at or beyond this step (for squared loss, at it).
        first = jnp.maximum(-slope(jnp.zeros((), Y.dtype)), 0) / jnp.where(square > 0, square, 1)
        high, _ = jax.lax.while_loop(
            lambda c: (slope(c[0]) < 0) & (c[1] < 60), lambda c: (2 * c[0], c[1] + 1), (first, 0)
        )

        def halve(_: Array, ends: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
            low, high = ends
            middle = (low + high) / 2
            falling = slope(middle) < 0
            return jnp.where(falling, middle, low), jnp.where(falling, high, middle)

        low, high = jax.lax.fori_loop(0, 50, halve, (jnp.where(high > first, high / 2, 0.0 * high), high))
        t = jnp.where(slope(jnp.zeros((), Y.dtype)) < -4 * eps * cost, low, 0)
        new = jax.tree.map(lambda w: w * t ** (1 / p), unit)
        return Z + t * Phi, (new, t)

    _, (added, t) = jax.lax.scan(add, predict(problem, params, X), candidates)
    filled = jax.tree.map(lambda w, a: w.at[slots].set(a, mode="drop"), params, added)
    return filled, t


def append(problem: Problem, params: Params, candidates: Params, X: Inputs, Y: Targets) -> tuple[Params, int]:
    """Fill zero subnetworks with candidate directions, one after the other, each with an exact line search.

    A candidate u with ``theta(u) = 1`` enters as ``t^{1/p} u``, where t minimizes the convex
    ``loss(Z + t phi(u)) + lam t``. It stays out if t is 0. The capacity doubles if there are too few zero subnetworks.

    Returns:
        The new weights and the number of subnetworks that entered.
    """
    count, live = width(candidates), int(alive(params).sum())
    capacity = width(params)
    while capacity < live + count:
        capacity *= 2
    params = pad(params, capacity)
    candidates = pad_to_power_of_two(candidates)
    # The zeros that round the number of candidates up write beyond the end, where JAX drops them.
    slots = np.where(np.arange(width(candidates)) < count, live + np.arange(width(candidates)), capacity)
    dtype = jax.tree.leaves(params)[0].dtype
    candidates = jax.tree.map(lambda w: jnp.asarray(w, dtype), candidates)
    params, t = _added(problem, params, jax.device_put(slots), candidates, X, Y)
    return params, int(np.count_nonzero(np.asarray(t)))
