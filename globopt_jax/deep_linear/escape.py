"""A way down from a saddle, or from any other point above the global minimum."""

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
from globopt_jax.linalg import lapack, matmul
from globopt_jax.shapes import Array, Inputs, Targets

__all__ = ["METHODS", "Escape", "escape", "increment", "radius_in", "room_for"]

#: The ways in which a point can be left; `Escape.method_code` is the index.
METHODS = (
    "none: a global minimum to the tolerance",
    "none: no candidate was confirmed to lower the loss",
    "gradient: a step against the gradient",
    "curvature: along the lowest eigenvector of the Hessian that Lanczos found",
    "rotation: the kept subspace turns towards a better direction of the fit",
    "chain: rank-one changes of all layers add a direction of the fit that the product lacks",
)
AT_OPTIMUM, UNRESOLVED, GRADIENT, CURVATURE, ROTATION, CHAIN = range(len(METHODS))
#: The number of step lengths along a line, from the radius down to the rounding of the weights.
LENGTHS = 48
#: The number of these lengths that stay candidates besides the best one, and the number of step lengths of a chain.
#: Networks with more than LARGE weights use fewer of both, since candidates are stacked in memory.
RESERVE, LINKS, LARGE = 6, 4, 1_000_000
#: The most float multiplications for confirming candidates, and the number of candidates that are always tried.
EFFORT, FEW = 1e10, 8
#: The relative error of a confirmed decrease above which exact arithmetic replaces it, if that is cheap.
LOOSE = 1e-8


class Escape(NamedTuple):
    """Weights with a lower loss, from `escape`."""

    weights: list[Any]
    """The new weights, or the given weights unchanged if none were found."""
    decrease: Array
    """A confirmed lower bound of ``loss(old) - loss(new)`` for the stored weights and data; 0 if none were found."""
    found: Array
    """Bool: whether weights with a lower loss were found."""
    distance: Array
    """The Frobenius norm of the change of all weights together."""
    method_code: Array
    """The code of the step that was taken, or of the reason why none was; ``.method`` describes it."""

    @property
    def method(self) -> str:
        """The kind of step that lowered the loss, or the reason why none did, in words."""
        return METHODS[int(self.method_code)]


class _Candidates(NamedTuple):
    """Weights to try, stacked on a leading axis."""

    methods: Array
    """The index of each candidate's method in `METHODS`."""
    weights: list[Any]
    """The candidates."""
    increments: Array
    """The increment of the loss at each candidate."""
    rounding: Array
    """An estimate of the rounding error of each increment."""


