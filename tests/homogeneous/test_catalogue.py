"""The rest of the catalogue: path norms, cones, tensors of rank one, and Flax modules as maps."""

import itertools
import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from globopt_jax import homogeneous, losses, rigorous
from globopt_jax.homogeneous.path_norms import PathNorm
from globopt_jax.homogeneous.polar import ascent
from globopt_jax.homogeneous.regularizers import ProductOfNorms

KEY = jax.random.key(0)
QUICK = homogeneous.EFFORTS["quick"]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# -- path norms ------------------------------------------------------------------------------------------


def over_paths(kernels, q):
    """The path norm by a list of all paths."""
    kernels = [np.asarray(w, np.float64) for w in kernels]
    units = [range(w.shape[0]) for w in kernels] + [range(kernels[-1].shape[1])]
    paths = (
        [w[a, b] for w, (a, b) in zip(kernels, itertools.pairwise(path), strict=True)]
        for path in itertools.product(*units)
    )
    return sum(abs(np.prod(path)) ** q for path in paths) ** (1 / q)


@pytest.mark.parametrize("q", [1, 2, 1.5])
def test_a_path_norm_sums_over_paths(q, dtype):
    """Its degree is the number of layers, and scale that moves through a unit changes nothing."""
    phi = homogeneous.deep_subnetwork("relu", layers=3)
    theta = homogeneous.path_norm(q).bind(phi)
    kernels = [jnp.asarray(normal(*s, seed=k), dtype) for k, s in enumerate([(3, 2), (2, 4), (4, 2)])]
    rtol = 1e-5 if dtype == jnp.float32 else 1e-12
    assert theta(kernels).dtype == dtype
    np.testing.assert_allclose(theta(kernels), over_paths(kernels, q), rtol=rtol)
    degree, departure = homogeneous.measured_degree(jax.jit(theta), kernels)
    assert degree == pytest.approx(3, abs=1e3 * rtol)
    assert departure < 1e3 * rtol
    factors = jnp.asarray([3.0, 0.25], dtype)
    moved = [kernels[0] * factors[None], kernels[1] / factors[:, None], kernels[2]]
    np.testing.assert_allclose(theta(moved), theta(kernels), rtol=rtol)
    gradient = jax.grad(theta)([0 * w for w in kernels])
    assert all(not np.any(g) for g in gradient)


def test_a_path_norm_of_one_unit_is_a_product_of_norms():
    for phi in (homogeneous.relu_neuron(), homogeneous.cp_tensor(2, 2)):
        assert homogeneous.path_norm(1).bind(phi) == ProductOfNorms("l1").bind(phi)
        assert homogeneous.path_norm(2).bind(phi) == ProductOfNorms("l2").bind(phi)
    phi = homogeneous.relu_neuron()
    weights = (jnp.asarray(normal(3)), jnp.asarray(normal(2)))
    other = homogeneous.path_norm(3).bind(phi)
    assert isinstance(other, PathNorm)
    wanted = math.prod(float(np.linalg.norm(w, 3)) for w in weights)
    np.testing.assert_allclose(other(weights), wanted, rtol=1e-12)


def test_a_path_norm_needs_paths():
    with pytest.raises(TypeError, match="phi: Expected: a map of the catalogue for path_norm"):
        homogeneous.Problem(
            homogeneous.elemental(lambda w, X: X @ w, degree=1), homogeneous.path_norm(), "squared", 1.0
        )
    for q in (0.5, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="q: Expected: a finite number >= 1"):
            homogeneous.path_norm(q)


def test_a_path_norm_is_graded_by_estimates():
    problem = homogeneous.Problem("relu:2", homogeneous.path_norm(2), losses.squared, 1.0)
    params = problem.phi.init(KEY, r=2, dx=3, dy=2, widths=(2,))
    effort = homogeneous.Effort(fixed=0, joint=0, groups=1, starts=4, climbs=4)
    found = homogeneous.certify(problem, params, normal(8, 3), normal(8, 2), effort=effort)
    assert not found.rigorous
    assert "no bound but the trivial one is known" in found.reason


