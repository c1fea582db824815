"""Theorem 2 and its corollaries at trained minima, with equality; and where they fail, as they should."""

import jax
import numpy as np
import pytest

from globopt_jax import deep_linear, local_minima
from tests.local_minima import minima
from tests.local_minima.instances import jacobian


def features_of(X, W, activation):
    Phi = [X]
    for w, pairs in zip(W[:-1], activation, strict=True):
        Z = Phi[-1] @ w
        negative, positive = np.asarray(pairs).T
        Phi.append(np.where(Z > 0, positive * Z, negative * Z))
    return Phi


def right_side(X, Y, W, activation, layer):
    """Theorem 2's for S = {layer}, from one NumPy decomposition: what features and hidden blocks leave of Y together;
    and whether the features lie in the tangent space anyway."""

    def basis(columns):
        U, s, _ = np.linalg.svd(columns / np.linalg.norm(columns), full_matrices=False)
        return U[:, s > 1e-12 * s[0]]

    A = jacobian(W, X, activation)
    features = np.kron(features_of(X, W, activation)[layer], np.eye(W[-1].shape[1]))
    hidden = A[:, : A.shape[1] - W[-1].size]
    U = basis(np.concatenate([features / np.linalg.norm(features), hidden / np.linalg.norm(hidden)], axis=1))
    y = Y.ravel()
    whole = basis(A)
    outside = np.linalg.norm(features - whole @ (whole.T @ features)) / np.linalg.norm(features)
    return 0.5 * np.sum((y - U @ (U.T @ y)) ** 2), outside < 1e-10


def regression_value(X, Y, W, activation, S):
    """1/2 ||PN[Phi^(S)] Y||^2 with features written out here and NumPy's lstsq."""
    Phi = features_of(X, W, activation)
    if not len(S):
        return 0.5 * np.sum(Y**2)
    features = np.concatenate([Phi[l] for l in S], axis=1)
    return 0.5 * np.sum((Y - features @ np.linalg.lstsq(features, Y, rcond=1e-12)[0]) ** 2)


def assert_equality(seed, method="auto"):
    """Return whether a set that reaches below t has too small a right side; None where there is no such set to try."""
    found = minima.trained(seed)
    W, X, Y, activation, t = found
    size = 0.5 * np.sum(Y**2)
    bounds = local_minima.regression_bounds(W, X, Y, activation, method=method)
    assert int(bounds.t) <= t
    assert np.all(bounds.admissible)
    assert len(bounds.layers) == 2 ** (len(W) - int(bounds.t)) or len(W) - int(bounds.t) > 4
    assert np.max(np.abs(bounds.value - bounds.loss)) <= 1e-9 * size
    assert np.max(bounds.residuals[int(bounds.t) :]) <= 1e-9
    assert float(bounds.stationarity) <= 1e-9
    for chosen, regression in zip(bounds.layers, bounds.regression, strict=True):
        wanted = regression_value(X, Y, W, activation, np.flatnonzero(chosen))
        assert float(regression) == pytest.approx(wanted, abs=1e-9 * size)
        assert float(bounds.loss) <= regression + 1e-9 * size
    total = sum(np.sum(s, axis=1) for s in bounds.shares)
    np.testing.assert_allclose(total, bounds.improvement, atol=1e-12 * size)
    # J is the bound for no features but with the output block: the same at a minimum.
    J = local_minima.decompose(W, X, Y, activation)
    assert float(J.value) == pytest.approx(float(bounds.loss), abs=1e-9 * size)
    if not int(bounds.t):
        return None
    reached = int(bounds.t) - 1
    below = local_minima.regression_bounds(W, X, Y, activation, [(reached,)])
    assert not np.any(below.admissible)
    # Lemma 4 fails below t, unless the kinked units, by opposite or equal patterns, give these features back.
    wanted, contained = right_side(X, Y, W, activation, reached)
    assert float(below.value[0]) == pytest.approx(wanted, abs=1e-9 * size)
    if contained:
        assert float(bounds.residuals[reached]) <= 1e-9
        return None
    assert float(bounds.residuals[reached]) > 1e-6
    return wanted < float(bounds.loss) - 1e-8 * size


def test_equality_at_a_trained_minimum_and_failure_below_t():
    assert assert_equality(1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "gram"])
@pytest.mark.parametrize("block", range(5))
def test_equality_at_fifty_trained_minima(block, method, make_room):
    """Seeds of one shape together, one program trains; a set that reaches below t makes the right side too small."""
    below = []
    for seed in range(block, 50, 5):
        below.append(assert_equality(seed, method))
        make_room()
    controls = [failed for failed in below if failed is not None]
    assert (sum(controls) >= 3) == (minima.SHAPES[block][1] > 0)


