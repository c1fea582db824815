"""The benchmarks run, at a small size, so that they cannot rot; what they measure is printed, not asserted."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import linear, saddles, scalar, tangent


def test_scalar_agrees_with_the_convex_program():
    header, _, row = scalar.table([30], count=1).splitlines()
    cells = dict(zip(header.split("|"), row.split("|"), strict=True))
    assert int(cells[" m "]) == 30
    assert float(cells[" proved gap "]) <= 1e-6
    assert float(cells[" error "]) <= 1e-6
    assert float(cells[" its error "]) <= 1e-6


def test_linear_gradients_agree_with_autodiff():
    row = linear.gradients_table([(20, (6, 4, 3))], jnp.float64)[-1].split("|")
    assert row[1].strip() == "20"
    assert float(row[-2]) < 1e-12
    answers = linear.answers_table(20, (6, 4, 3), jnp.float64)
    assert answers[2].split("|")[1].strip() == "suboptimality_bound"
    assert all(float(line.split("|")[2]) > 0 for line in answers[2:])


def test_saddles_are_named_right(monkeypatch):
    monkeypatch.setattr(saddles, "WIDTHS", ((3, 2, 3, 3),))
    rows = [line.split("|") for line in saddles.table(1).splitlines()[2:]]
    assert {row[4].strip() for row in rows} == {"100.0 %"}, "classify"
    assert {row[5].strip() for row in rows if "degenerate" in row[1]} == {"0.0 %"}, "the Hessian"


def test_tangent_agrees_with_lapack(monkeypatch):
    monkeypatch.setitem(tangent.CASES, "tiny", (40, (64, 3, 4, 10), 40))
    problem = tangent.instance("tiny", 40, "")
    A = tangent.dense(*problem)
    value, rank = tangent.scipy_gelsy(*problem, A)
    assert tangent.ours(*problem, A) == (pytest.approx(value, rel=1e-9), rank)
    # numpy's counts a direction of rounding here; LSMR counts none.
    with jax.numpy_dtype_promotion("standard"):  # the peers are not strict
        for solver in (tangent.numpy_gelsd, tangent.jax_lstsq, tangent.scipy_lsmr, tangent.matfree_lsmr):
            assert abs(solver(*problem, A)[0] - value) <= 1e-3 * value