# -- cones -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norms", ["l1", pytest.param("l2", marks=pytest.mark.slow)])
def test_non_negative_matrix_factorization(norms):
    """Against an exhaustive descent from many starts; with l1 norms the bound is tight."""
    Y = np.maximum(normal(6, 5), 0)
    lam = 0.4
    theta = homogeneous.non_negative(homogeneous.sum_of_powers(norms=norms))
    problem = homogeneous.Problem("linear", theta, losses.squared, lam)
    start = jax.tree.map(jnp.abs, problem.phi.init(KEY, r=2, dx=6, dy=5))
    found = homogeneous.minimize(problem, start, np.eye(6), Y, key=KEY, effort="quick")
    assert all(np.all(w >= 0) for w in found.params)
    assert np.all(np.diff(found.trace.objective) <= 1e-12 * found.trace.objective[:-1])
    value = float(found.certificate.objective)
    assert 0 < found.certificate.lower_bound <= value
    if norms == "l1":
        # min over Z >= 0 of 1/2 ||Y - Z||^2 + lam sum Z, since rank-one matrices of one entry cost their value.
        Z = np.maximum(Y - lam, 0)
        optimum = 0.5 * np.sum((Y - Z) ** 2) + lam * Z.sum()
        np.testing.assert_allclose(value, optimum, rtol=1e-6)
        assert found.certificate.relative_gap < 1e-5
        return
    from sklearn.decomposition import NMF

    values = []
    for seed in range(5):
        # scikit-learn's penalties are alpha_W times features, and alpha_H times samples, over two.
        options: Any = {"alpha_W": lam / 5, "alpha_H": lam / 6, "max_iter": 5000, "tol": 1e-10, "n_components": 8}
        nmf = NMF(init="random", random_state=seed, **options)
        W = nmf.fit_transform(Y)
        values.append(
            0.5 * np.sum((Y - W @ nmf.components_) ** 2) + lam / 2 * (np.sum(W**2) + np.sum(nmf.components_**2))
        )
    assert value <= min(values) * (1 + 1e-7)
    assert found.trace.reason.startswith("stop: no polar above lam was found")


def test_a_cone_is_kept():
    """Weights outside are refused, the polar's search stays inside, and the derivative at 0 is the one from above."""
    theta = homogeneous.non_negative("sum_of_powers")
    problem = homogeneous.Problem("linear", theta, losses.squared, 0.5)
    params = (jnp.ones((1, 3)), -jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="params: Expected: weights >= 0, where the penalty is finite"):
        homogeneous.certify(problem, params, np.eye(3), np.ones((3, 2)))
    bound = problem.theta
    found = ascent.search(problem.phi, bound, jnp.asarray(normal(3, 2)), jnp.eye(3), (normal(5, 3), normal(5, 2)), 20)
    assert all(bool(jnp.all(w >= 0)) for w in found.params)
    costs = np.asarray(jax.vmap(bound)(found.params))
    np.testing.assert_allclose(costs, np.where(costs > 0, 1.0, 0.0), rtol=1e-12)  # a start may be projected to zero
    assert costs[0] > 0
    l1 = homogeneous.non_negative(homogeneous.sum_of_powers(1, norms="l1"))
    np.testing.assert_array_equal(jax.grad(l1)(jnp.zeros(3)), np.ones(3))
    assert homogeneous.non_negative(theta) is theta
    with pytest.raises(TypeError, match="theta"):
        homogeneous.non_negative(abs)  # pyright: ignore[reportArgumentType]


# -- tensors of rank one ---------------------------------------------------------------------------------


def tensor_problem(lam=0.5, dims=(3, 2), dx=4, norms="l2"):
    phi = homogeneous.cp_tensor(*dims)
    return homogeneous.Problem(phi, homogeneous.sum_of_powers(norms=norms), losses.squared, lam)


