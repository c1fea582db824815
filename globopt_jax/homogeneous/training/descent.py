"""Local descent by any optax optimizer, compiled once per shape, keeping the best point it saw."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from globopt_jax import linalg
from globopt_jax.homogeneous.problem import Problem, objective, penalty
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets

__all__ = ["Descent", "default_optimizer", "descend"]


class Descent(NamedTuple):
    """Where a descent ended."""

    params: Params
    """The best point."""
    objective: Scalar
    """Its objective."""
    converged: Array
    """Whether its gradient is as small as was asked."""
    steps: Scalar
    """The number of steps taken."""


@lru_cache
def default_optimizer() -> optax.GradientTransformationExtraArgs:
    """L-BFGS with a memory of 20 and optax's zoom line search: it ends sharply where the objective is smooth."""
    return optax.lbfgs(memory_size=20)


@partial(jax.jit, static_argnames=("optimizer", "steps"))
def descend(
    problem: Problem,
    params: Params,
    X: Inputs,
    Y: Targets,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    tolerance: Scalar,
    width: Scalar | None = None,
) -> Descent:
    """At most `steps` optimizer steps from params; never hands back a point with a larger objective.

    Where theta is infinite outside of a cone, each step is projected onto the cone.

    With a width, the objective is the one with kinks rounded over ``|a| <= width`` (of catalogue maps).

    Stops early when the gradient's norm is at most ``tolerance f^{1 - 1/p} lam^{1/p}`` with f the objective and p the
    degree, or when the best objective has not moved for 30 steps, as happens at the kinks of ReLU problems. Weights W
    with ``lam theta(W) = f`` have the size ``(f / lam)^{1/p}``, so the rule asks for f and the change of f along W and
    means the same in all units.
    """
    value_and_grad = partial(_value_and_grad, problem, X, Y, width, params)
    first, g0 = value_and_grad(params)
    eps = linalg.machine_epsilon(first.dtype)
    share = 1 / problem.phi.degree
    small = tolerance * jnp.asarray(problem.lam, first.dtype) ** share

    def sharp(value: Scalar, gradient_norm: Scalar) -> jax.Array:
        return gradient_norm <= small * jnp.abs(value) ** (1 - share)

    def go_on(s: _State) -> jax.Array:
        return jnp.asarray((s.step < steps) & (s.still < 30) & ~sharp(s.best_value, s.norm))

    def advance(s: _State) -> _State:
        value, g = value_and_grad(s.params)
        size = optax.tree.norm(g)
        moved, opt = _moved(optimizer, problem.theta.project, s, value, g, partial(_objective, problem, X, Y, width))
        better = value < s.best_value
        return _State(
            moved,
            opt,
            best=jax.tree.map(lambda a, b: jnp.where(better, a, b), s.params, s.best),
            best_value=jnp.where(better, value, s.best_value),
            best_norm=jnp.where(better, size, s.best_norm),
            norm=size,
            still=jnp.where(value < s.best_value - 4 * eps * jnp.abs(s.best_value), 0, s.still + 1),
            step=s.step + 1,
        )

    size0 = optax.tree.norm(g0)
    with jax.numpy_dtype_promotion("standard"):
        opt0 = optimizer.init(params)
    zero = jnp.asarray(0)
    end = jax.lax.while_loop(go_on, advance, _State(params, opt0, params, first, size0, size0, zero, zero))
    last, g = value_and_grad(end.params)
    better = last < end.best_value
    best = jax.tree.map(lambda a, b: jnp.where(better, a, b), end.params, end.best)
    norm = jnp.where(better, optax.tree.norm(g), end.best_norm)
    value = jnp.where(better, last, end.best_value)
    return Descent(best, value, sharp(value, norm), end.step)


class _State(NamedTuple):
    """Where the optimizer stands, the best point so far with the norm of its gradient, and steps without gain."""

    params: Params
    optimizer: Any
    best: Params
    best_value: Scalar
    best_norm: Scalar
    norm: Scalar
    still: Array
    step: Array


def _objective(problem: Problem, X: Inputs, Y: Targets, width: Scalar | None, params: Params) -> Scalar:
    """The objective, its kinks rounded over ``|a| <= width``."""
    if width is None:
        return objective(problem, params, X, Y)
    phi: Any = problem.phi  # a map of the catalogue, which has `smoothed`
    fit = problem.loss(phi.smoothed(params, X, width), Y)
    return fit + jnp.asarray(problem.lam, fit.dtype) * jnp.sum(penalty(problem, params))


def _value_and_grad(
    problem: Problem, X: Inputs, Y: Targets, width: Scalar | None, start: Params, params: Params
) -> tuple[Scalar, Params]:
    """The objective, and its gradient as far as a descent from `start` may follow it."""
    value, g = jax.value_and_grad(partial(_objective, problem, X, Y, width))(params)
    # An l1 norm's zeros and an l-inf norm's ties hold on: across them the line search would find no step.
    g = jax.vmap(problem.theta.face)(start, g)
    g = jax.vmap(problem.theta.inward)(params, g)
    # Zero subnetworks stay zero, also where a user's map has no derivative there.
    flat = [w.reshape(len(w), -1) for w in jax.tree.leaves(start)]
    living = jnp.any(jnp.concatenate(flat, axis=1) != 0, axis=1)
    return value, jax.tree.map(lambda a: jnp.where(living.reshape(-1, *[1] * (a.ndim - 1)), a, 0), g)


def _moved(
    optimizer: optax.GradientTransformation,
    project: Callable[[Any], Any],
    s: _State,
    value: Scalar,
    g: Params,
    f: Callable[[Params], Scalar],
) -> tuple[Params, Any]:
    """One step of the optimizer, projected. A line search that found no step leaves the weights where they are."""
    update = optax.with_extra_args_support(optimizer).update
    with jax.numpy_dtype_promotion("standard"):  # optax's optimizers mix dtypes
        moves, opt = update(g, s.optimizer, s.params, value=value, grad=g, value_fn=f)
        moved = jax.vmap(project)(optax.apply_updates(s.params, moves))
    return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), moved, s.params), opt
