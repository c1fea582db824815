"""The meta-algorithm reaches the optimum that independent oracles know, from everywhere, and proves it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from globopt_jax import homogeneous, losses
from globopt_jax.homogeneous.capacity import alive
from globopt_jax.homogeneous.training import descent
from tests.oracles import global_minimum, plain_lbfgs


def scalar_problem(seed, m=None):
    """A random scalar regression problem in two dimensions; lam is a tenth of lam_max."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(20, 61)) if m is None else m
    X, noise = rng.normal(size=(m, 2)), rng.normal(size=(m, 1))
    teacher = np.maximum(X @ [1, 0.5], 0) - np.maximum(X @ [-0.3, 0.8], 0)
    Y = noise if seed % 2 else teacher[:, None] + 0.1 * noise
    phi, theta = homogeneous.relu_neuron(), homogeneous.sum_of_powers()
    one = phi.init(jax.random.key(0), r=1, dx=2, dy=1)
    top = homogeneous.lam_max(homogeneous.Problem(phi, theta, losses.squared, 1.0), X, Y, params=one)
    return homogeneous.Problem(phi, theta, losses.squared, 0.1 * float(top.lower)), X, Y


def assert_global(problem, X, Y, optimum, r, seed, gap=1e-6):
    start = problem.phi.init(jax.random.key(seed), r=r, dx=2, dy=1)
    found = homogeneous.minimize(problem, start, X, Y, key=jax.random.key(seed + 1))
    objective, bound = float(found.certificate.objective), float(found.certificate.lower_bound)
    assert abs(objective - optimum) <= 1e-6 * optimum
    assert bool(found.certificate.rigorous)
    assert float(found.certificate.relative_gap) <= gap
    assert bound <= optimum * (1 + 1e-8)  # the oracle's own accuracy
    assert_never_increases(found.trace)


def assert_never_increases(trace):
    objective = np.asarray(trace.objective)
    assert np.all(np.diff(objective) <= 8 * np.finfo(np.float64).eps * np.abs(objective[:-1]))


@pytest.mark.parametrize("r", [1, 5])
def test_scalar_problems_reach_the_convex_optimum(r):
    problem, X, Y = scalar_problem(seed=3, m=30)
    # The last Newton steps leave a gap that the objective's rounding would hide from a line search.
    assert_global(problem, X, Y, global_minimum("squared", X, Y, problem.lam), r, seed=0, gap=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_twenty_scalar_problems_from_every_start(seed):
    problem, X, Y = scalar_problem(seed)
    optimum = global_minimum("squared", X, Y, problem.lam)
    for r in (1, 2, 5):
        for start in range(3):
            assert_global(problem, X, Y, optimum, r, seed=10 * start)


def vector_sets(count, m=25, dy=5):
    """Targets of a wide teacher with several outputs: many directions share the optimum, most of them on kinks."""
    draw = np.random.RandomState(100).randn
    for _ in range(count):
        U, V, X = draw(2, 100), draw(dy, 100), draw(m, 2)
        yield X, np.maximum(X @ U, 0) @ V.T


def prove_in_the_plane(X, Y, lam):
    """The polar is known exactly there, so the gap is what the weights lack; and plain descent is not below."""
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, lam)
    start = problem.phi.init(jax.random.key(0), r=10, dx=2, dy=Y.shape[1])
    found = homogeneous.minimize(problem, start, X, Y, key=jax.random.key(1))
    assert bool(found.certificate.rigorous)
    assert 0 <= float(found.certificate.relative_gap) <= 1e-6
    assert float(found.certificate.objective) <= plain_lbfgs("squared", start, X, Y, lam) * (1 + 1e-6)
    assert_never_increases(found.trace)
    assert "if there is no better one, at most" in found.trace.reason


def test_several_outputs_in_the_plane_are_proved():
    prove_in_the_plane(*next(vector_sets(1, m=14, dy=3)), 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(10))
def test_ten_sets_of_several_outputs_are_proved(index):
    X, Y = list(vector_sets(index + 1))[index]
    for lam in (0.1, 0.01):
        prove_in_the_plane(X, Y, lam)


