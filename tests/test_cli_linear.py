"""`globopt linear`: classify a file, train and resume, and refuse what makes no sense."""

import json

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from globopt_jax import deep_linear, runs
from globopt_jax.cli import app, folder_run, linear_networks

TRAIN = ("--hidden", "3", "--steps", "200", "--init", "0.3", "--seed", "1")


@pytest.fixture
def folder(tmp_path):
    """Data, a saddle and a global minimum of a network with three hidden units."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
    np.savez(tmp_path / "data.npz", X=X, Y=Y)
    for name, indices in (("saddle", (1,)), ("minimum", (0, 1, 2))):
        W = deep_linear.critical_point(X, Y, (4, 3, 3), indices, jax.random.key(0))
        np.savez(tmp_path / f"{name}.npz", W1=np.asarray(W[0]), W2=np.asarray(W[1]))
    return tmp_path


def run(*arguments):
    with jax.numpy_dtype_promotion("standard"):  # as most people have it
        return CliRunner().invoke(app, ["linear", *map(str, arguments)])


def document(*arguments):
    done = run(*arguments, "--json", "--quiet")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_saddle_is_named_and_left(folder):
    data = ("--data", folder / "data.npz")
    found = document(folder / "saddle.npz", *data, "--escape", folder / "lower.npz", "--radius", "0.5")
    assert found["kind"] == "saddle"
    assert found["escape"]["found"]
    lower = document(folder / "lower.npz", *data)
    assert lower["loss"] == pytest.approx(found["loss"] - found["escape"]["decrease"])
    words = run(folder / "saddle.npz", *data, "--escape", folder / "lower.npz")
    assert "saddle, strict" in words.stdout
    assert f"writtento{folder}" in "".join(words.stdout.split()), "wherever the table breaks the line"


def test_a_global_minimum_is_named_and_kept(folder):
    found = document(folder / "minimum.npz", "--data", folder / "data.npz", "--escape", folder / "lower.npz")
    assert found["kind"] == "global_minimum"
    assert not found["escape"]["found"]
    assert not (folder / "lower.npz").exists()


def test_training_leaves_its_folder_and_prints_it_again(folder):
    arguments = (*TRAIN, "--data", folder / "data.npz", "--out", folder / "run")
    found = document(*arguments)
    assert found["steps"] == 200
    stored = {path.name for path in (folder / "run").iterdir()}
    assert {"result.json", "weights.npz", "history.npz", "plots.png", "config.json"} <= stored
    history = runs.read_arrays(folder / "run" / "history.npz")
    assert history["loss"][0] > history["loss"][-1]
    assert np.all(history["gap_bound"] >= history["gap"])
    data = runs.read_arrays(folder / "data.npz")
    start_to_optimum = history["loss"] - history["gap"]
    np.testing.assert_allclose(start_to_optimum, deep_linear.global_minimum(data["X"], data["Y"], 3).value)
    again = document(*arguments)
    assert again == found
    graded = document(folder / "run" / "weights.npz", "--data", folder / "data.npz")
    assert graded["loss"] == pytest.approx(found["loss"])
    other = run(*arguments, "--init", "0.2")
    assert other.exit_code == 2
    assert "init is 0.3 there and 0.2 here" in other.stderr
    stored = json.loads((folder / "run" / "result.json").read_text())
    for name, lie in (("optimum", 0.5 * found["optimum"]), ("kind", "no"), ("loss", None)):
        (folder / "run" / "result.json").write_text(json.dumps({**stored, name: lie}))
        edited = run(*arguments)
        assert edited.exit_code == 2
        assert f"Expected: {name}" in " ".join(edited.stderr.split())
    (folder / "run" / "result.json").write_text(json.dumps({**stored, "reason": "This is a global minimum."}))
    assert document(*arguments)["reason"] == found["reason"]  # sentences are derived


def test_a_stopped_run_goes_on_and_ends_the_same(folder, monkeypatch):
    arguments = (*TRAIN, "--data", folder / "data.npz")
    whole = document(*arguments, "--out", folder / "whole")
    save, saved = runs.RunFolder.save_checkpoint, []

    def stop(self, *a):
        save(self, *a)
        saved.append(a)
        if len(saved) == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.RunFolder, "save_checkpoint", stop)
        done = run(*arguments, "--out", folder / "stopped")
    assert done.exit_code == 130
    assert "--resume" in done.stderr
    assert not (folder / "stopped" / "result.json").exists()
    found = document(*arguments, "--out", folder / "stopped", "--resume")
    assert found["loss"] == whole["loss"]
    for name in ("weights.npz", "history.npz"):
        a, b = (runs.read_arrays(folder / kind / name) for kind in ("whole", "stopped"))
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_whitened_data_and_adam(folder):
    arguments = (*TRAIN, "--data", folder / "data.npz", "--whiten", "--optimizer", "adam", "--dtype", "float32")
    found = document(*arguments, "--out", folder / "white")
    assert found["configuration"]["whiten"]
    again = document(folder / "white" / "weights.npz", "--data", folder / "data.npz", "--whiten", "--dtype", "float32")
    assert again["loss"] == pytest.approx(found["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("saddle.npz", "--hidden", "3"), "--hidden cannot be combined with a weights file"),
        (("--escape", "x.npz"), "--escape needs a weights file"),
        (("none.npz",), "none.npz: Expected: an .npz of numbers. Received: no such file."),
        (
            ("data.npz",),
            "kernel1..kernelL, without gaps, and no biases. Received: X (20, 4), Y (20, 3)",
        ),
        (("saddle.npz", "--radius", "-1"), "radius: Expected: a positive number"),
        (("saddle.npz", "--escape", "down.txt"), "--escape: Expected: an .npz file"),
        (("other.npz",), "--data: Expected: data with 2 inputs and 2 outputs"),
        (("--hidden", "3,x"), "--hidden: Expected: integers such as 4,8"),
        (("--hidden", "0"), "Expected: an integer from 1"),
        (("--optimizer", "lbfgs"), "--optimizer: Expected: sgd or adam"),
        (("--rate", "-1"), "--rate: Expected: a positive number"),
        (("--radius", "0.5"), "--radius needs a weights file"),
        (("--steps", "0"), "--steps: Expected: an integer from 1"),
        (("--dtype", "float16"), "--dtype: Expected: float64 or float32"),
        (("--resume", "--steps", "3"), "--resume: there is no such run in"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(folder, arguments, message):
    np.savez(folder / "other.npz", W1=np.eye(2))
    before = {path.name for path in folder.iterdir()}
    places = [folder / a if a.endswith(".npz") and a != "x.npz" else a for a in arguments]
    out = () if arguments[0].endswith(".npz") else ("--out", folder / "fresh")
    done = run(*places, "--data", folder / "data.npz", *out)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == before


def test_a_rate_that_diverges_is_named(folder):
    done = run(
        "--hidden", "3", "--steps", "500", "--rate", "100", "--data", folder / "data.npz", "--out", folder / "run"
    )
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "training diverged: with --rate 100 the loss overflows" in done.stderr


def test_the_rate_of_sgd_comes_from_the_curvature(folder):
    choices = linear_networks.Choices(str(folder / "data.npz"), "3", None, None, None, 10, False, 0, "float64")
    task = linear_networks.training(choices)
    with folder_run.opened(task.configuration, folder / "run", resume=False) as opened:
        assert linear_networks.Run(task, opened, quiet=True).document()["rate"] > 0
