"""Bounds against everybody else's best, over random and degenerate instances.

An instance goes through what the library does: descend, take the loss's gradient as dual point, fit the relaxation's
multipliers, evaluate rigorously. Against that stand a dense search with an ascent (the polar), the descent's
own best objective, a planted network, and the convex program where there is one (the global minimum).
"""

from functools import cache, partial
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from globopt_jax import homogeneous, losses, rigorous
from globopt_jax.homogeneous.polar import ascent, relaxation
from globopt_jax.homogeneous.problem import objective, predict
from tests import oracles

M, DX = 40, 4  # every instance is padded to this many rows and inputs, so that a family compiles once


class Family(NamedTuple):
    """What is static in a compilation."""

    slopes: tuple[float, float]
    loss: str
    dy: int
    dtype: Any = jnp.float64


FAMILIES = [
    Family((0.0, 1.0), "squared", 1),
    Family((0.1, 1.0), "huber:0.5", 1),
    Family((-1.0, 1.0), "logistic", 2),
    Family((0.0, 1.0), "softmax_cross_entropy", 3),
    Family((-0.3, 1.0), "squared", 3, jnp.float32),
]
SHAPES = [(1, 1), (2, 3), (5, 2), (8, 3), (12, 1), (12, 2), (15, 4), (30, 3), (40, 4), (40, 2)]


class Instance(NamedTuple):
    """Data of size about 1, its factors, and lam over the polar of the loss's gradient at zero weights."""

    X: np.ndarray
    Y: np.ndarray
    x_scale: float
    y_scale: float
    share: float


class Run(NamedTuple):
    """What the compiled part hands back: weights, dual point, lam, multipliers' coordinates, best directions."""

    params: Any
    U: Any
    lam: Any
    coordinates: Any
    directions: Any


