"""A way up from any point: no critical point is a local maximum (YSJ18 Lemma B.1)."""

from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg
from globopt_jax.deep_linear import confirm, exact
from globopt_jax.deep_linear.escape import increment, radius_in, room_for
from globopt_jax.deep_linear.fit import least_squares
from globopt_jax.deep_linear.inputs import check
from globopt_jax.deep_linear.network import Weights
from globopt_jax.deep_linear.point import Point, at
from globopt_jax.inputs import check_key, number
from globopt_jax.shapes import Array, Inputs, Targets

__all__ = ["Ascent", "ascend"]

#: Random changes that `ascend` tries before it gives up.
ATTEMPTS = 8


class Ascent(NamedTuple):
    """Weights with a larger loss, from `ascend`."""

    weights: list[Any]
    """The new weights, or the given weights unchanged if none were found."""
    increase: Array
    """A confirmed lower bound of ``loss(new) - loss(old)`` for the stored weights and data; 0 if none were found."""
    found: Array
    """Bool: whether weights with a larger loss were found."""


def ascend(weights: Any, X: Any, Y: Any, radius: Any, key: Any) -> Ascent:
    """Find weights nearby with a larger loss. For X != 0 no critical point is a local maximum (YSJ18 Lemma B.1).

    One layer l moves by ``t v u^T``, where v is the top right singular vector of ``X P_{l-1}`` and u is the top left
    singular vector of ``S_l``. The loss is quadratic in t with the curvature ``(sigma_1(X P_{l-1}) sigma_1(S_l))^2``,
    so it grows for t = radius or for t = -radius wherever this curvature is positive. Every layer and both signs are
    tried.

    At some points, such as zero weights, the curvature vanishes in every layer. So the same steps are also tried after
    random changes of all layers, which use half of the radius. One try takes the first layer's random change, another
    one takes its opposite. The candidate with the largest loss is kept.

    A host function: it cannot be traced.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx), not zero.
        Y: targets (m, dy).
        radius: the largest Frobenius norm of the change of all weights together, > 0.
        key: the random key of the random changes.

    Returns:
        An `Ascent` with ``.weights``, ``.increase`` and ``.found``.

    Raises:
        ValueError: the shapes do not fit, an array has NaN or inf, X is 0 (then the loss is constant), or the radius is
            not a positive number.
        TypeError: an array does not hold real numbers, or the key is no random key.

    Example:
        >>> up = ascend([jnp.zeros((2, 2)), jnp.zeros((2, 2))], jnp.eye(2), jnp.eye(2), 0.1, jax.random.key(0))
        >>> bool(up.found), float(up.increase) > 0
        (True, True)
    """
    given = list(weights)
    arrays, X, Y = check(weights, X, Y)
    key = check_key(key)
    radius = number("radius", radius, "a positive number", lambda v: v > 0)
    if not np.any(np.asarray(X)):
        raise ValueError("X: Expected: at least one entry that is not 0, or the loss is constant. Received: X = 0.")
    old, increment = [np.asarray(w) for w in arrays], confirm.increments(arrays, X, Y)
    for attempt in jax.random.split(key, ATTEMPTS):
        new = _ascents(arrays, X, Y, radius_in(radius, X.dtype), attempt)
        if not 0 < confirm.distance(old, new) <= radius:
            continue
        height, error = increment(new)
        if not height > error and exact.work(old, X) <= exact.AFFORDABLE:
            height, error = exact.increments(old, X, Y)(new), 0.0
        if height > error:
            return Ascent(new, np.nextafter(height - error, 0), np.asarray(True))
    return Ascent(given, np.zeros(()), np.asarray(False))


@jax.jit
def _ascents(weights: Weights, X: Inputs, Y: Targets, radius: Array, key: Array) -> list[Any]:
    fit = least_squares(X, Y)
    start = at(weights, fit)
    flat = jax.flatten_util.ravel_pytree(list(weights))[0]
    room = room_for(radius, flat)
    keys = jax.random.split(key, len(weights))
    noise = [jax.random.normal(k, w.shape, w.dtype) for k, w in zip(keys, weights, strict=True)]
    share = 0.5 / len(weights) ** 0.5
    moves = [room * share * n / linalg.norm(n) for n in noise]

    def stirred(sign: Array) -> list[Any]:
        """Change all layers at random, then climb. From zero weights one of the two signs raises the loss."""
        new = [w + move for w, move in zip(weights, [sign * moves[0], *moves[1:]], strict=True)]
        return _climb(new, at(new, fit), 0.5 * room)

    signs = jnp.asarray([1.0, -1.0], flat.dtype)
    both = [w.reshape(-1, *w.shape[2:]) for w in jax.vmap(stirred)(signs)]
    tries = [jnp.concatenate(pair) for pair in zip(_climb(weights, start, room), both, strict=True)]
    heights = jax.lax.map(lambda w: increment(weights, w, start, fit)[0], tries)
    return [w[jnp.argmax(heights)] for w in tries]


def _climb(weights: Weights, point: Point, radius: Array) -> list[Any]:
    """Return the stacked candidates: for every layer, a step each way along its line of largest curvature."""
    tries = []
    for l, w in enumerate(weights):
        v, u = linalg.svd(point.before[l]).Vt[0], linalg.svd(point.after[l + 1]).U[:, 0]
        step = radius * v[:, None] * u[None]
        for sign in (1.0, -1.0):
            tries.append([*weights[:l], w + sign * step, *weights[l + 1 :]])
    return [jnp.stack(layer) for layer in zip(*tries, strict=True)]
