"""The best output weights of fixed first-layer directions: a group lasso, solved to the last digits.

With unit directions d_i, ``h_i = act(X d_i)`` and ``v_i = ||w1_i|| w2_i`` the objective of a two-layer problem with l2
norms is at least, and for balanced subnetworks equal to, the convex

    F(v) = loss(sum_i h_i v_i^T, Y) + lam sum_i ||v_i||.

A descent lowers the objective until rounding hides further gains. If the objective is known to 1e-12, the weights are
then stationary only to 1e-6, and a certificate rests on how stationary they are. The solver here judges every step by
gradients, so the first-order conditions hold to the precision of the dtype.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from globopt_jax import linalg
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.homogeneous.training import active_set
from globopt_jax.linalg import matmul
from globopt_jax.losses import Loss
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets

__all__ = ["applies", "fit"]

#: `fit` solves dense equations: the most output weights r dy, and the most work m (r dy)^2 of one Newton step.
WEIGHTS, WORK = 1024, 5e8


class _State(NamedTuple):
    """Rows v, their dual w (``||w_i|| <= 1``, at the end v_i / ||v_i||), and the rounding mu of the norm.

    ``best``: the rows with the smallest ``residual`` of the exact first-order conditions so far. ``step``: the number
    of steps. ``exact``: the number of steps with mu = 0.
    """

    v: Array
    w: Array
    mu: Scalar
    best: Array
    residual: Scalar
    step: Scalar
    exact: Scalar


class _Lasso(NamedTuple):
    """The convex problem: features (m, r) of unit directions, their squared lengths (r,), and rows that can matter."""

    features: Array
    square: Array
    able: Array
    Y: Targets
    lam: Scalar
    loss: Loss

    def gradient(self, v: Array) -> Array:
        """The gradient of the loss in v, (r, dy)."""
        return matmul(self.features.T, self.loss.gradient(matmul(self.features, v), self.Y))


def _unit_and_size(v: Array) -> tuple[Array, Array]:
    """``v / ||v||`` and ``||v||`` of every row, zeros where the row is zero."""
    square = jnp.sum(v * v, axis=1, keepdims=True)
    size = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return v / jnp.where(size > 0, size, 1), size


def _norm(v: Array, mu: Scalar) -> Array:
    """The rounded norm ``sqrt(||v_i||^2 + mu^2)`` of every row, (r, 1)."""
    return jnp.sqrt(jnp.sum(v * v, axis=1, keepdims=True) + mu * mu)


def applies(problem: Problem, params: Params, X: Inputs) -> bool:
    """Whether `fit` can work on the problem: `active_set.applies`, and few enough weights for dense equations."""
    weights = params[1].size if active_set.applies(problem) else WEIGHTS + 1
    return weights <= WEIGHTS and len(X) * weights**2 <= WORK


@partial(jax.jit, static_argnames=("steps",))
def fit(problem: Problem, params: Params, X: Inputs, Y: Targets, *, steps: int = 60) -> Params:
    """Minimize F over v by a primal-dual Newton method, then exactly: which rows are zero, and the others' equations.

    The norm is rounded to ``sqrt(||v||^2 + mu^2)``, and mu shrinks with the steps. The derivative ``w = v / sqrt(...)``
    of the rounded norm is an unknown of its own (Chan, Golub and Mulet 1999), which keeps Newton's method from
    stalling at rows that become zero.

    Args:
        problem: one neuron with l2 norms (`active_set.applies`).
        params: (w1 (r, dx), w2 (r, dy)). A zero w1 stays zero; a zero w2 may become non-zero if its w1 is not zero.
        X: inputs (m, dx).
        Y: targets (m, dy).
        steps: the most Newton steps with a rounded norm.

    Returns:
        Balanced subnetworks with the same directions, ``||w1_i|| = ||w2_i|| = ||v_i||^{1/2}``; zeros where F wants
        none.

    >>> from globopt_jax import homogeneous, losses
    >>> p = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 1.0)
    >>> w1, Y = jnp.eye(2), jnp.array([[3.0, 4.0], [0.3, 0.4]])  # one sample for each neuron: soft thresholds
    >>> v1, v2 = fit(p, (w1, jnp.ones((2, 2))), jnp.eye(2), Y)
    >>> [f"{a:.3f}" for a in jnp.matmul(v1.T, v2).ravel()]  # (1 - lam / 5) (3, 4), and zero, since 0.5 < lam
    ['2.400', '3.200', '0.000', '0.000']
    """
    w1, w2 = params
    dtype = Y.dtype
    directions, size = _unit_and_size(w1)
    features = jax.vmap(lambda d: problem.phi((d, jnp.ones(1, dtype)), X)[:, 0], out_axes=1)(directions)
    square = jnp.sum(features * features, axis=0)
    able = (square > 0)[:, None]
    lasso = _Lasso(features, square, able, Y, jnp.asarray(problem.lam, dtype), problem.loss)
    v = jnp.where(able, w2 * size, 0)
    unit, length = _unit_and_size(_solved(lasso, v, steps))
    root = jnp.sqrt(length)
    return directions * root, unit * root


def _solved(lasso: _Lasso, v: Array, steps: int) -> Array:
    """The rows with the smallest residual on the way from v: with a shrinking mu first, then with mu = 0."""
    zero, eps = jnp.zeros((), v.dtype), linalg.machine_epsilon(v.dtype)
    top = jnp.maximum(jnp.max(_norm(v, zero)), eps)
    first = _residual(lasso, v)
    mu = top * jnp.clip(first / lasso.lam, eps**0.5, 0.1)  # little to do from weights that are nearly optimal
    begin = _State(v, v / _norm(v, mu), mu, v, first, jnp.asarray(0), jnp.asarray(0))
    # The rounding error of h_i^T G: the prediction is about as large as the loss's gradient at zero.
    G0 = lasso.loss.gradient(jnp.zeros_like(lasso.Y), lasso.Y)
    floor = eps * (10 * lasso.lam + jnp.sqrt(jnp.max(lasso.square) * jnp.sum(G0 * G0)))
    advance = partial(_advance, lasso, top, steps)
    return jax.lax.while_loop(lambda s: (s.exact < 30) & (s.residual > floor), advance, begin).best


def _advance(lasso: _Lasso, top: Scalar, steps: int, s: _State) -> _State:
    """One step. With mu = 0 the sweep decides which rows are zero, and Newton's method solves for the others."""
    zero, tiny = jnp.zeros((), s.v.dtype), linalg.smallest_normal(s.v.dtype)
    eps = linalg.machine_epsilon(s.v.dtype)
    # The rounded norm leaves small values in rows that should be zero: zero them first. If that was wrong for a row, a
    # sweep lets the row in again.
    exact = s.mu == 0
    v = jnp.where(exact & (s.exact == 0) & (_norm(s.v, zero) < eps**0.375 * top), 0, s.v)
    v = jax.lax.cond(exact, partial(_sweep, lasso), lambda v: v, v)
    unit, length = _unit_and_size(v)
    v, w = _newton(lasso, v, jnp.where(exact, unit, s.w), s.mu, jnp.where(exact, length > 0, lasso.able))
    slope = lasso.gradient(v) + lasso.lam * v / jnp.maximum(_norm(v, s.mu), tiny)
    settled = jnp.max(jnp.abs(jnp.where(lasso.able, slope, 0))) < 0.1 * lasso.lam
    mu = jnp.where(settled, 0.3 * s.mu, s.mu)
    now = _residual(lasso, v)
    better = now < s.residual
    return _State(
        v,
        w,
        jnp.where((mu > 1e3 * eps * top) & (s.step < steps), mu, 0),
        jnp.where(better, v, s.best),
        jnp.minimum(now, s.residual),
        s.step + 1,
        jnp.where(exact, s.exact + 1, s.exact),
    )


