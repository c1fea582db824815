"""Positively homogeneous regularizers theta of one subnetwork, and the two that HV17 and K18 study.

    product_of_norms:  theta(w) = prod_k ||w_k||
    sum_of_powers:     theta(w) = 1/p sum_k ||w_k||^p

with l1, l2 (Frobenius) or l-inf norms of each layer's entries, or the mixed norm l21, the sum of the l2 norms of a
kernel's rows, one for each unit below. The degrees are the number of layers and p. If both equal the degree of the map,
the two regularizers have the same induced function Omega and the same polar, since the sum becomes the product when the
norms of the layers are balanced (inequality of arithmetic and geometric means).

Path norms are in `path_norms`, non-negative weights in `cones`.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from globopt_jax.homogeneous.maps import ElementalMap
from globopt_jax.homogeneous.norms import along_face, check_norms, norm, norm_power
from globopt_jax.inputs import one_of, positive_degree
from globopt_jax.shapes import Scalar, Weights

__all__ = ["CustomRegularizer", "Layered", "ProductOfNorms", "Regularizer", "SumOfPowers"]
__all__ += ["by_name", "product_of_norms", "regularizer", "sum_of_powers"]


class Regularizer(abc.ABC):
    """A positively homogeneous penalty ``theta(weights)`` of one subnetwork.

    The methods that are not abstract are right for a penalty of which only the degree is known.
    """

    #: The name in files.
    name: str = "own"
    #: Whether it is >= 0 and homogeneous by construction. If not, that is measured before a bound rests on it.
    is_known: bool = False
    #: Whether scale can go from one layer to another without a change of the penalty.
    moves_scale: bool = False

    @property
    @abc.abstractmethod
    def degree(self) -> int | float | None:
        """The p with ``theta(a w) = a^p theta(w)``; None while no map has bound it."""

    @abc.abstractmethod
    def __call__(self, weights: Weights) -> Any:
        """The penalty of one subnetwork, a scalar >= 0."""

    @abc.abstractmethod
    def bind(self, phi: ElementalMap) -> "Regularizer":
        """The same penalty with its free exponent fixed by phi."""

    @property
    def is_l2(self) -> bool:
        """Whether it is known to consist of l2 norms, so that it has no kinks but at zero layers."""
        return False

    @property
    def has_corners(self) -> bool:
        """Whether it is known to have kinks that descent follows (`face`) and that maxima of the polar sit at."""
        return False

    def balance(self, weights: Weights) -> Weights:
        """The same subnetwork with scale shared among its layers in the cheapest way that is known."""
        return weights

    def face(self, weights: Weights, gradient: Weights) -> Weights:
        """The gradient's part along which theta is smooth at the weights of one subnetwork."""
        return gradient

    @property
    def is_cone(self) -> bool:
        """Whether theta is infinite outside of a cone, onto which `project` projects."""
        return False

    def project(self, weights: Weights) -> Weights:
        """The closest weights at which theta is finite."""
        return weights

    def inward(self, weights: Weights, gradient: Weights) -> Weights:
        """The gradient without the entries along which a descent would leave the cone at once."""
        del weights
        return gradient


@dataclass(frozen=True)
class Layered(Regularizer):
    """A regularizer of the layers' norms: the part that both kinds share."""

    norms: str | tuple[str, ...] = "l2"
    #: The degree of the map, which is its number of weight layers.
    layers: int | float | None = None
    #: Whether the map has degree 1 in every layer, so that scale may go from one layer to another.
    multilinear: bool = True
    is_known = True

    def __call__(self, weights: Weights) -> Scalar:
        return _compiled(self, weights)

    @abc.abstractmethod
    def _penalty(self, weights: Weights) -> Scalar:
        """The penalty of one subnetwork."""

    @property
    def is_l2(self) -> bool:
        return set(self.norms) == {"l2"} if isinstance(self.norms, tuple) else self.norms == "l2"

    @property
    def has_corners(self) -> bool:
        return not self.is_l2

    def layer_norms(self, weights: Weights) -> tuple[str, ...]:
        """The norm's name for each layer of `weights`."""
        leaves = jax.tree.leaves(weights)
        names = (self.norms,) * len(leaves) if isinstance(self.norms, str) else self.norms
        if len(names) != len(leaves):
            raise ValueError(f"norms: Expected: one for each of the {len(leaves)} layers. Received: {self.norms}.")
        return names

    def face(self, weights: Weights, gradient: Weights) -> Weights:
        leaves, tree = jax.tree.flatten(weights)
        parts = zip(self.layer_norms(weights), leaves, jax.tree.leaves(gradient), strict=True)
        return jax.tree.unflatten(tree, [along_face(kind, w, g) for kind, w, g in parts])

    def balance(self, weights: Weights) -> Weights:
        """Scale the layers so that their norms are equal to their geometric mean; all are zero if one of them is.

        For a map of degree 1 in every layer, phi does not change, a sum of powers does not grow, and a product does not
        change. For any other map the weights are returned unchanged.
        """
        if not self.multilinear:
            return weights
        leaves, tree = jax.tree.flatten(weights)
        sizes = jnp.stack([norm(n, w) for n, w in zip(self.layer_norms(weights), leaves, strict=True)])
        alive = jnp.all(sizes > 0)
        safe = jnp.where(alive, sizes, 1)
        mean = jnp.exp(jnp.mean(jnp.log(safe)))
        factors = jnp.where(alive, mean / safe, 0)
        return jax.tree.unflatten(tree, [w * f for w, f in zip(leaves, factors, strict=True)])


