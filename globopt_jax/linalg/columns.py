"""The column space of a matrix too large to store, from passes over its rows.

A Gram matrix sees singular values down to sqrt(eps) of the largest, and squares the condition number of what it
preconditions. Both are mended here without ever storing the matrix A (M, N):

1. A pivoted Cholesky factorization of the scaled Gram matrix picks columns A_1 that are well conditioned to what the
   Gram matrix can tell. ``A_1 R^{-1}`` then has a condition number near 1.
2. Every other column is replaced by what A_1 leaves of it, ``E = A V`` with ``A_1^T E = 0``, computed from A itself in
   another pass. E has the column space that is still missing, in absolute precision: its Gram matrix sees singular
   values down to sqrt(eps) of its own largest, far below the first ones. Repeated until none is above the cutoff.
3. Projections on the column space are iterated with these factors as preconditioner, from residuals that every pass
   computes afresh, to the accuracy of the passes.

So the rank is decided with the cutoff of the singular value decomposition, sure where singular values keep a factor of
ten from it, and the cost is that of one Gram matrix.
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
    "project_out_of",
    "refined",
]

#: Rounds of step 2, and steps of 3, before giving up.
ROUNDS, STEPS = 12, 40
#: Random combinations that look for what is left of the null space.
PROBES = 8


@runtime_checkable
class Passes(Protocol):
    """A matrix A (M, N) that is only ever seen in passes over its rows; V (N, p), B (M, q)."""

    @property
    def shape(self) -> tuple[int, int]:
        """M, N."""
        ...

    @property
    def eps(self) -> float:
        """The precision that the passes compute in."""
        ...

    def gram(self) -> Array:
        """``A^T A`` (N, N)."""
        ...

    def image_gram(self, V: Array) -> Array:
        """``(A V)^T (A V)`` (p, p)."""
        ...

    def images(self, V: Array) -> tuple[Array, Array]:
        """``A^T (A V)`` (N, p) and ``(A V)^T (A V)`` (p, p)."""
        ...


@runtime_checkable
class Residuals(Passes, Protocol):
    """A matrix that also tells what is left of a right-hand side."""

    def residuals(self, B: Array, x: Array, V: Array, y: Array) -> tuple[Array, Array, Array]:
        """``r = B - A x - (A V) y`` (M, q), ``A^T r`` (N, q) and ``(A V)^T r`` (p, q)."""
        ...


class ColumnSpace(NamedTuple):
    """A basis of the column space: ``A[:, selected]`` and ``A tail``; all NumPy float64.

    ``rank``, ``cutoff``, ``largest``: of the singular values of A. ``selected`` (r1,): columns. ``factor`` (N, N),
    ``scale`` (r1,): ``A[:, selected] = Q R diag(scale)`` with Q orthonormal to what the Gram matrix can tell, and R the
    upper triangle of the leading block of the factor, which goes on with the identity.
    ``tail`` (N, r - r1): orthonormal, with ``tail_gram = (A tail)^T (A tail)``. ``null`` (N, N - r): orthonormal, and
    ``A null`` vanishes to the cutoff: by its singular values, or to within ten times the cutoff by what random
    combinations of it show, which is an estimate that fails with a probability below 1e-8. ``smallest``: of the
    singular values that count, an estimate. ``converged``: whether A null got there.
    """

    rank: int
    cutoff: float
    largest: float
    smallest: float
    selected: np.ndarray
    factor: np.ndarray
    scale: np.ndarray
    tail: np.ndarray
    tail_gram: np.ndarray
    null: np.ndarray
    converged: bool

    def coordinates(self, products: np.ndarray) -> np.ndarray:
        """``Q^T B`` (r1, q) from ``A^T B`` (N, q)."""
        return _solve_factor(self.factor, products[self.selected] / self.scale[:, None], trans=1)

    def coefficients(self, coordinates: np.ndarray) -> np.ndarray:
        """The columns' coefficients (r1, q) for coordinates in Q."""
        return _solve_factor(self.factor, coordinates) / self.scale[:, None]

    def basis(self) -> np.ndarray:
        """T (N, r) for which ``A T`` is orthonormal, to what the Gram matrices can tell."""
        return self.expanded(np.eye(self.rank))

    def expanded(self, z: np.ndarray) -> np.ndarray:
        """``T z`` (N, q)."""
        count = len(self.selected)
        found = self.tail @ _unwhiten(self.tail_gram, z[count:])
        found[self.selected] += self.coefficients(z[:count])
        return found

    def contracted(self, products: np.ndarray) -> np.ndarray:
        """``T^T B`` (r, q) for B (N, q); of ``B = A^T r`` the coordinates of r."""
        return np.concatenate([self.coordinates(products), _whiten(self.tail_gram, self.tail.T @ products)])


