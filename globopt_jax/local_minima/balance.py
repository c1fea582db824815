"""Bring the units of a network to one scale, so that no result depends on how scale is spread over the layers.

With a piecewise linear activation, a network computes the same function when the weights into a hidden unit are
multiplied by a > 0 and the weights out of it are divided by a. This rescales columns of the Jacobian: the column space
stays the same, the singular values change. Where two layers differ by a factor of 1e7, their blocks of the Jacobian
differ by 1e14, and the cutoff for singular values hides one block behind the other. Therefore the Jacobian is computed
at rescaled weights, for which the weights into every unit have a norm near 1. The factors are powers of two, so that
nothing is rounded.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from globopt_jax.local_minima.jacobian import FeedForwardModel, Model
from globopt_jax.networks import layers_of

__all__ = ["Balanced", "balanced"]

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
    if not isinstance(model, FeedForwardModel) or model.network.function is not None:
        return Balanced(params, 0, 0)
    layers = layers_of(params)
    kernels = [np.asarray(layer.kernel) for layer in layers]
    rows = np.zeros(len(kernels[0]), int)  # exponents of the units that the rows of the next kernel leave
    found: list[Any] = []
    for layer, kernel, following in zip(layers[:-1], kernels[:-1], kernels[1:], strict=True):
        bias = np.zeros((0, kernel.shape[1]), kernel.dtype) if layer.bias is None else np.asarray(layer.bias)[None]
        incoming = np.concatenate([kernel, bias])
        rows = np.concatenate([rows, np.zeros(len(bias), int)])
        size, live = _sizes(incoming, rows)
        found.append(np.ldexp(incoming, rows[:, None] - size[None]))
        outgoing, there = _sizes(following.T, np.zeros(following.shape[1], int))
        alike = np.max((outgoing + size)[live & there]) if np.any(live & there) else 0
        rows = np.where(live, size, np.where(there, alike - outgoing, 0))
    size, there = _sizes(kernels[-1], rows)
    exponent = int(np.max(size[there])) if np.any(there) else 0
    last = np.ldexp(kernels[-1], rows[:, None] - exponent)
    bias = layers[-1].bias
    found.append(last if bias is None else np.concatenate([last, np.zeros((1, last.shape[1]), last.dtype)]))
    split = [
        (jnp.asarray(both[: len(kernel)]), None if layer.bias is None else jnp.asarray(both[-1]))
        for both, kernel, layer in zip(found, kernels, layers, strict=True)
    ]
    alone = [not isinstance(entry, tuple | list) for entry in params]
    pairs = [pair[0] if single else pair for pair, single in zip(split, alone, strict=True)]
    return Balanced(pairs, exponent, 0 if bias is None else bias[None])


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
