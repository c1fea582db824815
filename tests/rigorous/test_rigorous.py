"""The rigorous module, attacked: true inequalities for ANY multipliers, and no value where a condition is broken."""

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from globopt_jax import rigorous
from tests import oracles
from tests.oracles import activation, directions_of, exactly, fan, loss_values, neuron_values

SLOPES = [(0.0, 1.0), (0.1, 1.0), (-1.0, 1.0), (-0.3, 2.0), (1.0, 0.0), (0.5, 0.25)]
every_slopes = pytest.mark.parametrize("slopes", SLOPES, ids=str)
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([1e-12, 1e-6, 1.0, 1e6, 1e12])
shapes = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))


def degenerate(rng, A):
    """The same array with some rows zero, equal, opposite, or nearly equal."""
    A = A.copy()
    for _ in range(int(rng.integers(0, 3))):
        i, j = rng.integers(0, len(A), 2)
        A[i] = [0 * A[j], A[j], -A[j], A[j] * (1 + 1e-9 * rng.normal(size=A.shape[1]))][int(rng.integers(0, 4))]
    return A


def random_multipliers(rng, U, slopes, slack=1e-3):
    """Non-negative cuts of no particular merit; mu as small as positive definiteness allows, times 1 + slack."""
    m, dy = U.shape
    cz, cn = (int(c) for c in rng.integers(0, 4, 2))
    size = np.abs(U).max() or 1.0
    Vz, Vn = (size * rng.exponential(size=(m, c)) * (rng.random((m, c)) < 0.7) for c in (cz, cn))
    N = rng.exponential(size=(cz + cn, cz + cn)) * 10.0 ** rng.uniform(-3, 1)
    N = N + N.T
    weights = np.exp(rng.normal(size=m))
    F = np.hstack([U, Vz, Vn])
    Q = np.zeros((F.shape[1],) * 2)
    Q[:dy, :dy] = (slopes[1] - slopes[0]) ** 2 * np.eye(dy)
    Q[dy:, dy:] = N
    scaled = F / np.sqrt(weights)[:, None]
    top = np.linalg.eigvalsh(scaled @ Q @ scaled.T)[-1]
    mu = weights * (max(top, size**2 * 1e-6) * (1 + slack))
    return rigorous.Multipliers(mu, Vz, Vn, N)


def without_dead_rows(U, X, multipliers):
    """Samples that are zero have z_i = 0 whatever w is: neither they nor their multipliers matter."""
    alive = np.any(X, axis=1)
    mu, Vz, Vn, N = multipliers
    return U[alive], X[alive], (mu[alive], Vz[alive], Vn[alive], N)


def dense_bound(U, X, slopes, multipliers):
    """The same bound from its proof: a quadratic form in (z, w), maximized over z densely. No rounding margin."""
    U, X, (mu, Vz, Vn, N) = without_dead_rows(U, X, multipliers)
    kappa, cz = slopes[1] - slopes[0], Vz.shape[1]
    # Rows of forms: f = A z + B w, non-negative where z = relu(X w).
    A, B = np.hstack([Vz, Vn]).T, np.vstack([np.zeros((cz, X.shape[1])), -(Vn.T @ X)])
    Lam = slopes[0] * U.T @ X
    zz = kappa**2 * U @ U.T + A.T @ N @ A - np.diag(mu)
    zw = 2 * kappa * U @ Lam + 2 * A.T @ N @ B + mu[:, None] * X
    ww = Lam.T @ Lam + B.T @ N @ B
    H = ww - zw.T @ np.linalg.solve(zz, zw) / 4
    return math.sqrt(max(np.linalg.eigvalsh((H + H.T) / 2)[-1], 0))


def instance(seed, shape, x_scale=1.0, u_scale=1.0):
    """(rng, U, X) with degenerate rows."""
    m, dx, dy = shape
    rng = np.random.default_rng(seed)
    X = degenerate(rng, rng.normal(size=(m, dx)) * 10.0 ** rng.uniform(-2, 2, size=(m, 1)))
    U = degenerate(rng, rng.normal(size=(m, dy)) * (rng.random((m, 1)) < 0.9))
    return rng, U * u_scale, X * x_scale