def _newton(lasso: _Lasso, v: Array, w: Array, mu: Scalar, active: Array) -> tuple[Array, Array]:
    """A step in the active rows, as far as the rounded F goes down along it."""
    H = jnp.where(active.T, lasso.features, 0)
    n = jnp.where(active, _norm(v, mu), 1)
    Z = matmul(H, v)
    g = matmul(H.T, lasso.loss.gradient(Z, lasso.Y)) + lasso.lam * v / n
    step = -jax.scipy.linalg.solve(_hessian(lasso, H, Z, v, w, n), g.ravel(), assume_a="pos").reshape(v.shape)
    step = jnp.where(active & jnp.all(jnp.isfinite(step)), step, 0)
    dw = (v + step - w * jnp.sum(v * step, axis=1, keepdims=True) / n) / n - w
    t = _length(lasso, v, step, Z, matmul(H, step), mu, active)
    w = w + dw
    return v + t * step, w / jnp.maximum(_norm(w, jnp.zeros((), v.dtype)), 1)


def _hessian(lasso: _Lasso, H: Array, Z: Targets, v: Array, w: Array, n: Array) -> Array:
    """The matrix (r dy, r dy) of the primal-dual equations, with a ridge: directions may be nearly parallel."""
    r, dy = v.shape
    eps = linalg.machine_epsilon(v.dtype)
    eye, index = jnp.eye(dy, dtype=v.dtype), jnp.arange(r)
    W = jax.vmap(jax.jacfwd(lambda z, y: lasso.loss.gradient(z[None], y[None])[0]))(Z, lasso.Y)  # (m, dy, dy)
    weighted = (H[:, :, None, None] * W[:, None]).reshape(len(Z), -1)
    fit = matmul(weighted.T, H).reshape(r, dy, dy, r)
    outer = w[:, :, None] * (v / n)[:, None, :]
    bend = (lasso.lam / n)[:, :, None] * (eye[None] - (outer + outer.transpose(0, 2, 1)) / 2)
    hessian = fit.transpose(0, 1, 3, 2).at[index, :, index, :].add(bend).reshape(r * dy, r * dy)
    ridge = 10 * r * dy * eps * jnp.max(lasso.square)
    return hessian + ridge * jnp.eye(r * dy, dtype=v.dtype)