def test_stationary_is_not_enough():
    """A deep linear network of zeros: stationary, dy linear units from t = 0 on, and above its regression."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    zeros = [np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 2))]
    found = local_minima.regression_bounds(zeros, X, Y, "linear", [(), (0,), (2,)])
    assert float(found.stationarity) == 0
    assert "no local minimum" in found.reason
    assert np.all(found.admissible)
    assert float(found.loss) == pytest.approx(0.5 * np.sum(Y**2))
    assert float(found.value[1]) == pytest.approx(float(deep_linear.global_minimum(X, Y, 2).value))
    assert float(found.value[1]) < float(found.loss) - 1
    assert float(found.residuals[0]) > 0.1, "Lemma 4 fails"


def test_deep_linear_networks_end_where_deep_linear_says():
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    best = deep_linear.global_minimum(X, Y, 2)
    W = deep_linear.factors(best.map, (3, 4, 3, 2))
    found = local_minima.regression_bounds(W, X, Y, "linear")
    assert int(found.t) == 0
    np.testing.assert_allclose(found.value, float(best.value), rtol=1e-10)
    assert float(found.regression[1]) == pytest.approx(float(best.value), rel=1e-12), "the features X alone"
    assert deep_linear.classify(W, X, Y).kind == "global_minimum"


def test_corollary_1_holds_at_restricted_minima():
    """Without the edges that vanish, and without their derivatives; with those it is not an equality."""
    W, X, Y, activation, _ = minima.restricted(0)
    size = 0.5 * np.sum(Y**2)
    sets = [(), (0,), (1, 3), (0, 1, 2, 3)]
    bounds = local_minima.regression_bounds(W, X, Y, activation, sets, restricted=True, tolerance=1e-12)
    assert int(bounds.t) == 0
    assert float(bounds.margin) > 0
    assert np.max(bounds.residuals) <= 1e-9
    assert np.max(np.abs(bounds.value - bounds.loss)) <= 1e-9 * size
    whole = local_minima.regression_bounds(W, X, Y, activation, sets[:2], tolerance=1e-12)
    assert np.max(whole.value) < float(bounds.loss) * (1 - 1e-5), "more derivatives, less is left: no local minimum"


@pytest.mark.slow  # KHK19 Cor 2 is a claim, which runs in every suite
def test_corollary_2_holds_where_units_are_strongly_separated():
    W, X, Y, activation, t = minima.trained(3)
    found = local_minima.regression_bounds(W, X, Y, activation, strong=True)
    assert int(found.t) == t == 1
    assert [np.flatnonzero(row).tolist() for row in found.layers] == [[], [1], [2], [1, 2]]
    np.testing.assert_allclose(found.value, float(found.loss), atol=1e-9 * 0.5 * np.sum(Y**2))


def test_strongly_separated_units_take_the_first_and_the_last_layer():
    X = np.random.default_rng(3).normal(size=(20, 3))
    X[:, 0] = 1
    W = local_minima.with_linear_units(jax.random.key(0), X, (5, 6, 4, 2), 1, strong=True)
    found = local_minima.regression_bounds(W, X, np.ones((20, 2)), strong=True)
    assert int(found.t) == 1
    assert [np.flatnonzero(row).tolist() for row in found.layers] == [[], [1], [3], [1, 3]]


def test_results_are_stored(tmp_path):
    found = local_minima.regression_bounds([np.eye(2), np.ones((2, 1))], np.eye(2), np.ones((2, 1)))
    found.save(tmp_path / "bounds.npz")
    again = local_minima.RegressionBounds.load(tmp_path / "bounds.npz")
    assert np.array_equal(found.value, again.value)
    assert "regression" in str(again)
    assert found.to_json()["t"] == int(found.t)


def test_layers_that_are_none_are_named():
    with pytest.raises(ValueError, match="restricted, strong: Expected: one of them"):
        local_minima.regression_bounds(
            [np.eye(2), np.ones((2, 1))], np.eye(2), np.ones((2, 1)), restricted=True, strong=True
        )
    with pytest.raises(ValueError, match="sets: Expected: sets of layers, at least one"):
        local_minima.regression_bounds([np.eye(2), np.ones((2, 1))], np.eye(2), np.ones((2, 1)), sets=[])
    with pytest.raises(ValueError, match=r"sets: Expected: an integer, 0..1. Received: 2"):
        local_minima.regression_bounds([np.eye(2), np.ones((2, 1))], np.eye(2), np.ones((2, 1)), sets=[(0, 2)])


def test_targets_of_zero_do_not_hide_a_slope():
    X, W = np.ones((3, 2)), [(np.eye(2), None), np.ones((2, 1))]
    found = local_minima.regression_bounds(W, X, np.zeros((3, 1)))
    assert float(found.loss) == pytest.approx(6)
    assert np.all(found.value <= 1e-20)
    assert float(found.stationarity) > 0.1
    assert np.all(found.residuals > 0.1)


def test_lost_precision_is_said_once():
    """float64 data where x64 is off."""
    W, X = [np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32)], np.eye(2, dtype=np.float32)
    with jax.enable_x64(False), pytest.warns(UserWarning, match="computed in float32") as seen:
        local_minima.regression_bounds(W, X, np.ones((2, 1)))
    assert len(seen) == 1


def test_units_of_the_inputs_hide_no_slope_and_overflow_is_named():
    rng = np.random.default_rng(0)
    W, X, Y = [rng.normal(size=s) for s in ((3, 4), (4, 2))], rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    slope = [float(local_minima.regression_bounds(W, s * X, Y, sets=[()]).stationarity) for s in (1e-12, 1e-200)]
    assert slope[0] > 1e-3
    assert slope[1] == pytest.approx(slope[0])
    for call in (local_minima.regression_bounds, local_minima.decompose):
        with pytest.raises(ValueError, match="apply: Expected: a finite output for these params and X"):
            call(W, 1e200 * X, Y)


def test_a_small_layer_does_not_hide_a_slope():
    """Free of the weights' units: the last layer of zeros moves, and everything scaled by 1e-6 does."""
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    W = [rng.normal(size=s) for s in ((3, 3), (3, 2))]
    for scales in ((1, 0), (1e-6, 1e-6), (1e-6, 1)):
        found = local_minima.regression_bounds(
            [s * w for s, w in zip(scales, W, strict=True)], X, Y, "leaky_relu", [()]
        )
        assert float(found.stationarity) > 0.01
        assert "not stationary" in found.reason