def instance(family: Family, shape: tuple[int, int], seed: int, structure: str) -> Instance:
    """One problem with the degeneracy that hypothesis drew."""
    (m, dx), dy, rng = shape, family.dy, np.random.default_rng(seed)
    X = rng.normal(size=(m, dx))
    if structure == "integers":
        X = rng.integers(-1, 2, size=(m, dx)).astype(float)
    elif structure == "duplicates":
        X = X[rng.integers(0, max(m // 2, 1), m)] * rng.choice([1.0, -1.0, 2.0], size=(m, 1))
    elif structure == "zeros":
        X = X * (rng.random((m, 1)) < 0.6)
    elif structure == "a line":
        X = rng.normal(size=(m, 1)) * rng.normal(size=(1, dx))
    elif structure == "rows of all sizes":
        X = X * 10.0 ** rng.uniform(-4, 0, size=(m, 1))
    elif structure == "near duplicates":
        X = X[rng.integers(0, max(m // 3, 1), m)] + 1e-9 * rng.normal(size=(m, dx))
    if family.loss == "softmax_cross_entropy":
        Y = np.eye(dy)[rng.integers(0, dy, m)]
    elif family.loss == "logistic":
        Y = rng.choice([-1.0, 1.0], size=(m, dy))
    elif rng.random() < 0.5:  # a planted neuron and a little noise: a small gap, a sharp test
        hidden = oracles.activation(family.slopes, X @ rng.normal(size=(dx, 2)))
        Y = hidden @ rng.normal(size=(2, dy)) + 0.05 * rng.normal(size=(m, dy))
    else:
        Y = rng.normal(size=(m, dy))
    free = family.loss == "squared" or family.loss.startswith("huber")
    x_scale, y_scale = 10.0 ** rng.integers(-12, 13, size=2) if rng.random() < 0.3 else (1.0, 1.0)
    return Instance(X, Y, float(x_scale), float(y_scale) if free else 1.0, float(rng.choice([0.03, 0.2, 0.7, 1.3])))


@cache
def compiled(family: Family):
    """Descent from three starts, dual point, multipliers, search: one compilation for the whole family."""
    phi = homogeneous.neuron(family.slopes)
    theta = homogeneous.sum_of_powers().bind(phi)
    loss, dtype = losses.by_name(family.loss), family.dtype

    def adam(cost, start, rate, steps):
        """The best point that Adam saw."""

        def step(carry, k):
            at, mean, square, best, value = carry
            now, g = jax.value_and_grad(cost)(at)
            best = jax.tree.map(lambda a, b: jnp.where(now < value, a, b), at, best)
            g = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0), g)
            mean = jax.tree.map(lambda m, a: 0.9 * m + 0.1 * a, mean, g)
            square = jax.tree.map(lambda v, a: 0.95 * v + 0.05 * a * a, square, g)
            move = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-12), mean, square)
            at = jax.tree.map(lambda a, d: a - rate * (1 - k / steps) * d, at, move)
            return (at, mean, square, best, jnp.minimum(value, now)), None

        zero = jax.tree.map(jnp.zeros_like, start)
        first = (start, zero, zero, start, jnp.asarray(jnp.inf, dtype))
        (_, _, _, best, value), _ = jax.lax.scan(step, first, jnp.arange(steps, dtype=dtype))
        return best, value

    def one(X, Y, share, starts, seeds):
        def polar(U):
            return ascent.search(phi, theta, U, X, seeds, steps=40)

        zero = jnp.zeros_like(Y)
        lam = share * polar(-loss.gradient(zero, Y)).value
        problem = homogeneous.Problem(phi, theta, loss, lam)
        found, values = jax.vmap(lambda w: adam(lambda p: objective(problem, p, X, Y), w, 0.05, 250))(starts)
        params = jax.tree.map(lambda w: w[jnp.argmin(values)], found)
        U = loss.gradient(predict(problem, params, X), Y)
        at = relaxation.initial(U, jnp.ones((M, 1), dtype))
        at, _ = adam(lambda c: jnp.log(relaxation.bound(U, X, family.slopes, c)), at, 0.2, 120)
        return Run(params, U, lam, at, polar(-U).params[0])

    return jax.jit(jax.vmap(one, (0, 0, 0, None, None)))


def padded(family: Family, batch: list[Instance]) -> tuple[np.ndarray, np.ndarray]:
    """The data of all instances (n, M, DX), (n, M, dy), with rows of zeros and targets that the loss knows."""
    X, Y = np.zeros((len(batch), M, DX)), np.zeros((len(batch), M, family.dy))
    for k, case in enumerate(batch):
        X[k, : len(case.X), : case.X.shape[1]] = case.X
        Y[k, : len(case.Y)] = case.Y
    if family.loss == "softmax_cross_entropy":
        Y[:, :, 0] += Y.sum(axis=2) == 0
    if family.loss == "logistic":
        Y[Y == 0] = 1
    return X, Y


def solved(family: Family, batch: list[Instance]) -> Run:
    """The compiled part on a batch, as NumPy float64."""
    rng, dtype = np.random.default_rng(0), family.dtype
    X, Y = padded(family, batch)
    starts = [0.7 * rng.normal(size=(3, 6, d)) for d in (DX, family.dy)]
    seeds = [rng.normal(size=(24, d)) for d in (DX, family.dy)]
    with jax.enable_x64(dtype == jnp.float64):
        data = [jnp.asarray(a, dtype) for a in (X, Y, np.asarray([c.share for c in batch]))]
        seeds, starts = ([jnp.asarray(a, dtype) for a in w] for w in (seeds, starts))
        found = compiled(family)(*data, tuple(starts), tuple(seeds))
        return jax.tree.map(lambda a: np.asarray(a, np.float64), found)


class Report(NamedTuple):
    """Of one instance: bound over search of the polar; (best - bound) / best, with the best found and the optimum."""

    polar: float
    gap: float
    optimum: float


def graded(
    family: Family, case: Instance, run: Run, evaluate: Any = None, tamper: Any = None, exact: bool = True
) -> Report:
    """Upper bound of the polar and lower bound of the minimum against the best that anybody finds."""
    m, dx = case.X.shape
    a, b = case.x_scale, case.y_scale
    X, Y = case.X * a, case.Y * b
    U = run.U[:m] * b
    w1, w2 = (run.params[0][:, :dx] * np.sqrt(b / a), run.params[1] * np.sqrt(b / a))
    loss = f"huber:{0.5 * b!r}" if family.loss.startswith("huber") else family.loss
    lam = float(run.lam) * a * b or a * b
    with jax.enable_x64(family.dtype == jnp.float64):
        U_, at = jax.tree.map(lambda c: jnp.asarray(c, family.dtype), (run.U, run.coordinates))
        cuts = relaxation.multipliers(U_, family.slopes, relaxation.Coordinates(*at))
    cuts = rigorous.Multipliers(cuts.mu[:m] * b * b, cuts.Vz[:m], cuts.Vn[:m], cuts.N * b * b)
    cuts = cuts if tamper is None else tamper(U, family.slopes, cuts)
    # Rows beyond m hold residuals of their own in the padded run; cutting them off leaves M positive definite.
    bound = (evaluate or rigorous.relaxation_bound)(U, X, family.slopes, cuts)
    rng = np.random.default_rng(0)
    directions = np.concatenate([oracles.directions_of(case.X, rng, 300), run.directions[:, :dx]])
    directions = np.concatenate([directions, oracles.fan(720)]) if dx == 2 else directions
    search = oracles.neuron_values(U, X, family.slopes, directions).max()

    plain = {"bound": "relaxation", "loss": loss, "lam": lam, "layers": 2, "slopes": list(family.slopes)}
    plain |= {"theta": "sum_of_powers", "norms": ["l2", "l2"], "sizes": [dx, family.dy]}
    if family.loss == "softmax_cross_entropy":
        q = np.maximum(U + Y, 0)
        U = q / q.sum(axis=1, keepdims=True) - Y
    lower = -np.inf
    # Domains here contain U, so every s <= 1 is allowed, and for the squared loss every s.
    free = float(np.clip(-np.sum(U * Y) / max(np.sum(U * U), 1e-300), 0, np.inf)) if loss == "squared" else 1.0
    for kind, polar in (("relaxation", bound), ("arcs", _arcs(U, X, family.slopes))):
        top = min(lam / polar * (1 - 1e-11) if polar > 0 else np.inf, free)
        for s in (top, 0.9 * top, 0.5 * top) if np.isfinite(top) else (1.0,):
            scaled = cuts._replace(mu=cuts.mu * s * s, N=cuts.N * s * s)
            if evaluate is None or kind == "arcs":
                lower = max(lower, rigorous.lower_bound(plain | {"bound": kind}, s * U, scaled, X, Y)[0])
            else:
                lower = max(lower, rigorous.dual_value(loss, s * U, Y)[0])

    zero = [np.zeros((1, dx)), np.zeros((1, family.dy))]
    best = min(_objective(loss, lam, family.slopes, w, X, Y) for w in ([w1, w2], zero))
    optimum = np.nan
    if exact and dx <= 2 and family.dy == 1 and m <= 12 and (a, b) == (1.0, 1.0):
        value = oracles.global_minimum(loss, X, Y, lam, family.slopes)
        optimum = (value - lower) / max(abs(value), 1e-300)
    return Report(bound / search if search > 0 else np.inf, (best - lower) / max(abs(best), 1e-300), optimum)


def _arcs(U, X, slopes):
    return rigorous.polar_bound("arcs", U, X, slopes) if X.shape[1] <= 2 else np.inf


def _objective(loss, lam, slopes, weights, X, Y):
    """The objective, by formulas of its own."""
    Z = oracles.activation(slopes, X @ weights[0].T) @ weights[1]
    return float(oracles.loss_values(loss, Z, Y)) + lam / 2 * sum(float(np.sum(w * w)) for w in weights)


STRUCTURES = ["plain", "integers", "duplicates", "zeros", "a line", "rows of all sizes", "near duplicates"]
cases = st.tuples(st.sampled_from(SHAPES), st.integers(0, 2**32 - 1), st.sampled_from(STRUCTURES))


def drawn(family: Family, count: int, rounds: int) -> list[Instance]:
    """count * rounds instances whose structure and seeds hypothesis draws."""
    batch: list[Instance] = []

    @hypothesis.settings(max_examples=rounds, database=None, phases=[hypothesis.Phase.generate])
    @hypothesis.given(st.lists(cases, min_size=count, max_size=count, unique=True))
    def draw(found):
        batch.extend(instance(family, *case) for case in found)

    draw()
    return batch[: count * rounds]


def assert_never_wrong(family: Family, batch: list[Instance]) -> list[Report]:
    """No bound is on the wrong side of anybody's best."""
    runs = solved(family, batch)
    reports = []
    for k, case in enumerate(batch):
        report = graded(family, case, jax.tree.map(lambda a, k=k: a[k], runs))
        assert report.polar >= 1 - 1e-13, (family, case, report)
        assert report.gap >= -1e-12, (family, case, report)
        # The convex program's own solution is good to about 1e-9 of the loss at zero.
        assert not report.optimum < -1e-7, (family, case, report)
        reports.append(report)
    return reports


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.loss != "logistic"], ids=str)
def test_bounds_are_never_wrong(family):
    """Fifty instances of each family: polar bound >= search, lower bound <= every objective found."""
    reports = assert_never_wrong(family, drawn(family, 10, 5))
    assert len(reports) == 50
    # And they are no empty statements: finite, and of some use.
    assert np.median([r.polar for r in reports]) < 3
    assert np.isfinite([r.gap for r in reports]).all()
    if family.dy == 1:
        assert np.sum(np.isfinite([r.optimum for r in reports])) >= 5


