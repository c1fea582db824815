"""`certify` at the edges of what is allowed: dtypes, scales, targets beside the simplex, a user's own functions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from globopt_jax import homogeneous, losses, rigorous
from tests import oracles

#: Little work: rigour does not rest on it.
EFFORT = homogeneous.Effort(fixed=30, joint=0, groups=1, starts=8, climbs=20)
M, DY = 8, 3


class Kind(NamedTuple):
    """What is compiled once."""

    slopes: tuple[float, float]
    dx: int
    loss: str


KINDS = [
    Kind((0.0, 1.0), 2, "squared"),
    Kind((0.1, 1.0), 3, "squared"),
    Kind((1.0, 1.0), 3, "softmax_cross_entropy"),
    Kind((0.0, 1.0), 2, "softmax_cross_entropy"),
    Kind((-1.0, 1.0), 3, "softmax_cross_entropy"),
]
DTYPES = ["f8", "f4", ">f8"]
ROWS = ["plain", "ill-scaled", "two sizes", "duplicates"]


def instance(kind: Kind, seed: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], float, str]:
    """(X, Y, weights, lam, dtype) of one draw."""
    rng = np.random.default_rng(seed)
    dtype, rows = DTYPES[seed % 3], ROWS[seed // 3 % 4]
    X = rng.normal(size=(M, kind.dx))
    span = 20 if dtype == "f4" else 65
    if rows == "ill-scaled":  # entries from 1e-130 to 1e65 in float64
        X = X * 10.0 ** rng.uniform(-span * (1 if dtype == "f4" else 2), span / 2, size=(M, 1))
        X[np.argmax(np.abs(X).max(axis=1))] *= 10.0 ** rng.uniform(0, 3)
        X = X / 10.0 ** max(np.log10(np.abs(X).max()) - (8 if dtype == "f4" else 65), 0)
        X = X * 10.0 ** max(-5 - np.log10(np.abs(X).max()), 0)
    elif rows == "two sizes":
        X = X * np.where(np.arange(M) % 2, 1.0, 1e-12 if dtype == "f4" else 1e-100)[:, None]
    elif rows == "duplicates":
        X = X[rng.integers(0, 3, M)] * rng.choice([1.0, -1.0], size=(M, 1))
    floor = 1e-30 if dtype == "f4" else 1e-150
    X = np.where(np.abs(X) < 4 * floor, 0.0, X)
    if kind.loss == "softmax_cross_entropy":
        Y = np.eye(DY)[rng.integers(0, DY, M)]
        if seed % 5 == 1:  # smoothed and rounded
            Y = np.round(0.9 * Y + 0.1 / DY, 6)
        elif seed % 5 == 2:  # sums off by up to 9e-6
            Y = rng.dirichlet(np.ones(DY), size=M) * (1 + rng.uniform(-9e-6, 9e-6, size=(M, 1)))
        elif seed % 5 == 3:
            Y = np.full((M, DY), 0.333333)
    else:
        Y = rng.normal(size=(M, DY)) * (np.ones((M, 1)) if rows == "plain" else 10.0 ** rng.uniform(-8, 2, size=(M, 1)))
    weights = [0.3 * rng.normal(size=(2, n)) for n in (kind.dx, DY)]
    weights[0] = weights[0] / max(np.abs(X).max(), 1e-30)
    lam = float(np.abs(X).max() * 10.0 ** rng.uniform(-7, 0.5))
    return X.astype(dtype), Y.astype(dtype), [w.astype(dtype) for w in weights], lam, dtype


def completed(Y: np.ndarray) -> np.ndarray:
    """Targets with rows that sum to 1: in float64 to an ulp, whatever the package makes of them."""
    return Y / Y.sum(axis=1, keepdims=True)


def objective(kind: Kind, lam: float, w1: Any, w2: Any, X: np.ndarray, Y: np.ndarray) -> float:
    """f of stacked neurons, by a formula of its own; NaN and overflow count as infinite."""
    with np.errstate(all="ignore"):
        Z = oracles.activation(kind.slopes, X @ w1.T) @ w2
        value = float(oracles.loss_values(kind.loss, Z, Y)) + lam / 2 * (np.sum(w1 * w1) + np.sum(w2 * w2))
    return value if np.isfinite(value) else np.inf


def best_found(kind: Kind, lam: float, given: list[np.ndarray], X: np.ndarray, Y: np.ndarray, seed: int) -> float:
    """The least objective of the given weights, of zero, of one neuron along many directions, and of L-BFGS."""
    rng = np.random.default_rng(seed)
    w1, w2 = given
    best = min(objective(kind, lam, w1, w2, X, Y), objective(kind, lam, 0 * w1, 0 * w2, X, Y))
    unit = X / np.where(np.abs(X).max(axis=1, keepdims=True) > 0, np.abs(X).max(axis=1, keepdims=True), 1)
    W = np.concatenate([unit, -unit, rng.normal(size=(8, kind.dx))])
    W = W / np.maximum(np.linalg.norm(W, axis=1, keepdims=True), 1e-300)
    G = (Y.mean(axis=1, keepdims=True) if kind.loss == "softmax_cross_entropy" else 0) - Y
    with np.errstate(all="ignore"):
        for w in W:
            z = oracles.activation(kind.slopes, X @ w)
            size = np.abs(z).max()
            if not size:
                continue
            v = -(z / size) @ G
            v = v / max(np.linalg.norm(v), 1e-300)
            for t in 10.0 ** np.arange(-12, 6.0, 0.5) / size:  # the product of the layers' norms
                best = min(best, objective(kind, lam, np.sqrt(t) * w[None], np.sqrt(t) * v[None], X, Y))
    if np.abs(X).max() < 1e3 and np.abs(X)[X != 0].min(initial=1) > 1e-3:

        def f(p):
            w1, w2 = p[: 3 * kind.dx].reshape(3, -1), p[3 * kind.dx :].reshape(3, -1)
            a = X @ w1.T
            Z = oracles.activation(kind.slopes, a) @ w2
            top = np.exp(Z - Z.max(axis=1, keepdims=True))
            R = Z - Y if kind.loss == "squared" else top / top.sum(axis=1, keepdims=True) - Y
            d1 = ((R @ w2.T) * np.where(a > 0, kind.slopes[1], kind.slopes[0])).T @ X + lam * w1
            d2 = oracles.activation(kind.slopes, a).T @ R + lam * w2
            return objective(kind, lam, w1, w2, X, Y), np.concatenate([d1.ravel(), d2.ravel()])

        for _ in range(2):
            start = rng.normal(size=3 * (kind.dx + DY))
            best = min(best, float(scipy.optimize.minimize(f, start, jac=True, method="L-BFGS-B").fun))
    return best


def assert_never_above(kind: Kind, seeds: range) -> tuple[int, list[float]]:
    """The lower bound is at most everybody's best, the polar's bound at least what a search finds."""
    phi, gaps, proved = homogeneous.neuron(kind.slopes), [], 0
    for seed in seeds:
        X, Y, w, lam, dtype = instance(kind, seed)
        problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.by_name(kind.loss), lam)
        with jax.enable_x64(dtype != "f4"):
            found = homogeneous.certify(problem, tuple(w), X, Y, effort=EFFORT)
        X, Y, *w = (np.asarray(a, np.float64) for a in (X, Y, *w))
        if kind.loss == "softmax_cross_entropy":
            moved = np.abs(completed(Y) - Y).max()
            assert float(found.targets_moved) <= 2 * moved + (2e-7 if dtype == "f4" else 1e-15), seed
            if moved > 1e-6:
                assert "sum to 1 exactly" in found.reason
            Y = completed(Y)
        best = best_found(kind, lam, w, X, Y, seed)
        # Targets completed in float32 are multiples of 2^-24; the loss moves by that times the predictions.
        slack = 1e-6 if dtype == "f4" and kind.loss == "softmax_cross_entropy" else 1e-11
        assert float(found.lower_bound) <= best * (1 + slack), (kind, seed, float(found.lower_bound), best)
        assert float(found.gap_estimate) >= 0
        assert float(found.polar_lower) <= float(found.polar_upper)
        if dtype != "f4" or kind.loss == "squared":
            Z = oracles.activation(kind.slopes, X @ w[0].T) @ w[1]
            top = np.exp(Z - Z.max(axis=1, keepdims=True))
            G = Z - Y if kind.loss == "squared" else top / top.sum(axis=1, keepdims=True) - Y
            directions = oracles.directions_of(X, np.random.default_rng(seed), 100)
            with np.errstate(all="ignore"):
                values = oracles.neuron_values(G, X, kind.slopes, directions)
            assert float(found.polar_upper) >= np.nanmax(values) * (1 - 1e-9), (kind, seed)
        described = homogeneous.describe(problem, tuple(w), kind.dx)
        if dtype != "f4" or kind.loss == "squared":
            targets = losses.by_name(kind.loss).exact_targets(np.asarray(instance(kind, seed)[1], np.float64))
            verdict = rigorous.check_certificate(
                described,
                w,
                np.asarray(found.dual_point),
                found.multipliers,
                X,
                targets,
                found.to_json(),
                found.polar_multipliers,
            )
            assert verdict.holds, (kind, seed, verdict.reason)
        gaps.append((best - float(found.lower_bound)) / max(abs(best), 1e-300))
        proved += bool(found.rigorous)
    return proved, gaps


def test_bounds_hold_at_the_edges():
    """Twelve instances of two kinds: every dtype, every structure of rows, every kind of targets."""
    for kind in (KINDS[1], KINDS[3]):
        proved, _ = assert_never_above(kind, range(12))
        assert proved >= 3  # and they are no empty statements


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bounds_hold_at_the_edges_at_length(kind):
    """Four hundred instances of each kind, two thousand in all."""
    proved, gaps = assert_never_above(kind, range(400))
    print(
        f"\n{kind}: {proved} of 400 better than trivial; gap to the best found: least {min(gaps):.3g}, median "
        f"{np.median(gaps):.3g}"
    )


# --- single cases -----------------------------------------------------------------------------------------------


def test_targets_beside_the_simplex():
    """A sum of 1 + 9e-7 in a thousand rows at a tiny lam: the objective is that of completed targets, and says so."""
    X, Y = np.ones((1000, 1)), np.tile([0.5, 0.5 + 9e-7], (1000, 1))
    zero = (np.zeros((1, 1)), np.zeros((1, 2)))
    with jax.enable_x64(True):
        problem = homogeneous.Problem(
            homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.softmax_cross_entropy, 1e-6
        )
        found = homogeneous.certify(problem, zero, X, Y, effort=EFFORT)
        assert float(found.targets_moved) == pytest.approx(4.5e-7, rel=1e-3)
        assert "sum to 1 exactly (entries moved by up to 4.5e-07)" in found.reason
        # The entropy of (p, 1 - p), 1000 times, is what no network goes below.
        p = (0.5 + 9e-7) / (1 + 9e-7)
        entropy = -1000 * (p * np.log(p) + (1 - p) * np.log1p(-p))
        assert float(found.lower_bound) == pytest.approx(entropy, rel=1e-12)
        # Scores along (1, 1) cost nothing now: at 1e8 the objective is above the bound, not 63,000 below 0.
        s = 1e8
        far = (np.full((1, 1), s**0.5), np.full((1, 2), (s / 2) ** 0.5))
        used = losses.softmax_cross_entropy.exact_targets(Y)
        assert float(homogeneous.objective(problem, far, X, used)) >= float(found.lower_bound)
    # The verifier believes no row: with the targets as they were, nothing is proved.
    described = homogeneous.describe(problem, zero, 1)
    claims = {"objective": float(found.objective), "lower_bound": 0.0}
    verdict = rigorous.check_certificate(described, zero, 0 * Y, rigorous.empty_multipliers(), X, Y, claims)
    assert not verdict.holds
    assert "No lower bound is proved" in verdict.reason


def test_rows_of_thirds_work():
    """0.333333 three times is meant as a third: a finite gap, and no complaint."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(10, 2)), np.full((10, 3), 0.333333)
    for x64 in (True, False):
        with jax.enable_x64(x64):
            dtype = np.float64 if x64 else np.float32
            problem = homogeneous.Problem(
                homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.softmax_cross_entropy, 1e-3
            )
            w = (np.zeros((1, 2), dtype), np.zeros((1, 3), dtype))
            found = homogeneous.certify(problem, w, X.astype(dtype), Y.astype(dtype), effort=EFFORT)
            assert float(found.lower_bound) == pytest.approx(10 * np.log(3), rel=1e-6)
            assert float(found.relative_gap) < 1e-6
            trained = homogeneous.minimize(
                problem, w, X.astype(dtype), Y.astype(dtype), key=jax.random.key(0), effort=EFFORT, outer=1, inner=5
            )
            assert "sum to 1 exactly" in trained.certificate.reason  # whoever grades says so


