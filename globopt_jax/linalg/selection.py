"""Independent columns of a matrix from its Gram matrix, in arrays whose shapes do not depend on the rank.

A traced program has one shape for all ranks. It gets the selected columns from here by a callback, with everything
that is cheap on the host and slow to compile: the largest singular value, and combinations of columns that vanish as
far as the Gram matrix can tell.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from globopt_jax.linalg.columns import pivoted_cholesky, spectral_radius

__all__ = ["Selection", "select"]


class Selection(NamedTuple):
    """Independent columns of A (., n), selected by a pivoted Cholesky factorization of the scaled Gram matrix.

    With ``A S = Q R diag(scale)`` for the selected columns S, Q is orthonormal at the precision of the Gram matrix.
    """

    factor: Any
    """(n, n): R, continued by the identity."""
    order: Any
    """(n,): the columns in the order of the pivots; the selected ones come first."""
    live: Any
    """(n,): 1 for the selected columns in the order of the pivots, then 0."""
    inverse: Any
    """(n,): one over the norms of the columns, 0 for the tiny ones, which are never selected."""
    null: Any
    """(n, trials): orthonormal combinations of columns, random if there are more than `trials`, that the selected
    columns cancel at the precision of the Gram matrix; zeros beyond their number."""
    largest: Any
    """The largest singular value of A."""
    rest: Any
    """The number of columns that are neither selected nor zero."""
    complement: Any
    """``[[I, E], [0, L^T]]`` (n, n) in the order of the pivots, if it was asked for: the other columns are the selected
    ones times E at the precision of the Gram matrix, and ``L L^T = I + E^T E``."""


def select(G: np.ndarray, eps: float, trials: int, complement: bool) -> Selection:
    """Select independent columns of A, given ``G = A^T A``; without finite entries, none and NaN.

    Args:
        G: (n, n).
        eps: the machine epsilon of the entries of G.
        trials: the number of combinations of the other columns.
        complement: whether `Selection.complement` is wanted.
    """
    n = len(G)
    if not np.all(np.isfinite(G)):
        return _nothing(n, trials, complement)
    there = np.flatnonzero(np.diag(G))
    if len(there) < n:
        found = _among(select(G[np.ix_(there, there)], eps, trials, complement), there, n)
        return found if complement else found._replace(complement=np.zeros((0, 0)))
    largest = spectral_radius(G) ** 0.5
    # The square of the resolution of a Gram matrix, as in `column_space`, which has the reasons.
    resolved = 1e3 * max(n, 1) ** 0.5 * eps
    norms = np.sqrt(np.maximum(np.diag(G), 0))
    tall = norms > resolved**0.5 * largest
    inverse = np.where(tall, 1 / np.where(tall, norms, 1), 0)
    S = G * inverse[:, None]
    S *= inverse[None]
    factor, order, count = pivoted_cholesky(S, resolved)
    R, crossing = np.triu(factor[:count, :count]), factor[:count, count:]
    # Dependent columns: A[:, rest] = A[:, selected] E at the precision of the Gram matrix.
    selected, rest = order[:count], order[count:]
    size = np.where(tall, norms, 0)[rest]
    null = _null(R, crossing * size[None], norms, selected, rest, trials)
    completed = np.zeros((0, 0))
    if complement:
        E = scipy.linalg.solve_triangular(R, crossing, check_finite=False) if crossing.size else crossing
        completed = _completed(E * size[None] * inverse[selected][:, None])
    whole = np.eye(n)
    whole[:count, :count] = R
    alive = np.sum(norms[rest] > 0)
    live = (np.arange(n) < count).astype(float)
    return Selection(whole, order, live, inverse, null, np.asarray(largest), np.asarray(alive), completed)


def _among(found: Selection, there: np.ndarray, n: int) -> Selection:
    """Return the selection from n columns, given that from the columns `there`; the others are zero."""

    def framed(block: np.ndarray) -> np.ndarray:
        whole = np.eye(n)
        whole[: len(block), : len(block)] = block
        return whole

    def spread(values: np.ndarray) -> np.ndarray:
        whole = np.zeros((n, *values.shape[1:]))
        whole[there] = values
        return whole

    return found._replace(
        factor=framed(found.factor),
        order=np.concatenate([there[found.order], np.setdiff1d(np.arange(n), there)]),
        live=np.concatenate([found.live, np.zeros(n - len(there))]),
        inverse=spread(found.inverse),
        null=spread(found.null),
        complement=framed(found.complement),
    )


def _null(
    R: np.ndarray, crossing: np.ndarray, norms: np.ndarray, selected: np.ndarray, rest: np.ndarray, trials: int
) -> np.ndarray:
    """Return `Selection.null`, given the crossing of the columns `rest`."""
    alive = norms[rest] > 0
    count = int(np.sum(alive))
    width = min(count, trials)
    weights = np.zeros((len(rest), width))
    # All of them where they fit, so that nothing is left to chance.
    weights[alive] = np.eye(count) if count <= trials else np.random.default_rng(0).normal(size=(count, width))
    found = np.zeros((len(norms), trials))
    if width:
        combined = np.zeros((len(norms), width))
        combined[rest] = weights
        if len(selected):
            cancel = scipy.linalg.solve_triangular(R, crossing @ weights, check_finite=False)
            combined[selected] = -cancel / norms[selected][:, None]
        found[:, :width] = np.linalg.qr(combined)[0]
    return found


def _completed(E: np.ndarray) -> np.ndarray:
    """Return `Selection.complement`."""
    count, n = len(E), sum(E.shape)
    found = np.eye(n)
    found[:count, count:] = E
    if n > count:
        found[count:, count:] = np.linalg.cholesky(np.eye(n - count) + E.T @ E).T
    return found


def _nothing(n: int, trials: int, complement: bool) -> Selection:
    size = (n, n) if complement else (0, 0)
    none, nan = np.zeros(n), np.asarray(np.nan)
    null = np.zeros((n, trials))
    return Selection(np.eye(n), np.arange(n), none, none, null, nan, np.asarray(n), np.zeros(size))
