"""Positively homogeneous elemental maps: one subnetwork of HV17's parallel networks.

A map phi has degree p if ``phi(a w, X) = a^p phi(w, X)`` for every a >= 0. Each weight layer adds 1 to the degree;
ReLU, leaky ReLU and the absolute value do not change it. The network is the sum of r such subnetworks.

A piecewise linear activation is given by a pair of slopes: ``act(a) = negative * a`` for a <= 0 and ``positive * a``
for a > 0. At the kink a = 0 its derivative is taken as the negative slope (0 for ReLU).
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from globopt_jax.inputs import integer, typed_key
from globopt_jax.linalg import matmul
from globopt_jax.networks import ACTIVATIONS
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets, Weights

__all__ = ["CPTensor", "DeepSubnetwork", "Elemental", "ElementalMap", "FlaxSubnetwork", "Neuron", "PiecewiseLinear"]
__all__ += ["by_name", "cp_tensor", "deep_subnetwork", "elemental", "flax_subnetwork", "neuron", "rank_one"]
__all__ += ["relu_neuron", "slopes_of"]

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
        if activation in ACTIVATIONS:
            return ACTIVATIONS[activation]
        raise ValueError(
            f"activation: Expected: a positively homogeneous one, {', '.join(ACTIVATIONS)} or a pair of slopes "
            f"(negative, positive). Received: {activation!r}, which is not positively homogeneous, so no degree "
            "exists and zero subnetworks certify nothing."
        )
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


@dataclass(frozen=True)
class CPTensor(ElementalMap):
    """``phi(w1, ..., wK) = (X w1) (x) w2 (x) ... (x) wK``: a tensor of rank one, of degree K (HV17 section 4).

    The last K - 1 modes are flat in the output, (m, d_2 ... d_K) in the order of rows. Weights are a tuple of vectors;
    r of them are a tuple of arrays (r, dx), (r, d_2), ..., (r, d_K).
    """

    dims: tuple[int, ...]
    is_known = True
    multilinear = True

    @property
    def degree(self) -> int:
        return 1 + len(self.dims)

    def __call__(self, weights: Weights, X: Inputs) -> Float[Array, "m dy"]:
        first, *rest = weights
        return matmul(X, first)[:, None] * _kronecker([w[None] for w in rest])

    def total(self, params: Params, X: Inputs) -> Float[Array, "m dy"]:
        """The sum of all subnetworks' outputs, shape (m, dy)."""
        first, *rest = params
        return matmul(matmul(X, first.T), _kronecker(rest))

    def inner(self, weights: Weights, U: Targets, X: Inputs) -> Scalar:
        """``<U, phi(weights, X)>`` without forming the (m, dy) output."""
        first, *rest = weights
        return jnp.sum(matmul(matmul(X, first), U) * _kronecker([w[None] for w in rest])[0])

    def init(self, key: Array, *, r: int, dx: int, dy: int = 0, widths: tuple[int, ...] = ()) -> Params:
        """r random subnetworks, entries of standard deviation 1; dy and widths follow from the dims."""
        del dy, widths
        if r < 1:
            raise ValueError(f"r: Expected: at least one subnetwork. Received: {r}.")
        keys = jax.random.split(typed_key(key), 1 + len(self.dims))
        return tuple(jax.random.normal(k, (r, d)) for k, d in zip(keys, (dx, *self.dims), strict=True))

    def unfolded(self, T: np.ndarray) -> list[np.ndarray]:
        """The tensor T (dx, d_2 ... d_K) as a matrix for each mode, (d_k, the product of the others)."""
        whole = T.reshape(len(T), *self.dims)
        return [np.moveaxis(whole, k, 0).reshape(whole.shape[k], -1) for k in range(whole.ndim)]


def _kronecker(factors: list[Any]) -> Any:
    """The Kronecker products of the rows of arrays (r, d_k), shape (r, d_2 ... d_K)."""
    found = factors[0]
    for factor in factors[1:]:
        found = (found[:, :, None] * factor[:, None, :]).reshape(len(found), -1)
    return found


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

    def __call__(self, weights: Weights, X: Inputs) -> Any:
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
        sample = jnp.ones((1, *(applied.shape or (dx,))))
        with jax.numpy_dtype_promotion("standard"):
            variables = jax.vmap(lambda k: applied.module.init(k, sample))(jax.random.split(typed_key(key), r))
        if others := sorted(set(variables) - {"params"}):
            raise ValueError(
                "module: Expected: one whose variables are all parameters. Received: also "
                f"{', '.join(others)}, on which the output depends besides the weights."
            )
        return variables["params"]


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
    keys = jax.random.split(typed_key(key), len(dims) - 1)
    shapes = pairwise(dims)
    return [jax.random.normal(k, (r, a, b)) / a**0.5 for k, (a, b) in zip(keys, shapes, strict=True)]


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


def cp_tensor(*dims: int) -> CPTensor:
    """Make the map of a tensor of rank one, ``(X w1) (x) w2 (x) ... (x) wK``, of degree K (HV17 section 4).

    With ``X = I`` the network is a CP decomposition of a tensor (dx, d_2, ..., d_K).

    Args:
        dims: the sizes d_2, ..., d_K of the modes after the first; at least one.

    Raises:
        ValueError: there are no sizes, or one is below 1.

    >>> import jax
    >>> phi = cp_tensor(3, 2)
    >>> phi.degree, [w.shape for w in phi.init(jax.random.key(0), r=5, dx=4)]
    (3, [(5, 4), (5, 3), (5, 2)])
    """
    if not dims:
        raise ValueError("dims: Expected: the sizes of the modes after the first. Received: none.")
    return CPTensor(tuple(integer("dims", d) for d in dims))


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
    if not degree > 0:
        raise ValueError(f"degree: Expected: a number > 0. Received: {degree!r}.")
    return Elemental(fn, degree)


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
    if not degree > 0:
        raise ValueError(f"degree: Expected: a number > 0. Received: {degree!r}.")
    return FlaxSubnetwork(_Applied(module, tuple(integer("shape", d) for d in shape)), degree)
