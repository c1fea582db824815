"""A run that is stopped, by Ctrl-C or by a kill at any moment, goes on and ends at the same certificate."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from globopt_jax import runs
from globopt_jax.cli import app

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Killed(BaseException):
    """Stands in for a SIGKILL right after a checkpoint: nothing in the package catches it."""


@pytest.fixture(autouse=True)
def _ctrl_c_counts():
    """A shell has its background ignore Ctrl-C, which subprocesses of these tests would inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    _ = signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small data set."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, allow_pickle=False, X=rng.normal(size=(10, 3)), Y=rng.normal(size=(10, 1)))
    return path


def arguments(data, folder, *more):
    """The command: a ReLU network of two neurons, with the ascent in the dual point."""
    return [
        "solve",
        "--data",
        str(data),
        "--width",
        "2",
        "--seed",
        "5",
        "--out",
        str(folder),
        "--json",
        *more,
    ]


def same(one, other):
    """Two results are those of one run."""
    for name in ("objective", "lower_bound", "polar_upper", "polar_lower"):
        assert one["certificate"][name] == pytest.approx(other["certificate"][name], rel=1e-9), name
    assert one["width"] == other["width"]
    assert one["lam"] == pytest.approx(other["lam"], rel=1e-12)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The result of the run that nobody stopped, and how many checkpoints it wrote."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        count = counted(patch, limit=None)
        done = CliRunner().invoke(app, arguments(data, folder))
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), next(count)


def counted(patch, limit):
    """Count the checkpoints, and stop after one of them."""
    count = itertools.count()
    save = runs.RunFolder.save_checkpoint

    def save_and_stop(self, arrays, meta=None):
        save(self, arrays, meta)
        if next(count) == limit:
            raise Killed

    patch.setattr(runs.RunFolder, "save_checkpoint", save_and_stop)
    return count


@pytest.mark.slow
def test_a_run_stopped_after_any_checkpoint_ends_at_the_same_certificate(data, whole, tmp_path):
    """In this process, so that every moment can be tried."""
    expected, checkpoints = whole
    assert checkpoints > 10
    for moment in range(checkpoints):
        folder = tmp_path / str(moment)
        with pytest.MonkeyPatch.context() as patch:
            _ = counted(patch, moment)
            with pytest.raises(Killed):
                CliRunner().invoke(app, arguments(data, folder))
        if moment % 5:  # all are stopped, every fifth goes on: that is what takes the time
            continue
        done = CliRunner().invoke(app, arguments(data, folder, "--resume"))
        assert done.exit_code == 0, done.output
        same(json.loads(done.stdout), expected)
        assert CliRunner().invoke(app, ["check", str(folder)]).exit_code == 0


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Subprocesses that compile each function once, all of them together."""
    cache = tmp_path_factory.mktemp("cache")
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def start(data, folder, environment, *more):
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "globopt_jax", *arguments(data, folder, *more)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(process, moment, how):
    """Send a signal when a line on stderr speaks of the moment; what else the process said."""
    assert process.stderr is not None
    for line in process.stderr:
        if moment in line:
            process.send_signal(how)
            break
    return process.communicate(timeout=100)


LINEAR = ("--map", "linear", "--effort", "quick")


@pytest.fixture(scope="module")
def linear(data, environment, tmp_path_factory):
    """The linear run that nobody stopped."""
    with start(data, tmp_path_factory.mktemp("linear") / "run", environment, *LINEAR) as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.parametrize("moment", ["lam = ", "descent"])
def test_a_killed_run_goes_on(moment, data, environment, linear, tmp_path):
    with start(data, tmp_path / "run", environment, *LINEAR) as process:
        out, _ = stop(process, moment, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert out == ""
    done = CliRunner().invoke(app, arguments(data, tmp_path / "run", *LINEAR, "--resume"))
    assert done.exit_code == 0, done.output
    same(json.loads(done.stdout), linear)


def test_ctrl_c_keeps_the_folder_and_says_how_to_go_on(data, environment, linear, tmp_path):
    # With every function compiled before, and a busy machine, a run may be over before the signal arrives.
    folder, code, out, err = tmp_path, 0, "", ""
    for attempt in range(3):
        folder = tmp_path / f"run{attempt}"
        with start(data, folder, environment, *LINEAR) as process:
            out, err = stop(process, "lam = ", signal.SIGINT)
        code = process.returncode
        if code != 0:
            break
    assert code == 130
    assert out == ""
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(f"globopt: stopped; {folder} is kept.")
    assert last.endswith("--resume")
    assert not (folder / "result.json").exists()
    done = CliRunner().invoke(app, arguments(data, folder, *LINEAR))  # without --resume just the same
    assert done.exit_code == 0, done.output
    same(json.loads(done.stdout), linear)


@pytest.mark.slow
def test_kill_9_at_five_moments_of_one_run(data, environment, whole, tmp_path):
    """One folder is killed again and again, later and later: a ReLU network and its relaxation."""
    expected, _ = whole
    for moment in ("lam = ", "descent", "before fitting", "parameters fitted", "dual point fitted"):
        with start(data, tmp_path / "run", environment) as process:
            _ = stop(process, moment, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        copy = shutil.copytree(tmp_path / "run", tmp_path / moment.strip(" ="))
        done = CliRunner().invoke(app, arguments(data, copy, "--resume"))
        assert done.exit_code == 0, done.output
        same(json.loads(done.stdout), expected)


@pytest.mark.slow
def test_kill_9_at_any_time(data, environment, linear, tmp_path):
    """By the clock, also before there is anything to resume."""
    for delay in (0.5, 2.0, 3.5, 5.0, 6.5):
        folder = tmp_path / str(delay)
        with start(data, folder, environment, *LINEAR) as process:
            time.sleep(delay)
            process.kill()
        done = CliRunner().invoke(app, arguments(data, folder, *LINEAR))
        assert done.exit_code == 0, done.output
        same(json.loads(done.stdout), linear)
