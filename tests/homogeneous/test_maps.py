"""Elemental maps: degrees, totals, special cases, and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from globopt_jax import homogeneous
from globopt_jax.homogeneous.degrees import check_degrees, measured_degree
from globopt_jax.homogeneous.maps import act, slopes_of
from globopt_jax.losses import squared
from tests.oracles import activation

SLOPES = {"relu": (0.0, 1.0), "leaky_relu": (0.01, 1.0), "absolute": (-1.0, 1.0), "linear": (1.0, 1.0)}
MAPS = [
    homogeneous.relu_neuron(),
    homogeneous.rank_one(),
    homogeneous.neuron((-0.3, 2.0)),
    homogeneous.deep_subnetwork("relu", layers=1),
    homogeneous.deep_subnetwork("leaky_relu", layers=2),
    homogeneous.deep_subnetwork("absolute", layers=3),
    homogeneous.deep_subnetwork("linear", layers=4),
]
every_map = pytest.mark.parametrize("phi", MAPS, ids=repr)


def cp_factors(w, X):
    """A third-order CP factor: degree 3 in its three vectors."""
    return jnp.matmul(X, w["a"])[:, None] * (w["b"] * w["c"])[None, :]


def softplus_neuron(w, X):
    """Not homogeneous of any degree."""
    return jax.nn.softplus(jnp.matmul(X, w[0]))[:, None] * w[1][None, :]


def data(phi, dtype, r=3, m=5, dx=3, dy=2, hidden=4):
    """(params, X) of the dtype."""
    widths = (hidden,) * (phi.layers - 1) if isinstance(phi, homogeneous.DeepSubnetwork) else ()
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: phi.init(jax.random.key(0), r=r, dx=dx, dy=dy, widths=widths))
    params = jax.tree.map(lambda w: rng.normal(size=w.shape), shapes)
    X = rng.normal(size=(m, dx))
    return jax.tree.map(lambda w: jnp.asarray(w, dtype), params), jnp.asarray(X, dtype)


def numpy_output(phi, weights, X):
    """One subnetwork's output, in NumPy."""
    leaves, Z = [np.asarray(w, np.float64) for w in jax.tree.leaves(weights)], np.asarray(X, np.float64)
    if leaves[0].ndim == 1:
        leaves = [leaves[0][:, None], leaves[1][None, :]]
    for kernel in leaves[:-1]:
        Z = activation(phi.slopes, Z @ kernel)
    return Z @ leaves[-1]


@every_map
def test_output_and_total(phi, dtype):
    """phi is the network written in NumPy; total is the sum of a Python loop; inner is the inner product."""
    params, X = data(phi, dtype)
    one = [jax.tree.map(lambda w, i=i: w[i], params) for i in range(3)]
    expected = [numpy_output(phi, w, X) for w in one]
    close: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12} if dtype == jnp.float64 else {"rtol": 1e-4, "atol": 1e-5}
    U = jnp.asarray(np.random.default_rng(2).normal(size=expected[0].shape), dtype)
    everything = jax.jit(lambda w, all_of_them: (phi(w, X), phi.inner(w, U, X), phi.total(all_of_them, X)))
    output, inner, total = everything(one[1], params)
    assert output.dtype == inner.dtype == total.dtype == dtype
    np.testing.assert_allclose(output, expected[1], **close)
    np.testing.assert_allclose(inner, np.sum(np.asarray(U) * expected[1]), **close)
    np.testing.assert_allclose(total, sum(expected), **close)


@every_map
def test_declared_degree_is_the_measured_one(phi, dtype):
    """phi(a w) = a^p phi(w) with the p that the map states."""
    params, X = data(phi, dtype)
    one = jax.tree.map(lambda w: w[0], params)
    degree, departure = measured_degree(jax.jit(phi), one, X)
    tolerance = 1e3 * float(jnp.finfo(dtype).eps)  # what `check_degrees` allows
    assert degree == pytest.approx(phi.degree, abs=tolerance)
    assert departure <= tolerance


def test_narrow_deep_subnetwork_is_a_neuron(dtype):
    """Two weight layers and one hidden unit: the same function, the same degree."""
    neuron, deep = homogeneous.relu_neuron(), homogeneous.deep_subnetwork("relu", layers=2)
    (w1, w2), X = data(neuron, dtype)
    np.testing.assert_array_equal(deep.total([w1[:, :, None], w2[:, None, :]], X), neuron.total((w1, w2), X))
    assert deep.degree == neuron.degree


