"""The lower bound that a dual point gives, given its polar: the loss's conjugate at the best multiple of the point."""

from functools import partial

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.losses import Loss
from globopt_jax.shapes import Scalar, Targets

__all__ = ["bound_if", "scaled"]


def scaled(loss: Loss, U: Targets, Y: Targets, bound: Scalar, lam: Scalar) -> tuple[Scalar, Scalar]:
    """The best s in ``[0, min(lam / bound, limit of the domain)]`` and the value ``-loss*(s U)`` there."""
    ratio = jnp.where(bound > 0, lam / jnp.where(bound > 0, bound, 1), jnp.inf)
    upper = jnp.minimum(ratio, loss.dual_limit(U, Y) * (1 - 4 * linalg.machine_epsilon(U.dtype)))
    upper = jnp.where(jnp.isfinite(upper), upper, 1.0)
    s = loss.best_scale(U, Y, upper)
    return s, -loss.conjugate(s * U, Y)


@partial(jax.jit, static_argnums=0)
def bound_if(loss: Loss, G: Targets, Y: Targets, polar: Scalar, lam: Scalar) -> Scalar:
    """The lower bound of the objective that would hold if the polar at -G were `polar`."""
    _, bound = scaled(loss, G, Y, polar, lam)
    return jnp.maximum(bound, -loss.conjugate(jnp.zeros_like(Y), Y))
