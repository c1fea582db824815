"""Products, singular values, ranks and projections."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from globopt_jax.inputs import real
from globopt_jax.linalg.tolerances import check_criterion, cutoff, smallest_normal
from globopt_jax.shapes import Array, Scalar

__all__ = [
    "Svd",
    "matmul",
    "norm",
    "numerical_rank",
    "project",
    "project_out",
    "rank_at_most",
    "singular_values",
    "spectral_norm",
    "split",
    "svd",
]

Matrix = Float[Array, "p q"]


def matmul(A: Any, B: Any) -> Any:
    """``A B`` in the full precision of the dtype, on every device."""
    return jnp.matmul(A, B, precision="highest")


def split(U: Any, B: Any) -> tuple[Any, Any]:
    """Split ``B = outside + U along`` by orthonormal columns U, where ``outside`` is orthogonal to U to rounding.

    One projection leaves rounding of the size of B inside, which is much where B lies nearly in the span of U. So what
    is left is projected again.

    Args:
        U: (p, r), orthonormal columns; columns of zeros count for nothing. B: (p, n). Two NumPy arrays are computed in
            NumPy, in their own precision.

    Returns:
        ``outside`` (p, n) and ``along`` (r, n).

    Example:
        >>> outside, along = split(jnp.array([[1.0], [0.0]]), jnp.array([[3.0], [4.0]]))
        >>> outside.tolist(), along.tolist()
        ([[0.0], [4.0]], [[3.0]])
    """
    times = np.matmul if isinstance(U, np.ndarray) and isinstance(B, np.ndarray) else matmul
    first = times(U.T, B)
    B = B - times(U, first)
    second = times(U.T, B)
    return B - times(U, second), first + second


def norm(A: Any) -> Scalar:
    """The Euclidean norm of all entries, scaled by the largest, so that no square overflows or vanishes.

    In float32 the squares of entries below 1e-19 are gone: seven layers of 1e-4 get there.

    Example:
        >>> float(norm(jnp.array([[3e-30, 4e-30]], jnp.float32)) * 1e30)
        5.0...
    """
    size = jnp.max(jnp.abs(A), initial=0.0)
    return size * jnp.sqrt(jnp.sum(jnp.square(A / jnp.where(size > 0, size, 1))))


class Svd(NamedTuple):
    """``M = U diag(s) Vt``, thin: U (p, n), s (n,), Vt (n, q), n = min(p, q).

    ``rank``: how many of s lie above the cutoff. ``kept`` (n,): 1 for those, else 0.
    """

    U: Array
    s: Array
    Vt: Array
    rank: Array
    kept: Array

    def project(self, B: Array) -> Array:
        """`project` for columns B (p, n)."""
        return matmul(self.U, self.kept[:, None] * matmul(self.U.T, B))

    def project_out(self, B: Array) -> Array:
        """`project_out` for columns B (p, n)."""
        return split(self.U * self.kept[None], real("B", B))[0]


def svd(M: Matrix, criterion: str = "press", of: Float[Array, "m q"] | None = None) -> Svd:
    """Return the thin singular value decomposition of M (p, q) and its numerical rank. Do not differentiate it.

    Args:
        M: any real matrix, rank-deficient or zero, too. criterion: see `cutoff`.
        of: the taller matrix whose triangular factor M is; the cutoff is that of its shape and entries.

    Raises:
        ValueError: an unknown criterion.

    Example:
        >>> found = svd(jnp.array([[3.0, 0.0], [0.0, 0.0]]))
        >>> found.s.tolist(), int(found.rank), found.kept.tolist()
        ([3.0, 0.0], 1, [1.0, 0.0])
    """
    check_criterion(criterion)
    M = real("M", M)
    U, s, Vt = jnp.linalg.svd(M, full_matrices=False)
    kept = s > cutoff(M if of is None else of, s, criterion)
    return Svd(U, s, Vt, jnp.sum(kept, dtype=jnp.int32), kept.astype(M.dtype))


def singular_values(M: Matrix) -> Float[Array, " n"]:
    """The min(p, q) singular values of M, largest first."""
    # XLA would make room for the square factors of the full decomposition, though nobody asks for them.
    return jnp.linalg.svd(real("M", M), full_matrices=False, compute_uv=False)


def numerical_rank(M: Matrix, criterion: str = "press") -> Int[Array, ""]:
    """Return the number of singular values of M (p, q) above `cutoff`.

    Example:
        >>> int(numerical_rank(jnp.zeros((4, 3))))
        0
    """
    check_criterion(criterion)
    M = real("M", M)
    s = singular_values(M)
    return jnp.sum(s > cutoff(M, s, criterion), dtype=jnp.int32)


def rank_at_most(M: Matrix) -> Int[Array, ""]:
    """Return a number that the exact rank of M (p, q) does not exceed, whatever rounding may hide.

    The smaller of the numbers of rows and of columns that are not zero and no power of two times another one (or the
    negative of that), which comparisons tell without any rounding.

    Example:
        >>> int(rank_at_most(jnp.array([[1.0, 2.0, 0.0, 1e-9], [3.0, 6.0, 0.0, 1.0]])))
        2
    """
    M = real("M", M)
    return jnp.minimum(_distinct_columns(M), _distinct_columns(M.T))


def _distinct_columns(M: Matrix) -> Int[Array, ""]:
    """How many columns are neither zero nor a power of two, with either sign, times another one."""
    top = jnp.take_along_axis(M, jnp.argmax(jnp.abs(M), axis=0)[None], axis=0)
    zero = top[0] == 0
    scaled = jnp.ldexp(M, -jnp.frexp(top)[1]) * jnp.sign(top)
    # Where an entry vanished or overflowed, the scaling was not exact, and nothing is claimed.
    size = jnp.abs(scaled)
    exact = jnp.all((M == 0) | ((size >= smallest_normal(M.dtype)) & (size <= 1)), axis=0)
    # Equal columns have equal sums, so that they are neighbours in the order of the sums.
    weights = 1 + jnp.sin(jnp.arange(len(M), dtype=M.dtype))
    order = jnp.argsort(jnp.sum(scaled * weights[:, None], axis=0))
    scaled, exact = scaled[:, order], exact[order]
    again = jnp.all(scaled[:, 1:] == scaled[:, :-1], axis=0) & exact[1:] & exact[:-1]
    # Zero columns are equal to each other, too: all but the first of them are counted there.
    repeated = jnp.sum(again, dtype=jnp.int32) + jnp.any(zero).astype(jnp.int32)
    return M.shape[1] - repeated


def spectral_norm(M: Matrix) -> Scalar:
    """``||M||_2``, the largest singular value, from the smaller Gram matrix; 0 if M is empty.

    Accurate to a few eps: unlike the small singular values, the largest loses nothing by squaring. The scaling by the
    largest entry keeps the squares from overflowing.
    """
    M = real("M", M)
    size = jnp.max(jnp.abs(M), initial=0.0)
    M = M / jnp.where(size > 0, size, 1)
    gram = matmul(M.T, M) if M.shape[0] > M.shape[1] else matmul(M, M.T)
    return size * jnp.sqrt(jnp.max(jnp.linalg.eigvalsh(gram), initial=0.0))


def project(M: Matrix, B: Float[Array, "p n"], criterion: str = "press") -> Float[Array, "p n"]:
    """Return ``P[M] B``, the orthogonal projection of B's columns on the column space of M (p, q).

    Singular values of M at or below the cutoff span nothing.

    Example:
        >>> project(jnp.array([[1.0], [1.0]]), jnp.array([[2.0], [0.0]])).round(6).tolist()
        [[1.0], [1.0]]
    """
    return svd(M, criterion).project(real("B", B))


def project_out(M: Matrix, B: Float[Array, "p n"], criterion: str = "press") -> Float[Array, "p n"]:
    """Return ``PN[M] B = B - P[M] B``, projected twice, so that what is left is orthogonal to M to rounding.

    Example:
        >>> project_out(jnp.array([[1.0], [1.0]]), jnp.array([[2.0], [0.0]])).round(6).tolist()
        [[1.0], [-1.0]]
    """
    return svd(M, criterion).project_out(real("B", B))
