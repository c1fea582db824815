"""One pass forward and backward through a network with biases, with bounds of its rounding errors.

Every quantity comes with a bound of the Frobenius norm of its error. The bounds follow the operations one by one:
products of matrices have the error ``n u / (1 - n u)`` of their inner dimension n, and an activation passes on an error
times its steepest slope nearby. They assume that an activation and its derivatives are evaluated to 16 eps, absolute or
relative, whichever is larger; this holds for those of JAX. They also assume that its second derivative is nowhere
larger than 1.1 times what it is on a fine grid from -30 to 30; this holds for the activations with names.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.linalg import matmul
from globopt_jax.networks import FeedForward, Layer
from globopt_jax.shapes import Array
from globopt_jax.wide.catalogue import points

__all__ = ["Backward", "Forward", "Known", "backward", "forward", "in_range", "longest", "residual"]

#: The factor by which bounds to first order are enlarged, so that they cover the terms of higher order.
_HIGHER = 1.01


class Known(NamedTuple):
    """An array and a bound of its error."""

    value: Array
    """The array as computed."""
    error: Array
    """A bound of the Frobenius norm of the difference from the exact array; a constant to derivatives."""


class Forward(NamedTuple):
    """A forward pass; l counts the layers from 1 to L, and the layer 0 is the inputs."""

    features: list[Known]
    """``F_0, ..., F_{L-1}``, each (N, n_l): the inputs and the outputs of the hidden layers."""
    slopes: list[Known]
    """``act'(G_l)`` for l = 1..L-1, each (N, n_l); the error bounds the largest entry of the difference."""
    output: Known
    """``F_L = G_L`` (N, n_L)."""
    smooth: Array
    """Whether no pre-activation is so close to a kink of the activation that rounding may have crossed it."""


class Backward(NamedTuple):
    """The Jacobians of the output of each sample in the pre-activations of a layer k + 1, and its gradient."""

    jacobians: Known
    """``J_i = dF_L(i)/dG_{k+1}(i)`` for each sample, (N, n_{k+1}, n_L)."""
    features: Known
    """``Ft = [F_k, 1]`` (N, n_k + 1), or F_k where layer k + 1 has no bias."""
    gradient: Known
    """The gradient of the loss in the kernel and bias of layer k + 1, (n_k + 1, n_{k+1}) or (n_k, n_{k+1})."""


def known(value: Any, error: Any) -> Known:
    """Return an array with the bound of its error, which has no derivative at zero biases and would be no use."""
    return Known(value, jax.lax.stop_gradient(error))


def forward(network: FeedForward, layers: list[Layer], X: Any) -> Forward:
    """Compute the features and slopes of all layers with bounds of their errors."""
    dtype = X.dtype
    unit = 16 * linalg.machine_epsilon(dtype)
    features, slopes, smooth = [known(X, jnp.zeros((), dtype))], [], jnp.asarray(True)
    for l, layer in enumerate(layers[:-1]):
        G = _affine(features[-1], layer)
        value, slope, curvature, distance = _activated(network, G.value, l, len(layers) - 1)
        steepest = jnp.max(jnp.abs(slope)) + curvature * G.error + unit
        error = steepest * G.error + unit * (linalg.norm(value) + value.size**0.5)
        features.append(known(value, _HIGHER * error))
        error = curvature * G.error + unit * (1 + jnp.max(jnp.abs(slope)))
        slopes.append(known(slope, error))
        smooth = smooth & (distance > G.error)
    return Forward(features, slopes, _affine(features[-1], layers[-1]), smooth)


def residual(passed: Forward, Y: Any) -> Known:
    """Return ``F_L - Y``."""
    output = passed.output
    rounding = linalg.machine_epsilon(Y.dtype) * (linalg.norm(output.value) + linalg.norm(Y))
    return known(output.value - Y, output.error + rounding)


def backward(passed: Forward, layers: list[Layer], Y: Any) -> list[Backward]:
    """Compute the Jacobians and gradients of the layers k + 1 for k = 0..L-1, with bounds of their errors."""
    dtype, dy = Y.dtype, Y.shape[1]
    E = residual(passed, Y)
    J = known(jnp.broadcast_to(jnp.eye(dy, dtype=dtype)[None], (len(Y), dy, dy)), jnp.zeros((), dtype))
    found = [_at(passed.features[-1], layers[-1], J, E)]
    for l in range(len(layers) - 1, 0, -1):  # from G_{l+1} to G_l, counted from 1
        J = _pulled(J, layers[l].kernel, passed.slopes[l - 1])
        found.append(_at(passed.features[l - 1], layers[l - 1], J, E))
    return found[::-1]


