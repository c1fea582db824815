"""Loss and gradients (YSJ18 Lemma 3.2): three associations, one answer, which is autodiff's."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from globopt_jax import deep_linear
from globopt_jax.deep_linear import network
from tests.deep_linear import instances

#: Shapes for which each association is the cheapest, and some corners.
SHAPES = {
    "samples": (4, (9, 2, 9)),
    "inputs": (50, (3, 8, 8, 9)),
    "outputs": (50, (9, 8, 8, 3)),
    "a bottleneck in the residual": (40, (20, 20, 2, 20)),
    "no hidden layer": (7, (3, 2)),
    "one of everything": (1, (1, 1, 1)),
}


def by_autodiff(weights, X, Y):
    def value(weights):
        Z = X
        for w in weights:
            Z = jnp.matmul(Z, w, precision="highest")
        return 0.5 * jnp.sum((Z - Y) ** 2)

    return jax.grad(value)(weights)


def relative(found, wanted):
    return max(
        float(jnp.max(jnp.abs(a - b)) / jnp.maximum(jnp.max(jnp.abs(b)), 1e-30))
        for a, b in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_those_of_autodiff(name, dtype):
    m, widths = SHAPES[name]
    rng = np.random.default_rng(0)
    X, Y = (jnp.asarray(rng.normal(size=(m, d)), dtype) for d in (widths[0], widths[-1]))
    W = [jnp.asarray(rng.normal(size=s), dtype) for s in itertools.pairwise(widths)]
    found = deep_linear.gradients(W, X, Y)
    assert relative(found, by_autodiff(W, X, Y)) <= (1e-12 if dtype == jnp.float64 else 1e-4)
    assert [g.dtype for g in found] == [dtype] * len(W)


def test_each_association_is_chosen_somewhere():
    chosen = [network.cheapest_way(*SHAPES[way]) for way in ("samples", "inputs", "outputs")]
    assert chosen == ["samples", "inputs", "outputs"]
    # Ten thousand samples are looked at twice, not three times a layer.
    assert network.cheapest_way(10_000, (512, 256, 256, 256, 128)) == "outputs"
    assert network.cheapest_way(100, (1000, 10, 1000)) == "samples"


def test_the_cost_of_a_chain_is_that_of_the_best_association():
    assert network._chain_cost((10, 100, 5, 50)) == 10 * 100 * 5 + 10 * 5 * 50
    assert network._chain_cost((3, 4)) == 0


@pytest.mark.parametrize("seed", instances.PROFILES)
def test_gradients_on_random_profiles(seed, dtype):
    """YSJ18 Lemma 3.2: 1e-12 relative in float64."""
    p = instances.profile(seed)
    X, Y = jnp.asarray(p.X, dtype), jnp.asarray(p.Y, dtype)
    W = [jnp.asarray(w, dtype) for w in instances.weights(p, count=10)]
    found = jax.jit(jax.vmap(deep_linear.gradients, (0, None, None)))(W, X, Y)
    wanted = jax.jit(jax.vmap(by_autodiff, (0, None, None)))(W, X, Y)
    for l in range(len(W)):
        scale = jnp.max(jnp.abs(wanted[l]), axis=(1, 2))
        error = jnp.max(jnp.abs(found[l] - wanted[l]), axis=(1, 2))
        assert jnp.max(error / scale) <= (1e-12 if dtype == jnp.float64 else 100 * jnp.finfo(dtype).eps)


def test_loss_against_finite_differences():
    p = instances.profile(2)
    W = [jnp.asarray(w) for w in instances.weights(p)]
    check_grads(lambda w: deep_linear.loss(w, p.X, p.Y), (W,), order=2)
    moved = [jax.jvp(lambda w: deep_linear.gradients(w, p.X, p.Y), (W,), (W,))[1]]
    wanted = jax.jvp(jax.grad(lambda w: deep_linear.loss(w, p.X, p.Y)), (W,), (W,))[1]
    assert relative(moved[0], wanted) < 1e-10


def test_product_and_prediction():
    p = instances.profile(4)
    W = instances.weights(p)
    R = np.linalg.multi_dot(W)
    np.testing.assert_allclose(deep_linear.product(W), R, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(deep_linear.predict(W, p.X), p.X @ R, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(deep_linear.loss(W, p.X, p.Y), instances.loss(W, p.X, p.Y), rtol=1e-12)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([], r"at least one. Received: shapes \[\]"),
        ([(3, 2), (3, 4)], r"kernels of shapes .* Received: shapes \[\(3, 2\), \(3, 4\)\]"),
        ([(3, 2), (2, 5)], r"X, Y: Expected: shapes \(m, 3\) and \(m, 5\).* Received: \(6, 3\) and \(6, 4\)"),
        ([(2, 4)], r"X, Y: Expected: shapes \(m, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(widths, message):
    W = [np.zeros(s) for s in widths]
    for function in (deep_linear.gradients, deep_linear.loss, deep_linear.classify):
        if function is deep_linear.classify and not W:
            continue
        with pytest.raises(ValueError, match=message):
            function(W, np.zeros((6, 3)), np.zeros((6, 4)))
