"""Which way is down from a saddle."""

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg
from globopt_jax.deep_linear import confirm, exact
from globopt_jax.deep_linear.classify import judge, lowest_curvature
from globopt_jax.deep_linear.fit import Fit
from globopt_jax.deep_linear.inputs import check
from globopt_jax.deep_linear.judgement import KINDS
from globopt_jax.deep_linear.network import Weights, widths_of
from globopt_jax.deep_linear.point import Point
from globopt_jax.inputs import check_key, number
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Targets

__all__ = ["METHODS", "Escape", "escape", "increment", "radius_in", "room_for"]

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
#: Lengths along a line, from the radius down to what the weights can resolve.
LENGTHS = 48
#: How many of these are kept in reserve, and lengths of a chain's links, from the radius down to a tenth of the size of
#: the weights; fewer for networks with more weights than LARGE, since candidates are stacked.
RESERVE, LINKS, LARGE = 6, 4, 1_000_000
#: Multiplications of floats that confirming candidates may take, and candidates that are tried in any case.
EFFORT, FEW = 1e10, 8
#: How far a confirmed decrease may be below the exact one before exact arithmetic is asked, if that takes no time.
LOOSE = 1e-8


class Escape(NamedTuple):
    """``weights``: the new ones, or the old ones unchanged. ``decrease``: confirmed, 0 if none was found.

    ``loss(old) - loss(new)``, exactly that of the weights and data as they are stored, is no smaller than the decrease.
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
    """Weights to try, stacked; the increments of the loss there, and about what rounding may have done to them."""

    methods: Array
    weights: list[Any]
    increments: Array
    rounding: Array


def escape(weights: Any, X: Any, Y: Any, radius: Any, key: Any) -> Escape:
    """Find weights nearby with a lower loss: from a point that moves, a strict saddle, or a degenerate one.

    Candidates are a backtracked gradient step; both ways along the most negative curvature that Lanczos finds; a
    rotation of the kept subspace that trades a direction of the fit for a better one; and a chain of rank-one changes
    through all layers that adds a direction, which works where the Hessian vanishes. Each comes in lengths from the
    radius down to what the size of the weights asks for. They are ordered by the increment ``<X^T (X R - Y), dR> +
    1/2 ||X dR||^2``, never by a difference of losses: at zero weights with H hidden layers nothing within the radius
    lowers the loss by more than about ``(radius / sqrt(H+1))^(H+1) s_1(X^T Y)``, far below the loss's rounding.

    The first one is returned whose increment is confirmed: evaluated again in float64 from the data themselves, with a
    bound of all rounding (`confirm.increments`), it is negative. If there is none, and the network is small enough
    (`exact.AFFORDABLE`), the increments are evaluated in exact integer arithmetic, so that the answer is right at deep
    degenerate saddles and tiny radii, too.

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
    judgement, point, fit = judge(arrays, X, Y)
    if KINDS[int(judgement.code)] == "global_minimum":
        return _stay(given, AT_OPTIMUM)
    k1, k2 = jax.random.split(key)
    curvature = lowest_curvature(arrays, fit, k1, 40).v
    tries = _candidates(arrays, point, fit, curvature, radius_in(radius, X.dtype), k2)
    found = _first_confirmed(arrays, X, Y, tries, radius)
    return _stay(given, UNRESOLVED) if found is None else found


