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
    """How far given weights are at most from the global minimum of the problem over all widths (host function).

    With ``G = grad loss(Phi_r(W))``, every dual point U in the conjugate's domain and every ``s <= lam / P`` with P
    an upper bound of its polar give ``-loss*(s U) <= min f``. Tried are ``U = G``, then, if the weights are not
    stationary, the gradient at the end of a descent of our own from them, then (for the relaxation) an ascent in U
    and the multipliers together. The best is evaluated by `rigorous` in NumPy float64 with its rounding margin. The
    weights themselves are not changed, converged or not. Targets of softmax cross-entropy are completed to rows that
    sum to 1 exactly; the result says by how much.

    Args:
        problem: map, regularizer, loss, lam.
        params: r subnetworks from any source; zero ones are welcome.
        X: inputs (m, dx). Y: targets (m, dy).
        key: for the searches; None is a fixed key.
        effort: quick, standard (None) or high, or an `Effort`.

    Returns:
        A `Certificate`. In float32 the search and the multipliers are worse, the bound as rigorous.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, lam <= 0, targets the loss does not know, degrees of phi and
            theta that differ (both are named), a penalty that is negative, or 0 where phi is not, at tried weights.

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