def test_a_tensor_of_orthogonal_parts_is_certified():
    """There the unfoldings are tight: the optimum thresholds the sizes of the parts, as singular values."""
    sizes, lam = np.array([3.0, 2.0, 0.4]), 0.5
    factors = [np.linalg.qr(normal(d, d, seed=d))[0][:, :3].T for d in (4, 3, 5)]
    Y = np.einsum("r,ra,rb,rc->abc", sizes, *factors).reshape(4, -1)
    problem = tensor_problem(lam, dims=(3, 5))
    kept = np.maximum(sizes - lam, 0)
    optimum = 0.5 * np.sum((sizes - kept) ** 2) + lam * kept.sum()
    weights = tuple(jnp.asarray(f * kept[:, None] ** (1 / 3)) for f in factors)
    found = homogeneous.certify(problem, weights, np.eye(4), Y, effort="quick")
    np.testing.assert_allclose(found.objective, optimum, rtol=1e-12)
    assert found.rigorous
    assert found.bound == "unfoldings"
    assert found.relative_gap < 1e-9
    worse = homogeneous.certify(problem, jax.tree.map(lambda w: 1.1 * w, weights), np.eye(4), Y, effort="quick")
    assert worse.relative_gap > 1e-2
    assert worse.lower_bound <= optimum


@pytest.mark.parametrize("norms", ["l1", "l2", "linf"])
def test_the_polar_of_tensors_is_bounded(norms):
    """No tensor of rank one exceeds the bound; a bound from one unfolding of the wrong shape is refused."""
    problem = tensor_problem(norms=norms)
    X, U = normal(5, 4), normal(5, 6)
    params = problem.phi.init(KEY, r=64, dx=4)
    found = ascent.search(problem.phi, problem.theta, jnp.asarray(U), jnp.asarray(X), params, 60)
    upper = rigorous.polar_bound("unfoldings", U, X, (1.0, 1.0), 3, norms=(norms,) * 3, sizes=(4, 3, 2))
    assert 0 < found.value <= upper
    assert norms != "l2" or upper < 1.5 * found.value
    single = rigorous.polar_bound("unfoldings", U, X, (1.0, 1.0), 2, norms=("l2",) * 2, sizes=(4, 6))
    np.testing.assert_allclose(single, np.linalg.norm(X.T @ U, 2), rtol=1e-10)
    for slopes, sizes in (((0.0, 1.0), (4, 3, 2)), ((1.0, 1.0), (4, 3, 3)), ((1.0, 1.0), None)):
        assert rigorous.polar_bound("unfoldings", U, X, slopes, 3, norms=("l2",) * 3, sizes=sizes) == np.inf


def test_the_verifier_knows_tensors():
    problem = tensor_problem()
    X, Y = normal(5, 4), normal(5, 6)
    params = problem.phi.init(KEY, r=3, dx=4)
    found = homogeneous.certify(problem, params, X, Y, effort="quick")
    plain = homogeneous.describe(problem, params, 4)
    arrays = [np.asarray(w) for w in params]
    value, error = rigorous.objective(plain, arrays, X, Y)
    exact = float(homogeneous.objective(problem, params, X, Y))
    assert abs(value - exact) <= error + 1e-13 * exact
    assert 0 < error < 1e-10

    def check(plain, arrays, claimed):
        none = rigorous.empty_multipliers()
        return rigorous.check_certificate(plain, arrays, np.asarray(found.dual_point), none, X, Y, claimed)

    claimed = {"objective": float(found.objective), "lower_bound": float(found.lower_bound)}
    assert check(plain, arrays, claimed).holds
    assert not check(plain, arrays, claimed | {"lower_bound": float(found.lower_bound) * (1 + 1e-9)}).holds
    assert not check(plain | {"slopes": [0.0, 1.0]}, arrays, claimed).holds
    assert not check(plain | {"norms": ["l2", "l21", "l2"]}, arrays, claimed).holds
    assert not check(plain | {"sizes": [4, 2, 3]}, arrays, claimed).holds
    swapped = [arrays[0], arrays[2], arrays[1]]
    assert not check(plain | {"sizes": [4, 2, 3]}, swapped, claimed).holds  # the modes are in another order


def test_products_of_tensors_neither_underflow_nor_overflow_unseen():
    """The error bound covers products that are zero on the way."""
    weights = [np.ones((1, 1)), np.full((1, 1), 1e-200), np.full((1, 1), 1e-200), np.full((1, 1), 1e300)]
    value, error = rigorous.predict(weights, np.ones((1, 1)), (1.0, 1.0))
    assert abs(float(value[0, 0]) - 1e-100) <= error[0, 0]


# -- Flax modules ----------------------------------------------------------------------------------------