def _first_confirmed(weights: Weights, X: Inputs, Y: Targets, tries: _Candidates, radius: float) -> Escape | None:
    """The best candidate within the radius whose decrease is confirmed: in floats, or else in integers."""
    old = [np.asarray(w) for w in weights]
    heights = np.nan_to_num(np.asarray(tries.increments, np.float64), nan=np.inf)
    solid = heights < -np.nan_to_num(np.asarray(tries.rounding, np.float64), nan=np.inf)
    order = np.lexsort((heights, ~solid))
    stacked = [np.asarray(w) for w in tries.weights]
    within = []  # the candidates in the ball, the most promising first
    for i in order:
        new = [w[i] for w in stacked]
        distance = confirm.distance(old, new)
        if 0 < distance <= radius:
            within.append((new, distance, int(tries.methods[i])))
    work = exact.work(old, X)
    increment = confirm.increments(old, X, Y)
    for new, distance, code in within[: max(FEW, int(EFFORT / work))]:
        height, error = increment(new)
        if height + error < 0:
            if error > -LOOSE * height and 10 * work <= exact.AFFORDABLE:
                height, error = exact.increments(old, X, Y)(new), 0.0
            return _left(new, height + error, distance, code)
    affordable = within[: int(exact.AFFORDABLE / work)]
    if not affordable:
        return None
    exactly = exact.increments(old, X, Y)
    # So small that the gradient's own rounding at the weights as stored may decide which way is down.
    opposite = [([2 * w - v for w, v in zip(old, new, strict=True)], code) for new, _, code in affordable]
    turned = [(new, confirm.distance(old, new), code) for new, code in opposite]
    for some in (affordable, turned):
        judged = [(exactly(new), new, distance, code) for new, distance, code in some if distance <= radius]
        best = min(judged, key=lambda found: found[0], default=None)
        if best is not None and best[0] < 0:
            return _left(best[1], best[0], best[2], best[3])
    return None


def _left(new: list[Any], height: float, distance: float, code: int) -> Escape:
    """The result; the decrease is rounded towards zero."""
    decrease = np.nextafter(-height, 0)
    return Escape(
        [jnp.asarray(w) for w in new],
        np.asarray(decrease),
        np.asarray(True),
        np.asarray(distance),
        np.asarray(code, np.int32),
    )


def _stay(weights: list[Any], code: int) -> Escape:
    return Escape(weights, np.zeros(()), np.asarray(False), np.zeros(()), np.asarray(code, np.int32))


