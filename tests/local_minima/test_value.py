"""J as a pure function: it is that of the host function or says that it is not sure, and its derivative is right."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import datasets, local_minima, networks
from globopt_jax.linalg import machine_epsilon

RELU = networks.feed_forward("relu")
METHODS = ("dense", "gram", "dual")
M, WIDTHS = 60, (5, 6, 6, 3)


def data(seed, biases=False, count=None) -> tuple[Any, np.ndarray, np.ndarray]:
    """Weights (count networks, if given), inputs and targets."""
    rng = np.random.default_rng(seed)
    lead = () if count is None else (count,)
    W = [rng.normal(size=(*lead, *s)) for s in itertools.pairwise(WIDTHS)]
    params = [(w, rng.normal(size=(*lead, w.shape[-1]))) for w in W] if biases else W
    return params, rng.normal(size=(M, WIDTHS[0])), rng.normal(size=(M, WIDTHS[-1]))


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def compiled(method):
    return jax.jit(partial(local_minima.tangent_value, RELU, method=method))


@pytest.mark.parametrize("biases", [False, True])
def test_it_is_the_value_of_the_host_function(compiled, biases):
    for seed in range(4):
        params, X, Y = data(seed, biases)
        found, host = compiled(params, X, Y), local_minima.tangent_projection(RELU, params, X, Y, "dense")
        assert bool(found.sure)
        assert int(found.rank) == int(host.rank)
        assert float(found.value) == pytest.approx(float(host.value), rel=1e-10)


def test_weak_directions_are_not_lost(compiled):
    """Two inputs that differ by 1e-9: below what a Gram matrix resolves, far above the cutoff."""
    params, X, Y = data(0)
    X[:, 1] = X[:, 0] + 1e-9 * np.random.default_rng(1).normal(size=M)
    found, host = compiled(params, X, Y), local_minima.tangent_projection(RELU, params, X, Y, "dense")
    assert int(found.rank) == int(host.rank)
    # Rounding in the entries of A tilts a direction of strength 1e-9 by eps / 1e-9: J is not known any better.
    assert float(found.value) == pytest.approx(float(host.value), rel=1e-6)


def test_a_singular_value_near_the_cutoff_is_said(method):
    """A linear model, whose Jacobian has the singular values of its inputs."""
    rng = np.random.default_rng(0)
    U, V = np.linalg.qr(rng.normal(size=(M, 6)))[0], np.linalg.qr(rng.normal(size=(6, 6)))[0]
    cutoff = 0.5 * machine_epsilon(np.float64) * (M + 6 + 1) ** 0.5
    model = jax.jit(partial(local_minima.tangent_value, networks.feed_forward("linear"), method=method))
    for times, sure in ((3.0, False), (1e8, True)):  # by more than the digits that J needs
        s = np.array([1.0, 0.9, 0.8, 0.7, 0.6, times * cutoff])
        assert bool(model([np.zeros((6, 1))], (U * s) @ V.T, rng.normal(size=(M, 1))).sure) == sure


def test_squares_that_underflow_or_overflow_are_said(method):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(M, 6)), rng.normal(size=(M, 1))
    model = jax.jit(partial(local_minima.tangent_value, networks.feed_forward("linear"), method=method))
    expected = model([np.zeros((6, 1))], X, Y)
    for scale in (1e-300, 1e-157, 1e-151, 1e-100, 0.0, 1e100, 1e157, 1e300):
        found = model([np.zeros((6, 1))], scale * X, Y)
        if found.sure:
            assert (int(found.rank), float(found.value)) == (
                (0, pytest.approx(0.5 * np.sum(Y**2))) if not scale else (6, pytest.approx(float(expected.value)))
            )
        assert bool(found.sure) or scale in (1e-300, 1e-157, 1e-151, 1e157, 1e300)
    assert not bool(model([np.zeros((6, 1))], X, 1e160 * Y).sure)


def test_columns_that_are_nearly_equal_are_said(method):
    """Their difference has few right digits, and so has J, even though the rank is settled."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(M, 6)), rng.normal(size=(M, 1))
    model = jax.jit(partial(local_minima.tangent_value, networks.feed_forward("linear"), method=method))
    for distance, sure in ((1e-12, False), (1e-10, False), (1e-4, True)):
        X[:, 5] = X[:, 0] * (1 + distance * rng.normal(size=M))
        found = model([np.zeros((6, 1))], X, Y)
        assert (int(found.rank), bool(found.sure)) == (6, sure)