def escape(weights: Any, X: Any, Y: Any, radius: Any, key: Any) -> Escape:
    """Find weights nearby with a lower loss, from a point that is not critical or from any saddle.

    A saddle is strict if its Hessian has a negative eigenvalue, and degenerate otherwise. There are four kinds of
    candidates:

    - a step against the gradient;
    - a step either way along the direction of the most negative curvature that Lanczos finds;
    - a rotation of the kept subspace, which replaces a direction of the fit by a better one;
    - a chain of rank-one changes of all layers, which adds a direction. It works even where the Hessian vanishes.

    All but the rotation are tried at several step lengths. Candidates are ordered by the increment of the loss,
    ``<X^T (X R - Y), dR> + 1/2 ||X dR||^2`` with dR the change of the product R, and not by a difference of two losses,
    which would drown in rounding: at zero weights with H hidden layers no change within the radius lowers the loss by
    more than about ``(radius / sqrt(H+1))^(H+1) s_1(X^T Y)``.

    The first candidate with a confirmed decrease is returned. To confirm it, its increment is evaluated again in
    float64 from the original data, with a bound of all rounding errors (`confirm.increments`), and must be negative by
    more than the bound. If no candidate passes and the network is small enough (`exact.AFFORDABLE`), the increments are
    evaluated in exact integer arithmetic. This decides deep degenerate saddles and tiny radii.

    A host function: it cannot be traced.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).
        Y: targets (m, dy).
        radius: the largest Frobenius norm of the change of all weights together, > 0.
        key: the random key of the start of Lanczos and of the chains.

    Returns:
        An `Escape`. At a global minimum (to the tolerance of `classify`) ``.found`` is False and ``.weights`` are the
        given weights.

    Raises:
        ValueError: the shapes do not fit, an array has NaN or inf, or the radius is not a positive number.
        TypeError: an array does not hold real numbers, or the key is no random key.

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
    """Return the best candidate within the radius whose decrease floats confirm, or else exact integers; or None."""
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
    # At tiny radii the rounding of the gradient may have turned its sign, so the opposite steps are tried too.
    opposite = [([2 * w - v for w, v in zip(old, new, strict=True)], code) for new, _, code in affordable]
    turned = [(new, confirm.distance(old, new), code) for new, code in opposite]
    for some in (affordable, turned):
        judged = [(exactly(new), new, distance, code) for new, distance, code in some if distance <= radius]
        best = min(judged, key=lambda found: found[0], default=None)
        if best is not None and best[0] < 0:
            return _left(best[1], best[0], best[2], best[3])
    return None


def _left(new: list[Any], height: float, distance: float, code: int) -> Escape:
    """Assemble the result, with the decrease rounded towards zero."""
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
    # The size of the weights, or of balanced weights that fit the data.
    scale = jnp.maximum(linalg.norm(flat), linalg.norm(fit.map) ** (1 / layers))
    scale = jnp.where(scale > 0, scale, room)

    def lengths(shortest: Array, count: int) -> Array:
        """Return step lengths from the room down to the shortest, evenly spaced in logarithms."""
        ratio = jnp.minimum(shortest / room, 1)
        return room * ratio ** (jnp.arange(count, dtype=dtype) / (count - 1))

    def line(direction: Array, signs: list[float], code: int) -> tuple[list[int], Any]:
        """Return the best step along a direction, and steps of other lengths in case rounding misjudged the best."""
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
    """Return the radius in this dtype, neither below its smallest normal number nor so large that squares overflow."""
    least, most = linalg.smallest_normal(dtype), linalg.largest_finite(dtype) ** 0.5
    return jnp.asarray(np.clip(radius, least, most), dtype)


def room_for(radius: Array, weights: Array) -> Array:
    """Return the largest step that stays within the radius after the new weights are rounded, which adds eps ||W||.

    Where eps ||W|| exceeds the radius a step can still change small entries, so at least a quarter of the radius is
    returned.
    """
    eps = linalg.machine_epsilon(weights.dtype)
    return jnp.maximum((1 - 16 * eps) * radius - 2 * eps * linalg.norm(weights), 0.25 * radius)


def increment(old: Weights, new: Weights, point: Point, fit: Fit) -> tuple[Array, Array]:
    """Return ``loss(new) - loss(old)``, computed without subtracting losses, and an estimate of its rounding error.

    It is ``<T R - C, dZ> + 1/2 ||dZ||^2`` with ``dZ = sum_l T P'_{l-1} (W'_l - W_l) S_l``, where T and C are the fit's
    inputs and targets, and primes mark the new weights and their products.
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
    size, change = point.residual_norm, linalg.norm(dZ)
    known = point.before_error[-1] + fit.accuracy * (fit.size + point.before_norms[-1])
    rounding = off * (size + change + 0.5 * off) + known * change
    return jnp.sum(point.residual * dZ) + 0.5 * jnp.sum(jnp.square(dZ)), rounding


