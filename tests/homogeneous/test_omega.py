"""Omega from both sides: the nuclear norm, planar ReLU networks, and maps of which only the degree is known."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import datasets, homogeneous

KEY = jax.random.key(0)


def outputs(phi, params, X):
    return np.asarray(phi.total(params, jnp.asarray(X)))


@pytest.mark.parametrize("theta", ["sum_of_powers", "product_of_norms"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (60, 40)])
def test_the_nuclear_norm_from_both_sides(shape, theta):
    Z = np.random.default_rng(0).normal(size=shape)
    found = homogeneous.omega("linear", theta, Z, np.eye(shape[0]), key=KEY)
    nuclear = np.linalg.svd(Z, compute_uv=False).sum()
    np.testing.assert_allclose([found.lower, found.upper], nuclear, rtol=1e-9)
    assert found.lower <= nuclear * (1 + 1e-15)
    assert found.rigorous
    np.testing.assert_allclose(outputs(homogeneous.rank_one(), found.params, np.eye(shape[0])), Z, atol=1e-12)
    assert len(found.params[0]) <= min(shape)


@pytest.mark.parametrize(("m", "dx"), [(9, 4), (4, 9)])
def test_linear_neurons_on_inputs(m, dx):
    """The nuclear norm of X^+ Z, over the slope."""
    rng = np.random.default_rng(1)
    X, M = rng.normal(size=(m, dx)), rng.normal(size=(dx, 3))
    phi = homogeneous.neuron((-2.0, -2.0))
    found = homogeneous.omega(phi, "sum_of_powers", X @ M, X, key=KEY)
    wanted = np.linalg.svd(np.linalg.pinv(X) @ X @ M, compute_uv=False).sum() / 2
    np.testing.assert_allclose([found.lower, found.upper], wanted, rtol=1e-9)
    np.testing.assert_allclose(outputs(phi, found.params, X), X @ M, rtol=1e-9, atol=1e-9)


def test_outputs_out_of_reach():
    """Two equal samples have equal outputs; then Omega is infinite."""
    X, Z = np.ones((2, 1)), np.array([[1.0], [-1.0]])
    found = homogeneous.omega("linear", "sum_of_powers", Z, X, key=KEY)
    assert np.isinf(found.upper)
    assert float(found.residual) == 1
    assert "infinite if there is no such sum" in found.reason
    assert float(found.lower) > 1e12  # the inverse of rounding
    nothing = homogeneous.omega("linear", "sum_of_powers", Z, 0 * X, key=KEY)
    assert (float(nothing.lower), float(nothing.upper)) == (np.inf, np.inf)
    assert nothing.reason == "Omega(Z) is infinite: no sum of subnetworks is Z."
    rng = np.random.default_rng(0)
    partly = homogeneous.omega("linear", "sum_of_powers", rng.normal(size=(5, 4)), rng.normal(size=(5, 3)), key=KEY)
    assert (float(partly.upper), float(partly.residual)) == (np.inf, 1)
    assert float(partly.lower) > 1e12
    assert not any(np.any(w) for w in partly.params)
    zero = homogeneous.omega("relu", "sum_of_powers", 0 * Z, X, key=KEY)
    assert (float(zero.lower), float(zero.upper)) == (0, 0)
    dead = homogeneous.omega("relu", "sum_of_powers", Z, 0 * X, key=KEY, effort="quick")
    assert np.isinf(dead.upper)  # no subnetwork has an output


def test_many_subnetworks_are_no_excuse_for_what_is_left_of_the_outputs(dtype):
    """One row of 201 is out of reach: a seventh of Z in one case, a thousandth in another."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(201, 200))
    Z[-1] *= 2
    for targets, X in ((Z, np.eye(201, 200)), ([[1.0], [1.0], [1e-3]], np.eye(3, 2))):
        Z, X = (jnp.asarray(a, dtype) for a in (targets, X))
        assert np.isinf(homogeneous.omega("linear", "sum_of_powers", Z, X, key=KEY).upper)


def test_tiny_inputs_in_float32():
    """Duals of linear programs are as large as the inputs are small: |a| + |b| over the size of the inputs."""
    x = np.array([[1.0], [-0.5], [2.0], [-3.0]], np.float32)
    a, b = np.array([0.34375, 0.828125]), np.array([0.328125, -1.296875])
    Z = np.float32(np.maximum(x, 0) * a + np.maximum(-x, 0) * b)
    truth = (np.linalg.norm(a) + np.linalg.norm(b)) * 2**20
    with jax.enable_x64(False):
        found = homogeneous.omega("relu", "sum_of_powers", Z, x * np.float32(2**-20), key=KEY, effort="quick")
    assert 0.9 * truth <= found.lower <= truth
    assert found.lower <= found.upper <= 1.1 * truth