@runtime_checkable
class Refinement(Protocol):
    """What `refined` iterates."""

    def left(self) -> tuple[Array, np.ndarray]:
        """What is outside so far, and what of it is still inside, in orthonormal coordinates (., q)."""
        ...

    def correct(self) -> None:
        """Take what `left` found away."""
        ...


class Projection(NamedTuple):
    """``outside``: ``B - P[A] B``, as the passes order its rows. ``steps``: iterations.

    ``inside``: what is left of ``P[A] outside``, relative to B. Rounding in ``A^T r`` divided by the smallest singular
    value sets its limit. A squared norm of the outside is off by no more than its square, so that ``converged`` means
    at most sqrt(eps).
    """

    outside: Array
    steps: int
    inside: float
    converged: bool


def column_space(A: Passes, cutoff: Callable[[float], float]) -> ColumnSpace:
    """Find a basis of the column space of A, of its null space, and the numerical rank.

    Args:
        A: the passes. cutoff: of the singular values, given the largest.
    """
    N = A.shape[1]
    G = np.asarray(A.gram(), np.float64)
    largest = _spectral_radius(G) ** 0.5
    limit = cutoff(largest)
    # What a Gram matrix resolves, squared; rounding in it adds up like a random walk.
    resolved = 1e3 * max(N, 1) ** 0.5 * A.eps
    norms = np.sqrt(np.maximum(np.diag(G), 0))
    # Smaller columns would look independent once scaled, though their singular values may lie below the cutoff. With
    # zeros in their place they are never chosen.
    tall = norms > resolved**0.5 * largest
    inverse = np.where(tall, 1 / np.where(tall, norms, 1), 0)
    G = G * inverse[:, None]
    G *= inverse[None]  # in place: this is the largest matrix here
    factor, order, count = _pivoted_cholesky(G, resolved)
    del G
    selected, scale = order[:count], norms[order[:count]]
    # Columns that are exactly zero need no pass to tell.
    alive, zero = norms[order[count:]] > 0, np.flatnonzero(norms == 0)
    dependent = order[count:][alive]
    V = np.zeros((N, len(dependent)))
    V[dependent, np.arange(len(dependent))] = 1
    # Beyond the chosen columns the identity, so that the whole factor is one, and nothing of its size is copied.
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
    """Move what V (N, p) still reaches into the tail, until A V lies below the cutoff."""
    K, gram = found.tail, found.tail_gram
    smallest, converged = found.smallest, V.shape[1] == 0
    floor = max(found.cutoff, A.eps * found.largest)  # the passes are no more exact than that
    if not converged:
        # Most often the Gram matrix has told all. A few random combinations confirm it: they would miss a direction
        # ten times above the floor with a probability below 1e-8.
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
        # The step that makes A V orthogonal to the rest of the basis; harmless where it is so already.
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
    """Return ``B - P[A] B`` for B (M, q), by a preconditioned iteration on residuals that are computed afresh."""
    return refined(_OutOfColumns(A, space, B), B, A.eps)


