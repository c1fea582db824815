"""The Jacobian of a network's output in its parameters, for a chunk of samples.

Rows belong to pairs (sample, output), columns to parameters. `FaceSplitting` uses the structure of a feed-forward
network; `Rows` works for every differentiable model.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from globopt_jax.linalg import matmul
from globopt_jax.networks import FeedForward, layers_of

__all__ = ["Chunk", "FaceSplitting", "FeedForwardModel", "GeneralModel", "Masked", "Model", "Restricted", "Rows"]
__all__ += ["model_of"]


@runtime_checkable
class Chunk(Protocol):
    """The rows A (c dy, N) of the Jacobian that belong to c samples."""

    def gram(self) -> Any:
        """Return arrays whose sums over all chunks determine ``A^T A``."""
        ...

    def joined(self, sums: Any) -> Any:
        """Return ``A^T A`` (N, N) from the sums of `gram` over all chunks."""
        ...

    def cross(self, other: Any) -> Any:
        """``A A'^T`` (c dy, c' dy)."""
        ...

    def times(self, V: Any) -> Any:
        """``A V`` (c, dy, p) for V (N, p)."""
        ...

    def transposed(self, U: Any) -> Any:
        """``A^T U`` (N, p) for U (c, dy, p)."""
        ...

    def largest(self) -> Any:
        """The largest absolute entry of each column, (N,)."""
        ...

    def dense(self) -> Any:
        """A itself, (c dy, N)."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FaceSplitting:
    """The Jacobian of a feed-forward network: the face-splitting product of back-propagated signals and features.

    Block l has the entry ``signals_l[i, j, k] features_l[i, a]`` in row (i, j) and column (a, k).
    """

    signals: list[Any]
    """For each block (c, dy, d_l)."""
    features: list[Any]
    """For each block (c, d_{l-1}), with a column of ones where the layer has a bias."""

    def gram(self) -> list[Any]:
        """Return a product for every pair of layers, contracted over the outputs first, which saves a factor of dy.

        The product of a layer with itself has pairs of signals and of features in one order only: a quarter of all."""
        found = []
        for a, b in _pairs(len(self.signals)):
            s, t, f, g = self.signals[a], self.signals[b], self.features[a], self.features[b]
            # Samples last: the product below then contracts over contiguous rows, which is 1.5 times as fast.
            inner = jnp.einsum("ijk,ijh->khi", s, t, precision="highest")
            if a == b:
                k, p = np.triu_indices(s.shape[2]), np.triu_indices(f.shape[1])
                inner, outer = inner[k], f[:, p[0]] * f[:, p[1]]
            else:
                inner, outer = inner.reshape(-1, len(s)), (f[:, :, None] * g[:, None, :]).reshape(len(f), -1)
            found.append(matmul(inner, outer))
        return found

    def joined(self, sums: list[Any]) -> Any:
        """``A^T A`` (N, N) from the sums of `gram`."""
        blocks = []
        for (a, b), found in zip(_pairs(len(self.signals)), sums, strict=True):
            k, h, p, q = (x[i].shape[-1] for x in (self.signals, self.features) for i in (a, b))
            if a == b:
                found = found[_both_orders(k)][:, _both_orders(p)]
            blocks.append(found.reshape(k, h, p, q).transpose(2, 0, 3, 1).reshape(p * k, q * h))
        return _symmetric(blocks, len(self.signals))

    def cross(self, other: "FaceSplitting") -> Any:
        """``A A'^T``: a sum over layers of products of inner products."""
        total: Any = 0.0
        for s, f, t, g in zip(self.signals, self.features, other.signals, other.features, strict=True):
            inner = jnp.einsum("ijk,hlk->ijhl", s, t, precision="highest")
            total = total + inner * matmul(f, g.T)[:, None, :, None]
        rows = self.signals[0].shape[0] * self.signals[0].shape[1]
        return total.reshape(rows, -1)

    def times(self, V: Any) -> Any:
        """``A V``."""
        p, start, total = V.shape[1], 0, 0.0
        for s, f in zip(self.signals, self.features, strict=True):
            size = f.shape[1] * s.shape[2]
            v = V[start : start + size].reshape(f.shape[1], s.shape[2] * p)
            total = total + matmul(s, matmul(f, v).reshape(len(f), s.shape[2], p))
            start += size
        return total

    def transposed(self, U: Any) -> Any:
        """``A^T U``."""
        p, found = U.shape[2], []
        for s, f in zip(self.signals, self.features, strict=True):
            u = matmul(jnp.swapaxes(s, 1, 2), U).reshape(len(f), -1)
            found.append(matmul(f.T, u).reshape(-1, p))
        return jnp.concatenate(found)

    def largest(self) -> Any:
        """The largest absolute entry of each column, taken over the outputs first."""
        pairs = [(jnp.max(jnp.abs(s), axis=1), jnp.abs(f)) for s, f in zip(self.signals, self.features, strict=True)]
        return jnp.concatenate([jnp.max(f[:, :, None] * s[:, None, :], axis=0).ravel() for s, f in pairs])

    def dense(self) -> Any:
        """A, its blocks side by side."""
        rows = self.signals[0].shape[0] * self.signals[0].shape[1]
        pairs = zip(self.signals, self.features, strict=True)
        return jnp.concatenate([(f[:, None, :, None] * s[:, :, None, :]).reshape(rows, -1) for s, f in pairs], axis=1)


