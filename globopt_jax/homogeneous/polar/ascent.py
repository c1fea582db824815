"""Multi-start ascent for the polar ``sup <U, phi(w)>`` over ``theta(w) <= 1``: a lower bound, never an upper one.

Every start moves along the gradient of ``<U, phi(w / theta(w)^{1/p})>``, normalized layer by layer, by an angle that
decays geometrically, and keeps the best point on its way. The method needs no step size and no smoothness (at kinks it
is a subgradient method), and it vmaps over the starts.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from globopt_jax.homogeneous.maps import ElementalMap
from globopt_jax.homogeneous.norms import best_reply
from globopt_jax.homogeneous.regularizers import Layered, Regularizer
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets, Weights

__all__ = ["Search", "normalize", "search", "starts"]


class Search(NamedTuple):
    """Where the ascents from n starts ended."""

    value: Scalar
    """The best value, a lower bound of the polar."""
    values: Float[Array, " n"]
    """The values of all starts, best first."""
    params: Params
    """The subnetworks that attain them, scaled to theta = 1."""


def normalize(theta: Regularizer, weights: Weights) -> Weights:
    """Return the subnetwork scaled to ``theta = 1``, or unscaled if theta is 0; theta balances its layers if it can.

    Weights outside of the cone in which theta is finite are projected onto it first.
    """
    weights = theta.balance(theta.project(weights))
    size = theta(weights)
    if theta.degree is None:
        raise ValueError("theta: Expected: a regularizer bound to a map (`Problem` does it, or theta.bind(phi)).")
    degree = theta.degree
    factor = jnp.where(size > 0, jnp.where(size > 0, size, 1) ** (-1 / degree), 1)
    return jax.tree.map(lambda w: w * factor, weights)


@partial(jax.jit, static_argnums=(0, 4))
def starts(phi: ElementalMap, template: Params, X: Inputs, key: Array, count: int) -> Params:
    """Return random subnetworks shaped like `template`; in every other one the first layer points along samples."""
    leaves, tree = jax.tree.flatten(template)
    keys = jax.random.split(key, len(leaves) + 2)
    random = [jax.random.normal(k, (count, *w.shape[1:]), w.dtype) for k, w in zip(keys[2:], leaves, strict=True)]
    if phi.is_known:
        first = random[0]
        units = first.reshape(count, X.shape[1], -1).shape[2]
        rows = X[jax.random.randint(keys[0], (count, units), 0, X.shape[0])]
        signs = jax.random.rademacher(keys[1], (count, units, 1), X.dtype)
        looking = (rows * signs).transpose(0, 2, 1).reshape(first.shape)
        even = (jnp.arange(count) % 2 == 0).reshape(-1, *[1] * (first.ndim - 1))
        # A sample of zeros would give a subnetwork without gradient: keep the random direction there.
        dead = jnp.sum(jnp.abs(looking), axis=tuple(range(1, first.ndim)), keepdims=True) == 0
        random[0] = jnp.where(even & ~dead, looking, first)
    return jax.tree.unflatten(tree, random)


def search(phi: ElementalMap, theta: Regularizer, U: Targets, X: Inputs, initial: Params, steps: int = 200) -> Search:
    """Ascend from every initial subnetwork; a pure function of arrays that vmaps over U, X and the starts.

    Args:
        phi: the map.
        theta: the regularizer, of the same degree.
        U: the point (m, dy) at which the polar is wanted; for a certificate minus the loss's gradient.
        X: inputs (m, dx).
        initial: starting subnetworks on a leading axis.
        steps: number of ascent steps; the step angle falls from 0.5 to 1e-4 over them.

    Returns:
        A `Search`; its value is attained by the first of its subnetworks, so it is a true lower bound of the polar (up
        to the rounding of one evaluation).
    """

    values, params = jax.vmap(lambda w: _climb(phi, theta, U, X, w, steps))(initial)
    order = jnp.argsort(-values)
    params = jax.tree.map(lambda w: w[order], params)
    # phi = 0 is always allowed, so the supremum is at least 0.
    return Search(jnp.maximum(values[order[0]], 0), values[order], params)


def _unit(w: Array) -> Array:
    """``w / ||w||``, or zeros."""
    size = jnp.sqrt(jnp.sum(w * w))
    return w / jnp.where(size > 0, size, 1)


def _climb(
    phi: ElementalMap, theta: Regularizer, U: Targets, X: Inputs, weights: Weights, steps: int
) -> tuple[Scalar, Weights]:
    """Return the best value, and its subnetwork, on the ascent from one start."""

    def value(weights: Weights) -> Scalar:
        return phi.inner(normalize(theta, weights), U, X)

    def step(carry: Any, angle: Scalar) -> tuple[Any, None]:
        w, best, best_value = carry
        now, g = jax.value_and_grad(value)(w)
        better = now > best_value
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), w, best)
        best_value = jnp.where(better, now, best_value)
        sizes = jax.tree.map(lambda a: jnp.sqrt(jnp.sum(a * a)), w)
        moved = jax.tree.map(lambda a, s, d: a + angle * s * _unit(d), w, sizes, g)
        return (normalize(theta, moved), best, best_value), None

    weights = normalize(theta, weights)
    ratio = jnp.linspace(0, 1, steps, dtype=U.dtype)
    angles = 0.5 * jnp.asarray(2e-4, U.dtype) ** ratio
    (w, best, best_value), _ = jax.lax.scan(step, (weights, weights, value(weights)), angles)
    last = value(w)
    best = jax.tree.map(lambda a, b: jnp.where(last > best_value, a, b), w, best)
    best_value = jnp.maximum(last, best_value)
    if not isinstance(theta, Layered) or not theta.has_corners:
        return best_value, best
    # On unit balls with corners, best replies of one layer after the other end exactly in a corner.
    return jax.lax.fori_loop(0, 10, lambda _, c: _replies(phi, theta, U, X, *c), (best_value, best))


def _replies(
    phi: ElementalMap, theta: Layered, U: Targets, X: Inputs, best_value: Scalar, best: Weights
) -> tuple[Scalar, Weights]:
    """Do one round of best replies: each layer in turn maximizes with the others fixed, if that increases the value."""
    leaves, tree = jax.tree.flatten(best)
    for k, kind in enumerate(theta.layer_norms(best)):
        g = jax.grad(lambda w: phi.inner(w, U, X))(jax.tree.unflatten(tree, leaves))
        reply = [*leaves[:k], best_reply(kind, jax.tree.leaves(g)[k]), *leaves[k + 1 :]]
        reply = jax.tree.leaves(normalize(theta, jax.tree.unflatten(tree, reply)))
        now = phi.inner(normalize(theta, jax.tree.unflatten(tree, reply)), U, X)
        leaves = [jnp.where(now > best_value, a, b) for a, b in zip(reply, leaves, strict=True)]
        best_value = jnp.maximum(now, best_value)
    return best_value, jax.tree.unflatten(tree, leaves)
