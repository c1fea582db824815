"""Newton's method that knows the activation cells: sharp convergence at the kinks of one-hidden-layer networks.

The optimum of a ReLU problem usually has units with ``x_j . w1 = 0`` exactly. Around such a point the objective is not
smooth, and smooth optimizers stall. Here every unit carries a sign pattern S (r, m) in {-1, 0, 1}: where S = 0 the
unit is held on the kink (w1 is orthogonal to x_j), elsewhere it is linear. On this face the objective is smooth, and
a Newton step by conjugate gradients converges quadratically. The line search evaluates the true objective, at kinks
that the step crosses too; landing on one adds it to the face. At a stationary point of the face the multipliers
tell which kinks to release: tau in [0, 1], a subgradient of relu, must solve ``dF/dw1 = 0``.

Works for ``theta = 1/2 (||w1||^2 + ||w2||^2)`` and, since balanced subnetworks have the same value, ``||w1|| ||w2||``.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from globopt_jax import linalg
from globopt_jax.homogeneous.maps import Neuron
from globopt_jax.homogeneous.problem import Problem, objective
from globopt_jax.linalg import matmul
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets

__all__ = ["applies", "polish"]


class _State(NamedTuple):
    """The weights, the patterns S (r, m), the objective, steps without gain, steps, and if one was beyond rounding.

    A step beyond rounding makes the gradient smaller where the objective's rounding hides what it gains.
    """

    w1: Array
    w2: Array
    S: Array
    value: Scalar
    still: Scalar
    step: Scalar
    beyond: Array


class _Faces(NamedTuple):
    """The problem as seen from its faces: samples with their norms, their unit vectors, and the living units."""

    problem: Problem[Neuron]
    X: Inputs
    Y: Targets
    row_norm: Array
    unit_rows: Array
    living: Array

    @property
    def lam(self) -> Array:
        return jnp.asarray(self.problem.lam, self.Y.dtype)

    def rounding(self, value: Scalar) -> Scalar:
        """What an objective of this size cannot resolve."""
        return 4 * linalg.machine_epsilon(self.Y.dtype) * jnp.abs(value)

    def true_value(self, w1: Array, w2: Array) -> Scalar:
        """The objective itself."""
        return objective(self.problem, (w1, w2), self.X, self.Y)

    def slopes(self, S: Array) -> Array:
        """The slope of every unit at every sample (r, m); on a kink any would do, since there the input is 0."""
        negative, positive = self.problem.phi.slopes
        return jnp.where(S > 0, positive, negative)

    def predict(self, S: Array, w1: Array, w2: Array) -> Array:
        """The linear network of the pattern."""
        return matmul(self.slopes(S).astype(self.Y.dtype).T * matmul(self.X, w1.T), w2)

    def value(self, S: Array, w: Params) -> Scalar:
        """The objective of the face: smooth, and the true one where the signs of the pre-activations are S."""
        w1, w2 = w
        fit = self.problem.loss(self.predict(S, w1, w2), self.Y)
        return fit + self.lam / 2 * (jnp.sum(w1 * w1) + jnp.sum(w2 * w2))

    def pull(self, S: Array, w1: Array, w2: Array) -> Array:
        """c_ij = kappa <G_j, w2_i>: > 0 where the kink of sample j draws unit i towards itself."""
        negative, positive = self.problem.phi.slopes
        G = self.problem.loss.gradient(self.predict(S, w1, w2), self.Y)
        return (positive - negative) * matmul(G, w2.T).T

    def projectors(self, S: Array) -> tuple[Array, Array]:
        """Projectors (r, dx, dx) onto the faces, and pseudo-inverses of sum over the face of x_j x_j^T (unit rows)."""
        held = (S == 0).astype(self.Y.dtype)
        C = jnp.einsum("rm,ma,mb->rab", held, self.unit_rows, self.unit_rows, precision="highest")
        values, vectors = jnp.linalg.eigh(C)
        free = values <= 1e3 * linalg.machine_epsilon(self.Y.dtype) * jnp.maximum(values[:, -1:], 1)
        projector = jnp.einsum("rak,rk,rbk->rab", vectors, free.astype(self.Y.dtype), vectors, precision="highest")
        inverse = jnp.where(free, 0, 1 / jnp.where(free, 1, values))
        return projector, jnp.einsum("rak,rk,rbk->rab", vectors, inverse, vectors, precision="highest")


def applies(problem: Problem) -> bool:
    """Whether `polish` can work on the problem: one neuron with a kink, l2 norms, equal degrees."""
    phi, theta = problem.phi, problem.theta
    return phi.is_neuron and phi.has_kinks and theta.is_l2 and theta.degree == 2


def _apply(P: Array, w: Array) -> Array:
    """A matrix for each unit, times its vector."""
    return jnp.einsum("rab,rb->ra", P, w, precision="highest")


@partial(jax.jit, static_argnames=("steps",))
def polish(
    problem: Problem, params: Params, X: Inputs, Y: Targets, *, snap: Scalar, steps: int
) -> tuple[Params, Array]:
    """At most `steps` Newton steps from params; the result's objective is never larger, up to its rounding.

    The last steps make the gradient smaller than the objective can tell: its rounding hides gradients below 1e-8 or so,
    but the polar sees them.

    Args:
        problem: a problem for which `applies` is true.
        params: (w1 (r, dx), w2 (r, dy)), balanced; zero subnetworks stay zero.
        X: inputs (m, dx).
        Y: targets (m, dy).
        snap: a kink with ``|x_j . w1| <= snap ||x_j|| ||w1||`` starts on the face if it pulls its unit towards itself.
        steps: the most Newton steps.

    Returns:
        The best weights and the number of steps taken.
    """
    row_norm = jnp.linalg.norm(X, axis=1)
    unit_rows = X / jnp.where(row_norm > 0, row_norm, 1)[:, None]
    start_w1, start_w2 = params
    faces = _Faces(problem, X, Y, row_norm, unit_rows, jnp.any(start_w2 != 0, axis=1))
    w1, S = _snapped(faces, start_w1, start_w2, snap)
    zero = jnp.asarray(0)
    first = _State(w1, start_w2, S, faces.true_value(w1, start_w2), zero, zero, jnp.asarray(False))
    end = jax.lax.while_loop(lambda s: (s.step < steps) & (s.still < 3), partial(_advance, faces), first)
    value = faces.true_value(start_w1, start_w2)
    better = (end.value < value) | (end.beyond & (end.value <= value + faces.rounding(value)))
    w1 = jnp.where(better, end.w1, start_w1)
    w2 = jnp.where(better, end.w2, start_w2)
    return (w1, w2), end.step


def _snapped(faces: _Faces, w1: Array, w2: Array, snap: Scalar) -> tuple[Array, Array]:
    """The patterns to start with: nearby kinks that pull are held, and the first layer is projected onto the face."""
    row_norm = faces.row_norm
    a = matmul(faces.X, w1.T).T
    S = jnp.where(a > 0, 1, -1).astype(jnp.int8)
    reach = snap * row_norm[None, :] * jnp.linalg.norm(w1, axis=1, keepdims=True)
    pulled = faces.pull(S, w1, w2) > 0
    near = (jnp.abs(a) <= reach) & pulled & (row_norm > 0)[None, :] & faces.living[:, None]
    S = jnp.where(near, 0, S).astype(jnp.int8)
    P, _ = faces.projectors(S)
    projected = _apply(P, w1)
    # A face that leaves nothing of a unit would kill it: such a unit starts free.
    lost = jnp.linalg.norm(projected, axis=1) < 0.5 * jnp.linalg.norm(w1, axis=1)
    S = jnp.where(lost[:, None], jnp.where(a > 0, 1, -1), S).astype(jnp.int8)
    return jnp.where(lost[:, None], w1, projected), S


def _advance(faces: _Faces, state: _State) -> _State:
    """One Newton step, after releasing kinks that no longer hold; the objective rises by rounding at most."""
    S = _released(faces, state)
    P, _ = faces.projectors(S)
    d = _newton_direction(faces, S, P, (state.w1, state.w2))
    w1, w2, S, beyond = _moved(faces, state, S, P, d)
    value = faces.true_value(w1, w2)
    gain = value < state.value - faces.rounding(state.value)
    still = jnp.where(gain, 0, state.still + 1)
    return _State(w1, w2, S, value, still, state.step + 1, state.beyond | beyond)


def _released(faces: _Faces, state: _State) -> Array:
    """The patterns without the worst kink of each unit whose multiplier is out of bounds.

    At a stationary point of the face ``dF/dw1 + sum_j lambda_j x_j = 0`` with lambda_j between 0 and c_j.
    """
    w1, w2, S, *_ = state
    living = faces.living
    eps = linalg.machine_epsilon(faces.Y.dtype)
    P, inverse = faces.projectors(S)
    c = faces.pull(S, w1, w2) * faces.row_norm[None, :]
    full, g2 = jax.grad(partial(faces.value, S))((w1, w2))
    multiplier = -matmul(_apply(inverse, full), faces.unit_rows.T)
    size = jnp.abs(c) + eps
    above, below = (multiplier - jnp.maximum(c, 0)) / size, (jnp.minimum(c, 0) - multiplier) / size
    violation = jnp.where((S == 0) & living[:, None], jnp.maximum(above, below), -jnp.inf)
    worst = jnp.argmax(violation, axis=1)
    g2 = jnp.where(living[:, None], g2, 0)
    g_size = jnp.sqrt(jnp.sum(_apply(P, full) ** 2) + jnp.sum(g2 * g2))
    g_scale = faces.lam * jnp.sqrt(jnp.sum(w1 * w1) + jnp.sum(w2 * w2)) + eps
    # Release only near a stationary point of the face, where the multipliers mean something.
    ready = g_size <= 1e-3 * g_scale
    rows = jnp.arange(S.shape[0])
    release = ready & (violation[rows, worst] > 1e-7)
    side = jnp.where(above[rows, worst] > below[rows, worst], 1, -1).astype(S.dtype)
    return jnp.asarray(S).at[rows, worst].set(jnp.where(release, side, S[rows, worst]))


def _along(faces: _Faces, P: Array, v: Params) -> Params:
    """The part of a direction along the face."""
    return _apply(P, v[0]), jnp.where(faces.living[:, None], v[1], 0)


def _newton_direction(faces: _Faces, S: Array, P: Array, w: Params) -> Params:
    """A descent direction on the face: conjugate gradients on its Hessian, cut at negative curvature."""
    project = partial(_along, faces, P)

    def dot(a: Params, b: Params) -> Scalar:
        return jnp.sum(a[0] * b[0]) + jnp.sum(a[1] * b[1])

    def axpy(t: Scalar, a: Params, b: Params) -> Params:
        return jax.tree.map(lambda x, y: t * x + y, a, b)

    lam = faces.lam
    full, hvp = jax.linearize(jax.grad(partial(faces.value, S)), w)
    g = project(full)
    size = dot(g, g)
    # Superlinear forcing: solve the system more sharply the smaller the gradient is.
    eps = linalg.machine_epsilon(lam.dtype)
    target = size * jnp.minimum(1e-4, jnp.sqrt(size) / (lam * jnp.sqrt(dot(w, w)) + eps)) ** 2

    def go_on(c: Any) -> jax.Array:
        _, _, _, rr, k, bad = c
        return (rr > target) & (k < 300) & ~bad

    def iterate(c: Any) -> Any:
        x, r, d, rr, k, _ = c
        Hd = project(hvp(d))
        curvature = dot(d, Hd)
        bad = curvature <= 1e-14 * dot(d, d) * lam
        t = jnp.where(bad, 0, rr / jnp.where(bad, 1, curvature))
        # Negative curvature at the first step: take the gradient; later: what has been built so far.
        x = jax.tree.map(lambda a, b: jnp.where(bad & (k == 0), b, a), axpy(t, d, x), d)
        r = axpy(-t, Hd, r)
        new = dot(r, r)
        d = axpy(new / jnp.where(rr > 0, rr, 1), d, r)
        return x, r, d, new, k + 1, bad

    zero = jax.tree.map(jnp.zeros_like, w)
    minus = jax.tree.map(jnp.negative, g)
    x, *_ = jax.lax.while_loop(go_on, iterate, (zero, minus, minus, size, jnp.asarray(0), jnp.asarray(False)))
    return x


def _moved(faces: _Faces, state: _State, S: Array, P: Array, d: Params) -> tuple[Array, Array, Array, Array]:
    """The best point of the true objective along d, at kinks that it crosses too, and the pattern there.

    Where no point along d gains more than rounding, the end of d is the best one if the gradient is smaller there.
    The last result tells whether it was so.
    """
    w1, w2, living = state.w1, state.w2, faces.living
    dtype = faces.Y.dtype
    # Where the step would cross kinks: the nearest ones are candidates for landing.
    a, da = matmul(faces.X, w1.T).T, matmul(faces.X, d[0].T).T
    crossing = jnp.where((S != 0) & (a * da < 0) & living[:, None], -a / jnp.where(da == 0, 1, da), jnp.inf)
    nearest, index = jax.lax.top_k(-crossing.ravel(), min(16, crossing.size))
    nearest = -nearest
    lengths = jnp.asarray(0.5, dtype) ** jnp.arange(14, dtype=dtype)
    ts = jnp.concatenate([lengths, jnp.where(nearest <= 1, nearest, 0)])
    values = jax.lax.map(lambda t: faces.true_value(w1 + t * d[0], w2 + t * d[1]), ts)
    best = jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))
    improved = values[best] < state.value
    rounding = faces.rounding(state.value)
    level = (values[best] >= state.value - rounding) & (values[0] <= state.value + rounding) & (nearest[0] > 1)
    before, after = (
        optax.tree.norm(_along(faces, P, jax.grad(partial(faces.value, S))(w)))
        for w in ((w1, w2), (w1 + d[0], w2 + d[1]))
    )
    beyond = level & (after < 0.5 * before)
    landing = (best >= len(lengths)) & improved & ~beyond
    t = jnp.where(beyond, 1, jnp.where(improved, ts[best], 0))
    w1, w2 = jnp.asarray(w1 + t * d[0]), w2 + t * d[1]
    w1, S = _landed(faces, w1, S, index[jnp.maximum(best - len(lengths), 0)], landing)
    return w1, w2, S, beyond


def _landed(faces: _Faces, w1: Array, S: Array, hit: Array, landing: Array) -> tuple[Array, Array]:
    """A kink hit exactly joins the face; other signs follow the new pre-activations."""
    unit, sample = hit // S.shape[1], hit % S.shape[1]
    a = matmul(faces.X, w1.T).T
    eps = linalg.machine_epsilon(w1.dtype)
    edge = 4 * eps * faces.row_norm[None, :] * jnp.linalg.norm(w1, axis=1, keepdims=True)
    signs = jnp.where(jnp.abs(a) > edge, jnp.sign(a).astype(S.dtype), S)
    S = jnp.where(S == 0, S, signs)
    S = S.at[unit, sample].set(jnp.where(landing, 0, S[unit, sample]))
    # What rounding leaves of x_j . w1 goes, so that the activation there is exactly the kink's.
    rest = jnp.where(landing, jnp.sum(faces.unit_rows[sample] * w1[unit]), 0)
    w1 = jnp.asarray(w1).at[unit].add(-rest * faces.unit_rows[sample])
    return w1, S
