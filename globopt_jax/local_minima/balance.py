"""Bring the units of a network to one scale, so that no result depends on how scale is spread over the layers.

With a piecewise linear activation, a network computes the same function when the weights into a hidden unit are
multiplied by a > 0 and the weights out of it are divided by a. This rescales columns of the Jacobian: the column space
stays the same, the singular values change. Where two layers differ by a factor of 1e7, their blocks of the Jacobian
differ by 1e14, and the cutoff for singular values hides one block behind the other. Therefore the Jacobian is computed
at rescaled weights, for which the weights into every unit have a norm near 1. The factors are powers of two, so that
nothing is rounded.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.local_minima.jacobian import FeedForwardModel, Model
from globopt_jax.local_minima.traced.host import on_host
from globopt_jax.networks import Layer, layers_of

__all__ = ["Balanced", "balanced", "traced_balanced"]

#: The exponent of a zero: smaller than every sum of exponents.
LEAST = -(2**24)


class Balanced(NamedTuple):
    """A rescaled network with the same tangent space as the given one.

    The output of the given network is ``2^exponent`` times the output of ``params``, plus ``bias``.
    """

    params: Any
    """The rescaled weights, in the form in which they were given. The weights into a hidden unit (with its bias) have a
    norm in [1, 2), and so have the weights into the largest output."""
    exponent: int
    """The exponent of the power of two by which the output was divided."""
    bias: Any
    """The bias of the last layer (1, dy), or 0 where there is none. The rescaled network has 0 in its place."""


def balanced(model: Model, params: Any) -> Balanced:
    """Return a feed-forward network with a piecewise linear activation at one scale, and any other model unchanged.

    Activation patterns, zero weights and kinks stay the same. A unit whose incoming weights are all zero has no scale:
    the norm of its outgoing weights is brought to the largest one among the other units. A weight underflows to zero
    only where it is smaller than the norm of its unit's weights by the whole range of the dtype (a factor of 1e-38 in
    float32).
    """
    if not _has_scale(model):
        return Balanced(params, 0, 0)
    layers = [Layer(np.asarray(w), None if b is None else np.asarray(b)) for w, b in layers_of(params)]
    powers, exponent = _powers(layers)
    found = [np.ldexp(_stacked(layer, np), power) for layer, power in zip(layers, powers, strict=True)]
    bias = layers[-1].bias
    if bias is not None:
        found[-1][-1] = 0
    # `jnp.asarray` would compile a program for every new shape.
    return Balanced(_split(params, [jax.device_put(a) for a in found]), exponent, 0 if bias is None else bias[None])


def traced_balanced(model: Model, params: Any) -> Any:
    """Return the params of `balanced` as a function that can be traced; for derivatives the factors are constants."""
    if not _has_scale(model):
        return params
    layers = layers_of(params)
    stacked = [_stacked(layer, jnp) for layer in layers]

    def host(*stacked: Any) -> list[np.ndarray]:
        rows = [len(layer.kernel) for layer in layers]
        parts = [np.split(np.asarray(a), [n]) for a, n in zip(stacked, rows, strict=True)]
        given = [Layer(w, b[0] if len(b) else None) for w, b in parts]
        return [power.astype(np.int32) for power in _powers(given)[0]]

    shapes = [jax.ShapeDtypeStruct(a.shape, np.int32) for a in stacked]
    powers = on_host(host, shapes, *jax.lax.stop_gradient(stacked))
    # In two halves, since a factor may overflow where the product does not.
    found = []
    for a, power in zip(stacked, powers, strict=True):
        half = power // 2
        one = jnp.ones((), a.dtype)
        found.append(a * jnp.ldexp(one, half) * jnp.ldexp(one, power - half))
    return _split(params, found)


def _has_scale(model: Model) -> bool:
    """Whether scale can move between the layers of the model."""
    return isinstance(model, FeedForwardModel) and model.network.function is None


def _stacked(layer: Layer, library: Any) -> Any:
    """The kernel with the bias as its last row, if there is one."""
    return layer.kernel if layer.bias is None else library.concatenate([layer.kernel, layer.bias[None]])


def _split(params: Any, stacked: list[Any]) -> Any:
    """The stacked layers in the form of params."""
    found = []
    for entry, a in zip(params, stacked, strict=True):
        if not isinstance(entry, tuple | list):
            found.append(a)
        else:
            found.append((a, None) if entry[1] is None else (a[:-1], a[-1]))
    return found


def _powers(layers: Sequence[Layer]) -> tuple[list[np.ndarray], int]:
    """Return the exponents of the factors of every stacked layer, and the exponent by which the output is divided."""
    kernels = [np.asarray(layer.kernel) for layer in layers]
    rows = np.zeros(len(kernels[0]), int)  # exponents of the units that the rows of the next kernel leave
    found: list[Any] = []
    for layer, following in zip(layers[:-1], kernels[1:], strict=True):
        incoming = _stacked(layer, np)
        rows = np.concatenate([rows, np.zeros(len(incoming) - len(rows), int)])
        size, live = _sizes(incoming, rows)
        found.append(rows[:, None] - size[None])
        outgoing, there = _sizes(following.T, np.zeros(following.shape[1], int))
        alike = np.max((outgoing + size)[live & there]) if np.any(live & there) else 0
        rows = np.where(live, size, np.where(there, alike - outgoing, 0))
    size, there = _sizes(kernels[-1], rows)
    exponent = int(np.max(size[there])) if np.any(there) else 0
    rows = np.concatenate([rows, np.zeros(int(layers[-1].bias is not None), int)])
    found.append(np.broadcast_to((rows - exponent)[:, None], (len(rows), kernels[-1].shape[1])))
    return found, exponent


def _sizes(M: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return e for each column of ``diag(2^rows) M``, with a norm in [2^e, 2^(e+1)), and which columns are not zero.

    Mantissas and exponents are handled apart: nothing overflows, and powers of two in M and rows change e alone.
    """
    mantissas, exponents = np.frexp(M.astype(np.float64))
    exponents = np.where(mantissas != 0, exponents + rows[:, None], LEAST)
    top = np.max(exponents, axis=0, initial=LEAST)
    norms = np.sqrt(np.sum(np.square(np.ldexp(mantissas, exponents - top[None])), axis=0))
    live = norms > 0
    return np.where(live, top + np.frexp(norms)[1] - 1, 0), live
