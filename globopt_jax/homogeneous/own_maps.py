"""Maps of your own: a function or a Flax module, with the degree that you state."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from globopt_jax.homogeneous.maps import ElementalMap
from globopt_jax.inputs import integer, positive_degree, typed_key
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets, Weights

__all__ = ["Elemental", "FlaxSubnetwork", "elemental", "flax_subnetwork"]


@dataclass(frozen=True)
class Elemental(ElementalMap):
    """A map of your own with the degree that you state; the degree is measured before a bound rests on it."""

    fn: Callable[[Any, Any], Any]
    stated: int | float

    @property
    def degree(self) -> int | float:
        return self.stated

    def __call__(self, weights: Weights, X: Inputs) -> Float[Array, "m dy"]:
        return self.fn(weights, X)

    def total(self, params: Params, X: Inputs) -> Float[Array, "m dy"]:
        """The sum of all subnetworks' outputs, shape (m, dy)."""
        return jnp.sum(jax.vmap(self.fn, (0, None))(params, X), axis=0)

    def inner(self, weights: Weights, U: Targets, X: Inputs) -> Scalar:
        """``<U, phi(weights, X)>``."""
        return jnp.sum(U * self.fn(weights, X))


@dataclass(frozen=True, eq=False)
class _Applied:
    """A linen module as a function of its parameters and of samples that are rows.

    It is compared by value, or by identity where the module cannot be hashed, such as a `linen.Sequential` of a list.
    """

    module: Any
    shape: tuple[int, ...]

    def _key(self) -> tuple[Any, ...]:
        try:
            _ = hash(self.module)
        except TypeError:
            return id(self.module), self.shape
        return self.module, self.shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Applied) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def check(self, dx: int) -> None:
        """Raise ValueError if rows of dx numbers are no samples of the shape."""
        if self.shape and dx != math.prod(self.shape):
            raise ValueError(
                f"X: Expected: rows of {math.prod(self.shape)} numbers, for samples of shape {self.shape}. Received: "
                f"rows of {dx}."
            )

    def __call__(self, weights: Weights, X: Inputs) -> Any:
        self.check(X.shape[1])
        samples = jnp.reshape(X, (len(X), *self.shape)) if self.shape else X
        with jax.numpy_dtype_promotion("standard"):  # some layers mix dtypes
            return jnp.reshape(self.module.apply({"params": weights}, samples), (len(X), -1))


@dataclass(frozen=True)
class FlaxSubnetwork(Elemental):
    """A linen module as the map of one subnetwork; see `flax_subnetwork`."""

    def init(self, key: Array, *, r: int, dx: int, dy: int = 0, widths: tuple[int, ...] = ()) -> Params:
        """r random subnetworks, drawn by the module itself; dy and widths follow from the module."""
        del dy, widths
        if r < 1:
            raise ValueError(f"r: Expected: at least one subnetwork. Received: {r}.")
        applied: Any = self.fn
        applied.check(dx)
        sample, keys = jnp.ones((1, *(applied.shape or (dx,)))), jax.random.split(typed_key(key), r)
        try:
            with jax.numpy_dtype_promotion("standard"):
                variables = jax.vmap(lambda k: applied.module.init(k, sample))(keys)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"shape: Expected: the shape of one sample as the module takes it. Received: {applied.shape or (dx,)}, "
                f"for which the module fails ({error})."
            ) from error
        if others := sorted(set(variables) - {"params"}):
            raise ValueError(
                "module: Expected: one whose variables are all parameters. Received: also "
                f"{', '.join(others)}, on which the output depends besides the weights."
            )
        return variables["params"]


def elemental(fn: Callable[[Any, Any], Any], *, degree: int | float) -> Elemental:
    """Make a map of your own, ``fn(weights, X) -> (m, dy)``, positively homogeneous of the stated degree.

    The degree is measured at random weights before anything is certified. Two maps are equal only if their fn is the
    same object, and a new map is compiled anew: define fn once, at module level.

    Args:
        fn: a function of one subnetwork's weights (a pytree of arrays) and the inputs X (m, dx).
        degree: the degree p > 0 with ``fn(a w, X) = a^p fn(w, X)``.

    Raises:
        ValueError: degree is not a number > 0.

    >>> import jax.numpy as jnp
    >>> cp = elemental(lambda w, X: jnp.outer(X @ w[0], w[1] * w[2]), degree=3)
    >>> cp([jnp.ones(2), jnp.ones(1), jnp.ones(1)], jnp.ones((4, 2))).shape
    (4, 1)
    """
    return Elemental(fn, positive_degree(degree))


def flax_subnetwork(module: Any, *, degree: int | float, shape: tuple[int, ...] = ()) -> FlaxSubnetwork:
    """Make the map of a subnetwork from a linen module, such as a small convolutional network.

    The degree counts the weight layers: convolutions and dense layers add 1 each. ReLU, leaky ReLU, max and average
    pooling do not change it, nor do sums whose branches have the same degree. The first layer may have a bias; a bias
    of a later layer has another degree than the kernels below it. The degree is measured at random weights before
    anything is certified, so that such a bias, or a sigmoid, is refused.

    Contrast or batch normalization sets the degree of all weights below it to 0 (with its epsilon, no degree exists at
    all). HV17 treats it as preprocessing of the next layer's input: compute the normalized features once, and make the
    layers above the last normalization the map, with these features as X.

    Args:
        module: a module of flax.linen whose variables are all parameters.
        degree: the degree p > 0.
        shape: the shape of one sample as the module takes it, such as (8, 8, 1); rows of X are reshaped to it. The
            outputs are flattened. () leaves the rows as they are.

    Raises:
        TypeError: the module is none of flax.linen. Of an nnx model take `elemental` of `networks.from_flax`.
        ValueError: degree is not a number > 0.

    >>> import jax, jax.numpy as jnp
    >>> from flax import linen
    >>> layers = [linen.Conv(3, (3, 3), use_bias=False), linen.relu, lambda z: linen.max_pool(z, (2, 2), (2, 2))]
    >>> layers += [lambda z: z.reshape(len(z), -1), linen.Dense(2, use_bias=False)]
    >>> phi = flax_subnetwork(linen.Sequential(layers), degree=2, shape=(4, 4, 1))
    >>> params = phi.init(jax.random.key(0), r=5, dx=16)
    >>> phi.total(params, jnp.ones((7, 16))).shape
    (7, 2)
    """
    from flax import linen  # imported late: the import takes a second that other users do not need

    if not isinstance(module, linen.Module):
        raise TypeError(f"module: Expected: a module of flax.linen. Received: {type(module).__name__}.")
    return FlaxSubnetwork(_Applied(module, tuple(integer("shape", d) for d in shape)), positive_degree(degree))