@pytest.mark.slow
def test_bounds_are_never_wrong_at_length():
    """Two thousand and more instances, of all families."""
    reports = []
    for family in FAMILIES:
        batch = drawn(family, 10, 42)
        for start in range(0, len(batch), 60):
            reports += assert_never_wrong(family, batch[start : start + 60])
    assert len(reports) >= 2000
    polar, gap, optimum = (np.asarray(column) for column in zip(*reports, strict=True))
    optimum = optimum[np.isfinite(optimum)]
    print(
        f"\n{len(reports)} instances; polar bound / search: smallest {polar.min():.12f}, median {np.median(polar):.4f}"
    )
    print(f"gap to the best objective: smallest {gap.min():.3g}, median {np.median(gap):.3g}")
    print(f"{len(optimum)} convex optima: smallest gap {optimum.min():.3g}, median {np.median(optimum):.3g}")


def assert_certify_is_never_wrong(family: Family, batch: list[Instance], effort: homogeneous.Effort) -> list[float]:
    """`certify` itself, at the padded shape: its bounds against a dense search and the best objective found."""
    runs = solved(family, batch)
    phi, gaps = homogeneous.neuron(family.slopes), []
    for k, case in enumerate(batch):
        run = jax.tree.map(lambda a, k=k: a[k], runs)
        lam = float(run.lam) or 1.0
        X, Y = (a[0] for a in padded(family, [case]))
        with jax.enable_x64(family.dtype == jnp.float64):
            # What is graded is what the dtype holds.
            X, Y, *w = (np.asarray(a, family.dtype) for a in (X, Y, *run.params))
            problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.by_name(family.loss), lam)
            found = homogeneous.certify(problem, tuple(w), X, Y, effort=effort)
        # The certificate is about the exact gradient, so its rounding in float32 has no place here.
        X, Y, *w = (np.asarray(a, np.float64) for a in (X, Y, *w))
        G = np.asarray(problem.loss.gradient(predict(problem, tuple(w), X), Y))
        zero = [np.zeros((1, DX)), np.zeros((1, family.dy))]
        best = min(_objective(family.loss, lam, family.slopes, point, X, Y) for point in (w, zero))
        lower, upper = float(found.lower_bound), float(found.polar_upper)
        assert lower <= best + 1e-12 * abs(best), (family, case, lower, best)
        directions = np.concatenate([oracles.directions_of(X, np.random.default_rng(0), 300), run.directions])
        search = oracles.neuron_values(-G, X, family.slopes, directions).max()
        assert upper >= search * (1 - 1e-13), (family, case, upper, search)
        assert float(found.polar_lower) <= upper, (family, case)
        assert float(found.objective) == pytest.approx(_objective(family.loss, lam, family.slopes, w, X, Y), rel=1e-12)
        gaps.append((best - lower) / max(abs(best), 1e-300))
    return gaps


