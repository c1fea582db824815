"""`certify`: how far any weights are at most from the global minimum over all widths."""

from typing import Any

import jax

from globopt_jax.homogeneous.effort import Effort, EffortName
from globopt_jax.homogeneous.grading import Certificate, refine
from globopt_jax.homogeneous.inputs import check, targets_moved
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.inputs import check_key
from globopt_jax.shapes import Array, Params

__all__ = ["certify"]


def certify(
    problem: Problem,
    params: Params,
    X: Any,
    Y: Any,
    *,
    key: Array | None = None,
    effort: EffortName | Effort | None = None,
) -> Certificate:
    """Bound how far given weights are from the global minimum of the problem over all widths (host function).

    Every dual point U in the domain of the loss's conjugate, and every ``s <= lam / P`` where P is an upper bound of
    the polar at -U, give the lower bound ``-loss*(s U) <= min f``. `certify` tries three dual points: the loss's
    gradient G at the weights; the gradient at the end of a further descent, if the weights are not stationary; and,
    where the polar's bound is a relaxation, the end of an ascent in U and the bound's multipliers together. The module
    `rigorous` evaluates the best of them in NumPy float64 and subtracts what rounding can have added.

    The weights need not be converged, and they are not changed. The lower bound depends on them, and holds for all
    weights: of several certificates for one problem and data the highest bound counts. Targets of softmax cross-entropy
    are completed to rows that sum to 1 exactly; ``.targets_moved`` says by how much.

    Args:
        problem: map, regularizer, loss and lam.
        params: r subnetworks from any source; some or all may be zero.
        X: inputs (m, dx).
        Y: targets (m, dy).
        key: the random key of the searches; None is a fixed key.
        effort: quick, standard (None) or high, or an `Effort`.

    Returns:
        A `Certificate`. A float32 computation finds worse dual points, but the bound is as rigorous.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, lam <= 0, a loss that is not of `globopt_jax.losses`, targets
            outside the loss's domain, degrees of phi and theta that differ (the message names both), or a penalty of
            your own that is negative, or zero where phi is not, at the weights that were tried.
        TypeError: arrays that are not real numbers.

    Reference:
        HV17 Theorem 1 and Corollary 1; K18 (A.2), (A.10); the polar's bounds are in `homogeneous.polar`.

    >>> import jax.numpy as jnp
    >>> from globopt_jax import homogeneous, losses
    >>> problem = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, 1.0)
    >>> Y = jnp.diag(jnp.array([3.0, 0.5]))  # soft-thresholded: one rank of size 2 is left
    >>> w = (jnp.array([[2.0**0.5, 0.0]]), jnp.array([[2.0**0.5, 0.0]]))
    >>> print(f"{homogeneous.certify(problem, w, jnp.eye(2), Y).relative_gap:.6f}")
    0.000000
    """
    given = Y
    params, X, Y = check(problem, params, X, Y)
    key = jax.random.key(0) if key is None else check_key(key)
    *_, last = refine(problem, params, X, Y, key=key, effort=effort, targets_moved=targets_moved(given, Y))
    return last.certificate
