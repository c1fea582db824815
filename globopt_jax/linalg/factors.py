"""Products, singular values, ranks and projections."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from globopt_jax.inputs import real
from globopt_jax.linalg import lapack
from globopt_jax.linalg.tolerances import check_criterion, cutoff, largest_finite, smallest_normal
from globopt_jax.shapes import Array, Scalar

__all__ = [
    "Svd",
    "matmul",
    "norm",
    "numerical_rank",
    "product_at_most",
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
    """Return ``A B`` in the full precision of the dtype, on every device."""
    return jnp.matmul(A, B, precision="highest")


def split(U: Any, B: Any) -> tuple[Any, Any]:
    """Split ``B = outside + U along`` by orthonormal columns U, where ``outside`` is orthogonal to U to rounding.

    After one projection the remainder still has a part of size eps ||B|| in the span of U, which is large relative to
    the remainder if B lies nearly in that span. So the remainder is projected a second time.

    Args:
        U: (p, r), orthonormal columns; columns of zeros are ignored.
        B: (p, n). If U and B are NumPy arrays, NumPy computes the result in their precision.

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


@partial(jax.jit, inline=True)  # one program, where eager operations are ten
def norm(A: Any) -> Scalar:
    """Return the Euclidean norm of all entries; no intermediate square overflows or underflows to zero.

    All entries are divided by the largest before they are squared. In float32 squares of entries below 1e-19 underflow,
    and a product of seven layers of size 1e-4 has such entries. The derivative at zero is 0.

    Example:
        >>> float(norm(jnp.array([[3e-30, 4e-30]], jnp.float32)) * 1e30)
        5.0...
    """
    size = jnp.max(jnp.abs(A), initial=0.0)
    # The ones in place of zeros keep the square root away from 0, where it has no derivative.
    scaled = jnp.where(size > 0, A / jnp.where(size > 0, size, 1), 1)
    return size * jnp.sqrt(jnp.sum(jnp.square(scaled)))


def product_at_most(factors: Iterable[Any], dtype: Any) -> Scalar:
    """Return the product of non-negative factors, with no more error than that of rounding each step, or less than it.

    A step that underflows gives 0, since numbers below the smallest normal one are rounded up as well; a step that
    overflows gives the largest number; NaN gives 0. A lower bound from such a product is no larger than it should be.

    Example:
        >>> float(product_at_most([1e200, 1e200, 1e-200], np.float64)), float(product_at_most([1e-200] * 2, np.float64))
        (1.79...e+108, 0.0)
    """
    tiny, large = smallest_normal(dtype), largest_finite(dtype)
    product = jnp.ones((), dtype)
    for factor in factors:
        product = product * jnp.minimum(jnp.asarray(factor, dtype), large)
        product = jnp.where(product >= tiny, jnp.minimum(product, large), 0)
    return product


class Svd(NamedTuple):
    """The thin singular value decomposition ``M = U diag(s) Vt`` of M (p, q), with n = min(p, q)."""

    U: Array
    """(p, n): the left singular vectors as columns."""
    s: Array
    """(n,): the singular values, largest first."""
    Vt: Array
    """(n, q): the right singular vectors as rows."""
    rank: Array
    """The number of singular values above the cutoff."""
    kept: Array
    """(n,): 1 for singular values above the cutoff, else 0; in the dtype of M."""

    def project(self, B: Array) -> Array:
        """Project columns B (p, n) on the column space, see `project`."""
        return matmul(self.U, self.kept[:, None] * matmul(self.U.T, B))

    def project_out(self, B: Array) -> Array:
        """Project the column space out of columns B (p, n), see `project_out`."""
        return split(self.U * self.kept[None], real("B", B))[0]


def svd(M: Matrix, criterion: str = "press", of: Float[Array, "m q"] | None = None) -> Svd:
    """Return the thin singular value decomposition of M (p, q) and its numerical rank.

    Derivatives of the decomposition are not defined where singular values repeat, so do not differentiate it.

    Args:
        M: any real matrix; it may be rank-deficient or zero.
        criterion: the name of the criterion, see `cutoff`.
        of: the taller matrix whose triangular factor is M; its shape and entries then determine the cutoff.

    Returns:
        An `Svd`.

    Raises:
        ValueError: the criterion is unknown.
        TypeError: M does not hold real numbers.

    Example:
        >>> found = svd(jnp.array([[3.0, 0.0], [0.0, 0.0]]))
        >>> found.s.tolist(), int(found.rank), found.kept.tolist()
        ([3.0, 0.0], 1, [1.0, 0.0])
    """
    check_criterion(criterion)
    M = real("M", M)
    U, s, Vt = lapack.svd(M, full_matrices=False)
    kept = s > cutoff(M if of is None else of, s, criterion)
    return Svd(U, s, Vt, jnp.sum(kept, dtype=jnp.int32), kept.astype(M.dtype))