def test_certify_is_never_wrong():
    """Twelve instances of one family through the public function."""
    family = FAMILIES[0]
    effort = homogeneous.Effort(fixed=60, joint=0, groups=1, starts=8, climbs=30)
    gaps = assert_certify_is_never_wrong(family, drawn(family, 10, 5)[:12], effort)
    assert np.median(gaps) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_certify_is_never_wrong_at_length(family):
    """Fifty instances of each family with every stage of the ascent: descent, multipliers, dual point."""
    effort = homogeneous.Effort(fixed=100, joint=200, groups=1, starts=16, climbs=60)
    gaps = assert_certify_is_never_wrong(family, drawn(family, 10, 5), effort)
    print(f"\n{family}: gap to the best objective: smallest {np.min(gaps):.3g}, median {np.median(gaps):.3g}")


def negative_products(U, slopes, cuts):
    """Cuts that a bound without the condition N >= 0 would accept: they cancel most of U U^T."""
    kappa2, dy = (slopes[1] - slopes[0]) ** 2, U.shape[1]
    V, one = np.hstack([np.maximum(U, 0), np.maximum(-U, 0)]), np.eye(dy)
    N = -0.99 * kappa2 * np.block([[one, -one], [-one, one]])
    mu = np.full(len(U), 0.011 * kappa2 * max(np.linalg.norm(U) ** 2, 1e-300))
    return rigorous.Multipliers(mu, V, np.zeros((len(U), 0)), N)


def test_a_broken_bound_is_caught():
    """The same instances, with one positivity condition deleted from the source: bounds below the truth, and often."""
    family = FAMILIES[0]
    batch = drawn(family, 10, 5)  # the shape that is compiled already
    runs = solved(family, batch)
    broken = oracles.without("np.all(N >= 0)", rigorous.relaxation_bound)
    attack = partial(graded, family, tamper=negative_products, exact=False)
    reports = [attack(case, jax.tree.map(lambda a, k=k: a[k], runs), evaluate=broken) for k, case in enumerate(batch)]
    assert sum(r.polar < 1 - 1e-13 for r in reports) > len(batch) / 2
    assert sum(r.gap < -1e-12 for r in reports) >= 1
    # The real bound refuses those multipliers, every time.
    for k, case in enumerate(batch):
        U = runs.U[k][: len(case.X)]
        if np.any(U):
            cuts = negative_products(U, family.slopes, None)
            assert rigorous.relaxation_bound(U, case.X, family.slopes, cuts) == np.inf
