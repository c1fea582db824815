"""The meta-algorithm on deeper subnetworks: it never goes up, and what is proved of them is true."""

import jax
import numpy as np
import optax
import pytest

from globopt_jax import homogeneous, losses
from globopt_jax.homogeneous import rigorous
from globopt_jax.homogeneous.capacity import pad
from tests import oracles

EFFORT = homogeneous.Effort(fixed=20, joint=0, groups=1, starts=8, climbs=20)
OPTIMIZER = optax.adam(0.03)  # compiles in a fraction of the default's time, and would go up if it were let
RUNS = [
    pytest.param(3, homogeneous.sum_of_powers, marks=pytest.mark.slow),
    pytest.param(4, homogeneous.product_of_norms),
    pytest.param(2, homogeneous.product_of_norms, marks=pytest.mark.slow),
    pytest.param(2, homogeneous.sum_of_powers, marks=pytest.mark.slow),
    pytest.param(3, homogeneous.product_of_norms, marks=pytest.mark.slow),
    pytest.param(4, homogeneous.sum_of_powers, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("K", "make"), RUNS)
def test_the_trace_never_rises(K, make):
    """Row by row, from zero weights and from random ones; and the weights of a row have the row's objective."""
    rng = np.random.default_rng(K)
    X, Y = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    phi = homogeneous.deep_subnetwork("relu", layers=K)
    problem = homogeneous.Problem(phi, make(), losses.squared, 0.2)
    start = phi.init(jax.random.key(0), r=2, dx=2, dy=2, widths=(2,) * (K - 1))
    for params in (start, jax.tree.map(np.zeros_like, start)):
        options = {"key": jax.random.key(1), "effort": EFFORT, "optimizer": OPTIMIZER, "outer": 3, "inner": 60}
        X_, Y_ = jax.numpy.asarray(X), jax.numpy.asarray(Y)
        rows = list(homogeneous.iterate(problem, jax.tree.map(jax.numpy.asarray, params), X_, Y_, **options))
        trace = rows[-1].trace
        assert rows[-1].done
        values = np.asarray(trace.objective)
        assert np.all(np.diff(values) <= 8 * np.finfo(float).eps * np.abs(values[:-1]))
        assert values[-1] < values[0]
        assert trace.reason.startswith("stop: ")
        for row, value in zip(rows, values, strict=True):
            plain = homogeneous.describe(problem, row.params, 2)
            found, _ = rigorous.objective(plain, [np.asarray(w) for w in row.params], X, Y)
            assert found == pytest.approx(value, rel=1e-12)
    if K > 2:
        _assert_sound(problem, pad(rows[-1].params, 1), X, Y)


def _assert_sound(problem, params, X, Y):
    """The product bound: rigorous numbers on the right side of everything known, from an independent formula."""
    found = homogeneous.certify(problem, params, X, Y, effort=EFFORT)
    assert found.bound == "product"
    weights = [np.asarray(w) for w in params]
    G = sum(_output(w, X) for w in zip(*weights, strict=True)) - Y
    assert found.polar_upper <= np.linalg.norm(G, 2) * np.linalg.norm(X, 2) * (1 + 1e-9)
    assert found.polar_lower <= found.polar_upper
    assert found.lower_bound <= found.lower_bound_estimate <= found.objective * (1 + 1e-9)
    # One direction of size 1 more: none exceeds the bound.
    rng = np.random.default_rng(0)
    for _ in range(500):
        unit = [rng.normal(size=w.shape[1:]) for w in weights]
        unit = [w / np.linalg.norm(w) for w in unit]
        assert np.sum(-G * _output(unit, X)) <= found.polar_upper
    # Zero weights are somebody's best, too.
    assert found.lower_bound <= 0.5 * np.sum(Y * Y)


def _output(kernels, X):
    for kernel in kernels[:-1]:
        X = oracles.activation((0.0, 1.0), X @ kernel)
    return X @ kernels[-1]
