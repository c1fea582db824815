"""Feed-forward networks as pure functions of (params, X), and Flax models in the same form.

A network with H hidden layers and no biases is ``Yhat = act(... act(X W_1) ... W_H) W_{H+1}``. The kernel W_l has the
shape (d_{l-1}, d_l).

    >>> network = feed_forward("relu")
    >>> network([jnp.array([[1.0, -1.0]]), jnp.array([[2.0], [3.0]])], jnp.array([[1.0], [-1.0]])).tolist()
    [[2.0], [3.0]]
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.inputs import one_of, real
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Targets

__all__ = ["ACTIVATIONS", "Activation", "FeedForward", "Layer", "Sweep", "feed_forward", "from_flax", "kernels_of"]
__all__ += ["layers_of"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__


#: The piecewise linear activations that have names, each with its (negative slope, positive slope).
ACTIVATIONS = {"relu": (0.0, 1.0), "leaky_relu": (0.01, 1.0), "absolute": (-1.0, 1.0), "linear": (1.0, 1.0)}

#: An activation: a name, an elementwise function, a pair of slopes, or a sequence with an entry for each hidden layer,
#: which is a pair of slopes or an array (d_l, 2) with a pair for each unit.
Activation: TypeAlias = Any
#: The slopes of a layer as nested tuples: one pair for all units, or one pair for each unit.
Slopes: TypeAlias = tuple[Any, ...]


class Layer(NamedTuple):
    """The weights of one layer."""

    kernel: Array
    """(d_{l-1}, d_l)."""
    bias: Array | None
    """(d_l,), or None if the layer has no bias."""


class Sweep(NamedTuple):
    """The values that one forward pass computes on the way, as the Jacobian needs them."""

    features: list[Any]
    """``Phi^(l)`` of shape (m, d_l) for l = 0..H: the inputs, then the output of each hidden layer."""
    patterns: list[Any]
    """``Lam_l`` of shape (m, d_l) for l = 1..H, the activation patterns: the derivative of the activation at each
    pre-activation, and 0 where the derivative does not exist."""
    preactivations: list[Any]
    """The pre-activations of shape (m, d_l) for l = 1..H: the inputs of the activation."""
    output: Array
    """The output of the network (m, dy)."""
    kinks: Array
    """The number of pre-activations at which the activation has no derivative; always 0 for a smooth function."""


@dataclass(frozen=True)
class FeedForward:
    """A fully connected network as a function ``apply(params, X)`` whose structure the package knows.

    `feed_forward` makes one.
    """

    slopes: Slopes | None
    """The slopes (negative, positive) of a piecewise linear activation: one pair for all units, or with `per_layer` an
    entry for each hidden layer. None if there is a `function`."""
    function: Callable[[Any], Any] | None = None
    """A smooth elementwise activation, or None."""
    per_layer: bool = False
    """Whether `slopes` has an entry for each hidden layer."""

    def __call__(self, params: Any, X: Inputs) -> Targets:
        """Return the output (m, dy). Where an activation has no derivative, `jax.grad` takes 0 for it.

        Args:
            params: a list of kernels, or of pairs (kernel, bias).
            X: inputs (m, dx).

        Raises:
            ValueError: the kernels do not fit together, or X does not fit the first kernel.
        """
        return self.sweep(params, X).output

    def sweep(self, params: Any, X: Inputs) -> Sweep:
        """Run one forward pass and return all values that the Jacobian is computed from.

        Args:
            params: a list of kernels, or of pairs (kernel, bias).
            X: inputs (m, dx).

        Raises:
            ValueError: the kernels do not fit together, or X does not fit the first kernel.
        """
        X = real("X", X)
        layers = [Layer(real("kernel", w), None if b is None else real("bias", b)) for w, b in layers_of(params)]
        if X.ndim != 2 or X.shape[1] != layers[0].kernel.shape[0]:
            raise ValueError(f"X: Expected: shape (m, {layers[0].kernel.shape[0]}). Received: {X.shape}.")
        return self._swept(layers, X)

    @partial(jax.jit, static_argnums=0, inline=True)  # one program, where eager operations are ten
    def _swept(self, layers: list[Layer], X: Any) -> Sweep:
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
        """Return the slopes (negative, positive) of one hidden layer, of shape (1, 2) or (d_l, 2).

        Args:
            l: the hidden layer, counted from 0.
            hidden: the number of hidden layers of the network.

        Raises:
            ValueError: the activation is a smooth function and has no slopes, or the number of hidden layers is not the
                number of slopes.
        """
        if self.slopes is None:
            raise ValueError("activation: Expected: a piecewise linear activation. Received: a function.")
        if self.per_layer and len(self.slopes) != hidden:
            raise ValueError(
                f"activation: Expected: slopes for each of {hidden} hidden layers. Received: {len(self.slopes)}."
            )
        return np.asarray(self.slopes[l] if self.per_layer else self.slopes, np.float64).reshape(-1, 2)

    def activate(self, z: Any, l: int, hidden: int) -> tuple[Any, Any, Any]:
        """Apply the activation of one hidden layer.

        Args:
            z: pre-activations (m, d_l).
            l: the hidden layer, counted from 0.
            hidden: the number of hidden layers of the network.

        Returns:
            The value, the derivative (0 where it does not exist), and a bool that is True where the derivative does not
            exist. The bool is always False for a function, where kinks are not looked for.

        Raises:
            ValueError: the slopes do not fit the layer.
        """
        if self.function is not None:
            value, pattern = jax.jvp(self.function, (z,), (jnp.ones_like(z),))
            return value, pattern, jnp.zeros((), bool)
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
    """Return a fully connected network as a function ``apply(params, X)`` whose structure this package recognizes.

    The params are a list of kernels W_l of shape (d_{l-1}, d_l), or of pairs (kernel, bias). The last layer is linear.
    Where a piecewise linear activation has no derivative, 0 is taken for it (KHK19 section 3.2), by `jax.grad` as well.
    Networks with equal activations are equal and hashable, so that jitted functions do not compile twice for them.

    Args:
        activation: one of four forms. A name: relu, leaky_relu, absolute or linear. A pair (negative slope, positive
            slope). A sequence with an entry for each hidden layer, which is a pair or an array (d_l, 2) with a pair for
            each unit. Or a smooth function that acts on each entry of an array alone.

    Returns:
        The network: ``apply(params, X)`` is the output (m, dy), and ``apply.sweep(params, X)`` the whole forward pass.

    Raises:
        ValueError: an unknown name, slopes that are not finite pairs, or a function that mixes the entries of its
            array.
        TypeError: JAX cannot trace the function.

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
        name = one_of("activation", activation, ACTIVATIONS, ", a pair of slopes, or a function")
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
    """Raise ValueError if an entry of the result depends on another entry of the argument.

    The derivative of such a function is not one number for each unit and sample, as patterns are.

    Raises:
        TypeError: JAX cannot trace the function.
    """
    try:
        _ = jax.eval_shape(lambda z: function(z), jax.ShapeDtypeStruct((2, 3), jnp.float32))
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            "activation: Expected: a function of JAX's arrays, such as jnp.tanh. Received: "
            f"{getattr(function, '__name__', function)}, which needs NumPy's."
        ) from error
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
            f"{getattr(function, '__name__', function)}, which mixes entries. Pass such a network as a function of "
            "(params, X) instead."
        )


