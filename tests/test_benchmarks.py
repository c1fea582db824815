"""The benchmarks run, at a small size, so that they cannot rot; what they measure is printed, not asserted."""

import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest

from benchmarks import linear, plumbing, saddles, scalar, sweep, tangent


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


def test_a_sweep_and_a_loop_train_the_same_networks(monkeypatch):
    for name, value in {"DEPTHS": (1, 3), "WIDTHS": (2, 4), "SEEDS": 2}.items():
        monkeypatch.setattr(sweep, name, value)
    plan = sweep.plan_of("float64", 1, False)
    losses = sweep.swept(plan)
    assert len(losses) == 8
    for others in (sweep.looped(plan), sweep.swept(plan, by_cells=False)):
        assert losses == pytest.approx(others, rel=1e-12)


# -- what they share -------------------------------------------------------------------------------------


def test_a_clock_waits_for_the_answer_and_leaves_the_first_call_out():
    calls = []
    answer, seconds = plumbing.timed(lambda: calls.append(1) or jnp.arange(3))
    assert answer.shape == (3,)
    assert seconds > 0
    calls.clear()
    assert plumbing.medians([lambda: calls.append("a"), lambda: calls.append("b")], 2).shape == (2,)
    assert calls == ["a", "b"] * 3, "interleaved, after one call each"


def test_a_table_reads_back_as_it_was_written():
    lines = plumbing.markdown(["peer", "m", "s"], [["ours", 3, 0.12345], ["theirs", 3, "no answer"]], left=["peer"])
    assert lines[1] == "| :--- | ---: | ---: |"
    assert [plumbing.cells_of(line) for line in lines[2:]] == [["ours", "3", "0.123"], ["theirs", "3", "no answer"]]


def test_a_peer_runs_alone_and_its_failure_is_a_sentence(tmp_path, monkeypatch):
    script = """
        import json, os, sys, time
        if sys.argv[2] == "fail":
            sys.exit("out of luck")
        time.sleep(30 * (sys.argv[2] == "sleep"))
        print("noise")
        print(json.dumps({"given": sys.argv[1:], "tied": "OPENBLAS_CORETYPE" in os.environ}))
    """
    _ = (tmp_path / "peer.py").write_text(textwrap.dedent(script))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    assert plumbing.alone("peer", ["a", 3], 60) == {"given": ["alone", "a", "3"], "tied": False}
    assert plumbing.alone("peer", ["fail"], 60) == "out of luck"
    assert plumbing.alone("peer", ["sleep"], 1) == "no answer within 1 s"
    assert "peer" not in sys.modules


def test_the_picture_of_timings_marks_who_missed_the_accuracy(tmp_path, monkeypatch):
    monkeypatch.setitem(tangent.CASES, "tiny", (40, (64, 3, 4, 10), 40))
    blank = [""] * 7
    rows = [
        ["tiny", 40, "globopt_jax", 2.0, 9, "1e-15", 0.1, 1.0, "1.0", "", ""],
        ["tiny", 40, tangent.REFERENCE, 2.0, 9, "0", 3.0, 3.0, "30", "", ""],
        ["tiny", 40, "scipy lsmr", 2.1, "", "0.05", 0.5, 0.5, "5", "", ""],
        ["tiny", 40, "torch.linalg.lstsq (gelsd)", "no answer within 400 s", *blank],
        ["other", 40, "globopt_jax", 2.0, 9, "0", 0.1, 1.0, "1.0", "", ""],
    ]
    drawn = []
    monkeypatch.setattr("globopt_jax.plotting.png", lambda figure: drawn.append(figure) or b"")
    tangent.plot(plumbing.markdown(tangent.COLUMNS, rows), "tiny", tmp_path / "a.png")
    (ax,) = drawn[0].axes
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [True, False, False], "from the bottom up"
    words = " ".join(text.get_text() for text in ax.texts)
    assert "0.5 s, J misses by 5 %" in words
    assert "no answer within 400 s" in words
    assert ax.get_title(loc="right").endswith("takes 30 times as long")
