"""Numbers of all sizes: bounds of the polar, and of rounding, against exact rationals and 50 digits."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from globopt_jax import rigorous
from tests import oracles
from tests.oracles import exactly

SLOPES = [(0.0, 1.0), (0.1, 1.0), (-1.0, 1.0), (1.0, 1.0)]


def sizes_of_rows(rng, m, low=-170, high=150):
    """Powers of ten from 1e-170 to 1e150, a row each."""
    return 10.0 ** rng.uniform(low, high, size=(m, 1))


def polar_square(U, X, slopes, w):
    """``||U^T act(X w)||^2 / ||w||^2`` as a rational number: nothing over- or underflows there."""
    u, x, v = exactly(U), exactly(X), [Fraction(float(a)) for a in w]
    a = [sum(p * q for p, q in zip(row, v, strict=True)) for row in x]
    z = [Fraction(slopes[1 if t > 0 else 0]) * t for t in a]
    out = [sum(row[d] * t for row, t in zip(u, z, strict=True)) for d in range(len(u[0]))]
    return sum(o * o for o in out) / sum(a * a for a in v)


@pytest.mark.parametrize("slopes", SLOPES, ids=str)
def test_no_direction_exceeds_a_bound_whatever_the_size_of_the_rows(slopes):
    """Rows of X and U from 1e-170 to 1e150: arcs, relaxation, linear and product, in rational arithmetic."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        m, dx, dy = (int(n) for n in rng.integers(1, [5, 3, 3]))
        X = rng.normal(size=(m, dx)) * sizes_of_rows(rng, m)
        U = rng.normal(size=(m, dy)) * sizes_of_rows(rng, m, -100, 100)
        if seed % 3 == 0:  # what is large in one is zero in the other: the polar is that of the small rest
            U[np.abs(X).max(axis=1) > 1e-20] = 0
        parts = np.hstack([np.maximum(U, 0), np.maximum(-U, 0)])
        cuts = rigorous.Multipliers(np.full(m, 2.0), parts, parts, np.zeros((4 * dy, 4 * dy)))
        kinds = ["product", "arcs", "relaxation"] + ["linear"] * (slopes[0] == slopes[1])
        directions = np.concatenate([rng.normal(size=(6, dx)), np.where(np.abs(X) > 0, np.sign(X), 0), np.eye(dx)])
        directions = directions[np.any(directions, axis=1)]
        best = max(polar_square(U, X, slopes, s * w) for w in directions for s in (1, -1))
        for kind in kinds:
            # In the relaxation's units mu is of size 1: the size of U act(X w), squared.
            scaled = cuts
            if kind == "relaxation":
                with np.errstate(over="ignore"):
                    size = rigorous.polar_bound("product", U, X, slopes)
                    mu = np.abs(U).max(axis=1) / np.maximum(np.abs(X).max(axis=1), 1e-300) * size * m
                scaled = cuts._replace(mu=np.clip(mu, 1e-300, 1e300))
            with np.errstate(over="ignore"):
                bound = rigorous.polar_bound(kind, U, X, slopes, 2, scaled, ("l2", "l2"), (dx, dy))
            assert bound == math.inf or Fraction(bound) ** 2 >= best * Fraction(1 - 1e-14) ** 2, (seed, kind)
            if kind in ("arcs", "linear") and bound < 1e300:
                assert best == 0 or float(Fraction(bound) ** 2 / best) < 1e4, (seed, kind)


