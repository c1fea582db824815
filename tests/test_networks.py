"""Feed-forward networks: values against NumPy, derivatives by convention, Flax models as (apply, params)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import networks

SLOPES = {"relu": (0.0, 1.0), "leaky_relu": (0.01, 1.0), "absolute": (-1.0, 1.0), "linear": (1.0, 1.0)}


def params(rng, widths, biases, dtype):
    kernels = [rng.normal(size=s).astype(dtype) for s in itertools.pairwise(widths)]
    return [(w, rng.normal(size=w.shape[1]).astype(dtype)) for w in kernels] if biases else kernels


def by_hand(layers, X, slopes):
    """NumPy, one entry of `slopes` a hidden layer."""
    Z = np.asarray(X, np.float64)
    for l, layer in enumerate(layers):
        w, b = layer if isinstance(layer, tuple) else (layer, 0.0)
        Z = Z @ np.asarray(w, np.float64) + b
        if l < len(layers) - 1:
            negative, positive = np.asarray(slopes[l]).reshape(-1, 2).T
            Z = np.where(Z > 0, positive * Z, negative * Z)
    return Z


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("name", SLOPES)
def test_values_are_those_of_numpy(name, biases, dtype):
    rng = np.random.default_rng(0)
    W, X = params(rng, (3, 4, 5, 2), biases, dtype), rng.normal(size=(7, 3)).astype(dtype)
    out = networks.feed_forward(name)(W, X)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, by_hand(W, X, [SLOPES[name]] * 2), rtol=1e-4 if dtype == jnp.float32 else 1e-12)


def test_units_may_differ():
    rng = np.random.default_rng(1)
    W, X = params(rng, (3, 3, 2, 2), False, np.float64), rng.normal(size=(6, 3))
    slopes = [np.array([[0, 1], [-1, 1], [0.1, 1]]), (0.0, 1.0)]
    np.testing.assert_allclose(networks.feed_forward(slopes)(W, X), by_hand(W, X, slopes), rtol=1e-12)
    assert networks.feed_forward(slopes) == networks.feed_forward([s for s in slopes])
    assert hash(networks.feed_forward("relu")) == hash(networks.feed_forward((0.0, 1.0)))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "absolute"])
def test_the_derivative_at_a_kink_is_zero(name):
    """jax.grad and the patterns agree on KHK19's convention, and the sweep counts the kinks."""
    network = networks.feed_forward(name)
    W = [np.array([[1.0, 1.0]]), np.array([[1.0], [2.0]])]
    X = np.array([[0.0], [3.0]])
    slope = jax.grad(lambda x: network(W, x[None, None])[0, 0])
    assert float(slope(0.0)) == 0
    assert float(slope(3.0)) == pytest.approx(3.0)
    seen = network.sweep(W, X)
    assert int(seen.kinks) == 2
    np.testing.assert_array_equal(seen.patterns[0], [[0, 0], [1, 1]])
    assert int(networks.feed_forward("linear").sweep(W, X).kinks) == 0


def test_smooth_activations_have_their_derivative():
    W, X = [np.ones((1, 2)), np.ones((2, 1))], np.array([[0.3], [-2.0]])
    seen = networks.feed_forward(jnp.tanh).sweep(W, X)
    np.testing.assert_allclose(seen.patterns[0], 1 - np.tanh(X @ W[0]) ** 2, rtol=1e-12)


def test_flax_models():
    from flax import linen, nnx

    X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    dense = linen.Dense(2)
    variables = dense.init(jax.random.key(0), X)
    apply, found = networks.from_flax(dense, variables)
    np.testing.assert_array_equal(apply(found, X), dense.apply(variables, X))
    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    apply, found = networks.from_flax(layer)
    np.testing.assert_allclose(apply(found, X), layer(jnp.asarray(X)), rtol=1e-6)
    with pytest.raises(TypeError, match="variables: Expected: the whole dictionary .* Received: none"):
        networks.from_flax(dense)
    with pytest.raises(TypeError, match="variables: Expected: the whole dictionary .* Received: only bias, kernel"):
        networks.from_flax(dense, dict(sorted(variables["params"].items())))
    with pytest.raises(TypeError, match="variables: Expected: none, since an nnx module holds its own"):
        networks.from_flax(layer, variables)
    with pytest.raises(TypeError, match="model: Expected: a module of flax"):
        networks.from_flax(lambda X: X)


@pytest.mark.parametrize("activation", ["gelu", (0.0, np.inf), [(1.0,)], 3, [[(0.0, 1.0, 2.0)]]])
def test_activations_that_are_none_are_named(activation):
    with pytest.raises(ValueError, match="activation: Expected: "):
        networks.feed_forward(activation)


def test_params_that_do_not_fit_are_named():
    X = np.ones((2, 3))
    with pytest.raises(
        ValueError, match=r"params: Expected: a list of kernels .* Received: shapes \[\(3, 2\), \(3, 1\)\]"
    ):
        networks.feed_forward("relu")([np.ones((3, 2)), np.ones((3, 1))], X)
    with pytest.raises(ValueError, match="a list of kernels .* Received: none"):
        networks.feed_forward("relu")([], X)
    with pytest.raises(ValueError, match="a list of kernels .* Received: dict"):
        networks.feed_forward("relu")({"kernel": np.ones((3, 1))}, X)
    with pytest.raises(ValueError, match="a list of kernels .* neither arrays nor pairs"):
        networks.feed_forward("relu")([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]], X)
    with pytest.raises(ValueError, match="slopes for each of 1 hidden layers. Received: 2"):
        networks.feed_forward([(0.0, 1.0)] * 2)([np.ones((3, 2)), np.ones((2, 1))], X)
    with pytest.raises(ValueError, match="one pair of slopes, or 2, for hidden layer 1. Received: 3"):
        networks.feed_forward([[(0.0, 1.0)] * 3])([np.ones((3, 2)), np.ones((2, 1))], X)


def test_stacked_kernels_are_named():
    with pytest.raises(ValueError, match=r"Received: an array of shape \(2, 3, 3\)"):
        networks.feed_forward("relu")(np.ones((2, 3, 3)), np.ones((2, 3)))


def test_a_function_without_values_somewhere_is_an_activation():
    assert networks.feed_forward(jnp.sqrt).function is jnp.sqrt


def test_a_bias_may_be_none():
    W, X = [np.ones((3, 2)), np.ones((2, 1))], np.ones((2, 3))
    network = networks.feed_forward("relu")
    np.testing.assert_array_equal(network([(w, None) for w in W], X), network(W, X))
    assert [w.shape for w in networks.kernels_of([(W[0], None), W[1]])] == [(3, 2), (2, 1)]


@pytest.mark.parametrize(
    "function", [jax.nn.softmax, lambda z: jnp.tanh(z - jnp.mean(z, axis=0, keepdims=True)), jnp.max]
)
def test_a_function_that_mixes_entries_is_no_activation(function):
    """Its derivative is no pattern: J would be wrong in silence."""
    with pytest.raises(ValueError, match="activation: Expected: a function that acts on each entry alone"):
        networks.feed_forward(function)