@pytest.mark.parametrize(
    ("m", "dy"), [pytest.param(*s, marks=pytest.mark.slow) for s in ((6, 1), (12, 1), (12, 2), (20, 3))]
)
def test_planar_neurons_from_both_sides(m, dy):
    """The polar is exact for two inputs, so both sides meet; the network that made Z costs more.

    The notebook on Omega asserts that both sides meet in every run.
    """
    rng, phi = np.random.default_rng(m), homogeneous.relu_neuron()
    X = rng.normal(size=(m, 2))
    W = phi.init(KEY, r=40, dx=2, dy=dy)
    Z = outputs(phi, W, X)
    found = homogeneous.omega(phi, "sum_of_powers", Z, X, key=KEY)
    assert found.rigorous
    assert 0 <= float(found.upper - found.lower) <= 1e-6 * float(found.upper)
    np.testing.assert_allclose(outputs(phi, found.params, X), Z, atol=1e-12 * np.abs(Z).max())
    assert len(found.params[0]) <= Z.size
    assert float(found.upper) < 0.99 * float(jnp.sum(jax.vmap(homogeneous.sum_of_powers(power=2))(W)))
    if m == 6:
        assert float(found.upper) <= by_grid(X, Z) * (1 + 1e-9)
        assert float(found.lower) >= by_grid(X, Z) * (1 - 1e-4)


def by_grid(X, Z):
    """The cheapest sum of neurons along a fine grid of directions, by a linear program."""
    t = np.linspace(0, 2 * np.pi, 3001)
    features = np.maximum(X @ np.stack([np.cos(t), np.sin(t)]), 0)
    from scipy.optimize import linprog

    return linprog(np.ones(2 * len(t)), A_eq=np.hstack([features, -features]), b_eq=Z[:, 0]).fun


@pytest.mark.slow
def test_tensors_with_orthogonal_factors():
    """Omega is the sum of the weights, and the unfoldings prove it."""
    phi, rng = homogeneous.cp_tensor(3, 2), np.random.default_rng(3)
    factors = [np.linalg.qr(rng.normal(size=(n, 2)))[0].T for n in (4, 3, 2)]
    factors[0] *= np.array([[3.0], [1.0]])
    Z = np.einsum("ra,rb,rc->abc", *factors).reshape(4, 6)
    np.testing.assert_allclose(outputs(phi, tuple(map(jnp.asarray, factors)), np.eye(4)), Z, atol=1e-12)
    np.testing.assert_allclose([np.linalg.svd(M, compute_uv=False).sum() for M in phi.unfolded(Z)], 4, rtol=1e-12)
    found = homogeneous.omega(phi, "product_of_norms", Z, np.eye(4), key=KEY, effort="quick")
    assert found.rigorous
    np.testing.assert_allclose(found.lower, 4, rtol=1e-12)
    np.testing.assert_allclose(found.upper, 4, rtol=1e-6)
    assert found.lower <= 4 <= found.upper * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 6])
def test_random_tensors(n):
    phi = homogeneous.cp_tensor(n, n)
    W = phi.init(KEY, r=n, dx=n)
    Z = outputs(phi, W, np.eye(n))
    found = homogeneous.omega(phi, "product_of_norms", Z, np.eye(n), key=KEY, params=W, effort="quick")
    assert found.rigorous
    unfolding = max(np.linalg.svd(M, compute_uv=False).sum() for M in phi.unfolded(Z))
    np.testing.assert_allclose(found.lower, unfolding, rtol=1e-9)
    given = float(jnp.sum(jax.vmap(homogeneous.product_of_norms().bind(phi))(W)))
    assert unfolding * (1 - 1e-12) <= float(found.upper) <= given * (1 + 1e-9)
    np.testing.assert_allclose(outputs(phi, found.params, np.eye(n)), Z, atol=1e-10 * np.abs(Z).max())


