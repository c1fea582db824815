"""The closed-form global minimum (YSJ18 Prop 3.1, K18 (2.3)) against LAPACK and alternating least squares."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear, linalg
from tests.deep_linear import instances

closed_form = jax.jit(deep_linear.global_minimum)


def condition(X):
    s = np.linalg.svd(X, compute_uv=False)
    return s[0] / s[s > 1e-9 * s[0]][-1]


@pytest.mark.parametrize("seed", instances.PROFILES)
def test_value_map_and_singular_values(seed, dtype):
    p = instances.profile(seed)
    X, Y = jnp.asarray(p.X, dtype), jnp.asarray(p.Y, dtype)
    tolerance = 1e-9 if dtype == jnp.float64 else 100 * jnp.finfo(dtype).eps * condition(p.X)
    scale = 0.5 * np.sum(p.Y**2)
    for rank in range(min(p.k, 3) + 1):
        found = closed_form(X, Y, rank)
        truth = instances.truth(p.X, p.Y, rank)
        assert abs(float(found.value) - truth.optimum) <= tolerance * scale
        np.testing.assert_allclose(found.singular_values, truth.s, atol=tolerance * truth.s[0])
        # The map attains the value and has the rank: so it is a minimizer.
        assert abs(instances.loss([found.map], p.X, p.Y) - truth.optimum) <= tolerance * scale
        s = np.linalg.svd(np.asarray(found.map), compute_uv=False)
        assert np.all(s[rank:] <= tolerance * max(s[0], 1e-30))
        assert found.singular_values.shape == (min(X.shape[1], Y.shape[1]),)


@pytest.mark.parametrize("seed", instances.PROFILES)
def test_alternating_least_squares_reaches_it_and_nothing_below(seed):
    p = instances.profile(seed)
    rank = min(p.k, 2)
    value = float(closed_form(p.X, p.Y, rank).value)
    reached = instances.alternating(p.X, p.Y, rank, seed)
    assert reached >= value - 1e-9 * (1 + value)
    assert reached <= value + 1e-4 * (1 + value), "alternating least squares converges slowly, but that far"


def test_eckart_young_of_the_identity_design():
    Y = np.random.default_rng(0).normal(size=(6, 4))
    U, s, Vt = np.linalg.svd(Y, full_matrices=False)
    found = closed_form(np.eye(6), Y, 2)
    np.testing.assert_allclose(found.map, (U[:, :2] * s[:2]) @ Vt[:2], atol=1e-12)
    np.testing.assert_allclose(found.value, 0.5 * np.sum(s[2:] ** 2), rtol=1e-12)


def test_the_value_does_not_cancel():
    """Y is fitted but for 1e-9: a difference of squares would leave noise of 1e-16 ||Y||^2 beside 1e-18."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 4))
    noise = 1e-9 * np.linalg.qr(np.hstack([X, rng.normal(size=(30, 1))]))[0][:, -1:]
    Y = X @ np.array([[1.0], [2], [3], [4]]) + noise
    np.testing.assert_allclose(closed_form(X, Y, 1).value, 0.5e-18, rtol=1e-5)


def test_deficient_and_degenerate_data(dtype):
    zero = closed_form(jnp.zeros((5, 3), dtype), jnp.ones((5, 2), dtype), 2)
    assert float(zero.value) == pytest.approx(5.0, rel=1e-6)
    assert not jnp.any(zero.map)
    assert not jnp.any(zero.singular_values)
    none = closed_form(jnp.ones((5, 3), dtype), jnp.zeros((5, 2), dtype), 2)
    assert float(none.value) == 0
    repeated = jnp.asarray(np.repeat(np.random.default_rng(0).normal(size=(8, 1)), 3, axis=1), dtype)
    found = closed_form(repeated, repeated[:, :2], 2)
    assert float(found.value) <= 1e-5
    np.testing.assert_allclose(found.map, np.full((3, 2), 1 / 3), atol=1e-5)  # the solution of least norm
    fewer = closed_form(jnp.ones((1, 3), dtype), jnp.ones((1, 2), dtype), 2)
    assert fewer.singular_values.shape == (2,)
    assert float(fewer.value) <= 1e-10


@pytest.mark.parametrize("criterion", linalg.CRITERIA)
def test_the_reduced_data_stand_for_the_data(criterion):
    """Same gradients, same losses up to the constant, from dx rows instead of m."""
    p = instances.profile(8)
    fit = deep_linear.least_squares(p.X, p.Y, criterion)
    W = instances.weights(p)
    for a, b in zip(deep_linear.gradients(W, p.X, p.Y), deep_linear.gradients(W, fit.inputs, fit.targets), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    reduced = deep_linear.loss(W, fit.inputs, fit.targets) + fit.unexplained
    np.testing.assert_allclose(reduced, instances.loss(W, p.X, p.Y), rtol=1e-12)
    assert len(fit.inputs) <= p.X.shape[1]


def test_the_relaxed_problem_and_the_way_back():
    """Lu & Kawaguchi's correspondence: weights to maps and maps to weights, with the same values."""
    p = instances.profile(9)
    found = deep_linear.global_minimum(p.X, p.Y, p.k)
    W = deep_linear.factors(found.map, p.widths)
    assert [w.shape for w in W] == list(zip(p.widths[:-1], p.widths[1:], strict=True))
    np.testing.assert_allclose(deep_linear.product(W), found.map, atol=1e-10)
    np.testing.assert_allclose(deep_linear.relaxed_loss(deep_linear.product(W), p.X, p.Y), found.value, rtol=1e-10)
    for a, b in itertools.pairwise(W):
        np.testing.assert_allclose(a.T @ a, b @ b.T, atol=1e-10)
    for g in deep_linear.gradients(W, p.X, p.Y):
        np.testing.assert_allclose(g, 0, atol=1e-8)


@pytest.mark.parametrize(
    ("rank", "error", "message"),
    [
        (-1, ValueError, "rank: Expected: at least 0. Received: -1"),
        (1.5, TypeError, "rank: Expected: an integer. Received: 1.5"),
        (jnp.ones(2), TypeError, r"an integer. Received: shape \(2,\)"),
    ],
)
def test_ranks_that_are_none(rank, error, message):
    with pytest.raises(error, match=message):
        deep_linear.global_minimum(np.eye(2), np.eye(2), rank)


def test_shapes_and_names_that_are_wrong():
    with pytest.raises(ValueError, match=r"cutoff: Expected: one of press, golub, lapack. Received: 'none'"):
        deep_linear.least_squares(np.eye(2), np.eye(2), "none")
    with pytest.raises(ValueError, match=r"widths: Expected: 2, ..., 2, all positive. Received: \(2, 3\)"):
        deep_linear.factors(jnp.eye(2), (2, 3))
