"""Positively homogeneous elemental maps: one subnetwork of HV17's parallel networks.

A map phi has degree p if ``phi(a w, X) = a^p phi(w, X)`` for every a >= 0. Each weight layer adds 1 to the degree;
ReLU, leaky ReLU and the absolute value do not change it. The network is the sum of r such subnetworks.

A piecewise linear activation is given by a pair of slopes: ``act(a) = negative * a`` for a <= 0 and ``positive * a``
for a > 0. At the kink a = 0 its derivative is taken as the negative slope (0 for ReLU).
"""

import abc
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from globopt_jax.inputs import one_of, typed_key
from globopt_jax.linalg import matmul
from globopt_jax.networks import ACTIVATIONS
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets, Weights

__all__ = ["DeepSubnetwork", "ElementalMap", "Neuron", "PiecewiseLinear", "by_name", "deep_subnetwork"]
__all__ += ["neuron", "rank_one", "relu_neuron", "slopes_of"]

Activation = str | tuple[float, float]


def slopes_of(activation: Activation) -> tuple[float, float]:
    """Return the (negative, positive) slopes of a homogeneous activation.

    Args:
        activation: relu, leaky_relu, absolute, linear, or a pair of slopes (negative, positive).

    Raises:
        ValueError: the activation is not positively homogeneous of degree 1.

    >>> slopes_of("absolute")
    (-1.0, 1.0)
    """
    if isinstance(activation, str):
        also = ", or a pair of slopes (negative, positive), since others are not positively homogeneous"
        return ACTIVATIONS[one_of("activation", activation, ACTIVATIONS, also)]
    negative, positive = (float(slope) for slope in activation)
    if not (abs(negative) < float("inf") and abs(positive) < float("inf")) or negative == positive == 0:
        raise ValueError(f"activation: Expected: two finite slopes, not both 0. Received: {activation!r}.")
    return negative, positive


def act(slopes: tuple[float, float], a: Array) -> jax.Array:
    """The piecewise linear activation, entry by entry."""
    negative, positive = slopes
    return jnp.where(a > 0, jnp.asarray(positive * a), negative * a)


def smooth_act(slopes: tuple[float, float], a: Array, width: Scalar) -> jax.Array:
    """The activation with its kink replaced by a parabola over ``|a| <= width``; it grows by width/4 at most."""
    negative, positive = slopes
    rounded = jnp.where(jnp.abs(a) < width, (a + width) ** 2 / (4 * width), jnp.maximum(a, 0))
    return jnp.asarray(negative * a + (positive - negative) * rounded)


class ElementalMap(abc.ABC):
    """A positively homogeneous map ``phi(weights, X)`` of one subnetwork.

    The attributes say what is known about the map by its construction. The values here are those of a map of which only
    the degree is known.
    """

    #: Whether homogeneity is known by construction. If not, it is measured before a bound rests on it.
    is_known: bool = False
    #: Whether a subnetwork is one hidden unit, with weights (w1 (dx,), w2 (dy,)).
    is_neuron: bool = False
    #: Whether the map has degree 1 in every layer.
    multilinear: bool = False

    @property
    def has_kinks(self) -> bool:
        """Whether the derivative is known to jump where a pre-activation changes sign."""
        return False

    @property
    @abc.abstractmethod
    def degree(self) -> int | float:
        """The p with ``phi(a w) = a^p phi(w)`` for every a >= 0."""

    @abc.abstractmethod
    def __call__(self, weights: Weights, X: Inputs) -> Any:
        """The output of one subnetwork, shape (m, dy)."""

    @abc.abstractmethod
    def total(self, params: Params, X: Inputs) -> Any:
        """The sum of all subnetworks' outputs, shape (m, dy)."""

    @abc.abstractmethod
    def inner(self, weights: Weights, U: Targets, X: Inputs) -> Any:
        """``<U, phi(weights, X)>`` for U (m, dy), a scalar."""


class PiecewiseLinear(ElementalMap):
    """Layers of weights with a piecewise linear activation between them, without biases."""

    is_known = True
    multilinear = True
    slopes: tuple[float, float]
    layers: int

    @property
    def has_kinks(self) -> bool:
        return self.layers > 1 and self.slopes[0] != self.slopes[1]

    @property
    def degree(self) -> int:
        return self.layers

    @abc.abstractmethod
    def shapes(self, weights: list[tuple[int, ...]], dx: int, dy: int) -> str | None:
        """None if one subnetwork's weights may have these shapes; otherwise the shapes of r that are expected."""

    @abc.abstractmethod
    def thin(self, first: np.ndarray, last: np.ndarray, template: Params) -> Params:
        """Subnetworks with one unit a layer, weights 1 between the rows of `first` (n, dx) and of `last` (n, dy)."""

    @abc.abstractmethod
    def smoothed(self, params: Params, X: Inputs, width: Scalar) -> Any:
        """`total` with kinks rounded over ``|a| <= width``; subnetworks that are zero stay without effect."""

    @abc.abstractmethod
    def init(self, key: Array, *, r: int, dx: int, dy: int, widths: tuple[int, ...] = ()) -> Params:
        """r random subnetworks; widths are the hidden ones, () means all 1."""