@every_slopes
@hypothesis.settings(max_examples=60)
@hypothesis.given(seed=seeds, shape=shapes, x_scale=scales, u_scale=scales)
@hypothesis.example(seed=9912422, shape=(3, 3, 1), x_scale=1e-12, u_scale=1e-12)  # rows that count are zero in U
def test_relaxation_is_never_below_any_direction(slopes, seed, shape, x_scale, u_scale):
    """Whatever the non-negative multipliers, no direction exceeds the bound; and the bound is its formula's value."""
    rng, U, X = instance(seed, shape, x_scale, u_scale)
    multipliers = random_multipliers(rng, U, slopes)
    bound = rigorous.relaxation_bound(U, X, slopes, multipliers)
    if not np.any(U[np.any(X, axis=1)]):
        assert bound == 0
        return
    assert np.isfinite(bound)
    assert bound >= neuron_values(U, X, slopes, directions_of(X, rng, 200)).max() * (1 - 1e-14)
    dense = dense_bound(U, X, slopes, multipliers)
    assert dense * (1 - 1e-9) <= bound <= dense * (1 + 1e-6) + 1e-9 * x_scale * u_scale


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    seed=seeds,
    m=st.integers(1, 4),
    dx=st.integers(1, 2),
    dy=st.integers(1, 2),
    slopes=st.sampled_from(SLOPES),
    slack=st.sampled_from([1.0, 1e-3, 1e-6, 1e-9, 1e-11]),
)
def test_relaxation_is_rigorous_to_the_last_digit(seed, m, dx, dy, slopes, slack):
    """In rational arithmetic, for the multipliers as stored: M > 0, and bound^2 I - H >= 0."""
    rng, U, X = instance(seed, (m, dx, dy))
    multipliers = random_multipliers(rng, U, slopes, slack)
    bound = rigorous.relaxation_bound(U, X, slopes, multipliers)
    if bound == math.inf:
        assert slack < 1e-6  # refused only where the slack is lost in rounding
        return
    U, X, (mu, Vz, Vn, N) = without_dead_rows(U, X, multipliers)
    if not np.any(U):
        assert bound == 0
        return
    negative, positive = Fraction(slopes[0]), Fraction(slopes[1])
    kappa = positive - negative
    u, x, D = exactly(U), exactly(X), exactly(np.diag(mu))
    ut, V = oracles.transposed(u), np.hstack([Vz, Vn])
    Lam = [[negative * v for v in row] for row in oracles.product(ut, x)]
    M = oracles.combined(D, oracles.product(u, ut), -(kappa**2))
    R = oracles.combined(oracles.product(D, x), oracles.product(u, Lam), 2 * kappa)
    C = oracles.product(oracles.transposed(Lam), Lam)
    if V.shape[1]:
        v, n = exactly(V), exactly(N)
        # w-parts of the forms v^T (z - a); the forms v^T z have none.
        part = oracles.product(oracles.transposed(v), x)
        Psi = [[0 * a if k < Vz.shape[1] else -a for a in row] for k, row in enumerate(part)]
        M = oracles.combined(M, oracles.product(oracles.product(v, n), oracles.transposed(v)), -1)
        R = oracles.combined(R, oracles.product(v, oracles.product(n, Psi)), 2)
        C = oracles.combined(C, oracles.product(oracles.transposed(Psi), oracles.product(n, Psi)))
    assert oracles.is_positive(M, strictly=True)
    H = oracles.combined(C, oracles.product(oracles.transposed(R), oracles.solved(M, R)), Fraction(1, 4))
    square = Fraction(bound) ** 2
    identity = exactly(np.eye(dx))
    above = oracles.combined([[square * e for e in row] for row in identity], H, -1)
    assert oracles.is_positive(above)


