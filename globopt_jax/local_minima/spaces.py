"""The column space of a Jacobian, by one of three methods: dense, gram (more rows) and dual (more columns)."""

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

__all__ = ["METHODS", "NOT_CONVERGED", "Coordinates", "Space", "projected", "space_of"]

#: The methods of computing a projection; results hold the index.
METHODS = ("dense", "gram", "dual")
#: The sentence of a result whose projection did not converge.
NOT_CONVERGED = "The iteration did not converge: take method='dense', or float64."
#: The most entries, and the most singular values, of a Jacobian that "auto" may store and decompose.
AFFORDABLE, MANY = 4_000_000, 500
#: A projection by "auto" is dense up to this number of entries of the Jacobian, or of its columns or rows. Beyond, the
#: other methods are up to thirty times faster; below, they gain little and take longer to compile.
SMALL, FEW = 300_000, 64
#: The condition of a Jacobian beyond which rounding of its products costs more than four digits.
ILL = 1e4


class Coordinates(NamedTuple):
    """Coordinates in an orthonormal basis Q of the column space."""

    C: np.ndarray
    """``Q^T A`` (r, N)."""
    z: np.ndarray
    """``Q^T vec B`` (r, q)."""


class Space(abc.ABC):
    """The column space of a Jacobian A: its rank, and projections and coordinates of arrays B (m, dy, q)."""

    method: str
    """One of `METHODS`."""
    rank: int
    """The number of singular values above the cutoff."""
    cutoff: float
    """The value at or below which singular values count as zero."""
    largest: float
    """The largest singular value."""
    smallest: float
    """The smallest singular value above the cutoff; an estimate by gram and dual."""
    converged: bool
    """Whether the decomposition converged."""
    A: Jacobian
    """The Jacobian."""

    @property
    def resolution(self) -> float:
        """The fraction of the largest singular value below which others cannot be told from rounding."""
        return max(self.cutoff / self.largest, self.A.eps) if self.largest else self.A.eps

    @property
    def faint(self) -> np.ndarray:
        """For each part of the columns, how many columns are so small that the cutoff may hide directions among them.

        They are not zero, and ``sqrt(eps)`` times their size is below `resolution` times the largest size of a column.
        """
        size = self.column_sizes() if self.A.size else np.zeros(0)
        small = (size > 0) & (size * self.A.eps**0.5 < self.resolution * np.max(size, initial=0))
        ends = np.cumsum(self.A.model.parts(self.A.params, self.A.dy))[:-1]
        return np.array([np.sum(part) for part in np.split(small, ends)], np.int32)

    def column_sizes(self) -> np.ndarray:
        """``max_i |A_ij|``."""
        return self.A.column_sizes()

    @abc.abstractmethod
    def project_out(self, B: Array) -> Projection:
        """Return ``PN[A] B``, the part of B outside the space."""

    @abc.abstractmethod
    def coordinates(self, B: Array) -> Coordinates:
        """Return A and B in coordinates of an orthonormal basis of the space."""


def space_of(A: Jacobian, method: str, criterion: str) -> Space:
    """Decompose the Jacobian by a method, or with auto by the method that suits its shape."""
    if method == "auto":
        method = "dense" if _affordable(A) else _other(A)
    if method == "dense" or A.size == 0:
        return _Dense(A, criterion)
    return _by_passes(A, method, criterion)


def projected(A: Jacobian, method: str, criterion: str, B: Array) -> tuple[Space, Projection]:
    """Return a space and the part of B outside; "auto" takes the fastest method that converges.

    A mere projection is faster without the dense decomposition at sizes where `Space.coordinates` needs all its digits.

    Raises:
        ValueError: the Jacobian is not finite, or its Gram matrix overflows or underflows and no dense decomposition
            of it is affordable.
    """
    M, N = A.shape
    small = M * N <= SMALL or min(M, N) <= FEW
    if method == "auto" and _affordable(A) and not small:
        try:
            space = _by_passes(A, _other(A), criterion)
            found = space.project_out(B)
            if space.converged and found.converged:
                return space, found
        except ValueError:  # squares overflow or underflow; a Jacobian that is not finite is named below
            pass
    space = space_of(A, method, criterion)
    return space, space.project_out(B)