class Convolution(linen.Module):
    """A convolution with a bias, ReLU, pooling and a dense layer."""

    bias: bool = False
    pool: str = "max"

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(3, (3, 3))(x))
        x = (linen.max_pool if self.pool == "max" else linen.avg_pool)(x, (2, 2), (2, 2))
        return linen.Dense(2, use_bias=self.bias)(x.reshape(len(x), -1))


@pytest.mark.parametrize("pool", ["max", "average"])
def test_a_flax_module_is_a_map(pool):
    phi = homogeneous.flax_subnetwork(Convolution(pool=pool), degree=2, shape=(4, 4, 1))
    assert phi == homogeneous.flax_subnetwork(Convolution(pool=pool), degree=2, shape=(4, 4, 1))
    assert hash(phi) == hash(homogeneous.flax_subnetwork(Convolution(pool=pool), degree=2, shape=(4, 4, 1)))
    params = phi.init(KEY, r=3, dx=16)
    X = jnp.asarray(normal(5, 16), jnp.float32)

    def single(weights) -> Any:
        return Convolution(pool=pool).apply({"params": weights}, X.reshape(5, 4, 4, 1))

    with jax.numpy_dtype_promotion("standard"):
        wanted = jnp.sum(jax.vmap(single)(params), axis=0)
    np.testing.assert_allclose(phi.total(params, X), wanted, rtol=1e-4, atol=1e-5)
    problem = homogeneous.Problem(phi, "sum_of_powers", losses.squared, 0.1)
    homogeneous.check_degrees(problem, params, X)
    one = {**jax.tree.map(lambda w: w[0], params)}
    degrees = [degree for degree, _ in homogeneous.layer_degrees(phi, one, X)]
    # The bias of the first layer is 0 here; the kernels have degree 1 each.
    np.testing.assert_allclose([d for d in degrees if d], 1, atol=1e-4)


def test_a_flax_module_with_biases_above_the_first_layer_is_refused():
    phi = homogeneous.flax_subnetwork(Convolution(bias=True), degree=2, shape=(4, 4, 1))
    params = jax.tree.map(lambda w: w + 0.1, phi.init(KEY, r=2, dx=16))
    problem = homogeneous.Problem(phi, "sum_of_powers", losses.squared, 0.1)
    with pytest.raises(ValueError, match="phi is not positively homogeneous of the stated degree"):
        homogeneous.check_degrees(problem, params, jnp.asarray(normal(5, 16), jnp.float32))


def test_samples_of_another_shape_are_refused():
    phi = homogeneous.flax_subnetwork(Convolution(), degree=2, shape=(4, 4, 1))
    with pytest.raises(ValueError, match=r"X: Expected: rows of 16 numbers, .* Received: rows of 20\."):
        phi.init(KEY, r=2, dx=20)
    with pytest.raises(ValueError, match=r"X: Expected: rows of 16 numbers"):
        phi.total(phi.init(KEY, r=2, dx=16), jnp.ones((3, 20), jnp.float32))
    with pytest.raises(ValueError, match=r"shape: Expected: the shape of one sample .* Received: \(16,\)"):
        homogeneous.flax_subnetwork(Convolution(), degree=2).init(KEY, r=2, dx=16)


def test_a_penalty_that_forgets_a_layer_is_refused():
    theta = homogeneous.regularizer(lambda w: jnp.sum(jnp.square(w[0])), degree=2)
    problem = homogeneous.Problem("relu", theta, losses.squared, 1.0)
    params = problem.phi.init(KEY, r=2, dx=3, dy=1)
    with pytest.raises(ValueError, match="one that grows more slowly with the weights of layer 1"):
        homogeneous.check_degrees(problem, params, jnp.asarray(normal(5, 3), params[0].dtype))


class Normalized(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2, use_bias=False)(linen.BatchNorm(use_running_average=True)(x))


def test_a_module_with_statistics_is_refused():
    phi = homogeneous.flax_subnetwork(Normalized(), degree=1)
    with pytest.raises(ValueError, match="Received: also batch_stats, on which the output depends"):
        phi.init(KEY, r=2, dx=3)
    with pytest.raises(TypeError, match="module: Expected: a module of flax.linen. Received: function"):
        homogeneous.flax_subnetwork(lambda x: x, degree=1)