def test_a_product_that_underflows_is_no_zero():
    """Samples -1 and 1e-163 with residuals 0 and 1e-70: the polar is 1e-233, far above a lam of 1e-240."""
    X, U = np.asarray([[-1.0], [1e-163]]), np.asarray([[0.0], [1e-70]])
    for kind in ("arcs", "product"):
        assert rigorous.polar_bound(kind, U, X, (0.0, 1.0)) >= 1e-233 * (1 - 1e-12)
    assert rigorous.polar_bound("arcs", U, X, (0.0, 1.0)) <= 1e-233 * (1 + 1e-9)
    mu = rigorous.Multipliers(np.asarray([1e-300, 1e-60]), np.zeros((2, 0)), np.zeros((2, 0)), np.zeros((0, 0)))
    assert rigorous.polar_bound("relaxation", U, X, (0.0, 1.0), 2, mu) >= 1e-233
    for norms in (("l1", "l2"), ("l2", "l2"), ("l2", "l1"), ("l1", "l1"), ("linf", "linf")):
        assert rigorous.polar_bound("linear", U, X, (1.0, 1.0), 2, None, norms, (1, 1)) >= 1e-233 * (1 - 1e-12)


def test_slopes_layers_and_multipliers_at_the_ends_of_the_range():
    """A slope of 1e-200 in three layers, one layer of tiny and huge rows, multipliers of 5e-324: never too small."""
    X, U = np.full((1, 1), 1e75), np.full((1, 1), 1e75)
    for kind, slopes in (("linear", (1e-200, 1e-200)), ("product", (0.0, 1e-200))):
        bound = rigorous.polar_bound(kind, U, X, slopes, 3, None, ("l2",) * 3, (1, 1, 1))
        assert 1e-250 * (1 - 1e-9) <= bound <= 1e-250 * (1 + 1e-9)  # 1e-400 on the way
    tiny = rigorous.polar_bound("product", U, X, (0.0, 1e-300), 4, None, ("l2",) * 4, (1,) * 4)
    assert 0 < tiny < 1e-300  # 1e-750: rounded up, never to 0
    assert rigorous.polar_bound("product", U, X, (0.0, 1e300), 3, None, ("l2",) * 3, (1,) * 3) == math.inf
    X, U = np.asarray([[1.0], [1e-163]]), np.asarray([[0.0], [1e-70]])
    for norm in ("l1", "l2", "linf"):
        assert rigorous.polar_bound("linear", U, X, (0.0, 1.0), 1, None, (norm,), (1,)) >= 1e-233 * (1 - 1e-12)
    ones, least = np.ones((2, 1)), np.full((2, 1), 5e-324)
    X, U = np.asarray([[1.0], [2.0]]), ones
    for V in (ones, least):
        for N in (0.0, 5e-324, 1.0):
            for mu in (5e-324, 1.0, 100.0, 1e300):
                cuts = rigorous.Multipliers(np.full(2, mu), V, V, np.full((2, 2), N))
                assert rigorous.relaxation_bound(U, X, (0.0, 1.0), cuts) >= 3.0


def test_many_features_are_reduced_to_the_span_of_the_samples():
    """More inputs than samples: the bound without anything dx x dx is that of the whole, up to its margin."""
    rng = np.random.default_rng(0)
    for norm in ("l2", "l1", "linf"):
        X, U = rng.normal(size=(6, 700)), rng.normal(size=(6, 2))
        parts = np.hstack([np.maximum(U, 0), np.maximum(-U, 0)])
        cuts = rigorous.Multipliers(np.full(6, 40.0), parts, parts, np.full((8, 8), 0.1))
        reduced = rigorous.relaxation_bound(U, X, (0.0, 1.0), cuts, norm)
        small = np.linalg.qr(X.T)[1].T
        factor = {"l2": 1.0, "l1": 1.0, "linf": 700**0.5}[norm]
        assert reduced == pytest.approx(factor * rigorous.relaxation_bound(U, small, (0.0, 1.0), cuts), rel=1e-9)
        W = rng.normal(size=(200, 6)) @ X
        W = W / np.linalg.norm(W, {"l2": 2, "l1": 1, "linf": np.inf}[norm], axis=1, keepdims=True)
        assert reduced >= np.linalg.norm(np.maximum(X @ W.T, 0).T @ U, axis=1).max()


# --- objective and gradient -------------------------------------------------------------------------------------