@jax.jit
def _candidates(weights: Weights, point: Point, fit: Fit, curvature: Array, radius: Array, key: Array) -> _Candidates:
    flat, unravel = jax.flatten_util.ravel_pytree(list(weights))
    room, layers, dtype = room_for(radius, flat), len(weights), flat.dtype
    reserve, count = (RESERVE, LINKS) if flat.size <= LARGE else (1, 2)
    gradient = jax.flatten_util.ravel_pytree(point.gradients)[0]
    # The size of the weights, or of those that fit the data.
    scale = jnp.maximum(linalg.norm(flat), linalg.norm(fit.map) ** (1 / layers))
    scale = jnp.where(scale > 0, scale, room)

    def lengths(shortest: Array, count: int) -> Array:
        """From the room that there is down to the shortest, evenly in logarithms."""
        ratio = jnp.minimum(shortest / room, 1)
        return room * ratio ** (jnp.arange(count, dtype=dtype) / (count - 1))

    def line(direction: Array, signs: list[float], code: int) -> tuple[list[int], Any]:
        """The best along a direction, and some of all lengths in reserve, which rounding may have hidden."""
        direction = direction / jnp.where(jnp.any(direction != 0), linalg.norm(direction), 1)
        steps = lengths(linalg.machine_epsilon(dtype) * scale, LENGTHS)
        steps = jnp.concatenate([sign * steps for sign in signs])
        heights, rounding = jax.lax.map(lambda t: increment(weights, unravel(flat + t * direction), point, fit), steps)
        best = jnp.argmin(jnp.where(heights < -rounding, heights, jnp.inf))
        steps = jnp.append(steps[:: LENGTHS // reserve], steps[best])
        return [code] * len(steps), jax.vmap(lambda t: unravel(flat + t * direction))(steps)

    tries = [line(gradient, [-1.0], GRADIENT), line(curvature, [1.0, -1.0], CURVATURE)]
    if layers > 1:
        tries.append(([ROTATION], [w[None] for w in _rotation(weights, point, fit, room)]))
    links = lengths(jnp.minimum(0.1 * scale, room), count) / layers**0.5
    chains = _chains(weights, point, fit, links, key)
    tries.append(([CHAIN] * len(chains[0]), chains))
    codes = jnp.array([code for codes, _ in tries for code in codes])
    new = [jnp.concatenate(parts) for parts in zip(*(w for _, w in tries), strict=True)]
    heights, rounding = jax.lax.map(lambda w: increment(weights, w, point, fit), new)
    return _Candidates(codes, new, heights, rounding)


def radius_in(radius: float, dtype: Any) -> Array:
    """The radius, as far as squares of that dtype go."""
    least, most = linalg.smallest_normal(dtype), linalg.largest_finite(dtype) ** 0.5
    return jnp.asarray(np.clip(radius, least, most), dtype)


def room_for(radius: Array, weights: Array) -> Array:
    """How far a step may go so that its rounding, up to eps ||W|| in all, does not lead out of the ball.

    Where that is more than the radius, steps can still move those entries that are small; so some room is always left.
    """
    eps = linalg.machine_epsilon(weights.dtype)
    return jnp.maximum((1 - 16 * eps) * radius - 2 * eps * linalg.norm(weights), 0.25 * radius)


def increment(old: Weights, new: Weights, point: Point, fit: Fit) -> tuple[Array, Array]:
    """``loss(new) - loss(old)`` without subtracting losses, and about what rounding may have done to it.

    ``<T R - C, dZ> + 1/2 ||dZ||^2`` with ``dZ = sum_l T P'_{l-1} (W'_l - W_l) S_l``, P' of the new weights.
    """
    before, terms, off = fit.inputs, [], jnp.zeros((), fit.inputs.dtype)
    error, dtype = fit.accuracy * linalg.norm(before), fit.inputs.dtype
    for a, b, after, behind in zip(old, new, point.after[1:], point.after_error[1:], strict=True):
        move, left, right, inner = linalg.norm(b - a), linalg.norm(before), linalg.norm(after), sum(b.shape)
        terms.append(matmul(matmul(before, b - a), after))
        off = off + move * (error * right + left * behind + inner * linalg.machine_epsilon(dtype) * left * right)
        error = linalg.product_error(error, left, linalg.norm(b), b.shape[0], dtype)
        before = matmul(before, b)
    dZ = sum(terms[1:], terms[0])
    size, change = linalg.norm(point.residual), linalg.norm(dZ)
    known = point.before_error[-1] + fit.accuracy * (fit.size + linalg.norm(point.before[-1]))
    rounding = off * (size + change + 0.5 * off) + known * change
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


def _chains(weights: Weights, point: Point, fit: Fit, links: Array, key: Array) -> list[Any]:
    """Rank-one changes of each of these lengths that open a path from the top input to the top output direction of E.

    With ``x_l^T S_l = 0`` and ``P_l y_l = 0`` the changes before and after layer q leave the product alone, and let
    layer q move along ``C = Pt^T E St^T``, which is not zero any more. Every q is tried, with both signs.
    """
    layers, dtype = len(weights), fit.inputs.dtype
    top = linalg.svd(matmul(fit.inputs.T, point.residual))
    keys = jax.random.split(key, 2 * layers)
    x = [top.U[:, 0], *[_null(point.after[l].T, point.after_error[l], keys[2 * l]) for l in range(1, layers)]]
    y = [_null(point.before[l], point.before_error[l], keys[2 * l + 1]) for l in range(1, layers)] + [top.Vt[0]]
    entering: list[Any] = [a[:, None] * b[None] for a, b in pairwise(x)]  # at layers before q
    leaving: list[Any] = [None, *(a[:, None] * b[None] for a, b in pairwise(y))]  # at layers after q

    def through(q: int, step: Array) -> list[Any]:
        """Layer q joins the links before it to those after it; step is a length, or its negative."""
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
        moves = weights[q][None] - jnp.minimum(jnp.abs(step), size / jnp.where(bend > 0, bend, 1)) * D
        twice = [[jnp.stack([w, w]) for w in side] for side in (before, after)]
        return [*twice[0], moves, *twice[1]]

    steps = jnp.concatenate([links, -links])
    opened = [jax.vmap(partial(through, q))(steps) for q in range(layers)]
    return [jnp.concatenate([w[l].reshape(-1, *weights[l].shape) for w in opened]) for l in range(layers)]


def _null(M: Array, error: Array, key: Array) -> Array:
    """A random unit vector v with ``M v = 0`` to rounding; the weakest right singular vector where there is none."""
    s, Vt = jnp.linalg.svd(M, full_matrices=True)[1:]
    s = jnp.pad(s, (0, len(Vt) - len(s)))
    free = s <= error + linalg.cutoff(M, s)
    free = free.at[-1].set(True)
    v = matmul(jnp.where(free, jax.random.normal(key, s.shape, M.dtype), 0), Vt)
    return v / linalg.norm(v)