def test_wide_deep_subnetwork_is_a_sum_of_neurons(dtype):
    """Hidden units of one subnetwork are neurons side by side."""
    neuron, deep = homogeneous.neuron("absolute"), homogeneous.deep_subnetwork("absolute", layers=2)
    (w1, w2), X = data(neuron, dtype)
    found = deep((w1.T, w2), X)
    np.testing.assert_allclose(found, neuron.total((w1, w2), X), rtol=1e-5 if dtype == jnp.float32 else 1e-12)


@pytest.mark.parametrize("name", SLOPES)
def test_activations(name, dtype):
    """Slopes on either side, the value 0 and the negative side's slope at the kink."""
    assert slopes_of(name) == SLOPES[name]
    a = jnp.asarray([-2.0, 0.0, 3.0], dtype)
    negative, positive = SLOPES[name]
    np.testing.assert_allclose(act(SLOPES[name], a), np.asarray([-2 * negative, 0, 3 * positive], dtype))
    slopes = jax.vmap(jax.grad(lambda t: act(SLOPES[name], t)))(a)
    np.testing.assert_allclose(slopes, np.asarray([negative, negative, positive], dtype))


@every_map
def test_gradient_away_from_kinks(phi):
    """Autodiff agrees with finite differences."""
    params, X = data(phi, jnp.float64, r=2)
    check_grads(jax.jit(phi.total), (params, X), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["softplus", "sigmoid", "tanh", "", "ReLU"])
def test_activations_without_a_degree_are_refused_by_name(name):
    """No degree exists, so nothing could be certified."""
    with pytest.raises(ValueError, match=f"activation: Expected: .* Received: '{name}'"):
        homogeneous.neuron(name)
    with pytest.raises(ValueError, match="not positively homogeneous"):
        homogeneous.deep_subnetwork(name, layers=3)


def test_a_users_map_is_measured(dtype):
    """The stated degree is checked, and a map without one is refused with the departure that shows it."""
    X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), dtype)
    params = {"a": jnp.ones((2, 3), dtype), "b": jnp.ones((2, 2), dtype), "c": jnp.ones((2, 2), dtype)}

    def check(phi, weights):
        check_degrees(homogeneous.Problem(phi, homogeneous.sum_of_powers(3), squared, 0.1), weights, X)

    check(homogeneous.elemental(cp_factors, degree=3), params)
    with pytest.raises(ValueError, match=r"phi .* Expected: phi\(a w\) = a\^2 .* Received: degree 3 "):
        check(homogeneous.elemental(cp_factors, degree=2), params)
    pair = (params["a"], params["b"])
    with pytest.raises(ValueError, match=r"phi is not positively homogeneous.*relative departures up to [0-9.]+"):
        check(homogeneous.elemental(softplus_neuron, degree=3), pair)


def test_a_users_map_with_any_weights_is_certified():
    """Weights may be any pytree, a dict for instance; no bound is known, so the trivial one is reported."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {n: jax.random.normal(k, (2, d)) for n, k, d in zip("abc", keys, (3, 2, 2), strict=True)}
    problem = homogeneous.Problem(
        homogeneous.elemental(cp_factors, degree=3), homogeneous.sum_of_powers(), squared, 0.1
    )
    effort = homogeneous.Effort(fixed=0, joint=0, groups=1, starts=4, climbs=4)
    found = homogeneous.certify(problem, params, np.ones((4, 3)), np.ones((4, 2)), effort=effort)
    assert not found.rigorous
    assert found.bound == "none"
    assert found.polar_upper == np.inf
    assert 0 >= found.lower_bound >= -1e-300


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: homogeneous.deep_subnetwork("relu", layers=0), "layers"),
        (lambda: homogeneous.elemental(cp_factors, degree=0), "degree"),
        (lambda: homogeneous.elemental(cp_factors, degree=float("nan")), "degree"),
        (lambda: homogeneous.relu_neuron().init(jax.random.key(0), r=0, dx=1, dy=1), "r"),
        (lambda: homogeneous.relu_neuron().init(jax.random.key(0), r=1, dx=1, dy=1, widths=(1, 2)), "widths"),
        (
            lambda: homogeneous.deep_subnetwork("relu", layers=3).init(
                jax.random.key(0), r=1, dx=1, dy=1, widths=(0, 1)
            ),
            "widths",
        ),
    ],
)
def test_bad_arguments_are_named(call, argument):
    """The message starts with the argument, then what was expected and what came."""
    with pytest.raises(ValueError, match=f"^{argument}: Expected: .* Received: "):
        call()
