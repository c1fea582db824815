"""The stored Jacobian and its singular values, as a program of fixed shape."""

from functools import partial

import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.linalg import lapack, matmul
from globopt_jax.local_minima.passes import Jacobian, dense_of, samples_in_chunks
from globopt_jax.local_minima.traced.found import DOUBT, REFINEMENTS, Found, converged, norm, resolved
from globopt_jax.shapes import Array

__all__ = ["by_dense"]


def by_dense(A: Jacobian, Y: Array, criterion: str) -> Found:
    """Project by a QR factorization of A or its transpose, and the singular values of the triangular factor."""
    rows, columns = A.shape
    y = Y.reshape(-1)
    if not columns:
        return Found(Y, jnp.zeros(0, Y.dtype), jnp.asarray(0, jnp.int32), jnp.asarray(True))
    dense = dense_of(A.model, A.params, samples_in_chunks(A.X, len(A.X)))
    tall = rows >= columns
    Q, R = lapack.qr(dense if tall else dense.T)
    # The variant without vectors is the more accurate one for values that should be zero.
    s = lapack.svd(R, compute_uv=False)
    U, values, Vt = lapack.svd(R)
    limit = linalg.cutoff(dense, s, criterion)
    counts = s > limit
    left, right = (matmul(Q, U), Vt.T) if tall else (Vt.T, matmul(Q, U))
    inverse = jnp.where(counts, 1 / jnp.where(counts, values, 1), 0)
    x, r, inside = jnp.zeros(columns, y.dtype), y, y
    for _ in range(REFINEMENTS):
        # From V and A^T r, not from U, which is tilted where singular values are small.
        inside = inverse * matmul(right.T, matmul(dense.T, r))
        x = x + matmul(right, inverse * inside)
        r = y - matmul(dense, x)
    r = r - matmul(left, jnp.where(counts, matmul(left.T, r), 0))
    sure = ~jnp.any((s > DOUBT[0] * limit) & (s < DOUBT[1] * limit)) & jnp.all(jnp.isfinite(s))
    sure &= converged(norm(inside), y, A.eps) & resolved(partial(matmul, dense), x, y, A.eps)
    return Found(r.reshape(Y.shape), x, jnp.sum(counts, dtype=jnp.int32), sure)
