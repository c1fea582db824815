"""The certified gap (YSJ18 Prop 3.4, 3.5, generalized) is never below the truth, and gets small where it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear, linalg
from tests.deep_linear import instances
from tests.precision import slow_in_float32

bounds = jax.jit(jax.vmap(deep_linear.gap_bounds, (0, None, None)))


def points(p, count, seed):
    """Random networks of all sizes, near zero, near a global minimum, and with a vanishing singular value."""
    rng = np.random.default_rng([3, seed])
    W = instances.weights(p, seed, count=count)
    best = deep_linear.factors(deep_linear.global_minimum(p.X, p.Y, p.k).map, p.widths)
    for i in range(count):
        if i % 4 == 1:
            scale = 10 ** rng.uniform(-4, 1)
            for w in W:
                w[i] *= scale
        if i % 4 == 2:
            noise = 10 ** rng.uniform(-9, 0)
            for l, w in enumerate(W):
                w[i] = np.asarray(best[l]) + noise * w[i]
        if i % 4 == 3:
            l = int(rng.integers(len(W)))
            U, s, Vt = np.linalg.svd(W[l][i], full_matrices=False)
            s[-1] *= 10 ** rng.uniform(-12, 0)
            W[l][i] = (U * s) @ Vt
    return W


def gaps(W, p):
    """loss - optimum of stacked networks, in NumPy; the unexplained part, common to both, is never added."""
    truth = instances.truth(p.X, p.Y, p.k)
    Z = np.broadcast_to(p.X, (len(W[0]), *p.X.shape))
    for w in W:
        Z = Z @ np.asarray(w, np.float64)
    return 0.5 * np.sum((Z - truth.fitted) ** 2, axis=(1, 2)) - 0.5 * np.sum(truth.s[p.k :] ** 2)


def assert_no_violation(p, seed, dtype, count):
    W = [jnp.asarray(w, dtype) for w in points(p, count, seed)]
    X, Y = jnp.asarray(p.X, dtype), jnp.asarray(p.Y, dtype)
    stored = p._replace(X=np.asarray(X, np.float64), Y=np.asarray(Y, np.float64))
    found, gap = bounds(W, X, Y), gaps(W, stored)
    assert np.all(np.asarray(found.best) >= gap), np.min(np.asarray(found.best) - gap)
    for each in (*np.asarray(found.layers).T, found.first, found.last):
        assert np.all(np.asarray(each) >= gap)
    # The leading direction alone proves the gap plus what the residual is, wherever the point lies.
    residual = gap + 0.5 * np.sum(instances.truth(stored.X, stored.Y, p.k).s[p.k :] ** 2)
    assert np.all(np.asarray(found.best) <= 1.01 * (gap + residual) + 10 * np.asarray(found.margin))
    return found, gap


@slow_in_float32
@pytest.mark.parametrize("seed", instances.PROFILES)
def test_the_bound_is_never_below_the_gap(seed, dtype):
    """200 points a profile: 10,000 in the slow set."""
    found, _ = assert_no_violation(instances.profile(seed), seed, dtype, 200)
    assert np.all(np.isfinite(found.best))


def test_near_a_saddle_the_bound_is_nearly_the_gap():
    """Two of four directions kept: what the products hardly reach is left as it is, however little that is."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(100, 5)), rng.normal(size=(100, 4))
    W = deep_linear.critical_point(X, Y, (5, 6, 3, 4), indices=(0, 2), key=jax.random.key(0))
    for noise in (1e-12, 1e-8, 1e-7, 1e-6, 1e-4, 1e-2):
        near = [w * (1 + noise * rng.normal(size=w.shape)) for w in W]
        gap = float(deep_linear.classify(near, X, Y).gap)
        assert gap <= float(deep_linear.suboptimality_bound(near, X, Y)) <= 1.05 * gap, noise


def test_taking_the_last_singular_value_would_be_caught():
    """With dx > rank or d_l > dy the last singular values are not the ones of the theorem: a false bound, seen here.

    The widths narrow down to one unit and X is wide: sigma_min of the (1, dy) suffix is not zero, sigma_dy is.
    """
    p = instances.Profile((4, 1, 4), *np.split(np.random.default_rng(0).normal(size=(40, 4)), 2))
    W = points(p, 200, 0)
    gap = gaps(W, p)
    false = np.array(
        [
            np.sum(np.square(np.asarray(g[0])))
            / (2 * (np.linalg.svd(p.X)[1][-1] * np.linalg.svd(w[1], compute_uv=False)[-1]) ** 2)
            for w in zip(*W, strict=True)
            for g in [deep_linear.gradients(list(w), p.X, p.Y)]
        ]
    )
    assert np.any(false < gap * (1 - 1e-6))
    assert np.all(np.asarray(bounds(W, p.X, p.Y).best) >= gap)


