"""The column space of a matrix in passes, as a program of a fixed number of steps.

1. The Gram matrix with columns of unit norm, and its Cholesky factorization with pivots, select columns that are
   independent at the precision of a Gram matrix. They span the column space but for its weakest directions.
2. Random combinations (`Side.trials`) of all that seems to be null are made orthogonal to the selected columns, through
   the matrix itself. The singular values of their images are compared with the cutoff; those above it join the space.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np

from globopt_jax.linalg import lapack, matmul
from globopt_jax.linalg.selection import Selection, select
from globopt_jax.linalg.tolerances import cutoff_of
from globopt_jax.local_minima.passes import row_sum_of
from globopt_jax.local_minima.traced.found import DOUBT
from globopt_jax.local_minima.traced.host import on_host
from globopt_jax.local_minima.traced.sides import Side
from globopt_jax.shapes import Array, Scalar

__all__ = ["Selected", "Space", "Tail", "space_of"]

#: The number of steps that make the random combinations of the presumed null space orthogonal.
ORTHOGONAL = 3


class Selected(NamedTuple):
    """Independent columns of B, with the arrays of a `Selection` in the program."""

    arrays: Selection
    """From the host."""
    place: Array
    """(n,): the inverse of the order of the pivots."""

    def coordinates(self, products: Array) -> Array:
        """Return ``Q^T b`` in the order of the pivots, given products ``B^T b`` (n, q)."""
        scaled = (products * self.arrays.inverse[:, None])[self.arrays.order]
        live = self.arrays.live[:, None]
        return jax.scipy.linalg.solve_triangular(self.arrays.factor, scaled * live, trans=1) * live

    def coefficients(self, coordinates: Array) -> Array:
        """Return x (n, q), zero but at the selected columns, with ``B x = Q coordinates``."""
        found = jax.scipy.linalg.solve_triangular(self.arrays.factor, coordinates)
        return found[self.place] * self.arrays.inverse[:, None]


class Tail(NamedTuple):
    """The weak directions that a Gram matrix does not see."""

    image: Array
    """An orthonormal basis, with `Side.trials` columns; zeros for columns that do not count."""
    coefficients: Array
    """The basis is B times these."""
    rank: Array
    """Their number."""
    sure: Array
    """Whether no other direction can be expected to count."""


class Space(NamedTuple):
    """The column space of B: the selected columns, and the tail."""

    selected: Selected
    tail: Tail
    rank: Array
    """The numerical rank."""
    sure: Array
    """Whether it seems settled."""


def space_of(side: Side, criterion: str, complement: bool) -> Space:
    """Find the column space of B; the host also computes `Selection.complement` on demand."""
    A, G = side.A, side.gram()
    selected = _selected(G, A.eps, side.trials, complement)
    row_sum = row_sum_of(A.model, A.params, A.chunks(2 * A.size)) if criterion == "golub" else 0.0
    limit = cutoff_of(A.counted, A.eps, selected.arrays.largest, row_sum, criterion)
    tail = _tail(side, selected, jnp.maximum(limit, jnp.finfo(A.dtype).tiny))
    rank = jnp.sum(selected.arrays.live, dtype=G.dtype).astype(jnp.int32) + tail.rank
    return Space(selected, tail, rank, tail.sure & jnp.isfinite(selected.arrays.largest))


def _selected(G: Array, eps: float, trials: int, complement: bool) -> Selected:
    n, dtype = len(G), G.dtype
    square = (n, n)
    shapes = Selection(square, (n,), (n,), (n,), (n, trials), (), (), square if complement else (0, 0))
    kinds = [np.int32 if name in ("order", "rest") else dtype for name in Selection._fields]
    like = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)]
    found = on_host(lambda G: select(np.asarray(G, np.float64), eps, trials, complement), like, G)
    selection = Selection(*found)
    place = jnp.zeros(n, jnp.int32).at[selection.order].set(jnp.arange(n, dtype=jnp.int32))
    return Selected(selection, place)


def _tail(side: Side, selected: Selected, limit: Scalar) -> Tail:
    Z = selected.arrays.null
    image = jax.eval_shape(lambda Z: side.images(Z)[0], Z)

    def orthogonal(_: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        Z = state[0]
        image, products = side.images(Z)
        return Z - selected.coefficients(selected.coordinates(products)), Z, image

    # The image belongs to Z before the last step.
    start = Z, Z, jnp.zeros(image.shape, image.dtype)
    _, Z, image = jax.lax.fori_loop(0, ORTHOGONAL + 1, orthogonal, start)
    Q, R = lapack.qr(image)
    U, s, Vt = lapack.svd(R, full_matrices=False)
    counts = s > limit
    basis = jnp.where(counts[None], matmul(Q, U), 0)
    weights = matmul(Z, Vt.T) * jnp.where(counts, 1 / jnp.where(counts, s, 1), 0)[None]
    doubtful = jnp.any((s > DOUBT[0] * limit) & (s < DOUBT[1] * limit))
    more = selected.arrays.rest > side.trials
    return Tail(basis, weights, jnp.sum(counts, dtype=jnp.int32), ~doubtful & ~(jnp.all(counts) & more))
