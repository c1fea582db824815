"""Regularizers whose degree differs from the map's, and what goes wrong (HV17 supplement, Proposition 2).

- If the degree of theta is below that of phi, zero weights are a local minimum for every width and lam (`zero_basin`).
- If it is above, copies of small subnetworks have the same output at almost no penalty (`split`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import results
from globopt_jax.homogeneous.effort import Effort, EffortName
from globopt_jax.homogeneous.lam_max import lam_max
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.homogeneous.regularizers import SumOfPowers, sum_of_powers
from globopt_jax.inputs import integer, real
from globopt_jax.shapes import Array, Params

__all__ = ["ZeroBasin", "split", "zero_basin"]


class ZeroBasin(NamedTuple):
    """A neighbourhood of zero weights in which no weights have a lower objective."""

    radius: Array
    """The largest norm of a layer in the neighbourhood; 0 where no bound of the polar is known, inf where the loss has
    its minimum at zero weights."""
    polar: Array
    """The upper bound of the polar of the matched penalty at minus the loss's gradient; the radius rests on it."""

    @property
    def reason(self) -> str:
        """The statement in a sentence."""
        if not np.isfinite(self.polar):
            return "No neighbourhood is proved, since no upper bound of the polar is known."
        if not self.radius > 0:
            return "A neighbourhood is proved, but its radius is below the smallest number of float64."
        return (
            "Zero weights are a local minimum for every width: no weights whose layers all have norms up to "
            f"{float(self.radius):.6g} have a lower objective."
        )

    __str__ = results.words


def zero_basin(
    problem: Problem,
    X: Any,
    Y: Any,
    *,
    params: Params,
    key: Array | None = None,
    effort: EffortName | Effort | None = None,
) -> ZeroBasin:
    """Prove that zero weights are a local minimum where the penalty has a lower degree than the map.

    Let ``theta = 1/q sum_k ||w_k||^q`` with q below the degree p of phi: weight decay, q = 2, on three weight layers or
    more. If P bounds the polar of the matched penalty, of power p, at minus the loss's gradient at zero, then for all
    weights whose layers have norms of at most rho

        f(W) - f(0) >= sum_i (lam theta(W_i) - P 1/p sum_k ||w_k||^p) >= (lam - P q/p rho^(p-q)) sum_i theta(W_i).

    This is positive up to ``rho = (lam p / (q P))^(1/(p-q))``, whatever the width and however small lam is. A zero
    subnetwork therefore certifies nothing: HV17's Theorem 1 needs equal degrees.

    Host function.

    Args:
        problem: map, sum of powers of a lower degree, loss and lam.
        X: inputs (m, dx).
        Y: targets (m, dy).
        params: subnetworks of the wanted shape; their values start the search that `lam_max` makes.
        key: the random key of that search; None is a fixed key.
        effort: the effort of the polar's bound, as for `certify`.

    Returns:
        A `ZeroBasin`. Its radius is rigorous up to the rounding of the last formula, for which it is lowered by 1e-12.

    Raises:
        ValueError: the penalty is no sum of powers of a degree below the map's, or the errors of `lam_max`.

    References:
        Haeffele & Vidal 2017, supplement, Proposition 2; the radius is ours.

    Example:
        >>> problem = Problem("linear", sum_of_powers(1), "squared", 0.5)  # 1/2 (w1 w2 - 2)^2 + (|w1| + |w2|) / 2
        >>> ones = np.ones((1, 1))
        >>> found = zero_basin(problem, ones, 2 * ones, params=(ones, ones))
        >>> print(f"{found.radius:.6f}")  # P = 2, so that lam p / (q P) is 1/2
        0.500000
    """
    phi, theta, lam = problem.phi, problem.theta, problem.lam
    p, q = phi.degree, theta.degree
    if not (isinstance(theta, SumOfPowers) and q is not None and q < p):
        raise ValueError(
            f"problem: Expected: a sum of powers of a degree below that of phi, which is {p}. Received: {theta}."
        )
    matched = Problem(phi, sum_of_powers(norms=theta.norms), problem.loss, lam)
    polar = float(lam_max(matched, X, Y, params=params, key=key, effort=effort).upper)
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        radius = (np.float64(float(lam) * p / q) / polar) ** (1 / (p - q)) * (1 - 1e-12)
    targets = real("Y", Y)
    minimal = not bool(jnp.any(problem.loss.gradient(jnp.zeros_like(targets), targets)))
    radius = np.float64(np.inf) if minimal else np.minimum(radius, np.finfo(np.float64).max)
    return ZeroBasin(np.asarray(radius), np.asarray(polar))


def split(problem: Problem, params: Params, copies: int) -> Params:
    """Write every subnetwork as `copies` smaller ones with the same sum, ``W_i -> n^(-1/p) W_i`` n times.

    The output does not change, and the penalty is multiplied by ``n^(1 - q/p)`` for degrees p of phi and q of theta. If
    q > p it falls to 0 as n grows: such a penalty does not limit the function that a network computes, and Omega is 0.
    If q < p it grows; if q = p it stays. A pure function of arrays.

    Args:
        problem: its map's degree is used.
        params: r subnetworks on a leading axis.
        copies: the number n >= 1 of copies.

    Returns:
        ``n r`` subnetworks.

    Raises:
        ValueError: copies is below 1, or so large that ``n^(-1/p)`` underflows.

    References:
        Haeffele & Vidal 2017, supplement, Proposition 2.

    Example:
        >>> from globopt_jax import homogeneous
        >>> problem = homogeneous.Problem("linear", sum_of_powers(4), "squared", 1.0)
        >>> params = (jnp.ones((1, 1)), jnp.ones((1, 1)))
        >>> many = split(problem, params, 4)
        >>> print(homogeneous.predict(problem, many, jnp.ones((1, 1))), float(jnp.sum(jax.vmap(problem.theta)(many))))
        [[1.]] 0.125
    """
    copies = integer("copies", copies)
    factor = copies ** (-1 / problem.phi.degree)
    if not factor > 0:
        raise ValueError(
            f"copies: Expected: so few that n^(-1/p) is a number for the degree p = {problem.phi.degree}. Received: "
            f"{copies}."
        )
    return jax.tree.map(lambda w: jnp.tile(jnp.asarray(w), (copies, *[1] * (jnp.ndim(w) - 1))) * factor, params)
