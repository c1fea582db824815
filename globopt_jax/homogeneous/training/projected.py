"""Descent in a cone: the projected gradient method with spectral step sizes, as an optax optimizer."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from globopt_jax.homogeneous.regularizers import Regularizer
from globopt_jax.shapes import Array, Params, Scalar

__all__ = ["projected_gradient"]

#: The smallest and the largest step size, and the halvings after which the line search gives up.
STEPS, HALVINGS = (1e-12, 1e12), 40


class _State(NamedTuple):
    """The last weights and gradient, from which the next step size follows, and whether there are any."""

    params: Params
    gradient: Params
    started: jax.Array


@lru_cache
def projected_gradient(theta: Regularizer) -> optax.GradientTransformationExtraArgs:
    """Make the spectral projected gradient method (Birgin, Martinez and Raydan 2000) for the cone of a penalty.

    A step goes towards ``P(w - a g)``, P the projection onto the cone in which theta is finite, with the step size a of
    Barzilai and Borwein, and is halved until the objective falls (Armijo's rule). So no step leaves the cone.

    Args:
        theta: the penalty of one subnetwork.
    """

    def init(params: Params) -> _State:
        return _State(params, jax.tree.map(jnp.zeros_like, params), jnp.asarray(False))

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any) -> tuple[Params, _State]:
        value: Scalar = extra["value"]
        value_fn: Callable[[Params], Scalar] = extra["value_fn"]
        moved = jax.tree.map(jnp.subtract, params, state.params)
        turned = jax.tree.map(jnp.subtract, updates, state.gradient)
        curvature = jnp.asarray(optax.tree.vdot(moved, turned))
        spectral = optax.tree.vdot(moved, moved) / jnp.where(curvature > 0, curvature, 1)
        size = jnp.asarray(optax.tree.norm(updates))
        # The first step, and one after negative curvature, moves the weights by their own length at most.
        plain = optax.tree.norm(params) / jnp.where(size > 0, size, 1)
        step = jnp.clip(jnp.where(state.started & (curvature > 0), spectral, plain), *STEPS)
        aim = jax.vmap(theta.project)(jax.tree.map(lambda w, g: w - step * g, params, updates))
        way = jax.tree.map(jnp.subtract, aim, params)
        slope = optax.tree.vdot(updates, way)

        def at(t: Scalar) -> Params:
            return jax.tree.map(lambda w, d: w + t * d, params, way)

        def too_far(carry: tuple[Scalar, Array]) -> jax.Array:
            t, halvings = carry
            return jnp.asarray(halvings < HALVINGS) & ~(value_fn(at(t)) <= value + 1e-4 * t * slope)

        t, halvings = jax.lax.while_loop(too_far, lambda c: (c[0] / 2, c[1] + 1), (jnp.ones_like(step), jnp.asarray(0)))
        t = jnp.where(halvings < HALVINGS, t, 0)
        return jax.tree.map(lambda d: t * d, way), _State(params, updates, jnp.asarray(True))

    return optax.GradientTransformationExtraArgs(init, update)