def broken_multipliers():
    """(what is wrong, the condition in the source that refuses it, multipliers) for U of the parts below."""
    m, U, _ = case_for_cuts()
    parts = np.hstack([np.maximum(U, 0), np.maximum(-U, 0)])
    small, ones = np.full(m, 1e-3), np.ones((m, 1))
    # Cancels U U^T among the z's: nothing is left to bound.
    cancel = -np.asarray([[1.0, -1.0], [-1.0, 1.0]])
    wrong_sign = np.hstack([U, -U])
    crossed = np.asarray([[0.0, 0.5], [0.5, 0.0]])
    positive = rigorous.Multipliers(small, parts, np.zeros((m, 0)), 0.0 * crossed)
    return [
        ("N", "np.all(N >= 0)", positive._replace(N=cancel)),
        ("Vz", "np.all(Vz >= 0)", positive._replace(Vz=wrong_sign, N=crossed)),
        ("Vn", "np.all(Vn >= 0)", rigorous.Multipliers(50 * small, ones, -ones, crossed)),
        ("mu", "np.all(mu > 0)", positive._replace(mu=-small)),
        ("N asymmetric", "np.array_equal(N, N.T)", positive._replace(N=np.asarray([[0.0, 1.0], [0.0, 0.0]]))),
        ("NaN", "isfinite", positive._replace(N=np.full((2, 2), np.nan))),
        ("mu too small", "lam < 1", positive),
    ]


def case_for_cuts():
    """Samples around a circle with residuals of both signs."""
    t = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    X = np.stack([np.cos(t), np.sin(t), 0.1 * np.cos(3 * t)], axis=1)
    return 8, np.where(np.arange(8) % 3 == 0, -1.0, 0.7)[:, None], X


