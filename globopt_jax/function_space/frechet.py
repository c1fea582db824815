"""The risk of a composition of functions and its Frechet derivative in one of them (YSJ18 section 4 and (6))."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.inputs import check_data, integer, real
from globopt_jax.linalg import lapack
from globopt_jax.networks import FeedForward, feed_forward, kernels_of
from globopt_jax.shapes import Array, Scalar

__all__ = ["At", "Layers", "at", "derivative", "descent_direction", "layers_of", "norm_at", "operator_norm"]
__all__ += ["output", "risk"]

#: A list of the layers h_1, ..., h_{H+1}, first to last: functions from one vector (d_{i-1},) to one vector (d_i,).
Layers: TypeAlias = Any


class At(NamedTuple):
    """What a layer i sees at the samples."""

    inputs: Array
    """``h_{i-1:1}(x)`` for each sample, (m, d_{i-1}): x itself for i = 1."""
    jacobians: Array
    """``A = J[h_{H+1:i+1}](h_{i:1}(x))`` for each sample, (m, dy, d_i)."""
    errors: Array
    """``e = h(x) - h*(x)`` for each sample, (m, dy)."""


def layers_of(weights: Any, activation: Any = "relu") -> list[Callable[[Any], Any]]:
    """Return the layers of a network without biases as functions: ``h_i(z) = act(z W_i)``, the last one linear.

    Args:
        weights: the kernels W_i (d_{i-1}, d_i).
        activation: as in `networks.feed_forward`, with the value 0 at 0.

    Raises:
        ValueError: the kernels do not fit, or the activation is unknown or has another value than 0 at 0.
        TypeError: a kernel does not hold real numbers.

    Example:
        >>> first, last = layers_of([jnp.array([[1.0, -1.0]]), jnp.ones((2, 1))], "absolute")
        >>> first(jnp.array([2.0])).tolist(), last(first(jnp.array([2.0]))).tolist()
        ([2.0, 2.0], [4.0])
    """
    network, kernels = feed_forward(activation), [real("weights", w) for w in kernels_of(weights)]
    if network.function is None:
        return [_layer(network, w, i, len(kernels) - 1) for i, w in enumerate(kernels)]
    dtype = kernels[0].dtype
    with jax.ensure_compile_time_eval():
        at_zero = float(network.function(jnp.zeros((1, 1), dtype))[0, 0])
    if abs(at_zero) > 8 * linalg.machine_epsilon(dtype):
        raise ValueError(f"activation: Expected: one with the value 0 at 0. Received: one with the value {at_zero}.")
    return [_layer(network, w, i, len(kernels) - 1) for i, w in enumerate(kernels)]


def _layer(network: FeedForward, kernel: Any, i: int, hidden: int) -> Callable[[Any], Any]:
    """Return one layer; the last one, whose index is the number of hidden layers, is linear."""

    def h(z: Any) -> Any:
        value = linalg.matmul(z, kernel)
        return value if i == hidden else network.activate(value[None], i, hidden)[0][0]

    return h


def output(layers: Layers, X: Any) -> Array:
    """Return ``h(x) = h_{H+1}(... h_1(x))`` for each sample.

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        layers: functions of one vector, first to last.
        X: inputs (m, dx).

    Raises:
        ValueError: there are no layers, or X is no matrix.
        TypeError: X does not hold real numbers.

    Example:
        >>> output([lambda z: 2 * z, jnp.sin], jnp.zeros((3, 2))).shape
        (3, 2)
    """
    layers, X = _checked(layers, X)
    return jax.vmap(lambda x: _composed(layers)(x))(X)


def risk(layers: Layers, X: Any, Y: Any) -> Scalar:
    """Return ``1/2 mean ||h(x) - y||^2`` over the samples.

    With ``y = h*(x) = E[Y | X = x]`` this is ``L(h) - L*``.

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        layers: functions of one vector, first to last.
        X: inputs (m, dx).
        Y: the values of h* at the samples, or targets, (m, dy).

    Raises:
        ValueError: the shapes do not fit.
        TypeError: an array does not hold real numbers.

    Example:
        >>> float(risk([lambda z: 2 * z], jnp.ones((4, 1)), jnp.zeros((4, 1))))
        2.0
    """
    found = output(layers, X)
    Y = _targets(found, Y)
    return 0.5 * jnp.mean(jnp.sum(jnp.square(found - Y), axis=1))


def at(layers: Layers, X: Any, Y: Any, layer: int = 1) -> At:
    """Return the inputs of a layer, the Jacobians of what follows it, and the errors, at each sample.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        layers: functions of one vector, first to last.
        X: inputs (m, dx).
        Y: the values of h* at the samples, (m, dy).
        layer: the layer i, from 1 to H + 1.

    Returns:
        An `At`.

    Raises:
        ValueError: the shapes do not fit, or the layer is out of range.
        TypeError: an array does not hold real numbers.

    Example:
        >>> found = at([lambda z: 2 * z, lambda z: 3 * z], jnp.ones((1, 2)), jnp.zeros((1, 2)), layer=1)
        >>> found.jacobians.tolist(), found.errors.tolist()
        ([[[3.0, 0.0], [0.0, 3.0]]], [[6.0, 6.0]])
    """
    layers, X = _checked(layers, X)
    i = integer("layer", layer, 1, len(layers))
    below, own, above = _composed(layers[: i - 1]), layers[i - 1], _composed(layers[i:])

    def of_sample(x: Any) -> tuple[Any, Any, Any]:
        z = below(x)
        after = own(z)
        value, pull = jax.vjp(above, after)
        return z, jax.vmap(lambda row: pull(row)[0])(jnp.eye(len(value), dtype=value.dtype)), value

    inputs, jacobians, values = jax.vmap(of_sample)(X)
    return At(inputs, jacobians, values - _targets(values, Y))


def derivative(layers: Layers, X: Any, Y: Any, eta: Any, layer: int = 1) -> Scalar:
    """Return ``<D_{h_i} L, eta> = mean e^T A eta(h_{i-1:1}(x))``, the derivative of the risk in a direction.

    This is YSJ18 (6). One forward product per sample; no Jacobian is formed.

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        layers: functions of one vector, first to last.
        X: inputs (m, dx).
        Y: the values of h* at the samples, (m, dy).
        eta: the direction: a function from (d_{i-1},) to (d_i,), or its values at the samples, (m, d_i).
        layer: the layer i, from 1 to H + 1, that changes.

    Raises:
        ValueError: the shapes do not fit, or the layer is out of range.
        TypeError: an array does not hold real numbers.

    Example:
        >>> X, Y = jnp.ones((1, 1)), jnp.zeros((1, 1))
        >>> float(derivative([lambda z: 2 * z, lambda z: 3 * z], X, Y, eta=lambda z: z))  # d/dt of (2 + t)^2 9 / 2
        18.0
    """
    layers, X = _checked(layers, X)
    i = integer("layer", layer, 1, len(layers))
    below, own, above = _composed(layers[: i - 1]), layers[i - 1], _composed(layers[i:])
    inputs = jax.vmap(below)(X)
    moved: Any = jax.vmap(eta)(inputs) if callable(eta) else real("eta", eta)
    after = jax.vmap(own)(inputs)
    if moved.shape != after.shape:
        raise ValueError(f"eta: Expected: values of shape {after.shape}. Received: {moved.shape}.")
    values, changes = jax.jvp(jax.vmap(above), (after,), (moved.astype(after.dtype),))
    return jnp.mean(jnp.sum((values - _targets(values, Y)) * changes, axis=1))


def operator_norm(layers: Layers, X: Any, Y: Any, layer: int = 1) -> Scalar:
    """Return ``||D_{h_i} L||_op = mean ||A^T e|| ||h_{i-1:1}(x)||``.

    This is the supremum of `derivative` over directions with ``||eta(z)|| <= ||z||``, if the inputs of the layer are
    different and not zero.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        layers: functions of one vector, first to last.
        X: inputs (m, dx).
        Y: the values of h* at the samples, (m, dy).
        layer: the layer i, from 1 to H + 1.

    Raises:
        ValueError: the shapes do not fit, or the layer is out of range.
        TypeError: an array does not hold real numbers.

    Example:
        >>> float(operator_norm([lambda z: 2 * z, lambda z: 3 * z], jnp.ones((1, 1)), jnp.zeros((1, 1))))
        18.0
    """
    return norm_at(at(layers, X, Y, layer))


def norm_at(found: At) -> Scalar:
    """Return `operator_norm` from what the layer sees."""
    pulled = jnp.einsum("mdi,md->mi", found.jacobians, found.errors, precision="highest")
    return jnp.mean(jax.vmap(linalg.norm)(pulled) * jax.vmap(linalg.norm)(found.inputs))


def descent_direction(layers: Layers, X: Any, Y: Any, layer: int = 1) -> Array:
    """Return the direction ``-eta = -A^+ e`` of both proofs, at the samples; the risk falls at the rate ``2 (L - L*)``.

    ``<D, eta> = mean e^T A A^+ e = 2 (L - L*)`` where A has full row rank. Where it has not, ``A A^+`` is a projection,
    and the rate is smaller.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        layers: functions of one vector, first to last.
        X: inputs (m, dx).
        Y: the values of h* at the samples, (m, dy).
        layer: the layer i, from 1 to H + 1.

    Returns:
        (m, d_i): how the outputs of layer i change at each sample.

    Raises:
        ValueError: the shapes do not fit, or the layer is out of range.
        TypeError: an array does not hold real numbers.

    References:
        Yun, Sra & Jadbabaie 2018, Theorems 4.1 and 4.2, proofs in appendix A.

    Example:
        >>> layers, X, Y = [lambda z: 2 * z, lambda z: 3 * z], jnp.ones((1, 1)), jnp.zeros((1, 1))
        >>> round(float(derivative(layers, X, Y, descent_direction(layers, X, Y))), 5), float(risk(layers, X, Y))
        (-36.0, 18.0)
    """
    found = at(layers, X, Y, layer)
    U, s, Vt = lapack.svd(found.jacobians, full_matrices=False)
    kept = s > jax.vmap(linalg.cutoff)(found.jacobians, s)[:, None]
    inverses = jnp.where(kept, 1 / jnp.where(kept, s, 1), 0)
    weights = jnp.einsum("mdn,md->mn", U, found.errors, precision="highest") * inverses
    return -jnp.einsum("mni,mn->mi", Vt, weights, precision="highest")


def _composed(layers: Layers) -> Callable[[Any], Any]:
    """Return the composition of layers, the identity for none."""

    def h(z: Any) -> Any:
        for layer in layers:
            z = layer(z)
        return z

    return h


def _checked(layers: Any, X: Any) -> tuple[list[Callable[[Any], Any]], Any]:
    """Return layers and inputs that fit together."""
    if callable(layers) or not hasattr(layers, "__len__"):
        raise ValueError(f"layers: Expected: a list of functions. Received: {type(layers).__name__}.")
    if not len(layers) or not all(map(callable, layers)):
        raise ValueError(
            f"layers: Expected: functions of one vector, at least one. Received: {len(layers)} entries, "
            f"{sum(map(callable, layers))} of them functions."
        )
    X = real("X", X)
    if X.ndim != 2 or not X.size:
        raise ValueError(f"X: Expected: shape (m, dx). Received: {X.shape}.")
    z = jax.ShapeDtypeStruct(X.shape[1:], X.dtype)
    for i, layer in enumerate(layers, start=1):
        try:
            z = jax.eval_shape(layer, z)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"layers, X: Expected: functions of what comes before them. Received: layer {i} refuses a vector of "
                f"{z.shape[0]} numbers ({error})."
            ) from error
        if getattr(z, "ndim", 0) != 1:
            raise ValueError(f"layers: Expected: functions with one vector as value. Received: layer {i} returns {z}.")
    return [*layers], X


def _targets(values: Any, Y: Any) -> Any:
    """Return targets of the shape of the outputs."""
    Y = real("Y", Y)
    check_data(values, Y)
    if Y.shape != values.shape:
        raise ValueError(f"Y: Expected: shape {values.shape}. Received: {Y.shape}.")
    return Y
