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

from globopt_jax.homogeneous.maps import Neuron
from globopt_jax.homogeneous.problem import Problem, objective
from globopt_jax.homogeneous.regularizers import ProductOfNorms, SumOfPowers
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets

__all__ = ["applies", "polish"]


class _State(NamedTuple):
    w1: Array
    w2: Array
    S: Array
    value: Scalar
    still: Scalar
    step: Scalar


def applies(problem: Problem) -> bool:
    """Whether `polish` can work on the problem: one neuron with a kink, l2 norms, matched degrees."""
    phi, theta = problem.phi, problem.theta
    if not isinstance(phi, Neuron) or phi.slopes[0] == phi.slopes[1]:
        return False
    if isinstance(theta, SumOfPowers) and theta.power != 2:
        return False
    return isinstance(theta, SumOfPowers | ProductOfNorms) and theta.norms in ("l2", ("l2", "l2"))


def _mm(a: Array, b: Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


@partial(jax.jit, static_argnames=("steps",))
def polish(
    problem: Problem, params: Params, X: Inputs, Y: Targets, *, snap: Scalar, steps: int
) -> tuple[Params, Array]:
    """At most `steps` Newton steps from params; the result's objective is never larger.

    Args:
        problem: one that `applies`.
        params: (w1 (r, dx), w2 (r, dy)), balanced; zero subnetworks stay zero.
        X, Y: data.
        snap: kinks with ``|x_j . w1| <= snap ||x_j|| ||w1||`` that pull towards themselves start on the face.
        steps: the most Newton steps.

    Returns:
        The best weights and the number of steps taken.
    """
    negative, positive = problem.phi.slopes  # pyright: ignore[reportAttributeAccessIssue]
    kappa = positive - negative
    dtype = Y.dtype
    eps = jnp.finfo(dtype).eps
    lam = jnp.asarray(problem.lam, dtype)
    row_norm = jnp.linalg.norm(X, axis=1)
    unit_rows = X / jnp.where(row_norm > 0, row_norm, 1)[:, None]
    start_w1, start_w2 = params
    living = jnp.any(start_w2 != 0, axis=1)

    def true_value(w1: Array, w2: Array) -> Scalar:
        return objective(problem, (w1, w2), X, Y)

    def pull(S: Array, w1: Array, w2: Array) -> Array:
        """c_ij = kappa <G_j, w2_i>: > 0 where the kink of sample j draws unit i towards itself."""
        Z = _mm(jnp.where(S > 0, positive, negative).T * _mm(X, w1.T), w2)
        return kappa * _mm(problem.loss.gradient(Z, Y), w2.T).T

    def on_face(S: Array) -> tuple[Array, Array]:
        """Projectors (r, dx, dx) onto the faces, and pseudo-inverses of sum over the face of x_j x_j^T (unit rows)."""
        held = (S == 0).astype(dtype)
        C = jnp.einsum("rm,ma,mb->rab", held, unit_rows, unit_rows, precision="highest")
        values, vectors = jnp.linalg.eigh(C)
        free = values <= 1e3 * eps * jnp.maximum(values[:, -1:], 1)
        projector = jnp.einsum("rak,rk,rbk->rab", vectors, free.astype(dtype), vectors, precision="highest")
        inverse = jnp.where(free, 0, 1 / jnp.where(free, 1, values))
        return projector, jnp.einsum("rak,rk,rbk->rab", vectors, inverse, vectors, precision="highest")

    def apply(P: Array, w: Array) -> Array:
        return jnp.einsum("rab,rb->ra", P, w, precision="highest")

    def face_value(S: Array, w: Params) -> Scalar:
        w1, w2 = w
        D = jnp.where(S > 0, positive, negative).astype(dtype)
        Z = _mm(D.T * _mm(X, w1.T), w2)
        return problem.loss(Z, Y) + lam / 2 * (jnp.sum(w1 * w1) + jnp.sum(w2 * w2))

    def newton_direction(S: Array, P: Array, w: Params) -> Params:
        """A descent direction on the face: CG on its Hessian, cut at negative curvature."""

        def project(v: Params) -> Params:
            return apply(P, v[0]), jnp.where(living[:, None], v[1], 0)

        gradient = jax.grad(partial(face_value, S))
        full, hvp = jax.linearize(gradient, w)
        g = project(full)

        def dot(a: Params, b: Params) -> Scalar:
            return jnp.sum(a[0] * b[0]) + jnp.sum(a[1] * b[1])

        def axpy(t: Scalar, a: Params, b: Params) -> Params:
            return jax.tree.map(lambda x, y: t * x + y, a, b)

        size = dot(g, g)
        # Superlinear forcing: solve the system more sharply the smaller the gradient is.
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

    lengths = jnp.asarray(0.5, dtype) ** jnp.arange(14, dtype=dtype)

    def step(state: _State) -> _State:
        w1, w2, S = state.w1, state.w2, state.S
        P, inverse = on_face(S)
        # The multipliers at this point: dF/dw1 + sum_j lambda_j x_j = 0 with lambda_j between 0 and c_j.
        c = pull(S, w1, w2) * row_norm[None, :]
        full, g2 = jax.grad(partial(face_value, S))((w1, w2))
        multiplier = -_mm(apply(inverse, full), unit_rows.T)
        held = S == 0
        size = jnp.abs(c) + eps
        above, below = (multiplier - jnp.maximum(c, 0)) / size, (jnp.minimum(c, 0) - multiplier) / size
        violation = jnp.where(held & living[:, None], jnp.maximum(above, below), -jnp.inf)
        worst = jnp.argmax(violation, axis=1)
        g2 = jnp.where(living[:, None], g2, 0)
        g_size = jnp.sqrt(jnp.sum(apply(P, full) ** 2) + jnp.sum(g2 * g2))
        g_scale = lam * jnp.sqrt(jnp.sum(w1 * w1) + jnp.sum(w2 * w2)) + eps
        # Release only near a stationary point of the face, where the multipliers mean something.
        ready = g_size <= 1e-3 * g_scale
        rows = jnp.arange(S.shape[0])
        release = ready & (violation[rows, worst] > 1e-7)
        side = jnp.where(above[rows, worst] > below[rows, worst], 1, -1).astype(S.dtype)
        S = jnp.asarray(S).at[rows, worst].set(jnp.where(release, side, S[rows, worst]))
        P, _ = on_face(S)
        d = newton_direction(S, P, (w1, w2))
        # Where the step would cross kinks: the nearest ones are candidates for landing.
        a, da = _mm(X, w1.T).T, _mm(X, d[0].T).T
        crossing = jnp.where((S != 0) & (a * da < 0) & living[:, None], -a / jnp.where(da == 0, 1, da), jnp.inf)
        nearest, index = jax.lax.top_k(-crossing.ravel(), min(16, crossing.size))
        nearest = -nearest
        reachable = nearest <= 1
        ts = jnp.concatenate([lengths, jnp.where(reachable, nearest, 0)])
        values = jax.lax.map(lambda t: true_value(w1 + t * d[0], w2 + t * d[1]), ts)
        best = jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))
        t, value = ts[best], values[best]
        improved = value < state.value
        landing = (best >= len(lengths)) & improved
        t = jnp.where(improved, t, 0)
        w1, w2 = jnp.asarray(w1 + t * d[0]), w2 + t * d[1]
        # A kink hit exactly joins the face; other signs follow the new pre-activations.
        hit = index[jnp.maximum(best - len(lengths), 0)]
        unit, sample = hit // S.shape[1], hit % S.shape[1]
        a = _mm(X, w1.T).T
        edge = 4 * eps * row_norm[None, :] * jnp.linalg.norm(w1, axis=1, keepdims=True)
        signs = jnp.where(jnp.abs(a) > edge, jnp.sign(a).astype(S.dtype), S)
        S = jnp.where(S == 0, S, signs)
        S = S.at[unit, sample].set(jnp.where(landing, 0, S[unit, sample]))
        # What rounding leaves of x_j . w1 goes, so that the activation there is exactly the kink's.
        rest = jnp.where(landing, jnp.sum(unit_rows[sample] * w1[unit]), 0)
        w1 = jnp.asarray(w1).at[unit].add(-rest * unit_rows[sample])
        value = true_value(w1, w2)
        gain = value < state.value - 4 * eps * jnp.abs(state.value)
        still = jnp.where(gain | jnp.any(release), 0, state.still + 1)
        still = jnp.where(jnp.any(release) & ~gain, state.still + 1, still)
        return _State(w1, w2, S, value, still, state.step + 1)

    a = _mm(X, start_w1.T).T
    S = jnp.where(a > 0, 1, -1).astype(jnp.int8)
    reach = snap * row_norm[None, :] * jnp.linalg.norm(start_w1, axis=1, keepdims=True)
    near = (jnp.abs(a) <= reach) & (pull(S, start_w1, start_w2) > 0) & (row_norm > 0)[None, :] & living[:, None]
    S = jnp.where(near, 0, S).astype(jnp.int8)
    P, _ = on_face(S)
    projected = apply(P, start_w1)
    # A face that leaves nothing of a unit would kill it: such a unit starts free.
    lost = jnp.linalg.norm(projected, axis=1) < 0.5 * jnp.linalg.norm(start_w1, axis=1)
    S = jnp.where(lost[:, None], jnp.where(a > 0, 1, -1), S).astype(jnp.int8)
    w1 = jnp.where(lost[:, None], start_w1, projected)
    first = _State(w1, start_w2, S, true_value(w1, start_w2), jnp.asarray(0), jnp.asarray(0))
    end = jax.lax.while_loop(lambda s: (s.step < steps) & (s.still < 3), step, first)
    better = end.value < true_value(start_w1, start_w2)
    w1 = jnp.where(better, end.w1, start_w1)
    w2 = jnp.where(better, end.w2, start_w2)
    return (w1, w2), end.step