def test_the_gradient_that_bounds_rest_on_is_not_rounded_to_float32():
    """Three classes, one sample: lam_max is sqrt(2/3), and its upper end is not below."""
    problem = homogeneous.Problem(
        homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.softmax_cross_entropy, 0.5
    )
    X, Y = np.ones((1, 1), np.float32), np.eye(3, dtype=np.float32)[:1]
    w = (np.ones((1, 1), np.float32), np.ones((1, 3), np.float32))
    with jax.enable_x64(False):
        found = homogeneous.lam_max(problem, X, Y, params=w, effort=EFFORT)
    assert float(found.lower) <= np.sqrt(2 / 3) * (1 + 1e-6)
    assert np.sqrt(2 / 3) <= float(found.upper) <= np.sqrt(2 / 3) * (1 + 1e-10)


def test_a_dual_point_that_rounding_forbids_is_scaled_down_a_little_more():
    """Five seeds in float32 all prove the bound; none falls back to the trivial one."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 3)).astype(np.float32)
    Y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 12)]
    problem = homogeneous.Problem(
        homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.softmax_cross_entropy, 0.5
    )
    with jax.enable_x64(False):
        for seed in range(5):
            start = problem.phi.init(jax.random.key(seed), r=4, dx=3, dy=3)
            found = homogeneous.minimize(problem, start, X, Y, key=jax.random.key(seed), effort="quick")
            assert bool(found.certificate.rigorous)
            assert float(found.certificate.relative_gap) < 1e-3
            assert float(found.certificate.gap_estimate) >= 0


def test_tiny_rows_are_refused_or_seen():
    """-1 and 1e-163 with targets 0 and 1e-70: no false minimum, an error that names the entry and what to do."""
    X, Y = np.asarray([[-1.0], [1e-163]]), np.asarray([[0.0], [1e-70]])
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 1e-240)
    zero = (np.zeros((1, 1)), np.zeros((1, 1)))
    with jax.enable_x64(True):
        with pytest.raises(ValueError, match=r"X: Expected: entries that are 0 or at least 1e-150 .* Received: 1e-163"):
            homogeneous.certify(problem, zero, X, Y)
        X[1] = 1e-149  # the smallest that is allowed
        found = homogeneous.certify(problem, zero, X, Y, effort=EFFORT)
    w = [np.full((1, 1), 1e40), np.full((1, 1), 1e39)]
    assert float(found.lower_bound) <= min(
        float(found.objective),
        float(oracles.loss_values("squared", np.maximum(X @ w[0], 0) @ w[1], Y)) + 1e-240 * 0.5 * (1e80 + 1e78),
    )
    assert float(found.polar_upper) >= 1e-70 * 1e-149


def test_weights_whose_objective_overflows_are_refused():
    """Three layers of 1e70: said before any work."""
    phi = homogeneous.deep_subnetwork("relu", layers=3)
    problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.squared, 0.1)
    weights = [np.full(s, 1e70) for s in ((1, 2, 2), (1, 2, 2), (1, 2, 1))]
    with jax.enable_x64(True), pytest.raises(ValueError, match="params: Expected: weights whose objective is a number"):
        homogeneous.certify(problem, weights, np.ones((3, 2)), np.ones((3, 1)))


def test_many_features_need_little_memory():
    """Five samples of 100,000 features: a proof, without anything 100,000 squared."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(5, 100_000)) / 300, rng.normal(size=(5, 1))
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 0.1)
    w = (np.zeros((1, 100_000)), np.zeros((1, 1)))
    with jax.enable_x64(True):
        found = homogeneous.certify(problem, w, X, Y, effort=homogeneous.Effort(60, 0, 1, 16, 60))
    assert bool(found.rigorous)
    assert np.isfinite(float(found.polar_upper))
    assert float(found.polar_lower) <= float(found.polar_upper) <= 1.5 * float(found.polar_lower)


