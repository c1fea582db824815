"""Critical points by construction, and their names (YSJ18 Theorems 2.1 and 2.2, K18 2.4 and 2.5)."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear
from globopt_jax.deep_linear.judgement import ASSUMPTIONS
from tests.deep_linear import instances


def expected(p, indices):
    """(global?, strict?) of the family without blocks, by the rules of the papers; strict is None where global."""
    s = instances.truth(p.X, p.Y, p.k).s
    n, layers = len(indices), len(p.widths) - 1
    kept, best, top = (float(np.sum(s[list(i)] ** 2)) for i in (indices, range(p.k), range(n)))
    if kept >= best * (1 - 1e-12):
        return True, None
    return False, n == p.k or kept < top * (1 - 1e-9) or layers <= 2


def assert_named_right(p, indices, key, condition, dtype=jnp.float64):
    X, Y = jnp.asarray(p.X, dtype), jnp.asarray(p.Y, dtype)
    W = deep_linear.critical_point(X, Y, p.widths, indices, key, condition=condition)
    found = deep_linear.classify(W, X, Y)
    is_global, strict = expected(p, indices)
    assert found.kind == ("global_minimum" if is_global else "saddle"), (p.widths, indices, found.reason)
    assert found.is_strict == strict, (p.widths, indices, found.reason)
    return W, found


def chosen(p, seed, count):
    """`count` subsets of all sizes, the empty and the full one among them."""
    everything = instances.subsets(p)
    if count is None or len(everything) <= count:
        return everything
    rng = np.random.default_rng([5, seed])
    inner = [everything[i] for i in rng.choice(len(everything), count - 2, replace=False)]
    return [everything[0], *inner, everything[-1]]


@pytest.mark.parametrize("seed", instances.PROFILES)
def test_every_constructed_point_is_critical_and_named_right(seed, request):
    """Subset families up to six directions, plain and with changes of basis of condition 10 and 1e3."""
    p = instances.profile(seed)
    truth = instances.truth(p.X, p.Y, p.k)
    slow = "slow" in request.config.getoption("-m") and "not slow" not in request.config.getoption("-m")
    for number, indices in enumerate(chosen(p, seed, None if slow else 6)):
        for key, condition in ((None, 1.0), (jax.random.key(number), 10.0), (jax.random.key(number), 1e3)):
            W, found = assert_named_right(p, indices, key, condition)
            value = 0.5 * np.sum((p.Y - truth.fitted) ** 2) + 0.5 * (
                np.sum(truth.s**2) - np.sum(truth.s[list(indices)] ** 2)
            )
            assert abs(instances.loss(W, p.X, p.Y) - value) <= 1e-9 * (1 + 0.5 * np.sum(p.Y**2))
            assert found.stationarity <= 1e-9
            kept = np.zeros(len(truth.s))
            kept[list(indices)] = 1
            np.testing.assert_allclose(found.kept[truth.s > 1e-6], kept[truth.s > 1e-6], atol=1e-6)


@pytest.mark.parametrize("seed", [1])
def test_in_float32(seed):
    """Coarser: changes of basis of condition 10."""
    p = instances.profile(seed)
    s = instances.truth(p.X, p.Y, p.k).s
    with jax.enable_x64(False):
        for number, indices in enumerate(chosen(p, seed, 5)):
            if np.min(s[: max(p.k, len(indices))]) < 0.05 * s[0]:
                continue  # weaker directions than float32 resolves
            _, found = assert_named_right(p, indices, jax.random.key(number), 10.0, jnp.float32)
            assert found.loss.dtype == np.float32


@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 5, 9))])
def test_points_that_move_are_not_critical(seed):
    """Random weights, and critical points kicked by 1e-3: the gradient is above the tolerance, and so it says."""
    p = instances.profile(seed)
    for start in range(5):
        found = deep_linear.classify(instances.weights(p, start), p.X, p.Y)
        assert (found.kind, found.is_strict) == ("not_critical", None)
        assert found.stationarity > found.tolerance
        assert "no critical point" in found.reason
    W = deep_linear.critical_point(p.X, p.Y, p.widths, (0,) if len(p.widths) > 2 else range(len(p.widths)))
    kicked = [w + 1e-3 * v for w, v in zip(W, instances.weights(p, 9), strict=True)]
    assert deep_linear.classify(kicked, p.X, p.Y).kind == "not_critical"


def test_strictness_is_that_of_the_hessian_with_random_blocks():
    """Random redundant blocks in any layers but two: ranks against the dense Hessian's lowest eigenvalue."""
    rng = np.random.default_rng(0)
    counts = {True: 0, False: 0}
    for widths in ((3, 4, 4, 3), (4, 3, 4, 3, 3)):
        X, Y = rng.normal(size=(12, widths[0])), rng.normal(size=(12, widths[-1]))
        layers = range(len(widths) - 1)
        for size in range(len(widths) - 2):
            for blocks in itertools.combinations(layers, size):
                for indices in ((), (0,), (1,)):
                    key = jax.random.key(len(counts) + size)
                    W = deep_linear.critical_point(X, Y, widths, indices, key, blocks=blocks)
                    found = deep_linear.classify(W, X, Y)
                    eigenvalues = np.linalg.eigvalsh(instances.hessian(W, X, Y))
                    negative = bool(eigenvalues[0] < -1e-8 * np.max(np.abs(eigenvalues)))
                    assert found.kind == "saddle"
                    assert found.is_strict == negative, (widths, indices, blocks, eigenvalues[0], found.reason)
                    assert (found.curvature < -1e-8) == negative
                    counts[negative] += 1
    assert min(counts.values()) > 10


