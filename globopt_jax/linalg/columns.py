"""The column space of a matrix too large to store, from passes over its rows.

A Gram matrix ``A^T A`` can be accumulated from the rows of A (M, N), but it resolves singular values only down to
sqrt(eps) of the largest, and its condition number is the square of that of A. Three steps avoid both problems without
storing A:

1. A pivoted Cholesky factorization of the scaled Gram matrix selects columns A_1 that are linearly independent at the
   precision of the Gram matrix. With its factor R, ``A_1 R^{-1}`` has a condition number near 1.
2. Every other column is replaced by its residual ``E = A V`` with ``A_1^T E = 0``, which another pass computes from A.
   E spans the missing part of the column space. The Gram matrix of E resolves singular values down to sqrt(eps) of the
   largest singular value of E, which is far smaller than that of A. This is repeated until all singular values of the
   rest are below the cutoff.
3. Projections on the column space are iterated with these factors as preconditioner. Every iteration computes the
   residual again from A, so that the result reaches the accuracy of the passes.

So the rank is that of the singular value decomposition with its cutoff, provided that no singular value lies within a
factor of ten of the cutoff. The cost is about that of one Gram matrix.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy.linalg

from globopt_jax.shapes import Array

__all__ = [
    "ColumnSpace",
    "Passes",
    "Projection",
    "Refinement",
    "Residuals",
    "column_space",
    "pivoted_cholesky",
    "project_out_of",
    "refined",
    "spectral_radius",
]

#: The most rounds of step 2, and the most iterations of step 3.
ROUNDS, STEPS = 12, 40
#: The number of random combinations that test whether A vanishes on the presumed null space.
PROBES = 8


@runtime_checkable
class Passes(Protocol):
    """A matrix A (M, N) that is read only in passes over its rows; the arguments are V (N, p) and B (M, q)."""

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers M of rows and N of columns."""
        ...

    @property
    def eps(self) -> float:
        """The machine epsilon of the passes."""
        ...

    def gram(self) -> Array:
        """Return ``A^T A`` (N, N)."""
        ...

    def image_gram(self, V: Array) -> Array:
        """Return ``(A V)^T (A V)`` (p, p)."""
        ...

    def images(self, V: Array) -> tuple[Array, Array]:
        """Return ``A^T (A V)`` (N, p) and ``(A V)^T (A V)`` (p, p)."""
        ...


@runtime_checkable
class Residuals(Passes, Protocol):
    """A matrix whose passes also compute residuals of right-hand sides."""

    def residuals(self, B: Array, x: Array, V: Array, y: Array) -> tuple[Array, Array, Array]:
        """Return ``r = B - A x - (A V) y`` (M, q), ``A^T r`` (N, q) and ``(A V)^T r`` (p, q)."""
        ...