def test_training_with_many_features_works_in_the_span_of_the_samples():
    """Five samples of 1,200 features: the optimum is that of the samples' own coordinates, and so are the weights."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(5, 1200)) / 35, rng.normal(size=(5, 1))
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 0.1)
    small = np.linalg.qr(X.T)[1].T
    with jax.enable_x64(True):
        start = problem.phi.init(jax.random.key(0), r=3, dx=1200, dy=1)
        found = homogeneous.minimize(problem, start, X, Y, key=jax.random.key(1), effort=EFFORT)
        other = problem.phi.init(jax.random.key(0), r=3, dx=5, dy=1)
        right = homogeneous.minimize(problem, other, small, Y, key=jax.random.key(1), effort=EFFORT)
    assert float(found.certificate.objective) == pytest.approx(float(right.certificate.objective), rel=1e-6)
    w1 = np.asarray(found.params[0])
    outside = w1 - w1 @ np.linalg.pinv(X) @ X
    assert np.linalg.norm(outside) <= 1e-12 * np.linalg.norm(w1)


# --- a user's own map or penalty --------------------------------------------------------------------------------


def squared_first(w: Any, X: Any) -> Any:
    """``(X w1)^2 w2^T``: degree 3, but 2 in the first layer."""
    return (jnp.matmul(X, w[0]) ** 2)[:, None] * w[1][None]


def half_space(w: Any) -> Any:
    """0 for half of all weights."""
    return jnp.maximum(w[0][0], 0) ** 2


def cone(w: Any) -> Any:
    """Negative where both layers point the same way."""
    return jnp.sum(w[0] ** 2) + jnp.sum(w[1] ** 2) - 4 * jnp.maximum(jnp.sum(w[0]) * jnp.sum(w[1]), 0)


@pytest.mark.parametrize(
    ("message", "fn"),
    [
        ("theta: Expected: finite values. Received: nan", lambda w: jnp.nan * jnp.sum(w[0] ** 2)),
        (r"theta: Expected: one number .* Received: shape \(2,\)", lambda w: w[0] ** 2),
        ("theta: Expected: values > 0 where phi is not zero", half_space),
        ("theta: Expected: values >= 0", cone),
    ],
)
def test_a_penalty_that_bounds_cannot_rest_on_is_refused(message, fn):
    """NaN, a vector, 0 where phi is not, negative in a cone: each with its own sentence."""
    problem = homogeneous.Problem(homogeneous.rank_one(), homogeneous.regularizer(fn, degree=2), losses.squared, 0.1)
    with jax.enable_x64(True):
        start = problem.phi.init(jax.random.key(0), r=2, dx=2, dy=2)
        with pytest.raises(ValueError, match=message):
            homogeneous.certify(problem, start, np.ones((4, 2)), np.ones((4, 2)))


def test_degrees_of_the_catalogue_are_measured_beside_a_users_map():
    """A product of two norms is no match for a map of degree 3; and a product needs degree 1 in every layer."""
    X, w = np.ones((1, 1)), [np.ones((2, 1)), np.ones((2, 1))]
    with jax.enable_x64(True):
        for degree, message in ((3, r"theta is not .* Received: degree 2"), (2, "phi is not .* Received: degree 3")):
            phi = homogeneous.elemental(squared_first, degree=degree)
            problem = homogeneous.Problem(phi, homogeneous.product_of_norms(), losses.squared, 1.0)
            with pytest.raises(ValueError, match=message):
                homogeneous.certify(problem, w, X, 2 * X)
        phi = homogeneous.elemental(lambda w, X: squared_first(w, X) / jnp.sqrt(1e-30 + jnp.sum(w[1] ** 2)), degree=2)
        problem = homogeneous.Problem(phi, homogeneous.product_of_norms(), losses.squared, 1.0)
        with pytest.raises(ValueError, match="product_of_norms: Expected: a map of degree 1 in every layer"):
            homogeneous.certify(problem, w, X, 2 * X)


def test_layers_are_balanced_for_multilinear_maps_alone():
    """``(x w1)^2 w2`` with a sum of cubes: the polar is 2 * 2^(2/3), above lam, and the search finds it."""
    X, zero = np.ones((1, 1)), [np.zeros((1, 1)), np.zeros((1, 1))]
    with jax.enable_x64(True):
        phi = homogeneous.elemental(squared_first, degree=3)
        problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.squared, 3.05)
        found = homogeneous.certify(problem, zero, X, 2 * X, effort=EFFORT)
        assert float(found.polar_lower) == pytest.approx(2 * 2 ** (2 / 3), rel=1e-6)
        assert "appending it goes down" in found.reason
        a = 0.37
        w = [np.full((1, 1), 2 ** (1 / 3) * a), np.full((1, 1), a)]
        assert float(homogeneous.objective(problem, w, X, 2 * X)) < 2.0


def test_a_users_penalty_is_said_to_be_tried_not_proved():
    """Every bound rests on theta >= 0, which no sampling proves."""
    theta = homogeneous.regularizer(lambda w: jnp.sum(w[0] ** 2) + jnp.sum(w[1] ** 2), degree=2)
    problem = homogeneous.Problem(homogeneous.rank_one(), theta, losses.squared, 0.1)
    with jax.enable_x64(True):
        start = problem.phi.init(jax.random.key(0), r=2, dx=2, dy=2)
        found = homogeneous.certify(problem, start, np.ones((4, 2)), np.ones((4, 2)), effort=EFFORT)
    assert not bool(found.theta_proved)
    assert "tried at random weights and not proved" in found.reason
