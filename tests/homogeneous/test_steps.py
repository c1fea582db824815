"""The discrete steps: reduce, tidy, append, pad. None increases the objective, none changes what it should not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import homogeneous, losses
from globopt_jax.homogeneous.capacity import alive, pad
from globopt_jax.homogeneous.problem import objective, penalty, predict
from globopt_jax.homogeneous.training import steps

LAM = 0.3


def two_layer(theta=None, loss=losses.squared):
    theta = homogeneous.sum_of_powers() if theta is None else theta
    return homogeneous.Problem(homogeneous.relu_neuron(), theta, loss, LAM)


def three_layer():
    phi = homogeneous.deep_subnetwork("relu", layers=3)
    return homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.squared, LAM)


def random_params(problem, rng, r, dx=3, dy=2):
    """r subnetworks in NumPy."""
    if isinstance(problem.phi, homogeneous.Neuron):
        return (rng.normal(size=(r, dx)), rng.normal(size=(r, dy)))
    return [rng.normal(size=s) for s in ((r, dx, 2), (r, 2, 2), (r, 2, dy))]


def data(dtype, problem, r, m=4, seed=0):
    """(params, X, Y); with r > 2 m some outputs are dependent."""
    rng = np.random.default_rng(seed)
    params = random_params(problem, rng, r)
    X, Y = rng.normal(size=(m, 3)), rng.normal(size=(m, 2))
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, X, Y))


@pytest.mark.parametrize("make", [two_layer, three_layer])
def test_reduce_keeps_the_prediction_and_lowers_the_penalty(make, dtype):
    """Independent outputs are left; the objective changes by lam sum beta theta, which is <= 0."""
    problem = make()
    params, X, Y = data(dtype, problem, r=12)
    reduced = steps.reduce(problem, params, X)
    # Bounded by independence: 4 samples, 2 outputs.
    assert alive(reduced).sum() <= 8
    before, after = predict(problem, params, X), predict(problem, reduced, X)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(after, before, atol=300 * eps * float(jnp.abs(before).max() + 1))
    change = objective(problem, reduced, X, Y) - objective(problem, params, X, Y)
    difference = LAM * (jnp.sum(penalty(problem, reduced)) - jnp.sum(penalty(problem, params)))
    assert difference <= 0
    np.testing.assert_allclose(change, difference, atol=1e4 * eps)
    # Zeroed ones are exactly zero, and doing it again does nothing.
    for w in jax.tree.leaves(reduced):
        assert not np.any(np.asarray(w)[~alive(reduced)])
    again = steps.reduce(problem, reduced, X)
    assert alive(again).sum() == alive(reduced).sum()


def stacked(*weights):
    """Subnetworks (w1, w2) on a leading axis, float64."""
    return tuple(jnp.asarray(w, jnp.float64) for w in zip(*weights, strict=True))


X0 = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
A, B = ([1.0, 0.5], [1.0]), ([0.2, 1.0], [-0.7])
DEAD = ([-1.0, -2.0], [3.0])  # off on every sample: phi = 0, theta > 0
ZERO = ([0.0, 0.0], [0.0])
TWICE = ([2.0, 1.0], [2.0])  # 4 A, with theta 4 theta(A)


@pytest.mark.parametrize(
    ("name", "params", "count"),
    [
        ("all zero", (ZERO, ZERO), 0),
        ("a single one", (A,), 1),
        ("a single one among zeros", (ZERO, A, ZERO), 1),
        ("independent", (A, B), 2),
        ("equal", (A, A), 1),
        ("three equal", (A, A, A), 1),
        ("parallel", (A, TWICE), 1),
        ("two pairs", (A, B, A, B), 2),
        ("opposite", (A, ([1.0, 0.5], [-1.0])), 0),
        ("off and on", (A, DEAD), 1),
        ("all off", (DEAD, DEAD), 0),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
@pytest.mark.parametrize("make", [homogeneous.sum_of_powers, homogeneous.product_of_norms])
def test_reduce_in_degenerate_cases(name, params, count, make):
    """Ties, duplicates, opposites and subnetworks that do nothing: no NaN, no warning, as few as claimed."""
    problem = two_layer(make())
    before = stacked(*params)
    after = steps.reduce(problem, before, X0)
    assert all(bool(jnp.all(jnp.isfinite(w))) for w in after)
    # One of an opposite pair may survive at rounding's mercy; never more than claimed otherwise.
    assert alive(after).sum() <= max(count, 1)
    if count:
        assert alive(after).sum() == count
    np.testing.assert_allclose(predict(problem, after, X0), predict(problem, before, X0), atol=1e-14)
    assert jnp.sum(penalty(problem, after)) <= jnp.sum(penalty(problem, before)) * (1 + 1e-15)


def test_reduce_with_a_product_of_norms_that_vanishes():
    """w2 = 0 and w1 != 0 has theta = 0: it certifies nothing, divides nothing, and goes."""
    problem = two_layer(homogeneous.product_of_norms())
    after = steps.reduce(problem, stacked(A, ([1.0, 2.0], [0.0]), B), X0)
    np.testing.assert_array_equal(alive(after), [True, False, True])
    np.testing.assert_array_equal(after[0][0], A[0])


def test_tidy_balances_and_drops_what_costs_more_than_it_is_worth(dtype):
    """Equal norms, the same share of the prediction, a lower objective; what does nothing becomes exact zeros."""
    problem = two_layer()
    # Each unit sees one sample, and the targets want twice of it; the second unit is off, the fourth does harm.
    X = jnp.eye(4, dtype=dtype)
    w1 = jnp.diag(jnp.asarray([5, -5, 0.2, 5], dtype))
    params = (w1, jnp.asarray([[1, 0], [1, 0], [3, 1], [-2, 1]], dtype))
    Y = jnp.asarray([2, 2, 2, -2], dtype)[:, None] * predict(problem, params, X)
    tidied = steps.tidy(problem, params, X, Y)
    np.testing.assert_array_equal(alive(tidied), [True, False, True, False])
    sizes = [np.linalg.norm(w, axis=1) for w in tidied]
    np.testing.assert_allclose(sizes[0], sizes[1], rtol=1e-5)
    np.testing.assert_allclose(predict(problem, tidied, X)[:3], predict(problem, params, X)[:3], rtol=1e-5)
    assert objective(problem, tidied, X, Y) < objective(problem, params, X, Y)


LOSSES = [losses.squared, losses.softmax_cross_entropy]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_append_never_increases(loss, dtype):
    """Good directions lower the objective, bad ones stay out; the line search along the scale is exact."""
    problem = two_layer(loss=loss)
    params, X, Y = data(dtype, problem, r=2, m=5)
    if loss.name == "softmax_cross_entropy":
        Y = jnp.eye(2, dtype=dtype)[(Y[:, 0] > 0).astype(int)]
    params = jax.tree.map(lambda w: 0.1 * w, params)
    U = -loss.gradient(predict(problem, params, X), Y)
    # w2 along U^T relu(X w1) is a direction of descent; its opposite is not.
    w1 = X[:3]
    w2 = jnp.matmul(jnp.maximum(jnp.matmul(X, w1.T), 0).T, U)
    value = float(objective(problem, params, X, Y))
    bad, entered = steps.append(problem, params, (w1, -w2), X, Y)
    assert entered == 0
    np.testing.assert_allclose(objective(problem, bad, X, Y), value, rtol=1e-6)
    good, entered = steps.append(problem, params, (w1, w2), X, Y)
    assert 1 <= entered <= 3
    assert objective(problem, good, X, Y) < value
    assert alive(good).sum() == 2 + entered
    one, _ = steps.append(problem, params, (w1[:1], w2[:1]), X, Y)
    found = float(objective(problem, one, X, Y))
    slot = int(np.flatnonzero(alive(one))[-1])
    for factor in (0.9, 0.99, 1.01, 1.1):
        other = jax.tree.map(lambda w, f=factor: w.at[slot].mul(f**0.5), one)
        assert objective(problem, other, X, Y) >= found * (1 - 10 * float(jnp.finfo(dtype).eps))


def test_append_squared_in_closed_form():
    """t* = (<-G, phi> - lam) / ||phi||^2 with theta = 1, entered as t^{1/2} u with balanced u (recipe of the step)."""
    problem = two_layer()
    params, X, Y = data(jnp.float64, problem, r=1, m=5)
    zero = jax.tree.map(jnp.zeros_like, params)
    w1 = np.asarray([1.0, 2.0, -0.5])
    hidden = np.maximum(np.asarray(X) @ w1, 0)
    w2 = hidden @ np.asarray(Y)
    unit = [w1 / np.linalg.norm(w1), w2 / np.linalg.norm(w2)]
    Phi = np.maximum(np.asarray(X) @ unit[0], 0)[:, None] * unit[1]
    t = (np.sum(np.asarray(Y) * Phi) - LAM) / np.sum(Phi**2)
    assert t > 0
    candidate = (jnp.asarray(w1)[None], jnp.asarray(w2)[None])
    found, entered = steps.append(problem, zero, candidate, X, Y)
    assert entered == 1
    np.testing.assert_allclose(found[0][0], np.sqrt(t) * unit[0], rtol=1e-9)
    np.testing.assert_allclose(found[1][0], np.sqrt(t) * unit[1], rtol=1e-9)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_refit_solves_the_convex_problem_in_the_scales(loss, dtype):
    """First-order conditions of ``min over c >= 0``, by autodiff at c = 1 of what came back and of what was zeroed."""
    problem = two_layer(homogeneous.sum_of_powers(norms=("l1", "linf")), loss)
    params, X, Y = data(dtype, problem, r=6, m=5)
    if loss.name == "softmax_cross_entropy":
        Y = jnp.eye(2, dtype=dtype)[(Y[:, 0] > 0).astype(int)]
    fitted = steps.refit(problem, params, X, Y)
    living = alive(fitted)
    assert 0 < living.sum() < 6
    assert objective(problem, fitted, X, Y) < objective(problem, params, X, Y)
    G = loss.gradient(predict(problem, fitted, X), Y)
    slope = jax.vmap(lambda w: problem.phi.inner(w, G, X))(params) + LAM * penalty(problem, params)
    size = np.asarray(LAM * penalty(problem, params))
    tolerance = 1e-6 if dtype == jnp.float64 else 2e-3
    np.testing.assert_array_less(np.abs(slope)[living] / size[living], tolerance)
    np.testing.assert_array_less(-slope[~living] / size[~living], tolerance)


def test_pad_keeps_the_living_and_doubles():
    """The living come first, zeros fill up, and capacity grows by doubling."""
    params = stacked(ZERO, A, ZERO, B)
    padded = pad(params, 2)
    np.testing.assert_array_equal(padded[0], [A[0], B[0]])
    assert pad(params, 1)[0].shape == (2, 2)
    assert pad(params, 8)[0].shape == (8, 2)
    assert pad(stacked(ZERO), 1)[0].shape == (1, 2)
    problem = two_layer()
    many = tuple(jnp.asarray(np.random.default_rng(0).normal(size=(5, d))) for d in (2, 1))
    grown, _ = steps.append(problem, stacked(A, B), many, X0, jnp.ones((3, 1)))
    assert grown[0].shape == (8, 2)
