"""Sums over paths against lists of paths, and random masks against all masks."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear, networks, path_sums
from tests.contracts import assert_kept

WIDTHS = (3, 4, 2, 2)


def kernels(widths=WIDTHS, seed=0):
    draw = np.random.default_rng([43, seed])
    return [draw.normal(size=shape) for shape in itertools.pairwise(widths)]


def listed(W, x, masks, q=1.0):
    """The sum over all paths of one sample, path by path (K18 (2.8))."""
    widths = [W[0].shape[0], *(w.shape[1] for w in W)]
    out = np.zeros(widths[-1])
    for path in itertools.product(*map(range, widths)):
        active = np.prod([mask[path[l + 1]] for l, mask in enumerate(masks)])
        weight = np.prod([w[path[l], path[l + 1]] for l, w in enumerate(W)])
        out[path[-1]] += q * x[path[0]] * active * weight
    return out


@pytest.mark.parametrize("output_relu", [False, True])
def test_the_sum_over_paths_is_the_list_and_the_forward_pass(output_relu, rng):
    W, X = kernels(), rng.normal(size=(6, 3))
    masks = path_sums.unit_masks(W, X, output_relu=output_relu)
    found = path_sums.path_sum(W, X, masks, q=2.0)
    lists = [listed(W, x, [np.asarray(mask[i]) for mask in masks], 2.0) for i, x in enumerate(X)]
    np.testing.assert_allclose(found, lists, rtol=1e-12, atol=1e-12)
    output = np.asarray(networks.feed_forward("relu")(W, X))
    np.testing.assert_allclose(found, 2 * (np.maximum(output, 0) if output_relu else output), rtol=1e-12, atol=1e-12)
    any_masks = [rng.normal(size=(6, 4)), rng.normal(size=(1, 2))]
    lists = [listed(W, x, [any_masks[0][i], any_masks[1][0]]) for i, x in enumerate(X)]
    np.testing.assert_allclose(path_sums.path_sum(W, X, any_masks), lists, rtol=1e-12)


def test_masks_are_the_patterns_of_the_network(rng):
    W, X = kernels((5, 7, 6, 3)), rng.normal(size=(40, 5))
    patterns = networks.feed_forward("relu").sweep(W, X).patterns
    for mask, pattern in zip(path_sums.unit_masks(W, X), patterns, strict=True):
        np.testing.assert_array_equal(mask, pattern)


@pytest.mark.parametrize("output_relu", [False, True])
def test_moments_over_all_masks(output_relu, rng):
    """All 2^6 or 2^8 masks with their probabilities, against contractions."""
    W, X, rho = kernels(), rng.normal(size=(2, 3)), 0.3
    widths = WIDTHS[1:] if output_relu else WIDTHS[1:-1]
    p = rho ** (1 / len(widths))
    mean, square = 0.0, 0.0
    for bits in itertools.product([0.0, 1.0], repeat=sum(widths)):
        masks = [np.array(part)[None] for part in np.split(np.array(bits), np.cumsum(widths)[:-1])]
        chance = p ** sum(bits) * (1 - p) ** (len(bits) - sum(bits))
        h = X
        for l, w in enumerate(W):
            h = h @ w
            h = h * masks[l] if l < len(masks) else h
        mean, square = mean + chance * h / rho, square + chance * (h / rho) ** 2
    np.testing.assert_allclose(path_sums.expected_output(W, X, rho), mean, rtol=1e-10)
    variance = path_sums.total_variance(W, X, rho, output_relu=output_relu)
    np.testing.assert_allclose(variance, np.sum(square - mean**2), rtol=1e-10)
    estimate = path_sums.monte_carlo(W, X, rho, jax.random.key(0), 4000, output_relu=output_relu)
    assert np.all(np.abs(estimate.mean - mean) < 4 * estimate.error)
    # The outputs' errors are those of the exact variance, to the accuracy of an estimate of a variance.
    np.testing.assert_allclose(4000 * np.sum(np.asarray(estimate.error) ** 2), variance, rtol=0.3)
    wrong = path_sums.monte_carlo(W, X, 0.5, jax.random.key(0), 4000, q=1 / rho)  # a control: another probability
    assert np.any(np.abs(wrong.mean - mean) > 4 * wrong.error)


def test_the_reduction_is_a_deep_linear_problem(rng):
    """The loss of the expectation is that of the deep linear network, so that its theorems apply."""
    W, X, Y = kernels(), rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    for q in (None, 0.7):
        reduced = path_sums.reduce(W, X, Y, 0.4, q)
        expected = path_sums.expected_output(W, X, 0.4, q)
        wanted = 0.5 * np.sum((np.asarray(expected) - Y) ** 2)
        np.testing.assert_allclose(deep_linear.loss(*reduced), wanted, rtol=1e-12)
    saddle = deep_linear.critical_point(X, Y, WIDTHS, ())
    assert deep_linear.classify(*path_sums.reduce(saddle, X, Y, 0.4)).kind == "saddle"
    best = deep_linear.global_minimum(X, Y, 2)
    minimum = deep_linear.factors(best.map, WIDTHS)
    assert deep_linear.classify(*path_sums.reduce(minimum, X, Y, 0.4)).kind == "global_minimum"


def test_path_activity_against_the_list(rng):
    W, X = kernels(), rng.normal(size=(11, 3))
    found = path_sums.path_activity(W, X)
    masks = [np.asarray(mask) for mask in path_sums.unit_masks(W, X)]
    active = np.array([masks[0][:, a] * masks[1][:, b] for a in range(4) for b in range(2)])  # (paths, samples)
    np.testing.assert_allclose(found.by_sample, active.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.rate, active.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.over_samples, active.mean(axis=0).std(), rtol=1e-12)
    np.testing.assert_allclose(found.over_paths, active.mean(axis=1).std(), rtol=1e-9)
    np.testing.assert_allclose(found.layers, [mask.mean() for mask in masks], rtol=1e-12)
    linear, output = X @ W[0] @ W[1] @ W[2], np.asarray(networks.feed_forward("relu")(W, X))
    best = np.linalg.lstsq(linear.reshape(-1, 1), output.ravel(), rcond=None)[0][0]
    np.testing.assert_allclose(found.factor, best, rtol=1e-12)
    np.testing.assert_allclose(found.error, np.linalg.norm(output - best * linear) / np.linalg.norm(output), rtol=1e-12)
    assert "of the paths are active" in str(found)


def test_pairs_of_samples_in_chunks(monkeypatch, rng):
    W, X = kernels(), rng.normal(size=(50, 3))
    whole = path_sums.path_activity(W, X)
    monkeypatch.setattr(path_sums, "_MEMORY", 7 * 50 * 8)
    path_sums._path_activity.clear_cache()
    np.testing.assert_allclose(path_sums.path_activity(W, X).over_paths, whole.over_paths, rtol=1e-9)


def test_a_network_that_is_linear_on_its_data(rng):
    """Positive weights and inputs: all paths are active, and the assumptions hold."""
    W, X = [np.abs(w) for w in kernels()], np.abs(rng.normal(size=(5, 3)))
    found = path_sums.path_activity(W, X)
    np.testing.assert_allclose([found.rate, found.factor], 1, rtol=1e-12)
    np.testing.assert_allclose([found.over_samples, found.over_paths, found.error], 0, atol=1e-7)
    nothing = path_sums.path_activity([0 * w for w in W], X)
    assert [float(nothing.rate), float(nothing.factor), float(nothing.error)] == [0, 0, 0]
    assert "the output is zero" in nothing.reason
    unknown = path_sums.path_activity(W, np.nan * X)
    assert np.isnan([unknown.rate, unknown.over_samples, unknown.over_paths, unknown.error]).all()
    assert "Nothing is known" in unknown.reason
    single = X.copy()
    single[2, 0] = np.nan
    outputs = jax.jit(lambda X: path_sums.path_sum(W, X, path_sums.unit_masks(W, X)))(single)
    assert np.isnan(outputs).all(axis=1).tolist() == [False, False, True, False, False]


def test_small_weights_have_small_squares():
    for size, dtype in ((1e-8, np.float32), (1e-60, np.float64)):
        found = path_sums.path_activity([np.full((1, 1), size, dtype)] * 3, np.ones((1, 1), dtype))
        assert (float(found.factor), float(found.error)) == (1, 0)


def test_contracts(dtype):
    def make(draw):
        return [draw.normal(size=shape) for shape in itertools.pairwise(WIDTHS)], draw.normal(size=(6, 3))

    assert_kept(lambda W, X: path_sums.path_sum(W, X, path_sums.unit_masks(W, X)), make, dtype)
    assert_kept(lambda W, X: path_sums.total_variance(W, X, 0.5), make, dtype)
    assert_kept(path_sums.path_activity, make, dtype)
    assert_kept(lambda W, X: path_sums.monte_carlo(W, X, 0.5, jax.random.key(0), 10), make, dtype)


def test_gradients(rng):
    W, X = [jnp.asarray(w) for w in kernels()], rng.normal(size=(4, 3))
    slope = jax.grad(lambda W: path_sums.total_variance(W, X, 0.5))(W)[0][0, 0]
    moved = [path_sums.total_variance([W[0].at[0, 0].add(t), *W[1:]], X, 0.5) for t in (-1e-5, 1e-5)]
    np.testing.assert_allclose(slope, (moved[1] - moved[0]) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 2.0, np.nan])
def test_probabilities_out_of_range(rho, rng):
    """An error, also for an array, and NaN where rho is traced."""
    W, X = kernels(), rng.normal(size=(6, 3))
    for given in (rho, np.asarray(rho), jnp.asarray(rho)):
        with pytest.raises(ValueError, match="rho: Expected: a number above .* and up to 1"):
            _ = path_sums.total_variance(W, X, given)
    assert np.isnan(jax.jit(lambda rho: path_sums.total_variance(W, X, rho))(rho))
    assert np.isnan(jax.jit(lambda rho: path_sums.monte_carlo(W, X, rho, jax.random.key(0), 3).mean)(rho)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda W, X: path_sums.path_sum(W, X, []), "masks: Expected: shapes [(6, 4), (6, 2)], and (6, 2) for a ReLU"),
        (lambda W, X: path_sums.path_sum(W, X, [np.ones((6, 4)), np.ones((6, 3))]), "masks: Expected: shapes"),
        (lambda W, X: path_sums.expected_output(W, X, 0.0), "rho: Expected: a number above 2.23e-308 and up to 1."),
        (lambda W, X: path_sums.expected_output(W, X, 1e-310), "rho: Expected: a number above 2.23e-308 and up to 1."),
        (lambda W, X: path_sums.total_variance(W[:1], X, 0.5), "weights: Expected: at least one hidden layer, or"),
        (lambda W, X: path_sums.monte_carlo(W[:1], X, 0.5, jax.random.key(0)), "weights: Expected: at least one"),
        (lambda W, X: path_sums.unit_masks(W, X[:, :2]), "X: Expected: shape (m, 3). Received: (6, 2)."),
        (lambda W, X: path_sums.path_activity(W[:1], X), "weights: Expected: at least one hidden layer."),
        (lambda W, X: path_sums.monte_carlo(W, X, 0.5, jax.random.key(0), 1), "samples: Expected: an integer, at"),
        (lambda W, X: path_sums.reduce(W, X, np.ones((6, 3)), 0.5), "Y: Expected: 2 columns. Received: 3."),
        (lambda W, X: path_sums.unit_masks([W[0], W[2]], X), "weights: Expected: a list of kernels"),
        (lambda W, X: path_sums.unit_masks([np.ones((3, 0)), np.ones((0, 1))], X), "at least one unit in each layer"),
    ],
)
def test_bad_input(call, message, rng):
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = call(kernels(), rng.normal(size=(6, 3)))