def nuclear_norm_optimum(Y, lam):
    sigma = np.linalg.svd(Y, compute_uv=False)
    kept = np.maximum(sigma - lam, 0)
    return 0.5 * np.sum((sigma - kept) ** 2) + lam * np.sum(kept)


def factorize(shape, r, lam, seed=0):
    Y = np.random.default_rng(seed).normal(size=shape)
    lam = lam * np.linalg.norm(Y, 2)
    problem = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, lam)
    start = problem.phi.init(jax.random.key(seed), r=r, dx=shape[0], dy=shape[1])
    found = homogeneous.minimize(problem, start, np.eye(shape[0]), Y, key=jax.random.key(1))
    return found, nuclear_norm_optimum(Y, lam)


@pytest.mark.parametrize("r", [1, 20])
def test_factorization_has_the_nuclear_norms_value(r):
    found, optimum = factorize((12, 9), r, 0.3)
    assert abs(float(found.certificate.objective) / optimum - 1) <= 1e-9
    assert float(found.certificate.relative_gap) <= 1e-8
    assert_never_increases(found.trace)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(30, 40), (100, 60), (200, 100)])
@pytest.mark.parametrize("r", [1, 20])
@pytest.mark.parametrize("lam", [0.5, 0.1])
def test_large_factorizations(shape, r, lam):
    found, optimum = factorize(shape, r, lam)
    assert abs(float(found.certificate.objective) / optimum - 1) <= 1e-9
    assert float(found.certificate.relative_gap) <= 1e-7


def test_factorization_in_float32_says_what_it_can_resolve():
    with jax.enable_x64(False):
        Y = np.random.default_rng(0).normal(size=(12, 9)).astype(np.float32)
        problem = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, 1.5)
        start = problem.phi.init(jax.random.key(0), r=3, dx=12, dy=9)
        found = homogeneous.minimize(problem, start, np.eye(12, dtype=np.float32), Y, key=jax.random.key(1))
        assert found.params[0].dtype == jnp.float32
        optimum = nuclear_norm_optimum(Y.astype(np.float64), 1.5)
        assert abs(float(found.certificate.objective) / optimum - 1) <= 1e-5
        assert float(found.certificate.lower_bound) <= optimum
        assert float(found.certificate.resolution) > 1e-6


def test_a_local_minimum_of_too_few_units_is_not_certified():
    """With one neuron held fixed in number, the polar exceeds lam and the gap stays open."""
    problem, X, Y = scalar_problem(seed=3, m=30)
    start = problem.phi.init(jax.random.key(0), r=1, dx=2, dy=1)
    arguments = (problem, start, jnp.asarray(X), jnp.asarray(Y))
    options = {"key": jax.random.key(0), "effort": homogeneous.EFFORTS["quick"]}
    stuck = next(p for p in homogeneous.iterate(*arguments, **options) if "escape" in p.trace.reason)
    certificate = homogeneous.certify(problem, stuck.params, X, Y, effort="quick")
    assert float(certificate.polar_lower) > 1.01 * problem.lam
    assert float(certificate.relative_gap) > 1e-3


def test_certify_finds_a_better_dual_point_for_weights_that_are_not_converged():
    problem, X, Y = scalar_problem(seed=3, m=30)
    optimum = global_minimum("squared", X, Y, problem.lam)
    random = problem.phi.init(jax.random.key(4), r=3, dx=2, dy=1)
    quick = homogeneous.certify(problem, random, X, Y, effort="quick")
    standard = homogeneous.certify(problem, random, X, Y)
    assert float(quick.lower_bound) < 0.99 * optimum
    assert optimum * (1 - 1e-6) <= float(standard.lower_bound) <= optimum * (1 + 1e-8)
    assert float(standard.objective) == float(quick.objective)


def test_a_path_in_lam_compiles_once_and_is_graded_everywhere():
    problem, X, Y = scalar_problem(seed=3, m=30)
    lams = problem.lam * np.geomspace(5, 0.5, 5)
    many = homogeneous.Problem(problem.phi, problem.theta, problem.loss, lams)
    start = problem.phi.init(jax.random.key(0), r=1, dx=2, dy=1)
    compiled, seen = [], []
    for solution in homogeneous.path(many, start, X, Y, key=jax.random.key(1), capacity=16):
        compiled.append(descent.descend._cache_size())
        seen.append(solution)
    for lam, solution in zip(lams, seen, strict=True):
        optimum = global_minimum("squared", X, Y, lam)
        assert float(solution.certificate.lam) == lam
        assert abs(float(solution.certificate.objective) - optimum) <= 1e-6 * optimum
        assert float(solution.certificate.relative_gap) <= 1e-6
    assert compiled[0] == compiled[-1]


