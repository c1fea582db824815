"""The best directions of the polar: from the bound if it knows them, otherwise from a multi-start ascent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.homogeneous.capacity import pad_to_power_of_two
from globopt_jax.homogeneous.effort import Effort
from globopt_jax.homogeneous.polar import ascent
from globopt_jax.homogeneous.polar.bounds import bound_of
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Params, Targets

__all__ = ["LOOKS", "Directions", "directions", "look"]

#: The number of searches that must fail before `look` reports no direction.
LOOKS = 3


class Directions(NamedTuple):
    """The best directions that are known or were found at U."""

    polar: float
    """The largest ``<U, phi(w)>`` among subnetworks w with theta(w) = 1."""
    candidates: Params | None
    """Subnetworks above the floor, best first, with nearly parallel ones removed; None if there are none."""
    exact: bool
    """Whether ``polar`` is the polar itself. If not, a search found it and may have missed a better direction."""


def look(
    problem: Problem, params: Params, U: Targets, X: Inputs, key: Array, effort: Effort, *, floor: float
) -> Directions:
    """Call `directions`, and search again from other starts if a search found nothing."""
    looks = (directions(problem, params, U, X, k, effort, floor=floor) for k in jax.random.split(key, LOOKS))
    first = next(looks)
    return first if first.exact or first.candidates is not None else max([first, *looks], key=lambda d: d.polar)


def directions(
    problem: Problem,
    params: Params,
    U: Targets,
    X: Inputs,
    key: Array,
    effort: Effort,
    *,
    floor: float,
    most: int = 16,
) -> Directions:
    """Find the polar's best directions at U: the exact ones if the bound knows them, else by a multi-start ascent.

    Args:
        problem: map and regularizer; the loss and lam play no part.
        params: subnetworks of the wanted shape, which are also starts.
        U: the point (m, dy) at which the polar is wanted; for a certificate minus the loss's gradient.
        X: inputs (m, dx).
        key: the random key of the starts.
        effort: the number of starts, and of steps from each.
        floor: the value of ``<U, phi(w)>`` above which a direction is a candidate.
        most: the most candidates from a search.
    """
    known = bound_of(problem, X.shape[1]).directions(np.asarray(U, np.float64), np.asarray(X, np.float64), params)
    exact = known is not None and known.attain
    pools = [params]
    if known is not None:
        pools.append(pad_to_power_of_two(known.params))
    if not exact:
        pools.append(ascent.starts(problem.phi, params, X, key, effort.starts))
    initial = jax.tree.map(lambda *ws: jax.device_put(np.concatenate([np.asarray(w, U.dtype) for w in ws])), *pools)
    found = _search(problem.phi, problem.theta, U, X, initial, 2 if exact else effort.climbs)
    values = np.asarray(found.values)
    above = np.flatnonzero(values > floor)[: None if exact else 4 * most]
    if not len(above):
        return Directions(float(found.value), None, exact)
    candidates = jax.tree.map(lambda w: np.asarray(w)[above], found.params)
    chosen = np.arange(len(above)) if exact else _distinct(problem, candidates, X, most)
    return Directions(float(found.value), jax.tree.map(lambda w: w[chosen], candidates), exact)


@jax.jit
def _outputs(problem: Problem, candidates: Params, X: Inputs) -> Array:
    Phi = jax.vmap(problem.phi, (0, None))(candidates, X).reshape(len(jax.tree.leaves(candidates)[0]), -1)
    Phi = Phi / jnp.linalg.norm(Phi, axis=1, keepdims=True)
    return matmul(Phi, Phi.T)


def _distinct(problem: Problem, candidates: Params, X: Inputs, most: int) -> np.ndarray:
    """Indices of at most `most` candidates whose outputs are not nearly parallel, best first."""
    count = len(jax.tree.leaves(candidates)[0])
    room = 4 * most  # the most that `directions` looks at, so that one shape is compiled
    padded = jax.tree.map(lambda w: np.concatenate([w, np.repeat(w[:1], room - count, axis=0)]), candidates)
    cosine = np.asarray(_outputs(problem, padded, X))[:count, :count]
    chosen: list[int] = []
    for i in range(count):
        if len(chosen) < most and (not chosen or cosine[i, chosen].max() < 0.95):
            chosen.append(i)
    return np.asarray(chosen)


_search = jax.jit(ascent.search, static_argnums=(0, 1, 5))
