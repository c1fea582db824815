"""`lam_max`: the strength above which nothing is worth its penalty."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.homogeneous import dual, meta
from globopt_jax.homogeneous.dual import Effort
from globopt_jax.homogeneous.grading import Grader, within
from globopt_jax.homogeneous.inputs import check
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.homogeneous.steps import roomy
from globopt_jax.inputs import check_key
from globopt_jax.shapes import Array, Params

__all__ = ["LamMax", "lam_max"]


class LamMax(NamedTuple):
    """The smallest lam at which zero is optimal lies in [lower, upper]: a search and a rigorous bound."""

    lower: Array
    upper: Array


def lam_max(
    problem: Problem,
    X: Any,
    Y: Any,
    *,
    params: Params,
    key: Array | None = None,
    effort: str | Effort | None = None,
) -> LamMax:
    """The smallest lam for which W = 0 is a global minimum: the polar of minus the loss's gradient at 0.

    Args:
        problem: its lam plays no part.
        X, Y: data.
        params: subnetworks of the wanted shape (their values only start the search).
        key: for the search. effort: of search and bound.

    Returns:
        ``lower``: the best value of a multi-start ascent; ``upper``: a rigorous upper bound. Both are equal up to
        rounding where the polar is known exactly.

    Raises:
        ValueError: as `certify`.

    >>> import jax, jax.numpy as jnp
    >>> from globopt_jax import homogeneous, losses
    >>> p = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, 1.0)
    >>> w = p.phi.init(jax.random.key(0), r=1, dx=2, dy=2)
    >>> print(f"{homogeneous.lam_max(p, jnp.eye(2), jnp.diag(jnp.array([3.0, 0.5])), params=w).upper:.6f}")
    3.000000
    """
    params, X, Y = check(problem, params, X, Y)
    work = dual.effort_named(effort)
    key = jax.random.key(0) if key is None else check_key(key)
    zero = jax.tree.map(jnp.zeros_like, params)
    grader = Grader(problem, zero, X, Y, key, work)
    found = meta.directions(problem, roomy(params), -grader.U, X, key, work, floor=np.inf)
    certificate = grader.first()
    if grader.kind == "relaxation":
        for fitted in grader.fit(grader.U, joint=False):
            certificate = grader.better(certificate, grader.U, fitted.coordinates, own=True)
    upper = float(certificate.polar_upper)
    lower = max(found.polar, float(certificate.polar_lower))
    return LamMax(np.asarray(within(lower, upper, float(certificate.resolution) * upper)), np.asarray(upper))
