"""The Jacobian over all samples, in passes over chunks that fit a budget of memory; it is never stored as a whole."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg
from globopt_jax.linalg import matmul
from globopt_jax.local_minima.jacobian import Model
from globopt_jax.shapes import Array

__all__ = [
    "MEMORY",
    "NOT_FINITE",
    "Jacobian",
    "Samples",
    "TransposedJacobian",
    "dense_of",
    "faint_words",
    "gram_of",
    "images_of",
    "in_few_widths",
    "kink_words",
    "kinks_of",
    "residuals_of",
    "row_sum_of",
    "samples_in_chunks",
]

NOT_FINITE = "params, X: Expected: a finite Jacobian. Received: NaN or inf in it."
#: The bytes that the chunks of a pass may take by default.
MEMORY = 256 * 2**20


class Samples(NamedTuple):
    """Samples in n chunks of c, padded with copies of the first sample.

    Every chunk takes samples from all parts of the data, so that it is spread over all devices among which the samples
    are sharded.
    """

    X: Any
    """The samples (n, c, ...)."""
    present: Any
    """(n, c): 1 for samples, 0 for the padding."""

    def arranged(self, B: Any) -> Any:
        """Return B (m, ...) in the same order, (n, c, ...), with zeros for the padding."""
        n, c = self.present.shape
        padded = jnp.concatenate([B, jnp.zeros((n * c - len(B), *B.shape[1:]), B.dtype)])
        return jnp.moveaxis(padded.reshape(c, n, *B.shape[1:]), 1, 0)

    def restored(self, B: Any, m: int) -> Any:
        """Return B (n, c, ...) in the order of the data, (m, ...): the inverse of `arranged`."""
        n, c = self.present.shape
        return jnp.moveaxis(B, 0, 1).reshape(n * c, *B.shape[2:])[:m]


@partial(jax.jit, static_argnums=1)
def samples_in_chunks(X: Any, size: int) -> Samples:
    """Cut X (m, ...) into chunks of at most `size` samples."""
    m = len(X)
    n = -(-m // max(min(size, m), 1))
    c = -(-m // n)
    padded = jnp.concatenate([X, jnp.broadcast_to(X[:1], (n * c - m, *X.shape[1:]))])
    present = jnp.concatenate([jnp.ones(m, X.dtype), jnp.zeros(n * c - m, X.dtype)])
    return Samples(jnp.moveaxis(padded.reshape(c, n, *X.shape[1:]), 1, 0), jnp.moveaxis(present.reshape(c, n), 1, 0))


def in_few_widths(V: np.ndarray) -> np.ndarray:
    """Return V (N, p) with zero columns appended, up to the next of four widths per octave; the least width is 8.

    The number of dependent columns changes from point to point. Few widths mean few compilations.

    Example:
        >>> [in_few_widths(np.ones((1, p))).shape[1] for p in (0, 3, 8, 9, 61, 65)]
        [0, 8, 8, 10, 64, 80]
    """
    p = V.shape[1]
    missing = -p % (8 if p <= 8 else 2 ** ((p - 1).bit_length() - 3))
    return np.pad(V, ((0, 0), (0, missing))) if missing else V


class Jacobian:
    """The Jacobian A (m dy, N), in passes over chunks that fit a budget of memory (`linalg.columns.Passes`)."""

    def __init__(self, model: Model, params: Any, X: Any, dy: int, memory: int) -> None:
        self.model, self.params, self.X, self.dy, self.memory = model, params, X, dy, memory
        self.size = sum(model.parts(params, dy))
        self.dtype = X.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(m dy, N)."""
        return len(self.X) * self.dy, self.size

    @property
    def counted(self) -> tuple[Any, Any]:
        """The shape that the cutoff for singular values depends on."""
        return self.shape

    @property
    def eps(self) -> float:
        """The machine epsilon of the dtype."""
        return linalg.machine_epsilon(self.dtype)

    def chunks(self, columns: int = 0) -> Samples:
        """Cut the samples into chunks that leave room for `columns` numbers per output beside the rows."""
        floats = self.model.floats(self.params, self.dy) + columns * self.dy
        fitting = max(self.memory // (floats * np.dtype(self.dtype).itemsize), 1)
        return samples_in_chunks(self.X, fitting)

    def dense(self) -> Array:
        """Return A as a stored array."""
        if self.size == 0:
            return jnp.zeros(self.shape, self.dtype)
        return dense_of(self.model, self.params, samples_in_chunks(self.X, len(self.X)))

    def largest_row_sum(self) -> float:
        """``max_i sum_j |A_ij|``."""
        return float(row_sum_of(self.model, self.params, self.chunks(2 * self.size)))

    def column_sizes(self) -> np.ndarray:
        """``max_i |A_ij|``."""
        return np.asarray(_column_sizes(self.model, self.params, self.chunks(self.size)))

    def gram(self) -> Array:
        """Return ``A^T A``.

        Raises:
            ValueError: its entries, which are squares, overflow or underflow.
        """
        return self.resolved(gram_of(self.model, self.params, self.chunks()))

    def resolved(self, G: Array) -> Array:
        """Return a Gram matrix if the dtype can hold its entries, or if the Jacobian is zero (a dead network).

        Raises:
            ValueError: the largest entry overflows or underflows, or the Jacobian is not finite.
        """
        largest = float(_largest_square(G))
        # The squares of directions that count are eps^2 of the largest, and need their digits as well.
        low, high = linalg.smallest_normal(self.dtype) / self.eps**3, linalg.largest_finite(self.dtype) * self.eps
        if np.isnan(largest) and not np.isfinite(self.largest_row_sum()):
            raise ValueError(NOT_FINITE)
        if not low < largest < high:
            size = self.largest_row_sum()
            if size != 0:
                raise ValueError(
                    f"params, X: Expected: a Jacobian whose squares {np.dtype(self.dtype)} can hold. Received: rows "
                    f"with absolute sums up to {size:.3g}; scale the data or the parameters, or take float64."
                )
        return G

    def image_gram(self, V: Any) -> np.ndarray:
        """``(A V)^T (A V)``."""
        p, V = V.shape[1], self.padded(V)
        return np.asarray(_image_gram(self.model, self.params, self.chunks(4 * V.shape[1]), V))[:p, :p]

    def images(self, V: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return ``A^T (A V)`` and ``(A V)^T (A V)``."""
        p, V = V.shape[1], self.padded(V)
        products, gram = map(np.asarray, images_of(self.model, self.params, self.chunks(4 * V.shape[1]), V))
        return products[:, :p], gram[:p, :p]

    def residuals(self, B: Any, x: Any, V: Any, y: Any) -> tuple[Array, Array, np.ndarray]:
        """Return ``r = B - A x - (A V) y`` with B and r (m, dy, q), ``A^T r`` and ``(A V)^T r``."""
        p, V, y = V.shape[1], self.padded(V), self.padded(np.asarray(y).T).T
        x, chunks = jnp.asarray(x, self.dtype), self.chunks(4 * V.shape[1] + 12 * x.shape[1])
        r, products, inside = residuals_of(self.model, self.params, chunks, B, x, V, y)
        return r, products, np.asarray(inside)[:p]

    def image(self, B: Any, x: Any) -> tuple[Array, Array]:
        """Return ``r = B - A x`` and ``A^T r``."""
        nothing = np.zeros((self.size, 0)), np.zeros((0, B.shape[-1]))
        return self.residuals(B, x, *nothing)[:2]

    def padded(self, V: Any) -> Array:
        """Return `in_few_widths` of V in the dtype of the Jacobian."""
        return jax.device_put(in_few_widths(np.asarray(V, self.dtype)))


@partial(jax.jit, static_argnums=0)
def dense_of(model: Model, params: Any, samples: Samples) -> Array:
    """Return the stored Jacobian; the samples are one chunk."""
    return model.chunk(params, samples.X[0], samples.present[0]).dense()


@partial(jax.jit, static_argnums=0)
def row_sum_of(model: Model, params: Any, samples: Samples) -> Array:
    """Return ``max_i sum_j |A_ij|``."""

    def largest(chunk: Samples) -> Any:
        return jnp.max(jnp.sum(jnp.abs(model.chunk(params, *chunk).dense()), axis=1))

    return jnp.max(jax.lax.map(largest, samples))


@partial(jax.jit, static_argnums=0)
def _column_sizes(model: Model, params: Any, samples: Samples) -> Array:
    return jnp.max(jax.lax.map(lambda chunk: model.chunk(params, *chunk).largest(), samples), axis=0)


@partial(jax.jit, static_argnums=0)
def gram_of(model: Model, params: Any, samples: Samples) -> Array:
    """Return ``A^T A``."""

    def add(total: Any, chunk: Samples) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, model.chunk(params, *chunk).gram()), None

    first = Samples(samples.X[0], samples.present[0])
    shapes = jax.eval_shape(lambda: model.chunk(params, *first).gram())
    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    # Joined once, after the sum, since the sums have half of the matrix's size.
    return model.chunk(params, *first).joined(jax.lax.scan(add, zero, samples)[0])


@jax.jit
def _largest_square(G: Array) -> Array:
    """Return the largest entry of a Gram matrix."""
    return jnp.max(jnp.diagonal(G), initial=0)


@partial(jax.jit, static_argnums=0)
def _image_gram(model: Model, params: Any, samples: Samples, V: Array) -> Array:
    def add(total: Any, chunk: Samples) -> tuple[Any, None]:
        image = model.chunk(params, *chunk).times(V).reshape(-1, V.shape[1])
        return total + matmul(image.T, image), None

    return jax.lax.scan(add, jnp.zeros((V.shape[1], V.shape[1]), V.dtype), samples)[0]


@partial(jax.jit, static_argnums=0)
def images_of(model: Model, params: Any, samples: Samples, V: Array) -> tuple[Array, Array]:
    """Return ``A^T (A V)`` and ``(A V)^T (A V)``."""

    def add(total: Any, chunk: Samples) -> tuple[Any, None]:
        A = model.chunk(params, *chunk)
        image = A.times(V)
        flat = image.reshape(-1, V.shape[1])
        gram = matmul(flat.T, flat)
        return (total[0] + A.transposed(image), total[1] + gram), None

    p = V.shape[1]
    return jax.lax.scan(add, (jnp.zeros_like(V), jnp.zeros((p, p), V.dtype)), samples)[0]


@partial(jax.jit, static_argnums=0)
def residuals_of(
    model: Model, params: Any, samples: Samples, B: Array, x: Array, V: Array, y: Array
) -> tuple[Array, Array, Array]:
    """Return ``r = B - A x - (A V) y`` (m, dy, q), ``A^T r`` and ``(A V)^T r``."""

    def add(total: Any, chunk: tuple[Samples, Any]) -> tuple[Any, Any]:
        (X, present), right = chunk
        A = model.chunk(params, X, present)
        tail = A.times(V)
        r = right - A.times(x) - matmul(tail, y)
        inside = jnp.einsum("ijp,ijq->pq", tail, r, precision="highest")
        return (total[0] + A.transposed(r), total[1] + inside), r

    zero = jnp.zeros_like(x), jnp.zeros_like(y)
    (products, inside), r = jax.lax.scan(add, zero, (samples, samples.arranged(B)))
    return samples.restored(r, len(B)), products, inside


def kinks_of(model: Model, params: Any, X: Any, memory: int) -> Array:
    """Count the pre-activations without a derivative; -1 where unknown."""
    return _kinks(model, params, Jacobian(model, params, X, 1, memory).chunks())


def kink_words(count: int) -> str:
    """Return the sentence of a result about its number of kinks."""
    if count < 0:
        return "It is unknown whether the model has kinks here; at a kink, the derivative is the one that JAX takes."
    return (
        f"{count} pre-activations lie exactly at a kink, where the derivative is taken as 0. The network is not "
        "differentiable there, unless they stay at the kink for all weights nearby, as on a sample of zeros."
    )


def faint_words(faint: Array, parts: str) -> str:
    """Return the sentence of a result about the columns that the cutoff may hide, counted for each of its `parts`."""
    counts = ", ".join(f"{n} of number {i}" for i, n in enumerate(faint, 1) if n)
    return (
        f"Some columns of the Jacobian ({counts} of the {parts}) are so much smaller than the largest one that the "
        "cutoff may hide directions among them. These would count if the data or the parameters had other units, and J "
        "may be too large."
    )


@partial(jax.jit, static_argnums=0)
def _kinks(model: Model, params: Any, samples: Samples) -> Array:
    counts = jax.lax.map(lambda chunk: model.kinks(params, *chunk), samples)
    return jnp.where(jnp.min(counts) < 0, -1, jnp.sum(counts))


class TransposedJacobian:
    """``A^T`` (N, m dy) in passes, for models with more parameters than outputs: `linalg.columns.Passes`.

    The columns are in the order of `Samples.arranged`: (chunk, sample, output), with zero columns for the padding.
    """

    def __init__(self, jacobian: Jacobian) -> None:
        self.jacobian = jacobian
        self.samples = jacobian.chunks(4 * jacobian.dy)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, m dy), the padding included."""
        return self.jacobian.size, self.samples.present.size * self.jacobian.dy

    @property
    def eps(self) -> float:
        """The machine epsilon of the dtype."""
        return self.jacobian.eps

    def gram(self) -> Array:
        """``A A^T``."""
        return self.jacobian.resolved(_cross(self.jacobian.model, self.jacobian.params, self.samples))

    def image_gram(self, V: Any) -> np.ndarray:
        """``(A^T V)^T (A^T V)``."""
        image = self.pulled(V)
        return image.T @ image

    def images(self, V: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return ``A (A^T V)`` and ``(A^T V)^T (A^T V)``."""
        p, V = V.shape[1], self.jacobian.padded(V)
        found = _dual_images(self.jacobian.model, self.jacobian.params, self.samples, V)
        products, gram = map(np.asarray, found)
        return products[:, :p], gram[:p, :p]

    def pulled(self, V: Any) -> np.ndarray:
        """``A^T V`` (N, p)."""
        p, V = V.shape[1], self.jacobian.padded(V)
        return np.asarray(_pulled(self.jacobian.model, self.jacobian.params, self.samples, V))[:, :p]

    def columns(self, B: Any) -> Any:
        """Return B (m, dy, q) in the order of the columns, (., q)."""
        return self.samples.arranged(B).reshape(-1, B.shape[-1])

    def restored(self, B: Any) -> Any:
        """Return the array (m, dy, q) from which `columns` makes B: the inverse of `columns`."""
        n, c = self.samples.present.shape
        return self.samples.restored(B.reshape(n, c, self.jacobian.dy, -1), len(self.jacobian.X))


@partial(jax.jit, static_argnums=0)
def _cross(model: Model, params: Any, samples: Samples) -> Array:
    def row(chunk: Samples) -> Any:
        A = model.chunk(params, *chunk)
        return jax.lax.map(lambda other: A.cross(model.chunk(params, *other)), samples)

    blocks = jax.lax.map(row, samples)  # (n, n, c dy, c dy)
    size = blocks.shape[0] * blocks.shape[2]
    return jnp.swapaxes(blocks, 1, 2).reshape(size, size)


@partial(jax.jit, static_argnums=0)
def _pulled(model: Model, params: Any, samples: Samples, V: Array) -> Array:
    n, p = samples.present.shape[0], V.shape[1]
    rows = V.reshape(n, samples.present.shape[1], -1, p)

    def pull(total: Any, chunk: tuple[Samples, Any]) -> tuple[Any, None]:
        return total + model.chunk(params, *chunk[0]).transposed(chunk[1]), None

    columns = sum(model.parts(params, rows.shape[2]))
    return jax.lax.scan(pull, jnp.zeros((columns, p), V.dtype), (samples, rows))[0]


@partial(jax.jit, static_argnums=0)
def _dual_images(model: Model, params: Any, samples: Samples, V: Array) -> tuple[Array, Array]:
    image = _pulled(model, params, samples, V)
    products = jax.lax.map(lambda chunk: model.chunk(params, *chunk).times(image), samples)
    return products.reshape(-1, V.shape[1]), matmul(image.T, image)