@pytest.mark.parametrize(
    ("name", "condition", "multipliers"), broken_multipliers(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_broken_conditions_give_no_bound(name, condition, multipliers):
    """A negative mu, V or N, an asymmetric N, NaN, or too little slack: +inf, never a number."""
    _, U, X = case_for_cuts()
    assert rigorous.relaxation_bound(U, X, (0.0, 1.0), multipliers) == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_relaxation_of_what_is_not_finite_is_no_bound(bad):
    rng, U, X = instance(0, (6, 3, 2))
    multipliers = random_multipliers(rng, U, (0.0, 1.0))
    for at in (U, X):
        old, at[2, 1] = at[2, 1], bad
        assert rigorous.relaxation_bound(U, X, (0.0, 1.0), multipliers) == math.inf
        at[2, 1] = old
    assert math.isfinite(rigorous.relaxation_bound(U, X, (0.0, 1.0), multipliers))


@pytest.mark.parametrize("condition", ["np.all(N >= 0)", "np.all(Vz >= 0)", "np.all(Vn >= 0)"])
def test_the_conditions_are_needed(condition):
    """With one condition deleted from the source the bound falls below a direction: these tests would notice."""
    _, U, X = case_for_cuts()
    if "Vn" in condition:
        U = np.ones_like(U)  # the wrong cuts cancel a residual of one sign
    truth = neuron_values(U, X, (0.0, 1.0), directions_of(X, np.random.default_rng(0), 20000)).max()
    broken = oracles.without(condition, rigorous.relaxation_bound)
    bounds = [broken(U, X, (0.0, 1.0), m) for _, c, m in broken_multipliers() if c == condition]
    assert min(bounds) < 0.9 * truth


@pytest.mark.parametrize("units", [2.0**-600, 2.0**-100, 2.0**-30, 2.0**40, 2.0**300])
def test_relaxation_does_not_depend_on_units(units):
    """Residuals in other units, multipliers of their size, the same cut columns: the same bound in those units."""
    rng, U, X = instance(0, (6, 3, 2))
    at = random_multipliers(rng, U, (0.1, 1.0))
    bound = rigorous.relaxation_bound(U, X, (0.1, 1.0), at)
    scaled = at._replace(mu=at.mu * units * units, N=at.N * units * units)
    if abs(np.log2(units)) < 500:
        assert rigorous.relaxation_bound(U * units, X, (0.1, 1.0), scaled) == bound * units
        assert rigorous.relaxation_bound(U, X * units, (0.1, 1.0), at) == bound * units
        cuts = at._replace(Vz=at.Vz * units, Vn=at.Vn * units, N=at.N / units / units)
        assert rigorous.relaxation_bound(U, X, (0.1, 1.0), cuts) == bound
    else:  # mu underflows to 0: refused, not wrong
        assert rigorous.relaxation_bound(U * units, X, (0.1, 1.0), scaled) == np.inf


@pytest.mark.parametrize("norm", ["l1", "linf"])
@hypothesis.given(seed=seeds, shape=shapes, slopes=st.sampled_from(SLOPES))
def test_relaxation_in_other_norms(norm, seed, shape, slopes):
    """For ||w||_1 <= 1 and ||w||_inf <= 1 no direction of that ball exceeds the bound."""
    rng, U, X = instance(seed, shape)
    bound = rigorous.relaxation_bound(U, X, slopes, random_multipliers(rng, U, slopes), norm)
    W = np.concatenate([directions_of(X, rng, 200), rng.choice([-1.0, 1.0], size=(50, X.shape[1]))])
    order = {"l1": 1, "linf": np.inf}[norm]
    W = W[np.linalg.norm(W, axis=1) > 0]
    W = W / np.linalg.norm(W, ord=order, axis=1, keepdims=True)
    assert bound >= np.linalg.norm(activation(slopes, X @ W.T).T @ U, axis=1).max() * (1 - 1e-14)


@every_slopes
@hypothesis.settings(max_examples=60)
@hypothesis.given(
    seed=seeds, m=st.integers(1, 30), dx=st.integers(1, 2), dy=st.integers(1, 3), x_scale=scales, u_scale=scales
)
def test_arcs_are_exact(slopes, seed, m, dx, dy, x_scale, u_scale):
    """Never below a dense grid of angles and the kinks themselves, and attained to 1e-9."""
    _, U, X = instance(seed, (m, dx, dy), x_scale, u_scale)
    bound = rigorous.polar_bound("arcs", U, X, slopes)
    plane = np.hstack([X, np.zeros((m, 2 - dx))])
    kinks = np.stack([-plane[:, 1], plane[:, 0]], axis=1)
    values, angles, _ = rigorous.arcs(U, X, slopes)
    attained = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    directions = np.concatenate([fan(2000), kinks, -kinks, plane, attained])
    truth = neuron_values(U, plane, slopes, directions).max()
    rounding = 1e-14 * (np.linalg.norm(U, axis=1) * np.linalg.norm(X, axis=1)).sum()
    assert bound >= truth - rounding
    assert bound <= truth + 1e3 * rounding
    np.testing.assert_allclose(neuron_values(U, plane, slopes, attained), values, atol=1e3 * rounding)


@pytest.mark.parametrize("distance", [1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12])
def test_arcs_see_small_peaks_between_samples_that_almost_coincide(distance):
    """Weights 1, -2, 1 on three neighbours cancel but for a peak of the size of their distance."""
    t = np.pi / 2 + distance * np.asarray([0, 1, 2])
    X, U = np.stack([np.cos(t), np.sin(t)], axis=1), np.asarray([[1.0], [-2.0], [1.0]])
    bound = rigorous.polar_bound("arcs", U, X, (0.0, 1.0))
    assert math.sin(distance) * (1 - 1e-6) <= bound <= distance + 1e-12


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    seed=seeds, n=st.integers(1, 8), k=st.integers(1, 8), scale=st.sampled_from([1e-200, 1e-12, 1.0, 1e12, 1e200])
)
def test_spectral_norm(seed, n, k, scale):
    """Never below the largest singular value in rational arithmetic, and above it by rounding only."""
    rng = np.random.default_rng(seed)
    A = degenerate(rng, rng.normal(size=(n, k))) * scale
    bound = rigorous.spectral_norm(A)
    a = exactly(A)
    gram = oracles.product(oracles.transposed(a), a)
    square = [[Fraction(bound) ** 2 * int(i == j) for j in range(k)] for i in range(k)]
    assert oracles.is_positive(oracles.combined(square, gram, -1))
    assert bound <= np.linalg.norm(A / scale, 2) * scale * (1 + 1e-12)


def vertices(norm, n, rng):
    """Extreme points of the unit ball, or for l2 many points of it."""
    if norm == "l1":
        return np.concatenate([np.eye(n), -np.eye(n)])
    if norm == "linf":
        return np.stack(np.meshgrid(*[[-1.0, 1.0]] * n), axis=-1).reshape(-1, n)
    points = rng.normal(size=(3000, n))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


PAIRS = [(a, b) for a in ("l1", "l2", "linf") for b in ("l1", "l2", "linf")]


@pytest.mark.parametrize("norms", PAIRS, ids=str)
@hypothesis.settings(max_examples=10)
@hypothesis.given(seed=seeds, shape=shapes)
def test_linear_bound_of_every_pair_of_norms(norms, seed, shape):
    """Above every pair of vertices; equal to the best where that is known in closed form."""
    rng, U, X = instance(seed, shape)
    M = X.T @ U
    bound = rigorous.polar_bound("linear", U, X, (2.0, 2.0), 2, None, norms, M.shape)
    found = 2 * (vertices(norms[0], M.shape[0], rng) @ M @ vertices(norms[1], M.shape[1], rng).T).max()
    assert bound >= found * (1 - 1e-13)
    if "l2" not in norms and norms != ("linf", "linf"):
        assert bound <= found * (1 + 1e-9) + 1e-13 * np.abs(X).max() * np.abs(U).max() * len(X)
    if norms == ("l2", "l2"):
        sigma = 2 * np.linalg.svd(M, compute_uv=False)[0]
        assert bound <= sigma * (1 + 1e-9) + 1e-12 * np.abs(X).max() * np.abs(U).max() * len(X)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_single_layer_bound_is_the_dual_norm(norm):
    """phi(W) = X W: the largest entry, the Frobenius norm, the sum of sizes of X^T U."""
    _, U, X = instance(3, (6, 3, 2))
    M = np.abs(X.T @ U)
    expected = {"l1": M.max(), "l2": math.sqrt((M * M).sum()), "linf": M.sum()}[norm]
    bound = rigorous.polar_bound("linear", U, X, (0.0, 1.0), 1, None, (norm,), (6,))
    assert expected <= bound <= expected * (1 + 1e-12)


@pytest.mark.parametrize("K", [2, 3, 4])
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@hypothesis.given(seed=seeds, slopes=st.sampled_from(SLOPES), hidden=st.integers(1, 3))
def test_product_bound_is_sound(K, norm, seed, slopes, hidden):
    """No subnetwork of K layers with unit norms exceeds it, random ones and ones climbed from them."""
    rng, U, X = instance(seed, (5, 3, 2))
    dims = [3, *[hidden] * (K - 1), 2]
    sizes = [a * b for a, b in itertools.pairwise(dims)]
    bound = rigorous.polar_bound("product", U, X, slopes, K, None, (norm,) * K, sizes)
    order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]

    def value(kernels):
        Z = X
        for kernel in kernels[:-1]:
            Z = activation(slopes, Z @ (kernel / np.linalg.norm(kernel.ravel(), order)))
        return np.sum(U * (Z @ kernels[-1] / np.linalg.norm(kernels[-1].ravel(), order)))

    best = -np.inf
    for _ in range(4):
        kernels = [rng.normal(size=s) for s in itertools.pairwise(dims)]
        now = value(kernels)
        for step in np.geomspace(1, 1e-2, 40):
            moved = [k + step * rng.normal(size=k.shape) * np.abs(k).max() for k in kernels]
            then = value(moved)
            kernels, now = (moved, then) if then > now else (kernels, now)
        best = max(best, now)
    assert bound >= best