class _OutOfColumns:
    """``r = B - A x - (A tail) y``."""

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
    """Iterate until what is left inside is at the rounding of the passes."""
    q = B.shape[-1]
    size = np.linalg.norm(np.asarray(B, np.float64).reshape(-1, q), axis=0)
    best, steps, nearest = np.inf, 0, B
    while True:
        outside, inside = refinement.left()
        left = np.linalg.norm(inside, axis=0)
        worst = float(np.max(np.where(size > 0, left / np.where(size > 0, size, 1), 0), initial=0.0))
        slow = worst > 0.5 * best  # at the rounding of the passes nothing improves any more
        if worst < best:
            best, nearest = worst, outside
        if slow or best <= 4 * eps or steps == STEPS:
            return Projection(nearest, steps, best, best <= eps**0.5)
        steps += 1
        refinement.correct()


def _pivoted_cholesky(S: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, int]:
    """``S[order][:, order] = U^T U`` for the leading `count` rows, with pivots above the tolerance (LAPACK pstrf)."""
    if not len(S):
        return S, np.arange(0), 0
    # S is symmetric: its transpose is itself, in the order of Fortran, and no copy is made.
    pstrf: Any = scipy.linalg.lapack.dpstrf  # pyright: ignore[reportAttributeAccessIssue]
    factor, order, count, _ = pstrf(S.T, tol=tolerance, lower=0, overwrite_a=1)
    return factor, order - 1, int(count)


def _solve_factor(factor: np.ndarray, B: np.ndarray, trans: int = 0) -> np.ndarray:
    """Solve with the leading block of an upper triangular factor that goes on with the identity."""
    whole = np.zeros((len(factor), B.shape[1]))
    whole[: len(B)] = B
    return scipy.linalg.solve_triangular(factor, whole, trans=trans, check_finite=False)[: len(B)]


def _spectral_radius(G: np.ndarray) -> float:
    """The largest eigenvalue of a positive semidefinite matrix."""
    if not np.any(G):
        return 0.0
    if len(G) <= 64:
        return float(np.linalg.eigvalsh(G)[-1])
    from scipy.sparse.linalg import eigsh  # late: a quarter of a second

    start = np.random.default_rng(0).normal(size=len(G))
    largest: Any = eigsh
    return float(largest(G, k=1, v0=start, ncv=8, tol=1e-3, return_eigenvectors=False)[0])  # off by the square of tol


def _orthonormal(V: np.ndarray) -> np.ndarray:
    return np.linalg.qr(V)[0] if V.shape[1] else V


def _polished(V: np.ndarray) -> np.ndarray:
    """Nearly orthonormal columns made so by Newton's iteration for the polar factor.

    Unlike a factorization it leaves the column space alone, to the rounding of each entry, which for hundreds of
    columns is what separates A V from the cutoff.
    """
    for _ in range(2):
        V = V - 0.5 * V @ (V.T @ V - np.eye(V.shape[1]))
    return V


def _whiten(gram: np.ndarray, B: np.ndarray) -> np.ndarray:
    """``L^{-1} B`` with ``gram = L L^T``, well conditioned after scaling."""
    if not len(gram):
        return B
    d = np.sqrt(np.diag(gram))
    L = np.linalg.cholesky(gram / d[:, None] / d[None])
    return scipy.linalg.solve_triangular(L, B / d[:, None], lower=True, check_finite=False)


def _unwhiten(gram: np.ndarray, B: np.ndarray) -> np.ndarray:
    """``L^{-T} B``, likewise."""
    if not len(gram):
        return B
    d = np.sqrt(np.diag(gram))
    L = np.linalg.cholesky(gram / d[:, None] / d[None])
    return scipy.linalg.solve_triangular(L, B, lower=True, trans=1, check_finite=False) / d[:, None]


def _solve(gram: np.ndarray, B: np.ndarray) -> np.ndarray:
    """``gram^{-1} B``, likewise."""
    if not len(gram):
        return B
    d = np.sqrt(np.diag(gram))
    L = np.linalg.cholesky(gram / d[:, None] / d[None])
    return scipy.linalg.cho_solve((L, True), B / d[:, None], check_finite=False) / d[:, None]
