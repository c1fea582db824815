"""Which way is down from a saddle, and which way is up from anywhere (YSJ18 Lemma B.1)."""

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg
from globopt_jax.deep_linear import exact
from globopt_jax.deep_linear.classify import judge, lowest_curvature
from globopt_jax.deep_linear.inputs import check
from globopt_jax.deep_linear.minimum import Fit, least_squares
from globopt_jax.deep_linear.network import Weights, widths_of
from globopt_jax.deep_linear.point import Point, at
from globopt_jax.deep_linear.verdict import KINDS
from globopt_jax.inputs import check_key, number
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Targets

__all__ = ["METHODS", "Ascent", "Escape", "ascend", "escape"]

#: How a point was left; the code is the index.
METHODS = (
    "none: a global minimum to the tolerance",
    "none: no candidate lowers the loss, as far as this can be resolved",
    "gradient: a step against the gradient",
    "curvature: along the lowest eigenvector of the Hessian that Lanczos found",
    "rotation: of the kept subspace towards a better direction of the fit",
    "chain: a path through the layers to a direction of the fit that the product lacks",
)
AT_OPTIMUM, UNRESOLVED, GRADIENT, CURVATURE, ROTATION, CHAIN = range(len(METHODS))
#: Random changes that `ascend` tries before it gives up.
ATTEMPTS = 8
HALVINGS = {GRADIENT: 30, CURVATURE: 8}


class Escape(NamedTuple):
    """``weights``: the new ones, or the old ones unchanged. ``decrease``: loss(old) - loss(new), 0 if none was found.

    ``found``: bool. ``distance``: the Frobenius distance of the whole change. ``method_code``: index into `METHODS`.
    """

    weights: list[Any]
    decrease: Array
    found: Array
    distance: Array
    method_code: Array

    @property
    def method(self) -> str:
        """What led down, in words."""
        return METHODS[int(self.method_code)]


class _Candidates(NamedTuple):
    """Weights to try, stacked; the increments of the loss there, and what rounding may have done to them."""

    methods: Array
    weights: list[Any]
    increments: Array
    rounding: Array


def escape(weights: Any, X: Any, Y: Any, radius: Any, key: Any) -> Escape:
    """Find weights nearby with a lower loss: from a point that moves, a strict saddle, or a degenerate one.

    Candidates are a backtracked gradient step; both ways along the most negative curvature that Lanczos finds; a
    rotation of the kept subspace that trades a direction of the fit for a better one; and a chain of rank-one changes
    through all layers that adds a direction, which works where the Hessian vanishes. The lowest is returned. Each is
    judged by the increment ``<X^T (X R - Y), dR> + 1/2 ||X dR||^2`` with ``dR = sum_l P'_{l-1} D_l S_l``, never by a
    difference of losses: at zero weights with H hidden layers nothing within the radius lowers the loss by more than
    about ``(radius / sqrt(H+1))^(H+1) s_1(X^T Y)``, far below the loss's rounding.

    An increment that its own rounding could explain counts for nothing. If no candidate does better, and the network is
    small enough (`exact.AFFORDABLE`), the increments are evaluated in exact integer arithmetic, so that the answer is
    right at deep degenerate saddles and tiny radii, too.

    Host function.

    Args:
        weights: kernels W_l (d_{l-1}, d_l). X: (m, dx). Y: (m, dy).
        radius: > 0; the Frobenius norm of the whole change does not exceed it.
        key: of the random vectors.

    Returns:
        `Escape`. At a global minimum (to the tolerance of `classify`) nothing is found, and the weights come back.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, a radius that is not a positive number.
        TypeError: arrays that are not real numbers, a key that is none.

    Example:
        >>> X, Y = jnp.eye(2), jnp.diag(jnp.array([3.0, 1.0]))
        >>> found = escape([jnp.zeros((2, 2))] * 3, X, Y, 0.1, jax.random.key(0))
        >>> bool(found.found), found.method.split(":")[0], float(found.decrease) > 0
        (True, 'chain', True)
    """
    given = list(weights)
    arrays, X, Y = check(weights, X, Y)
    key = check_key(key)
    radius = number("radius", radius, "a positive number", lambda v: v > 0)
    verdict, point, fit = judge(arrays, X, Y)
    if KINDS[int(verdict.code)] == "global_minimum":
        return _stay(given, AT_OPTIMUM)
    k1, k2 = jax.random.split(key)
    curvature = lowest_curvature(arrays, fit, k1, 40).v
    tries = _candidates(arrays, point, fit, curvature, jnp.asarray(radius, X.dtype), k2)
    heights = np.asarray(tries.increments, np.float64)
    heights = np.where(heights < -np.asarray(tries.rounding), heights, 0.0)
    if not np.any(heights < 0) and exact.work(arrays, X) * len(heights) <= exact.AFFORDABLE:
        exactly = exact.increments(arrays, X, Y)
        heights = np.array([exactly(w) for w in zip(*map(np.asarray, tries.weights), strict=True)])
        if not np.any(heights < 0):
            # So small that the gradient's own rounding at the weights as stored decides which way is down.
            turned = [2 * np.asarray(w)[None] - v for w, v in zip(arrays, tries.weights, strict=True)]
            tries, heights = tries._replace(weights=turned), np.array([exactly(w) for w in zip(*turned, strict=True)])
    for best in np.argsort(heights):
        new = [jnp.asarray(w[best]) for w in tries.weights]
        moves = (np.asarray(v, np.float64) - np.asarray(w, np.float64) for w, v in zip(arrays, new, strict=True))
        distance = np.sqrt(sum(np.sum(np.square(move)) for move in moves))
        if heights[best] < 0 and distance <= radius:
            code = np.asarray(tries.methods[best], np.int32)
            return Escape(new, np.asarray(-heights[best]), np.asarray(True), np.asarray(distance), code)
    return _stay(given, UNRESOLVED)


