"""Regularizers: values, degrees, balance, and derivatives at zero weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from globopt_jax import homogeneous
from globopt_jax.homogeneous.degrees import measured_degree
from globopt_jax.homogeneous.norms import along_face, best_reply, norm
from globopt_jax.homogeneous.problem import objective
from globopt_jax.losses import squared

NORMS = ["l1", "l2", "linf", "l21"]
FLAT = NORMS[:3]
ORDERS = {"l1": 1, "l2": 2, "linf": np.inf}
every_norm = pytest.mark.parametrize("kind", NORMS)


def size(kind, w):
    """The norm in NumPy."""
    w = np.asarray(w, np.float64)
    return float(np.linalg.norm(w, axis=1).sum() if kind == "l21" else np.linalg.norm(w.ravel(), ORDERS[kind]))


def kernels(K, dtype, seed=0):
    """K random kernels of one subnetwork."""
    rng = np.random.default_rng(seed)
    dims = [3, 2, 4, 3, 2][: K + 1]
    return [jnp.asarray(rng.normal(size=s), dtype) for s in itertools.pairwise(dims)]


@every_norm
@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_values_and_degrees(kind, K, dtype):
    """Both penalties written in NumPy; the degree is the number of layers; mixed norms go layer by layer."""
    weights = kernels(K, dtype)
    sizes = [size(kind, w) for w in weights]
    phi = homogeneous.deep_subnetwork("relu", layers=K)
    rtol = 1e-5 if dtype == jnp.float32 else 1e-13
    for theta, expected in (
        (homogeneous.product_of_norms(kind), np.prod(sizes)),
        (homogeneous.sum_of_powers(norms=kind), sum(s**K for s in sizes) / K),
    ):
        bound = theta.bind(phi)
        assert bound.degree == K
        value = bound(weights)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, expected, rtol=rtol)
        degree, departure = measured_degree(jax.jit(bound), weights)
        assert degree == pytest.approx(K, abs=1e3 * rtol)
        assert departure <= 1e3 * rtol


def test_rows_are_for_kernels():
    """l21 has no meaning for the vectors of a neuron."""
    with pytest.raises(ValueError, match=r"l21 for kernels .* Received: a layer of shape \(2,\)"):
        homogeneous.product_of_norms("l21")((jnp.ones(2), jnp.ones(2)))


def test_mixed_norms():
    """A tuple names one norm a layer."""
    weights = (jnp.asarray([3.0, -4.0]), jnp.asarray([1.0, -2.0, 2.0]))
    assert homogeneous.product_of_norms(("l1", "linf"))(weights) == 14
    assert homogeneous.product_of_norms(("linf", "l2"))(weights) == 12
    with pytest.raises(ValueError, match="norms: Expected: one for each of the 2 layers"):
        homogeneous.product_of_norms(("l1",))(weights)


@every_norm
def test_norm_and_its_subgradient_at_zero(kind, dtype):
    """The derivative at 0 is taken as 0, elsewhere it is the derivative."""
    zero = jnp.zeros((1, 3), dtype)
    np.testing.assert_array_equal(jax.grad(lambda w: norm(kind, w))(zero), zero)
    w = jnp.asarray([[1.0, -2.0, 0.5]], dtype)
    unit = np.asarray(w) / np.linalg.norm(w)
    expected = {"l1": np.sign(w), "l2": unit, "linf": [[0, -1, 0]], "l21": unit}[kind]
    np.testing.assert_allclose(jax.grad(lambda w: norm(kind, w))(w), np.asarray(expected, dtype), rtol=1e-6)


def test_derivatives_are_those_of_the_values():
    """Of every penalty, and of the same one with non-negative weights, at weights without a zero or a tie."""
    phi, weights = homogeneous.deep_subnetwork("relu", layers=2), [jnp.abs(w) for w in kernels(2, jnp.float64)]
    plain = [make(norms=kind) for make in (homogeneous.product_of_norms, homogeneous.sum_of_powers) for kind in NORMS]
    plain += [homogeneous.path_norm(q) for q in (1, 2, 3.5)]
    bound = [theta.bind(phi) for theta in plain]
    cones = [homogeneous.non_negative(theta).bind(phi) for theta in plain]
    for thetas in (bound, cones):
        together = jax.jit(lambda w, thetas=thetas: jnp.stack([theta(w) for theta in thetas]))
        check_grads(together, (weights,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("K", [2, 3, 4])
def test_gradient_at_zero_subnetworks(K, dtype):
    """At a subnetwork that is all zero the objective's gradient is 0; with one zero layer it is finite."""
    phi = homogeneous.deep_subnetwork("relu", layers=K)
    makes = (homogeneous.product_of_norms, homogeneous.sum_of_powers)
    problems = [homogeneous.Problem(phi, make(norms=kind), squared, 0.3) for make in makes for kind in NORMS]
    live = kernels(K, dtype)
    zero = [jnp.zeros_like(w) for w in live]
    last = [*live[:-1], zero[-1]]
    params = [jnp.stack(ws) for ws in zip(live, zero, last, strict=True)]
    rng = np.random.default_rng(3)
    X = jnp.asarray(rng.normal(size=(4, 3)), dtype)
    Y = jnp.asarray(rng.normal(size=(4, live[-1].shape[1])), dtype)
    # All norms and both penalties in one compilation.
    gradients = jax.jit(lambda w: [jax.grad(objective, 1)(problem, w, X, Y) for problem in problems])(params)
    for gradient in gradients:
        for g in gradient:
            assert np.all(np.isfinite(g))
            np.testing.assert_array_equal(g[1], np.zeros_like(g[1]))
        assert np.any(np.asarray(gradient[0])[0] != 0)


