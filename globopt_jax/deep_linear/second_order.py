"""Strict saddles, whose Hessian has a negative eigenvalue, and the lowest curvature (Achour et al. 2024)."""

from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.deep_linear.fit import Fit
from globopt_jax.deep_linear.network import Weights, gradients, widths_of
from globopt_jax.deep_linear.point import Point, kept_directions
from globopt_jax.linalg import Curvature, matmul
from globopt_jax.shapes import Array

__all__ = ["hessian_product", "is_strict", "lowest"]


def is_strict(weights: Weights, point: Point, fit: Fit) -> Array:
    """Return whether a saddle has a direction of negative curvature, by the ranks of partial products; bool, ().

    Let the saddle keep n directions of the fit, and let k be the smallest width. The saddle is strict exactly if n = k,
    or the n directions are not the top ones, or two layers i < j have

        ``rank(W_{i+1} .. W_{j-1}) > n``   and   ``P_{i-1}^T E S_j^T != 0``.

    (Achour, Malgouyres & Gerchinovitz, JMLR 25(242), 2024, require that the ranks of P_{i-1} and S_j exceed n. This
    follows from ``P_{i-1}^T E S_j^T != 0``, and does not suffice where E vanishes on the added directions.) A singular
    value of a product counts if it is larger than the rounding error of the product. Its size relative to the largest
    singular value does not matter, since a change of basis between layers can change that freely. The answer is
    meaningful at critical points only.
    """
    widths, layers = widths_of(weights), len(weights)
    dtype = fit.inputs.dtype
    tolerance = linalg.decision_tolerance(dtype)
    kept, energy = kept_directions(point, fit), jnp.square(fit.singular_values)
    n = jnp.round(jnp.sum(kept)).astype(jnp.int32)
    top = jnp.sum(jnp.where(jnp.arange(len(kept), dtype=jnp.int32) < n, energy, 0))
    other = jnp.sum(kept * energy) < top - tolerance * jnp.sum(energy)
    strict = (n >= min(widths)) | other
    norms = [linalg.norm(w) for w in weights]
    size = point.before_norms[-1] + fit.size
    for i in range(layers - 1):
        middle: Any = None  # the product of the layers between i and j
        error: Any = jnp.zeros((), dtype)
        for j in range(i + 1, layers):
            if j == i + 2:
                middle = weights[j - 1]
            elif j > i + 2:
                w = weights[j - 1]
                error = linalg.product_error(error, linalg.norm(middle), norms[j - 1], w.shape[0], dtype)
                middle = matmul(middle, w)
            free = widths[i + 1] > n if middle is None else _rank(middle, error) > n
            coupling = linalg.norm(matmul(matmul(point.before[i].T, point.residual), point.after[j + 1].T))
            scale = point.prefix_norms[i] * point.suffix_norms[j + 1] * fit.scales[0] * size
            strict |= free & (coupling > tolerance * scale)
    return strict


def _rank(M: Array, error: Array) -> Array:
    """Return the number of singular values of a product that are larger than its rounding error."""
    s = linalg.singular_values(M)
    return jnp.sum(s > error + linalg.cutoff(M, s), dtype=jnp.int32)


def hessian_product(weights: Weights, directions: Weights, fit: Fit) -> list[Any]:
    """Return the Hessian of the loss times a direction, as a derivative of the gradients, without forming a matrix."""
    _, out = jax.jvp(lambda w: gradients(w, fit.inputs, fit.targets), (list(weights),), (list(directions),))
    return out


def lowest(weights: Weights, fit: Fit, key: Array, steps: int = 40) -> Curvature:
    """Return the lowest eigenvalue of the Hessian that Lanczos finds, with its direction as a flat vector."""
    flat, unravel = jax.flatten_util.ravel_pytree(list(weights))

    def apply(v: Any) -> Any:
        return jax.flatten_util.ravel_pytree(hessian_product(weights, unravel(v), fit))[0]

    return linalg.lowest_curvature(apply, len(flat), key, steps=steps, dtype=flat.dtype)
