"""Decompositions by LAPACK of one matrix or a stack of them that cannot deadlock.

Before version 0.11.2, jaxlib hands each matrix of a batch to the threads of the program, and waits for them on one of
these threads. Two decompositions that do not depend on each other then wait forever on two cores, as ``svd(R)`` and
the orthogonal factor of ``Q, R = qr(A)`` do. With such a version, the matrices of a batch are decomposed one after
the other on CPUs, whether the batch is from `vmap` or an argument with leading axes. Derivatives are JAX's own, with
its decompositions of batches.
"""

import functools
import importlib.metadata
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from globopt_jax.shapes import Array

__all__ = ["eigh", "eigvalsh", "qr", "svd"]

#: Whether decompositions of batches can wait for each other.
DEADLOCKS = [int(part) for part in re.findall(r"\d+", importlib.metadata.version("jaxlib"))[:3]] < [0, 11, 2]


def svd(M: Any, *, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """Return what `jax.numpy.linalg.svd` returns."""
    return _safe("svd", full_matrices=full_matrices, compute_uv=compute_uv)(M)


def qr(M: Any, *, mode: str = "reduced") -> Any:
    """Return what `jax.numpy.linalg.qr` returns."""
    return _safe("qr", mode=mode)(M)


def eigh(M: Any) -> Any:
    """Return what `jax.numpy.linalg.eigh` returns."""
    return _safe("eigh")(M)


def eigvalsh(M: Any) -> Array:
    """Return what `jax.numpy.linalg.eigvalsh` returns."""
    return _safe("eigvalsh")(M)


@functools.cache
def _safe(name: str, **options: Hashable) -> Callable[[Array], Any]:
    """Return a function of `jax.numpy.linalg` with its options bound, mapped one after the other where needed."""

    def plain(M: Array) -> Any:
        return getattr(jnp.linalg, name)(M, **options)

    if not DEADLOCKS:
        return plain
    mapped = custom_vmap(plain)

    def of_batch(size: int, batched: Sequence[bool], batch: Array) -> tuple[Any, Any]:
        del size, batched  # the only argument is the batch
        found = jax.lax.platform_dependent(batch, cpu=lambda batch: jax.lax.map(mapped, batch), default=jax.vmap(plain))
        return found, jax.tree.map(lambda _: True, found)

    _ = mapped.def_vmap(of_batch)
    # `custom_vmap` has no derivatives of its own.
    differentiable = jax.custom_jvp(mapped)
    _ = differentiable.defjvp(lambda primals, tangents: jax.jvp(plain, primals, tangents))

    @jax.jit  # outside of a program, every call would compile the loop over a stack again
    def stacked(M: Array) -> Any:
        return differentiable(M) if M.ndim <= 2 else jax.vmap(stacked)(M)

    return stacked