def _pulled(J: Known, W: Any, slope: Known) -> Known:
    """Return the Jacobians of a layer from those of the layer above it: slopes times ``W J_i``."""
    dtype = W.dtype
    product = matmul(W[None], J.value)
    spectral, size = linalg.spectral_norm(W), linalg.norm(J.value)
    error = spectral * J.error + linalg.product_rounding(W.shape[1], dtype) * linalg.norm(W) * size
    steepest = jnp.max(jnp.abs(slope.value)) + slope.error
    rounding = linalg.machine_epsilon(dtype) * linalg.norm(product) * steepest
    error = steepest * error + slope.error * spectral * size + rounding
    return known(slope.value[:, :, None] * product, _HIGHER * error)


def _at(F: Known, layer: Layer, J: Known, E: Known) -> Backward:
    """Return what the bound needs of a layer, given the features below it, its Jacobians and the residual."""
    m, dtype = len(E.value), E.value.dtype
    if layer.bias is not None:
        F = known(jnp.concatenate([F.value, jnp.ones((m, 1), dtype)], axis=1), F.error)
    signals = jnp.einsum("nqo,no->nq", J.value, E.value, precision="highest")
    largest, worst = (longest(a) for a in (J.value, E.value))
    rounding = linalg.product_rounding(E.value.shape[1], dtype) * largest * linalg.norm(E.value)
    signal_error = _HIGHER * (J.error * worst + (largest + J.error) * E.error + rounding)
    gradient = matmul(F.value.T, signals)
    error = F.error * linalg.norm(signals) + (linalg.spectral_norm(F.value) + F.error) * signal_error
    error = error + linalg.product_rounding(m, dtype) * linalg.norm(F.value) * linalg.norm(signals)
    return Backward(J, F, known(gradient, _HIGHER * error))


def longest(A: Any) -> Any:
    """Return the largest Frobenius norm of an entry of a stack (N, ...)."""
    return jnp.max(jax.vmap(linalg.norm)(A))


def in_range(passed: Forward, found: list[Backward], layers: list[Layer]) -> Array:
    """Return whether each array is zero or of a size at which no product of an error bound underflows or overflows."""
    arrays = [a.value for a in (*passed.features, *passed.slopes)] + [each.jacobians.value for each in found]
    sizes = jnp.stack([jnp.max(jnp.abs(a)) for a in (*arrays, *jax.tree.leaves(layers))])
    least = linalg.smallest_normal(sizes.dtype) ** (1 / 3)
    return jnp.all((sizes == 0) | ((sizes >= least) & (sizes <= 1 / least)))


def _affine(F: Known, layer: Layer) -> Known:
    """Return ``F W + b``."""
    W, dtype = layer.kernel, F.value.dtype
    value = matmul(F.value, W)
    error = (linalg.spectral_norm(W) + 8 * linalg.machine_epsilon(dtype) * linalg.norm(W)) * F.error
    size = linalg.norm(F.value) * linalg.norm(W)
    if layer.bias is not None:
        value = value + layer.bias[None]
        size = size + linalg.norm(layer.bias) * len(F.value) ** 0.5
    return known(value, _HIGHER * (error + linalg.product_rounding(W.shape[0] + 1, dtype) * size))


def _activated(network: FeedForward, z: Any, l: int, hidden: int) -> tuple[Any, Any, Any, Any]:
    """Return the activation, its slope, the largest second derivative, and the distance from a kink."""
    if network.function is None:
        value, slope, _ = network.activate(z, l, hidden)
        pairs = network.slopes_at(l, hidden)
        kinked = jnp.asarray(pairs[:, 0] != pairs[:, 1])[None]
        return value, slope, jnp.zeros((), z.dtype), jnp.min(jnp.where(kinked, jnp.abs(z), jnp.inf))

    def first(t: Any) -> Any:
        return jax.jvp(network.function, (t,), (jnp.ones_like(t),))  # pyright: ignore[reportArgumentType]

    value, slope = first(z)
    # Not at z: where the activation is flat a pre-activation may have come by rounding.
    grid = points(z.dtype)
    steps = jax.jvp(lambda t: first(t)[1], (grid,), (jnp.ones_like(grid),))[1]
    curvature = 1.1 * jnp.nanmax(jnp.abs(steps))  # NaN where the function has no value
    return value, slope, curvature, jnp.asarray(jnp.inf, z.dtype)
