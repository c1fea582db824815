"""J of padded networks (KHK19 Theorem 1), so that networks of several shapes share a compiled program.

A weight of a missing unit, or of a missing layer, has a column of zeros in the Jacobian. Such columns change neither
the column space nor the singular values; the cutoff for singular values counts the columns that are not missing.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.linalg import matmul
from globopt_jax.local_minima.balance import balanced
from globopt_jax.local_minima.jacobian import FaceSplitting, FeedForwardModel
from globopt_jax.local_minima.passes import MEMORY, Jacobian
from globopt_jax.local_minima.traced.project import by_gram
from globopt_jax.local_minima.value import TangentValue
from globopt_jax.networks import FeedForward
from globopt_jax.shapes import Array
from globopt_jax.sweeps.padding import Arrays, Padded, Shape, arrays_for, pad

__all__ = ["groups_for", "padded_value"]

#: The seconds that a program takes to compile, and the products of a Gram matrix in a second; both are rough.
COMPILATION, SPEED = 4.0, 2e10


def groups_for(shapes: Sequence[Shape], dx: int, dy: int, work: float) -> dict[Shape, Arrays]:
    """Return the arrays in which J of each shape is computed; `padding.arrays_for` has larger ones.

    Depths share a program if its compilation costs more than the columns of zeros that the smaller ones then have.

    Args:
        shapes: the shapes.
        dx: the number of inputs.
        dy: the number of outputs.
        work: the number of samples times the number of networks of each shape.

    Example:
        >>> shapes = [Shape(d, w) for w in (2, 8, 32) for d in (1, 2, 3, 6)]
        >>> sorted({(a.depth, a.width) for a in groups_for(shapes, 64, 10, work=1e3).values()})
        [(3, 32), (6, 8), (6, 32)]
    """
    found: dict[Shape, Arrays] = {}
    wide = arrays_for(shapes, dx, dy)
    for width in {arrays.width for arrays in wide.values()}:
        alike = sorted((s for s in shapes if wide[s].width == width), key=lambda s: s.depth)
        seconds = [work * Shape(s.depth, width).parameters(dx, dy) ** 2 / SPEED for s in alike]
        for begin, end in itertools.pairwise(_cuts(seconds)):
            found |= {s: wide[s]._replace(depth=alike[end - 1].depth) for s in alike[begin:end]}
    return found


def _cuts(seconds: Sequence[float]) -> list[int]:
    """Cut a sorted list into groups, each of which costs a compilation and as much for all as for its last entry."""
    best: list[tuple[float, list[int]]] = [(0.0, [0])]
    for end in range(1, len(seconds) + 1):
        ways = ((best[b][0] + COMPILATION + (end - b) * seconds[end - 1], [*best[b][1], end]) for b in range(end))
        best.append(min(ways))
    return best[-1][1]


def padded_value(network: FeedForward, kernels: Sequence[np.ndarray], arrays: Arrays, X: Array, Y: Array) -> Any:
    """Return J of a network as a `TangentValue`, by the Gram matrix of the columns, computed in padded arrays.

    Args:
        network: the activation.
        kernels: the kernels of the network, in float64.
        arrays: the arrays, from `groups_for`.
        X: inputs (m, dx).
        Y: targets (m, dy); at least as many entries as the arrays have weights.
    """
    point = balanced(FeedForwardModel(network), [np.asarray(w) for w in kernels])
    weights = [jax.device_put(w) for w in pad([np.asarray(w) for w in point.params], arrays)]
    columns = np.asarray(sum(w.size for w in kernels), X.dtype)
    return _value(_Model(network), weights, np.int32(len(kernels) - 1), columns, X, Y)


@functools.partial(jax.jit, static_argnums=0)
def _value(model: "_Model", weights: Padded, depth: Any, columns: Array, X: Array, Y: Array) -> TangentValue:
    A = _PaddedJacobian(model, (weights, depth), X, Y.shape[1], MEMORY, columns)
    found = by_gram(A, Y, "press")
    return TangentValue(0.5 * jnp.sum(jnp.square(found.r)), found.rank, found.sure)


class _PaddedJacobian(Jacobian):
    """A Jacobian with columns of zeros for missing weights."""

    def __init__(self, model: Any, params: Any, X: Any, dy: int, memory: int, columns: Array) -> None:
        super().__init__(model, params, X, dy, memory)
        self.columns = columns

    @property
    def counted(self) -> tuple[Any, Any]:
        """(m dy, N) with the weights that are not missing."""
        return self.shape[0], self.columns


@dataclass(frozen=True)
class _Model:
    """A padded network; its params are the padded weights and the number of hidden layers."""

    network: FeedForward

    def output(self, params: Any, X: Any) -> Any:
        return self._passed(params, X)[-1]

    def chunk(self, params: Any, X: Any, present: Any) -> FaceSplitting:
        weights, depth = params
        features, patterns, out = self._passed(params, X)
        dy = out.shape[1]
        last = jnp.broadcast_to(jnp.eye(dy, dtype=out.dtype)[None], (len(X), dy, dy)) * present[:, None, None]
        signals, signal = [last], matmul(last, weights[-1].T)
        for l in range(len(weights) - 1, 1, -1):
            own = jnp.where(l <= depth, signal * patterns[l - 1][:, None], 0)
            signals.append(own)
            signal = jnp.where(l <= depth, matmul(own, weights[l - 1][0].T), signal)
        signals.append(signal * patterns[0][:, None])
        return FaceSplitting(signals[::-1], features)

    def kinks(self, params: Any, X: Any, present: Any) -> Any:
        del params, X, present
        return jnp.asarray(-1, jnp.int32)

    def parts(self, params: Any, dy: int) -> list[int]:
        del dy
        return [w.size for w in params[0]]

    def floats(self, params: Any, dy: int) -> int:
        return FeedForwardModel(self.network).floats([w.reshape(w.shape[-2:]) for w in params[0]], dy)

    def direction(self, params: Any, x: Any) -> Any:
        """Return the change of params that has the coefficients x (N,)."""
        weights, depth = params
        cuts = np.cumsum([w.size for w in weights])[:-1]
        return [part.reshape(w.shape) for part, w in zip(jnp.split(x, cuts), weights, strict=True)], 0 * depth

    def _passed(self, params: Any, X: Any) -> tuple[list[Any], list[Any], Any]:
        """Return the features that enter each layer, the activation patterns, and the output."""
        (first, *hidden, last), depth = params
        features, patterns = [X], []
        h, pattern, _ = self.network.activate(matmul(X, first), 0, 1)
        patterns.append(pattern)
        for l, w in enumerate(hidden, start=2):
            features.append(h)
            value, pattern, _ = self.network.activate(matmul(h, w[0]), 0, 1)
            patterns.append(pattern)
            h = jnp.where(l <= depth, value, h)
        return [*features, h], patterns, matmul(h, last)
