"""Networks of many shapes in arrays of few shapes, so that one compiled program serves all of them.

A network of width w is stored in the arrays of a larger width, with zeros in place of the missing units. A missing unit
has the output act(0) = 0 and receives the gradient 0, so that it stays zero in training, and it adds neither to the
output nor to the tangent space. The number of hidden layers is a number in the program: `lax.cond` skips the layers
beyond it, so that they cost nothing and their weights, which are zero, receive the gradient zero.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.linalg import matmul
from globopt_jax.networks import FeedForward
from globopt_jax.shapes import Array

__all__ = ["INITIALS", "Arrays", "Padded", "Shape", "arrays_for", "draw", "forward", "pad", "unpad"]

#: The standard deviation of the initial weights of a layer with d_in inputs and d_out outputs, by its name.
INITIALS = {
    "fan_out": lambda d_in, d_out: d_out**-0.5,
    "fan_in": lambda d_in, d_out: d_in**-0.5,
    "he": lambda d_in, d_out: (2 / d_in) ** 0.5,
    "glorot": lambda d_in, d_out: (2 / (d_in + d_out)) ** 0.5,
}
#: Widths up to this number share the arrays of the largest of them; larger widths share arrays within a factor of two.
NARROW = 8

#: Padded weights: ``[first (dx, r B), hidden (r, B, B) ..., last (r B, dy)]``, or ``[last (dx, dy)]`` for depth 0.
Padded = list[Any]


class Shape(NamedTuple):
    """The shape of a network: r parallel subnetworks of one shape, whose outputs are added."""

    depth: int
    """The number H of hidden layers of each subnetwork."""
    width: int
    """The number of units in each hidden layer of each subnetwork."""
    subnetworks: int = 1
    """The number r of subnetworks."""

    def sizes(self, dx: int, dy: int) -> list[tuple[int, int]]:
        """Return (inputs, outputs) of each layer of one subnetwork."""
        ends = [dx, *[self.width] * self.depth, dy]
        return list(itertools.pairwise(ends))

    def parameters(self, dx: int, dy: int) -> int:
        """Return the number N of weights."""
        return self.subnetworks * sum(a * b for a, b in self.sizes(dx, dy))


class Arrays(NamedTuple):
    """The shape of padded arrays, which compiled programs depend on: the largest network that fits."""

    dx: int
    """The number of inputs."""
    dy: int
    """The number of outputs."""
    depth: int
    """The largest number of hidden layers."""
    width: int
    """The largest width B."""
    subnetworks: int
    """The number r of subnetworks, which is not padded."""

    @property
    def parameters(self) -> int:
        """The number of weights in the arrays, the missing ones included."""
        return Shape(self.depth, self.width, self.subnetworks).parameters(self.dx, self.dy)


def arrays_for(shapes: Sequence[Shape], dx: int, dy: int) -> dict[Shape, Arrays]:
    """Return the arrays of each shape: few for all of them, so that few programs are compiled.

    A network without hidden layers has arrays of its own. Others share the arrays of the largest width among all widths
    up to `NARROW`, or among all widths between two powers of two, and of the largest depth.

    Example:
        >>> found = arrays_for([Shape(1, 2), Shape(3, 8), Shape(2, 16)], 64, 10)
        >>> [(a.depth, a.width) for a in found.values()]
        [(3, 8), (3, 8), (3, 16)]
    """
    deepest = max(shape.depth for shape in shapes)

    def group(width: int) -> int:
        return max(width - 1, NARROW - 1).bit_length()

    found = {}
    for shape in shapes:
        alike = [s.width for s in shapes if s.depth and group(s.width) == group(shape.width)]
        depth, width = (deepest, max(alike)) if shape.depth else (0, 0)
        found[shape] = Arrays(dx, dy, depth, width, shape.subnetworks)
    return found


def draw(shape: Shape, dx: int, dy: int, seed: int, initial: str, dtype: Any) -> list[np.ndarray]:
    """Draw the initial weights of a network, which depend on its shape and seed and on nothing else.

    The entries are normal with mean zero and the standard deviation that `INITIALS` has for the layer. NumPy draws them
    in float64: each layer has a Philox generator of its own, which needs no compilation.

    Args:
        shape: the shape of the network.
        dx: the number of inputs.
        dy: the number of outputs.
        seed: an integer from 0 to 2^32 - 1.
        initial: a name of `INITIALS`.
        dtype: float32 or float64, to which the weights are rounded.

    Returns:
        A kernel (d_in, d_out) for each layer, or for r > 1 subnetworks a stack (r, d_in, d_out) for each layer.

    Example:
        >>> [w.shape for w in draw(Shape(2, 4), 3, 1, seed=0, initial="fan_out", dtype="float64")]
        [(3, 4), (4, 4), (4, 1)]
    """
    found = []
    for layer, (a, b) in enumerate(shape.sizes(dx, dy)):
        generator = np.random.Generator(np.random.Philox(key=[seed, layer]))
        drawn = generator.normal(scale=INITIALS[initial](a, b), size=(shape.subnetworks, a, b)).astype(dtype)
        found.append(drawn if shape.subnetworks > 1 else drawn[0])
    return found


def pad(kernels: Sequence[np.ndarray], arrays: Arrays) -> Padded:
    """Return the weights of a network in larger arrays, with zeros for missing units and layers."""
    stacks = [np.asarray(w).reshape(arrays.subnetworks, *w.shape[-2:]) for w in kernels]
    r, B = arrays.subnetworks, arrays.width
    if len(stacks) == 1:  # no hidden layer, and one subnetwork
        return [stacks[0][0]]
    first, *hidden, last = stacks
    found = [_padded(first, (r, arrays.dx, B)).transpose(1, 0, 2).reshape(arrays.dx, r * B)]
    found += [_padded(w, (r, B, B)) for w in hidden]
    found += [np.zeros((r, B, B), last.dtype)] * (arrays.depth - 1 - len(hidden))
    return [*found, _padded(last, (r, B, arrays.dy)).reshape(r * B, arrays.dy)]


def unpad(padded: Sequence[Any], arrays: Arrays, shape: Shape) -> list[np.ndarray]:
    """Return the weights of the network itself: the inverse of `pad`."""
    padded = [np.asarray(w) for w in padded]
    r, B, w = arrays.subnetworks, arrays.width, shape.width
    if len(padded) == 1:
        return padded
    first = padded[0].reshape(arrays.dx, r, B).transpose(1, 0, 2)[:, :, :w]
    hidden = [a[:, :w, :w] for a in padded[1 : shape.depth]]
    found = [first, *hidden, padded[-1].reshape(r, B, arrays.dy)[:, :w]]
    return found if r > 1 else [a[0] for a in found]


def forward(network: FeedForward, weights: Padded, depth: Any, X: Array, *, skip: bool = True) -> Any:
    """Return the output (m, dy) of a padded network with `depth` hidden layers; depth may be traced.

    With `skip` the missing layers cost nothing. Without it the program computes them, and compiles in less time.
    """
    if len(weights) == 1:
        return matmul(X, weights[0])
    first, *hidden, last = weights
    r, B = hidden[0].shape[:2] if hidden else (1, first.shape[1])

    def activate(z: Any) -> Any:
        return network.activate(z, 0, 1)[0]

    features = activate(matmul(X, first))

    def layer(h: Any, w: Any) -> Any:
        if r == 1:
            return activate(matmul(h, w[0]))
        z = jnp.einsum("mri,rij->mrj", h.reshape(-1, r, B), w, precision="highest")
        return activate(z.reshape(-1, r * B))

    for l, w in enumerate(hidden, start=2):
        if skip:
            features = jax.lax.cond(l <= depth, layer, lambda h, w: h, features, w)
        else:
            features = jnp.where(l <= depth, layer(features, w), features)
    return matmul(features, last)


def _padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(shape, array.dtype)
    found[tuple(slice(n) for n in array.shape)] = array
    return found