def _stay(weights: list[Any], code: int) -> Escape:
    return Escape(weights, np.zeros(()), np.asarray(False), np.zeros(()), np.asarray(code, np.int32))


@jax.jit
def _candidates(weights: Weights, point: Point, fit: Fit, curvature: Array, radius: Array, key: Array) -> _Candidates:
    flat, unravel = jax.flatten_util.ravel_pytree(list(weights))
    room = _room(radius, flat)
    gradient = jax.flatten_util.ravel_pytree(point.gradients)[0]

    def line(direction: Array, code: int) -> tuple[int, list[Any]]:
        """The best of both ways along a direction, at halved lengths."""
        direction = direction / jnp.where(jnp.any(direction != 0), linalg.norm(direction), 1)
        lengths = room * 0.5 ** jnp.arange(HALVINGS[code], dtype=flat.dtype)
        lengths = jnp.concatenate([-lengths, lengths])
        heights = jax.lax.map(lambda t: increment(weights, unravel(flat + t * direction), point, fit)[0], lengths)
        return code, unravel(flat + lengths[jnp.argmin(heights)] * direction)

    tries = [line(gradient, GRADIENT), line(curvature, CURVATURE)]
    if len(weights) > 1:
        tries.append((ROTATION, _rotation(weights, point, fit, room)))
    chains = _chains(weights, point, fit, room, key)
    codes = jnp.array([code for code, _ in tries] + [CHAIN] * len(chains[0]))
    stacked = [jnp.stack(layer) for layer in zip(*(w for _, w in tries), strict=True)]
    new = [jnp.concatenate(pair) for pair in zip(stacked, chains, strict=True)]
    heights, rounding = jax.lax.map(lambda w: increment(weights, w, point, fit), new)
    return _Candidates(codes, new, heights, rounding)


def _room(radius: Array, weights: Array) -> Array:
    """How far a step may go so that its rounding, up to eps ||W|| in all, does not lead out of the ball."""
    unit = linalg.unit(weights.dtype)
    return jnp.maximum((1 - 16 * unit) * radius - 2 * unit * linalg.norm(weights), 0)


def increment(old: Weights, new: Weights, point: Point, fit: Fit) -> tuple[Array, Array]:
    """``loss(new) - loss(old)`` without subtracting losses, and what rounding may have done to it.

    ``<T R - C, dZ> + 1/2 ||dZ||^2`` with ``dZ = sum_l T P'_{l-1} (W'_l - W_l) S_l``, P' of the new weights.
    """
    before, terms, size = fit.inputs, [], jnp.zeros((), fit.inputs.dtype)
    for a, b, after in zip(old, new, point.after[1:], strict=True):
        terms.append(matmul(matmul(before, b - a), after))
        size = size + linalg.norm(before) * linalg.norm(b - a) * linalg.norm(after)
        before = matmul(before, b)
    dZ = sum(terms[1:], terms[0])
    rounding = 4 * linalg.unit(size.dtype) * size * (linalg.norm(point.residual) + linalg.norm(dZ))
    return jnp.sum(point.residual * dZ) + 0.5 * jnp.sum(jnp.square(dZ)), rounding


