"""Penalties of weights in a cone: infinite outside of it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.homogeneous.maps import ElementalMap
from globopt_jax.homogeneous.regularizers import Regularizer, by_name
from globopt_jax.shapes import Scalar, Weights

__all__ = ["NonNegative", "non_negative"]


@dataclass(frozen=True)
class NonNegative(Regularizer):
    """A penalty that is infinite where a weight is negative; see `non_negative`."""

    theta: Regularizer
    """The penalty of weights that are all >= 0."""

    def __post_init__(self) -> None:
        for attribute in ("is_known", "moves_scale"):  # of the penalty inside the cone
            object.__setattr__(self, attribute, getattr(self.theta, attribute))

    @property
    def degree(self) -> int | float | None:
        return self.theta.degree

    @property
    def is_cone(self) -> bool:
        return True

    def bind(self, phi: ElementalMap) -> "NonNegative":
        return NonNegative(self.theta.bind(phi))

    def __call__(self, weights: Weights) -> Scalar:
        inside = jnp.all(jnp.stack([jnp.all(w >= 0) for w in jax.tree.leaves(weights)]))
        # At 0 the derivative is the one from above, at the smallest positive number: an l1 norm is a sum here.
        above = jax.tree.map(lambda w: jnp.where(w > 0, w, w + linalg.smallest_normal(w.dtype)), weights)
        sloped = self.theta(above)
        value = jax.lax.stop_gradient(self.theta(weights) - sloped) + sloped
        return jnp.where(inside, value, jnp.inf)

    def balance(self, weights: Weights) -> Weights:
        return self.theta.balance(weights)

    def project(self, weights: Weights) -> Weights:
        return jax.tree.map(lambda w: jnp.where(w >= 0, w, 0), self.theta.project(weights))

    def inward(self, weights: Weights, gradient: Weights) -> Weights:
        return jax.tree.map(lambda w, g: jnp.where((w <= 0) & (g > 0), 0, g), weights, gradient)


def non_negative(theta: Regularizer | str) -> NonNegative:
    """Make the penalty theta with non-negative weights: infinite where a weight is negative (HV17 section 5).

    The indicator of a cone is 0 on the cone and infinite elsewhere. It is positively homogeneous of every degree, so
    that it leaves the degree of theta unchanged. With rank-one maps and ``X = I`` the problem is non-negative
    matrix factorization. `minimize` keeps the weights in the cone by projected descent. The upper bounds of the
    polar are those of theta without the cone. They hold inside it too, but are less tight there.

    Args:
        theta: any penalty, or one of the names sum_of_powers and product_of_norms.

    Raises:
        TypeError: theta is no penalty.
        ValueError: an unknown name.

    >>> import jax.numpy as jnp
    >>> from globopt_jax.homogeneous import sum_of_powers
    >>> theta = non_negative(sum_of_powers(2))
    >>> float(theta((jnp.ones(2), jnp.ones(1)))), float(theta((jnp.ones(2), -jnp.ones(1))))
    (1.5, inf)
    """
    inner = by_name(theta) if isinstance(theta, str) else theta
    if not isinstance(inner, Regularizer):
        raise TypeError(f"theta: Expected: a regularizer, or its name. Received: {theta!r}.")
    return inner if isinstance(inner, NonNegative) else NonNegative(inner)