def _pairs(count: int) -> list[tuple[int, int]]:
    """Return the indices of the blocks on and above the diagonal."""
    return list(itertools.combinations_with_replacement(range(count), 2))


def _symmetric(upper: Sequence[Any], count: int) -> Any:
    """Return the symmetric matrix with these blocks on and above the diagonal."""
    blocks: list[list[Any]] = [[None] * count for _ in range(count)]
    for (a, b), block in zip(_pairs(count), upper, strict=True):
        blocks[b][a], blocks[a][b] = block.T, block
    return jnp.block(blocks)


def _both_orders(n: int) -> np.ndarray:
    """Return for all pairs (i, j), row by row, the position of the pair in sorted order among the pairs i <= j."""
    place = np.zeros((n, n), int)
    i, j = np.triu_indices(n)
    place[i, j] = place[j, i] = np.arange(len(i))
    return place.ravel()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """The Jacobian as stored rows."""

    rows: Any
    """(c, dy, N)."""

    def gram(self) -> list[Any]:
        """Return the blocks of ``A^T A`` on and above the diagonal, which is little more than half of the work."""
        A = self.dense()
        n, count = A.shape[1], self._blocks()
        parts = [A[:, n * i // count : n * (i + 1) // count] for i in range(count)]
        return [matmul(parts[a].T, parts[b]) for a, b in _pairs(count)]

    def joined(self, sums: list[Any]) -> Any:
        """``A^T A`` (N, N) from the sums of `gram`."""
        return _symmetric(sums, self._blocks())

    def _blocks(self) -> int:
        return 8 if self.rows.shape[2] >= 1024 else 1

    def cross(self, other: "Rows") -> Any:
        """``A A'^T``."""
        return matmul(self.dense(), other.dense().T)

    def times(self, V: Any) -> Any:
        """``A V``."""
        return matmul(self.rows, V)

    def transposed(self, U: Any) -> Any:
        """``A^T U``."""
        return matmul(self.dense().T, U.reshape(-1, U.shape[2]))

    def largest(self) -> Any:
        """Of each column."""
        return jnp.max(jnp.abs(self.rows), axis=(0, 1))

    def dense(self) -> Any:
        """A."""
        return self.rows.reshape(-1, self.rows.shape[2])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Masked:
    """``A diag(mask)``: the Jacobian with masked columns set to zero."""

    chunk: Any
    mask: Any

    def gram(self) -> Any:
        """Return the sums of all columns; `joined` applies the mask."""
        return self.chunk.gram()

    def joined(self, sums: Any) -> Any:
        """``A^T A``."""
        return self.chunk.joined(sums) * (self.mask[:, None] * self.mask[None])

    def cross(self, other: "Masked") -> Any:
        """``A A'^T``, from stored rows."""
        return matmul(self.dense(), other.dense().T)

    def times(self, V: Any) -> Any:
        """``A V``."""
        return self.chunk.times(self.mask[:, None] * V)

    def transposed(self, U: Any) -> Any:
        """``A^T U``."""
        return self.mask[:, None] * self.chunk.transposed(U)

    def largest(self) -> Any:
        """Of each column."""
        return self.mask * self.chunk.largest()

    def dense(self) -> Any:
        """A."""
        return self.chunk.dense() * self.mask[None]


@runtime_checkable
class Model(Protocol):
    """A model with a Jacobian; hashable, since it is a static argument of compiled functions."""

    def output(self, params: Any, X: Any) -> Any:
        """The predictions (c, dy)."""
        ...

    def chunk(self, params: Any, X: Any, present: Any) -> Any:
        """The Jacobian's rows for the samples X; zero where `present` (c,) is 0."""
        ...

    def kinks(self, params: Any, X: Any, present: Any) -> Any:
        """The number of pre-activations without a derivative; -1 where unknown."""
        ...

    def parts(self, params: Any, dy: int) -> list[int]:
        """The number of columns of each layer (or of each leaf of the parameters); N in all."""
        ...

    def floats(self, params: Any, dy: int) -> int:
        """The most numbers that are stored at a time to form the rows of one sample."""
        ...


@dataclass(frozen=True)
class FeedForwardModel:
    """A feed-forward network, whose structure gives the Jacobian in blocks."""

    network: FeedForward
    """The network."""
    basis: tuple[int, ...] = ()
    """The layers l whose features enter first, as blocks ``I_dy (x) Phi^(l)``."""
    layers: tuple[int, ...] | None = None
    """The layers l whose blocks ``D^(l)`` follow; None is 1..H+1. The block of H+1 is ``I_dy (x) Phi^(H)``."""

    def output(self, params: Any, X: Any) -> Any:
        return self.network(params, X)

    def chunk(self, params: Any, X: Any, present: Any) -> FaceSplitting:
        layers = layers_of(params)
        seen = self.network.sweep(params, X)
        dy = seen.output.shape[1]
        outputs = jnp.broadcast_to(jnp.eye(dy, dtype=seen.output.dtype)[None], (len(X), dy, dy))
        signals = [outputs * present[:, None, None]]
        for layer, pattern in zip(reversed(layers[1:]), reversed(seen.patterns), strict=True):
            signals.append(matmul(signals[-1], layer.kernel.T) * pattern[:, None])
        ones = jnp.ones((len(X), 1), seen.output.dtype)
        features = [
            f if layer.bias is None else jnp.concatenate([f, ones], axis=1)
            for f, layer in zip(seen.features, layers, strict=True)
        ]
        chosen = [l - 1 for l in self._layers(params)]
        return FaceSplitting(
            [signals[0]] * len(self.basis) + [signals[::-1][l] for l in chosen],
            [seen.features[l] for l in self.basis] + [features[l] for l in chosen],
        )

    def kinks(self, params: Any, X: Any, present: Any) -> Any:
        """Count the kinks of the samples that are present; -1 for an activation given as a function."""
        if self.network.function is not None:
            return jnp.asarray(-1, jnp.int32)
        count = jax.vmap(lambda x: self.network.sweep(params, x[None]).kinks)(X)
        return jnp.sum(jnp.where(present > 0, count, 0))

    def parts(self, params: Any, dy: int) -> list[int]:
        return [a * b for a, b in self.sizes(params, dy)]

    def floats(self, params: Any, dy: int) -> int:
        sizes = self.sizes(params, dy)
        signals = sum(dy * d + a for a, d in sizes)
        pairs = max((a * c + b * d for a, b in sizes for c, d in sizes), default=0)
        return signals + 2 * pairs

    def direction(self, params: Any, x: Any) -> Any:
        """Return the change of params that has the coefficients x (N,), given the columns of all layers."""
        found, start = [], 0
        for entry in params:
            kernel, bias = entry if isinstance(entry, tuple | list) else (entry, None)
            rows = kernel.shape[0] + (bias is not None)
            stacked = x[start : start + rows * kernel.shape[1]].reshape(rows, -1)
            start += stacked.size
            own = stacked if bias is None else stacked[:-1], None if bias is None else stacked[-1]
            found.append(own if isinstance(entry, tuple | list) else own[0])
        return found

    def sizes(self, params: Any, dy: int) -> list[tuple[int, int]]:
        """(features, signals) of every block."""
        layers = layers_of(params)
        own = [(layers[l - 1].kernel, layers[l - 1].bias) for l in self._layers(params)]
        basis = [(layers[l].kernel.shape[0], dy) for l in self.basis]
        return basis + [(w.shape[0] + (b is not None), w.shape[1]) for w, b in own]

    def _layers(self, params: Any) -> tuple[int, ...]:
        return tuple(range(1, len(params) + 1)) if self.layers is None else self.layers


@dataclass(frozen=True)
class Restricted:
    """A `FeedForwardModel` model without some columns, whose params are (params, chosen, mask).

    `chosen` has 1 or 0 for each block of the basis. `mask` has 1 or 0 for each column of the D blocks, or is None. One
    compiled program serves every choice.
    """

    model: FeedForwardModel

    def output(self, params: Any, X: Any) -> Any:
        return self.model.output(params[0], X)

    def chunk(self, params: Any, X: Any, present: Any) -> FaceSplitting | Masked:
        weights, chosen, mask = params
        chunk = self.model.chunk(weights, X, present)
        count = len(self.model.basis)
        basis = [f * chosen[i] for i, f in enumerate(chunk.features[:count])]
        chunk = FaceSplitting(chunk.signals, basis + chunk.features[count:])
        if mask is None:
            return chunk
        whole = sum(f.shape[1] * s.shape[2] for s, f in zip(chunk.signals, chunk.features, strict=True))
        return Masked(chunk, jnp.concatenate([jnp.ones(whole - len(mask), mask.dtype), mask]))

    def kinks(self, params: Any, X: Any, present: Any) -> Any:
        return self.model.kinks(params[0], X, present)

    def parts(self, params: Any, dy: int) -> list[int]:
        return self.model.parts(params[0], dy)

    def floats(self, params: Any, dy: int) -> int:
        rows = 0 if params[2] is None else 2 * dy * sum(self.parts(params, dy))  # `Masked.cross` stores them
        return self.model.floats(params[0], dy) + rows

    def sizes(self, params: Any, dy: int) -> list[tuple[int, int]]:
        """(features, signals) of every block."""
        return self.model.sizes(params[0], dy)


@dataclass(frozen=True)
class GeneralModel:
    """Any differentiable ``apply(params, X)`` that treats samples one by one."""

    apply: Callable[[Any, Any], Any]

    def output(self, params: Any, X: Any) -> Any:
        return self.apply(params, X)

    def chunk(self, params: Any, X: Any, present: Any) -> Rows:
        flat, unravel = jax.flatten_util.ravel_pytree(params)

        def of_sample(x: Any) -> Any:
            return jax.jacrev(lambda v: self.apply(unravel(v), x[None])[0])(flat)

        # Under vmap the gradient of a convolution's kernel becomes a grouped convolution, whose time on CPUs grows with
        # the square of the batch. Other models lose nothing on CPUs by taking samples one by one, unless samples are
        # sharded over several CPU devices, which then all do the same work.
        one_by_one, together = partial(jax.lax.map, of_sample), jax.vmap(of_sample)
        rows = jax.lax.platform_dependent(X, cpu=one_by_one, default=together)
        return Rows(rows * present[:, None, None])

    def kinks(self, params: Any, X: Any, present: Any) -> Any:
        return jnp.asarray(-1, jnp.int32)

    def parts(self, params: Any, dy: int) -> list[int]:
        return [int(np.size(leaf)) for leaf in jax.tree.leaves(params)]

    def floats(self, params: Any, dy: int) -> int:
        return 3 * dy * max(sum(self.parts(params, dy)), 1)

    def direction(self, params: Any, x: Any) -> Any:
        """Return the change of params that has the coefficients x (N,) of the Jacobian's columns."""
        return jax.flatten_util.ravel_pytree(params)[1](x)


def model_of(apply: Callable[[Any, Any], Any]) -> FeedForwardModel | GeneralModel:
    """Return the structured model of a `networks.feed_forward`, and a model by autodiff of any other function."""
    return FeedForwardModel(apply) if isinstance(apply, FeedForward) else GeneralModel(apply)
