"""The columns of a Jacobian, or its rows, in passes that a program can trace."""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from globopt_jax.local_minima.passes import Jacobian, Samples
from globopt_jax.shapes import Array

__all__ = ["Columns", "Rows", "Side"]


class Side(abc.ABC):
    """A matrix B in passes: the Jacobian A, or its transpose.

    Arrays with an entry for every output are in the order of `Samples.arranged`, (chunk, sample, output), with zeros
    for the padding. Where all samples fit one chunk, its rows are computed once and kept.
    """

    trials: int
    """The number of random combinations of columns that stand for the presumed null space."""

    def __init__(self, A: Jacobian) -> None:
        """Cut the samples into chunks that leave room for four times the random combinations beside the rows."""
        self.A, self.samples = A, A.chunks(4 * self.trials)
        self.kept = self._chunk(*(a[0] for a in self.samples)) if len(self.samples.present) == 1 else None

    @abc.abstractmethod
    def gram(self) -> Array:
        """``B^T B``."""

    @abc.abstractmethod
    def images(self, V: Array) -> tuple[Array, Array]:
        """Return ``B V`` and ``B^T (B V)`` for V with p columns."""

    @property
    def count(self) -> int:
        """The number of outputs, the padding included."""
        return self.samples.present.size * self.A.dy

    def arranged(self, Y: Array) -> Array:
        """Return Y (m, dy) in the order of the passes, flat."""
        return self.samples.arranged(Y).reshape(-1)

    def restored(self, y: Array) -> Array:
        """Return (m, dy): the inverse of `arranged`."""
        n, c = self.samples.present.shape
        return self.samples.restored(y.reshape(n, c, self.A.dy), len(self.A.X))

    def push(self, V: Array) -> Array:
        """``A V`` for V (N, p)."""
        return self._mapped(lambda chunk: chunk.times(V)).reshape(-1, V.shape[1])

    def pull(self, U: Array) -> Array:
        """``A^T U`` for U with p columns."""
        zero = jnp.zeros((self.A.size, U.shape[1]), U.dtype)
        return self._summed(lambda chunk, u: (chunk.transposed(u), None), zero, self._split(U))[0]

    def push_one(self, x: Array) -> Array:
        """``A x`` for x (N,), by one forward derivative of the model."""

        def moved(X: Array) -> Array:
            return jax.jvp(self._output(X), (0 * x,), (x,))[1]

        present = self.samples.present[..., None]
        return (jax.lax.map(moved, self.samples.X) * present).reshape(-1)

    def pull_one(self, u: Array) -> Array:
        """``A^T u`` for u with an entry for every output, by one backward derivative of the model."""
        zero = jnp.zeros(self.A.size, u.dtype)

        def add(total: Array, chunk: tuple[Samples, Array]) -> tuple[Array, None]:
            (X, present), part = chunk
            return total + jax.vjp(self._output(X), zero)[1](part * present[:, None])[0], None

        parts = u.reshape(*self.samples.present.shape, -1)
        return jax.lax.scan(add, zero, (self.samples, parts))[0]

    def _output(self, X: Array) -> Callable[[Array], Array]:
        """Return the output on X as a function of a change x (N,) of the parameters."""
        model: Any = self.A.model
        params = self.A.params
        return lambda x: model.output(jax.tree.map(jnp.add, params, model.direction(params, x)), X)

    def _chunk(self, X: Any, present: Any) -> Any:
        return self.A.model.chunk(self.A.params, X, present)

    def _split(self, U: Array) -> Array:
        return U.reshape(*self.samples.present.shape, self.A.dy, -1)

    def _mapped(self, f: Callable[[Any], Any]) -> Any:
        """Return f of every chunk, stacked."""
        if self.kept is not None:
            return f(self.kept)[None]
        return jax.lax.map(lambda chunk: f(self._chunk(*chunk)), self.samples)

    def _summed(self, f: Callable[..., tuple[Any, Any]], zero: Any, *parts: Array) -> tuple[Any, Any]:
        """Return the sum over chunks of the first result of f, and the second results stacked."""
        if self.kept is not None:
            first, second = f(self.kept, *(p[0] for p in parts))
            return first, jax.tree.map(lambda a: a[None], second)

        def add(total: Any, given: tuple[Samples, tuple[Array, ...]]) -> tuple[Any, Any]:
            first, second = f(self._chunk(*given[0]), *given[1])
            return jax.tree.map(jnp.add, total, first), second

        return jax.lax.scan(add, zero, (self.samples, parts))


class Columns(Side):
    """``B = A``, for at least as many rows as columns."""

    trials = 32

    def gram(self) -> Array:
        if self.kept is not None:
            return self.kept.joined(self.kept.gram())
        first = tuple(a[0] for a in self.samples)
        shapes = jax.eval_shape(lambda: self._chunk(*first).gram())
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        total = self._summed(lambda chunk: (chunk.gram(), None), zero)[0]
        return self._chunk(*first).joined(total)

    def images(self, V: Array) -> tuple[Array, Array]:
        def both(chunk: Any) -> tuple[Array, Array]:
            image = chunk.times(V)
            return chunk.transposed(image), image

        products, image = self._summed(both, jnp.zeros_like(V))
        return image.reshape(-1, V.shape[1]), products


class Rows(Side):
    """``B = A^T``, for more columns than rows. With fewer combinations the refinement often does not converge."""

    trials = 64

    def gram(self) -> Array:
        if self.kept is not None:
            return self.kept.cross(self.kept)
        blocks = self._mapped(lambda chunk: self._mapped(chunk.cross))  # (n, n, c dy, c dy)
        return jnp.swapaxes(blocks, 1, 2).reshape(self.count, self.count)

    def images(self, V: Array) -> tuple[Array, Array]:
        image = self.pull(V)
        return image, self.push(image)