def test_the_gradient_is_that_of_differences(method):
    params, X, Y = data(2, biases=True)
    flat, unravel = jax.flatten_util.ravel_pytree((params, X, Y))
    f = jax.jit(lambda v: local_minima.tangent_value(RELU, *unravel(v), method=method).value)
    gradient = np.asarray(jax.jit(jax.grad(f))(flat))
    rng, h = np.random.default_rng(3), 1e-5
    for _ in range(6):
        v = rng.normal(size=flat.shape)
        v /= np.linalg.norm(v)
        difference = (float(f(flat + h * v)) - float(f(flat - h * v))) / (2 * h)
        assert abs(difference - gradient @ v) <= 1e-6 * np.linalg.norm(gradient)


def test_vmap_is_a_loop_also_of_gradients(method, compiled):
    stack, X, Y = data(4, count=3)
    one = partial(local_minima.tangent_value, RELU, method=method)
    found = jax.jit(jax.vmap(one, (0, None, None)))(stack, X, Y)
    slopes = jax.jit(jax.vmap(jax.grad(lambda W: one(W, X, Y).value)))(stack)
    for i in range(3):
        W = [w[i] for w in stack]
        alone = compiled(W, X, Y)
        assert int(alone.rank) == int(found.rank[i])
        assert float(alone.value) == pytest.approx(float(found.value[i]), rel=1e-12)
        slope = jax.grad(lambda W: compiled(W, X, Y).value)(W)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a, b[i], rtol=1e-8, atol=1e-10), slope, slopes)


def test_the_scale_of_layers_changes_nothing(compiled):
    params, X, Y = data(5)
    scaled = [w * c for w, c in zip(params, (1e7, 1e-9, 1e3), strict=True)]
    plain, other = compiled(params, X, Y), compiled(scaled, X, Y)
    assert int(plain.rank) == int(other.rank)
    assert float(plain.value) == pytest.approx(float(other.value), rel=1e-10)


def test_a_dead_network_leaves_everything(compiled):
    params, X, Y = data(6)
    found = compiled([0 * w for w in params], X, Y)
    assert float(found.value) == pytest.approx(0.5 * np.sum(Y**2), rel=1e-14)
    assert int(found.rank) == 0
    assert bool(found.sure)


def test_any_model_and_more_parameters_than_outputs():
    rng = np.random.default_rng(7)
    params = {"a": rng.normal(size=(5, 4)), "b": rng.normal(size=(4, 2))}
    X, Y = rng.normal(size=(8, 5)), rng.normal(size=(8, 2))

    def tanh(p, X):
        return jnp.tanh(X @ p["a"]) @ p["b"]

    host = local_minima.tangent_projection(tanh, params, X, Y)
    found = local_minima.tangent_value(tanh, params, X, Y)
    assert int(found.rank) == int(host.rank) == 16
    assert float(found.value) <= 1e-20


def test_in_float32_the_dense_way_is_that_of_the_host():
    with jax.enable_x64(False):
        params, X, Y = jax.tree.map(lambda a: np.asarray(a, np.float32), data(8))
        found = local_minima.tangent_value(RELU, params, X, Y, method="dense")
        host = local_minima.tangent_projection(RELU, params, X, Y, "dense")
    assert found.value.dtype == np.float32
    assert int(found.rank) == int(host.rank)
    assert float(found.value) == pytest.approx(float(host.value), rel=1e-4)


def assert_the_host_agrees(apply, params, X, Y, method, memory=2**28):
    """J, which is positive, and rank are those of the host, and the gradient is that of differences."""
    host = local_minima.tangent_projection(apply, params, X, Y, "dense")
    one = partial(local_minima.tangent_value, apply, method=method, memory=memory)
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, params))
    f = jax.jit(lambda v: one(unravel(v), X, Y))
    found = f(flat)
    assert bool(found.sure)
    assert int(found.rank) == int(host.rank)
    assert float(host.value) > 0.1
    assert abs(float(found.value) - float(host.value)) <= 1e-10 * 0.5 * np.sum(np.asarray(Y) ** 2)
    gradient = np.asarray(jax.jit(jax.grad(lambda v: f(v).value))(flat))
    rng, h = np.random.default_rng(3), 1e-5
    for _ in range(3):
        v = rng.normal(size=flat.shape)
        v /= np.linalg.norm(v)
        difference = (float(f(flat + h * v).value) - float(f(flat - h * v).value)) / (2 * h)
        assert abs(difference - gradient @ v) <= 1e-6 * np.linalg.norm(gradient)
    many = jax.jit(jax.vmap(f))(jnp.stack([flat, 0.9 * flat]))
    assert bool(many.sure[0])
    assert float(many.value[0]) == pytest.approx(float(found.value), rel=1e-10)


