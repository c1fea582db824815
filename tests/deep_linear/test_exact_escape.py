"""Every way down is one in exact arithmetic, at radii from 1e-10 to 1e10, and is found where one is known to exist."""

import itertools
from fractions import Fraction

import jax
import numpy as np
import pytest

from globopt_jax import deep_linear, linalg
from globopt_jax.deep_linear import confirm
from tests.deep_linear import instances, rationals
from tests.precision import slow_in_float32

#: Widths: strict and degenerate saddles, with and without a bottleneck.
SHAPES = ((3, 3, 3), (3, 2, 4, 3), (3, 2, 2, 2, 3))
SAMPLES = 5


def saddle(widths, rng):
    """Data, and a path t -> weights that leads down from a critical point in random bases, its start.

    With fitted values F = X R and their directions u_i, the point keeps a set of them. The path adds the strongest one
    that is left, with a factor t in every layer, or turns a weaker one into it where no unit is free.
    """
    X, Y = rng.normal(size=(SAMPLES, widths[0])), rng.normal(size=(SAMPLES, widths[-1]))
    R = np.linalg.lstsq(X, Y, rcond=None)[0]
    U = np.linalg.svd(X @ R)[2].T
    k = min(widths)
    kept = list(rng.permutation(k + 1 if widths[-1] > k else k)[: rng.integers(0, k + 1)])
    if sorted(kept) == list(range(k)):
        kept = kept[1:]
    missing = min(set(range(k)) - set(kept))
    place = len(kept) if len(kept) < k else kept.index(max(kept))

    def at(t):
        V, factor = U[:, [*kept, *([missing] if len(kept) < k else [])]].copy(), np.ones(max(len(kept), place + 1))
        if len(kept) < k:
            factor[place] = t
        else:
            V[:, place] = np.sqrt(1 - t * t) * U[:, kept[place]] + t * U[:, missing]
        W = [np.zeros(s) for s in itertools.pairwise(widths)]
        n = len(factor)
        W[0][:, :n] = R @ V * factor
        for w in W[1:-1]:
            w[:n, :n] = np.diag(factor)
        W[-1][:n] = factor[:, None] * V.T
        for l, (G, inverse) in enumerate(bases, 1):
            W[l - 1], W[l] = W[l - 1] @ G, inverse @ W[l]
        return W

    condition, bases = 10 ** rng.uniform(0, 2), []
    for d in widths[1:-1]:
        A, B = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
        s = condition ** np.linspace(0.5, -0.5, d) if rng.integers(2) else np.ones(d)
        bases.append(((A * s) @ B.T, (B / s) @ A.T))
    return X, Y, at


def moved(old, new):
    """The squared Frobenius distance, exactly."""
    return sum(
        rationals.squares(rationals.minus(rationals.rational(a), rationals.rational(b)))
        for a, b in zip(old, new, strict=True)
    )


def assert_judged_right(widths, dtype, count, seed):
    """Never up, never out of the ball, never a decrease that is not there; found where the path has one of 1e-12."""
    rng = np.random.default_rng([19, seed])
    counts = {"found": 0}
    for number in range(count):
        X, Y, at = saddle(widths, rng)
        X, Y, W = X.astype(dtype), Y.astype(dtype), [w.astype(dtype) for w in at(0.0)]
        radius = float(10 ** rng.uniform(-10, 10))
        found = deep_linear.escape(W, X, Y, radius, jax.random.key(number))
        before = rationals.loss(W, X, Y)
        if found.found:
            after = rationals.loss(found.weights, X, Y)
            assert after < before, (number, radius, found.method, float(after - before))
            assert Fraction(float(found.decrease)) <= before - after, (number, radius, found.method)
            assert Fraction(float(found.decrease)) >= (before - after) * Fraction(999999, 1000000)
            assert moved(W, found.weights) <= Fraction(radius) ** 2
            assert [w.dtype for w in found.weights] == [dtype] * len(W)
            counts["found"] += 1
            continue
        assert found.decrease == 0
        if found.method.startswith("none: a global minimum"):  # weak directions in float32: the tolerance is 3e-4
            truth = instances.truth(X.astype(np.float64), Y.astype(np.float64), min(widths))
            gap, energy = float(before) - truth.optimum, 0.5 * np.sum(truth.s[: min(widths)] ** 2)
            assert gap <= 1.5 * linalg.decision_tolerance(dtype) * energy
            continue
        for t in 0.5 ** np.arange(0, 40, 2.0):
            new = [w.astype(dtype) for w in at(t)]
            if moved(W, new) <= Fraction(radius) ** 2:
                down = before - rationals.loss(new, X, Y)
                assert down <= before / 10**12, (number, radius, found.method, float(down))
    return counts


@slow_in_float32
@pytest.mark.parametrize("shape", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_every_way_down_is_one_in_exact_arithmetic(shape, dtype):
    """A dozen saddles here, and 5,000 below."""
    assert assert_judged_right(SHAPES[shape], dtype, 12, shape)["found"] > 6


@pytest.mark.slow
def test_five_thousand_saddles():
    for number, (widths, dtype) in enumerate(itertools.product(SHAPES, (np.float64, np.float32))):
        _ = assert_judged_right(widths, dtype, 834, 100 + number)


def test_large_and_tiny_radii_at_one_saddle():
    """Steps of the size of the weights are found from any radius, and none is claimed that rounding made up."""
    rng = np.random.default_rng(149)
    X, Y = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    W = deep_linear.critical_point(X, Y, (3, 2, 2, 2, 3), (1,), jax.random.key(149), condition=10.0)
    before = rationals.loss(W, X, Y)
    for radius in (1e-10, 1e-8, 1e-3, 1.0, 1e3, 1e6, 1e8, 1e10):
        found = deep_linear.escape(W, X, Y, radius, jax.random.key(0))
        assert found.found
        down = before - rationals.loss(found.weights, X, Y)
        assert Fraction(float(found.decrease)) <= down
        assert float(found.decrease) == pytest.approx(float(down), rel=1e-6)
        assert moved(W, found.weights) <= Fraction(radius) ** 2
        assert radius < 1 or down > before / 10


def test_confirmed_increments_hold_the_exact_ones():
    rng = np.random.default_rng(0)
    for scale in (1e-12, 1e-4, 1.0, 1e6):
        X, Y = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
        W = [rng.normal(size=(3, 3)), rng.normal(size=(3, 2)) * 1e3]
        new = [w + scale * rng.normal(size=w.shape) for w in W]
        height, error = confirm.increments(W, X, Y)(new)
        exactly = rationals.loss(new, X, Y) - rationals.loss(W, X, Y)
        assert abs(Fraction(height) - exactly) <= Fraction(error)
        assert error < 1e-9 * abs(height)
        assert Fraction(confirm.distance(W, new)) ** 2 >= moved(W, new)
