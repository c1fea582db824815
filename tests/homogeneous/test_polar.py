"""The polar: exact values, the search below them, the relaxation above, and the directions that attain them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import homogeneous, losses
from globopt_jax.homogeneous import rigorous
from globopt_jax.homogeneous.effort import Effort
from globopt_jax.homogeneous.grading import dual_ascent
from globopt_jax.homogeneous.polar import ascent, bound_of, directions, relaxation
from tests import oracles


def problem_of(phi, theta=None):
    theta = homogeneous.sum_of_powers() if theta is None else theta
    return homogeneous.Problem(phi, theta, losses.squared, 0.1)


def data(dtype, m=8, dx=2, dy=2, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(m, dy)), dtype), jnp.asarray(rng.normal(size=(m, dx)), dtype)


@pytest.mark.parametrize(
    ("phi", "dx", "kind"),
    [
        (homogeneous.rank_one(), 5, "linear"),
        (homogeneous.deep_subnetwork("linear", layers=3), 5, "linear"),
        (homogeneous.deep_subnetwork("relu", layers=1), 5, "linear"),
        (homogeneous.relu_neuron(), 1, "arcs"),
        (homogeneous.relu_neuron(), 2, "arcs"),
        (homogeneous.relu_neuron(), 3, "relaxation"),
        (homogeneous.deep_subnetwork("relu", layers=2), 3, "relaxation"),
        (homogeneous.deep_subnetwork("absolute", layers=3), 2, "product"),
    ],
)
def test_kind_of_bound(phi, dx, kind):
    """Which bound holds for which map."""
    assert bound_of(problem_of(phi), dx).name == kind


def test_no_bound_for_a_users_map():
    """Nothing is known about it."""
    phi = homogeneous.elemental(lambda w, X: jnp.matmul(X, w[0])[:, None] * w[1], degree=2)
    assert bound_of(problem_of(phi), 1).name == "none"
    theta = homogeneous.regularizer(lambda w: jnp.sum(w[0] ** 2), degree=2)
    assert bound_of(problem_of(homogeneous.relu_neuron(), theta), 1).name == "none"


@pytest.mark.parametrize("norms", ["l2", "l1"])
@pytest.mark.parametrize("slopes", [(0.0, 1.0), (1.0, 1.0)])
def test_search_is_attained_and_below_every_bound(norms, slopes, dtype):
    """theta = 1, the value is that of the first subnetwork, and in the plane it reaches the exact value."""
    phi = homogeneous.neuron(slopes)
    theta = homogeneous.product_of_norms(norms).bind(phi)
    U, X = data(dtype)
    rng = np.random.default_rng(1)
    starts = tuple(jnp.asarray(rng.normal(size=(16, d)), dtype) for d in (2, 2))
    found = jax.jit(lambda U, X: ascent.search(phi, theta, U, X, starts, 150))(U, X)
    best = jax.tree.map(lambda w: w[0], found.params)
    rtol = 1e-5 if dtype == jnp.float32 else 1e-12
    np.testing.assert_allclose(jax.vmap(theta)(found.params), 1, rtol=rtol)
    np.testing.assert_allclose(jnp.sum(U * phi(best, X)), found.value, rtol=rtol)
    assert jnp.all(found.values[:-1] >= found.values[1:])
    A: Any = np.asarray(U, np.float64)
    B: Any = np.asarray(X, np.float64)
    kind = "linear" if slopes[0] == slopes[1] else "arcs"
    bound = rigorous.polar_bound(kind, A, B, slopes, 2, None, (norms,) * 2, (2, 2))
    assert found.value <= bound * (1 + rtol)
    if norms == "l2":
        assert found.value >= bound * (1 - (1e-4 if dtype == jnp.float32 else 1e-6))


def test_search_of_nothing_is_zero(dtype):
    """U = 0 and X = 0: the polar is 0, and no NaN comes out."""
    phi, theta = homogeneous.relu_neuron(), homogeneous.sum_of_powers(2)
    U, X = data(dtype)
    starts = tuple(jnp.ones((4, d), dtype).at[0].set(0) for d in (2, 2))
    search = jax.jit(lambda U, X: ascent.search(phi, theta, U, X, starts, 20))
    for a, b in ((U * 0, X), (U, X * 0), (U * 0, X * 0)):
        found = search(a, b)
        assert found.value == 0
        assert all(bool(jnp.all(jnp.isfinite(w))) for w in jax.tree.leaves(found))


@pytest.mark.parametrize(
    "phi",
    [
        homogeneous.rank_one(),
        homogeneous.neuron((-2.0, -2.0)),
        homogeneous.deep_subnetwork("linear", layers=3),
        homogeneous.relu_neuron(),
        homogeneous.neuron("absolute"),
        homogeneous.deep_subnetwork("leaky_relu", layers=2),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dx", [1, 2])
def test_exact_directions_attain_the_exact_value(phi, dx):
    """The best direction's <U, phi> is the bound, at theta = 1."""
    U, X = (np.asarray(a) for a in data(jnp.float64, dx=dx))
    exact = bound_of(problem_of(phi), dx)
    template = phi.init(jax.random.key(0), r=1, dx=dx, dy=2)
    known = exact.directions(U, X, template)
    assert known is not None
    assert known.attain
    found = known.params
    values = [
        float(np.sum(U * np.asarray(phi(jax.tree.map(lambda w, i=i: jnp.asarray(w[i]), found), jnp.asarray(X)))))
        for i in range(len(jax.tree.leaves(found)[0]))
    ]
    sizes = [1] * phi.layers
    bound = rigorous.polar_bound(exact.name, U, X, phi.slopes, phi.layers, None, ("l2",) * phi.layers, sizes)
    assert max(values) == pytest.approx(bound, rel=1e-10)
    norms = [np.linalg.norm(np.asarray(w).reshape(len(w), -1), axis=1) for w in jax.tree.leaves(found)]
    np.testing.assert_allclose([n[np.argmax(values)] for n in norms], 1, rtol=1e-12)
    assert exact.directions(0 * U, X, template) is None


