"""The lowest eigenvalue of a symmetric operator that is only known by its products with vectors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from globopt_jax.linalg.factors import matmul
from globopt_jax.linalg.tolerances import machine_epsilon
from globopt_jax.shapes import Array

__all__ = ["Curvature", "lowest_curvature"]


class Curvature(NamedTuple):
    """``value = v^T A v`` at the unit vector ``v``; ``scale``: the largest |Ritz value|, an estimate of ||A||_2."""

    value: Array
    v: Array
    scale: Array


def lowest_curvature(
    product: Callable[[Array], Array], n: int, key: Array, *, steps: int = 40, dtype=jnp.float32
) -> Curvature:
    """Search for the lowest eigenvalue of a symmetric (n, n) operator by Lanczos with full reorthogonalization.

    The value is a Rayleigh quotient, so the lowest eigenvalue is at most that (to rounding): a witness of negative
    curvature, and an estimate, not a bound, where it is not negative. With ``steps >= n`` it is the eigenvalue itself.

    An exact zero residual, which low-rank Hessians of saddles do produce, would divide by zero in the recursion
    (matfree's). A random diagonal of size 10 eps ||A|| keeps the Krylov space growing and is absent from the value.

    Args:
        product: ``v -> A v``, (n,) to (n,). n: at least 1. key: of the start.
        steps: products at most; one vector of length n is kept for each.
        dtype: of v.

    Example:
        >>> d = jnp.array([3.0, -1.0, 2.0, 0.5])
        >>> found = lowest_curvature(lambda v: d * v, 4, jax.random.key(0), dtype=d.dtype)
        >>> round(float(found.value), 5), abs(found.v).round(3).tolist()
        (-1.0, [0.0, 1.0, 0.0, 0.0])
    """
    from matfree import decomp  # late: only second-order questions need it

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
        ritz, vectors = jnp.linalg.eigh(found.J_small)
        basis = found.Q_tall
    v = matmul(vectors[:, 0], basis)  # the basis has a row a step
    v = v / jnp.linalg.norm(v)
    return Curvature(jnp.vdot(v, product(v)), v, jnp.max(jnp.abs(ritz)))