def test_bounds_that_do_not_hold_for_a_problem_are_refused():
    """A certificate cannot ask for the exact value of another problem."""
    U, X = np.ones((2, 1)), np.asarray([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])  # X^T U = 0, but a ReLU sees 1
    sizes = (3, 1)
    assert rigorous.polar_bound("linear", U, X, (0.0, 1.0), 2, None, ("l2", "l2"), sizes) == math.inf
    assert rigorous.polar_bound("linear", U, X, (1.0, 1.0), 2, None, ("l2", "l2"), sizes) < 1e-12
    assert rigorous.polar_bound("arcs", U, X, (0.0, 1.0)) == math.inf
    assert rigorous.polar_bound("none", U, X, (0.0, 1.0)) == math.inf
    for kind in ("arcs", "relaxation"):
        for layers in (1, 3):
            assert rigorous.polar_bound(kind, U, X[:, :2], (0.0, 1.0), layers) == math.inf
    bad = np.asarray([[np.nan], [1.0]])
    assert rigorous.polar_bound("product", bad, X, (0.0, 1.0)) == math.inf
    with pytest.raises(ValueError, match="kind: Expected: one of none, linear"):
        rigorous.polar_bound("magic", U, X, (0.0, 1.0))
    with pytest.raises(ValueError, match="multipliers: Expected"):
        rigorous.polar_bound("relaxation", U, X, (0.0, 1.0))