@pytest.mark.parametrize("memory", [pytest.param(2**28, marks=pytest.mark.slow), 5000])
@pytest.mark.parametrize("known", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(("m", "method"), [(24, "dual"), (60, "gram")])
def test_both_sides_in_one_chunk_and_in_many(m, method, known, memory):
    """Twice as many samples as different ones leave J positive with more parameters than outputs."""
    rng = np.random.default_rng(m)
    W = [rng.normal(size=s) for s in itertools.pairwise((5, 8, 7, 3))]
    X, Y = rng.normal(size=(m, 5)), rng.normal(size=(m, 3))
    X[m // 2 :] = X[: m // 2]
    assert (Y.size < sum(w.size for w in W)) == (method == "dual")
    assert_the_host_agrees(RELU if known else lambda p, X: RELU(p, X), W, X, Y, method, memory)


def test_weak_rows_are_not_lost():
    """Two samples that differ by 1e-8, with more parameters than outputs."""
    rng = np.random.default_rng(0)
    W = [rng.normal(size=s) for s in itertools.pairwise((5, 8, 7, 3))]
    X, Y = rng.normal(size=(20, 5)), rng.normal(size=(20, 3))
    X[10:] = X[:10]
    X[10] += 1e-8 * rng.normal(size=5)
    host = local_minima.tangent_projection(RELU, W, X, Y, "dense")
    found = local_minima.tangent_value(RELU, W, X, Y, method="dual")
    assert int(found.rank) == int(host.rank)
    # Rounding tilts a direction of this strength by eps / 1e-8.
    assert float(found.value) == pytest.approx(float(host.value), rel=1e-6)


def thrice(apply):
    """The same model with three parameters in place of each: more parameters than outputs, and J stays positive."""
    return lambda p, X: apply(jax.tree.map(lambda a, b, c: a + jnp.sin(b) + 0.5 * c, *p), X)


@pytest.mark.parametrize("method", ["gram", pytest.param("dual", marks=pytest.mark.slow)])
def test_smooth_networks_with_biases(method):
    rng = np.random.default_rng(5)
    params = [(rng.normal(size=s), rng.normal(size=s[1])) for s in itertools.pairwise((4, 4, 2))]
    X, Y = rng.normal(size=(20, 4)), rng.normal(size=(20, 2))
    network = networks.feed_forward(jnp.tanh)
    if method == "gram":
        assert_the_host_agrees(network, params, X, Y, method)
    else:
        several = [jax.tree.map(lambda a: rng.normal(size=a.shape), params) for _ in range(3)]
        assert_the_host_agrees(thrice(network), several, X, Y, method)


@pytest.mark.parametrize("method", [pytest.param("gram", marks=pytest.mark.slow), "dual"])
def test_a_convolutional_network(method):
    from flax import linen

    class Model(linen.Module):
        @linen.compact
        def __call__(self, X):
            hidden = linen.Conv(2, (3, 3), strides=(2, 2), param_dtype=X.dtype)(X)
            return linen.Dense(4, param_dtype=X.dtype)(linen.tanh(hidden).reshape(len(X), -1))

    rng = np.random.default_rng(0)
    X, Y = jnp.asarray(rng.normal(size=(40, 5, 5, 1))), rng.normal(size=(40, 4))
    apply, variables = networks.from_flax(Model(), Model().init(jax.random.key(0), X))
    if method == "gram":
        assert_the_host_agrees(apply, variables, X, Y, method)
    else:
        several = [jax.tree.map(lambda a: rng.normal(size=a.shape), variables) for _ in range(3)]
        assert_the_host_agrees(thrice(apply), several, X, Y, method)


@pytest.mark.parametrize(("m", "method"), [pytest.param(60, "gram", marks=pytest.mark.slow), (24, "dual")])
@pytest.mark.parametrize("known", [pytest.param(False, marks=pytest.mark.slow), True])
def test_float32_is_computed_in_float64(m, method, known):
    """J, rank and gradient are those of the same numbers in float64, also where x64 is off."""
    rng = np.random.default_rng(m)
    W = [rng.normal(size=s).astype(np.float32) for s in itertools.pairwise((5, 8, 7, 3))]
    X, Y = rng.normal(size=(m, 5)).astype(np.float32), rng.normal(size=(m, 3)).astype(np.float32)
    X[m // 2 :] = X[: m // 2]
    double = jax.tree.map(lambda a: a.astype(np.float64), (W, X, Y))
    host = local_minima.tangent_projection(RELU, double[0], double[1], double[2], "dense")
    slope = jax.jit(jax.grad(lambda W: local_minima.tangent_value(RELU, W, double[1], double[2]).value))
    slopes = [np.asarray(g) for g in slope(double[0])]
    apply = RELU if known else lambda p, X: RELU(p, X)
    for x64 in (False, True):
        with jax.enable_x64(x64):
            one = partial(local_minima.tangent_value, apply, X=X, Y=Y, method=method)
            found = jax.jit(jax.vmap(one))([jnp.stack([w, w]) for w in W])
            twice = jax.vmap(jax.jit(jax.vmap(jax.grad(lambda W, one=one: one(W).value))))
            gradient = [g[0, 0] for g in twice([w[None, None] for w in W])]
            assert found.value.dtype == np.float32
            assert found.sure.all()
            assert int(found.rank[1]) == int(host.rank)
            assert float(found.value[1]) == pytest.approx(float(host.value), rel=1e-6)
            for a, b in zip(gradient, slopes, strict=True):
                assert a.dtype == np.float32
                assert np.max(np.abs(np.asarray(a, np.float64) - b)) <= 1e-5 * np.max(np.abs(b))


def test_a_model_that_insists_on_float32_is_taken_as_it_is():
    params, X, Y = jax.tree.map(lambda a: np.asarray(a, np.float32), data(9))

    def insisting(p, X):
        return RELU([w.astype(jnp.float32) for w in p], X.astype(jnp.float32))

    found = local_minima.tangent_value(insisting, params, X, Y)
    plain = local_minima.tangent_value(insisting, params, X, Y, method="dense")
    assert float(found.value) == float(plain.value)


def trained(W, X, Y, rng):
    """After ten epochs of stochastic gradient descent as KHK19 trains: rate 0.01, momentum 0.5, batches of 64."""
    m, batch = len(X), 64
    orders = np.concatenate([rng.permutation(m)[: m // batch * batch].reshape(-1, batch) for _ in range(10)])

    def loss(W, x, y):
        return 0.5 * jnp.sum(jnp.square(RELU(W, x) - y)) / batch

    def step(state, chosen):
        W, v = state
        v = jax.tree.map(lambda v, g: 0.5 * v + g, v, jax.grad(loss)(W, X[chosen], Y[chosen]))
        return (jax.tree.map(lambda w, v: w - 0.01 * v, W, v), v), None

    return jax.jit(lambda W, orders: jax.lax.scan(step, (W, [0 * w for w in W]), orders)[0][0])(W, orders)


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 4, 8, 16])
@pytest.mark.parametrize("depth", range(1, 7))
def test_a_landscape_is_settled(depth, width):
    """All 1,797 digits, as initialized and after training: sure in nine of ten cells (here all), and then right."""
    digits = datasets.load("digits")
    X, Y = jnp.asarray(digits.X), jnp.asarray(digits.Y)
    size = 0.5 * float(jnp.sum(jnp.square(Y)))
    sizes = (64, *[width] * depth, 10)
    compiled = jax.jit(partial(local_minima.tangent_value, RELU))
    for seed in range(2):
        rng = np.random.default_rng([depth, width, seed])
        start = [jnp.asarray(rng.normal(size=s) / s[1] ** 0.5) for s in itertools.pairwise(sizes)]
        for W in (start, trained(start, X, Y, rng)):
            found, host = compiled(W, X, Y), local_minima.tangent_projection(RELU, W, X, Y)
            assert bool(found.sure)
            assert int(found.rank) == int(host.rank)
            assert abs(float(found.value) - float(host.value)) <= 1e-10 * size


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_callbacks_elsewhere_than_on_cpus(dtype, monkeypatch):
    """The path of other devices, on CPUs: arrays cross as bits, also where x64 is off."""
    params, X, Y = jax.tree.map(lambda a: a.astype(dtype), data(11))
    found = local_minima.tangent_value(RELU, params, X, Y, method="gram")
    jax.clear_caches()
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, cpu, default: default(*arrays))
    with jax.enable_x64(dtype == np.float64):
        other = jax.vmap(lambda W: local_minima.tangent_value(RELU, W, X, Y, method="gram"))([w[None] for w in params])
    jax.clear_caches()
    assert other.sure.all()
    assert int(other.rank[0]) == int(found.rank)
    assert float(other.value[0]) == pytest.approx(float(found.value), rel=1e-6)


def test_a_second_call_traces_nothing():
    count = []

    def counted(p, X):
        count.append(1)
        return RELU(p, X)

    params, X, Y = data(10)
    _ = local_minima.tangent_value(counted, params, X, Y, method="gram")
    first = len(count)
    _ = local_minima.tangent_value(counted, [1.1 * w for w in params], X, Y, method="gram")
    assert len(count) <= first + 1, "the shape of the output is asked for, nothing else"


def test_bad_arguments_are_named():
    params, X, Y = data(0)
    changes: list[dict[str, Any]] = [{"method": "both"}, {"cutoff": "none"}, {"memory": 0}]
    for change in changes:
        with pytest.raises(ValueError, match=f"{next(iter(change))}: Expected"):
            local_minima.tangent_value(RELU, params, X, Y, **change)
    with pytest.raises(ValueError, match="Y: Expected"):
        local_minima.tangent_value(RELU, params, X, Y[:, :2])
