"""Many features and few samples: the problem in coordinates of the samples' span.

With ``X^T = Q R``, where Q (dx, m) is orthonormal, ``X w = R^T (Q^T w)``. A part of w outside the span changes no
output and adds to an l2 penalty. So the best first-layer weights are ``Q v``, and v has m entries instead of dx.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import rigorous
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.homogeneous.regularizers import Layered
from globopt_jax.shapes import Array, Inputs, Params

__all__ = ["Span", "span_of", "spanned"]


class Span(NamedTuple):
    """The samples in coordinates of their span."""

    X: Array
    """The samples' coordinates (m, m)."""
    basis: np.ndarray
    """The orthonormal basis Q (dx, m)."""

    def project(self, params: Params) -> Params:
        """The weights in coordinates of the span; a part outside the span is dropped."""
        return _first_layer(params, self.basis)

    def lift(self, params: Params) -> Params:
        """The weights as they act on the inputs themselves."""
        return _first_layer(params, self.basis.T)


def spanned(X: Inputs) -> Span | None:
    """The samples in coordinates of their span, or None unless there are many features, and more than samples."""
    if X.shape[1] <= max(len(X), rigorous.MANY_INPUTS):
        return None
    basis, triangle = np.linalg.qr(np.asarray(X, np.float64).T)
    return Span(jnp.asarray(triangle.T, X.dtype), basis)


def span_of(problem: Problem, params: Params, X: Inputs) -> Span | None:
    """The span of the samples, or None unless it is smaller and has the same optimum.

    The optimum is the same for a map of the catalogue with an l2 norm of the first layer.
    """
    theta = problem.theta
    if not problem.phi.is_known or not isinstance(theta, Layered):
        return None
    return spanned(X) if theta.layer_norms(params)[0] == "l2" else None


def _first_layer(params: Params, basis: np.ndarray) -> Params:
    leaves, tree = jax.tree.flatten(params)
    first: Any = np.asarray(leaves[0])
    moved = np.einsum("rd...,dm->rm...", np.asarray(first, np.float64), basis, optimize=True)
    return jax.tree.unflatten(tree, [jnp.asarray(moved, first.dtype), *leaves[1:]])
