"""Feed-forward networks as pure functions of (params, X), and models of Flax in the same form.

A network without biases is ``Yhat = act(... act(X W_1) ... W_H) W_{H+1}`` with kernels W_l (d_{l-1}, d_l).

    >>> network = feed_forward("relu")
    >>> network([jnp.array([[1.0, -1.0]]), jnp.array([[2.0], [3.0]])], jnp.array([[1.0], [-1.0]])).tolist()
    [[2.0], [3.0]]
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.inputs import real
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Targets

__all__ = ["ACTIVATIONS", "Activation", "FeedForward", "Layer", "Sweep", "feed_forward", "from_flax", "kernels_of"]
__all__ += ["layers_of"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__


#: name -> (negative slope, positive slope)
ACTIVATIONS = {"relu": (0.0, 1.0), "leaky_relu": (0.01, 1.0), "absolute": (-1.0, 1.0), "linear": (1.0, 1.0)}

#: A name, a function of an array, a pair of slopes, or for each hidden layer its pair or one pair a unit (d_l, 2).
Activation: TypeAlias = Any
#: One pair for all units of a layer, or one pair a unit.
Slopes: TypeAlias = tuple[Any, ...]


class Layer(NamedTuple):
    """``kernel`` (d_{l-1}, d_l); ``bias`` (d_l,), or None."""

    kernel: Array
    bias: Array | None


class Sweep(NamedTuple):
    """What one forward pass sees.

    ``features``: ``Phi^(l)`` (m, d_l), l = 0..H, the inputs first. ``patterns``: ``Lam_l`` (m, d_l), l = 1..H, the
    derivative of the activation, 0 where it does not exist. ``preactivations``: (m, d_l), l = 1..H. ``output`` (m, dy).
    ``kinks``: how many pre-activations of a hidden unit lie exactly where its activation has no derivative.
    """

    features: list[Any]
    patterns: list[Any]
    preactivations: list[Any]
    output: Array
    kinks: Array


@dataclass(frozen=True)
class FeedForward:
    """``apply(params, X)`` of a fully connected network whose structure the package knows; see `feed_forward`.

    ``slopes``: one pair for all, or an entry a hidden layer; None beside a smooth ``function``.
    """

    slopes: Slopes | None
    function: Callable[[Any], Any] | None = None
    per_layer: bool = False

    def __call__(self, params: Any, X: Inputs) -> Targets:
        """The output (m, dy). Where an activation has no derivative, `jax.grad` takes 0."""
        return self.sweep(params, X).output

    def sweep(self, params: Any, X: Inputs) -> Sweep:
        """One forward pass with everything that the Jacobian is made of.

        Raises:
            ValueError: kernels that do not fit together, or inputs that do not fit the first.
        """
        X = real("X", X)
        layers = [Layer(real("kernel", w), None if b is None else real("bias", b)) for w, b in layers_of(params)]
        if X.ndim != 2 or X.shape[1] != layers[0].kernel.shape[0]:
            raise ValueError(f"X: Expected: shape (m, {layers[0].kernel.shape[0]}). Received: {X.shape}.")
        features, patterns, before = [X], [], []
        kinks = jnp.zeros((), jnp.int32)
        for l, layer in enumerate(layers[:-1]):
            z = _affine(features[-1], layer)
            value, pattern, kink = self.activate(z, l, len(layers) - 1)
            features.append(value)
            patterns.append(pattern)
            before.append(z)
            kinks = kinks + jnp.sum(kink, dtype=jnp.int32)
        return Sweep(features, patterns, before, _affine(features[-1], layers[-1]), kinks)

    def slopes_at(self, l: int, hidden: int) -> np.ndarray:
        """The (negative, positive) slopes of hidden layer l (0-based), shape (1, 2) or (d_l, 2).

        Raises:
            ValueError: a smooth activation has none, or the network has another number of hidden layers.
        """
        if self.slopes is None:
            raise ValueError("activation: Expected: a piecewise linear one. Received: a function.")
        if self.per_layer and len(self.slopes) != hidden:
            raise ValueError(
                f"activation: Expected: slopes for each of {hidden} hidden layers. Received: {len(self.slopes)}."
            )
        return np.asarray(self.slopes[l] if self.per_layer else self.slopes, np.float64).reshape(-1, 2)

    def activate(self, z: Any, l: int, hidden: int) -> tuple[Any, Any, Any]:
        """Value, derivative, and whether there is none."""
        if self.function is not None:
            value, pattern = jax.jvp(self.function, (z,), (jnp.ones_like(z),))
            return value, pattern, jnp.zeros((), bool)  # not looked for
        pairs = self.slopes_at(l, hidden)
        if len(pairs) not in (1, z.shape[-1]):
            raise ValueError(
                f"activation: Expected: one pair of slopes, or {z.shape[-1]}, for hidden layer {l + 1}. Received: "
                f"{len(pairs)}."
            )
        negative, positive = (jnp.asarray(column, z.dtype)[None] for column in pairs.T)
        kink = (z == 0) & (negative != positive)
        pattern = jnp.where(kink, 0, jnp.where(z > 0, positive, negative))
        return jax.lax.stop_gradient(pattern) * z, pattern, kink


def feed_forward(activation: Activation = "relu") -> FeedForward:
    """Return ``apply(params, X)`` of a fully connected network, in the form in which its structure is recognized.

    Its params are a list of kernels ``W_l (d_{l-1}, d_l)``, or of pairs ``(kernel, bias)``; the last layer is linear.
    The derivative of a piecewise linear activation is 0 where it does not exist (KHK19 section 3.2), here and in what
    `jax.grad` gives. Equal activations give equal, hashable networks: nothing is compiled twice.

    Args:
        activation: a name (relu, leaky_relu, absolute, linear), a pair (negative slope, positive slope), a sequence
            with a pair or a (d_l, 2) array of pairs for each hidden layer, or a smooth function of an array, entry by
            entry.

    Raises:
        ValueError: an unknown name, slopes that are not finite pairs, a function that mixes the entries of its array.

    Example:
        >>> feed_forward("absolute")([jnp.ones((1, 1)), jnp.ones((1, 1))], jnp.array([[-2.0]])).tolist()
        [[2.0]]
        >>> mixed = feed_forward([[(0.0, 1.0), (-1.0, 1.0)]])  # one hidden layer: a ReLU and an absolute value
        >>> mixed([jnp.ones((1, 2)), jnp.ones((2, 1))], jnp.array([[-2.0]])).tolist()
        [[2.0]]
    """
    if isinstance(activation, FeedForward):
        return activation
    if isinstance(activation, str):
        name = {"abs": "absolute"}.get(activation, activation)
        if name not in ACTIVATIONS:
            raise ValueError(
                f"activation: Expected: one of {', '.join(ACTIVATIONS)}, slopes, or a function. Received: "
                f"{activation!r}."
            )
        return FeedForward(ACTIVATIONS[name])
    if callable(activation):
        _check_elementwise(activation)
        return FeedForward(None, activation)
    try:
        if len(activation) == 2 and all(np.ndim(slope) == 0 for slope in activation):
            return FeedForward(_pairs(activation)[0])
        return FeedForward(tuple(_pairs(layer) for layer in activation), per_layer=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "activation: Expected: a name, a function, a pair of finite slopes (negative, positive), or such pairs for "
            f"each hidden layer. Received: {activation!r}."
        ) from error


def _check_elementwise(function: Callable[[Any], Any]) -> None:
    """Raise ValueError if an entry of the result depends on another entry: its derivative would be no pattern."""
    with jax.ensure_compile_time_eval():
        z = jnp.asarray([[-1.3, 0.4, 2.1], [0.7, -0.2, 1.1]], jnp.float32)
        whole = function(z)
        fits = jnp.shape(whole) == z.shape
        if fits:
            single = jnp.stack([jnp.stack([function(a[None, None])[0, 0] for a in row]) for row in z])
            fits = bool(jnp.allclose(whole, single, rtol=1e-5, atol=1e-6, equal_nan=True))
    if not fits:
        raise ValueError(
            "activation: Expected: a function that acts on each entry alone. Received: "
            f"{getattr(function, '__name__', function)}, which mixes them (give the network as a function of its own)."
        )


def _pairs(slopes: Any) -> Slopes:
    """Slopes (2,) or (d, 2) as nested tuples, which are hashable."""
    if np.shape(slopes)[-1:] != (2,):
        raise ValueError("no pairs of finite slopes")
    pairs = np.asarray(slopes, np.float64).reshape(-1, 2)
    if np.ndim(slopes) not in (1, 2) or not np.all(np.isfinite(pairs)):
        raise ValueError("no pairs of finite slopes")
    return tuple(tuple(float(s) for s in pair) for pair in pairs)


def layers_of(params: Any, name: str = "params") -> list[Layer]:
    """Kernels, or (kernel, bias) pairs, as layers. `name`: what the caller calls them.

    Raises:
        ValueError: something else, shapes that do not fit together.
    """
    expected = f"{name}: Expected: a list of kernels (d_(l-1), d_l), or of pairs with a bias (d_l,) or None."
    if not isinstance(params, tuple | list):
        received = f"an array of shape {params.shape}" if hasattr(params, "shape") else type(params).__name__
        raise ValueError(f"{expected} Received: {received}.")
    pairs: list[Any] = [entry if isinstance(entry, tuple | list) else (entry, None) for entry in params]
    if any(len(pair) != 2 or any(a is not None and not hasattr(a, "shape") for a in pair) for pair in pairs):
        raise ValueError(f"{expected} Received: entries that are neither arrays nor pairs of arrays.")
    layers = [Layer(*pair) for pair in pairs]
    for l, (kernel, bias) in enumerate(layers):
        wide = l and layers[l - 1].kernel.shape[-1:] != kernel.shape[:1]
        if np.ndim(kernel) != 2 or wide or (bias is not None and bias.shape != kernel.shape[1:]):
            shapes = [w.shape if b is None else (w.shape, b.shape) for w, b in layers]
            raise ValueError(f"{expected} Received: shapes {shapes}.")
    if not layers:
        raise ValueError(f"{expected} Received: none.")
    return layers


def kernels_of(params: Any) -> list[Array]:
    """The kernels of a network without biases.

    Raises:
        ValueError: `layers_of`, or there are biases.
    """
    layers = layers_of(params, "weights")
    if any(layer.bias is not None for layer in layers):
        raise ValueError("weights: Expected: kernels without biases. Received: pairs with a bias.")
    return [layer.kernel for layer in layers]


def _affine(features: Any, layer: Layer) -> Any:
    z = matmul(features, layer.kernel)
    return z if layer.bias is None else z + layer.bias[None]


def from_flax(model: Any, variables: Any | None = None) -> tuple[Callable[[Any, Any], Any], Any]:
    """Return ``(apply, params)`` of a Flax model, linen or nnx.

    Args:
        model: a linen module, or an nnx module (which holds its own parameters).
        variables: of linen: the dictionary from ``model.init``; collections other than "params" stay as they are. Of
            nnx: None. Batch statistics and dropout have to be switched off in the model (``use_running_average``,
            ``deterministic``, or nnx's ``model.eval()``), so that samples count one by one.

    Returns:
        ``apply(params, X)``, a new function every time, and the parameters: keep it, or everything compiles again.

    Raises:
        TypeError: no Flax model, linen without variables, nnx with them.
    """
    from flax import linen, nnx  # late: a second's import

    if isinstance(model, linen.Module):
        if variables is None or "params" not in variables:
            received = "none" if variables is None else f"only {', '.join(map(str, variables)) or 'an empty one'}"
            raise TypeError(
                "variables: Expected: the whole dictionary that a linen model's init returns, with its entry 'params'. "
                f"Received: {received}."
            )
        rest = {name: value for name, value in variables.items() if name != "params"}

        def apply(params: Any, X: Any) -> Any:
            return model.apply({"params": params, **rest}, X)

        return apply, variables["params"]
    if isinstance(model, nnx.Module) and variables is not None:
        raise TypeError("variables: Expected: none, since an nnx module holds its own. Received: variables.")
    if isinstance(model, nnx.Module):
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def merge(params: Any, X: Any) -> Any:
            call: Any = nnx.merge(graph, params, rest)
            return call(X)

        return merge, params
    raise TypeError(f"model: Expected: a module of flax.linen or flax.nnx. Received: {type(model).__name__}.")
