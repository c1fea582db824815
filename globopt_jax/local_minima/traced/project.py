"""Projections out of the column space of a Jacobian, by a fixed number of steps of iterative refinement."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg

from globopt_jax.linalg import lapack, matmul
from globopt_jax.local_minima.passes import Jacobian
from globopt_jax.local_minima.traced.found import REFINEMENTS, Found, converged, norm, resolved
from globopt_jax.local_minima.traced.sides import Columns, Rows
from globopt_jax.local_minima.traced.space import Selected, Space, space_of
from globopt_jax.shapes import Array, Scalar

__all__ = ["by_dual", "by_gram"]


def by_gram(A: Jacobian, Y: Array, criterion: str) -> Found:
    """Project by the Gram matrix of the columns, for at least as many rows as columns."""
    side = Columns(A)
    space = space_of(side, criterion, complement=False)
    selected, tail, y = space.selected, space.tail, side.arranged(Y)

    def refine(_: Any, state: tuple[Array, Array, Scalar]) -> tuple[Array, Array, Scalar]:
        x = state[0]
        r = y - side.push_one(x)
        pulled = side.pull_one(r)
        inside = selected.coordinates(pulled[:, None])
        along = matmul(tail.image.T, r)
        step = selected.coefficients(inside)[:, 0] + matmul(tail.coefficients, along)
        return x + step, r, norm(inside) + norm(along) + _lost(space, pulled)

    start = jnp.zeros(A.size, y.dtype), y, jnp.zeros((), y.dtype)
    x, r, left = jax.lax.fori_loop(0, REFINEMENTS + 1, refine, start)
    return _found(side, space, y, r, x, left)


def by_dual(A: Jacobian, Y: Array, criterion: str) -> Found:
    """Project by the Gram matrix of the rows, for more columns than rows.

    The residual r and the coefficients x solve ``r + A x = y`` and ``A^T r = 0``. Both equations are refined (Björck
    1967), each residual computed from A, with the solution by `_Factors` for the correction.
    """
    side = Rows(A)
    space = space_of(side, criterion, complement=True)
    y, factors = side.arranged(Y), _factors(side, space)

    weak = space.tail.image

    def refine(_: Any, state: tuple[Array, Array, Array, Scalar]) -> tuple[Array, Array, Array, Scalar]:
        r, x, sigma, _ = state
        # The part along the tail has large coefficients, whose rounding another pass would draw anew at every step.
        f = y - r - side.push_one(x) - matmul(factors.image, sigma)
        g = -side.pull_one(r)
        change, rows, along = factors.solved(f, side.push_one(g), matmul(weak.T, g))
        return r + change, x + side.pull_one(rows), sigma + along, norm(change) + _lost(space, g)

    start = 0 * y, jnp.zeros(A.size, y.dtype), jnp.zeros(weak.shape[1], y.dtype), jnp.zeros((), y.dtype)
    r, x, sigma, left = jax.lax.fori_loop(0, REFINEMENTS + 1, refine, start)
    return _found(side, space, y, r, x + matmul(weak, sigma), left)


class _Factors(NamedTuple):
    """An approximate factorization of A from its rows.

    With the selected rows S and the tail V of the row space, ``A = E S + F V^T`` where F = A V. In the order of the
    pivots, E is the identity for the selected rows, and below it the transpose of `Selection.complement`'s E.
    """

    selected: Selected
    image: Array
    """(., k): F, in the order of the passes."""
    basis: Array
    """(., k): U, an orthonormal basis of the part of F outside the span of E; in the order of the pivots."""
    within: Array
    """(., k): W, with ``F = E W + U diag(strengths) turn``."""
    strengths: Array
    """(k,): one over the singular values of that part; 0 for what does not count."""
    turn: Array
    """(k, k), orthogonal."""

    def solved(self, f: Array, image: Array, along: Array) -> tuple[Array, Array, Array]:
        """Solve ``dr + A dx = f`` and ``A^T dr = g``, given f, ``A g`` and ``V^T g``.

        Return dr, and dx as the weights of the rows of A and of the columns of V.
        """
        order, place = self.selected.arrays.order, self.selected.place
        f = f[order]
        h = self.rows(image)  # E^T dr
        t = self.normal(self.across(f) - h)
        tau = matmul(self.basis.T, f) - self.strengths * matmul(self.turn, along - matmul(self.within.T, h))
        change = f - self.times(t) - matmul(self.basis, tau)
        sigma = matmul(self.turn.T, self.strengths * tau)
        weights = self.rows((t - matmul(self.within, sigma))[place])
        return change[place], weights[place], sigma

    def rows(self, image: Array) -> Array:
        """Return ``(S S^T)^{-1} image`` for the entries of the selected rows, in the order of the pivots."""
        found = self.selected.coefficients(self.selected.coordinates(image[:, None]))[:, 0]
        return found[self.selected.arrays.order]

    def across(self, v: Array) -> Array:
        """``E^T v``."""
        return _across(self.selected, v)

    def times(self, t: Array) -> Array:
        """``E t``."""
        return _times(self.selected, t)

    def normal(self, a: Array) -> Array:
        """``(E^T E)^{-1} a``."""
        return _normal(self.selected, a)


def _factors(side: Rows, space: Space) -> _Factors:
    selected = space.selected
    image = side.push(space.tail.image)
    F = image[selected.arrays.order]
    within = _normal(selected, _across(selected, F))
    Q, R = lapack.qr(F - _times(selected, within))
    U, s, turn = lapack.svd(R, full_matrices=False)
    counts = jnp.arange(len(s), dtype=jnp.int32) < space.tail.rank
    strengths = jnp.where(counts, 1 / jnp.where(counts, s, 1), 0)
    return _Factors(selected, image, jnp.where(counts[None], matmul(Q, U), 0), within, strengths, turn)


def _live(selected: Selected, v: Array) -> Array:
    return selected.arrays.live.reshape(-1, *(1,) * (v.ndim - 1))


def _across(selected: Selected, v: Array) -> Array:
    """``E^T v`` for v in the order of the pivots."""
    live = _live(selected, v)
    return live * (v + matmul(selected.arrays.complement, (1 - live) * v))


def _times(selected: Selected, t: Array) -> Array:
    """``E t``."""
    live = _live(selected, t)
    return live * t + (1 - live) * matmul(selected.arrays.complement.T, live * t)


def _normal(selected: Selected, a: Array) -> Array:
    """``(E^T E)^{-1} a``, by the smaller matrix ``I + E' E'^T`` for the rows E' of E that are not selected."""
    live, factor = _live(selected, a), selected.arrays.complement
    flat = a.reshape(len(a), -1)
    mask = live.reshape(-1, 1)
    below = (1 - mask) * matmul(factor.T, mask * flat)
    half = jax.scipy.linalg.solve_triangular(factor, below, trans=1)
    whole = (1 - mask) * jax.scipy.linalg.solve_triangular(factor, half)
    return (mask * (flat - matmul(factor, whole))).reshape(a.shape)


def _lost(space: Space, pulled: Array) -> Scalar:
    """Return infinity where squares of A underflow, so that the Gram matrix does not show A; 0 elsewhere.

    Args:
        space: the column space as the Gram matrix shows it.
        pulled: ``A^T r``, which is zero where A is.
    """
    info = jnp.finfo(pulled.dtype)
    faint = space.selected.arrays.largest < float(info.tiny) ** 0.5 / float(info.eps)
    return jnp.where(faint & jnp.any(pulled != 0), jnp.inf, 0.0).astype(pulled.dtype)


def _found(side: Columns | Rows, space: Space, y: Array, r: Array, x: Array, left: Scalar) -> Found:
    """The result, sure only if the refinement has converged, and to digits that are right."""
    eps = side.A.eps
    sure = space.sure & converged(left, y, eps) & resolved(side.push, x, y, eps) & jnp.isfinite(norm(r))
    return Found(side.restored(r), x, space.rank, sure)
