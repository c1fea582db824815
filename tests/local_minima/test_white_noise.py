"""Proposition 2: where it speaks and where it does not; the exact law against draws; the phase change."""

import itertools

import jax
import numpy as np
import pytest
import scipy.stats

from globopt_jax import local_minima


def test_the_bound_speaks_only_under_its_hypotheses():
    outside = local_minima.white_noise_bound(2000, 199, 10, 1.0, 6.0)
    assert (int(outside.regime), float(outside.factor), float(outside.probability)) == (0, 1, 1)
    assert "says nothing" in outside.reason
    assert int(local_minima.white_noise_bound(10**14, 20_000, 20_000, 0.0).regime) == 0, "delta = 0"
    # Part i by hand.
    m, dx, d, delta, t = 10**14, 20_000, 20_000, 0.5, 5.0
    log = np.log(dx * d * m / delta**2)
    assert m >= 64 * log**2 * dx * d
    inside = local_minima.white_noise_bound(m, dx, d, delta, t)
    assert int(inside.regime) == 1
    assert float(inside.factor) == pytest.approx((1 + 6 * (t / m) ** 0.5) * (m - dx * d) / m, rel=1e-12)
    assert float(inside.probability) == pytest.approx(1 - np.exp(-m / (64 * log)) - 2 * np.exp(-t))
    # Part ii.
    m, dx, d = 10, 1000, 1000
    assert d * dx >= 2 * m * np.log(m * d) ** 2
    zero = local_minima.white_noise_bound(m, dx, d, 1.0)
    assert int(local_minima.white_noise_bound(m, dx, d, 1e-300).regime) == 0, "its square underflows"
    assert (int(zero.regime), float(zero.factor)) == (2, 0)
    assert float(zero.probability) == pytest.approx(1 - 2 * np.exp(-dx / 20))
    assert "(ii)" in zero.reason


def test_the_smallest_value_of_all_submatrices():
    rng = np.random.default_rng(0)
    for d, rows in ((1, 4), (2, 5), (6, 3)):
        Lam = rng.uniform(-1, 1, (9, d))
        found = local_minima.smallest_pattern_value(Lam, rows)
        wanted = min(
            np.linalg.svd(Lam[list(I)], compute_uv=False)[-1]
            for size in (rows, rows + 1 if rows >= d else rows - 1)
            for I in itertools.combinations(range(9), size)
        )
        assert found == pytest.approx(wanted)
    # Too many sets: a lower bound, and zero where it has nothing to say.
    Lam = np.concatenate([3 * np.eye(2)] + [0.1 * rng.uniform(-1, 1, (1, 2)) for _ in range(60)])
    assert 0 <= local_minima.smallest_pattern_value(Lam, 31) <= 0.8
    assert local_minima.smallest_pattern_value(np.ones((60, 2)), 30) == 0
    assert local_minima.smallest_pattern_value([[0.1, 0.3], [0.2, 0.6], [0.3, 0.9]], 2) == 0, "no rounding noise"


def test_the_law_is_that_of_the_draws_and_the_phase_changes():
    """Of a given rank: Kolmogorov and Smirnov's test of 200 draws; below d dx = m a share is left, above nothing."""
    m, dx, widths = 40, 4, (1, 5, 8, 20, 30)
    found = local_minima.phase_change(jax.random.key(1), m, dx, widths, 200)
    for width, fraction, rank in zip(widths, found.fraction, found.rank, strict=True):
        assert np.max(rank) <= min(m, dx * width)
        full = rank == min(m, dx * width)
        assert np.mean(full) > 0.1
        if dx * width < m:
            law = scipy.stats.beta((m - dx * width) / 2, dx * width / 2)
            assert scipy.stats.kstest(fraction[full], law.cdf).pvalue > 1e-3
            other = scipy.stats.beta((m - dx * width - 4) / 2, (dx * width + 4) / 2)
            assert scipy.stats.kstest(fraction[full], other.cdf).pvalue < 1e-3, "one unit more"
            for p in (0.1, 0.9):
                assert local_minima.white_noise_quantile(m, dx * width, p) == pytest.approx(law.ppf(p))
        else:
            assert np.all(fraction[full] == 0)
            assert np.all(fraction[~full] > 0), "a sample that is off in every unit is never explained"
    assert np.mean(found.fraction[0]) > 0.8
    assert np.mean(found.fraction[-1]) < 0.01
    np.testing.assert_allclose(found.expected, 1 - found.rank / m)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("white_noise_bound", (0, 1, 1, 1.0), "m: Expected: an integer, at least 1. Received: 0"),
        (
            "white_noise_bound",
            (5, 1, 1, -1.0),
            r"delta: Expected: at least 0, and below sqrt\(m\) = 2.236. Received: -1.0",
        ),
        ("white_noise_bound", (4, 1, 1, 2.0), r"delta: Expected: at least 0, and below sqrt\(m\) = 2. Received: 2.0"),
        ("white_noise_bound", (4, 1, 1, np.nan), "delta: Expected: at least 0"),
        ("white_noise_bound", (4, 1, 1, 1.0, 0.0), "t: Expected: positive. Received: 0.0"),
        ("white_noise_quantile", (5, 6, 0.5), "rank: Expected: an integer, 0..5. Received: 6"),
        ("white_noise_quantile", (5, 5, 1.5), "probability: Expected: 0..1. Received: 1.5"),
        ("smallest_pattern_value", ([[1.0]], 2), "rows: Expected: an integer, 1..1. Received: 2"),
        ("smallest_pattern_value", ([[np.nan]], 1), "patterns: Expected: finite numbers"),
        ("phase_change", (jax.random.key(0), 9, 2, (2.5,)), "widths: Expected: an integer, at least 1. Received: 2.5"),
        ("phase_change", (jax.random.key(0), 9, 2, ()), "widths: Expected: a sequence of numbers of units"),
    ],
)
def test_bad_input_is_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(local_minima, function)(*arguments)


def test_one_key_is_asked_for():
    with pytest.raises(TypeError, match=r"key: Expected: one jax.random.key\(seed\). Received: shape \(3,\)"):
        local_minima.phase_change(jax.random.split(jax.random.key(0), 3), 9, 2, (2,))


def test_results_are_stored(tmp_path):
    draws = local_minima.phase_change(jax.random.key(0), 12, 2, (1, 3), 4)
    bound = local_minima.white_noise_bound(10, 1000, 1000, 1.0)
    for found in (draws, bound):
        found.save(tmp_path / "found.npz")
        again = type(found).load(tmp_path / "found.npz")
        assert again.to_json() == found.to_json()
        assert str(again) == found.reason
