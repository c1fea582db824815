"""The command line: every command, its output, its exit codes, and whatever can be wrong with its input."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from globopt_jax import claims, rigorous, runs
from globopt_jax.cli import app, layouts, task

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAST = ("--width", "2", "--effort", "quick")


def globopt(*arguments: object):
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small data sets in one folder: the solved one, and those that are wrong in one way each."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    one_hot = np.eye(2)[rng.integers(2, size=12)]
    holes = X.copy()
    holes[3, 1] = np.nan
    infinite = Y.copy()
    infinite[0, 0] = np.inf
    sets = {
        "good": {"X": X, "Y": Y},
        "classes": {"X": X, "Y": one_hot},
        "without_X": {"inputs": X, "Y": Y},
        "without_Y": {"X": X},
        "labels": {"X": X, "Y": np.arange(12)},
        "nan": {"X": holes, "Y": Y},
        "inf": {"X": X, "Y": infinite},
        "rows": {"X": X, "Y": Y[:5]},
        "cube": {"X": X[None], "Y": Y},
        "empty": {"X": X[:0], "Y": Y[:0]},
        "zero": {"X": X, "Y": 0 * Y},
        "huge": {"X": 1e39 * X, "Y": Y},
        "complex": {"X": X + 1j, "Y": Y},
    }
    for name, arrays in sets.items():
        np.savez(folder / f"{name}.npz", allow_pickle=False, **arrays)
    (folder / "text.npz").write_text("no archive")
    neurons = {"W1": rng.normal(size=(2, 3)), "W2": rng.normal(size=(2, 2))}
    weights = {
        "neurons": neurons,
        "kernels": {"kernel1": neurons["W1"].T, "kernel2": neurons["W2"]},
        "bias": {"kernel1": neurons["W1"].T, "kernel2": neurons["W2"], "bias1": np.ones(2)},
        "bias2": {"kernel1": neurons["W1"].T, "kernel2": neurons["W2"], "bias2": np.ones(2)},
        "bias_shape": {"kernel1": neurons["W1"].T, "kernel2": neurons["W2"], "bias1": np.ones(3)},
        "transposed": {"kernel1": neurons["W1"], "kernel2": neurons["W2"].T},
        "nan_weights": {"W1": np.full((2, 3), np.nan), "W2": neurons["W2"]},
        "none": {"W1": np.zeros((0, 3)), "W2": np.zeros((0, 2))},
        "foreign": {"dense/kernel": neurons["W1"]},
        "deep": {f"W{k}": rng.normal(size=s) for k, s in ((1, (2, 3, 2)), (2, (2, 2, 2)), (3, (2, 2, 2)))},
    }
    for name, arrays in weights.items():
        np.savez(folder / f"{name}.w.npz", allow_pickle=False, **arrays)
    return folder


@pytest.fixture(scope="module")
def solved(data):
    """A finished run of a ReLU network, and what the command printed."""
    folder = data / "solved"
    done = globopt("solve", "--data", data / "good.npz", *FAST, "--lam-fraction", 0.3, "--out", folder, "--json")
    assert done.exit_code == 0, done.output
    return folder, done


# -- solve -----------------------------------------------------------------------------------------------


def test_json_is_one_document_on_stdout_and_progress_is_on_stderr(solved):
    folder, done = solved
    result = json.loads(done.stdout)
    stored = json.loads((folder / "result.json").read_text())
    assert result == {**stored, "folder": str(folder)}
    assert {
        "command",
        "configuration",
        "lam",
        "lam_max",
        "width",
        "certificate",
        "reason",
        "stopped",
        "check",
        "read",
        "locked",
        "seconds",
        "provenance",
    } == set(stored)
    assert stored["locked"] is True
    found = stored["certificate"]
    assert found["objective"] >= found["lower_bound"] > 0
    assert found["rigorous"] is True
    assert 0 <= found["relative_gap"] < 1
    assert stored["lam"] == pytest.approx(0.3 * stored["lam_max"]["lower"], rel=1e-12)
    assert stored["lam_max"]["lower"] <= stored["lam_max"]["upper"]
    assert stored["check"]["holds"] is True
    assert set(stored["seconds"]) == {"lam_max", "training", "certificate"}
    lines = done.stderr.splitlines()
    assert lines[0].startswith("lam = ")
    assert "proved to be at most" in lines[0]
    assert " ".join(lines[1].split()) == "step what happened r objective polar / lam gap seconds"
    assert "start" in lines[2]
    assert "~" in done.stderr  # an estimate is marked as one


def test_the_run_folder_holds_all_that_was_promised(solved):
    folder, _ = solved
    assert set(files(folder)) >= {
        "certificate.json",
        "certificate.npz",
        "checkpoint.npz",
        "config.json",
        "problem.npz",
        "result.json",
        "trace.csv",
        "trace.npz",
        "weights.npz",
        "plots.png",
    }
    weights = runs.read_arrays(folder / "weights.npz")
    result = json.loads((folder / "result.json").read_text())
    assert weights["W1"].shape == (result["width"], 3)
    assert weights["W2"].shape == (result["width"], 2)
    stored = runs.read_arrays(folder / "certificate.npz")
    assert set(rigorous.Multipliers._fields) <= set(stored)
    trace = runs.read_arrays(folder / "trace.npz")
    value = trace["objective"]
    assert np.all(np.diff(value) <= 1e-12 * np.abs(value[:-1]))
    with (folder / "trace.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(value) + len(trace["bound_seconds"])
    assert float(rows[-1]["lower_bound"]) == result["certificate"]["lower_bound"]
    assert [r["rigorous"] for r in rows] == ["False"] * len(value) + ["True"] * len(trace["bound_seconds"])
    seconds = [float(r["seconds"]) for r in rows]
    assert seconds == sorted(seconds)


def test_the_same_command_prints_the_finished_result(solved, data):
    folder, done = solved
    before = files(folder)
    again = ("solve", "--data", data / "good.npz", *FAST, "--lam-fraction", 0.3, "--out", folder)
    for extra in ((), ("--resume",)):
        repeated = globopt(*again, *extra, "--json")
        assert repeated.exit_code == 0
        assert repeated.stdout == done.stdout
        assert repeated.stderr == ""
    printed = globopt(*again)
    result = json.loads(done.stdout)
    assert result["reason"] in printed.stdout.replace("\n", " ")
    for name in ("lam_max", "lower bound", "relative gap", "polar / lam", "globopt check"):
        assert name in printed.stdout
    assert globopt(*again, "--quiet").output == ""
    assert files(folder) == before


def test_a_run_stopped_while_its_bound_is_fitted_goes_on(solved, data, tmp_path, monkeypatch):
    """Right after the checkpoint that holds a half-fitted bound; `test_resume` tries every moment."""

    class Killed(BaseException):
        pass

    save = runs.RunFolder.save_checkpoint

    def save_and_stop(self, arrays, meta=None):
        save(self, arrays, meta)
        if str(arrays.get("refinement.stage")) == "fixed":
            raise Killed

    arguments = ("--data", data / "good.npz", *FAST, "--lam-fraction", 0.3, "--out", tmp_path / "run", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(runs.RunFolder, "save_checkpoint", save_and_stop)
        with pytest.raises(Killed):
            globopt("solve", *arguments)
    assert not (tmp_path / "run" / "result.json").exists()
    done = globopt("solve", *arguments, "--resume")
    assert done.exit_code == 0, done.output
    expected, found = json.loads(solved[1].stdout), json.loads(done.stdout)
    for name in ("objective", "lower_bound", "polar_upper", "polar_lower"):
        assert found["certificate"][name] == pytest.approx(expected["certificate"][name], rel=1e-9), name


def test_another_run_in_the_same_folder_is_refused(solved, data):
    folder, _ = solved
    before = files(folder)
    other = globopt("solve", "--data", data / "good.npz", *FAST, "--lam-fraction", 0.4, "--out", folder)
    assert other.exit_code == 2
    assert "lam_fraction is 0.3 there and 0.4 here" in other.stderr
    changed = globopt("solve", "--data", data / "classes.npz", *FAST, "--lam-fraction", 0.3, "--out", folder)
    assert changed.exit_code == 2
    assert "data_sha256" in changed.stderr
    assert files(folder) == before


SMALL = ("--dtype", "float32", "--regularizer", "product_of_norms", "--norms", "l1,l2", "--quiet")


@pytest.mark.parametrize(
    "options",
    [
        ("--map", "linear", "--optimizer", "sgd", "--rate", "0.01", *SMALL),
        pytest.param(("--map", "linear", "--optimizer", "adam"), marks=pytest.mark.slow),
        pytest.param(("--map", "relu:3", "--widths", "2,2", "--loss", "huber:0.5"), marks=pytest.mark.slow),
    ],
    ids=["sgd", "adam", "deep"],
)
def test_options_reach_the_problem(options, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lam = 4.0 if "relu:3" in options else 2.0  # large enough to end soon
    done = globopt("solve", "--data", data / "good.npz", *FAST, "--lam", lam, "--json", *options)
    assert done.exit_code == 0, done.output
    assert ("--quiet" in options) == (done.stderr == "")
    result = json.loads(done.stdout)
    folder = pathlib.Path(result["folder"])
    assert folder == runs.default_folder(result["configuration"])
    assert (result["lam"], result["lam_max"]) == (lam, None)
    described = json.loads((folder / "certificate.json").read_text())["problem"]
    weights = runs.read_arrays(folder / "weights.npz")
    if "relu:3" in options:
        assert described["loss"] == "huber:0.5"
        assert [weights[f"W{k}"].shape[1:] for k in (1, 2, 3)] == [(3, 2), (2, 2), (2, 2)]
    else:
        assert described["bound"] == "linear"
    if "sgd" in options:
        assert described["norms"] == ["l1", "l2"]
        assert weights["W1"].dtype == np.float32
        assert result["provenance"]["dtype"] == "float32"
    assert globopt("check", folder).exit_code == 0


@pytest.mark.parametrize("loss", ["squared", "softmax_cross_entropy", "huber:2"])
@pytest.mark.parametrize("map", ["relu", "leaky_relu", "absolute", "linear", "relu:2", "absolute:4"])
def test_every_map_and_loss_makes_a_task(map, loss, data):
    options = task.Options(str(data / "classes.npz"), map, loss=loss, lam_fraction=0.2, effort="high")
    made = task.training(options, task.Training(3, "lbfgs", None))
    assert made.loss.name == loss
    assert made.phi.degree == int(map.partition(":")[2] or 2)


# -- bad input -------------------------------------------------------------------------------------------

WRONG = {
    "--data without_X.npz": "without X, but with the keys: inputs, Y",
    "--data without_Y.npz": "without Y",
    "--data labels.npz": "one_hot",
    "--data nan.npz": "NaN",
    "--data inf.npz": "Y: Expected: finite numbers. Received: 1 NaN or inf, the first at (0, 0)",
    "--data rows.npz": "Received: (12, 3) and (5, 2)",
    "--data cube.npz": "Expected: shapes (m, dx) and (m, dy)",
    "--data empty.npz": "Received: (0, 3) and (0, 2)",
    "--data complex.npz": "real numbers",
    "--data text.npz": "text.npz: Expected: an .npz of numbers",
    "--data absent.npz": "absent.npz: Expected: an .npz of numbers. Received: no such file.",
    "--data nothing": "--data: Expected: one of digits, mnist, fashion-mnist,",
    "--seed -1": "--seed: Expected: an integer from 0",
    "--seed 99999999999999999999": "--seed: Expected: an integer from 0",
    "--data zero.npz": "lam_max is 0",
    "--data huge.npz --dtype float32": "float32 can hold",
    "--map softplus": "not positively homogeneous",
    "--map gelu:3": "not positively homogeneous",
    "--map relu:x": "NAME:LAYERS",
    "--map relu:0": "at least 1 weight layer",
    "--widths 4": "--widths needs a deep map such as relu:3",
    "--map relu:3 --widths 4": "2 hidden widths",
    "--map relu:3 --widths 4,0": "2 hidden widths",
    "--map relu:3 --widths four": "integers",
    "--regularizer ridge": "one of sum_of_powers, product_of_norms. Received",
    "--norms l3": "one of l1, l2, linf",
    "--norms l1,l2,l2": "one for each of 2 layers",
    "--loss hinge": "one of squared",
    "--loss huber:-1": "DELTA > 0",
    "--loss softmax_cross_entropy": "probability simplex",
    "--loss logistic": "-1 or 1",
    "--lam 0": "finite and > 0",
    "--lam -1": "finite and > 0",
    "--lam nan": "finite and > 0",
    "--lam inf": "finite and > 0",
    "--lam-fraction 0": "finite and > 0",
    "--lam 1 --lam-fraction 0.2": "both",
    "--width 0": "--width: Expected: an integer from 1",
    "--optimizer newton": "lbfgs, adam or sgd",
    "--optimizer sgd": "--optimizer sgd needs a learning rate: give --rate.",
    "--optimizer adam --rate 0": "finite and > 0",
    "--rate 0.1": "cannot be combined with lbfgs",
    "--dtype bfloat16": "float64 or float32",
    "--effort heroic": "one of quick, standard, high",
    "--seed x": "Invalid value",
    "--colour": "No such option",
    "--resume": "--resume: there is no such run in",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_bad_input_is_one_message_exit_code_2_and_nothing_written(arguments, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(data / w) if w.endswith(".npz") else w for w in arguments.split()]
    given = words if "--data" in words else ["--data", str(data / "good.npz"), *words]
    done = globopt("solve", *given, "--json")
    assert done.exit_code == 2, done.output
    assert WRONG[arguments] in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_refused(data, tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    done = globopt("solve", "--data", data / "good.npz", "--out", tmp_path)
    assert done.exit_code == 2
    assert "thesis.tex" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_in_use_is_refused(data, tmp_path):
    arguments = ("--data", data / "good.npz", *FAST, "--lam", 1, "--out", tmp_path / "run")
    options = task.Options(str(data / "good.npz"), lam=1.0, effort="quick")
    made = task.training(options, task.Training(2, "lbfgs", None))
    with runs.RunFolder(made.configuration, tmp_path / "run") as folder:
        folder.claim()
        done = globopt("solve", *arguments)
    assert done.exit_code == 2
    assert "in use by process" in done.stderr


# -- certify ---------------------------------------------------------------------------------------------


def test_neurons_and_kernels_get_one_and_the_same_certificate(data, tmp_path):
    results = {}
    for name in ("neurons", "kernels"):
        out = tmp_path / name
        arguments = ("--data", data / "good.npz", "--effort", "quick", "--lam", 0.5, "--out", out)
        done = globopt("certify", data / f"{name}.w.npz", *arguments, "--json")
        assert done.exit_code == 0, done.output
        results[name] = json.loads(done.stdout)
        assert globopt("check", out).exit_code == 0
    first, second = results.values()
    assert first["certificate"] == second["certificate"]
    assert first["width"] == 2
    assert first["stopped"] is None
    good, neurons = (runs.read_arrays(data / name) for name in ("good.npz", "neurons.w.npz"))
    X, Y, W1, W2 = good["X"], good["Y"], neurons["W1"], neurons["W2"]
    by_hand = 0.5 * np.sum((np.maximum(X @ W1.T, 0) @ W2 - Y) ** 2) + 0.25 * (np.sum(W1**2) + np.sum(W2**2))
    assert first["certificate"]["objective"] == pytest.approx(by_hand, rel=1e-12)


def test_layouts_of_weights_are_translated(data):
    def layout(name):
        return layouts.subnetworks(runs.read_arrays(data / f"{name}.w.npz"), (3, 2))

    (w1, w2), ones, _ = layout("bias")
    assert ones
    assert w1.shape == (2, 4)
    np.testing.assert_array_equal(w1[:, 3], 1)
    kernels = runs.read_arrays(data / "bias.w.npz")
    np.testing.assert_array_equal(w1[:, :3], kernels["kernel1"].T)
    np.testing.assert_array_equal(w2, kernels["kernel2"])
    deep, ones, _ = layout("deep")
    assert not ones
    assert [w.shape for w in deep] == [(2, 3, 2), (2, 2, 2), (2, 2, 2)]


def test_a_hidden_bias_is_the_weight_of_a_column_of_ones(data):
    options = task.Options(str(data / "good.npz"), lam=1.0, effort="quick")
    made = task.grading(options, data / "bias.w.npz")
    assert made.X.shape == (12, 4)
    assert jnp.all(made.X[:, 3] == 1)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ("neurons", "", "neither"),
        ("bias2", "--lam 1", "an output bias"),
        ("bias_shape", "--lam 1", "bias1: Expected: shape (2,)"),
        ("transposed", "--lam 1", "kernel1, kernel2: Expected: shapes (3, h) and (h, 2)"),
        ("nan_weights", "--lam 1", "NaN"),
        ("none", "--lam 1", "r >= 1"),
        ("foreign", "--lam 1", "dense/kernel (2, 3)"),
        ("deep", "--lam 1 --map relu:2", "2 weight layers for --map relu:2"),
        ("neurons", "--lam 1 --map relu:3", "3 weight layers for --map relu:3"),
        ("absent", "--lam 1", "absent.w.npz: Expected: an .npz of numbers. Received: no such file."),
    ],
)
def test_bad_weights_are_refused(weights, options, message, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = globopt("certify", data / f"{weights}.w.npz", "--data", data / "good.npz", *options.split())
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


# -- check -----------------------------------------------------------------------------------------------


def test_check_accepts_what_solve_stored(solved):
    folder, _ = solved
    done = globopt("check", folder)
    assert done.exit_code == 0
    assert "Proved" in done.stdout
    assert "globopt_jax.rigorous" in done.stdout
    verdict = json.loads(globopt("check", folder, "--json").stdout)
    assert verdict["holds"] is True
    assert globopt("check", folder, "--quiet").output == ""


def test_check_needs_numpy_alone(solved, tmp_path):
    """The verifier runs where JAX, SciPy and everything else cannot be imported."""
    folder, _ = solved
    for name in ("jax", "jaxlib", "scipy", "optax", "flax", "jaxtyping", "typer", "rich"):
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, "-m", "globopt_jax.rigorous", str(folder)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Proved")


def tampered(name, array, change):
    """A change of one array of one file."""

    def apply(folder):
        arrays = runs.read_arrays(folder / name)
        arrays[array] = change(arrays[array])
        runs.write_arrays(folder / name, arrays)

    return apply


def claimed(change, name="certificate.json"):
    """A change of what the certificate claims, or of a copy."""

    def apply(folder):
        meta = json.loads((folder / name).read_text())
        change(meta)
        runs.write_json(folder / name, meta)

    return apply


@pytest.mark.parametrize(
    "tamper",
    [
        tampered("weights.npz", "W1", lambda w: w * 1.001),
        tampered("problem.npz", "Y", lambda Y: Y + 0.01),
        tampered("certificate.npz", "dual_point", lambda V: V * 1.001),
        tampered("certificate.npz", "mu", lambda mu: mu / 1.5),
        tampered("certificate.npz", "N", lambda N: N - 1),
        claimed(lambda meta: meta["claimed"].update(lower_bound=meta["claimed"]["lower_bound"] * 1.001)),
        claimed(lambda meta: meta["claimed"].update(objective=meta["claimed"]["objective"] * 0.999)),
        claimed(lambda meta: meta["problem"].update(lam=meta["problem"]["lam"] * 0.99)),
        tampered("certificate.npz", "lower_bound", lambda bound: bound * 1.001),
        claimed(lambda meta: meta["certificate"].update(objective=0.5)),
        claimed(lambda meta: meta["certificate"].update(lower_bound=99), name="result.json"),
    ],
    ids=["weights", "data", "dual point", "mu", "N", "bound", "objective", "lam", "npz copy", "json copy", "result"],
)
def test_check_catches_tampering(solved, tmp_path, tamper):
    copy = shutil.copytree(solved[0], tmp_path / "copy")
    tamper(copy)
    done = globopt("check", copy, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["holds"] is False


def test_a_finished_run_is_checked_before_it_is_shown(solved, data, tmp_path):
    copy = shutil.copytree(solved[0], tmp_path / "copy")
    again = ("solve", "--data", data / "good.npz", *FAST, "--lam-fraction", 0.3, "--out", copy)
    assert globopt(*again).exit_code == 0
    claimed(lambda meta: meta["certificate"].update(lower_bound=99), name="result.json")(copy)
    done = globopt(*again)
    assert done.exit_code == 1
    assert "FAILED: result.json: " in done.stdout + done.stderr
    (copy / "certificate.npz").unlink()
    done = globopt(*again)
    assert done.exit_code == 1
    assert "FAILED" in done.stdout + done.stderr
    assert "none of certificate.npz" in (done.stdout + done.stderr).replace("\n", " ")


def test_a_finished_run_of_another_task_is_not_this_ones(solved, data, tmp_path):
    """Data, problem and strength of the folder are those that were asked for, or the check fails."""
    folder = tmp_path / "graded"
    ask = ("certify", data / "neurons.w.npz", "--data", data / "good.npz", "--lam", 0.8, "--effort", "quick")
    assert globopt(*ask, "--out", folder).exit_code == 0
    assert globopt(*ask, "--out", folder).exit_code == 0
    arrays = runs.read_arrays(folder / "problem.npz")
    for name, change in (("other data", {"Y": arrays["Y"] * 0.5}), ("no data", {})):
        copy = shutil.copytree(folder, tmp_path / name)
        runs.write_arrays(copy / "problem.npz", {**arrays, **change} if change else {"X": arrays["X"]})
        done = globopt(*ask, "--out", copy)
        assert done.exit_code == 1
        assert "FAILED" in done.stdout + done.stderr
    again = ("solve", "--data", data / "good.npz", *FAST, "--lam-fraction", 0.3, "--out", tmp_path / "copy")
    copy = shutil.copytree(solved[0], tmp_path / "copy")
    claimed(lambda meta: meta.update(lam_max={"lower": 1e-9, "upper": 1e-9}), name="result.json")(copy)
    done = globopt(*again)
    assert done.exit_code == 1
    assert "another run than this command's" in " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("damage", ["[]", "{}", '{"lam": null}'])
def test_a_damaged_result_is_bad_input_or_a_failed_check(solved, data, tmp_path, damage):
    copy = shutil.copytree(solved[0], tmp_path / "copy")
    (copy / "result.json").write_text(damage)
    done = globopt("solve", "--data", data / "good.npz", *FAST, "--lam-fraction", 0.3, "--out", copy)
    assert done.exit_code == (2 if damage == "[]" else 1)
    assert "Traceback" not in done.output


def test_a_damaged_checkpoint_is_bad_input(solved, data, tmp_path):
    copy = shutil.copytree(solved[0], tmp_path / "copy")
    (copy / "result.json").unlink()
    again = ("solve", "--data", data / "good.npz", *FAST, "--lam-fraction", 0.3, "--out", copy)
    arrays = runs.read_arrays(copy / "checkpoint.npz")
    for change in (lambda raw: raw[:500], None):
        if change is None:
            runs.write_arrays(copy / "checkpoint.npz", {k: a for k, a in arrays.items() if k != "params.0"})
        else:
            (copy / "checkpoint.npz").write_bytes(change((copy / "checkpoint.npz").read_bytes()))
        done = globopt(*again)
        assert done.exit_code == 2
        assert "Expected: a checkpoint of this run" in " ".join(done.stderr.split())


def test_check_of_what_is_no_run_is_bad_input(data, tmp_path, solved):
    assert globopt("check", tmp_path).exit_code == 2
    copy = shutil.copytree(solved[0], tmp_path / "copy")
    (copy / "weights.npz").write_bytes(b"PK")
    done = globopt("check", copy)
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr


# -- verify, datasets, the program -----------------------------------------------------------------------


def made_up(key, residual):
    """A claim with a given residual."""
    return claims.Claim(
        key=key,
        statement="Made up.",
        paper="None",
        equation="0",
        check=lambda _: claims.outcome(jnp.asarray(residual), jnp.asarray(1e-6), jnp.asarray(1.0)),
    )


def test_verify_shows_a_verdict_a_claim(monkeypatch):
    from globopt_jax.claims import registry

    monkeypatch.setattr(registry, "all_claims", lambda: (made_up("A 1", 0.0), made_up("A 2", 0.5)))
    done = globopt("verify")
    assert done.exit_code == 1
    assert "holds" in done.stdout
    assert "FAILS" in done.stdout
    done = globopt("verify", "--select", "a 1", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["holds"] is True
    assert document["seed"] == 0
    assert document["provenance"]["dtype"] == "float64"
    assert [record["claim"] for record in document["claims"]] == ["A 1"]
    assert document["claims"][0]["control"] == 1.0
    assert document["claims"][0]["instances"] == 1
    done = globopt("verify", "--select", "B")
    assert done.exit_code == 2
    assert "`globopt verify --list` shows all 2. Received: 'B'." in done.stderr
    done = globopt("verify", "--list", "--select", "A 2")
    assert done.stdout == "A 2 Made up.\n"
    assert [record["claim"] for record in json.loads(globopt("verify", "--list", "--json").stdout)] == ["A 1", "A 2"]
    done = globopt("verify", "--instances", "0")
    assert done.exit_code == 2
    assert "instances: Expected: an integer, at least 1. Received: 0." in done.stderr


def test_verify_in_two_processes_says_the_same():
    chosen = ("--select", "K18 (A.2)", "--select", "NH17 Assumption", "--instances", "3", "--json")
    alone, together = (json.loads(globopt("verify", *chosen, "--jobs", n).stdout)["claims"] for n in ("1", "2"))
    assert len(alone) == 2
    for record in alone + together:
        assert record.pop("seconds") > 0
    assert together == alone
    done = globopt("verify", "--jobs", "0")
    assert done.exit_code == 2
    assert "--jobs: Expected: an integer, at least 1. Received: 0." in done.stderr


def test_verify_fits_into_eighty_columns(monkeypatch):
    from globopt_jax.claims import registry

    monkeypatch.setattr(registry, "all_claims", lambda: (made_up("A 1", 0.0), made_up("A 2 with a long name", 0.5)))
    done = globopt("verify", "--instances", "3", "--dtype", "float32", "--statements")
    header, first, statement, second, _, *explained, end = done.stdout.splitlines()
    assert header.split() == ["claim", "residual", "tolerance", "control", "runs", "seconds", "verdict"]
    assert first.split()[:6] == ["A", "1", "0.0e+00", "1.0e-06", "1.0e+00", "3"]
    assert statement == "  Made up."
    assert second.endswith("FAILS in 3")
    assert "A control is the residual where the hypothesis is broken." in " ".join(" ".join(explained).split())
    assert end == "1 of 2 claims FAIL: A 2 with a long name."
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_datasets_lists_what_is_there():
    assert "digits" in globopt("datasets").stdout
    (digits,) = [d for d in json.loads(globopt("datasets", "--json").stdout) if d["name"] == "digits"]
    assert digits["shape"] == [1797, 64, 10]
    assert globopt("datasets", "--quiet").output == ""


@pytest.mark.parametrize("command", [(), ("solve",), ("certify",), ("check",), ("verify",), ("datasets",)])
def test_every_command_has_help(command):
    done = globopt(*command, "--help")
    assert done.exit_code == 0
    assert "Usage" in done.stdout


def test_the_module_is_the_command_and_colours_can_be_switched_off():
    environment = os.environ | {"FORCE_COLOR": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "globopt_jax", "datasets"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "digits" in done.stdout
    assert "\x1b[3" not in done.stdout
