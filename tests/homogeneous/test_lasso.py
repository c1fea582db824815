"""The best output weights: first-order conditions of the group lasso, computed here in NumPy, are the oracle."""

import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import homogeneous, losses
from globopt_jax.homogeneous.problem import objective
from globopt_jax.homogeneous.training import output_weights

LOSSES = [losses.squared, losses.softmax_cross_entropy]


def violations(weights, fitted, X, Y, lam, loss):
    """How far ``h^T G = -lam v / ||v||`` and ``||h^T G|| <= lam`` (where v = 0) are off, a number a row, over lam."""
    w1, v1, v2 = (np.asarray(w, np.float64) for w in (weights[0], *fitted))
    Z = np.maximum(X @ v1.T, 0) @ v2
    softmax = np.exp(Z - Z.max(axis=1, keepdims=True))
    G = Z - Y if loss is losses.squared else softmax / softmax.sum(axis=1, keepdims=True) - Y
    size, length = (np.linalg.norm(w, axis=1, keepdims=True) for w in (w1, v2))
    g = np.maximum(X @ (w1 / np.where(size > 0, size, 1)).T, 0).T @ G / lam
    stationary = np.linalg.norm(g + v2 / np.where(length > 0, length, 1), axis=1)
    return np.where(length[:, 0] > 0, stationary, np.maximum(np.linalg.norm(g, axis=1) - 1, 0))


def instance(loss, dtype, seed):
    """Twelve directions in 16 rows: two equal, two nearly parallel, one that is off, zeros."""
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 4))
    X[:, 2] = np.abs(X[:, 2])
    if loss is losses.softmax_cross_entropy:
        Y = np.eye(4)[Y.argmax(axis=1)]
    w1, w2 = rng.normal(size=(16, 3)), rng.normal(size=(16, 4))
    w1[1], w1[3], w1[4] = 2 * w1[0], w1[2] + 1e-7 * w1[5], [0, 0, -1]
    w1[12:], w2[12:] = 0, 0
    w2[6] = 0  # a direction that may enter
    return [np.asarray(a, dtype) for a in (w1, w2, X, Y)]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_the_output_weights_are_optimal_to_the_last_digits(loss, dtype):
    """Equal and nearly parallel directions, dead and zero ones; a strength at which some rows are zero and some not."""
    for seed, lam in ((0, 1.0), (1, 3.0), (2, 0.01), (3, 100.0)):
        problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), loss, lam)
        w1, w2, X, Y = instance(loss, dtype, seed)
        start, data = (jnp.asarray(w1), jnp.asarray(w2)), (jnp.asarray(X), jnp.asarray(Y))
        fitted = output_weights.fit(problem, start, *data)
        assert fitted[0].dtype == fitted[1].dtype == dtype
        tolerance = 1e-10 if dtype == jnp.float64 else 5e-4 / min(lam, 1)
        off = violations(start, fitted, X.astype(float), Y.astype(float), lam, loss)
        np.testing.assert_array_less(off, tolerance)
        sizes = [np.linalg.norm(w, axis=1) for w in fitted]
        np.testing.assert_allclose(*sizes, rtol=1e-5)
        on = sizes[0] > 0
        assert not np.any(on[[4, 12, 13, 14, 15]])
        assert on.sum() == 0 if lam == 100 else 2 <= on.sum() < 12
        assert objective(problem, fitted, *data) < objective(problem, start, *data)


def test_a_fitted_point_stays_and_zero_weights_are_no_exception():
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 1.0)
    w1, w2, X, Y = (jnp.asarray(a) for a in instance(losses.squared, np.float64, 0))
    fitted = output_weights.fit(problem, (w1, w2), X, Y)
    again = output_weights.fit(problem, fitted, X, Y)
    np.testing.assert_allclose(problem.phi.total(again, X), problem.phi.total(fitted, X), atol=1e-11)
    for w in output_weights.fit(problem, (0 * w1, 0 * w2), X, Y):
        assert not np.any(w)


def test_where_it_applies():
    w = (np.zeros((4, 3)), np.zeros((4, 2)))
    X = np.zeros((5, 3))

    def applies(phi, theta, params=w):
        return output_weights.applies(homogeneous.Problem(phi, theta, losses.squared, 1.0), params, X)

    assert applies(homogeneous.relu_neuron(), homogeneous.sum_of_powers())
    assert applies(homogeneous.relu_neuron(), homogeneous.product_of_norms())
    assert not applies(homogeneous.relu_neuron(), homogeneous.product_of_norms(("l1", "l2")))
    assert not applies(homogeneous.deep_subnetwork("relu", layers=3), homogeneous.sum_of_powers())
    assert not applies(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), (w[0], np.zeros((4, 300))))