def _pairs(slopes: Any) -> Slopes:
    """Return slopes of shape (2,) or (d, 2) as nested tuples, which are hashable."""
    if np.shape(slopes)[-1:] != (2,):
        raise ValueError("no pairs of finite slopes")
    pairs = np.asarray(slopes, np.float64).reshape(-1, 2)
    if np.ndim(slopes) not in (1, 2) or not np.all(np.isfinite(pairs)):
        raise ValueError("no pairs of finite slopes")
    return tuple(tuple(float(s) for s in pair) for pair in pairs)


def layers_of(params: Any, name: str = "params") -> list[Layer]:
    """Return the layers of a network.

    Args:
        params: a list of kernels (d_{l-1}, d_l), or of pairs (kernel, bias) with a bias (d_l,) or None.
        name: the name of `params` in error messages.

    Raises:
        ValueError: the params have another form, or their shapes do not fit together.

    Example:
        >>> [layer.kernel.shape for layer in layers_of([jnp.ones((3, 5)), jnp.ones((5, 2))])]
        [(3, 5), (5, 2)]
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
    """Return the kernels of a network without biases.

    Args:
        params: a list of kernels (d_{l-1}, d_l), or of pairs (kernel, None).

    Raises:
        ValueError: the params have another form, their shapes do not fit together, or there is a bias.

    Example:
        >>> [kernel.shape for kernel in kernels_of([(jnp.ones((3, 5)), None), (jnp.ones((5, 2)), None)])]
        [(3, 5), (5, 2)]
    """
    layers = layers_of(params, "weights")
    if any(layer.bias is not None for layer in layers):
        raise ValueError("weights: Expected: kernels without biases. Received: pairs with a bias.")
    return [layer.kernel for layer in layers]


def _affine(features: Any, layer: Layer) -> Any:
    z = matmul(features, layer.kernel)
    return z if layer.bias is None else z + layer.bias[None]


def from_flax(model: Any, variables: Any | None = None) -> tuple[Callable[[Any, Any], Any], Any]:
    """Return a Flax model, linen or nnx, as a pair ``(apply, params)``.

    Switch batch statistics and dropout off first (linen's ``use_running_average`` and ``deterministic``, or nnx's
    ``model.eval()``), so that the output of a sample depends on no other sample and on no random number.

    Args:
        model: a linen module, or an nnx module, which holds its parameters itself.
        variables: for linen the dictionary that ``model.init`` returns; its collections other than "params" are kept
            fixed. For nnx None.

    Returns:
        A function ``apply(params, X)`` and the model's parameters. Call `from_flax` once and keep `apply`: every call
        returns a new function, for which JAX compiles again.

    Raises:
        TypeError: the model is no Flax module, a linen module comes without variables, or an nnx module with them.

    Example:
        >>> from flax import nnx
        >>> apply, params = from_flax(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        >>> apply(params, jnp.ones((4, 2), "float32")).shape
        (4, 3)
    """
    from flax import linen, nnx  # imported here, since the import takes a second that other users do not need

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
        raise TypeError("variables: Expected: none, since an nnx module holds its own parameters. Received: variables.")
    if isinstance(model, nnx.Module):
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def merge(params: Any, X: Any) -> Any:
            call: Any = nnx.merge(graph, params, rest)
            return call(X)

        return merge, params
    raise TypeError(f"model: Expected: a module of flax.linen or flax.nnx. Received: {type(model).__name__}.")
