"""Weights that fit the data exactly, by construction (NH17, the existence part of Theorem 3.8)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.inputs import integer
from globopt_jax.linalg import matmul
from globopt_jax.networks import FeedForward, Layer
from globopt_jax.shapes import Array
from globopt_jax.wide.bound import checked, concrete
from globopt_jax.wide.catalogue import network_of

__all__ = ["Interpolation", "interpolate"]

#: The share of the activation's range over [-1, 1] that targets are scaled to, and the halvings of its inversion there.
_SHARE, _HALVINGS = 0.9, 60


class Interpolation(NamedTuple):
    """Weights that fit the data, and how well."""

    kernels: tuple[Array, ...]
    """The kernels of all layers; those up to layer k are the given ones."""
    biases: tuple[Array, ...]
    """The biases of all layers; shape (0,) for layers without one."""
    loss: Array
    """``1/2 ||F_L - Y||^2`` at these weights."""
    rank: Array
    """The numerical rank of ``[F_k, 1]``; the fit is exact if it is N."""
    samples: Array
    """The number N of samples."""

    @property
    def params(self) -> list[tuple[Any, Any]]:
        """The weights as pairs (kernel, bias), as other functions take them."""
        return [(w, b if b.size else None) for w, b in zip(self.kernels, self.biases, strict=True)]

    @property
    def reason(self) -> str:
        """The result in a sentence."""
        if int(self.rank) < int(self.samples):
            return (
                f"The features have rank {int(self.rank)} for {int(self.samples)} samples, so that they need not fit "
                f"every target; the loss is {float(self.loss):.3g}."
            )
        return f"The features have rank {int(self.rank)}, one for each sample; the loss is {float(self.loss):.3g}."

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def interpolate(params: Any, X: Any, Y: Any, layer: int, activation: Any = "tanh") -> Interpolation:
    """Replace the layers above layer k by weights that fit the data, if ``[F_k, 1]`` has rank N.

    From the last layer down to layer k + 2 the kernel is s times the identity on the first dy units and zero elsewhere,
    the bias is a constant c for each unit, and the target of the layer below is ``act^-1((T - c) / s)``. Here s and c
    bring the targets T into the range of the activation over [-1, 1], and bisection inverts it. Layer k + 1 is the
    solution of least norm of ``[F_k, 1] W = T``.

    Host function.

    Args:
        params: pairs (kernel, bias); all layers above layer k + 1 have a bias and at least dy units.
        X: inputs (N, dx).
        Y: targets (N, dy).
        layer: the layer k, from 0 to L - 1, whose features are kept.
        activation: as in `loss_bound`; it has to increase on [-1, 1].

    Returns:
        An `Interpolation`.

    Raises:
        ValueError: the shapes do not fit, an array has NaN or inf, a layer above layer k has fewer than dy units or no
            bias, or the activation is not increasing.
        TypeError: an array does not hold real numbers, or is traced.

    References:
        Nguyen & Hein 2017, Theorem 3.8.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(4, 2)), rng.normal(size=(4, 1))
        >>> widths = [(2, 5), (5, 3), (3, 1)]
        >>> params = [(rng.normal(size=w), np.zeros(w[1])) for w in widths]
        >>> found = interpolate(params, X, Y, layer=1)
        >>> int(found.rank), bool(found.loss < 1e-20)
        (4, True)
    """
    layers, X, Y = checked(*concrete(params, X, Y))
    k = integer("layer", layer, 0, len(layers) - 1)
    network, dy = network_of(activation), Y.shape[1]
    for l, upper in enumerate(layers[k + 1 :], start=k + 2):
        if upper.bias is None or upper.kernel.shape[0] < dy:
            raise ValueError(
                f"params: Expected: a bias in layer {l} and at least {dy} units below it. Received: kernel "
                f"{upper.kernel.shape} {'without' if upper.bias is None else 'with'} a bias."
            )
    features = X
    for l, lower in enumerate(layers[:k]):
        z = matmul(features, lower.kernel) + (0 if lower.bias is None else lower.bias[None])
        features = network.activate(z, l, len(layers) - 1)[0]
    new, T = list(layers), Y
    for l in range(len(layers) - 1, k, -1):
        new[l], T, increasing = _identity(network, l, layers, T)
        if not bool(increasing):
            raise ValueError("activation: Expected: one that increases on [-1, 1]. Received: one that does not.")
    first = layers[k]
    Ft = features if first.bias is None else jnp.concatenate([features, jnp.ones_like(features[:, :1])], axis=1)
    T = jnp.pad(T, ((0, 0), (0, first.kernel.shape[1] - T.shape[1])))
    solved = jnp.linalg.lstsq(Ft, T)[0]
    new[k] = Layer(solved, None) if first.bias is None else Layer(solved[:-1], solved[-1])
    output = network([(w, b) for w, b in new], X)
    return Interpolation(
        tuple(np.asarray(w) for w, _ in new),
        tuple(np.zeros(0, X.dtype) if b is None else np.asarray(b) for _, b in new),
        0.5 * jnp.sum(jnp.square(output - Y)),
        linalg.numerical_rank(Ft),
        np.asarray(len(X), np.int32),
    )


@partial(jax.jit, static_argnums=(0, 1))
def _identity(network: FeedForward, l: int, layers: list[Layer], T: Any) -> tuple[Layer, Any, Any]:
    """Return a layer that turns the first dy features of the layer below into T, and the pre-activations below.

    Return also whether the activation increases on [-1, 1], without which the layer is wrong.
    """
    (n, width), dy, hidden = layers[l].kernel.shape, T.shape[1], len(layers) - 1

    def activate(z: Any) -> Any:
        return network.activate(z, l - 1, hidden)[0]

    between = jnp.broadcast_to(jnp.linspace(-1, 1, 101, dtype=T.dtype)[:, None], (101, n))
    values = activate(between)[:, :dy]
    low, high = values[0], values[-1]
    half = 0.5 * _SHARE * (high - low)
    middle = 0.5 * (jnp.max(T, axis=0) + jnp.min(T, axis=0))
    s = jnp.max(jnp.abs(T - middle[None]) / half[None])
    s = jnp.where(s > 0, s, 1)
    c = middle - s * 0.5 * (low + high)
    wanted = (T - c[None]) / s

    def halve(_: Any, ends: tuple[Any, Any]) -> tuple[Any, Any]:
        below, above = ends
        centre = 0.5 * (below + above)
        less = jnp.pad(activate(centre)[:, :dy] < wanted, ((0, 0), (0, n - dy)))
        return jnp.where(less, centre, below), jnp.where(less, above, centre)

    ends = jnp.full((len(T), n), -1.0, T.dtype), jnp.full((len(T), n), 1.0, T.dtype)
    below, above = jax.lax.fori_loop(0, _HALVINGS, halve, ends)
    kernel = jnp.zeros((n, width), T.dtype).at[jnp.arange(dy), jnp.arange(dy)].set(s)
    bias = jnp.zeros(width, T.dtype).at[:dy].set(c)
    increasing = jnp.all(jnp.diff(values, axis=0) > 0)
    return Layer(kernel, bias), (0.5 * (below + above))[:, :dy], increasing