@dataclass(frozen=True)
class Neuron(PiecewiseLinear):
    """``phi(w1, w2) = act(X w1) w2^T``: one hidden unit, degree 2; a rank-one matrix where act is linear.

    Weights are a pair (w1 (dx,), w2 (dy,)); r of them are a pair ((r, dx), (r, dy)).
    """

    slopes: tuple[float, float]
    layers = 2
    is_neuron = True

    def shapes(self, weights: list[tuple[int, ...]], dx: int, dy: int) -> str | None:
        return None if weights == [(dx,), (dy,)] else f"[(r, {dx}), (r, {dy})]"

    def thin(self, first: np.ndarray, last: np.ndarray, template: Params) -> Params:
        return jax.tree.unflatten(jax.tree.structure(template), [first, last])

    def __call__(self, weights: Weights, X: Inputs) -> Float[Array, "m dy"]:
        w1, w2 = weights
        return act(self.slopes, matmul(X, w1))[:, None] * w2[None, :]

    def total(self, params: Params, X: Inputs) -> Float[Array, "m dy"]:
        """The sum of all subnetworks' outputs, shape (m, dy)."""
        w1, w2 = params
        return matmul(act(self.slopes, matmul(X, w1.T)), w2)

    def smoothed(self, params: Params, X: Inputs, width: Scalar) -> Float[Array, "m dy"]:
        """`total` with rounded kinks; subnetworks that are zero stay without effect."""
        w1, w2 = params
        living = jnp.any(w2 != 0, axis=1, keepdims=True)
        return matmul(smooth_act(self.slopes, matmul(X, w1.T), width), jnp.where(living, w2, 0))

    def inner(self, weights: Weights, U: Targets, X: Inputs) -> Scalar:
        """``<U, phi(weights, X)>`` without forming the (m, dy) output."""
        w1, w2 = weights
        return jnp.sum(matmul(act(self.slopes, matmul(X, w1)), U) * w2)

    def init(self, key: Array, *, r: int, dx: int, dy: int, widths: tuple[int, ...] = ()) -> Params:
        """r random subnetworks, entries of standard deviation 1/sqrt(fan in); see `deep_subnetwork`."""
        w1, w2 = _init(key, r, (dx, *_widths(widths, 2), dy))
        return w1[:, :, 0], w2[:, 0, :]


@dataclass(frozen=True)
class DeepSubnetwork(PiecewiseLinear):
    """``phi(W_1..W_K) = act(... act(X W_1) ...) W_K``: K weight layers, degree K, no biases."""

    slopes: tuple[float, float]
    layers: int

    def shapes(self, weights: list[tuple[int, ...]], dx: int, dy: int) -> str | None:
        kernels = len(weights) == self.layers and all(len(s) == 2 for s in weights)
        chained = kernels and all(a[1] == b[0] for a, b in pairwise(weights))
        if chained and weights[0][0] == dx and weights[-1][1] == dy:
            return None
        return f"{self.layers} kernels (r, n_k-1, n_k) from {dx} to {dy}"

    def thin(self, first: np.ndarray, last: np.ndarray, template: Params) -> Params:
        leaves, tree = jax.tree.flatten(template)
        kernels = [np.zeros((len(first), *w.shape[1:])) for w in leaves]
        kernels[0][:, :, 0] = first
        for kernel in kernels[1:-1]:
            kernel[:, 0, 0] = 1
        kernels[-1][:, 0, :] = last
        return jax.tree.unflatten(tree, kernels)

    def hidden(self, weights: Weights, X: Inputs) -> Float[Array, "m n"]:
        """The features before the last weight layer."""
        Z = jnp.asarray(X)
        for kernel in weights[:-1]:
            Z = act(self.slopes, matmul(Z, kernel))
        return Z

    def __call__(self, weights: Weights, X: Inputs) -> Float[Array, "m dy"]:
        return matmul(self.hidden(weights, X), weights[-1])

    def total(self, params: Params, X: Inputs) -> Float[Array, "m dy"]:
        """The sum of all subnetworks' outputs, shape (m, dy)."""
        features = jax.vmap(self.hidden, (0, None))(params, X)
        # Contracting units and subnetworks at once never holds the (r, m, dy) outputs.
        return jnp.einsum("rmn,rnd->md", features, params[-1], precision="highest")

    def smoothed(self, params: Params, X: Inputs, width: Scalar) -> Float[Array, "m dy"]:
        """`total` with rounded kinks; subnetworks that are zero stay without effect."""

        def features(weights: Weights) -> jax.Array:
            Z = jnp.asarray(X)
            for kernel in weights[:-1]:
                Z = smooth_act(self.slopes, matmul(Z, kernel), width)
            return Z

        living = jnp.any(params[-1] != 0, axis=(1, 2), keepdims=True)
        last = jnp.where(living, params[-1], 0)
        return jnp.einsum("rmn,rnd->md", jax.vmap(features)(params), last, precision="highest")

    def inner(self, weights: Weights, U: Targets, X: Inputs) -> Scalar:
        """``<U, phi(weights, X)>`` without forming the (m, dy) output."""
        return jnp.sum(matmul(self.hidden(weights, X).T, U) * weights[-1])

    def init(self, key: Array, *, r: int, dx: int, dy: int, widths: tuple[int, ...] = ()) -> Params:
        """r random subnetworks ``[(r, n_{k-1}, n_k)]``; widths are the K - 1 hidden ones, () means all 1."""
        return _init(key, r, (dx, *_widths(widths, self.layers), dy))


