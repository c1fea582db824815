"""Penalties of another degree than the map: the basin around zero, and copies that cost nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import homogeneous, losses

KEY = jax.random.key(0)


def problem_of(power, lam=0.1, layers=3, loss=losses.squared):
    phi = homogeneous.deep_subnetwork("relu", layers=layers)
    return homogeneous.Problem(phi, homogeneous.sum_of_powers(power), loss, lam)


def test_no_weights_in_the_basin_go_below_zero():
    """10,000 random weights whose layers have the norm of the radius, many along the polar's best directions."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    problem = problem_of(2)
    params = problem.phi.init(KEY, r=2, dx=3, dy=2, widths=(2, 2))
    found = homogeneous.zero_basin(problem, X, Y, params=params, effort="quick")
    assert 0 < found.radius < np.inf
    assert "local minimum for every width" in str(found)
    zero = 0.5 * np.sum(Y**2)
    kernels = problem.phi.init(KEY, r=10_000, dx=3, dy=2, widths=(2, 2))
    unit = [w / jnp.linalg.norm(w, axis=(1, 2), keepdims=True) for w in kernels]

    def rises(scale):
        def rise(*ws):
            return homogeneous.objective(problem, [scale * w[None] for w in ws], X, Y) - zero

        return jax.jit(jax.vmap(rise))(*unit)

    assert jnp.min(rises(float(found.radius))) > 0
    assert jnp.min(rises(0.1 * float(found.radius))) > 0
    # Far outside, some weights are lower: the minimum at zero is not the global one.
    assert jnp.min(rises(20 * float(found.radius))) < 0


def test_the_radius_is_exact_for_one_weight_a_layer():
    """f(w) - f(0) along w1 = w2 = w3 = t is 3/2 lam t^2 - 2 t^3 + t^6 / 2, above 0 up to 3/4 lam."""
    problem = problem_of(2, lam=0.01)
    ones = [jnp.ones((1, 1, 1))] * 3
    found = homogeneous.zero_basin(problem, np.ones((1, 1)), 2 * np.ones((1, 1)), params=ones)
    np.testing.assert_allclose(found.radius, 0.75 * 0.01, rtol=1e-6)
    beyond = homogeneous.objective(
        problem, [1.01 * found.radius * w for w in ones], jnp.ones((1, 1)), jnp.full((1, 1), 2.0)
    )
    assert beyond < 2


def test_the_matched_penalty_has_no_basin():
    """With equal degrees some direction goes down from zero at once where lam is below the polar."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    problem = problem_of(None)
    params = problem.phi.init(KEY, r=2, dx=3, dy=2, widths=(2, 2))
    zero = jax.tree.map(jnp.zeros_like, params)
    effort = homogeneous.Effort(fixed=0, joint=0, groups=1, starts=16, climbs=60)
    found = homogeneous.certify(problem, zero, X, Y, effort=effort)
    assert found.polar_lower > found.lam
    with pytest.raises(ValueError, match="a sum of powers of a degree below that of phi, which is 3"):
        homogeneous.zero_basin(problem, X, Y, params=params)


def test_a_loss_that_is_minimal_at_zero_has_no_end_of_the_basin():
    found = homogeneous.zero_basin(
        problem_of(2), np.ones((2, 1)), np.zeros((2, 1)), params=[jnp.ones((1, 1, 1))] * 3, effort="quick"
    )
    assert np.isinf(found.radius)


@pytest.mark.parametrize("copies", [1, 2, 16])
@pytest.mark.parametrize("power", [2, 3, 6])
def test_copies_keep_the_output_and_change_the_penalty(copies, power, dtype):
    problem = problem_of(power)
    params = jax.tree.map(lambda w: w.astype(dtype), problem.phi.init(KEY, r=2, dx=3, dy=2, widths=(2, 2)))
    X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), dtype)
    many = homogeneous.split(problem, params, copies)
    assert all(w.dtype == dtype and len(w) == 2 * copies for w in many)
    rtol = 1e-4 if dtype == jnp.float32 else 1e-12
    before, after = (homogeneous.predict(problem, p, X) for p in (params, many))
    np.testing.assert_allclose(after, before, rtol=rtol, atol=rtol)
    costs = [float(jnp.sum(jax.vmap(problem.theta)(p))) for p in (params, many)]
    assert costs[1] == pytest.approx(costs[0] * copies ** (1 - power / 3), rel=10 * rtol)


def test_there_is_at_least_one_copy():
    with pytest.raises(ValueError, match="copies: Expected: an integer, at least 1"):
        homogeneous.split(problem_of(2), [jnp.ones((1, 1, 1))] * 3, 0)