class ColumnSpace(NamedTuple):
    """A basis of the column space of A, which consists of ``A[:, selected]`` and ``A tail``; NumPy float64."""

    rank: int
    """The numerical rank r of A."""
    cutoff: float
    """The value at or below which singular values count as zero."""
    largest: float
    """The largest singular value of A."""
    smallest: float
    """An estimate of the smallest singular value above the cutoff."""
    selected: np.ndarray
    """(r1,): the indices of the selected columns."""
    factor: np.ndarray
    """(N, N): an upper triangular matrix. Its leading block is R in ``A[:, selected] = Q R diag(scale)``, where Q is
    orthonormal at the precision of the Gram matrix; the rest of its diagonal is 1, and the rest of it 0."""
    scale: np.ndarray
    """(r1,): the norms of the selected columns."""
    tail: np.ndarray
    """(N, r - r1): orthonormal combinations of columns that complete the basis."""
    tail_gram: np.ndarray
    """(r - r1, r - r1): ``(A tail)^T (A tail)``."""
    null: np.ndarray
    """(N, N - r): an orthonormal basis of the null space. The singular values of ``A null`` are at most the cutoff. If
    random combinations decided this, they are at most ten times the cutoff, except with a probability below 1e-8."""
    converged: bool
    """Whether ``null`` has this property."""

    def coordinates(self, products: np.ndarray) -> np.ndarray:
        """Return ``Q^T B`` (r1, q), given ``A^T B`` (N, q)."""
        return _solve_factor(self.factor, products[self.selected] / self.scale[:, None], trans=1)

    def coefficients(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the coefficients (r1, q) of the selected columns, given coordinates in Q."""
        return _solve_factor(self.factor, coordinates) / self.scale[:, None]

    def basis(self) -> np.ndarray:
        """Return T (N, r) for which ``A T`` is orthonormal at the precision of the Gram matrices."""
        return self.expanded(np.eye(self.rank))

    def expanded(self, z: np.ndarray) -> np.ndarray:
        """Return ``T z`` (N, q), with T from `basis`."""
        count = len(self.selected)
        found = self.tail @ _unwhiten(self.tail_gram, z[count:])
        found[self.selected] += self.coefficients(z[:count])
        return found

    def contracted(self, products: np.ndarray) -> np.ndarray:
        """Return ``T^T B`` (r, q) for B (N, q). For ``B = A^T r`` these are the coordinates of r in the basis A T."""
        return np.concatenate([self.coordinates(products), _whiten(self.tail_gram, self.tail.T @ products)])


@runtime_checkable
class Refinement(Protocol):
    """An iteration that `refined` can run."""

    def left(self) -> tuple[Array, np.ndarray]:
        """Return the current residual and its remaining part in the column space, in orthonormal coordinates (., q)."""
        ...

    def correct(self) -> None:
        """Subtract the part in the column space that the last call of `left` returned."""
        ...


class Projection(NamedTuple):
    """The part of B outside the column space of A, from an iteration."""

    outside: Array
    """``B - P[A] B``, with rows in the order of the passes."""
    steps: int
    """The number of iterations."""
    inside: float
    """The norm of ``P[A] outside`` relative to B, the largest over the columns of B. It cannot fall below the rounding
    error of ``A^T r`` divided by the smallest singular value."""
    converged: bool
    """Whether ``inside`` is at most sqrt(eps), or the column space is known no better. The error of the squared norm of
    ``outside``, relative to B, is at most the square of ``inside``; but where a singular value decomposition gives the
    space and the iteration did not help, ``inside`` estimates how far it is tilted, and the error is of this size."""


def column_space(A: Passes, cutoff: Callable[[float], float]) -> ColumnSpace:
    """Find a basis of the column space of A, of its null space, and the numerical rank.

    Args:
        A: the passes over the matrix.
        cutoff: a function that returns the cutoff of the singular values, given the largest singular value.

    Returns:
        A `ColumnSpace`.
    """
    N = A.shape[1]
    G = np.asarray(A.gram(), np.float64)
    largest = spectral_radius(G) ** 0.5
    limit = cutoff(largest)
    # The square of the resolution of a Gram matrix. Its rounding errors add up like a random walk.
    resolved = 1e3 * max(N, 1) ** 0.5 * A.eps
    norms = np.sqrt(np.maximum(np.diag(G), 0))
    # Columns of smaller norm would look independent after scaling, though their singular values may lie below the
    # cutoff. Zeros replace them, so that they are not selected.
    tall = norms > resolved**0.5 * largest
    inverse = np.where(tall, 1 / np.where(tall, norms, 1), 0)
    G = G * inverse[:, None]
    G *= inverse[None]  # in place: this is the largest matrix here
    factor, order, count = pivoted_cholesky(G, resolved)
    del G
    selected, scale = order[:count], norms[order[:count]]
    # Columns that are exactly zero belong to the null space and need no pass.
    alive, zero = norms[order[count:]] > 0, np.flatnonzero(norms == 0)
    dependent = order[count:][alive]
    V = np.zeros((N, len(dependent)))
    V[dependent, np.arange(len(dependent))] = 1
    # The identity continues the leading block, so that triangular solves can use the whole factor without a copy.
    crossing = factor[:count, count:][:, alive]
    factor[:, count:] = 0
    factor[np.arange(count, N), np.arange(count, N)] = 1
    if count and len(dependent):
        V[selected] = -_solve_factor(factor, crossing) / scale[:, None] * norms[dependent][None]
    diagonal = np.diag(factor)[:count] * scale
    empty = np.zeros((N, 0))
    found = ColumnSpace(
        rank=count,
        cutoff=limit,
        largest=largest,
        smallest=float(np.min(diagonal, initial=largest)),
        selected=selected,
        factor=factor,
        scale=scale,
        tail=empty,
        tail_gram=np.zeros((0, 0)),
        null=empty,
        converged=True,
    )
    found = _peel(A, found, _orthonormal(V))
    units = np.zeros((N, len(zero)))
    units[zero, np.arange(len(zero))] = 1
    return found._replace(null=np.concatenate([found.null, units], axis=1))


def _peel(A: Passes, found: ColumnSpace, V: np.ndarray) -> ColumnSpace:
    """Move directions from V (N, p) to the tail until all singular values of ``A V`` are below the cutoff."""
    K, gram = found.tail, found.tail_gram
    smallest, converged = found.smallest, V.shape[1] == 0
    floor = max(found.cutoff, A.eps * found.largest)  # the passes resolve nothing below eps times the largest
    if not converged:
        # Mostly the selected columns span the whole column space. A few random combinations confirm this: they miss a
        # direction ten times above the floor with a probability below 1e-8.
        mixed = V @ np.random.default_rng(0).normal(size=(V.shape[1], PROBES))
        converged = np.max(np.diag(np.array(A.image_gram(mixed), np.float64))) <= floor**2
    for _ in range(ROUNDS):
        if converged:
            break
        products, grams = (np.array(a, np.float64) for a in A.images(np.concatenate([K, V], axis=1)))
        kept = K.shape[1]
        gram, cross, own = grams[:kept, :kept], grams[:kept, kept:], grams[kept:, kept:]
        inside = found.coordinates(products[:, kept:])
        values, Z = np.linalg.eigh(own)
        sigma = np.sqrt(np.maximum(values, 0))[::-1]
        Z = Z[:, ::-1]
        limit = max(floor, (1e3 * len(sigma) ** 0.5 * A.eps) ** 0.5 * sigma[0])
        beside = np.linalg.norm(inside) + np.linalg.norm(_whiten(gram, cross))
        # This step makes A V orthogonal to the rest of the basis. It does no harm if A V is orthogonal already.
        step = K @ _solve(gram, cross)
        step[found.selected] += found.coefficients(inside)
        V = V - step
        converged = sigma[0] <= floor
        if converged or beside > max(0.1 * limit, floor):
            V = _polished(V) if np.linalg.norm(step) <= 1e-4 else _orthonormal(V)
            continue
        count = int(np.sum(sigma > limit))
        smallest = float(sigma[count - 1])
        K, V = np.concatenate([K, V @ Z[:, :count]], axis=1), _orthonormal(V @ Z[:, count:])
        converged = V.shape[1] == 0
    if K.shape[1]:
        gram = np.array(A.image_gram(K), np.float64)
    rank = len(found.selected) + K.shape[1]
    return found._replace(rank=rank, smallest=smallest, tail=K, tail_gram=gram, null=V, converged=bool(converged))


def project_out_of(A: Residuals, space: ColumnSpace, B: Array) -> Projection:
    """Return ``B - P[A] B`` for B (M, q), by a preconditioned iteration that computes every residual from A again."""
    return refined(_OutOfColumns(A, space, B), B, A.eps)


class _OutOfColumns:
    """The iteration for ``r = B - A x - (A tail) y``, which ends where r is orthogonal to the column space."""

    def __init__(self, A: Residuals, space: ColumnSpace, B: Array) -> None:
        self.A, self.space, self.B = A, space, B
        self.x = np.zeros((A.shape[1], B.shape[-1]))
        self.y = np.zeros((space.tail.shape[1], B.shape[-1]))
        self.step = self.x, self.y

    def left(self) -> tuple[Array, np.ndarray]:
        outside, products, tail = self.A.residuals(self.B, self.x, self.space.tail, self.y)
        inside = self.space.coordinates(np.array(products, np.float64))
        tail = np.array(tail, np.float64)
        self.step = inside, tail
        return outside, np.concatenate([inside, _whiten(self.space.tail_gram, tail)])

    def correct(self) -> None:
        inside, tail = self.step
        self.x[self.space.selected] += self.space.coefficients(inside)
        self.y += _solve(self.space.tail_gram, tail)


def refined(refinement: Refinement, B: Array, eps: float) -> Projection:
    """Iterate until the part of the residual in the column space is as small as the rounding of the passes."""
    q = B.shape[-1]
    size = np.linalg.norm(np.asarray(B, np.float64).reshape(-1, q), axis=0)
    best, steps, nearest = np.inf, 0, B
    while True:
        outside, inside = refinement.left()
        left = np.linalg.norm(inside, axis=0)
        worst = float(np.max(np.where(size > 0, left / np.where(size > 0, size, 1), 0), initial=0.0))
        slow = worst > 0.5 * best  # the iteration has reached the rounding of the passes
        if worst < best:
            best, nearest = worst, outside
        if slow or best <= 4 * eps or steps == STEPS:
            return Projection(nearest, steps, best, best <= eps**0.5)
        steps += 1
        refinement.correct()


def pivoted_cholesky(S: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Factorize ``S[order][:, order] = U^T U`` while pivots exceed the tolerance; return U, order and their number."""
    if not len(S):
        return S, np.arange(0), 0
    # S is symmetric, so that its transpose is the same matrix in Fortran's order, and LAPACK makes no copy.
    pstrf: Any = scipy.linalg.lapack.dpstrf  # pyright: ignore[reportAttributeAccessIssue]
    factor, order, count, _ = pstrf(S.T, tol=tolerance, lower=0, overwrite_a=1)
    return factor, order - 1, int(count)


def _solve_factor(factor: np.ndarray, B: np.ndarray, trans: int = 0) -> np.ndarray:
    """Solve with the leading block of an upper triangular factor that the identity continues."""
    whole = np.zeros((len(factor), B.shape[1]))
    whole[: len(B)] = B
    return scipy.linalg.solve_triangular(factor, whole, trans=trans, check_finite=False)[: len(B)]


def spectral_radius(G: np.ndarray) -> float:
    """Return the largest eigenvalue of a positive semidefinite matrix."""
    if not np.any(G):
        return 0.0
    if len(G) <= 64:
        return float(np.linalg.eigvalsh(G)[-1])
    from scipy.sparse.linalg import eigsh  # imported here, since it loads for a quarter of a second

    start = np.random.default_rng(0).normal(size=len(G))
    largest: Any = eigsh
    return float(largest(G, k=1, v0=start, ncv=8, tol=1e-3, return_eigenvectors=False)[0])  # off by the square of tol


def _orthonormal(V: np.ndarray) -> np.ndarray:
    return np.linalg.qr(V)[0] if V.shape[1] else V


def _polished(V: np.ndarray) -> np.ndarray:
    """Make nearly orthonormal columns orthonormal by Newton's iteration for the polar factor.

    Unlike a QR factorization it changes the column space only by the rounding of single entries. For hundreds of
    columns a larger change would lift A V above the cutoff.
    """
    for _ in range(2):
        V = V - 0.5 * V @ (V.T @ V - np.eye(V.shape[1]))
    return V


def _whiten(gram: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return ``L^{-1} B`` with ``gram = L L^T``; gram is well conditioned after scaling."""
    if not len(gram):
        return B
    d = np.sqrt(np.diag(gram))
    L = np.linalg.cholesky(gram / d[:, None] / d[None])
    return scipy.linalg.solve_triangular(L, B / d[:, None], lower=True, check_finite=False)


def _unwhiten(gram: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return ``L^{-T} B`` with ``gram = L L^T``; gram is well conditioned after scaling."""
    if not len(gram):
        return B
    d = np.sqrt(np.diag(gram))
    L = np.linalg.cholesky(gram / d[:, None] / d[None])
    return scipy.linalg.solve_triangular(L, B, lower=True, trans=1, check_finite=False) / d[:, None]


def _solve(gram: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return ``gram^{-1} B``; gram is well conditioned after scaling."""
    if not len(gram):
        return B
    d = np.sqrt(np.diag(gram))
    L = np.linalg.cholesky(gram / d[:, None] / d[None])
    return scipy.linalg.cho_solve((L, True), B / d[:, None], check_finite=False) / d[:, None]