def singular_values(M: Matrix) -> Float[Array, " n"]:
    """Return the min(p, q) singular values of M, largest first."""
    # With full_matrices=True XLA would allocate the square factors, which are not used.
    return lapack.svd(real("M", M), full_matrices=False, compute_uv=False)


def numerical_rank(M: Matrix, criterion: str = "press") -> Int[Array, ""]:
    """Return the number of singular values of M (p, q) above `cutoff`.

    Args:
        M: any real matrix.
        criterion: the name of the criterion, see `cutoff`.

    Raises:
        ValueError: the criterion is unknown.
        TypeError: M does not hold real numbers.

    Example:
        >>> int(numerical_rank(jnp.zeros((4, 3))))
        0
    """
    check_criterion(criterion)
    M = real("M", M)
    s = singular_values(M)
    return jnp.sum(s > cutoff(M, s, criterion), dtype=jnp.int32)


def rank_at_most(M: Matrix) -> Int[Array, ""]:
    """Return an upper bound of the exact rank of M (p, q), which no rounding affects.

    The bound is the number of columns without zero columns and without repetitions, or the same for rows if this is
    smaller. A column is a repetition if it is a power of two, with either sign, times another column. Comparisons
    decide this exactly. `deep_linear.known_rank` finds more relations.

    Example:
        >>> int(rank_at_most(jnp.array([[1.0, 2.0, 0.0, 1e-9], [3.0, 6.0, 0.0, 1.0]])))
        2
    """
    M = real("M", M)
    return jnp.minimum(_distinct_columns(M), _distinct_columns(M.T))


def _distinct_columns(M: Matrix) -> Int[Array, ""]:
    """Return the number of columns without zero columns and repetitions, see `rank_at_most`."""
    top = jnp.take_along_axis(M, jnp.argmax(jnp.abs(M), axis=0)[None], axis=0)
    zero = top[0] == 0
    scaled = jnp.ldexp(M, -jnp.frexp(top)[1]) * jnp.sign(top)
    # Where an entry underflowed or overflowed the scaling was not exact, and the column counts as no repetition.
    size = jnp.abs(scaled)
    exact = jnp.all((M == 0) | ((size >= smallest_normal(M.dtype)) & (size <= 1)), axis=0)
    # Equal columns have equal weighted sums, so that sorting by the sums makes them neighbours.
    weights = 1 + jnp.sin(jnp.arange(len(M), dtype=M.dtype))
    order = jnp.argsort(jnp.sum(scaled * weights[:, None], axis=0))
    scaled, exact = scaled[:, order], exact[order]
    again = jnp.all(scaled[:, 1:] == scaled[:, :-1], axis=0) & exact[1:] & exact[:-1]
    # Zero columns equal each other, so that `again` counts all of them but one.
    repeated = jnp.sum(again, dtype=jnp.int32) + jnp.any(zero).astype(jnp.int32)
    return M.shape[1] - repeated


def spectral_norm(M: Matrix) -> Scalar:
    """Return ``||M||_2``, the largest singular value of M; 0 if M is empty.

    It is computed from the smaller of the two Gram matrices and is accurate to a few eps, since squaring costs digits
    of the small singular values but not of the largest. The entries are scaled so that their squares do not overflow.
    """
    M = real("M", M)
    size = jnp.max(jnp.abs(M), initial=0.0)
    M = M / jnp.where(size > 0, size, 1)
    gram = matmul(M.T, M) if M.shape[0] > M.shape[1] else matmul(M, M.T)
    return size * jnp.sqrt(jnp.max(lapack.eigvalsh(gram), initial=0.0))


def project(M: Matrix, B: Float[Array, "p n"], criterion: str = "press") -> Float[Array, "p n"]:
    """Return ``P[M] B``, the orthogonal projection of the columns of B on the column space of M.

    The column space is spanned by the left singular vectors whose singular values lie above the cutoff.

    Args:
        M: any real matrix (p, q).
        B: (p, n).
        criterion: the name of the criterion, see `cutoff`.

    Raises:
        ValueError: the criterion is unknown.
        TypeError: an array does not hold real numbers.

    Example:
        >>> project(jnp.array([[1.0], [1.0]]), jnp.array([[2.0], [0.0]])).round(6).tolist()
        [[1.0], [1.0]]
    """
    return svd(M, criterion).project(real("B", B))


def project_out(M: Matrix, B: Float[Array, "p n"], criterion: str = "press") -> Float[Array, "p n"]:
    """Return ``PN[M] B = B - P[M] B``, the part of B that is orthogonal to the column space of M.

    It is projected twice (`split`), so that it is orthogonal to the column space up to rounding.

    Args:
        M: any real matrix (p, q).
        B: (p, n).
        criterion: the name of the criterion, see `cutoff`.

    Raises:
        ValueError: the criterion is unknown.
        TypeError: an array does not hold real numbers.

    Example:
        >>> project_out(jnp.array([[1.0], [1.0]]), jnp.array([[2.0], [0.0]])).round(6).tolist()
        [[1.0], [-1.0]]
    """
    return svd(M, criterion).project_out(real("B", B))