def _rotation(weights: Weights, point: Point, fit: Fit, room: Array) -> list[Any]:
    """Turn the row space of S_1 in the plane of its weakest direction of the fit and the strongest outside it."""
    k = min(widths_of(weights))
    F, S = fit.targets, point.after[1]
    U, s, Vt, *_ = linalg.svd(S)
    U, s, V = U[:, :k], s[:k], Vt[:k].T
    inside = linalg.svd(matmul(F, V))
    uj = matmul(V, inside.Vt[-1])
    ui = linalg.svd(linalg.project_out(V, F.T).T).Vt[0]
    # Orthogonal to rounding even where nothing is left outside.
    ui = ui - matmul(V, matmul(V.T, ui))
    ui = ui / jnp.where(jnp.any(ui != 0), linalg.norm(ui), 1)
    K = jnp.stack([uj, ui], axis=1)
    inverse = matmul(V / jnp.where(s > 0, s, 1)[None], U.T)
    first, last = matmul(fit.map, K), matmul(weights[-1], K)
    reach = jnp.sum(jnp.square(first)) * linalg.spectral_norm(matmul(K.T, inverse)) ** 2 + jnp.sum(jnp.square(last))
    t = 2 * jnp.arcsin(jnp.minimum(0.5**0.5, 0.5 * room / jnp.sqrt(jnp.where(reach > 0, reach, 1))))
    # G - I acts within the plane of K.
    turn = jnp.stack([jnp.stack([jnp.cos(t) - 1, jnp.sin(t)]), jnp.stack([-jnp.sin(t), jnp.cos(t) - 1])])
    new = list(weights)
    new[-1] = weights[-1] + matmul(matmul(last, turn), K.T)
    new[0] = weights[0] + matmul(matmul(first, turn.T), matmul(K.T, inverse))
    return new


def _chains(weights: Weights, point: Point, fit: Fit, room: Array, key: Array) -> list[Any]:
    """Rank-one changes that open a path from the top input to the top output direction of E, stacked.

    With ``x_l^T S_l = 0`` and ``P_l y_l = 0`` the changes before and after layer q leave the product alone, and let
    layer q move along ``C = Pt^T E St^T``, which is not zero any more. Every q is tried, with both signs.
    """
    layers, dtype = len(weights), fit.inputs.dtype
    delta = room / layers**0.5
    top = linalg.svd(matmul(fit.inputs.T, point.residual))
    keys = jax.random.split(key, 2 * layers)
    x = [top.U[:, 0], *[_null(point.after[l].T, point.after_error[l], keys[2 * l]) for l in range(1, layers)]]
    y = [_null(point.before[l], point.before_error[l], keys[2 * l + 1]) for l in range(1, layers)] + [top.Vt[0]]
    entering: list[Any] = [a[:, None] * b[None] for a, b in pairwise(x)]  # at layers before q
    leaving: list[Any] = [None, *(a[:, None] * b[None] for a, b in pairwise(y))]  # at layers after q

    def through(q: int, step: Array) -> list[Any]:
        """Layer q joins the links before it to those after it; step is delta, or its negative."""
        before = [w + step * link for w, link in zip(weights[:q], entering[:q], strict=True)]
        after = [w + step * link for w, link in zip(weights[q + 1 :], leaving[q + 1 :], strict=True)]
        left, right = fit.inputs, jnp.eye(fit.targets.shape[1], dtype=dtype)
        for w in before:
            left = matmul(left, w)
        for w in reversed(after):
            right = matmul(w, right)
        C = matmul(matmul(left.T, point.residual), right.T)
        # What rounding left of the gradient drowns C at tiny radii; its part along the chain stays clean.
        clean = x[q][:, None] * y[q][None]
        D = jnp.stack([C, clean * jnp.sum(C * clean)])
        size = jax.vmap(linalg.norm)(D)[:, None, None]
        D = D / jnp.where(size > 0, size, 1)
        bend = jnp.sum(jnp.square(matmul(matmul(left, D), right)), axis=(1, 2), keepdims=True)
        moves = weights[q][None] - jnp.minimum(delta, size / jnp.where(bend > 0, bend, 1)) * D
        twice = [[jnp.stack([w, w]) for w in side] for side in (before, after)]
        return [*twice[0], moves, *twice[1]]

    signs = jnp.stack([delta, -delta])
    opened = [jax.vmap(partial(through, q))(signs) for q in range(layers)]
    return [jnp.concatenate([w[l].reshape(-1, *weights[l].shape) for w in opened]) for l in range(layers)]


