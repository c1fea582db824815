"""The certified gap against exact rational least squares, from inputs of condition 1 to inputs that look dependent."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear
from globopt_jax.deep_linear.judgement import judgement_at
from tests.deep_linear import rationals
from tests.precision import slow_in_float32

#: Samples and widths: one to three layers, with and without a bottleneck, more inputs than samples, one output and two.
SHAPES = ((8, (2, 1, 1)), (8, (3, 2)), (7, (3, 1, 2)), (3, (4, 3, 2)), (6, (3, 4, 2, 2)))


def judged(weights, X, Y):
    return judgement_at(weights, deep_linear.least_squares(X, Y), len(X))[0]


judgements = jax.jit(jax.vmap(judged))


def instances(m, widths, dtype, count, seed):
    """Inputs of condition 1 to 1e14, or with a column that others make up; zero, random and nearly optimal weights."""
    rng = np.random.default_rng([17, seed])
    W, X, Y = ([] for _ in range(3))
    for i in range(count):
        q = min(m, widths[0])
        U, V = (np.linalg.qr(rng.normal(size=(n, q)))[0] for n in (m, widths[0]))
        x = (U * 10 ** (-rng.uniform(0, 14) * np.linspace(0, 1, q))) @ V.T
        if i % 8 == 7:
            x[:, -1] = (x.astype(dtype)[:, 0] * 2, x.astype(dtype)[:, 0], np.zeros(m))[i // 8 % 3]
        y = rng.normal(size=(m, widths[-1])) * 10 ** -rng.uniform(0, 3)
        y += rng.integers(2) * x @ rng.normal(size=(widths[0], widths[-1]))
        w = [10 ** rng.uniform(-2, 1) * rng.normal(size=s) for s in itertools.pairwise(widths)]
        if i % 4 == 0:
            w = [0 * a for a in w]
        if i % 4 == 1:
            best = np.linalg.lstsq(x, y, rcond=1e-6)[0]
            A, s, Bt = np.linalg.svd(best, full_matrices=False)
            k = min(widths)
            w = [np.asarray(a) for a in deep_linear.factors(jnp.asarray((A[:, :k] * s[:k]) @ Bt[:k]), widths)]
            w = [a * (1 + 10 ** -rng.uniform(1, 12) * rng.normal(size=a.shape)) for a in w]
        W.append([a.astype(dtype) for a in w])
        X.append(x.astype(dtype))
        Y.append(y.astype(dtype))
    return [np.stack(layer) for layer in zip(*W, strict=True)], np.stack(X), np.stack(Y)


def assert_true(m, widths, dtype, count, seed):
    """No bound below the exact gap, and the gap within its rounding; the ratios of bound and truth come back."""
    W, X, Y = instances(m, widths, dtype, count, seed)
    found = judgements([jnp.asarray(w) for w in W], jnp.asarray(X), jnp.asarray(Y))
    ratios = []
    for i in range(count):
        truth = rationals.gap([w[i] for w in W], X[i], Y[i])
        bound, gap, rounding = (float(a[i]) for a in (found.gap_bound, found.gap, found.rounding))
        assert np.isfinite(bound)
        assert bound >= truth, (i, bound, float(truth))
        assert abs(gap - truth) <= rounding, (i, gap, float(truth), rounding)
        ratios.append(bound / float(truth) if truth > 0 else np.nan)
    return np.array(ratios), np.linalg.cond(X.astype(np.float64))


@slow_in_float32
@pytest.mark.parametrize(
    "shape", [pytest.param(i, marks=pytest.mark.slow if i not in (0, 2) else ()) for i in range(5)]
)
def test_the_bound_is_never_below_the_exact_gap(shape, dtype):
    """160 instances here, and 2,000 below; where the inputs are well conditioned, the bound is nearly the truth."""
    m, widths = SHAPES[shape]
    ratios, condition = assert_true(m, widths, dtype, 40, shape)
    easy = ratios[(condition < 100) & (np.arange(40) % 4 == 0)]  # zero weights: the gap is not small
    assert np.all(easy[np.isfinite(easy)] < 1.2)


@pytest.mark.slow
def test_two_thousand_bounds():
    for dtype in (np.float64, np.float32):
        for number, (m, widths) in enumerate(SHAPES):
            _ = assert_true(m, widths, dtype, 200, 100 + number)


@pytest.mark.parametrize("spread", [1e-3, 1e-5, 1e-7, 1e-12, 1e-16])
def test_nearly_collinear_inputs(spread, dtype):
    """Two columns that differ by less and less, zero weights: all that the fit explains is the gap."""
    data = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(8, 1))
        data.append(((z + spread * rng.normal(size=(8, 2))).astype(dtype), rng.normal(size=(8, 1)).astype(dtype)))
    X, Y = (np.stack(a) for a in zip(*data, strict=True))
    W = [np.zeros((40, 2, 1), dtype), np.zeros((40, 1, 1), dtype)]
    bound = np.asarray(judgements([jnp.asarray(w) for w in W], jnp.asarray(X), jnp.asarray(Y)).gap_bound)
    for i in range(40):
        assert float(bound[i]) >= rationals.gap([w[i] for w in W], X[i], Y[i])
    everything = 0.5 * np.sum(Y.astype(np.float64) ** 2, axis=(1, 2))
    assert np.all(bound <= 1.01 * everything), "the loss itself is a bound"


@pytest.mark.parametrize("kind", ["one-hot", "fractions", "more inputs than samples", "zero", "independent"])
def test_the_rank_that_is_proved(kind):
    rng = np.random.default_rng(0)
    groups = np.eye(3)[rng.integers(3, size=30)]
    X, rank = {
        "one-hot": (np.hstack([np.ones((30, 1)), groups, rng.normal(size=(30, 2))]), 5),
        "fractions": ((lambda A: np.hstack([A, A @ [[1 / 2], [-3], [5 / 4]]]))(rng.integers(-9, 9, (30, 3)) / 8), 3),
        "more inputs than samples": (rng.normal(size=(3, 5)), 3),
        "zero": (np.zeros((4, 3)), 0),
        "independent": (np.hstack([groups, groups.sum(axis=1, keepdims=True) + 1e-15 * rng.normal(size=(30, 1))]), 4),
    }[kind]
    for dtype in (np.float64, np.float32):
        if kind != "independent" or dtype == np.float64:
            assert deep_linear.known_rank(X.astype(dtype)) == rank
    assert deep_linear.known_rank(X.T) == rank


def test_dependent_columns_leave_bound_and_name_as_they_were():
    """An intercept beside one-hot columns: exact arithmetic proves the rank, and noise in its place is said."""
    rng = np.random.default_rng(0)
    X = np.hstack([np.ones((30, 1)), np.eye(3)[rng.integers(3, size=30)], rng.normal(size=(30, 1))])
    Y = X @ rng.normal(size=(5, 2)) + rng.normal(size=(30, 2))
    best = [np.asarray(w) for w in deep_linear.factors(deep_linear.global_minimum(X, Y, 2).map, (5, 2, 2))]
    found = deep_linear.classify(best, X, Y)
    assert (found.kind, float(found.hidden)) == ("global_minimum", 0.0)
    assert float(found.gap_bound) < 1e-10 * float(found.loss)
    assert float(deep_linear.suboptimality_bound(best, X, Y, deep_linear.known_rank(X))) < 1e-10 * float(found.loss)
    assert float(deep_linear.suboptimality_bound(best, X, Y)) > 0.1, "without a proof a fifth direction is possible"
    X[:, 1:4] *= 1 + 1e-16 * rng.normal(size=(30, 1)) + 4e-16 * rng.integers(-1, 2, size=(30, 3))
    found = deep_linear.classify(best, X, Y)
    assert (found.kind, float(found.hidden) > 0.1) == ("undecided", True)
    assert "X may have directions below its numerical rank" in found.reason
    assert float(found.gap_bound) >= rationals.gap(best, X, Y)


@pytest.mark.parametrize("offset", [0, 20, 1e4, 1e6, 1e9])
def test_targets_and_inputs_far_from_zero_get_no_wrong_name(offset, dtype):
    """Weights that predict the mean are never called a minimum, those of the fit never anything else."""
    t = np.linspace(0, 1, 20)[:, None]
    cases = [(np.hstack([np.ones((20, 1)), t]), offset + t), (np.hstack([np.ones((20, 1)), t + offset]), t)]
    for X, Y in ((X.astype(dtype), Y.astype(dtype)) for X, Y in cases):
        W = [np.array([[np.mean(Y, dtype=np.float64)], [0]], dtype)]
        found = deep_linear.classify(W, X, Y)
        if rationals.gap(W, X, Y) <= 1e-6 * np.var(Y, dtype=np.float64):  # nothing but a constant is left in float32
            continue
        assert found.kind in ("not_critical", "undecided"), found.reason
        assert found.kind == "not_critical" or "Center" in found.reason
        assert abs(float(found.gap) - rationals.gap(W, X, Y)) <= float(found.rounding)
        assert float(found.gap_bound) >= rationals.gap(W, X, Y)
        if offset <= (1e4 if dtype == jnp.float64 else 0):
            assert found.kind == "not_critical"
            best = [np.linalg.lstsq(X.astype(np.float64), Y.astype(np.float64), rcond=None)[0].astype(dtype)]
            assert deep_linear.classify(best, X, Y).kind == "global_minimum"


def test_constant_targets_have_a_minimum():
    """Nothing but a constant to explain, exactly: it is not rounding that hides the rest."""
    found = deep_linear.classify(
        [np.array([[1e4], [0]])], np.hstack([np.ones((9, 1)), np.eye(9)[:, :1]]), np.full((9, 1), 1e4)
    )
    assert found.kind == "global_minimum"