@partial(jax.jit, static_argnums=0, inline=True)  # one program, where eager operations are ten
def _compiled(theta: Layered, weights: Weights) -> Scalar:
    return theta._penalty(weights)


@dataclass(frozen=True)
class ProductOfNorms(Layered):
    """``prod_k ||w_k||``, of the degree of the map; see `product_of_norms`."""

    name = "product_of_norms"
    moves_scale = True

    @property
    def degree(self) -> int | float | None:
        return self.layers

    def bind(self, phi: ElementalMap) -> "ProductOfNorms":
        return replace(self, layers=phi.degree, multilinear=phi.multilinear)

    def _penalty(self, weights: Weights) -> Scalar:
        leaves = jax.tree.leaves(weights)
        sizes = jnp.stack([norm(n, w) for n, w in zip(self.layer_norms(weights), leaves, strict=True)])
        # Small factors are multiplied by large ones first: in order, a partial product may underflow.
        while len(sizes) > 2:
            sizes = jnp.sort(sizes)
            half = len(sizes) // 2
            sizes = jnp.concatenate([sizes[:half] * sizes[::-1][:half], sizes[half : len(sizes) - half]])
        return jnp.prod(sizes)


@dataclass(frozen=True)
class SumOfPowers(Layered):
    """``1/p sum_k ||w_k||^p``; see `sum_of_powers`."""

    power: int | float | None = None
    name = "sum_of_powers"

    @property
    def degree(self) -> int | float | None:
        return self.power

    def bind(self, phi: ElementalMap) -> "SumOfPowers":
        power = phi.degree if self.power is None else self.power
        return replace(self, layers=phi.degree, power=power, multilinear=phi.multilinear)

    def _penalty(self, weights: Weights) -> Scalar:
        leaves = jax.tree.leaves(weights)
        p = len(leaves) if self.power is None else self.power
        powers = [norm_power(n, w, p) for n, w in zip(self.layer_norms(weights), leaves, strict=True)]
        return jnp.sum(jnp.stack(powers)) / p


@dataclass(frozen=True)
class CustomRegularizer(Regularizer):
    """A penalty of your own with the degree that you state."""

    fn: Callable[[Any], Any]
    stated: int | float

    @property
    def degree(self) -> int | float:
        return self.stated

    def bind(self, phi: ElementalMap) -> "CustomRegularizer":
        return self

    def __call__(self, weights: Weights) -> Any:  # a number, which is checked where it is used
        return self.fn(weights)


def product_of_norms(norms: str | tuple[str, ...] = "l2") -> ProductOfNorms:
    """Make ``theta(w) = prod_k ||w_k||``, of degree K (HV17 section 4). `Problem` binds the number of layers K.

    Args:
        norms: l1, l2, linf or l21, one for all layers or a tuple.

    Raises:
        ValueError: a norm other than l1, l2, linf, l21.

    >>> import jax.numpy as jnp
    >>> float(product_of_norms()((jnp.array([3.0, 4.0]), jnp.array([2.0]))))
    10.0
    """
    check_norms(norms)
    return ProductOfNorms(norms)


def sum_of_powers(power: int | float | None = None, norms: str | tuple[str, ...] = "l2") -> SumOfPowers:
    """Make ``theta(w) = 1/p sum_k ||w_k||^p``, of degree p (K18 chapter 3).

    Args:
        power: p; None is the map's number of weight layers, so that the degrees are equal. ``power=2`` is weight decay,
            ``1/2 sum_k ||w_k||^2``; its degree equals that of maps with two weight layers only.
        norms: l1, l2, linf or l21, one for all layers or a tuple.

    Raises:
        ValueError: p is not > 0, or a norm other than l1, l2, linf, l21.

    >>> import jax.numpy as jnp
    >>> float(sum_of_powers(2)((jnp.array([3.0, 4.0]), jnp.array([2.0]))))
    14.5
    """
    check_norms(norms)
    if power is not None and not power > 0:
        raise ValueError(f"power: Expected: a number > 0. Received: {power!r}.")
    return SumOfPowers(norms, power=power)


def by_name(name: str, norms: str | tuple[str, ...] = "l2", argument: str = "theta") -> ProductOfNorms | SumOfPowers:
    """The regularizer of a name: sum_of_powers or product_of_norms.

    Args:
        name: the name.
        norms: l1, l2, linf or l21, one for all layers or a tuple.
        argument: the argument that an error names.

    Raises:
        ValueError: no such regularizer, or a norm other than l1, l2, linf, l21.

    >>> by_name("product_of_norms").norms
    'l2'
    """
    makers = {"sum_of_powers": sum_of_powers, "product_of_norms": product_of_norms}
    also = ", or a penalty such as path_norm(2)" if argument == "theta" else ""
    return makers[one_of(argument, name, makers, also)](norms=norms)


def regularizer(fn: Callable[[Any], Any], *, degree: int | float) -> CustomRegularizer:
    """Make a penalty of your own, ``fn(weights) -> scalar >= 0``, of the stated degree.

    Degree and sign are measured at random weights before anything is certified.

    Args:
        fn: a function of one subnetwork's weights (a pytree of arrays).
        degree: the degree p > 0 with ``fn(a w) = a^p fn(w)``.

    Raises:
        ValueError: degree is not a number > 0.

    >>> import jax.numpy as jnp
    >>> theta = regularizer(lambda w: jnp.sum(jnp.abs(w[0])) * jnp.max(jnp.abs(w[1])), degree=2)
    >>> float(theta((jnp.array([1.0, -2.0]), jnp.array([3.0]))))
    9.0
    """
    return CustomRegularizer(fn, positive_degree(degree))
