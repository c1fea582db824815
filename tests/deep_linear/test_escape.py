"""The way down from every saddle, and the way up from everywhere (YSJ18 Lemma B.1)."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear, linalg
from globopt_jax.deep_linear import exact
from tests.deep_linear import instances
from tests.precision import slow_in_float32

RADII = (1e-1, 1e-2, 1e-3)


def exactly(old, new, X, Y):
    """loss(new) - loss(old) by rational arithmetic, entry by entry."""

    def rational(A):
        return [[Fraction(float(a)) for a in row] for row in np.asarray(A, np.float64)]

    def times(A, B):
        return [[sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*B, strict=True)] for row in A]

    def loss(weights):
        Z = rational(X)
        for w in weights:
            Z = times(Z, rational(w))
        return sum((z - y) ** 2 for a, b in zip(Z, rational(Y), strict=True) for z, y in zip(a, b, strict=True))

    return float((loss(new) - loss(old)) / 2)


def distance(old, new):
    return np.sqrt(
        sum(np.sum((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2) for a, b in zip(old, new, strict=True))
    )


def assert_left(W, p, radius, seed=0):
    """A decrease within the radius, and the loss itself lower wherever float64 can tell."""
    found = deep_linear.escape(W, p.X, p.Y, radius, jax.random.key(seed))
    assert found.found, (p.widths, radius, found.method)
    assert found.decrease > 0
    assert distance(W, found.weights) <= radius
    assert found.distance <= radius
    before, after = (instances.loss(w, p.X, p.Y) for w in (W, found.weights))
    if float(found.decrease) > 100 * linalg.machine_epsilon(jnp.float64) * before:
        assert after < before
        rounding = float(100 * linalg.machine_epsilon(jnp.float64) * before)  # of the difference of losses
        np.testing.assert_allclose(before - after, found.decrease, rtol=1e-6, atol=rounding)
    return found


@pytest.mark.parametrize("seed", instances.PROFILES)
def test_every_saddle_is_escaped(seed, request):
    """Strict and degenerate ones, plain and with changes of basis of condition 1e3, three radii."""
    p = instances.profile(seed)
    everything = instances.subsets(p)
    slow = "slow" in request.config.getoption("-m") and "not slow" not in request.config.getoption("-m")
    some = everything if slow else everything[:: max(1, len(everything) // 4)]
    for number, indices in enumerate(some):
        for key in (None, jax.random.key(number)):
            W = deep_linear.critical_point(p.X, p.Y, p.widths, indices, key, condition=1e3)
            if deep_linear.classify(W, p.X, p.Y).kind == "global_minimum":
                found = deep_linear.escape(W, p.X, p.Y, 0.1, jax.random.key(0))
                assert not found.found
                assert found.decrease == 0
                assert all(a is b for a, b in zip(found.weights, W, strict=True))
                continue
            for radius in RADII:
                _ = assert_left(W, p, radius)


@pytest.mark.parametrize("hidden", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_degenerate_saddles_by_hand(hidden):
    """All zeros: nothing within the radius gains more than about (radius / sqrt(H+1))^(H+1) s_1(X^T Y)."""
    p = instances.profile(2, hidden=hidden, deficient=False)
    W = [np.zeros(s) for s in itertools.pairwise(p.widths)]
    for radius in RADII:
        found = assert_left(W, p, radius)
        most = (radius / (hidden + 1) ** 0.5) ** (hidden + 1) * np.linalg.norm(p.X.T @ p.Y, 2)
        assert 0.3 * most <= found.decrease <= 1.0001 * most
        assert exactly(W, found.weights, p.X, p.Y) == pytest.approx(-float(found.decrease), rel=1e-6)
        assert ("chain" in found.method) or hidden == 1


def test_decreases_below_the_rounding_of_floats_are_exact():
    """Six layers, with and without a change of basis: the rational loss goes down, by the number that is told."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    for key in (None, jax.random.key(0)):
        W = deep_linear.critical_point(X, Y, (3,) * 7, (0,), key, condition=1e2)
        found = deep_linear.escape(W, X, Y, 1e-3, jax.random.key(0))
        assert found.found
        assert float(found.decrease) < 1e-18
        assert exactly(W, found.weights, X, Y) == pytest.approx(-float(found.decrease), rel=1e-9)


def test_exact_increments_are_those_of_rational_arithmetic():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    W = [rng.normal(size=(2, 2)), np.zeros((2, 2))]
    for scale in (1.0, 1e-30, 1e-200, 0.0):
        new = [w + scale * rng.normal(size=(2, 2)) for w in W]
        np.testing.assert_allclose(exact.increments(W, X, Y)(new), exactly(W, new, X, Y), rtol=1e-15)