def _rotation(weights: Weights, point: Point, fit: Fit, room: Array) -> list[Any]:
    """Rotate the row space of S_1 from the weakest direction of the fit in it towards the strongest one outside it."""
    k = min(widths_of(weights))
    F, S = fit.targets, point.after[1]
    U, s, Vt, *_ = linalg.svd(S)
    U, s, V = U[:, :k], s[:k], Vt[:k].T
    inside = linalg.svd(matmul(F, V))
    uj = matmul(V, inside.Vt[-1])
    ui = linalg.svd(linalg.project_out(V, F.T).T).Vt[0]
    # This keeps ui orthogonal to V even where the fit has nothing outside the row space.
    ui = ui - matmul(V, matmul(V.T, ui))
    ui = ui / jnp.where(jnp.any(ui != 0), linalg.norm(ui), 1)
    K = jnp.stack([uj, ui], axis=1)
    inverse = matmul(V / jnp.where(s > 0, s, 1)[None], U.T)
    first, last = matmul(fit.map, K), matmul(weights[-1], K)
    reach = jnp.sum(jnp.square(first)) * linalg.spectral_norm(matmul(K.T, inverse)) ** 2 + jnp.sum(jnp.square(last))
    t = 2 * jnp.arcsin(jnp.minimum(0.5**0.5, 0.5 * room / jnp.sqrt(jnp.where(reach > 0, reach, 1))))
    # The rotation minus the identity, in the plane of K.
    turn = jnp.stack([jnp.stack([jnp.cos(t) - 1, jnp.sin(t)]), jnp.stack([-jnp.sin(t), jnp.cos(t) - 1])])
    new = list(weights)
    new[-1] = weights[-1] + matmul(matmul(last, turn), K.T)
    new[0] = weights[0] + matmul(matmul(first, turn.T), matmul(K.T, inverse))
    return new


def _chains(weights: Weights, point: Point, fit: Fit, links: Array, key: Array) -> list[Any]:
    """Return rank-one changes of all layers that open a path from the top input to the top output direction of E.

    Let ``x_l^T S_l = 0`` and ``P_l y_l = 0``. Then the rank-one changes of the layers before and after layer q leave
    the product unchanged, but they make the gradient of layer q, ``C = P_{q-1}^T E S_q^T`` with the changed partial
    products, different from zero. So layer q moves along -C. Every q is tried with every length and both signs.
    """
    layers, dtype = len(weights), fit.inputs.dtype
    top = linalg.svd(matmul(fit.inputs.T, point.residual))
    keys = jax.random.split(key, 2 * layers)
    x = [top.U[:, 0], *[_null(point.after[l].T, point.after_error[l], keys[2 * l]) for l in range(1, layers)]]
    y = [_null(point.before[l], point.before_error[l], keys[2 * l + 1]) for l in range(1, layers)] + [top.Vt[0]]
    entering: list[Any] = [a[:, None] * b[None] for a, b in pairwise(x)]  # at layers before q
    leaving: list[Any] = [None, *(a[:, None] * b[None] for a, b in pairwise(y))]  # at layers after q

    def through(q: int, step: Array) -> list[Any]:
        """Return weights in which layer q joins the changes before it to those after it; step has either sign."""
        before = [w + step * link for w, link in zip(weights[:q], entering[:q], strict=True)]
        after = [w + step * link for w, link in zip(weights[q + 1 :], leaving[q + 1 :], strict=True)]
        left, right = fit.inputs, jnp.eye(fit.targets.shape[1], dtype=dtype)
        for w in before:
            left = matmul(left, w)
        for w in reversed(after):
            right = matmul(w, right)
        C = matmul(matmul(left.T, point.residual), right.T)
        # At tiny radii the rounding of the gradient dominates C, except for its part along the chain.
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
    """Return a random unit vector v with ``M v = 0`` to rounding, or else the last right singular vector of M."""
    s, Vt = lapack.svd(M, full_matrices=True)[1:]
    s = jnp.pad(s, (0, len(Vt) - len(s)))
    free = s <= error + linalg.cutoff(M, s)
    free = free.at[-1].set(True)
    v = matmul(jnp.where(free, jax.random.normal(key, s.shape, M.dtype), 0), Vt)
    return v / linalg.norm(v)