# --- the dual value ---------------------------------------------------------------------------------------------


def dual_case(loss, rng, scale):
    """(V, Y) with V in the domain of the conjugate."""
    m, dy = 4, 3
    if loss == "softmax_cross_entropy":
        Y = rng.dirichlet(np.ones(dy), size=m) if rng.random() < 0.5 else np.eye(dy)[rng.integers(0, dy, m)]
        q = rng.dirichlet(np.full(dy, 0.3), size=m)
        return (q - Y) * rng.choice([1.0, 1e-3]), Y
    if loss == "logistic":
        Y = rng.choice([-1.0, 1.0], size=(m, dy))
        return -Y * np.minimum(rng.random((m, dy)) ** rng.choice([1, 30]), 1.0), Y
    Y = scale * rng.normal(size=(m, dy))
    limit = 0.7 if loss.startswith("huber") else 10 * scale
    return np.clip(scale * rng.normal(size=(m, dy)), -limit, limit), Y


@pytest.mark.parametrize("loss", ["squared", "huber:0.7", "softmax_cross_entropy", "logistic"])
@hypothesis.settings(max_examples=60)
@hypothesis.given(seed=seeds, scale=scales)
def test_dual_value_is_below_the_exact_one(loss, seed, scale):
    """-loss*(V') in 60 digits is at least the value returned, at most by rounding more; V' is as near as stated."""
    V, Y = dual_case(loss, np.random.default_rng(seed), scale)
    value, moved = rigorous.dual_value(loss, V, Y)
    exact, size, distance = Fraction(0), 0.0, Fraction(0)
    with localcontext() as context:
        context.prec = 60

        def xlogx(q):
            p = Decimal(q.numerator) / Decimal(q.denominator)
            return Fraction(p * p.ln()) if p > 0 else Fraction(0)

        for vs, ys in zip(exactly(V), exactly(Y), strict=True):
            total = sum(vs) + sum(ys)
            for v, y in zip(vs, ys, strict=True):
                if loss in ("squared", "huber:0.7"):
                    exact -= v * v / 2 + v * y
                    size += float(v * v / 2 + abs(v * y))
                elif loss == "logistic":
                    exact -= xlogx(-y * v) + xlogx(1 + y * v)
                    size += 1
                else:
                    q = (v + y) / total
                    distance += (q - y - v) ** 2
                    exact -= xlogx(q)
                    size += 1
    assert Fraction(value) <= exact + Fraction(1, 10**50)
    assert Fraction(value) >= exact - Fraction(1e-13 * size + 1e-300)
    assert Fraction(moved) ** 2 >= distance


def test_distance_to_the_simplex_is_never_understated():
    """A float32 point whose rows sum to 1 - 1e-6: the projection's distance, exactly."""
    for miss in (-9.99e-7, 9.99e-7, 1e-9):
        q, Y = np.asarray([[0.5, 0.5 + miss]]), np.asarray([[1.0, 0.0]])
        V = q - Y
        _, moved = rigorous.dual_value("softmax_cross_entropy", V, Y)
        vs, ys = exactly(V)[0], exactly(Y)[0]
        total = sum(vs) + sum(ys)
        shifts = [(v + y) / total - y - v for v, y in zip(vs, ys, strict=True)]
        assert sum(s * s for s in shifts) <= Fraction(moved) ** 2
        assert moved <= 1.01 * abs(miss)


@pytest.mark.parametrize(
    ("loss", "V", "Y"),
    [
        ("huber:0.5", [[0.5000001]], [[0.0]]),
        ("logistic", [[0.1]], [[1.0]]),
        ("logistic", [[-1.0000001]], [[1.0]]),
        ("logistic", [[-0.5]], [[2.0]]),
        ("softmax_cross_entropy", [[0.1, 0.1]], [[1.0, 0.0]]),
        ("softmax_cross_entropy", [[0.1, -0.1]], [[1.0, 0.0]]),
    ],
)
def test_no_dual_value_outside_the_domain(loss, V, Y):
    """Nothing is clipped back in."""
    assert rigorous.dual_value(loss, np.asarray(V), np.asarray(Y))[0] == -math.inf