@pytest.mark.parametrize("norms", ["l1", ("l1", "l2"), "linf"])
def test_directions_for_other_norms_do_not_pass_for_the_polar(norms):
    """Singular vectors attain the polar of deep linear subnetworks for l2 norms only; for others a search goes on."""
    phi = homogeneous.deep_subnetwork("linear", layers=2)
    U, X = (np.asarray(a) for a in data(jnp.float64, dx=3))
    template = phi.init(jax.random.key(0), r=1, dx=3, dy=2)
    known = bound_of(problem_of(phi, homogeneous.sum_of_powers(norms=norms)), 3).directions(U, X, template)
    assert known is not None
    assert not known.attain
    known = bound_of(problem_of(phi), 3).directions(U, X, template)
    assert known is not None
    assert known.attain


@pytest.mark.parametrize("slopes", [(-0.3, 1.0)])
def test_relaxation_agrees_with_its_rigorous_evaluation(slopes, dtype):
    """The differentiable value and the one with margins are the same number, for U of any size; fitting lowers it."""
    U, X = data(dtype, m=6, dx=3)
    groups = jnp.ones((6, 1), dtype)
    bound = jax.jit(lambda U, at: relaxation.bound(U, X, slopes, at))
    for scale in (1.0, 1e-6, 1e6):
        at = relaxation.initial(U * scale, groups)
        multipliers = relaxation.multipliers(U * scale, slopes, at)
        value = rigorous.relaxation_bound(
            np.asarray(U * scale, np.float64), np.asarray(X, np.float64), slopes, multipliers
        )
        rtol = 2e-3 if dtype == jnp.float32 else 1e-8
        assert value == pytest.approx(float(bound(U * scale, at)), rel=rtol)
    if dtype == jnp.float32:
        return
    numbers: dict[str, Any] = {"loss": losses.squared, "slopes": slopes, "lam": 1.0, "U": U, "X": X, "Y": U}
    start = relaxation.initial(U, groups)
    *_, fitted = dual_ascent.ascend(**numbers, start=start, joint=False, steps=60, unit=1.0, chunk=60)
    A: Any = np.asarray(U, np.float64)
    B: Any = np.asarray(X, np.float64)
    better = rigorous.relaxation_bound(A, B, slopes, relaxation.multipliers(U, slopes, fitted.coordinates))
    first = float(bound(U, relaxation.initial(U, groups)))
    truth = oracles.neuron_values(A, B, slopes, np.random.default_rng(0).normal(size=(5000, 3))).max()
    assert truth <= better < 0.9 * first


def test_relaxation_of_a_zero_residual_is_finite():
    """At U = 0 there is nothing to bound, and no NaN."""
    dtype = jnp.float64
    _, X = data(dtype, m=6, dx=3)
    U = jnp.zeros((6, 2), dtype)
    at = relaxation.initial(U, jnp.ones((6, 1), dtype))
    value, gradient = jax.jit(jax.value_and_grad(lambda at: relaxation.bound(U, X, (0.0, 1.0), at)))(at)
    assert jnp.isfinite(value)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in gradient)


def test_directions_finds_what_to_append():
    """Directions above a low floor, none above a high one, and the best about as good as a dense search."""
    problem = problem_of(homogeneous.relu_neuron())
    effort = Effort(fixed=0, joint=0, groups=1, starts=16, climbs=60)
    U, X = data(jnp.float64, dx=3)
    params = tuple(jnp.zeros((2, d)) for d in (3, 2))
    found = directions(problem, params, U, X, jax.random.key(0), effort, floor=0.0)
    nothing = directions(problem, params, U, X, jax.random.key(0), effort, floor=1e6)
    assert nothing.candidates is None
    assert found.candidates is not None
    random = np.random.default_rng(0).normal(size=(5000, 3))
    dense = oracles.neuron_values(np.asarray(U), np.asarray(X), (0.0, 1.0), random).max()
    assert found.polar >= dense * (1 - 1e-3)