def _affordable(A: Jacobian) -> bool:
    M, N = A.shape
    return M * N <= AFFORDABLE and min(M, N) <= MANY


def _other(A: Jacobian) -> str:
    return "dual" if A.shape[0] < A.shape[1] else "gram"


def _by_passes(A: Jacobian, method: str, criterion: str) -> Space:
    row_sum = A.largest_row_sum() if criterion == "golub" else 0.0

    def cutoff(largest: float) -> float:
        return float(cutoff_of(A.shape, A.eps, largest, row_sum, criterion))

    return _Gram(A, cutoff) if method == "gram" else _Dual(A, cutoff)


class _Dense(Space):
    """The column space from a singular value decomposition of the stored matrix."""

    method = "dense"
    converged = True

    def __init__(self, A: Jacobian, criterion: str) -> None:
        self.A, self.dense = A, np.asarray(A.dense())
        if not np.all(np.isfinite(self.dense)):
            raise ValueError(NOT_FINITE)
        # The singular values come from the variant without vectors. The variant with vectors (divide and conquer) can
        # return seven eps times the largest value in place of zero, which is above the cutoff of a small matrix.
        s = np.linalg.svd(self.dense, compute_uv=False)
        self.U, self.s, self.Vt = np.linalg.svd(self.dense, full_matrices=False)
        self.cutoff = float(linalg.cutoff(self.dense, s, criterion)) if s.size else 0.0
        self.rank = int(np.sum(s > self.cutoff))
        self.largest, self.smallest = (float(s[i]) if self.rank else 0.0 for i in (0, self.rank - 1))
        self.U, self.s, self.Vt = self.U[:, : self.rank], self.s[: self.rank], self.Vt[: self.rank]

    def project_out(self, B: Array) -> Projection:
        found = refined(_OutOfDense(self, B), B, self.A.eps)
        tilt = self.A.eps * self.largest / self.smallest if self.rank else 0.0
        if found.converged or found.inside**2 <= tilt:  # an error of second order, and the one that U has
            return found._replace(converged=True)
        # Rounding tilts directions near the cutoff in any case: take them as the decomposition has them.
        outside, _ = linalg.split(self.U, np.asarray(B).reshape(len(self.dense), B.shape[-1]))
        return Projection(jnp.asarray(outside).reshape(B.shape), found.steps, min(tilt, 1.0), True)

    def column_sizes(self) -> np.ndarray:
        return np.max(np.abs(self.dense), axis=0)

    def coordinates(self, B: Array) -> Coordinates:
        flat = np.asarray(B).reshape(len(self.dense), B.shape[-1])
        return Coordinates(self.U.T @ self.dense, self.U.T @ flat)


class _OutOfDense:
    """Iterate on ``r = B - A x``, whose error is of second order; ``B - U U^T B`` has U's error, of first order.

    x is as large as ``B / smallest``, and rounding of A x counts in units of ``eps |A| |x|``, which is B's size times
    the condition. So products with A are taken in a wider precision: those of float32 in float64, and those of float64
    in NumPy's long double where the condition is large, since BLAS does not know it. A and B have sizes near 1 here, by
    powers of two, so that no product underflows or overflows.
    """

    def __init__(self, space: _Dense, B: Array) -> None:
        self.space, self.B = space, B
        self.dtype = space.dense.dtype
        ill = space.largest > ILL * space.smallest
        wider = np.longdouble if ill and self.dtype == np.float64 else np.float64
        flat = np.asarray(B).reshape(len(space.dense), B.shape[-1])
        unit, self.size = (_power_of_two(a) for a in (space.largest, float(np.max(np.abs(flat), initial=0.0))))
        self.A, self.flat = space.dense.astype(wider) / unit, flat.astype(wider) / self.size
        self.s = space.s[:, None].astype(np.float64) / unit
        self.x = np.zeros((self.A.shape[1], B.shape[-1]), wider)
        self.inside = self.x[:0]

    def left(self) -> tuple[Array, np.ndarray]:
        outside = self.flat - self.A @ self.x
        # From V and A^T r, not from U: U is tilted where singular values are small, above all if column sizes differ.
        self.inside = (self.space.Vt @ (self.A.T @ outside).astype(np.float64)) / self.s
        found = (outside * self.size).astype(self.dtype)
        return jnp.asarray(found).reshape(self.B.shape), self.inside * self.size

    def correct(self) -> None:
        self.x = self.x + self.space.Vt.T @ (self.inside / self.s)


