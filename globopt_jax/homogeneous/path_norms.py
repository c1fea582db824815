"""Path norms, ``theta(w) = (sum over paths prod_k |w_k|^q)^(1/q)``."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from globopt_jax.homogeneous.maps import ElementalMap, PiecewiseLinear
from globopt_jax.homogeneous.regularizers import ProductOfNorms, Regularizer
from globopt_jax.homogeneous.tensors import CPTensor
from globopt_jax.shapes import Scalar, Weights

__all__ = ["PathNorm", "path_norm"]


@dataclass(frozen=True)
class PathNorm(Regularizer):
    """``(sum over paths prod_k |w_k|^q)^(1/q)``; see `path_norm`."""

    q: int | float
    layers: int | float | None = None
    name = "path_norm"
    is_known = True
    moves_scale = True

    @property
    def degree(self) -> int | float | None:
        return self.layers

    def bind(self, phi: ElementalMap) -> Regularizer:
        if not isinstance(phi, PiecewiseLinear | CPTensor):
            raise TypeError(f"phi: Expected: a map of the catalogue for path_norm, which has paths. Received: {phi}.")
        # Layers that are vectors have one unit between them, and the sum over paths is the product of their sums.
        if self.q in (1, 2) and (isinstance(phi, CPTensor) or phi.is_neuron):
            return ProductOfNorms("l1" if self.q == 1 else "l2").bind(phi)
        return replace(self, layers=phi.degree)

    def __call__(self, weights: Weights) -> Scalar:
        return _over_paths(jax.tree.leaves(weights), self.q)


def path_norm(q: int | float = 2) -> PathNorm:
    """Make the path norm, ``theta(w) = (sum over paths prod_k |w_k|^q)^(1/q)``, of the degree of the map.

    A path leads from an input through one unit of each layer to an output; w_k are the weights along it. The sum over
    all paths is one forward pass of the powers ``|w|^q``, computed by their logarithms. Moving scale from one layer to
    another, or through a unit, leaves it unchanged, as it leaves the map. Without the root its degree is q times that
    of the map (Path-SGD uses the square of the norm for q = 2), which would be a mismatch.

    With one hidden unit, and for tensors of rank one, it is the product of the layers' q-norms. There `Problem`
    replaces it by `product_of_norms` for q = 1 and q = 2, whose polar has rigorous bounds. Elsewhere no bound is
    known, and `certify` reports estimates.

    Args:
        q: the exponent, at least 1.

    Raises:
        ValueError: q is below 1 or not finite.

    References:
        Haeffele & Vidal 2017, section 6; Neyshabur, Salakhutdinov & Srebro 2015, Path-SGD, (6).

    >>> import jax.numpy as jnp
    >>> kernels = [jnp.array([[3.0, 0.0]]), jnp.array([[1.0], [5.0]])]  # one of the two paths has a weight of 0
    >>> float(path_norm(2)(kernels))
    3.0
    """
    if not (isinstance(q, int | float) and 1 <= q < float("inf")):
        raise ValueError(f"q: Expected: a finite number >= 1. Received: {q!r}.")
    return PathNorm(q)


@partial(jax.jit, static_argnums=1)
def _over_paths(leaves: list[Any], q: int | float) -> Any:
    """Return the q-th root of the sum over paths, by the logarithm of the sum, since powers underflow and overflow."""
    paths: Any = jnp.zeros((), leaves[0].dtype)
    for w in leaves:
        live = w != 0
        logs = jnp.where(live, q * jnp.log(jnp.where(live, w * jnp.sign(w), 1)), -jnp.inf)
        through = logs if paths.ndim == 0 else paths[:, None] + logs
        paths = paths + _log_sum(logs) if w.ndim == 1 else _log_sum(through)
    total = _log_sum(paths) if paths.ndim else paths
    living = total > -jnp.inf
    return jnp.where(living, jnp.exp(jnp.where(living, total, 0) / q), 0)


def _log_sum(a: Any) -> Any:
    """Return the logarithm of the sum of exp(a) along the first axis; minus infinity, with derivative 0, of zeros."""
    top = jax.lax.stop_gradient(jnp.max(a, axis=0))
    top = jnp.where(top > -jnp.inf, top, 0)
    found = jnp.sum(jnp.exp(a - top[None]), axis=0)
    positive = found > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, found, 1)) + top, -jnp.inf)
