"""The checks of arguments that the host functions of deep linear networks share."""

from typing import Any

import jax

from globopt_jax.deep_linear.network import check_chain
from globopt_jax.inputs import all_finite, check_data, in_one_dtype

__all__ = ["check", "check_pair"]


def check_pair(X: Any, Y: Any) -> tuple[jax.Array, jax.Array]:
    """Check data without a network; see `check`."""
    _, X, Y = _check([], X, Y)
    return X, Y


def check(weights: Any, X: Any, Y: Any) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """Check weights and data, and return them as arrays of one dtype.

    Raises:
        ValueError: the shapes do not fit, an array has NaN or inf, or squares of entries overflow or vanish.
        TypeError: an array does not hold real numbers, or the weights are no sequence of arrays.
    """
    if isinstance(weights, dict) or not hasattr(weights, "__len__"):
        raise TypeError(f"weights: Expected: a list of kernels. Received: {type(weights).__name__}.")
    if not len(weights):
        raise ValueError("weights: Expected: at least one kernel. Received: none.")
    return _check(weights, X, Y)


def _check(weights: Any, X: Any, Y: Any) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    named = [("X", X), ("Y", Y), *((f"weights[{l}]", w) for l, w in enumerate(weights))]
    host = all_finite(named)
    check_data(host["X"], host["Y"])
    if len(weights):
        _ = check_chain([host[f"weights[{l}]"] for l in range(len(weights))], host["X"], host["Y"])
    X, Y, *weights = in_one_dtype(host)
    return weights, X, Y