def instance(seed: int, loss: str, deep: bool) -> tuple[Any, list[np.ndarray], np.ndarray, np.ndarray]:
    """(problem, weights, X, Y) with sizes from 1e-60 to 1e30, and cancellation in the prediction."""
    rng = np.random.default_rng(seed)
    m, dx, dy, r = 4, 2, 3, 3
    size = 1.0 if loss in ("softmax_cross_entropy", "logistic") else 10.0 ** rng.uniform(-30, 30)
    X = rng.normal(size=(m, dx)) * 10.0 ** rng.uniform(-30, 30)
    dims = [(dx, 2), (2, 2), (2, dy)] if deep else [(dx,), (dy,)]
    weights = [rng.normal(size=(r, *d)) for d in dims]
    weights[0] *= size / np.abs(X).max() * 10.0 ** rng.uniform(-3, 3)
    if seed % 2:
        weights = [np.concatenate([w, w]) for w in weights]
        weights[-1][r:] *= -1 - 1e-9  # predictions cancel
    if loss == "softmax_cross_entropy":
        Y = np.eye(dy)[rng.integers(0, dy, m)]
    elif loss == "logistic":
        Y = rng.choice([-1.0, 1.0], size=(m, dy))
    else:
        Y = size * rng.normal(size=(m, dy))
    name = f"huber:{size!r}" if loss == "huber" else loss
    problem = {"bound": "product", "loss": name, "lam": 10.0 ** rng.uniform(-9, 3), "layers": len(dims)}
    problem |= {"slopes": [-0.3, 1.7], "theta": ["sum_of_powers", "product_of_norms"][seed % 3 // 2]}
    problem |= {"norms": [["l1", "l2", "linf"][(seed + k) % 3] for k in range(len(dims))]}
    return problem | {"sizes": [math.prod(w.shape[1:]) for w in weights]}, weights, X, Y


def exact_side(problem: Any, weights: list[np.ndarray], X: np.ndarray, Y: np.ndarray) -> tuple[Any, Any]:
    """(objective, gradient) with 60 digits, from rational predictions."""
    slopes = [Fraction(s) for s in problem["slopes"]]
    Z = [[Fraction(0)] * Y.shape[1] for _ in X]
    kernels = [
        [w[i].reshape(-1, 1) if k == 0 else w[i][None] for k, w in enumerate(weights)] for i in range(len(weights[0]))
    ]
    if weights[0].ndim == 3:
        kernels = [[w[i] for w in weights] for i in range(len(weights[0]))]
    for stack in kernels:
        out = exactly(X)
        for kernel in stack[:-1]:
            out = [[slopes[1 if a > 0 else 0] * a for a in row] for row in oracles.product(out, exactly(kernel))]
        Z = oracles.combined(Z, oracles.product(out, exactly(stack[-1])))
    kind, _, delta = problem["loss"].partition(":")
    value: Any = Decimal(0)
    G = []

    def number(q):
        return Decimal(q.numerator) / Decimal(q.denominator)

    for z, y in zip(Z, exactly(Y), strict=True):
        t = [number(a - b) for a, b in zip(z, y, strict=True)]
        if kind == "squared":
            value, row = value + sum(a * a for a in t) / 2, t
        elif kind == "huber":
            d = number(Fraction(float(delta)))
            inner = [min(max(a, -d), d) for a in t]
            value, row = value + sum(i * (a - i / 2) for a, i in zip(t, inner, strict=True)), inner
        elif kind == "logistic":
            margins = [number(a * b) for a, b in zip(z, y, strict=True)]
            value += sum((1 + (-a).exp()).ln() for a in margins)
            row = [-number(b) / (1 + a.exp()) for a, b in zip(margins, y, strict=True)]
        else:
            total = sum(number(a).exp() for a in z)
            value += total.ln() - sum(number(a * b) for a, b in zip(z, y, strict=True))
            row = [number(a).exp() / total - number(b) for a, b in zip(z, y, strict=True)]
        G.append(row)
    for i in range(len(weights[0])):
        sizes: Any = []
        for w, norm in zip(weights, problem["norms"], strict=True):
            entries = [abs(Fraction(float(a))) for a in w[i].ravel()]
            square = sum(a * a for a in entries)
            sizes.append({"l1": number(sum(entries)), "l2": number(square).sqrt(), "linf": number(max(entries))}[norm])
        K = len(sizes)
        cost: Any = math.prod(sizes) if problem["theta"] == "product_of_norms" else sum(s**K for s in sizes) / K
        value += number(Fraction(problem["lam"])) * cost
    return value, G


@pytest.mark.parametrize("loss", ["squared", "huber", "softmax_cross_entropy", "logistic"])
def test_objective_and_gradient_are_off_by_what_they_say_at_most(loss):
    """Against 60 digits, where predictions cancel, too; and the bound of the error is of the size of rounding."""
    ratios = []
    for seed in range(40):
        problem, weights, X, Y = instance(seed, loss, deep=seed % 4 > 1)
        with localcontext() as context:
            context.prec = 60
            value, error = rigorous.objective(problem, weights, X, Y)
            right, slope = exact_side(problem, weights, X, Y)
            assert abs(Decimal(value) - right) <= Decimal(error), seed
            Z, off = rigorous.predict(weights, X, tuple(problem["slopes"]))
            G, away = rigorous.gradient(problem["loss"], Z, Y, off)
            for g, e, row in zip(G, away, slope, strict=True):
                assert all(abs(Decimal(a) - b) <= Decimal(c) for a, b, c in zip(g, row, e, strict=True)), seed
            if seed % 2 == 0:
                ratios.append(error / value)
    assert max(ratios) < 1e-10


def test_the_polar_at_given_weights_includes_the_rounding_of_the_gradient():
    """Three classes, one sample: at zero weights the polar is sqrt(2/3), which no bound is below."""
    for slopes, bound in (([1.0, 1.0], "linear"), ([0.0, 1.0], "arcs")):
        problem = {"bound": bound, "loss": "softmax_cross_entropy", "lam": 1.0, "layers": 2, "slopes": slopes}
        problem |= {"theta": "sum_of_powers", "norms": ["l2", "l2"], "sizes": [1, 3]}
        weights = [np.zeros((1, 1)), np.zeros((1, 3))]
        found = rigorous.polar_at(problem, weights, rigorous.empty_multipliers(), np.ones((1, 1)), np.eye(3)[:1])
        assert Fraction(found) ** 2 >= Fraction(2, 3)
        assert found <= math.sqrt(2 / 3) * (1 + 1e-12)


def test_a_prediction_that_cancels_may_have_any_gradient():
    """2^70 + 2^14 - 2^70 is 16384, and 0 in floats: G is (1, -1), and the polar sqrt(2), whatever is computed."""
    weights = [np.ones((3, 1)), np.array([[2.0**70, 8192.0], [2.0**14, 0.0], [-(2.0**70), 0.0]])]
    problem = {"bound": "linear", "loss": "softmax_cross_entropy", "lam": 1.2, "layers": 2, "slopes": [1.0, 1.0]}
    problem |= {"theta": "product_of_norms", "norms": ["l2", "l2"], "sizes": [1, 2]}
    X, Y = np.ones((1, 1)), np.array([[0.0, 1.0]])
    found = rigorous.polar_at(problem, weights, rigorous.empty_multipliers(), X, Y)
    assert Fraction(found) ** 2 >= 2
    Z, error = rigorous.predict(weights, X, (1.0, 1.0))
    for loss, targets in (("softmax_cross_entropy", Y), ("logistic", 2 * Y - 1), ("huber:0.5", Y), ("squared", Y)):
        G, off = rigorous.gradient(loss, Z, targets, error)
        at_exact, own = rigorous.gradient(loss, np.array([[16384.0, 8192.0]]), targets)
        assert np.all(np.abs(G - at_exact) <= off + own)