def test_loss_values_agree():
    """The module's losses are the textbook's, for large predictions too."""
    rng = np.random.default_rng(0)
    for loss in ("squared", "huber:0.7", "softmax_cross_entropy", "logistic"):
        for scale in (1.0, 1e3):
            _, Y = dual_case(loss, rng, 1.0)
            Z = scale * rng.normal(size=Y.shape)
            assert rigorous.loss_value(loss, Z, Y)[0] == pytest.approx(float(loss_values(loss, Z, Y)), rel=1e-13)
    for call in (rigorous.loss_value, rigorous.dual_value):
        with pytest.raises(ValueError, match="loss: Expected: squared"):
            call("hinge", np.ones((1, 1)), np.ones((1, 1)))


# --- stored certificates ----------------------------------------------------------------------------------------


def certificate():
    """A certificate with every piece non-trivial: relaxation, multipliers, dual point, weights."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    weights = [0.3 * rng.normal(size=(2, 3)), 0.3 * rng.normal(size=(2, 2))]
    lam = 0.7
    V = rigorous.predict(weights, X, (0.0, 1.0))[0] - Y
    multipliers = random_multipliers(rng, V, (0.0, 1.0))
    s = lam / rigorous.relaxation_bound(V, X, (0.0, 1.0), multipliers) * (1 - 1e-11)
    V, multipliers = s * V, multipliers._replace(mu=s**2 * multipliers.mu, N=s**2 * multipliers.N)
    # Cut columns are free: they scale with nothing.
    problem = {
        "bound": "relaxation",
        "loss": "squared",
        "lam": lam,
        "layers": 2,
        "slopes": [0.0, 1.0],
        "theta": "sum_of_powers",
        "norms": ["l2", "l2"],
        "sizes": [3, 2],
    }
    claimed = {
        "objective": rigorous.objective(problem, weights, X, Y)[0],
        "lower_bound": rigorous.dual_value("squared", V, Y)[0],
    }
    return {
        "problem": problem,
        "weights": weights,
        "V": V,
        "multipliers": multipliers,
        "X": X,
        "Y": Y,
        "claimed": claimed,
    }


def test_a_good_certificate_holds():
    """The check reproduces objective and bound, and says so."""
    stored = certificate()
    verdict = rigorous.check_certificate(**stored)
    assert verdict.holds, verdict.reason
    assert verdict.reason.startswith("Proved: ")
    assert 0 < verdict.lower_bound < verdict.objective
    assert verdict.polar_bound <= stored["problem"]["lam"]
    assert verdict.lower_bound == stored["claimed"]["lower_bound"]


def spoiled():
    """(name, what the verdict must say, the pieces that are changed)."""
    good = certificate()
    problem, claimed, multipliers = good["problem"], good["claimed"], good["multipliers"]
    wider = [np.concatenate([w, w]) for w in good["weights"]]
    deep = [w[:, :, None] if k == 0 else w[:, None, :] for k, w in enumerate(good["weights"])]
    return [
        ("dual point", "not feasible", {"V": 1.01 * good["V"]}),
        ("dual point elsewhere", "not proved", {"V": 0.9 * good["V"]}),
        ("dual point NaN", "dual point: Expected: finite", {"V": np.nan * good["V"]}),
        ("dual point missing", "not proved", {"V": np.zeros((0, 0))}),
        ("mu", "not feasible", {"multipliers": multipliers._replace(mu=1e6 * multipliers.mu)}),
        ("mu small", "not feasible", {"multipliers": multipliers._replace(mu=0.9 * multipliers.mu)}),
        ("negative N", "not feasible", {"multipliers": multipliers._replace(N=-multipliers.N)}),
        ("negative V", "not feasible", {"multipliers": multipliers._replace(Vn=-1 - multipliers.Vn)}),
        ("weights", "claimed objective", {"weights": [good["weights"][0] * 1.0001, good["weights"][1]]}),
        ("more weights", "claimed objective", {"weights": wider}),
        ("deeper weights", "not those of the problem", {"weights": [deep[0], np.ones((2, 1, 1)), deep[1]]}),
        ("NaN weights", "W1: Expected: finite", {"weights": [np.nan * w for w in good["weights"]]}),
        ("bound", "not proved", {"claimed": claimed | {"lower_bound": claimed["lower_bound"] * 1.0001}}),
        ("bound NaN", "not proved", {"claimed": claimed | {"lower_bound": np.nan}}),
        ("objective", "claimed objective", {"claimed": claimed | {"objective": claimed["objective"] * 0.9999}}),
        ("objective NaN", "claimed objective", {"claimed": claimed | {"objective": np.nan}}),
        ("lam", "claimed objective", {"problem": problem | {"lam": 0.71}}),
        ("smaller lam", "claimed objective", {"problem": problem | {"lam": 0.69}}),
        ("sizes", "not those of the problem", {"problem": problem | {"sizes": [1, 2]}}),
        ("layers", "norms: Expected: 3", {"problem": problem | {"layers": 3}}),
        ("layers and norms", "not those of the problem", {"problem": problem | {"layers": 3, "norms": ["l2"] * 3}}),
        ("bound of a linear map", "not proved", {"problem": problem | {"bound": "linear"}}),
        ("X", "claimed objective", {"X": good["X"] * 1.001}),
        ("Y", "claimed objective", {"Y": good["Y"] * 1.001}),
    ]


@pytest.mark.parametrize(("name", "reason", "change"), spoiled(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_spoiled_certificate_fails(name, reason, change):
    """Each piece changed by itself is noticed, with the reason."""
    verdict = rigorous.check_certificate(**(certificate() | change))
    assert not verdict.holds
    assert reason in verdict.reason


def test_a_smaller_lam_is_not_feasible():
    """The same dual point proves nothing at a smaller lam, even with the objective claimed anew."""
    stored = certificate()
    stored["problem"] = stored["problem"] | {"lam": 0.69}
    objective, _ = rigorous.objective(stored["problem"], stored["weights"], stored["X"], stored["Y"])
    stored["claimed"] = stored["claimed"] | {"objective": objective}
    verdict = rigorous.check_certificate(**stored)
    assert not verdict.holds
    assert "not feasible" in verdict.reason


def test_an_objective_that_rounding_hides_is_no_global_minimum():
    """Two subnetworks of size 1e16 cancel up to 2.98 at a target of 2: float64 may make 2 of it, and a loss of 0."""
    problem = {"bound": "linear", "loss": "squared", "lam": 1e-20, "layers": 2, "slopes": [1.0, 1.0]}
    problem |= {"theta": "sum_of_powers", "norms": ["l2", "l2"], "sizes": [1, 1]}
    weights = [np.array([[1e8], [1e8]]), np.array([[1e8], [-1e8 + 2.0**-25]])]
    one, none = np.ones((1, 1)), rigorous.empty_multipliers()
    output = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(*(w[:, 0] for w in weights), strict=True))
    exact = float((output - 2) ** 2 / 2)
    value, error = rigorous.objective(problem, weights, one, 2 * one)
    assert 0.4 < exact < value + error  # value is 0.48 or 2e-4: BLAS rounds the sum as the processor does
    for claimed, holds in ((0.0, False), (value, False), (value + 1.5 * error, True), (value + 2 * error, True)):
        record = {"objective": claimed, "lower_bound": 0.0}
        found = rigorous.check_certificate(problem, weights, np.zeros((1, 1)), none, one, 2 * one, record)
        assert found.holds == holds
        assert holds or "subnetworks cancel" in found.reason


@pytest.mark.parametrize("size", [0.0, 1e-140])
def test_an_objective_of_zero_may_be_claimed(size):
    """Numbers that underflow have an error that is no share of an objective of 0."""
    problem = {"bound": "linear", "loss": "squared", "lam": 1.0, "layers": 2, "slopes": [1.0, 1.0]}
    problem |= {"theta": "sum_of_powers", "norms": ["l2", "l2"], "sizes": [1, 1]}
    zero, none = np.zeros((1, 1)), rigorous.empty_multipliers()
    record = {"objective": rigorous.objective(problem, [zero, zero], zero + 1, zero + size)[0], "lower_bound": 0.0}
    assert rigorous.check_certificate(problem, [zero, zero], zero, none, zero + 1, zero + size, record).holds
