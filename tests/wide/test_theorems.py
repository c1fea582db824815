"""Assumption 3.2, the verdicts of Theorems 3.4 and 3.8, and weights that fit the data by construction."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from globopt_jax import losses, wide
from tests.wide import oracle


def network(widths, seed=0):
    draw = np.random.default_rng([41, seed])
    return [(draw.normal(size=(a, b)), draw.normal(size=b)) for a, b in itertools.pairwise(widths)]


# -- Assumption 3.2 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", wide.ACTIVATIONS)
def test_named_activations_against_samples_of_them(name):
    """What the catalogue says of a name is what samples of the function say, analyticity apart."""
    entry = wide.ACTIVATIONS[name]
    sampled = wide.assumption(np.eye(3), wide.smooth(entry.function, analytic="analytic" not in entry.fails))
    assert sampled.holds == (not entry.fails)
    assert "no proof" in sampled.reason
    named = wide.assumption(np.eye(3), name)
    assert named.holds == (not entry.fails)
    assert entry.fails in named.reason


@pytest.mark.parametrize("name", wide.LOSSES)
def test_named_losses_against_samples_of_them(name):
    entry = wide.LOSSES[name]
    found = wide.assumption(np.eye(3), "tanh", entry.function)
    assert found.holds == (not entry.fails)
    assert wide.assumption(np.eye(3), "tanh", name).holds == (not entry.fails)


@pytest.mark.parametrize(
    ("function", "lacks"),
    [
        (lambda t: jnp.where(t > 0, t, 0.0), "derivative is not positive"),
        (lambda t: t**3, "derivative is not positive"),
        (jnp.exp, "grows faster than linearly"),
        (lambda t: t + 0.5 * jnp.tanh(t), "neither bounded nor small"),
        (lambda t: jnp.log(t), "not finite"),
    ],
)
def test_activations_of_your_own(function, lacks):
    assert lacks in wide.assumption(np.eye(3), wide.smooth(function, analytic=True)).reason


def test_the_activation_with_a_flat_point():
    """Strictly increasing is not enough: the integral of u^2 exp(-u^2) has a critical point that is no minimum."""

    def flat(t):
        return 0.25 * np.pi**0.5 * jax.scipy.special.erf(t) - 0.5 * t * jnp.exp(-(t**2))

    assert not wide.assumption(np.eye(3), wide.smooth(flat, analytic=True)).holds


def test_losses_of_your_own():
    found = wide.assumption(np.eye(3), "tanh", lambda a: a**2 * (a - 2) ** 2 + 0.1 * a)
    assert found.reason.startswith("Part 3 fails for the loss: its derivative is zero at a point that is no minimum.")
    assert wide.assumption(np.eye(3), "tanh", losses.squared).holds
    assert not wide.assumption(np.eye(3), "tanh", losses.huber(0.1)).holds


def test_equal_samples(rng):
    X = rng.normal(size=(2000, 3))
    X[1900] = X[7]
    found = wide.assumption(X)
    assert (found.holds, float(found.distance)) == (False, 0.0)
    assert found.reason == "Part 1 fails: two samples are equal to rounding."
    X[1900] += 1e-3
    nearest = min(np.linalg.norm(np.delete(X, i, 0) - X[i], axis=1).min() for i in range(len(X)))
    found = wide.assumption(X)
    np.testing.assert_allclose(found.distance, nearest / np.linalg.norm(X, axis=1).max(), rtol=1e-9)
    assert found.distinct
    assert wide.assumption(np.ones((1, 2))).distinct


def test_bad_input():
    with pytest.raises(ValueError, match=r"activation: Expected: a name, or wide.smooth\(function"):
        _ = wide.assumption(np.eye(3), jnp.tanh)
    with pytest.raises(ValueError, match="loss: Expected: one of squared, pseudo_huber"):
        _ = wide.assumption(np.eye(3), "tanh", "softmax")
    with pytest.raises(ValueError, match=r"X: Expected: shape \(N, dx\)."):
        _ = wide.assumption(np.ones(3))
    with pytest.raises(TypeError, match="function: Expected: a function"):
        _ = wide.smooth(3, analytic=True)
    with pytest.raises(TypeError, match="tanh, which needs NumPy's"):
        _ = wide.smooth(np.tanh, analytic=True)
    with pytest.raises(ValueError, match="which mixes entries"):
        _ = wide.smooth(jnp.sum, analytic=True)
    with pytest.raises(TypeError, match="X: .* a tracer"):
        _ = jax.jit(lambda X: wide.interpolate(network((3, 4, 2)), X, np.ones((3, 2)), 1).loss)(np.eye(3))
    with pytest.raises(ValueError, match="Y: Expected: targets that are not all zero"):
        _ = wide.classify(network((3, 2)), np.eye(3), np.zeros((3, 2)))


# -- interpolation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("N", "widths", "k"), [(6, (3, 5, 4, 2), 1), (6, (5, 4, 2), 0), (6, (3, 4, 8, 2), 2), (6, (3, 4, 5, 3, 3, 1), 2)]
)
@pytest.mark.parametrize("activation", ["tanh", "softplus", "leaky_relu"])
def test_weights_that_fit(N, widths, k, activation, rng):
    X, Y, params = rng.normal(size=(N, widths[0])), 100 * rng.normal(size=(N, widths[-1])), network(widths)
    found = wide.interpolate(params, X, Y, k, activation)
    assert int(found.rank) == N
    assert float(found.loss) < 1e-14 * np.sum(Y**2)
    for (old, _), (new, _) in zip(params[:k], found.params, strict=False):
        np.testing.assert_array_equal(old, new)
    if activation in oracle.FUNCTIONS:
        assert float(oracle.loss(found.params, X, Y, activation)) < 1e-14 * np.sum(Y**2)


def test_weights_that_cannot_fit(rng):
    X, Y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    found = wide.interpolate(network((3, 4, 2)), X, Y, 1)
    assert int(found.rank) == 5
    assert float(found.loss) > 1e-3
    assert found.reason.startswith("The features have rank 5 for 9 samples")
    with pytest.raises(ValueError, match="a bias in layer 2 and at least 2 units below it"):
        _ = wide.interpolate([(np.ones((3, 1)), np.ones(1)), (np.ones((1, 2)), np.ones(2))], X, Y, 0)
    with pytest.raises(ValueError, match=r"increases on \[-1, 1\]"):
        _ = wide.interpolate(network((3, 4, 2)), X, Y, 0, "relu")


# -- Theorems 3.4 and 3.8 --------------------------------------------------------------------------------


def test_training_to_a_critical_point_reaches_zero_loss(rng):
    """Theorem 3.4 at trained weights: the verdict before, on the way and after."""
    X, Y, params = rng.normal(size=(4, 4)), rng.normal(size=(4, 1)), network((4, 3, 1))

    def loss(params):
        hidden = jnp.tanh(X @ params[0][0] + params[0][1][None])
        return 0.5 * jnp.sum(jnp.square(hidden @ params[1][0] + params[1][1][None] - Y))

    before = wide.classify(params, X, Y, 0)
    assert before.kind == "not_critical"
    assert before.bound >= before.loss
    solver = optax.lbfgs()

    @jax.jit
    def step(params, state):
        value, slope = optax.value_and_grad_from_state(loss)(params, state=state)
        updates, state = solver.update(slope, state, params, value=value, grad=slope, value_fn=loss)
        return optax.apply_updates(params, updates), state

    trained = jax.tree.map(jnp.asarray, params)
    state = solver.init(trained)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(200):
            trained, state = step(trained, state)
    found = wide.classify(trained, X, Y, 0)
    assert found.kind == "global_minimum"
    assert found.loss <= found.bound < 1e-8
    assert int(found.rank) == 4
    assert np.all(found.full_ranks)
    assert np.all(np.isfinite(found.conditions))


def test_where_the_theorems_do_not_apply(rng):
    """Features of rank below N, and kernels that lack rank: stationary points with loss."""
    X, Y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    W = rng.normal(size=(3, 4))
    F = np.tanh(X @ W)
    dead = [(W, np.zeros(4)), (np.zeros((4, 2)), Y.mean(axis=0))]  # no signal comes through zeros ...
    Y_free = Y - F @ np.linalg.lstsq(F, Y, rcond=None)[0]  # ... and the last layer's gradient is zero, too
    Y_free -= np.hstack([F, np.ones((8, 1))]) @ np.linalg.lstsq(np.hstack([F, np.ones((8, 1))]), Y_free, rcond=None)[0]
    found = wide.classify([dead[0], (np.zeros((4, 2)), np.zeros(2))], X, Y_free, 0)
    assert found.kind == "not_applicable"
    assert "rank 4, and the theorem needs 8" in found.reason
    assert "The rank of the kernel of layer 2 is not its number of columns." in found.reason
    assert np.isinf(found.bound)
    relu = wide.classify([dead[0], (np.zeros((4, 2)), np.zeros(2))], X, Y_free, 0, "relu")
    assert "Part 2 of Assumption 3.2 fails, on the activation" in relu.reason
    twice = wide.classify([dead[0], (np.zeros((4, 2)), np.zeros(2))], X.repeat(2, 0), Y_free.repeat(2, 0), 0)
    assert "Part 1 of Assumption 3.2 fails, on the samples" in twice.reason


def test_what_the_printed_theorem_can_say(rng):
    """At zero loss the Hessian of layer k + 1 is non-singular only for n_k = N - 1 and n_{k+1} = n_L."""
    for widths, possible in (((2, 5, 2), True), ((2, 5, 3, 2), False), ((2, 6, 2), False)):
        X, Y = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
        params = wide.interpolate(network(widths), X, Y, 1).params
        found = wide.classify(params, X, Y, 1)
        assert found.kind == "global_minimum"
        assert bool(found.possible) == possible
        assert (float(found.hessian) > 1e-9) == possible, found.hessian
        assert ("is singular, so that Theorem 3.8 as printed" in found.reason) != possible
    path = wide.classify(network((2, 5, 2)), X, Y, 0)
    assert np.isnan(path.hessian)


def test_results_are_kept(tmp_path):
    found = wide.classify(network((3, 4, 2)), np.eye(3), np.ones((3, 2)), 0)
    found.save(tmp_path / "found.npz")
    assert str(wide.Criticality.load(tmp_path / "found.npz")) == str(found)
    assert found.to_json()["kind"] == found.kind
