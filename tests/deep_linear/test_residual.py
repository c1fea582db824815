"""Linear residual networks (YSJ18 Cor 2.3, Hardt & Ma), and matrix factorization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear

D, LAYERS = 4, 3


def instance(seed, spread=0.2, count=None):
    rng = np.random.default_rng([13, seed])
    lead = () if count is None else (count,)
    W = [spread * rng.normal(size=(*lead, D, D)) for _ in range(LAYERS)]
    root = rng.normal(size=(D, D))
    return W, rng.normal(size=(D, D)), root.T @ root + 0.1 * np.eye(D)


def risk(W, R, covariance):
    """Straight from the definition."""
    M = jnp.eye(D)
    for w in W:
        M = M @ (jnp.eye(D) + w)
    return 0.5 * jnp.trace((M - R).T @ covariance @ (M - R))


def test_risk_and_gradients(dtype):
    W, R, covariance = (jax.tree.map(lambda a: jnp.asarray(a, dtype), x) for x in instance(0))
    noise = jnp.eye(D, dtype=dtype)
    tolerance = 1e-10 if dtype == jnp.float64 else 1e-4
    found = deep_linear.residual_risk(W, R, covariance, noise)
    with jax.enable_x64(dtype == jnp.float64):
        wanted, grads = jax.value_and_grad(lambda w: risk(w, R.astype(dtype), covariance) + D / 2)(W)
    np.testing.assert_allclose(found, wanted, rtol=tolerance)
    for a, b in zip(deep_linear.residual_gradients(W, R, covariance), grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * 10)


def test_the_population_risk_is_that_of_many_samples():
    W, R, covariance = instance(1)
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal(np.zeros(D), covariance, size=400_000)
    y = x @ R + rng.normal(size=x.shape)
    M = np.linalg.multi_dot([np.eye(D) + w for w in W])
    sampled = 0.5 * np.mean(np.sum((x @ M - y) ** 2, axis=1))
    np.testing.assert_allclose(deep_linear.residual_risk(W, R, covariance, np.eye(D)), sampled, rtol=0.02)


@pytest.mark.parametrize("spread", [0.01, 0.1, 0.3, 1.0])
def test_the_bound_is_never_below_the_gap(spread):
    W, R, covariance = instance(2, spread, count=500)
    found = jax.jit(jax.vmap(deep_linear.residual_gap, (0, None, None)))(W, R, covariance)
    gap = np.array([float(risk(w, R, covariance)) for w in zip(*W, strict=True)])
    assert np.all(np.asarray(found.bound) >= gap)
    norms = np.array([[np.linalg.norm(v, 2) for v in w] for w in zip(*W, strict=True)])
    np.testing.assert_allclose(found.norms, norms, rtol=1e-9)
    assert np.all(np.asarray(found.inside) == np.all(norms < 1, axis=1))
    assert np.all(np.isfinite(found.bound[found.inside]))


def descend(R, covariance, rate=0.02, steps=4000):
    def step(W, _):
        return [w - rate * g for w, g in zip(W, deep_linear.residual_gradients(W, R, covariance), strict=True)], None

    start = [jnp.zeros((D, D)) for _ in range(LAYERS)]
    return jax.jit(lambda: jax.lax.scan(step, start, length=steps)[0])()


def test_descent_inside_the_region_ends_at_the_global_minimum():
    rng = np.random.default_rng(3)
    R = np.eye(D) + 0.1 * rng.normal(size=(D, D))
    end = descend(R, np.eye(D))
    found = deep_linear.residual_gap(end, R, np.eye(D))
    assert bool(found.inside)
    assert float(found.bound) < 1e-12


def test_with_a_reflection_as_target_the_region_has_no_critical_point():
    """det R < 0: the bound in the region stays away from zero, and descent leaves the region or stalls outside."""
    R = np.diag([-1.0, 1, 1, 1])
    end = descend(R, np.eye(D))
    found = deep_linear.residual_gap(end, R, np.eye(D))
    assert float(found.gap) > 0.1
    grads = deep_linear.residual_gradients(end, R, np.eye(D))
    stationary = max(float(jnp.max(jnp.abs(g))) for g in grads) < 1e-3
    assert not (stationary and bool(found.inside) and max(found.norms) < 0.9)


def test_kernels_that_are_not_square():
    with pytest.raises(ValueError, match=r"square kernels of one size. Received: widths \(2, 3\)"):
        deep_linear.residual_risk([jnp.zeros((2, 3))], jnp.eye(2), jnp.eye(2))


def test_matrix_factorization():
    """||U V^T - Y||: X = I, one hidden layer. The best rank-k approximation is the only kind of global minimum."""
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(7, 5))
    U, s, Vt = np.linalg.svd(Y, full_matrices=False)
    best = [U[:, :2] * s[:2], Vt[:2]]
    found = deep_linear.classify(best, np.eye(7), Y)
    assert found.kind == "global_minimum"
    np.testing.assert_allclose(found.optimum, 0.5 * np.sum(s[2:] ** 2), rtol=1e-12)
    other = deep_linear.classify([U[:, 1:3] * s[1:3], Vt[1:3]], np.eye(7), Y)
    assert (other.kind, other.is_strict) == ("saddle", True)
    np.testing.assert_allclose(other.gap, 0.5 * (s[0] ** 2 - s[2] ** 2), rtol=1e-10)
    down = deep_linear.escape([U[:, 1:3] * s[1:3], Vt[1:3]], np.eye(7), Y, 0.1, jax.random.key(0))
    assert down.found


def test_the_bound_holds_at_the_edge_of_the_region(dtype):
    """Norms of almost 1, where what rounding does to 1 - ||W_l|| decides."""
    rng = np.random.default_rng(3)
    gap_of = jax.jit(deep_linear.residual_gap)
    for delta in 10.0 ** rng.uniform(-4, 0, size=40):
        W = [np.asarray(-(1 - delta) * np.eye(3), dtype)] * 2
        A, R = rng.normal(size=(3, 3)), np.asarray(rng.normal(size=(3, 3)), dtype)
        S = np.asarray(A @ A.T, dtype)
        M = np.linalg.multi_dot([np.eye(3) + np.asarray(w, np.float64) for w in W]) - np.asarray(R, np.float64)
        gap = 0.5 * np.trace(M.T @ np.asarray(S, np.float64) @ M)
        assert float(gap_of(W, R, S).bound) >= gap * (1 - 1e-12)


def test_a_covariance_that_is_none_is_named():
    with pytest.raises(ValueError, match="covariance: Expected: a positive semidefinite matrix. Received: eigenvalues"):
        deep_linear.residual_gap([np.zeros((2, 2))], np.eye(2), -np.eye(2))


def test_inside_means_inside(dtype):
    """Rotations have the norm 1, and rounding puts it below: within rounding of 1 nothing is called inside."""
    rng = np.random.default_rng(0)
    W = np.linalg.qr(rng.normal(size=(600, 3, 3)))[0].astype(dtype)
    gap_of = jax.jit(
        jax.vmap(lambda w: deep_linear.residual_gap([w], jnp.eye(3, dtype=dtype), jnp.eye(3, dtype=dtype)))
    )
    assert not np.any(gap_of(W).inside)
    assert np.all(gap_of(W * np.asarray(1 - 1e-4, dtype)).inside)