def test_a_block_that_the_residual_does_not_see_opens_no_way_down():
    """dy = 1: a first layer orthogonal to the one column of E leaves the Hessian flat, although its rank exceeds n."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(10, 4)), rng.normal(size=(10, 1))
    Z = np.linalg.qr(np.hstack([X.T @ Y, rng.normal(size=(4, 2))]))[0][:, 1:]
    W = [Z, np.zeros((2, 2)), np.zeros((2, 1))]
    eigenvalues = np.linalg.eigvalsh(instances.hessian(W, X, Y))
    assert eigenvalues[0] > -1e-12
    found = deep_linear.classify(W, X, Y)
    assert (found.kind, found.is_strict) == ("saddle", False)


def failure(name):
    """Data on which one assumption of the papers fails; a global minimum must be called one all the same."""
    rng = np.random.default_rng(4)
    X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    if name == "rank(X^T Y) >= k":
        Y = np.outer(X[:, 0], [1.0, 2, 3]) + 0 * Y
    if name == "s_k > s_(k+1)":
        Q = np.linalg.qr(X)[0]
        Y = Q[:, :3] @ np.diag([3.0, 2.0, 2.0])
    if name == "X has full column rank":
        X[:, 3] = X[:, 0]
    if name == "m >= dx":
        X, Y = X[:3], Y[:3]
    if name == "m >= dy":
        X, Y = X[:2, :2], Y[:2]
    if name == "X^T Y has full rank":
        Y = X @ rng.normal(size=(4, 2)) @ rng.normal(size=(2, 3))
    if name == "the s_i are distinct":
        Q = np.linalg.qr(X)[0]
        Y = Q[:, :3] @ np.diag([2.0, 2.0, 1.0])
    return X, Y


@pytest.mark.parametrize("name", [name for name, _ in ASSUMPTIONS])
def test_the_failing_assumption_is_named_and_the_value_decides(name):
    X, Y = failure(name)
    k = 2
    widths = (X.shape[1], k, 5, Y.shape[1])
    truth = instances.truth(X, Y, k)
    rank = int(np.sum(truth.s > 1e-9 * truth.s[0]))
    key = jax.random.key(0)
    best = deep_linear.critical_point(X, Y, widths, range(min(k, rank)), key)
    found = deep_linear.classify(best, X, Y)
    assert found.kind == "global_minimum", found.reason
    assert any(text.startswith(name) for text in found.failures), found.failures
    assert f"{name} fails:" in found.reason
    saddle = deep_linear.classify(deep_linear.critical_point(X, Y, widths, (), key), X, Y)
    assert saddle.kind == "saddle"
    if name == "s_k > s_(k+1)":  # the other of the two equal directions is as good
        other = deep_linear.critical_point(X, Y, widths, (0, 2), key)
        assert deep_linear.classify(other, X, Y).kind == "global_minimum"
    if name == "rank(X^T Y) >= k":  # the rank of the product is below k at this global minimum
        assert int(found.rank) < k


def test_nothing_fails_where_everything_holds():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 3)), rng.normal(size=(30, 5))  # dy > dx: the last singular values are 0, not repeated
    found = deep_linear.classify(deep_linear.critical_point(X, Y, (3, 4, 5), range(3)), X, Y)
    assert found.failures == ()
    assert found.theorem == "YSJ18 Theorem 2.1"
    assert deep_linear.classify([rng.normal(size=(3, 2)), rng.normal(size=(2, 5))], X, Y).theorem.endswith("2.2")


def test_a_badly_conditioned_neighbourhood_still_moves():
    """One input is 1e7 times weaker: 1 % of its part is missing, which the gradient hardly sees."""
    X, Y = np.diag([1.0, 1e-7]), np.eye(2)
    found = deep_linear.classify([np.eye(2), np.diag([1.0, 0.99e7])], X, Y)
    assert found.kind == "not_critical", found.reason
    assert found.gap == pytest.approx(0.5e-4)
    assert deep_linear.classify([np.eye(2), np.diag([1.0, 1e7])], X, Y).kind == "global_minimum"


def test_the_subspace_angle_tells_top_from_other_directions():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    key = jax.random.key(0)
    top = deep_linear.classify(deep_linear.critical_point(X, Y, (4, 2, 3, 4), (0, 1), key), X, Y)
    other = deep_linear.classify(deep_linear.critical_point(X, Y, (4, 2, 3, 4), (0, 2), key), X, Y)
    assert top.angle < 1e-10
    assert other.angle == pytest.approx(np.pi / 2)
    assert (int(top.rank), int(other.rank)) == (2, 2)
    assert "rad away from the span of the top 2" in other.reason


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_data_without_anything_to_learn(value, dtype):
    """X = 0 or Y = 0: right answers, no NaN."""
    X = jnp.full((4, 2), value, dtype)
    Y = jnp.full((4, 2), 1 - value, dtype)
    zero = deep_linear.classify([jnp.zeros((2, 2), dtype)] * 2, X, Y)
    assert zero.kind == "global_minimum"
    assert zero.gap == 0
    assert all(np.all(np.isfinite(a)) for name, a in zero._asdict().items() if name != "curvature")


def test_the_result_says_prints_and_stores(tmp_path):
    p = instances.profile(2)
    found = deep_linear.classify(deep_linear.critical_point(p.X, p.Y, p.widths, ()), p.X, p.Y)
    assert str(found) == found.reason
    assert "saddle" in found.reason
    document = json.loads(json.dumps(found.to_json()))
    assert document["kind"] == "saddle"
    assert (document["is_strict"], document["failures"]) == (found.is_strict, list(found.failures))
    found.save(tmp_path / "found.npz")
    again = deep_linear.Classification.load(tmp_path / "found.npz")
    assert again.reason == found.reason
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match="Expected: the fields code, loss"):
        deep_linear.Classification.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"weights": [np.full((2, 2), np.nan)]},
            ValueError,
            r"weights\[0\]: Expected: finite numbers. Received: 4 NaN",
        ),
        ({"X": np.ones((3, 2), complex)}, TypeError, "X: Expected: real numbers"),
        ({"Y": np.ones(3)}, ValueError, r"X, Y: Expected: shapes .* scalar targets Y.reshape"),
        ({"X": np.full((3, 2), 1e200)}, ValueError, "X: Expected: a largest entry"),
        ({"weights": {"a": np.eye(2)}}, TypeError, "weights: Expected: a list of kernels. Received: dict"),
        ({"weights": [np.ones((2, 3)), np.ones((2, 2))]}, ValueError, "weights: Expected: kernels of shapes"),
        ({"weights": [np.ones((3, 2))] * 2}, ValueError, r"\(3, 2\), \(3, 2\)\].$"),
        ({"weights": [np.ones((3, 2)), np.ones((4, 3))]}, ValueError, "fit if each kernel is transposed"),
        ({"lanczos_steps": 0}, ValueError, "lanczos_steps: Expected: an integer, at least 1. Received: 0"),
    ],
)
def test_bad_input_is_named(change, error, message):
    good = {"weights": [np.eye(2)], "X": np.ones((3, 2)), "Y": np.ones((3, 2))}
    with pytest.raises(error, match=message):
        deep_linear.classify(**(good | change))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (((3, 2), (0, 0)), {}, "indices: Expected: at most 2 different ones"),
        (((3, 4, 2), (2,)), {}, r"from 0 to 1 \(the rank of X\^T Y is 2\). Received: \[2\]"),
        (((3, 1, 2), (0, 1)), {}, "at most 1 different ones"),
        (((3, 2), (0,)), {}, "only the least-squares fit is critical"),
        (((3, 4), (0,)), {}, "widths: Expected: all widths from dx = 3 to dy = 2"),
        (((3, 4, 4, 2), (0,)), {"blocks": (0,)}, "blocks: Expected: a key"),
        (((3, 4, 4, 2), (0,)), {"blocks": (0, 1), "key": jax.random.key(0)}, "at most 1 different layers of 0..2"),
        (((3, 4, 2), (0,)), {"condition": 0.5}, "condition: Expected: at least 1"),
        (((3, 4, 2), (0,)), {"condition": "3"}, "condition: Expected: at least 1. Received: '3'"),
        (((3, 4, 2), (0,)), {"condition": None}, "condition: Expected: at least 1. Received: None"),
    ],
)
def test_points_that_are_not_critical_are_not_built(arguments, options, message):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        deep_linear.critical_point(rng.normal(size=(9, 3)), rng.normal(size=(9, 2)), *arguments, **options)


def test_float32_with_x64_on_stays_float32():
    X = Y = jnp.eye(2, dtype=jnp.float32)
    saddle = [jnp.zeros((2, 2), jnp.float32)] * 2
    found = deep_linear.classify(saddle, X, Y)
    assert (found.kind, found.is_strict, found.gap.dtype) == ("saddle", True, np.float32)
    assert float(found.tolerance) == pytest.approx(np.finfo(np.float32).eps ** 0.5)
    assert deep_linear.suboptimality_bound(saddle, X, Y).dtype == jnp.float32
    assert deep_linear.escape(saddle, X, Y, 0.1, jax.random.key(0)).weights[0].dtype == jnp.float32
    assert deep_linear.ascend(saddle, X, Y, 0.1, jax.random.key(0)).weights[0].dtype == jnp.float32
    assert deep_linear.bottleneck_conditions(saddle, X, Y).gap.dtype == jnp.float32


def test_numpy_float64_without_x64_is_said():
    with jax.enable_x64(False), pytest.warns(UserWarning, match=r"jax.enable_x64\(True\)"):
        found = deep_linear.classify([np.eye(2)], np.eye(2), np.eye(2))
    assert found.loss.dtype == np.float32


def test_a_critical_point_that_was_rounded_to_float32_is_said():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(100, 5)), rng.normal(size=(100, 4))
    W = deep_linear.critical_point(X, Y, (5, 6, 3, 4), (0, 2), jax.random.key(0))
    found = deep_linear.classify([np.asarray(w, np.float32) for w in W], X, Y)
    assert found.kind == "not_critical"
    assert "rounded to float32" in found.reason
    assert "rounded to float32" not in deep_linear.classify([w + 0.1 for w in W], X, Y).reason


@pytest.mark.parametrize("hidden", [0, 1])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_gradient_that_is_small_because_an_input_is_makes_no_saddle(hidden, share, dtype):
    """Inputs of very different units: the slow direction still moves, whatever its gradient's size."""
    small = 1e-4 if dtype == jnp.float32 else 1e-9
    X, Y = np.diag([1, small]).astype(dtype), np.eye(2, dtype=dtype)
    W = [np.diag([1, share / small]).astype(dtype)] + [np.eye(2, dtype=dtype)] * hidden
    found = deep_linear.classify(W, X, Y)
    assert found.kind == "not_critical"
    assert float(deep_linear.classify([np.diag([1, 1 / small]).astype(dtype), *W[1:]], X, Y).gap) <= 1e-6


