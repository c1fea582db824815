"""Better dual points, by gradient ascent in the dual point and the multipliers of the polar's bound.

Every U in the domain of the loss's conjugate, with any multipliers, proves the lower bound

    max over s of -loss*(s U),   0 <= s <= lam / bound(U),

where bound(U) is the upper bound of the polar that the multipliers prove. So U and the multipliers can be chosen to
make the lower bound large. First the multipliers are fitted to the residual at hand, which also bounds its polar. Then
U and the multipliers are fitted together, which solves a convex relaxation of the training problem. All numbers here
are estimates in the dtype of the data; `rigorous` evaluates the results.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from globopt_jax.homogeneous.duality import scaled
from globopt_jax.homogeneous.polar import relaxation
from globopt_jax.losses import Loss
from globopt_jax.shapes import Array, Inputs, Scalar, Targets

__all__ = ["Ascent", "Fitted", "ascend", "begin"]


class Ascent(NamedTuple):
    """The state of an ascent."""

    free: Array
    """The loss's dual coordinates, divided by their size at the start."""
    coordinates: relaxation.Coordinates
    """The coordinates of the multipliers."""
    best_free: Array
    """The dual coordinates of the best point so far."""
    best_coordinates: relaxation.Coordinates
    """The multipliers' coordinates of the best point so far."""
    value: Array
    """The smallest cost so far: log(bound / lam) of a fixed dual point, minus the lower bound of a moving one."""
    optimizer: Any
    """The optimizer's state."""
    step: Array
    """The number of steps taken."""


@lru_cache
def _optimizer(joint: bool, steps: int) -> optax.GradientTransformation:
    """Adam with cosine decay: large steps for logarithms of multipliers, small ones for the dual point."""

    def adam(rate: float) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(rate, steps), b2=0.95)

    # Rates: the fastest of a grid on the digits; the dual point moves more slowly than the cuts that follow it.
    rates: dict[Any, Any] = {"free": adam(0.01), "coordinates": adam(0.05)} if joint else {"coordinates": adam(0.2)}
    labels = {"free": "free", "coordinates": "coordinates"} if joint else {"coordinates": "coordinates"}
    return optax.multi_transform(rates, labels)


def _point(loss: Loss, free: Array, scale: Scalar, Y: Targets) -> Array:
    return loss.dual_point(free * scale, Y)


@partial(jax.jit, static_argnames=("loss", "slopes", "joint", "steps", "chunk"))
def _chunk(
    state: Ascent,
    X: Inputs,
    Y: Targets,
    lam: Scalar,
    scale: Scalar,
    unit: Scalar,
    *,
    loss: Loss,
    slopes: tuple[float, float],
    joint: bool,
    steps: int,
    chunk: int,
) -> Ascent:
    """`chunk` Adam steps; the best point is kept, since Adam wanders."""
    optimizer = _optimizer(joint, steps)

    def cost(p: Any) -> Scalar:
        U = _point(loss, p.get("free", state.free), scale, Y)
        bound = relaxation.bound(U, X, slopes, p["coordinates"])
        if not joint:
            return jnp.log(bound / lam)
        return -scaled(loss, U, Y, bound, lam)[1] / unit

    def advance(carry: Any, _: None) -> tuple[Any, None]:
        p, best, best_cost, opt = carry
        now, g = jax.value_and_grad(cost)(p)
        better = now < best_cost
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), p, best)
        g = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0), g)
        with jax.numpy_dtype_promotion("standard"):
            moves, opt = optimizer.update(g, opt, p)
            p = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), optax.apply_updates(p, moves), p)
        return (p, best, jnp.minimum(best_cost, now), opt), None

    p: dict[str, Any] = {"coordinates": state.coordinates}
    best: dict[str, Any] = {"coordinates": state.best_coordinates}
    if joint:
        p["free"], best["free"] = state.free, state.best_free
    (p, best, value, opt), _ = jax.lax.scan(advance, (p, best, state.value, state.optimizer), length=chunk)
    return Ascent(
        p.get("free", state.free),
        p["coordinates"],
        best.get("free", state.best_free),
        best["coordinates"],
        value,
        opt,
        state.step + chunk,
    )


class Fitted(NamedTuple):
    """What an ascent has found so far."""

    U: Array
    """The best dual point, not yet scaled."""
    coordinates: relaxation.Coordinates
    """The coordinates of its multipliers."""
    steps: int
    """The number of steps taken."""
    state: Ascent
    """What the next step needs."""


def begin(free: Array, start: relaxation.Coordinates, *, joint: bool, steps: int) -> Ascent:
    """The state before the first step of `ascend`."""
    p: Any = {"coordinates": start, "free": free} if joint else {"coordinates": start}
    with jax.numpy_dtype_promotion("standard"):
        opt = _optimizer(joint, steps).init(p)
    return Ascent(free, start, free, start, jnp.asarray(jnp.inf, free.dtype), opt, jnp.asarray(0))


def ascend(
    loss: Loss,
    slopes: tuple[float, float],
    lam: float,
    U: Targets,
    X: Inputs,
    Y: Targets,
    *,
    start: relaxation.Coordinates,
    joint: bool,
    steps: int,
    unit: float,
    chunk: int = 100,
    state: Ascent | None = None,
) -> Iterator[Fitted]:
    """Fit multipliers (and the dual point, if joint) from a start; yields after every chunk of steps.

    Args:
        loss: the loss.
        slopes: the negative and the positive slope of the activation.
        lam: the strength of the regularizer.
        U: the dual point to start from, in the conjugate's domain.
        X: inputs (m, dx).
        Y: targets (m, dy), perhaps with padding (`samples.Padded`).
        start: the multipliers' coordinates to start from.
        joint: whether the dual point moves too.
        steps: the number of Adam steps in all, >= 1.
        unit: the size of the objective, by which Adam's cost is divided.
        chunk: the most steps between two yields.
        state: where an earlier call stopped.
    """
    free = loss.dual_coordinates(U, Y)
    scale = jnp.sqrt(jnp.mean(free * free, where=~jnp.isnan(Y)))  # targets of NaN are padding
    scale = jnp.where(scale > 0, scale, 1) if loss.name == "squared" else jnp.ones_like(scale)
    free = free / scale
    dtype = free.dtype
    now = begin(free, start, joint=joint, steps=steps) if state is None else state
    numbers = [jnp.asarray(a, dtype) for a in (lam, scale, unit)]
    # Pieces of equal size where possible, since every other size is compiled again.
    pieces = -(-steps // chunk)
    chunk = -(-steps // pieces)
    while int(now.step) < steps:
        size = min(chunk, steps - int(now.step))
        options: dict[str, Any] = {
            "loss": loss,
            "slopes": slopes,
            "joint": joint,
            "steps": steps,
            "chunk": size,
        }
        now = _chunk(now, X, Y, *numbers, **options)
        best = U if not joint else _point(loss, now.best_free, jnp.asarray(scale, dtype), Y)
        yield Fitted(best, now.best_coordinates, int(now.step), now)
