"""The check that a map and a penalty are homogeneous of one degree.

The catalogue's maps and penalties are homogeneous by construction. A user's own are measured at random weights.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.shapes import Inputs, Params, Weights

__all__ = ["check_degrees", "layer_degrees", "measured_degree"]


def measured_degree(fn: Any, weights: Weights, *arguments: Any) -> tuple[float, float]:
    """Measure the degree of positive homogeneity of fn at some weights, and the worst departure from it.

    With ``f(a) = ||fn(a w, ...)||`` the degree is ``p = log2(f(2) / f(1))``. The departure is the largest relative
    difference of ``fn(a w)`` from ``a^p fn(w)`` over a in {1/4, 1/2, 4}. A departure far above rounding proves that fn
    is not homogeneous. A small departure proves nothing about other weights.

    Args:
        fn: a function of weights and further arguments.
        weights: a pytree of arrays.
        arguments: the further arguments.

    Returns:
        The degree and the departure; both NaN if fn is zero or not finite at the weights.

    >>> measured_degree(lambda w: w**3, jnp.ones(2))
    (3.0, 0.0)
    """

    def value(scale: float) -> jax.Array:
        return jnp.asarray(fn(jax.tree.map(lambda w: w * scale, weights), *arguments))

    base = value(1.0)
    size = float(jnp.linalg.norm(base))
    if size == 0 or not np.isfinite(size):
        return float("nan"), float("nan")
    double = float(jnp.linalg.norm(value(2.0)))
    degree = float(np.log2(double / size)) if double > 0 else float("-inf")
    if not np.isfinite(degree):
        return degree, float("inf")
    departures = [float(jnp.linalg.norm(value(a) - a**degree * base)) / (a**degree * size) for a in (0.25, 0.5, 4.0)]
    return degree, max(departures)


def layer_degrees(phi: Any, weights: Weights, X: Inputs) -> list[tuple[float, float]]:
    """Measure the degree of a map in each layer alone, with the others fixed, and the departure from it.

    A product of norms needs the degree 1 in every layer. Below a contrast or batch normalization a layer has degree 0.

    Args:
        phi: a map of weights and inputs.
        weights: one subnetwork, a pytree of arrays, one for each layer.
        X: inputs (m, dx).

    Returns:
        For each layer `measured_degree`: the degree and the departure.

    >>> def normalized(w, X):
    ...     Z = X @ w[0]
    ...     return (Z / jnp.linalg.norm(Z, axis=1, keepdims=True)) @ w[1]
    >>> found = layer_degrees(normalized, [jnp.eye(2), jnp.ones((2, 1))], jnp.ones((3, 2)))
    >>> [round(degree, 6) for degree, _ in found]
    [0.0, 1.0]
    """
    leaves, tree = jax.tree.flatten(weights)

    def degree(k: int) -> tuple[float, float]:
        def along(w: Any, X: Inputs) -> Any:
            return phi(jax.tree.unflatten(tree, [*leaves[:k], w, *leaves[k + 1 :]]), X)

        return measured_degree(along, leaves[k], X)

    return [degree(k) for k in range(len(leaves))]


def check_degrees(problem: Problem, params: Params, X: Inputs) -> None:
    """Raise ValueError unless phi and theta are homogeneous of one and the same degree.

    The degrees of the catalogue are known. If phi or theta is a user's own, both are measured at the given weights and
    at random ones. So are the other assumptions of every bound (HV17's nondegenerate pair): finite values, theta >= 0,
    and theta > 0 where phi is not zero.

    Args:
        problem: map and regularizer.
        params: r subnetworks.
        X: inputs (m, dx).

    Raises:
        ValueError: the degrees differ, or an assumption fails at the weights that were tried.
    """
    if not (problem.phi.is_known and problem.theta.is_known):
        _try_out(problem, params, X)
    p, q = problem.phi.degree, problem.theta.degree
    if p != q:
        consequence = (
            "the regularizer dominates near zero, so zero subnetworks are local minima for every lam and certify "
            "nothing"
            if q is not None and q < p
            else "splitting one subnetwork into many small copies sends the penalty to 0, so it controls nothing"
        )
        raise ValueError(
            f"The degrees of phi and theta differ: phi has degree {p}, theta has degree {q}. Expected: equal degrees. "
            f"With these, {consequence} (HV17 supplement, Proposition 2). sum_of_powers() without a power matches."
        )


#: Random weights at which signs are tried; degrees are measured at the first of them.
TRIALS, MEASURED = 256, 3
#: The scale of a layer at which the growth of phi and theta is compared.
FAR = 2.0**20


def _try_out(problem: Problem, params: Params, X: Inputs) -> None:
    """Values, signs and degrees of a user's map or penalty, at the given weights and at random ones."""
    phi, theta = problem.phi, problem.theta
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), 2 * len(leaves))
    random = [jax.random.normal(k, (TRIALS, *w.shape[1:]), w.dtype) for k, w in zip(keys, leaves, strict=False)]
    # Every other trial has zeros: a penalty may be negative, or vanish, on a face alone.
    kept = [jax.random.bernoulli(k, 0.7, w.shape) for k, w in zip(keys[len(leaves) :], random, strict=True)]
    odd = jnp.arange(TRIALS) % 2 == 1
    random = [jnp.where(odd.reshape(-1, *[1] * (w.ndim - 1)) & ~k, 0, w) for w, k in zip(random, kept, strict=True)]
    random = jax.tree.leaves(jax.vmap(theta.project)(jax.tree.unflatten(tree, random)))
    shape = jax.eval_shape(theta, jax.tree.unflatten(tree, [w[0] for w in random])).shape
    if shape != ():
        raise ValueError(f"theta: Expected: one number for the weights of one subnetwork. Received: shape {shape}.")
    for place, weights in (("these weights", params), ("random weights", jax.tree.unflatten(tree, random))):
        costs = np.asarray(jax.vmap(theta)(weights))
        sizes = np.asarray(jax.lax.map(lambda w: jnp.linalg.norm(phi(w, X)), weights))
        for label, values in (("phi", sizes), ("theta", costs)):
            if not np.all(np.isfinite(values)):
                raise ValueError(
                    f"{label}: Expected: finite values. Received: {values[~np.isfinite(values)][0]} at {place}."
                )
        if np.min(costs) < 0:
            raise ValueError(
                f"theta: Expected: values >= 0 (bounds rest on it). Received: {np.min(costs):.4g} at {place}."
            )
        if np.any((costs == 0) & (sizes > 0)):
            raise ValueError(
                f"theta: Expected: values > 0 where phi is not zero (HV17, nondegenerate pair). Received: 0 at "
                f"{place}, where phi is not zero: such subnetworks cost nothing, and no bound exists."
            )
    for trial in range(MEASURED):
        weights = jax.tree.unflatten(tree, [w[2 * trial] for w in random])
        for label, fn, arguments in (("phi", phi, (X,)), ("theta", theta, ())):
            _check_stated_degree(label, fn, weights, arguments)
        if theta.moves_scale:
            _check_layers(phi, weights, X)
        _check_growth(problem, weights, X)


