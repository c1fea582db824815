"""The column space of a Jacobian, in the three ways that suit its three shapes."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from globopt_jax import linalg
from globopt_jax.linalg.columns import ColumnSpace, Projection, column_space, project_out_of
from globopt_jax.linalg.tolerances import cutoff_of
from globopt_jax.local_minima.passes import NOT_FINITE, Jacobian, TransposedJacobian
from globopt_jax.shapes import Array

__all__ = ["METHODS", "NOT_CONVERGED", "Coordinates", "Space", "space_of"]

#: How a projection was computed; results hold the index.
METHODS = ("dense", "gram", "dual")
#: What results say whose projection did not get there.
NOT_CONVERGED = "The iteration did not converge: take method='dense', or float64."
#: Up to here the Jacobian is simply decomposed: entries, and singular values.
SMALL, FEW = 4_000_000, 500


class Coordinates(NamedTuple):
    """``C = Q^T A`` (r, N) and ``z = Q^T vec B`` (r, q), Q an orthonormal basis of the column space."""

    C: Array
    z: Array


@runtime_checkable
class Space(Protocol):
    """What all three can do. B is (m, dy, q). ``cutoff``, ``largest``, ``smallest``: of the singular values."""

    method: str
    rank: int
    cutoff: float
    largest: float
    smallest: float
    converged: bool

    def project_out(self, B: Array) -> Projection:
        """``PN[A] B``."""
        ...

    def coordinates(self, B: Array) -> Coordinates:
        """A and B in a basis of the space."""
        ...


def space_of(A: Jacobian, method: str, criterion: str) -> Space:
    """Decompose the Jacobian by a method, or by the one that suits its shape."""
    M, N = A.shape
    if method == "auto":
        small = N == 0 or (M * N <= SMALL and min(M, N) <= FEW)
        method = "dense" if small else "dual" if M < N else "gram"
    if method == "dense" or N == 0:
        return _Dense(A, criterion)
    row_sum = A.largest_row_sum() if criterion == "golub" else 0.0

    def cutoff(largest: float) -> float:
        return float(cutoff_of((M, N), A.eps, largest, row_sum, criterion))

    return _Gram(A, cutoff) if method == "gram" else _Dual(A, cutoff)


class _Dense:
    """By a singular value decomposition of the stored matrix."""

    method = "dense"
    converged = True

    def __init__(self, A: Jacobian, criterion: str) -> None:
        self.A = np.asarray(A.dense())
        if not np.all(np.isfinite(self.A)):
            raise ValueError(NOT_FINITE)
        # The values from the variant without vectors: the one with them (divide and conquer) can leave noise of seven
        # eps of the largest where there is nothing, which is above the cutoff of a small matrix.
        s = np.linalg.svd(self.A, compute_uv=False)
        U = np.linalg.svd(self.A, full_matrices=False)[0]
        self.cutoff = float(linalg.cutoff(self.A, s, criterion)) if s.size else 0.0
        self.rank = int(np.sum(s > self.cutoff))
        self.largest, self.smallest = (float(s[i]) if self.rank else 0.0 for i in (0, self.rank - 1))
        self.U = U[:, : self.rank]

    def project_out(self, B: Array) -> Projection:
        flat = np.asarray(B).reshape(len(self.A), B.shape[-1])
        for _ in range(2):  # what is left is then orthogonal to rounding
            flat = flat - self.U @ (self.U.T @ flat)
        return Projection(jnp.asarray(flat).reshape(B.shape), 0, 0.0, True)

    def coordinates(self, B: Array) -> Coordinates:
        flat = np.asarray(B).reshape(len(self.A), B.shape[-1])
        return Coordinates(jnp.asarray(self.U.T @ self.A), jnp.asarray(self.U.T @ flat))


class _OfColumns:
    """What comes from a `ColumnSpace`."""

    def __init__(self, space: ColumnSpace) -> None:
        self.space = space
        self.rank, self.cutoff, self.converged = space.rank, space.cutoff, space.converged
        self.largest, self.smallest = space.largest, space.smallest


class _Gram(_OfColumns):
    """By the Gram matrix of the columns as a preconditioner: more rows than columns."""

    method = "gram"

    def __init__(self, A: Jacobian, cutoff: Callable[[float], float]) -> None:
        super().__init__(column_space(A, cutoff))
        self.A = A

    def project_out(self, B: Array) -> Projection:
        return project_out_of(self.A, self.space, B)

    def coordinates(self, B: Array) -> Coordinates:
        # The basis is orthonormal to what the Gram matrix can tell; its own Gram matrix, from a pass, does the rest.
        T = self.space.basis()
        products, gram = (np.array(a, np.float64) for a in self.A.images(T))
        nothing = np.zeros((T.shape[0], B.shape[-1])), np.zeros((T.shape[1], B.shape[-1]))
        along = np.array(self.A.residuals(B, nothing[0], T, nothing[1])[2], np.float64)
        L = np.linalg.cholesky(gram)
        C, z = (scipy.linalg.solve_triangular(L, a, lower=True, check_finite=False) for a in (products.T, along))
        return Coordinates(jnp.asarray(C, self.A.dtype), jnp.asarray(z, self.A.dtype))


class _Dual(_OfColumns):
    """By the Gram matrix of the rows: more columns than rows. What is outside is the null space of ``A A^T``."""

    method = "dual"

    def __init__(self, A: Jacobian, cutoff: Callable[[float], float]) -> None:
        self.rows = TransposedJacobian(A)
        super().__init__(column_space(self.rows, cutoff))

    def project_out(self, B: Array) -> Projection:
        null = jnp.asarray(self.space.null, B.dtype)
        flat = linalg.matmul(null, linalg.matmul(null.T, self.rows.columns(B)))
        return Projection(self.rows.restored(flat), 0, 0.0, True)

    def coordinates(self, B: Array) -> Coordinates:
        null = self.space.null
        Q = np.linalg.qr(null, mode="complete")[0][:, null.shape[1] :]
        z = Q.T @ np.asarray(self.rows.columns(B))
        return Coordinates(jnp.asarray(self.rows.pulled(Q).T), jnp.asarray(z, B.dtype))