def _widths(widths: tuple[int, ...], layers: int) -> tuple[int, ...]:
    widths = tuple(widths) or (1,) * (layers - 1)
    if len(widths) != layers - 1 or min(widths, default=1) < 1:
        raise ValueError(
            f"widths: Expected: {layers - 1} hidden widths >= 1 for {layers} weight layers. Received: {widths}."
        )
    return widths


def _init(key: Array, r: int, dims: tuple[int, ...]) -> list[jax.Array]:
    if r < 1:
        raise ValueError(f"r: Expected: at least one subnetwork. Received: {r}.")
    return _drawn(typed_key(key), r, dims)


@partial(jax.jit, static_argnums=(1, 2))
def _drawn(key: Array, r: int, dims: tuple[int, ...]) -> list[jax.Array]:
    keys = jax.random.split(key, len(dims) - 1)
    return [jax.random.normal(k, (r, a, b)) / a**0.5 for k, (a, b) in zip(keys, pairwise(dims), strict=True)]


def neuron(activation: Activation) -> Neuron:
    """Make the map of one hidden unit, ``phi(w1, w2) = act(X w1) w2^T``, of degree 2.

    Args:
        activation: relu, leaky_relu, absolute, linear, or a pair of slopes (negative, positive).

    Raises:
        ValueError: the activation is not positively homogeneous.

    >>> neuron("leaky_relu").slopes
    (0.01, 1.0)
    """
    return Neuron(slopes_of(activation))


def by_name(name: str, argument: str = "phi") -> "Neuron | DeepSubnetwork":
    """The map of a name: an activation for one neuron, or ACTIVATION:LAYERS for subnetworks with that many layers.

    Args:
        name: such as relu or relu:3, with the activations relu, leaky_relu, absolute and linear.
        argument: the argument that an error names.

    Raises:
        ValueError: no such map.

    >>> by_name("relu:3")
    DeepSubnetwork(slopes=(0.0, 1.0), layers=3)
    """
    activation, colon, layers = name.partition(":")
    also = (
        ", alone or with a number of layers as in relu:3; other activations are not positively homogeneous, and other "
        "maps are objects, such as homogeneous.cp_tensor((3, 3))"
    )
    _ = one_of(argument, activation, ACTIVATIONS, also)
    if not colon:
        return neuron(activation)
    if not layers.isdecimal() or len(layers) > 3:  # a thousand layers would compile for days
        raise ValueError(f"{argument}: Expected: NAME or NAME:LAYERS, relu:3 or up to relu:999. Received: {name!r}.")
    return deep_subnetwork(activation, layers=int(layers))


def relu_neuron() -> Neuron:
    """Make ``phi(w1, w2) = relu(X w1) w2^T``, of degree 2: a neuron of a two-layer ReLU network (HV17 section 4).

    >>> import jax
    >>> phi = relu_neuron()
    >>> [w.shape for w in phi.init(jax.random.key(0), r=3, dx=5, dy=2)]
    [(3, 5), (3, 2)]
    """
    return neuron("relu")


def rank_one() -> Neuron:
    """Make ``phi(w1, w2) = (X w1) w2^T``, of degree 2 (HV17 section 3). With ``X = I`` it is matrix factorization.

    >>> rank_one().degree
    2
    """
    return neuron("linear")


def deep_subnetwork(activation: Activation = "relu", *, layers: int) -> DeepSubnetwork:
    """Make the map of a subnetwork with K = `layers` weight layers and no biases, of degree K (HV17 section 4).

    Args:
        activation: relu, leaky_relu, absolute, linear, or a pair of slopes (negative, positive).
        layers: the number K >= 1 of weight layers.

    Raises:
        ValueError: layers < 1, or an activation that is not positively homogeneous.

    >>> import jax
    >>> phi = deep_subnetwork("relu", layers=3)
    >>> [w.shape for w in phi.init(jax.random.key(0), r=4, dx=5, dy=2, widths=(6, 7))]
    [(4, 5, 6), (4, 6, 7), (4, 7, 2)]
    """
    if not isinstance(layers, int | np.integer) or layers < 1:
        raise ValueError(f"layers: Expected: at least 1 weight layer, an integer. Received: {layers}.")
    return DeepSubnetwork(slopes_of(activation), int(layers))
