"""The lower bound that a dual point gives, given its polar: the loss's conjugate at the best multiple of the point."""

import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.losses import Loss
from globopt_jax.shapes import Scalar, Targets

__all__ = ["scaled"]


def scaled(loss: Loss, U: Targets, Y: Targets, bound: Scalar, lam: Scalar) -> tuple[Scalar, Scalar]:
    """The best s in ``[0, min(lam / bound, limit of the domain)]`` and the value ``-loss*(s U)`` there."""
    ratio = jnp.where(bound > 0, lam / jnp.where(bound > 0, bound, 1), jnp.inf)
    upper = jnp.minimum(ratio, loss.dual_limit(U, Y) * (1 - 4 * linalg.machine_epsilon(U.dtype)))
    upper = jnp.where(jnp.isfinite(upper), upper, 1.0)
    s = loss.best_scale(U, Y, upper)
    return s, -loss.conjugate(s * U, Y)