@pytest.mark.slow
def test_a_map_of_your_own():
    """A CP tensor: the upper side is attained, and no bound of its polar is known."""

    def cp(w, X):
        return jnp.outer(X @ w[0], jnp.outer(w[1], w[2]).ravel())

    rng = np.random.default_rng(2)
    phi = homogeneous.elemental(cp, degree=3)
    params = [rng.normal(size=(2, 2)) for _ in range(3)]
    Z = outputs(phi, [jnp.asarray(w) for w in params], np.eye(2))
    found = homogeneous.omega(phi, "sum_of_powers", Z, np.eye(2), key=KEY, params=params, effort="quick")
    assert not found.rigorous
    assert float(found.lower) == 0
    given = float(jnp.sum(jax.vmap(homogeneous.sum_of_powers(power=3))([jnp.asarray(w) for w in params])))
    assert float(found.upper) <= given
    np.testing.assert_allclose(outputs(phi, found.params, np.eye(2)), Z, atol=1e-9 * np.abs(Z).max())
    unfolding = np.linalg.svd(Z, compute_uv=False).sum()  # the nuclear norm of an unfolding is a lower bound
    assert float(found.upper) >= unfolding * (1 - 1e-9)


def test_every_tensor_is_a_sum():
    """Two parts whose sum the search for other parts does not find: subnetworks that span all outputs have it."""
    T = np.einsum("i,j,k->ijk", [1.0, 2, 0], [1.0, 0], [2.0, 1]) + np.einsum("i,j,k->ijk", [0, 0, 3.0], [0, 1], [1, -1])
    phi = homogeneous.cp_tensor(2, 2)
    found = homogeneous.omega(phi, "product_of_norms", T.reshape(3, 4), np.eye(3), key=KEY, effort="quick")
    np.testing.assert_allclose([found.lower, found.upper], 5 + 3 * 2**0.5, rtol=1e-8)


def test_non_negative_sums():
    """Without given subnetworks the search draws some in the cone; Z has the rank 1 and no negative entry."""
    found = homogeneous.omega(
        "linear", homogeneous.non_negative("sum_of_powers"), np.ones((2, 2)), np.eye(2), key=KEY, effort="quick"
    )
    np.testing.assert_allclose([found.lower, found.upper], 2, rtol=1e-6)
    assert found.residual < 1e-13


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Z": np.ones((3, 2))}, "X, Z: Expected: shapes (m, dx) and (m, dy)."),
        ({"Z": np.full((2, 2), np.inf)}, "Z: Expected: finite numbers."),
        ({"phi": "tanh"}, "phi: Expected: one of relu, leaky_relu, absolute, linear"),
        ({"phi": homogeneous.elemental(lambda w, X: X @ w, degree=1)}, "params: Expected: some subnetworks"),
        ({"theta": homogeneous.sum_of_powers(power=3)}, "degree"),
    ],
)
def test_bad_input(changes, message):
    given = {"phi": "relu", "theta": "sum_of_powers", "Z": np.ones((2, 2)), "X": np.eye(2)}
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = homogeneous.omega(**given | changes, key=KEY)


@pytest.mark.parametrize("seed", range(4))
def test_the_five_properties_over_random_cases(seed):
    """50 cases of each seed: 0 only at 0, degree 1, subadditive, convex, attained by at most card(Z) subnetworks."""
    rng = np.random.default_rng(seed)

    def value(Z):
        found = homogeneous.omega("linear", "sum_of_powers", Z, X, key=KEY)
        assert found.lower <= found.upper * (1 + 1e-12)
        assert found.upper <= found.lower * (1 + 1e-9)
        assert len(found.params[0]) <= Z.size
        return float(found.upper)

    X = rng.normal(size=(4, 4))
    assert value(np.zeros((4, 3))) == 0
    for _ in range(50):
        A, B = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)) * 10.0 ** rng.uniform(-3, 3)
        t, scale = rng.uniform(), 10.0 ** rng.uniform(-3, 3)
        a, b = value(A), value(B)
        assert min(a, b) > 0
        assert value(scale * A) == pytest.approx(scale * a, rel=1e-10)
        assert value(A + B) <= (a + b) * (1 + 1e-10)
        assert value(t * A + (1 - t) * B) <= (t * a + (1 - t) * b) * (1 + 1e-10)