def _power_of_two(size: float) -> float:
    """Return a power of two near a size; 1 where there is none."""
    return 2.0 ** np.clip(np.floor(np.log2(size)), -1000, 1000) if 0 < size < np.inf else 1.0


class _OfColumns(Space):
    """A space with the numbers of a `ColumnSpace`."""

    def __init__(self, A: Jacobian, space: ColumnSpace) -> None:
        self.A, self.space = A, space
        self.rank, self.cutoff, self.converged = space.rank, space.cutoff, space.converged
        self.largest, self.smallest = space.largest, space.smallest


class _Gram(_OfColumns):
    """The column space with the columns' Gram matrix as a preconditioner, for more rows than columns."""

    method = "gram"

    def __init__(self, A: Jacobian, cutoff: Callable[[float], float]) -> None:
        super().__init__(A, column_space(A, cutoff))

    def project_out(self, B: Array) -> Projection:
        return project_out_of(self.A, self.space, B)

    def coordinates(self, B: Array) -> Coordinates:
        # The basis is orthonormal up to the precision of the Gram matrix; a Cholesky factor of its own Gram matrix,
        # from another pass, makes it orthonormal.
        T = self.space.basis()
        products, gram = (np.array(a, np.float64) for a in self.A.images(T))
        nothing = np.zeros((T.shape[0], B.shape[-1])), np.zeros((T.shape[1], B.shape[-1]))
        along = np.array(self.A.residuals(B, nothing[0], T, nothing[1])[2], np.float64)
        L = np.linalg.cholesky(gram)
        C, z = (scipy.linalg.solve_triangular(L, a, lower=True, check_finite=False) for a in (products.T, along))
        return Coordinates(C.astype(self.A.dtype), z.astype(self.A.dtype))


class _OutOfRows:
    """Iterate on ``r = PN[A] B``, from an orthonormal basis N of the null space of the rows that rounding has tilted.

    Let ``A = U diag(s) V^T`` and ``N = N* + U theta``, where N* is the exact basis. To first order, ``PN[A] B`` is
    ``r = N N^T B`` minus two corrections: its part in the column space, ``U theta N^T B``, and ``N theta^T U^T B``.
    With the basis T of `ColumnSpace`, for which ``A^T T`` is orthonormal, and with ``P = I - N N^T``, the first
    correction is ``P T T^T A A^T r``. The second is ``N N^T A x`` with ``x = A^T T T^T P B``, which is ``A^+ B``. The
    small factors of both are computed afresh in passes.
    """

    def __init__(self, rows: TransposedJacobian, space: ColumnSpace, B: Array) -> None:
        self.rows, self.space, self.like = rows, space, B
        flat = np.array(rows.columns(B), np.float64)
        within = self._within(flat)
        x = rows.pulled(space.expanded(space.contracted(within)))
        image = -np.asarray(rows.columns(rows.jacobian.image(0 * B, x)[0]), np.float64)
        self.r, self.step = flat - within, image - self._within(image)

    def left(self) -> tuple[Array, np.ndarray]:
        """Return r, and its part in the column space (., q)."""
        outside = jnp.asarray(self.rows.restored(self.r), self.like.dtype)
        products = self.rows.jacobian.image(outside, np.zeros((self.rows.shape[0], self.r.shape[1])))[1]
        image = -np.asarray(self.rows.columns(self.rows.jacobian.image(0 * outside, products)[0]), np.float64)
        inside = self._within(self.space.expanded(self.space.contracted(image)))
        self.step = self.step + inside
        return outside, inside

    def correct(self) -> None:
        """Subtract the part in the column space and, the first time, the second correction."""
        self.r, self.step = self.r - self.step, 0 * self.step

    def _within(self, b: np.ndarray) -> np.ndarray:
        return b - self.space.null @ (self.space.null.T @ b)


class _Dual(_OfColumns):
    """The column space from the rows' Gram matrix ``A A^T``, whose null space is its complement, for more columns."""

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
        return Coordinates(self.rows.pulled(Q).T, z.astype(B.dtype))
