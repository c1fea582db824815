"""`lam_max`: the strength above which nothing is worth its penalty."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.homogeneous.capacity import pad_to_power_of_two
from globopt_jax.homogeneous.effort import Effort, EffortName, effort_named
from globopt_jax.homogeneous.grading import evaluate
from globopt_jax.homogeneous.grading.stages import fit
from globopt_jax.homogeneous.grading.subject import subject
from globopt_jax.homogeneous.inputs import check
from globopt_jax.homogeneous.polar import directions
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.inputs import check_key
from globopt_jax.shapes import Array, Params

__all__ = ["LamMax", "lam_max"]


class LamMax(NamedTuple):
    """An interval that holds the smallest lam at which zero weights are optimal."""

    lower: Array
    """The best value that a search found, attained by a subnetwork: zero is not optimal at any smaller lam."""
    upper: Array
    """A rigorous upper bound: zero is optimal at this lam and at every larger one."""


def lam_max(
    problem: Problem,
    X: Any,
    Y: Any,
    *,
    params: Params,
    key: Array | None = None,
    effort: EffortName | Effort | None = None,
) -> LamMax:
    """Bound the smallest lam at which W = 0 is a global minimum: the polar at minus the loss's gradient at 0.

    Args:
        problem: map, regularizer and loss; its lam plays no part.
        X: inputs (m, dx).
        Y: targets (m, dy).
        params: subnetworks of the wanted shape; their values start the search.
        key: the random key of the search; None is a fixed key.
        effort: the effort of search and bound, as for `certify`.

    Returns:
        A `LamMax`, an interval. Its ends agree up to rounding where the polar is known exactly.

    Raises:
        ValueError: the same errors as `certify`.

    >>> import jax, jax.numpy as jnp
    >>> from globopt_jax import homogeneous, losses
    >>> p = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, 1.0)
    >>> w = p.phi.init(jax.random.key(0), r=1, dx=2, dy=2)
    >>> print(f"{homogeneous.lam_max(p, jnp.eye(2), jnp.diag(jnp.array([3.0, 0.5])), params=w).upper:.6f}")
    3.000000
    """
    params, X, Y = check(problem, params, X, Y)
    work = effort_named(effort)
    key = jax.random.key(0) if key is None else check_key(key)
    zero = jax.tree.map(jnp.zeros_like, params)
    at = subject(problem, zero, X, Y, key, work)
    found = directions(at.problem, pad_to_power_of_two(params), -at.residual, at.X, key, work, floor=np.inf)
    certificate = evaluate.first(at)
    if at.bound.has_multipliers:
        for fitted in fit(at, at.residual, work.fixed):
            certificate = evaluate.improved(at, certificate, None, fitted.coordinates)
    upper = float(certificate.polar_upper)
    lower = max(found.polar, float(certificate.polar_lower))
    lower = evaluate.within(lower, upper, float(certificate.resolution) * upper)
    return LamMax(np.asarray(lower), np.asarray(upper))