@pytest.mark.parametrize("optimizer", [optax.adam(0.05), optax.sgd(0.005, momentum=0.9)], ids=["adam", "sgd"])
def test_any_optax_optimizer_drives_the_descent(optimizer):
    problem, X, Y = scalar_problem(seed=3, m=30)
    start = problem.phi.init(jax.random.key(0), r=2, dx=2, dy=1)
    options = {"optimizer": optimizer, "inner": 300, "outer": 4, "effort": "quick"}
    found = homogeneous.minimize(problem, start, X, Y, key=jax.random.key(1), **options)
    optimum = global_minimum("squared", X, Y, problem.lam)
    assert float(found.certificate.objective) <= 1.05 * optimum
    assert_never_increases(found.trace)


def test_the_trace_says_what_was_done_and_why():
    problem, X, Y = scalar_problem(seed=3, m=30)
    start = problem.phi.init(jax.random.key(0), r=1, dx=2, dy=1)
    trace = homogeneous.minimize(problem, start, X, Y, key=jax.random.key(1)).trace
    assert len(trace.events) == len(trace.objective) == len(trace.width)
    assert trace.events[0].startswith("start")
    assert trace.reason.startswith("stop")
    assert any(event.startswith("append") for event in trace.events)


def test_an_iteration_goes_on_where_it_stopped():
    problem, X, Y = scalar_problem(seed=3, m=30)
    start = problem.phi.init(jax.random.key(0), r=1, dx=2, dy=1)
    data = (jnp.asarray(X), jnp.asarray(Y))
    options = {"key": jax.random.key(1), "effort": homogeneous.EFFORTS["quick"]}
    whole = list(homogeneous.iterate(problem, start, *data, **options))
    half = whole[len(whole) // 2]
    *_, end = homogeneous.iterate(problem, half.params, *data, resume=half, **options)
    assert end.done
    assert float(end.trace.objective[-1]) == pytest.approx(float(whole[-1].trace.objective[-1]), rel=1e-9)
    assert list(end.trace.objective[: len(half.trace.objective)]) == list(half.trace.objective)
    # After an append the next row belongs to the next outer step; the gap follows the objective down.
    appended = next(p for p in whole if p.trace.reason.startswith("append"))
    following = next(homogeneous.iterate(problem, appended.params, *data, resume=appended, **options)).trace
    assert following.outer[-1] == appended.trace.outer[-1] + 1
    assert appended.trace.gap_estimate[-1] < appended.trace.gap_estimate[-2]


def test_zero_is_optimal_above_lam_max():
    problem, X, Y = scalar_problem(seed=3, m=30)
    large = homogeneous.Problem(problem.phi, problem.theta, problem.loss, 10.01 * problem.lam)
    start = problem.phi.init(jax.random.key(0), r=3, dx=2, dy=1)
    found = homogeneous.minimize(large, start, X, Y, key=jax.random.key(1))
    assert float(found.certificate.objective) == pytest.approx(0.5 * float(np.sum(Y**2)), rel=1e-9)
    assert float(found.certificate.relative_gap) <= 1e-9
    assert alive(found.params).sum() == 0


@pytest.mark.parametrize("norms", [("l1", "l1"), pytest.param(("l1", "l2"), marks=pytest.mark.slow)], ids=str)
def test_l1_norms_reach_the_soft_threshold(norms):
    """l1 norms of both layers make Omega the sum of absolute entries, l1 and l2 that of the rows' norms."""
    Y = np.random.default_rng(3).normal(size=(5, 4))
    lam = 0.5
    size = np.abs(Y) if norms == ("l1", "l1") else np.linalg.norm(Y, axis=1)
    kept = np.maximum(size - lam, 0)
    optimum = 0.5 * np.sum((size - kept) ** 2) + lam * np.sum(kept)
    problem = homogeneous.Problem(homogeneous.rank_one(), homogeneous.product_of_norms(norms), losses.squared, lam)
    start = problem.phi.init(jax.random.key(0), r=3, dx=5, dy=4)
    options = {"effort": homogeneous.Effort(20, 0, 1, 16, 60), "inner": 200}
    found = homogeneous.minimize(problem, start, np.eye(5), Y, key=jax.random.key(1), **options)
    # With l1 and l2 there are infinitely many atoms, and the descent slows down at the kinks of those that came dense.
    sharp = norms == ("l1", "l1")
    assert float(found.certificate.objective) == pytest.approx(optimum, rel=1e-7 if sharp else 5e-5)
    assert float(found.certificate.lower_bound) <= optimum * (1 + 1e-12)
    assert float(found.certificate.relative_gap) <= (1e-5 if sharp else 1e-3)
    assert any(event.startswith("refit") for event in found.trace.events)
    assert_never_increases(found.trace)


@pytest.mark.parametrize("float32", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["x64", "x32"])
def test_degenerate_data(float32):
    """No signal, duplicates, extreme sizes: finite numbers, true bounds, no warning."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 2)), rng.normal(size=(30, 1))
    half = 0.5 * np.sum(Y**2)
    cases = [
        (0 * X, Y, 0.5, half),
        (X, 0 * Y, 0.5, 0.0),
        (0 * X, 0 * Y, 0.5, 0.0),
        (X, Y, 1e30, half),
        (1e-11 * X, Y, 0.5, half),
        (np.repeat(X[:1], 30, axis=0), Y, 0.5, None),
        (X, 1e11 * Y, 1e10, None),
    ]
    phi, theta = homogeneous.relu_neuron(), homogeneous.sum_of_powers()
    with jax.enable_x64(not float32):
        start = phi.init(jax.random.key(0), r=2, dx=2, dy=1)
        for inputs, targets, lam, optimum in cases:
            problem = homogeneous.Problem(phi, theta, losses.squared, lam)
            arrays = [np.asarray(a, np.float32 if float32 else np.float64) for a in (inputs, targets)]
            found = homogeneous.minimize(problem, start, *arrays, key=jax.random.key(1), outer=3)
            for name, value in found.certificate._asdict().items():
                assert "multipliers" in name or not np.any(np.isnan(value)), name
            assert float(found.certificate.lower_bound) <= float(found.certificate.objective)
            assert float(found.certificate.polar_lower) <= float(found.certificate.polar_upper)
            assert all(np.all(np.isfinite(w)) for w in found.params)
            if optimum is not None:
                assert float(found.certificate.objective) == pytest.approx(optimum, rel=1e-5)
                assert float(found.certificate.relative_gap) <= 1e-5


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_data_whose_squares_leave_the_floating_point_range_are_refused(scale):
    phi = homogeneous.relu_neuron()
    problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.squared, 1.0)
    start = phi.init(jax.random.key(0), r=1, dx=3, dy=2)
    X, Y = np.ones((4, 3)), np.ones((4, 2))
    with pytest.raises(ValueError, match="X: Expected: a largest entry of 0 or between .* Received"):
        _ = homogeneous.certify(problem, start, scale * X, Y)
    with pytest.raises(ValueError, match="Y: Expected: a largest entry of 0 or between .* Received"):
        _ = homogeneous.certify(problem, start, X, scale * Y)


def test_a_contradiction_is_said_and_no_work_on_the_bound_is_allowed():
    """No Adam steps at all still give a bound; a bound above the objective is no proof of a global minimum."""
    problem, X, Y = scalar_problem(seed=3, m=30)
    X = np.hstack([X, np.ones((30, 1))])  # three inputs: the relaxation
    start = problem.phi.init(jax.random.key(0), r=2, dx=3, dy=1)
    found = homogeneous.certify(problem, start, X, Y, effort=homogeneous.Effort(0, 0, 1, 4, 10))
    assert float(found.lower_bound) <= float(found.objective)
    assert np.isfinite(float(found.polar_upper))
    wrong = found._replace(lower_bound=2 * found.objective)
    assert "contradict" in wrong.reason
    assert "This is a global minimum" not in wrong.reason
