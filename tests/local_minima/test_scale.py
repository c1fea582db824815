"""One function in many scales, layer by layer and unit by unit: the same J, shares, bounds and linear units."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear, local_minima, networks
from globopt_jax.local_minima.balance import balanced
from globopt_jax.local_minima.jacobian import model_of
from tests.local_minima.instances import jacobian, oracle

MIXED = [[(0.0, 1.0), (-1.0, 1.0), (0.01, 1.0), (1.0, 1.0)], [(0.0, 1.0)] * 2 + [(0.5, -2.0), (-1.0, 1.0)]]
#: widths, activation: one program each.
SHAPES = [((3, 4, 2), "relu"), ((4, 5, 3, 2), "leaky_relu"), ((3, 4, 4, 2), MIXED), ((2, 3, 4, 3, 1), "absolute")]


def instance(seed):
    """A random network and data."""
    widths, activation = SHAPES[seed % len(SHAPES)]
    rng = np.random.default_rng([23, seed])
    W = [rng.normal(size=s) * (2 / s[0]) ** 0.5 for s in itertools.pairwise(widths)]
    return W, rng.normal(size=(30, widths[0])), rng.normal(size=(30, widths[-1])), activation


def by_layers(W, q):
    """The first kernel times q, and the product of all factors 1."""
    factors = [q, *[q ** (-1) ** l for l in range(1, len(W) - 1)]]
    return [(w * f).astype(w.dtype) for w, f in zip(W, [*factors, 1 / np.prod(factors)], strict=True)]


def by_units(W, exponents, rng):
    """Every hidden unit by its own power of two."""
    W = [np.array(w) for w in W]
    for l in range(len(W) - 1):
        a = 2.0 ** rng.integers(-exponents, exponents + 1, W[l].shape[1])
        W[l], W[l + 1] = W[l] * a[None], W[l + 1] / a[:, None]
    return W


def everything(W, X, Y, activation):
    """J by every method, ranks, shares, bounds, and the units that act linearly."""
    network = networks.feed_forward(activation)
    found = [local_minima.tangent_projection(network, W, X, Y, method) for method in local_minima.METHODS]
    assert all(bool(f.converged) and not np.any(f.faint) for f in found)
    shares = local_minima.decompose(W, X, Y, activation)
    bounds = local_minima.regression_bounds(W, X, Y, activation, [(), (0,), (len(W) - 1,)])
    units = local_minima.linear_units(W, X, activation)
    numbers = [[f.value, f.loss, f.gap] for f in found] + [shares.value, *shares.shares]
    numbers += [bounds.value, bounds.regression, *bounds.shares, bounds.loss]
    integers = [f.rank for f in found] + [*shares.ranks, bounds.t, units.sizes, *units.sets]
    return np.concatenate([np.ravel(n) for n in numbers]), np.concatenate([np.ravel(i) for i in integers])


def assert_the_same(seed, qs):
    W, X, Y, activation = instance(seed)
    size, rng = 0.5 * np.sum(Y**2), np.random.default_rng(seed)
    J, rank, unclear = oracle(jacobian(W, X, activation), Y)
    numbers, integers = everything(W, X, Y, activation)
    assert np.max(np.abs(numbers[[0, 3, 6, 9]] - J)) <= 1e-10 * size
    assert unclear or integers[:3].tolist() == [rank] * 3
    exact = everything(by_units(by_layers(W, 2.0**33), 30, rng), X, Y, activation)
    assert np.array_equal(exact[0], numbers), "powers of two change no bit"
    assert np.array_equal(exact[1], integers)
    for q in qs:
        other = everything(by_layers(W, q), X, Y, activation)
        assert np.max(np.abs(other[0] - numbers)) <= 1e-9 * size, (seed, q)
        assert np.array_equal(other[1], integers), (seed, q)


def test_the_scale_of_layers_and_units_changes_nothing():
    assert_the_same(2, (1e-10, 3e8))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(len(SHAPES)))
def test_the_scale_of_two_hundred_networks_changes_nothing(block, make_room):
    for seed in range(block, 200, len(SHAPES)):
        assert_the_same(seed, 10 ** np.random.default_rng(seed).uniform(-10, 10, 3))
        make_room()


def test_a_dead_unit_has_no_say_in_the_scale(dtype):
    """Zero incoming weights and any outgoing ones: nothing changes, whatever these are; with biases, too."""
    rng = np.random.default_rng(0)
    X, Y = (rng.normal(size=(20, d)).astype(dtype) for d in (3, 2))
    W = [rng.normal(size=s).astype(dtype) for s in ((3, 4), (4, 3), (3, 2))]
    b = [rng.normal(size=d).astype(dtype) for d in (4, 3, 2)]
    W[0][:, 1] = b[0][1] = 0
    tolerance = 1e-3 if dtype == jnp.float32 else 1e-12
    for activation, biases in itertools.product(("relu", "linear"), (False, True)):
        network, values = networks.feed_forward(activation), []
        for a in (1.0, 1e9):
            V = [w.copy() for w in W]
            V[1][1] *= a
            params = list(zip(V, b, strict=True)) if biases else V
            values.append(float(local_minima.tangent_projection(network, params, X, Y).value))
        assert values[1] == pytest.approx(values[0], rel=tolerance)


def test_biases_have_the_scale_of_their_units():
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(30, 2)), rng.normal(size=(30, 1))
    W, b = [rng.normal(size=s) for s in ((2, 4), (4, 3), (3, 1))], [rng.normal(size=d) for d in (4, 3, 1)]
    plain = local_minima.decompose(list(zip(W, b, strict=True)), X, Y)
    for q in (1e-9, 2.0**40):
        params = [(q * W[0], q * b[0]), (q * W[1], q**2 * b[1]), (W[2] / q**2, b[2])]
        found = local_minima.decompose(params, X, Y)
        for one, other in zip(
            (plain.value, plain.loss, *plain.shares), (found.value, found.loss, *found.shares), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-9 * float(plain.target))


def test_float32_at_every_scale():
    with jax.enable_x64(False):
        W, X, Y, activation = instance(0)
        W, X, Y = [w.astype(np.float32) for w in W], X.astype(np.float32), Y.astype(np.float32)
        for method in local_minima.METHODS:
            plain, *scaled = (
                local_minima.tangent_projection(networks.feed_forward(activation), by_layers(W, q), X, Y, method)
                for q in (1.0, 2.0**-33, 2.0**33)
            )
            for found in scaled:
                assert (found.value, found.loss, found.rank) == (plain.value, plain.loss, plain.rank)


def test_products_that_overflow_on_the_way_do_not_matter():
    """Features in between are no numbers of this dtype, the output is; and the last layer has no scale at all."""
    W, X, Y, _ = instance(3)
    network = networks.feed_forward("relu")
    plain = local_minima.tangent_projection(network, W, X, Y)
    for q in (2.0**900, 2.0**-900):
        found = local_minima.tangent_projection(network, [W[0] * q, W[1] * q, W[2] / q, W[3] / q], X, Y)
        assert (found.value, found.loss, found.rank) == (plain.value, plain.loss, plain.rank)
    small = local_minima.tangent_projection(network, [*W[:-1], 2.0**-1000 * W[-1]], X, Y)
    assert int(small.rank) == int(plain.rank)
    assert float(small.value) == pytest.approx(float(plain.value), rel=1e-12)
    assert float(small.loss) == pytest.approx(0.5 * np.sum(Y**2), rel=1e-12)


def test_bounds_at_a_minimum_in_another_scale():
    """A global minimum of a deep linear network, whose bounds are all its loss."""
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    best = deep_linear.global_minimum(X, Y, 2)
    W = by_layers(deep_linear.factors(best.map, (3, 4, 3, 2)), 1e-8)
    found = local_minima.regression_bounds(W, X, Y, "linear", [(), (0,), (2,)])
    np.testing.assert_allclose(found.value, float(best.value), rtol=1e-9)
    assert float(found.stationarity) <= 1e-9
    assert np.max(found.residuals) <= 1e-9


def test_balanced_is_the_same_network():
    """Kernels of norm 1 to 2, the same patterns and the same output, bit by bit; other models stay as they are."""
    W, X, _, activation = instance(2)
    network = networks.feed_forward(activation)
    scaled = by_units(W, 60, np.random.default_rng(0))
    point = balanced(model_of(network), scaled)
    for w in point.params[:-1]:
        norms = np.linalg.norm(w, axis=0)
        assert np.all((norms >= 1) & (norms < 2))
    assert 1 <= np.max(np.linalg.norm(point.params[-1], axis=0)) < 2
    seen, given = (network.sweep([jnp.asarray(w) for w in p], jnp.asarray(X)) for p in (point.params, scaled))
    assert np.array_equal(np.ldexp(seen.output, point.exponent), given.output)
    for one, other in zip(seen.patterns, given.patterns, strict=True):
        assert np.array_equal(one, other)
    tanh = model_of(networks.feed_forward(jnp.tanh))
    assert balanced(tanh, scaled).params is scaled


@pytest.mark.parametrize("method", local_minima.METHODS)
def test_other_models_say_what_the_cutoff_may_hide(method):
    """tanh has a scale of its own, and nobody looks into a function: a sentence says where."""
    W, X, Y, _ = instance(0)
    network = networks.feed_forward("relu")
    for apply, params in (
        (networks.feed_forward(jnp.tanh), [W[0], 1e-9 * W[1]]),
        (lambda p, X: network(p, X), by_layers(W, 1e-7)),
    ):
        found = local_minima.tangent_projection(apply, params, X, Y, method)
        plain = local_minima.tangent_projection(apply, W, X, Y, method)
        assert not np.any(plain.faint)
        assert "hide" not in plain.reason
        assert np.count_nonzero(found.faint) == 1
        place = int(np.argmax(found.faint))
        assert int(found.faint[place]) == W[place].size
        assert f"({W[place].size} of number {place + 1} of the layers, or leaves of params)" in found.reason


def test_decomposition_and_bounds_say_it_of_inputs_in_different_units():
    W, X, Y, activation = instance(0)
    X = X * np.array([1.0, 1.0, 1e-11])[None]
    assert "4 of number 1 of the layers" in local_minima.decompose(W, X, Y, activation).reason
    bounds = local_minima.regression_bounds(W, X, Y, activation, [(), (0,)])
    assert bounds.faint.tolist() == [4, 6]
    assert "hide" in bounds.reason


def test_the_dual_finds_what_its_null_space_has_lost_to_rounding():
    """Layers in different scales behind a function: the columns keep their digits, and so does J."""
    W, X, Y, activation = instance(3)
    network = networks.feed_forward(activation)
    J = float(local_minima.tangent_projection(network, W, X, Y).value)
    for q in (1e-2, 1e-3):
        found = local_minima.tangent_projection(lambda p, X: network(p, X), by_layers(W, q), X, Y, "dual")
        assert bool(found.converged)
        assert float(found.value) == pytest.approx(J, rel=1e-10)