@pytest.mark.slow
def test_the_five_properties_of_planar_relu_networks():
    """Bounds on both sides stand in for the value: a violation would need a lower bound above an upper one."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4, 2))

    def value(Z):
        found = homogeneous.omega("relu", "product_of_norms", Z, X, key=KEY, effort="quick")
        assert found.lower <= found.upper <= found.lower * (1 + 1e-6)
        assert len(found.params[0]) <= 4
        return float(found.lower), float(found.upper)

    for _ in range(10):
        A, B, t = rng.normal(size=(4, 1)), rng.normal(size=(4, 1)), rng.uniform()
        (_, a), (_, b) = value(A), value(B)
        assert value(A + B)[0] <= a + b
        assert value(t * A + (1 - t) * B)[0] <= t * a + (1 - t) * b
        assert value(3 * A)[1] == pytest.approx(3 * a, rel=1e-6)


def without_columns(monkeypatch):
    """What large outputs get."""
    monkeypatch.setattr(sys.modules[homogeneous.omega.__module__], "COLUMNS", 0)


BRIEF = homogeneous.Effort(60, 0, 1, 16, 60)


def test_neurons_by_training_in_place_of_columns(monkeypatch):
    """Z to the last digits, and sides around the program over a fine grid of directions."""
    without_columns(monkeypatch)
    rng, phi, m = np.random.default_rng(0), homogeneous.relu_neuron(), 12
    X = rng.normal(size=(m, 2))
    Z = np.array(outputs(phi, phi.init(KEY, r=6, dx=2, dy=1), X))
    found = homogeneous.omega(phi, "sum_of_powers", Z, X, key=KEY, effort=BRIEF)
    assert float(found.residual) <= 1e-13
    np.testing.assert_allclose(outputs(phi, found.params, X), Z, atol=1e-12)
    assert len(found.params[0]) <= m
    grid = by_grid(X, Z)
    assert grid * (1 - 1e-3) <= float(found.upper) <= 1.2 * grid
    assert 0.5 * grid <= float(found.lower) <= grid
    assert found.rigorous
    # Two equal samples with different outputs are out of reach.
    X[1], Z[1] = X[0], Z[0] + 1
    assert np.isinf(homogeneous.omega(phi, "sum_of_powers", Z, X, key=KEY, effort=BRIEF).upper)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deep", "tensor"])
def test_other_maps_by_training_in_place_of_columns(name, monkeypatch):
    """Z to the last digits, at a cost near that of the network that made it."""
    without_columns(monkeypatch)
    phi, X = homogeneous.deep_subnetwork("relu", layers=3), np.random.default_rng(0).normal(size=(8, 2))
    if name == "tensor":
        phi, X = homogeneous.cp_tensor(3, 2), np.eye(4)
    W = phi.init(KEY, r=3, dx=X.shape[1], dy=2, widths=(2, 2) if name == "deep" else ())
    Z, theta = outputs(phi, W, X), homogeneous.product_of_norms().bind(phi)
    found = homogeneous.omega(phi, theta, Z, X, key=KEY, params=[w[:1] for w in jax.tree.leaves(W)], effort=BRIEF)
    assert float(found.residual) <= 1e-13
    np.testing.assert_allclose(outputs(phi, found.params, X), Z, atol=1e-12)
    assert len(found.params[0]) <= Z.size
    assert 0 < float(found.lower) <= float(found.upper) <= 1.2 * float(jnp.sum(jax.vmap(theta)(W)))
    assert found.rigorous


@pytest.mark.slow
def test_digits():
    """A hundred of them, 64 pixels to 10 classes."""
    digits = datasets.load("digits", samples=100, key=0)
    found = homogeneous.omega("relu", "sum_of_powers", digits.Y, digits.X, key=KEY, effort="quick")
    assert found.rigorous
    assert float(found.residual) <= 1e-12
    assert 4 <= float(found.lower) <= float(found.upper) <= 16


def test_small_parts_and_ill_conditioned_inputs_are_in_reach():
    rng = np.random.default_rng(0)
    many = homogeneous.omega("linear", "sum_of_powers", np.diag([1.0] + [8e-15] * 39), np.eye(40), key=KEY)
    np.testing.assert_allclose([many.lower, many.upper], 1 + 39 * 8e-15, rtol=1e-11)
    X = np.linalg.qr(rng.normal(size=(6, 6)))[0] * 10.0 ** -np.arange(0, 12, 2)
    found = homogeneous.omega("linear", "sum_of_powers", rng.normal(size=(6, 3)), X, key=KEY)
    assert 1e9 < float(found.lower) <= float(found.upper) < 1.001 * float(found.lower)
    assert float(found.residual) < 1e-5  # rounding of weights of 1e10
