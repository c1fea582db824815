"""Norms of layers: values whose derivative at zero is zero, best replies, and the faces along which they are smooth."""

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.inputs import one_of
from globopt_jax.shapes import Scalar

__all__ = ["NORMS", "along_face", "best_reply", "check_norms", "norm", "norm_power", "root"]

NORMS = ("l1", "l2", "linf", "l21")


def norm(kind: str, w: jax.Array) -> Scalar:
    """The l1, l2 or l-inf norm of the entries of w, or l21 of a matrix; its derivative at w = 0 is taken as 0."""
    # w sign(w), not jnp.abs(w): JAX's derivative of that at 0 is 1.
    if kind == "l1":
        return jnp.sum(w * jnp.sign(w))
    if kind == "linf":
        return jnp.max(w * jnp.sign(w))
    if kind == "l21":
        return jnp.sum(_row_lengths(w))
    return root(jnp.sum(w * w))


def root(square: jax.Array) -> jax.Array:
    """The square root, whose derivative at 0 is taken as 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def _row_lengths(w: jax.Array) -> jax.Array:
    """The l2 norms of a kernel's rows.

    Raises:
        ValueError: w is no matrix.
    """
    if w.ndim != 2:
        raise ValueError(f"norms: Expected: l21 for kernels (n_k-1, n_k) alone. Received: a layer of shape {w.shape}.")
    return root(jnp.sum(w * w, axis=1))


def norm_power(kind: str, w: jax.Array, p: int | float) -> Scalar:
    """``norm(kind, w)^p`` without the square root where p = 2 makes it needless."""
    return jnp.sum(w * w) if (kind, p) == ("l2", 2) else norm(kind, w) ** p


def best_reply(kind: str, g: jax.Array) -> jax.Array:
    """A maximizer of ``<g, w>`` over ``norm(kind, w) <= 1``: a coordinate vector (l1), g itself (l2), signs (l-inf).

    For l21 it is the longest row of g.
    """
    if kind == "l21":
        lengths = _row_lengths(g)
        longest = (jnp.arange(len(g)) == jnp.argmax(lengths)) & (lengths > 0)
        return g * jnp.where(longest, 1 / jnp.where(lengths > 0, lengths, 1), 0)[:, None]
    if kind == "l2":
        size = norm("l2", g)
        return g / jnp.where(size > 0, size, 1)
    signs = jnp.where(g < 0, -1, 1).astype(g.dtype)
    if kind == "linf":
        return signs
    flat = jnp.abs(g).ravel()
    return jnp.where(jnp.arange(flat.size) == jnp.argmax(flat), signs.ravel(), 0).reshape(g.shape)


def along_face(kind: str, w: jax.Array, g: jax.Array) -> jax.Array:
    """The part of g along which the norm is smooth at w: zeros stay zero (l1), largest entries stay equal (l-inf).

    For l21 rows of zeros stay zero.
    """
    if kind == "l21":
        return jnp.where(_row_lengths(w)[:, None] > 0, g, 0)
    if kind == "l1":
        return jnp.where(w != 0, g, 0)
    if kind == "linf":
        size = w * jnp.sign(w)
        tied = size >= jnp.max(size) * (1 - 8 * linalg.machine_epsilon(w.dtype))
        mean = jnp.sum(jnp.where(tied, jnp.sign(w) * g, 0)) / jnp.sum(tied, dtype=w.dtype)
        return jnp.where(tied, jnp.sign(w) * mean, g)
    return g


def check_norms(norms: str | tuple[str, ...]) -> None:
    """Raise ValueError for a name that is not in `NORMS`."""
    names = (norms,) if isinstance(norms, str) else norms
    for name in names or (names,):
        _ = one_of("norms", name, NORMS, ", or a tuple of them")