def test_each_method_has_its_place():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    p = instances.Profile((4, 2, 3, 4), X, Y)
    moving = assert_left(instances.weights(p), p, 0.1)
    assert moving.method.startswith("gradient")
    swapped = deep_linear.critical_point(X, Y, p.widths, (0, 2))  # of full rank, the second direction is not kept
    left = assert_left(swapped, p, 0.1)
    assert left.method.split(":")[0] in ("rotation", "curvature")
    assert assert_left(deep_linear.critical_point(X, Y, p.widths, (0,)), p, 0.1).method.startswith("chain")


def test_escapes_lead_to_the_global_minimum():
    """From the degenerate saddle at zero, by escapes and gradient descent in turn."""
    p = instances.profile(2, deficient=False)
    W = [jnp.zeros(s) for s in itertools.pairwise(p.widths)]
    step = jax.jit(lambda W: [w - 2e-3 * g for w, g in zip(W, deep_linear.gradients(W, p.X, p.Y), strict=True)])
    for number in range(8):
        found = deep_linear.escape(W, p.X, p.Y, 0.3, jax.random.key(number))
        if not found.found:
            break
        W = found.weights
        for _ in range(3000):
            W = step(W)
    assert deep_linear.classify(W, p.X, p.Y).kind == "global_minimum"


@slow_in_float32
@pytest.mark.parametrize("seed", instances.PROFILES)
def test_no_point_is_a_local_maximum(seed, dtype):
    """YSJ18 Lemma B.1: at zero, at critical points, at random ones."""
    p = instances.profile(seed)
    X, Y = jnp.asarray(p.X, dtype), jnp.asarray(p.Y, dtype)
    for number, W in enumerate(
        [
            [np.zeros(s) for s in itertools.pairwise(p.widths)],
            instances.weights(p),
            deep_linear.critical_point(p.X, p.Y, p.widths, instances.subsets(p)[-1]) if dtype == jnp.float64 else None,
        ]
    ):
        if W is None:
            continue
        W = [jnp.asarray(w, dtype) for w in W]
        found = deep_linear.ascend(W, X, Y, 0.1, jax.random.key(number))
        assert found.found
        assert found.increase > 0
        assert distance(W, found.weights) <= 0.1
        assert [w.dtype for w in found.weights] == [dtype] * len(W)
        before, after = (instances.loss(w, X, Y) for w in (W, found.weights))
        if float(found.increase) > 1e4 * linalg.machine_epsilon(dtype) * before:
            assert after > before


@pytest.mark.parametrize(
    ("function", "change", "error", "message"),
    [
        ("escape", {"radius": 0.0}, ValueError, "radius: Expected: a positive number. Received: 0.0"),
        ("escape", {"radius": np.nan}, ValueError, "radius: Expected: a positive number"),
        ("escape", {"key": 3}, TypeError, "key: Expected: one jax.random.key"),
        ("ascend", {"X": np.zeros((3, 2))}, ValueError, "X: Expected: at least one entry that is not 0"),
        ("ascend", {"radius": -1.0}, ValueError, "radius: Expected: a positive number"),
        ("escape", {"weights": [np.full((2, 2), np.inf)]}, ValueError, r"weights\[0\]: Expected: finite"),
    ],
)
def test_bad_input_is_named(function, change, error, message):
    good = {"weights": [np.eye(2)], "X": np.ones((3, 2)), "Y": np.ones((3, 2)), "radius": 0.1, "key": jax.random.key(0)}
    with pytest.raises(error, match=message):
        getattr(deep_linear, function)(**(good | change))


def test_a_radius_below_the_resolution_of_the_weights_finds_nothing_or_less():
    """Weights of size 1 in float32 cannot move by 1e-9: nothing is found, and nothing beyond the radius comes back."""
    with jax.enable_x64(False):
        X = Y = jnp.eye(2)
        W = [jnp.eye(2), jnp.diag(jnp.asarray([1.0, 0.0]))]
        found = deep_linear.escape(W, X, Y, 1e-9, jax.random.key(0))
        assert distance(W, found.weights) <= 1e-9
        found = deep_linear.escape(W, X, Y, 1e-1, jax.random.key(0))
        assert found.found
        assert found.weights[0].dtype == jnp.float32
        assert distance(W, found.weights) <= 1e-1


def test_zero_weights_are_no_local_maximum_for_any_key():
    """The first random change may lose more than the climb gains; its opposite, or another one, does not."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(10, 2)), rng.normal(size=(10, 2))
    W = [np.zeros((2, 5)), np.zeros((5, 2))]
    for seed in range(60):
        up = deep_linear.ascend(W, X, Y, 0.1, jax.random.key(seed))
        assert up.found
        assert instances.loss(up.weights, X, Y) > instances.loss(W, X, Y)
