"""The monitor: right notes, no change, bounded memory, under jit and scan, in chains and with Flax."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from globopt_jax import deep_linear
from tests.deep_linear import instances

P = instances.profile(2, deficient=False)


def run(optimizer, steps, params, X, Y):
    """One scan; the weights before every step come back, too."""

    def step(carry, _):
        params, state = carry
        grads = deep_linear.gradients(params, X, Y)
        with jax.numpy_dtype_promotion("standard"):
            moves, state = optimizer.update(grads, state, params)
            new = optax.apply_updates(params, moves)
        return (new, state), params

    return jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), length=steps))(params)


def start(dtype):
    return [jnp.asarray(w, dtype) for w in instances.weights(P)]


def test_the_notes_are_those_of_the_functions(dtype):
    X, Y = jnp.asarray(P.X, dtype), jnp.asarray(P.Y, dtype)
    watched = optax.chain(deep_linear.monitor(X, Y, every=5, capacity=64), optax.sgd(1e-4))
    (end, state), seen = run(watched, 21, start(dtype), X, Y)
    (plain, _), _ = run(optax.sgd(1e-4), 21, start(dtype), X, Y)
    chex.assert_trees_all_equal(end, plain)
    notes = deep_linear.history(state)
    assert notes.step.tolist() == [0, 5, 10, 15, 20]
    for row, step in enumerate(notes.step):
        W = [w[step] for w in seen]
        found = deep_linear.classify(W, X, Y)
        for name in ("loss", "gap", "gap_bound", "stationarity", "code", "rank", "kept"):
            np.testing.assert_allclose(getattr(notes, name)[row], getattr(found, name), rtol=1e-4, atol=1e-6)
        predicted = np.linalg.svd(np.asarray(deep_linear.predict(W, X)), compute_uv=False)
        n = notes.singular_values.shape[1]
        np.testing.assert_allclose(notes.singular_values[row], predicted[:n], rtol=1e-3, atol=1e-4)
    assert set(notes.kinds) == {"not_critical"}
    assert notes.loss.dtype == dtype
    assert np.all(notes.gap_bound >= notes.gap)


def test_a_run_of_any_length_fits():
    """When the rows are used up, every second goes and looks become half as frequent."""
    watched = deep_linear.monitor(P.X, P.Y, every=1, capacity=8)
    (_, state), _ = run(optax.chain(watched, optax.sgd(1e-4)), 100, start(jnp.float64), P.X, P.Y)
    steps = deep_linear.history(state).step
    assert 4 <= len(steps) < 8
    assert steps[0] == 0
    assert len(set(np.diff(steps))) == 1
    assert steps[-1] + np.diff(steps)[0] >= 100


def test_kernels_of_a_flax_model():
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            for d in P.widths[1:]:
                x = linen.Dense(d, use_bias=False, param_dtype=jnp.float64)(x)
            return x

    variables = Net().init(jax.random.key(0), P.X)

    def kernels(params):
        return [params["params"][f"Dense_{l}"]["kernel"] for l in range(len(P.widths) - 1)]

    watched = optax.chain(optax.sgd(1e-4), deep_linear.monitor(P.X, P.Y, kernels=kernels))
    grads = jax.grad(lambda v: 0.5 * jnp.sum((Net().apply(v, P.X) - P.Y) ** 2))(variables)
    with jax.numpy_dtype_promotion("standard"):
        _, state = watched.update(grads, watched.init(variables), variables)
    np.testing.assert_allclose(deep_linear.history(state).loss[0], instances.loss(kernels(variables), P.X, P.Y))


def test_networks_side_by_side():
    """vmap over networks: each has notes of its own."""
    watched = deep_linear.monitor(P.X, P.Y, every=2, capacity=4)
    W = [jnp.asarray(w) for w in instances.weights(P, count=3)]
    state = jax.vmap(watched.init)(W)
    for _ in range(3):
        _, state = jax.jit(jax.vmap(watched.update))(W, state, W)
    for i in range(3):
        notes = deep_linear.history(jax.tree.map(lambda a, i=i: a[i], state))
        assert notes.step.tolist() == [0, 2]
        np.testing.assert_allclose(notes.loss[0], instances.loss([w[i] for w in W], P.X, P.Y))


def test_misuse_is_named():
    watched = deep_linear.monitor(P.X, P.Y)
    W = start(jnp.float64)
    with pytest.raises(ValueError, match=r"optimizer.update\(grads, state, params\). Received: no params"):
        watched.update(W, watched.init(W))
    with pytest.raises(ValueError, match="params: Expected: kernels from"):
        watched.init(W[:-1])
    with pytest.raises(ValueError, match="every: Expected: an integer, at least 1"):
        deep_linear.monitor(P.X, P.Y, every=0)
    with pytest.raises(ValueError, match="capacity: Expected: an even number. Received: 3"):
        deep_linear.monitor(P.X, P.Y, capacity=3)
    with pytest.raises(ValueError, match="X: Expected: finite numbers"):
        deep_linear.monitor(np.full(P.X.shape, np.nan), P.Y)
    with pytest.raises(ValueError, match="Expected: a list of kernels, or monitor"):
        watched.init({"W1": W[0]})
    with pytest.raises(ValueError, match="with one monitor. Received: 0 monitors"):
        deep_linear.history(optax.sgd(0.1).init(W))


def test_weights_of_another_shape_than_the_data_are_refused():
    shapes = list(itertools.pairwise((P.widths[0], 3, P.widths[-1] + 1)))
    with pytest.raises(ValueError, match="Received: widths"):
        deep_linear.monitor(P.X, P.Y).init([jnp.zeros(s) for s in shapes])


def test_a_run_that_diverged_is_called_that():
    watched = deep_linear.monitor(P.X, P.Y, every=1)
    W = start(jnp.float64)
    _, state = watched.update(W, watched.init(W), W)
    _, state = watched.update(W, state, [w * jnp.nan for w in W])
    assert deep_linear.history(state).kinds == ["not_critical", "diverged"]