def _length(lasso: _Lasso, v: Array, step: Array, Z: Targets, dZ: Targets, mu: Scalar, active: Array) -> Scalar:
    """1 if the rounded F still goes down there or nearly so; else where its slope along the step vanishes."""
    zero, one = jnp.zeros((), v.dtype), jnp.ones((), v.dtype)

    def slope(t: Scalar) -> Scalar:
        to = v + t * step
        length = jnp.where(active, _norm(to, mu), 1)
        return jnp.sum(lasso.loss.gradient(Z + t * dZ, lasso.Y) * dZ) + lasso.lam * jnp.sum(to * step / length)

    def halve(_: Array, ends: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        low, high = ends
        middle = (low + high) / 2
        down = slope(middle) <= 0
        return jnp.where(down, middle, low), jnp.where(down, high, middle)

    whole = slope(one) <= 0.1 * jnp.abs(slope(zero))
    return jax.lax.cond(whole, lambda: (one, one), lambda: jax.lax.fori_loop(0, 10, halve, (zero, one)))[0]


def _sweep(lasso: _Lasso, v: Array) -> Array:
    """One proximal step a row. No loss has a curvature above 1, so F never goes up; zeros come out exact."""

    def row(Z: Array, of: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        h, old, L = of
        unit, length = _unit_and_size((old - matmul(h, lasso.loss.gradient(Z, lasso.Y)) / L)[None])
        new = (jnp.maximum(length - lasso.lam / L, 0) * unit)[0]
        return Z + h[:, None] * (new - old)[None, :], new

    curvature = jnp.where(lasso.able[:, 0], lasso.square, 1)
    return jax.lax.scan(row, matmul(lasso.features, v), (lasso.features.T, v, curvature))[1]


def _residual(lasso: _Lasso, v: Array) -> Scalar:
    """How far the first-order conditions are from holding: lam v / ||v|| = -g, or ||g|| <= lam where v = 0."""
    zero, g = jnp.zeros((), v.dtype), lasso.gradient(v)
    unit, length = _unit_and_size(v)
    off = jnp.where(length > 0, _norm(g + lasso.lam * unit, zero), jnp.maximum(_norm(g, zero) - lasso.lam, 0))
    return jnp.max(jnp.where(lasso.able, off, 0))