def train(p, seed, scale=1.0):
    """scipy's L-BFGS from random weights; the start and the end.

    It takes thousands of steps along some plateaus, and stops there before the gradient is small; Newton's steps go on.
    """
    from scipy.optimize import minimize

    shapes = [w.shape for w in instances.weights(p)]
    cuts = np.cumsum([a * b for a, b in shapes])[:-1]

    def unravel(v):
        return [jnp.asarray(part.reshape(s)) for part, s in zip(jnp.split(v, cuts), shapes, strict=True)]

    value = jax.jit(lambda v: (deep_linear.loss(unravel(v), p.X, p.Y), deep_linear.gradients(unravel(v), p.X, p.Y)))

    def flat(v):
        loss, grads = value(v)
        return float(loss), np.concatenate([np.ravel(g) for g in grads])

    start = np.concatenate([scale * np.ravel(w) for w in instances.weights(p, seed)])
    end = minimize(flat, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 0, "gtol": 1e-11})
    if np.linalg.norm(end.jac) > 1e-3:
        hessian = jax.jit(jax.hessian(lambda v: deep_linear.loss(unravel(v), p.X, p.Y)))
        end = minimize(
            flat, end.x, jac=True, hess=hessian, method="trust-exact", options={"maxiter": 200, "gtol": 1e-6}
        )
    return unravel(start), unravel(end.x)


ENDS = [(4, 4, 1, 4), *(pytest.param(w, marks=pytest.mark.slow) for w in ((5, 6, 4), (4, 6, 5, 5), (6, 2, 4, 5)))]


@pytest.mark.parametrize("widths", ENDS)
def test_the_bound_ends_near_zero_when_training_converges(widths):
    """Below 1e-6 of the initial loss, with and without a bottleneck."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, widths[0]))
    p = instances.Profile(widths, X, X @ rng.normal(size=(widths[0], widths[-1])) + rng.normal(size=(40, widths[-1])))
    start, end = train(p, 0)
    assert float(deep_linear.suboptimality_bound(end, p.X, p.Y)) <= 1e-6 * float(deep_linear.loss(start, p.X, p.Y))
    assert deep_linear.classify(end, p.X, p.Y).kind == "global_minimum"


@pytest.mark.parametrize("seed", instances.PROFILES)
def test_every_local_minimum_that_descent_finds_is_global(seed):
    """K18 Theorems 2.1 to 2.3 (Lu & Kawaguchi): from random starts, three a profile."""
    p = instances.profile(seed)
    truth = instances.truth(p.X, p.Y, p.k)
    for start in range(3):
        _, end = train(p, start)
        found = deep_linear.classify(end, p.X, p.Y)
        assert found.kind == "global_minimum", (start, found.reason)
        assert abs(float(found.loss) - truth.optimum) <= 1e-6 * (1 + truth.optimum)
        # The map is a local minimum of the relaxed problem, which is a global one.
        relaxed = float(deep_linear.relaxed_loss(deep_linear.product(end), p.X, p.Y))
        assert abs(relaxed - truth.optimum) <= 1e-6 * (1 + truth.optimum)


def test_where_nothing_can_be_said_the_bound_is_infinite_or_true(dtype):
    X, Y = jnp.eye(3, dtype=dtype), jnp.diag(jnp.asarray([3.0, 2.0, 1.0], dtype))
    zero = [jnp.zeros((3, 3), dtype), jnp.zeros((3, 3), dtype)]
    found = deep_linear.gap_bounds(zero, X, Y)
    assert np.all(np.asarray(found.layers) == np.inf)
    assert 7 <= float(found.best) <= 7.001  # nothing is reached, so that all that the fit explains is the gap
    nothing = deep_linear.gap_bounds(zero, 0 * X, Y)
    assert 0 <= float(nothing.best) <= 1e-4, "X = 0: the loss is constant"
    assert float(nothing.best) == float(nothing.margin)


def test_the_margin_is_of_the_size_of_rounding(dtype):
    p = instances.profile(3)
    W = [jnp.asarray(w, dtype) for w in instances.weights(p)]
    X, Y = jnp.asarray(p.X, dtype), jnp.asarray(p.Y, dtype)
    margin = float(deep_linear.gap_bounds(W, X, Y).margin)
    size = np.sum(p.Y**2) + np.sum((p.X @ np.linalg.multi_dot(instances.weights(p))) ** 2)
    assert 0 < margin < 1000 * linalg.machine_epsilon(dtype) * size


def test_many_samples_of_one_value(dtype):
    """A column of constants, where rounding does not average out and the bound of one weight is tight."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        m = int(rng.choice([1_000, 30_000]))
        X = np.full((m, 1), rng.uniform(0.1, 2), dtype)
        Y = np.asarray(X * rng.uniform(0.1, 3), dtype)
        w = np.asarray(rng.uniform(-1, 1, size=(1, 1)), dtype)
        x, y = np.asarray(X, np.longdouble), np.asarray(Y, np.longdouble)
        gap = 0.5 * np.sum(x * (x * np.longdouble(w[0, 0]) - y)) ** 2 / np.sum(x * x)
        found = deep_linear.classify([w], X, Y)
        assert float(found.gap_bound) >= gap
        assert abs(float(found.gap) - gap) <= float(found.rounding)