def _check_stated_degree(label: str, fn: Any, weights: Weights, arguments: tuple[Any, ...]) -> None:
    degree, departure = measured_degree(fn, weights, *arguments)
    if np.isnan(degree) or fn.degree is None:
        return  # the function vanishes there, which every degree allows
    tolerance = 1e3 * linalg.machine_epsilon(jax.tree.leaves(weights)[0].dtype)
    if departure > tolerance or abs(degree - fn.degree) > tolerance:
        raise ValueError(
            f"{label} is not positively homogeneous of the stated degree. Expected: {label}(a w) = a^{fn.degree:g} "
            f"{label}(w). Received: degree {degree:.4g} at random weights, with relative departures up to "
            f"{departure:.2g} from any power law."
        )


def _check_growth(problem: Problem, weights: Weights, X: Inputs) -> None:
    """Raise ValueError if ``||phi|| / theta`` grows without end with one layer of these weights.

    Then the polar is infinite: HV17's pair has to be nondegenerate.
    """
    leaves, tree = jax.tree.flatten(weights)

    def ratio(k: int | None = None) -> float:
        """The ratio with layer k scaled up, or at the weights themselves."""
        moved = jax.tree.unflatten(tree, [w * FAR if l == k else w for l, w in enumerate(leaves)])
        cost = float(problem.theta(moved))
        return float(linalg.norm(problem.phi(moved, X))) / cost if 0 < cost < np.inf else np.nan

    base = ratio()
    for k in range(len(leaves)):
        if ratio(k) > FAR**0.5 * base:  # False where a number is not finite
            raise ValueError(
                "theta: Expected: a penalty that grows with every layer as fast as phi (HV17, nondegenerate pair). "
                f"Received: one that grows more slowly with the weights of layer {k}: the polar is infinite, and no "
                "network is a minimum."
            )


def _check_layers(phi: Any, weights: Weights, X: Inputs) -> None:
    """Raise ValueError unless phi has degree 1 in every layer.

    A product of norms does not change when scale moves from one layer to another, so phi must not change either.
    """
    tolerance = 1e3 * linalg.machine_epsilon(jax.tree.leaves(weights)[0].dtype)
    for k, (degree, departure) in enumerate(layer_degrees(phi, weights, X)):
        if not np.isnan(degree) and (departure > tolerance or abs(degree - 1) > tolerance):
            raise ValueError(
                f"product_of_norms: Expected: a map of degree 1 in every layer. Received: degree {degree:.4g} in "
                f"layer {k} (departures from a power law {departure:.2g}): moving scale to that layer costs nothing, "
                "and the output grows without end. Use sum_of_powers()."
            )
