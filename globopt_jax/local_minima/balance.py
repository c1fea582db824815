"""One scale for the units of a homogeneous network: the units in which weights are measured are nobody's business.

With a piecewise linear activation, the weights into a hidden unit times a > 0 and those out of it divided by a are the
same function. That scales columns of the Jacobian, whose space stays the same and whose singular values do not: where
two layers differ by 1e7, their blocks differ by 1e14, and the cutoff hides one behind the other. So the Jacobian is
taken where the weights into every unit have a norm near 1, by powers of two, which round nothing.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from globopt_jax.local_minima.jacobian import Layered, Model
from globopt_jax.networks import layers_of

__all__ = ["Balanced", "balanced"]

#: Below every exponent that sums of them reach.
LEAST = -(2**24)


class Balanced(NamedTuple):
    """A network at one scale, with the tangent space that it has as it was given.

    ``params``: in the form of those given. The weights into a hidden unit (with the bias) have a norm in [1, 2), those
    into the largest output likewise. ``exponent``, ``bias``: the output as given is ``2^exponent`` times that of
    `params`, plus the bias (dy,) or 0.
    """

    params: Any
    exponent: int
    bias: Any


def balanced(model: Model, params: Any) -> Balanced:
    """Bring a feed-forward network with a piecewise linear activation to one scale; leave every other model as it is.

    Patterns, zeros and kinks stay what they are. A unit whose incoming weights are all zero has no scale: the largest
    weights out of it become as large as those out of the other units. An entry vanishes only if it is smaller than the
    norm of its unit by all that the dtype holds (1e-38 in float32).
    """
    if not isinstance(model, Layered) or model.network.function is not None:
        return Balanced(params, 0, 0)
    layers = layers_of(params)
    kernels = [np.asarray(layer.kernel) for layer in layers]
    rows = np.zeros(len(kernels[0]), int)  # exponents for the rows of the next kernel, of the units that they leave
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
    """e with a norm in [2^e, 2^(e+1)) for each column of ``diag(2^rows) M``, and which of them are not zero.

    From mantissas and exponents apart: nothing overflows, and other powers of two in M and rows change e alone.
    """
    mantissas, exponents = np.frexp(M.astype(np.float64))
    exponents = np.where(mantissas != 0, exponents + rows[:, None], LEAST)
    top = np.max(exponents, axis=0, initial=LEAST)
    norms = np.sqrt(np.sum(np.square(np.ldexp(mantissas, exponents - top[None])), axis=0))
    live = norms > 0
    return np.where(live, top + np.frexp(norms)[1] - 1, 0), live