def _null(M: Array, error: Array, key: Array) -> Array:
    """A random unit vector v with ``M v = 0`` to rounding; the weakest right singular vector where there is none."""
    s, Vt = jnp.linalg.svd(M, full_matrices=True)[1:]
    s = jnp.pad(s, (0, len(Vt) - len(s)))
    free = s <= error + linalg.cutoff(M, s)
    free = free.at[-1].set(True)
    v = matmul(jnp.where(free, jax.random.normal(key, s.shape, M.dtype), 0), Vt)
    return v / linalg.norm(v)


class Ascent(NamedTuple):
    """``weights``: where the loss is larger, or the old ones unchanged. ``increase``: loss(new) - loss(old), 0 if none
    was found. ``found``: bool.
    """

    weights: list[Any]
    increase: Array
    found: Array


def ascend(weights: Any, X: Any, Y: Any, radius: Any, key: Any) -> Ascent:
    """Find weights nearby with a larger loss: no critical point is a local maximum (YSJ18 Lemma B.1; X != 0).

    The layer with the largest ``sigma_1(X P_{l-1}) sigma_1(S_l)`` moves by ``radius v u^T``, along the top right
    singular vector v of X P_{l-1} and the top left one u of S_l, one way or the other: the loss is quadratic along that
    line, with positive curvature. Where all of these products vanish, random changes of all layers first make them
    nonzero (half of the radius), with the first layer's change and with its opposite.

    Host function.

    Args:
        weights: kernels W_l (d_{l-1}, d_l). X: (m, dx), not zero. Y: (m, dy).
        radius: > 0, of the Frobenius norm of the whole change. key: of the random changes.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, X = 0 (the loss is constant), a bad radius.
        TypeError: arrays that are not real numbers, a key that is none.

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
        raise ValueError("X: Expected: not zero, since the loss is constant then. Received: X = 0.")
    for attempt in jax.random.split(key, ATTEMPTS):
        new, height = _ascents(arrays, X, Y, jnp.asarray(radius, X.dtype), attempt)
        if float(height) > 0:
            return Ascent(new, height, np.asarray(True))
    return Ascent(given, np.zeros(()), np.asarray(False))


@jax.jit
def _ascents(weights: Weights, X: Inputs, Y: Targets, radius: Array, key: Array) -> tuple[list[Any], Array]:
    fit = least_squares(X, Y)
    start = at(weights, fit)
    flat = jax.flatten_util.ravel_pytree(list(weights))[0]
    room = _room(radius, flat)
    keys = jax.random.split(key, len(weights))
    noise = [jax.random.normal(k, w.shape, w.dtype) for k, w in zip(keys, weights, strict=True)]
    share = 0.5 / len(weights) ** 0.5
    moves = [room * share * n / linalg.norm(n) for n in noise]

    def stirred(sign: Array) -> list[Any]:
        """From zero weights one of the two signs of the product leads up, however little."""
        new = [w + move for w, move in zip(weights, [sign * moves[0], *moves[1:]], strict=True)]
        return _climb(new, at(new, fit), 0.5 * room)

    signs = jnp.asarray([1.0, -1.0], flat.dtype)
    both = [w.reshape(-1, *w.shape[2:]) for w in jax.vmap(stirred)(signs)]
    tries = [jnp.concatenate(pair) for pair in zip(_climb(weights, start, room), both, strict=True)]
    heights = jax.lax.map(lambda w: increment(weights, w, start, fit)[0], tries)
    best = jnp.argmax(heights)
    return [w[best] for w in tries], heights[best]


def _climb(weights: Weights, point: Point, radius: Array) -> list[Any]:
    """Both ways along the line of largest curvature in one layer, for every layer; stacked."""
    tries = []
    for l, w in enumerate(weights):
        v, u = linalg.svd(point.before[l]).Vt[0], linalg.svd(point.after[l + 1]).U[:, 0]
        step = radius * v[:, None] * u[None]
        for sign in (1.0, -1.0):
            tries.append([*weights[:l], w + sign * step, *weights[l + 1 :]])
    return [jnp.stack(layer) for layer in zip(*tries, strict=True)]