@every_norm
@pytest.mark.parametrize("K", [2, 3])
def test_balance(kind, K, dtype):
    """Equal norms, the same product and output, a sum of powers not larger; zero if one layer is."""
    phi = homogeneous.deep_subnetwork("relu", layers=K)
    weights = kernels(K, dtype)
    weights[0] = weights[0] * 7
    X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), dtype)
    rtol = 1e-4 if dtype == jnp.float32 else 1e-12
    product, powers = homogeneous.product_of_norms(kind), homogeneous.sum_of_powers(norms=kind)
    balanced = jax.jit(powers.balance)(weights)
    sizes = [float(norm(kind, w)) for w in balanced]
    np.testing.assert_allclose(sizes, sizes[0], rtol=rtol)
    np.testing.assert_allclose(product(balanced), product(weights), rtol=rtol)
    np.testing.assert_allclose(phi(balanced, X), phi(weights, X), rtol=rtol, atol=rtol)
    assert powers(balanced) < powers(weights)
    # Arithmetic against geometric mean: both penalties agree on balanced layers.
    np.testing.assert_allclose(powers(balanced), product(balanced), rtol=rtol)
    dead = powers.balance([*weights[:-1], jnp.zeros_like(weights[-1])])
    assert all(not np.any(w) for w in dead)


@pytest.mark.parametrize("kind", NORMS)
def test_best_reply_attains_the_dual_norm(kind, dtype):
    """``<g, reply>`` is g's dual norm with a reply in the unit ball; a gradient of zeros is no trouble."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), dtype)
    reply = best_reply(kind, g)
    assert float(norm(kind, reply)) == pytest.approx(1, rel=1e-6)
    if kind == "l21":
        dual = np.linalg.norm(g, axis=1).max()
    else:
        dual = np.linalg.norm(np.asarray(g).ravel(), ord={"l1": np.inf, "l2": 2, "linf": 1}[kind])
    assert float(jnp.sum(g * reply)) == pytest.approx(dual, rel=1e-6)
    assert bool(jnp.all(jnp.isfinite(best_reply(kind, jnp.zeros((2, 1), dtype)))))


@pytest.mark.parametrize("kind", NORMS)
def test_along_face_the_norm_has_no_kink(kind):
    """Forth and back along the face the norm changes by opposite amounts; across it it would not."""
    w = jnp.asarray([[2.0], [-2.0], [0.0], [0.5], [2.0]])
    g = jnp.asarray([[1.0], [3.0], [1.0], [-1.0], [0.2]])
    along, t = along_face(kind, w, g), 1e-4

    def kink(d):
        return abs(float(norm(kind, w + t * d) + norm(kind, w - t * d) - 2 * norm(kind, w)))

    assert kink(along) < 1e-7
    assert kind == "l2" or kink(g) > 1e-5
    # A projection: doing it again changes nothing, and it never points uphill.
    np.testing.assert_allclose(along_face(kind, w, along), along)
    assert float(jnp.sum(along * g)) >= 0


@pytest.mark.parametrize("norms", ["l3", "", (), ("l2", "max")])
def test_unknown_norms_are_refused(norms):
    """The message lists what there is."""
    for make in (homogeneous.product_of_norms, homogeneous.sum_of_powers):
        with pytest.raises(ValueError, match="norms: Expected: one of l1, l2, linf.* Received:"):
            make(norms=norms)


@pytest.mark.parametrize("power", [0, -1, float("nan")])
def test_powers_must_be_positive(power):
    """And so must the degree of a user's penalty."""
    with pytest.raises(ValueError, match="power: Expected: a number > 0"):
        homogeneous.sum_of_powers(power)
    with pytest.raises(ValueError, match="degree: Expected: a finite number > 0"):
        homogeneous.regularizer(abs, degree=power)
