"""Pruning: the same output from at most card(Z) subnetworks, at no higher penalty."""

import itertools
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import homogeneous

MAPS = {
    "linear": ("linear", ()),
    "relu": ("relu", ()),
    "deep": ("relu:3", (2, 3)),
}


def instance(name, r, dx, dy, m, seed=0, theta="sum_of_powers"):
    phi, widths = MAPS[name]
    problem = homogeneous.Problem(phi, theta, "squared", 1.0)
    params = problem.phi.init(jax.random.key(seed), r=r, dx=dx, dy=dy, widths=widths)
    X = np.random.default_rng(seed).normal(size=(m, dx))
    return problem, params, X


def totals(problem, params, X):
    penalties = jax.vmap(problem.theta)(params)
    return np.asarray(homogeneous.predict(problem, params, X)), float(jnp.sum(penalties))


def width(params):
    return len(jax.tree.leaves(params)[0])


@pytest.mark.parametrize("method", ["program", "steps"])
@pytest.mark.parametrize("theta", ["sum_of_powers", "product_of_norms"])
@pytest.mark.parametrize("name", MAPS)
def test_the_output_stays_and_the_penalty_does_not_rise(name, theta, method):
    problem, params, X = instance(name, 40, 3, 2, 6, theta=theta)
    before, cost = totals(problem, params, X)
    pruned = homogeneous.prune(problem, params, X, method=method)
    after, new_cost = totals(problem, pruned, X)
    np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12 * np.abs(before).max())
    assert new_cost <= cost * (1 + 1e-12)
    assert width(pruned) <= (6 if name == "linear" else 12)  # rank-one maps of three inputs span 3 x 2 numbers
    if method == "program":
        assert new_cost < 0.9 * cost


def test_the_program_finds_the_lowest_penalty():
    """Against all vertices: every set of columns that is a basis."""
    problem, params, X = instance("relu", 7, 2, 1, 3, seed=1)
    outputs = np.asarray(jax.vmap(problem.phi, (0, None))(params, X)).reshape(7, -1).T
    theta = np.asarray(jax.vmap(problem.theta)(params))
    Z, best = outputs.sum(axis=1), np.inf
    for basis in itertools.combinations(range(7), 3):
        if np.linalg.cond(outputs[:, basis]) < 1e10:
            c = np.linalg.solve(outputs[:, basis], Z)
            best = min(best, theta[list(basis)] @ c) if np.all(c >= -1e-12) else best
    _, cost = totals(problem, homogeneous.prune(problem, params, X), X)
    np.testing.assert_allclose(cost, best, rtol=1e-9)
    _, by_steps = totals(problem, homogeneous.prune(problem, params, X, method="steps"), X)
    assert by_steps >= best * (1 - 1e-9)


def test_edges():
    problem, params, X = instance("relu", 5, 3, 2, 6)
    nothing = jax.tree.map(jnp.zeros_like, params)
    assert [w.shape for w in homogeneous.prune(problem, nothing, X)] == [(1, 3), (1, 2)]
    half = (params[0], params[1].at[1:].set(0))  # no output, some penalty
    pruned = homogeneous.prune(problem, half, X)
    assert width(pruned) == 1
    np.testing.assert_allclose(totals(problem, pruned, X)[0], totals(problem, half, X)[0], rtol=1e-12)
    cancel = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), params, (params[0], -params[1]))  # output 0
    assert totals(problem, homogeneous.prune(problem, cancel, X), X)[1] == 0
    twice = jax.tree.map(lambda w: jnp.concatenate([w, w]), params)
    assert width(homogeneous.prune(problem, twice, X)) == 5
    one = jax.tree.map(lambda w: w[:1], params)
    np.testing.assert_allclose(homogeneous.prune(problem, one, X)[0], one[0], rtol=1e-12)


@pytest.mark.parametrize("method", ["program", "steps"])
@pytest.mark.parametrize("theta", ["sum_of_powers", "product_of_norms"])
def test_the_output_stays_whatever_a_subnetwork_costs(theta, method, dtype):
    """A neuron that is expensive and dead beside a cheap one, and one of the same output at a higher cost."""
    large = 4.0 / float(jnp.finfo(dtype).eps) ** 0.5
    problem = homogeneous.Problem("relu", theta, "squared", 1.0)
    dead = (np.array([[1.0], [-large]]), np.array([[1.0], [large]]), np.eye(1))
    uneven = (np.array([[1.0, 0.0], [0.0, large]]), np.array([[1.0], [1 / large]]), np.eye(2))
    for w1, w2, X in (dead, uneven):
        w1, w2, X = (jnp.asarray(a, dtype) for a in (w1, w2, X))
        pruned = homogeneous.prune(problem, (w1, w2), X, method=method)
        np.testing.assert_allclose(homogeneous.predict(problem, pruned, X), np.ones((len(X), 1)), rtol=1e-6)
        assert width(pruned) == len(X)


def test_both_precisions(dtype):
    problem, params, X = instance("relu", 60, 3, 2, 10)
    params, X = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, X))
    pruned = homogeneous.prune(problem, params, X)
    assert {w.dtype for w in pruned} == {jnp.dtype(dtype)}
    before, after = totals(problem, params, X)[0], totals(problem, pruned, X)[0]
    scale = float(jnp.sum(jnp.abs(jax.vmap(problem.phi, (0, None))(params, X))))
    assert np.max(np.abs(after - before)) < 10 * float(jnp.finfo(dtype).eps) * scale


@pytest.mark.parametrize("method", ["program", "steps"])
def test_three_hundred_subnetworks(method):
    problem, params, X = instance("relu", 300, 10, 3, 40)
    before, cost = totals(problem, params, X)
    began = time.monotonic()
    pruned = homogeneous.prune(problem, params, X, method=method)
    assert time.monotonic() - began < 30  # seconds
    assert width(pruned) <= 120
    after, new_cost = totals(problem, pruned, X)
    np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12 * np.abs(before).max())
    assert new_cost <= cost * (1 + 1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "fast"}, "method: Expected: one of program, steps. Received: 'fast'."),
        ({"X": np.ones((4, 2))}, "params: Expected: shapes"),
        ({"X": np.full((4, 3), np.nan)}, "X: Expected: finite numbers."),
        ({"params": (np.ones((2, 3)), np.ones((3, 2)))}, "params: Expected: arrays with one leading axis r"),
    ],
)
def test_bad_input(changes, message):
    problem, params, X = instance("relu", 5, 3, 2, 6)
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = homogeneous.prune(problem, **{"params": params, "X": X} | changes)


def test_degrees_that_differ():
    _, params, X = instance("relu", 5, 3, 2, 6)
    mixed = homogeneous.Problem("relu", homogeneous.sum_of_powers(power=1), "squared", 1.0)
    with pytest.raises(ValueError, match="degree"):
        _ = homogeneous.prune(mixed, params, X)
