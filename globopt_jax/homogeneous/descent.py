"""Local descent by any optax optimizer, compiled once per shape, keeping the best point it saw."""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from globopt_jax.homogeneous.problem import Problem, objective, penalty
from globopt_jax.homogeneous.regularizers import Layered
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets

__all__ = ["Descent", "default_optimizer", "descend"]


class Descent(NamedTuple):
    """The best point, its objective, whether its gradient is as small as was asked, and the number of steps taken."""

    params: Params
    objective: Scalar
    converged: Array
    steps: Scalar


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

    With a width, the objective is the one with kinks rounded over ``|a| <= width`` (of catalogue maps).

    Stops early when the gradient's norm is at most ``tolerance f^{1 - 1/p} lam^{1/p}`` with f the objective and p the
    degree, or when the best objective has not moved for 30 steps, as happens at the kinks of ReLU problems. Weights W
    with ``lam theta(W) = f`` have the size ``(f / lam)^{1/p}``, so the rule asks for f and the change of f along W and
    means the same in all units.
    """
    update = optax.with_extra_args_support(optimizer).update

    def f(p: Params) -> Scalar:
        if width is None:
            return objective(problem, p, X, Y)
        fit = problem.loss(problem.phi.smoothed(p, X, width), Y)  # pyright: ignore[reportAttributeAccessIssue]
        return fit + jnp.asarray(problem.lam, fit.dtype) * jnp.sum(penalty(problem, p))

    leaves = jax.tree.leaves(params)
    living = jnp.any(jnp.stack([jnp.any(w != 0, axis=tuple(range(1, w.ndim))) for w in leaves]), axis=0)
    kinked = isinstance(problem.theta, Layered) and not problem.theta.smooth(params)

    def value_and_grad(p: Params) -> tuple[Scalar, Params]:
        value, g = jax.value_and_grad(f)(p)
        # An l1 norm's zeros and an l-inf norm's ties hold on: across them the line search would find no step.
        g = jax.vmap(problem.theta.face)(params, g) if kinked else g  # pyright: ignore[reportAttributeAccessIssue]
        # Zero subnetworks stay zero, also where a user's map has no derivative there.
        return value, jax.tree.map(lambda a: jnp.where(living.reshape(-1, *[1] * (a.ndim - 1)), a, 0), g)

    first, g0 = value_and_grad(params)
    eps = jnp.finfo(first.dtype).eps

    share = 1 / problem.phi.degree
    small = tolerance * jnp.asarray(problem.lam, first.dtype) ** share

    def sharp(value: Scalar, gradient_norm: Scalar) -> jax.Array:
        return gradient_norm <= small * jnp.abs(value) ** (1 - share)

    def go_on(carry: Any) -> jax.Array:
        _, _, _, best_value, _, gradient_norm, still, step = carry
        return (step < steps) & (still < 30) & ~sharp(best_value, gradient_norm)

    def advance(carry: Any) -> Any:
        p, opt, best, best_value, best_norm, _, still, step = carry
        value, g = value_and_grad(p)
        size = optax.tree.norm(g)
        with jax.numpy_dtype_promotion("standard"):  # optax's optimizers mix dtypes
            moves, opt = update(g, opt, p, value=value, grad=g, value_fn=f)
            moved = optax.apply_updates(p, moves)
        # A line search that found no step leaves p where it is; a NaN never becomes the best point.
        better = value < best_value
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), p, best)
        still = jnp.where(value < best_value - 4 * eps * jnp.abs(best_value), 0, still + 1)
        best_norm = jnp.where(better, size, best_norm)
        best_value = jnp.where(better, value, best_value)
        moved = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), moved, p)
        return moved, opt, best, best_value, best_norm, size, still, step + 1

    size0 = optax.tree.norm(g0)
    with jax.numpy_dtype_promotion("standard"):
        opt0 = optimizer.init(params)
    start = (params, opt0, params, first, size0, size0, jnp.asarray(0), jnp.asarray(0))
    p, _, best, best_value, best_norm, _, _, taken = jax.lax.while_loop(go_on, advance, start)
    last, g = value_and_grad(p)
    better = last < best_value
    best = jax.tree.map(lambda a, b: jnp.where(better, a, b), p, best)
    norm = jnp.where(better, optax.tree.norm(g), best_norm)
    value = jnp.where(better, last, best_value)
    return Descent(best, value, sharp(value, norm), taken)