@pytest.mark.parametrize(("epsilon", "degree"), [(0.0, 0.0), (1.0, None)])
def test_contrast_normalization_resets_the_degree(epsilon, degree):
    """Below it weights have degree 0; with an epsilon they have no degree, and the map is refused."""

    def normalized(w, X):
        Z = jnp.matmul(X, w[0], precision="highest")
        Z = Z - jnp.mean(Z, axis=1, keepdims=True)
        return jnp.matmul(Z / jnp.sqrt(jnp.sum(Z**2, axis=1, keepdims=True) + epsilon), w[1], precision="highest")

    weights = [jnp.asarray(normal(3, 4)), jnp.asarray(normal(4, 2))]
    X = jnp.asarray(normal(6, 3))
    (below, off), (above, exact) = homogeneous.layer_degrees(normalized, weights, X)
    assert above == pytest.approx(1)
    assert exact < 1e-12
    problem = homogeneous.Problem(homogeneous.elemental(normalized, degree=1), "sum_of_powers", losses.squared, 1.0)
    params = jax.tree.map(lambda w: w[None], weights)
    if degree is None:
        assert off > 1e-3
        with pytest.raises(ValueError, match="phi is not positively homogeneous"):
            homogeneous.check_degrees(problem, params, X)
        return
    assert below == pytest.approx(degree, abs=1e-9)
    assert off < 1e-12


# -- scales ----------------------------------------------------------------------------------------------


def test_path_norms_neither_underflow_nor_overflow(dtype):
    big = 1e9 if dtype == jnp.float32 else 1e100
    rtol = 1e-4 if dtype == jnp.float32 else 1e-11
    phi = homogeneous.deep_subnetwork("relu", layers=2)
    for q in (1, 2, 4, 50):
        theta = homogeneous.path_norm(q).bind(phi)
        ones = [jnp.full((1, 1), 1 / big, dtype), jnp.full((1, 1), big, dtype)]
        np.testing.assert_allclose(theta(ones), 1, rtol=rtol)
        small = [jnp.full((1, 1), 1e-7, dtype)] * 2
        np.testing.assert_allclose(theta(small), 1e-14, rtol=rtol)
        gradient = jax.grad(theta)(ones)
        np.testing.assert_allclose([float(g[0, 0]) for g in gradient], [big, 1 / big], rtol=rtol)


def test_partial_products_of_norms_may_underflow():
    """Ten layers of norms 1e-70 and 1e70, whose product is 1: in JAX, in the verifier, and with its error bound."""
    for sizes in ([1e-70] * 5 + [1e70] * 5, [1e-165] * 2 + [1e165] * 2, [4.4e-323, 1.3e90, 6.6e150]):
        weights = [np.array([[[size]]]) for size in sizes]
        exact = math.prod(map(Fraction, sizes))
        value, error = rigorous.penalty("product_of_norms", weights, ("l2",) * len(sizes))
        assert abs(Fraction(value) - exact) <= Fraction(error)
        assert error <= 1e-10 * exact
    theta = homogeneous.product_of_norms().bind(homogeneous.deep_subnetwork("linear", layers=10))
    weights = [jnp.full((1, 1), size) for size in [1e-70] * 5 + [1e70] * 5]
    np.testing.assert_allclose(theta(weights), 1, rtol=1e-12)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.grad(theta)(weights))


def test_a_cone_takes_a_map_and_a_penalty_of_your_own():
    own = homogeneous.elemental(lambda w, X: jnp.outer(jnp.matmul(X, w[0]), w[1]), degree=2)
    params = (np.ones((1, 2)),) * 2
    effort = homogeneous.Effort(fixed=0, joint=0, groups=1, starts=4, climbs=4)
    penalty = homogeneous.regularizer(lambda w: jnp.sum(jnp.abs(w[0])) * jnp.sum(jnp.abs(w[1])), degree=2)
    for phi, theta in ((own, "sum_of_powers"), ("linear", penalty)):
        problem = homogeneous.Problem(phi, homogeneous.non_negative(theta), losses.squared, 0.3)
        found = homogeneous.certify(problem, params, np.eye(2), np.ones((2, 2)), effort=effort)
        assert found.lower_bound <= found.objective
