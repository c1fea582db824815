"""The lowest eigenvalue of a symmetric operator, from its products with vectors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from globopt_jax.linalg import lapack
from globopt_jax.linalg.factors import matmul
from globopt_jax.linalg.tolerances import machine_epsilon
from globopt_jax.shapes import Array

__all__ = ["Curvature", "lowest_curvature"]


class Curvature(NamedTuple):
    """The lowest curvature that Lanczos found."""

    value: Array
    """The Rayleigh quotient ``v^T A v``, an upper bound of the lowest eigenvalue."""
    v: Array
    """(n,): the unit vector of this curvature."""
    scale: Array
    """The largest |Ritz value|, an estimate of ``||A||_2``."""


def lowest_curvature(
    product: Callable[[Array], Array], n: int, key: Array, *, steps: int = 40, dtype=jnp.float32
) -> Curvature:
    """Search for the lowest eigenvalue of a symmetric (n, n) operator by Lanczos with full reorthogonalization.

    The value is a Rayleigh quotient, so the lowest eigenvalue is at most this value, up to rounding. A negative value
    therefore proves negative curvature; a value that is not negative proves nothing. With ``steps >= n`` the value is
    the lowest eigenvalue itself, up to rounding.

    Low-rank Hessians at saddles lead to residuals that are exactly zero, by which the recursion (matfree's) would
    divide. A random diagonal of size 10 eps ||A|| is added during the recursion to prevent this. The value is computed
    without it.

    Array function: pure, works under `jit`.

    Args:
        product: the operator ``v -> A v``, from (n,) to (n,).
        n: the dimension, at least 1.
        key: the random key of the start vector.
        steps: the most products. Each needs memory for one vector of length n.
        dtype: the dtype of v.

    Returns:
        A `Curvature` with ``.value``, ``.v`` and ``.scale``.

    Example:
        >>> d = jnp.array([3.0, -1.0, 2.0, 0.5])
        >>> found = lowest_curvature(lambda v: d * v, 4, jax.random.key(0), dtype=d.dtype)
        >>> round(float(found.value), 5), abs(found.v).round(3).tolist()
        (-1.0, [0.0, 1.0, 0.0, 0.0])
    """
    from matfree import decomp  # imported here, since only second-order questions need it

    k1, k2 = jax.random.split(key)
    start = jax.random.normal(k1, (n,), dtype)
    size = jnp.linalg.norm(product(start)) / jnp.linalg.norm(start)
    scale = 10 * machine_epsilon(dtype) * jnp.where(size > 0, size, 1.0)
    jitter = scale * jax.random.uniform(k2, (n,), dtype, 0.5, 1.0)
    depth = min(steps, n)
    if n == 1:
        basis, ritz, vectors = jnp.ones((1, 1), dtype), product(jnp.ones((1,), dtype)), jnp.ones((1, 1), dtype)
    else:
        lanczos = decomp.tridiag_sym(depth, reortho="full", custom_vjp=False)
        found = lanczos(lambda v: product(v) + jitter * v, start)
        ritz, vectors = lapack.eigh(found.J_small)
        basis = found.Q_tall
    v = matmul(vectors[:, 0], basis)  # the basis has one row per step
    v = v / jnp.linalg.norm(v)
    return Curvature(jnp.vdot(v, product(v)), v, jnp.max(jnp.abs(ritz)))