def hardly_explained(share, ratio, dtype):
    """Data of which the inputs explain one part in ratio^2, and weights that reach a share of that."""
    rng = np.random.default_rng(0)
    X, F, N = rng.normal(size=(200, 3)), rng.normal(size=(3, 2)), rng.normal(size=(200, 2))
    Q = np.linalg.qr(X)[0]
    F, N = X @ F, N - Q @ (Q.T @ N)
    Y = F / np.linalg.norm(F) + ratio * N / np.linalg.norm(N)
    A, s, Bt = np.linalg.svd(share * np.linalg.lstsq(X, Y, rcond=None)[0], full_matrices=False)
    return [np.asarray(w, dtype) for w in (A * s**0.5, s[:, None] ** 0.5 * Bt)], X.astype(dtype), Y.astype(dtype)


@pytest.mark.parametrize(("share", "kind"), [(0.0, "saddle"), (0.5, "not_critical"), (1.0, "global_minimum")])
def test_targets_that_the_inputs_hardly_explain(share, kind, dtype):
    """No point is called a global minimum because the unexplained part hides its gap."""
    ratio = 30 if dtype == jnp.float32 else 1e5
    assert deep_linear.classify(*hardly_explained(share, ratio, dtype)).kind == kind


def test_a_gap_within_its_rounding_is_undecided(dtype):
    share, ratio = (0.9, 1e3) if dtype == jnp.float32 else (0.99, 1e11)
    found = deep_linear.classify(*hardly_explained(share, ratio, dtype))
    assert found.kind == "undecided"
    assert "X explains little of Y" in found.reason
    assert float(found.gap) <= float(found.rounding)
