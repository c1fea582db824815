"""The column space of a Jacobian, in the three ways that suit its three shapes."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from globopt_jax import linalg
from globopt_jax.linalg.columns import ColumnSpace, Projection, column_space, project_out_of, refined
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


class Space(abc.ABC):
    """What all three can do. B is (m, dy, q). ``cutoff``, ``largest``, ``smallest``: of the singular values."""

    method: str
    rank: int
    cutoff: float
    largest: float
    smallest: float
    converged: bool
    A: Jacobian

    @property
    def resolution(self) -> float:
        """Singular values below that part of the largest cannot be told from rounding."""
        return max(self.cutoff / self.largest, self.A.eps) if self.largest else self.A.eps

    @property
    def faint(self) -> np.ndarray:
        """Of every part of the columns, how many are not zero, and so small that the cutoff hides what is weaker than
        sqrt(eps) in them."""
        size = self.column_sizes() if self.A.size else np.zeros(0)
        small = (size > 0) & (size * self.A.eps**0.5 < self.resolution * np.max(size, initial=0))
        ends = np.cumsum(self.A.model.parts(self.A.params, self.A.dy))[:-1]
        return np.array([np.sum(part) for part in np.split(small, ends)], np.int32)

    def column_sizes(self) -> np.ndarray:
        """``max_i |A_ij|``."""
        return self.A.column_sizes()

    @abc.abstractmethod
    def project_out(self, B: Array) -> Projection:
        """``PN[A] B``."""

    @abc.abstractmethod
    def coordinates(self, B: Array) -> Coordinates:
        """A and B in a basis of the space."""


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


class _Dense(Space):
    """By a singular value decomposition of the stored matrix."""

    method = "dense"
    converged = True

    def __init__(self, A: Jacobian, criterion: str) -> None:
        self.A, self.dense = A, np.asarray(A.dense())
        if not np.all(np.isfinite(self.dense)):
            raise ValueError(NOT_FINITE)
        # The values from the variant without vectors: the one with them (divide and conquer) can leave noise of seven
        # eps of the largest where there is nothing, which is above the cutoff of a small matrix.
        s = np.linalg.svd(self.dense, compute_uv=False)
        self.U, self.s, self.Vt = np.linalg.svd(self.dense, full_matrices=False)
        self.cutoff = float(linalg.cutoff(self.dense, s, criterion)) if s.size else 0.0
        self.rank = int(np.sum(s > self.cutoff))
        self.largest, self.smallest = (float(s[i]) if self.rank else 0.0 for i in (0, self.rank - 1))
        self.U, self.s, self.Vt = self.U[:, : self.rank], self.s[: self.rank], self.Vt[: self.rank]

    def project_out(self, B: Array) -> Projection:
        found = refined(_OutOfDense(self, B), B, self.A.eps)
        if found.converged:
            return found
        # Directions near the cutoff, which rounding tilts whatever is done: as the decomposition has them.
        outside, _ = linalg.split(self.U, np.asarray(B).reshape(len(self.dense), B.shape[-1]))
        return Projection(jnp.asarray(outside).reshape(B.shape), found.steps, 0.0, True)

    def column_sizes(self) -> np.ndarray:
        return np.max(np.abs(self.dense), axis=0)

    def coordinates(self, B: Array) -> Coordinates:
        flat = np.asarray(B).reshape(len(self.dense), B.shape[-1])
        return Coordinates(jnp.asarray(self.U.T @ self.dense), jnp.asarray(self.U.T @ flat))


class _OutOfDense:
    """``r = B - A x``, whose error is of second order, where that of ``B - U U^T B`` is that of U, of first order."""

    def __init__(self, space: _Dense, B: Array) -> None:
        self.space, self.B = space, B
        self.flat = np.asarray(B).reshape(len(space.dense), B.shape[-1])
        self.x = np.zeros((space.dense.shape[1], B.shape[-1]), self.flat.dtype)
        self.inside = self.x[:0]

    def left(self) -> tuple[Array, np.ndarray]:
        outside = self.flat - self.space.dense @ self.x
        # By V and the fresh A^T r: U is tilted where singular values are small, most of all if columns differ in size.
        self.inside = (self.space.Vt @ (self.space.dense.T @ outside)) / self.space.s[:, None]
        return jnp.asarray(outside).reshape(self.B.shape), self.inside

    def correct(self) -> None:
        self.x = self.x + self.space.Vt.T @ (self.inside / self.space.s[:, None])


class _OfColumns(Space):
    """What comes from a `ColumnSpace`."""

    def __init__(self, A: Jacobian, space: ColumnSpace) -> None:
        self.A, self.space = A, space
        self.rank, self.cutoff, self.converged = space.rank, space.cutoff, space.converged
        self.largest, self.smallest = space.largest, space.smallest


class _Gram(_OfColumns):
    """By the Gram matrix of the columns as a preconditioner: more rows than columns."""

    method = "gram"

    def __init__(self, A: Jacobian, cutoff: Callable[[float], float]) -> None:
        super().__init__(A, column_space(A, cutoff))

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


class _OutOfRows:
    """``r = PN[A] B`` from N, an orthonormal basis of the null space of the rows, that is tilted by rounding.

    ``N = N* + U theta``, with ``A = U diag(s) V^T``. To first order ``PN[A] B`` is ``r = N N^T B`` less its part in the
    column space, ``U theta N^T B``, and less ``N theta^T U^T B``. With the basis T of `ColumnSpace`, for which
    ``A^T T`` is orthonormal, and ``P = I - N N^T``, the first is ``P T T^T A A^T r``, and the second ``N N^T A x`` with
    ``x = A^T T T^T P B``, which is ``A^+ B``. What is small in these comes from passes that compute it afresh.
    """

    def __init__(self, rows: TransposedJacobian, space: ColumnSpace, B: Array) -> None:
        self.rows, self.space, self.like = rows, space, B
        flat = np.array(rows.columns(B), np.float64)
        within = self._within(flat)
        x = rows.pulled(space.expanded(space.contracted(within)))
        image = -np.asarray(rows.columns(rows.jacobian.image(0 * B, x)[0]), np.float64)
        self.r, self.step = flat - within, image - self._within(image)

    def left(self) -> tuple[Array, np.ndarray]:
        """r, and its part in the column space (., q)."""
        outside = jnp.asarray(self.rows.restored(self.r), self.like.dtype)
        products = self.rows.jacobian.image(outside, np.zeros((self.rows.shape[0], self.r.shape[1])))[1]
        image = -np.asarray(self.rows.columns(self.rows.jacobian.image(0 * outside, products)[0]), np.float64)
        inside = self._within(self.space.expanded(self.space.contracted(image)))
        self.step = self.step + inside
        return outside, inside

    def correct(self) -> None:
        """Take that part away, and at first the other."""
        self.r, self.step = self.r - self.step, 0 * self.step

    def _within(self, b: np.ndarray) -> np.ndarray:
        return b - self.space.null @ (self.space.null.T @ b)


class _Dual(_OfColumns):
    """By the Gram matrix of the rows: more columns than rows. What is outside is the null space of ``A A^T``."""

    method = "dual"

    def __init__(self, A: Jacobian, cutoff: Callable[[float], float]) -> None:
        self.rows = TransposedJacobian(A)
        super().__init__(A, column_space(self.rows, cutoff))

    def project_out(self, B: Array) -> Projection:
        return refined(_OutOfRows(self.rows, self.space, B), B, self.rows.eps)

    def coordinates(self, B: Array) -> Coordinates:
        null = self.space.null
        Q = np.linalg.qr(null, mode="complete")[0][:, null.shape[1] :]
        z = Q.T @ np.asarray(self.rows.columns(B))
        return Coordinates(jnp.asarray(self.rows.pulled(Q).T), jnp.asarray(z, B.dtype))
