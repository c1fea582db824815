"""`globopt landscape`: the run folder, stops and kills, finished runs, clusters, and input that makes no sense."""

import contextlib
import csv
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import warnings
from typing import Any

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from globopt_jax import datasets, runs, sweeps
from globopt_jax.cli import app, landscapes
from globopt_jax.cli.meter import Meter, _clock
from globopt_jax.reproductions.report import around

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = ("--depths", "1,2", "--widths", "2,3", "--seeds", "2", "--epochs", "3", "--batch", "8")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, X=rng.normal(size=(20, 3)), Y=rng.normal(size=(20, 1)))
    return path


@contextlib.contextmanager
def ordinary():
    """JAX as most people have it configured."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def run(data, out, *arguments):
    """Run the command in this process."""
    options = [*SMALL, "--data", data, "--out", out, *arguments]
    with ordinary():
        return CliRunner().invoke(app, ["landscape", *map(str, options)])


def document(data, out, *arguments):
    done = run(data, out, *arguments, "--json", "--quiet")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    return json.loads(done.stdout)


def table(result, kind="mean"):
    """J by depth, width and stage."""
    return np.array([np.array(result["J"][stage][kind], float) for stage in ("initial", "trained")])


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run, and the document that the command printed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, document(data, folder)


def test_a_run_leaves_its_folder(data, finished):
    folder, found = finished
    assert {"config.json", "cells.sqlite", "cells.csv", "landscape.png", "result.json"} <= {
        path.name for path in folder.iterdir()
    }
    given = runs.read_arrays(data)
    with ordinary():
        right = sweeps.landscape(given["X"], given["Y"], depths=[1, 2], widths=[2, 3], seeds=2, epochs=3, batch=8)
    J = right.J.transpose("stage", "depth", "width", "seed").to_numpy()
    np.testing.assert_allclose(table(found), J.mean(axis=-1), rtol=1e-9)
    np.testing.assert_allclose(table(found, "spread"), J.std(axis=-1, ddof=1), rtol=1e-7)
    assert found["axes"] == {"depth": [1, 2], "width": [2, 3], "seed": [0, 1]}
    assert found["target"] == pytest.approx(0.5 * np.sum(given["Y"] ** 2))
    assert (found["networks"], found["diverged"], found["samples"]) == (8, 0, 20)
    falls = int(np.sum(np.diff(table(found)[1], axis=1) < 0))
    assert f"From one width to the next, J falls in {found['trends']['width'][0][0]} of 2 cases" in found["reason"]
    assert found["trends"]["width"][1][0] == falls
    assert found["provenance"]["data"] == found["configuration"]["data_sha256"]
    with (folder / "cells.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 8
    assert float(rows[0]["J_initial"]) == pytest.approx(float(J[0, 0, 0, 0]))
    assert (folder / "landscape.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_run_is_shown_again_and_held_against_its_store(data, finished):
    folder, found = finished
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert document(data, folder) == found
    done = run(data, folder)
    assert done.exit_code == 0
    assert done.stderr == ""
    text = " ".join(done.stdout.split())
    assert found["reason"] in text
    assert "J after training" in text
    assert around(*(table(found, kind)[1, 0, 0] for kind in ("mean", "spread"))) in text
    assert run(data, folder, "--quiet").output == ""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("result.json", lambda old: old.replace(b'"J":', b'"K":'), "result.json: Expected: J as in cells.sqlite"),
        ("result.json", lambda old: old[:-9], "result.json: Expected: JSON. Received: a damaged file"),
        ("result.json", lambda old: old.replace(b'"reason": "', b'"reason": "Never: '), None),
        ("cells.sqlite", None, "cells.sqlite: Expected: cells with data"),
        ("cells.sqlite", "DELETE FROM cells WHERE seed = 1", "Expected: the 8 cells of this run. Received: 4 of them"),
        ("cells.sqlite", "UPDATE cells SET J_trained = 0.5", "result.json: Expected: J as in cells.sqlite"),
        ("cells.sqlite", lambda _: b"not a store " * 999, "Received: a file that SQLite refuses"),
        ("config.json", lambda _: b"{", "Received: one with other files"),
    ],
)
def test_damaged_files_are_named(data, finished, tmp_path, name, damage, message):
    whole, found = finished
    folder = tmp_path / "run"
    folder.mkdir()
    for path in whole.iterdir():
        _ = (folder / path.name).write_bytes(path.read_bytes())
    if damage is None:
        (folder / name).unlink()
    elif isinstance(damage, str):
        with contextlib.closing(sqlite3.connect(folder / name)) as connection, connection:
            _ = connection.execute(damage)
    else:
        _ = (folder / name).write_bytes(damage((folder / name).read_bytes()))
    done = run(data, folder, "--json", "--quiet")
    if message is None:  # sentences are derived
        assert json.loads(done.stdout)["reason"] == found["reason"]
        return
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("cell_by_cell")
def test_ctrl_c_keeps_every_finished_network(data, finished, tmp_path, monkeypatch):
    """Progress stands on stderr in lines, and the same command goes on and ends the same."""
    update, folder = Meter.update, tmp_path / "run"

    def stop(self, progress):
        update(self, progress)
        if progress.done == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "update", stop)
        done = run(data, folder)
    assert done.exit_code == 130
    lines = done.stderr.splitlines()
    assert re.match(r"2 of 8 networks, depth \d, width \d: J ", lines[0])  # the one that was finished first
    assert lines[1].endswith(" left")
    assert lines[-1].startswith(f"globopt: stopped; {folder} is kept. To go on: ")
    assert len(sweeps.Store(folder / "cells.sqlite").finished()) == 4
    assert not (folder / "result.json").exists()
    again = run(data, folder, "--resume")
    assert again.exit_code == 0, again.output
    assert "4 of 8 networks are in the folder already" in again.stderr
    assert "2 of 8 networks, depth" not in again.stderr
    result = json.loads((folder / "result.json").read_text())
    np.testing.assert_allclose(table(result), table(finished[1]), rtol=1e-9)


def test_a_killed_command_goes_on(data, finished, tmp_path):
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-u",
        "-m",
        "globopt_jax",
        "landscape",
        *SMALL,
        "--data",
        str(data),
        "--out",
        str(folder),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=100)
    assert re.match(r"[28] of 8 networks, depth \d, width \d: J ", first)  # accelerators train all of them at once
    assert (process.returncode, out) == (-signal.SIGKILL, "")
    before = len(sweeps.Store(folder / "cells.sqlite").finished())
    assert 2 <= before <= 8
    np.testing.assert_allclose(table(document(data, folder)), table(finished[1]), rtol=1e-9)
    assert len(sweeps.Store(folder / "cells.sqlite").finished()) == 8


def test_a_terminal_shows_a_bar_with_the_time_left(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the stream for a terminal then
    monkeypatch.setenv("COLUMNS", "120")
    row: dict[str, Any] = {"depth": 1, "width": 4, "subnetworks": 1, "penalty": "none", "seed": 0}
    with Meter(quiet=False) as meter:
        meter.begin(1, 3)
        assert meter.bar is not None
        meter.bar.refresh()
        meter.update(sweeps.Progress(2, 3, 10.0, 312.0, (row,)))
        meter.bar.refresh()
    text = capsys.readouterr().err
    assert "compiling" in text
    assert "after depth 1, width 4" in text
    assert "2/3" in text
    assert "about 5:1" in text
    assert [_clock(s) for s in (0.4, 59.9, 7500.0)] == ["0 s", "1:00 min", "2:05 h"]


def test_samples_are_the_same_at_every_call(data, tmp_path):
    options = ("--samples", 12, "--epochs", 0, "--dtype", "float32", "--seeds", 1, "--widths", "2", "--depths", "1")
    found, again = (document(data, tmp_path / name, *options) for name in ("one", "two"))
    assert found["samples"] == 12
    assert found["J"] == again["J"]
    X, Y = datasets.load_npz(data)[:2]
    rows = datasets.subset(len(X), 12, key=0)
    written = json.loads((tmp_path / "one" / "config.json").read_text())["config"]
    assert written["data_sha256"] == runs.hash_arrays(
        {"X": X[rows].astype(np.float32), "Y": Y[rows].astype(np.float32)}
    )
    assert found["J"]["initial"] == found["J"]["trained"]
    assert found["J"]["initial"]["mean"][0][0] > 0
    assert found["J"]["initial"]["spread"] == [[None]]
    assert found["reason"] == "There is one cell, so that nothing can be compared."


def test_networks_that_diverge_are_counted(data, tmp_path):
    """At this rate the weights of shallow networks overflow, and the units of deeper ones die."""
    arguments = ("--rate", 5, "--epochs", 40, "--widths", "2")
    some = document(data, tmp_path / "some", *arguments, "--depths", "1,2")
    assert (some["diverged"], some["networks"]) == (2, 4)
    assert "2 of 4 networks diverged and have no J after training; a smaller --rate may help." in some["reason"]
    assert some["J"]["trained"]["mean"][0] == [None]
    assert (tmp_path / "some" / "landscape.png").exists()
    for _ in range(2):  # also where the result is shown again
        done = run(data, tmp_path / "all", *arguments, "--depths", "1", "--json")
        assert done.exit_code == 1
        assert json.loads(done.stdout)["diverged"] == 2
        assert (tmp_path / "all" / "landscape.png").exists()


def test_data_out_of_range_leave_nothing_behind(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", X=1e300 * rng.normal(size=(20, 3)), Y=rng.normal(size=(20, 2)))
    done = run(tmp_path / "data.npz", tmp_path / "fresh")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "X: Expected: a largest entry of 0 or between" in done.stderr
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--depths", ""), "--depths: Expected: integers such as 4,8. Received: none"),
        (("--depths", "0,1"), "--depths: Expected: integers from 1 to 2^31 - 1. Received: 0"),
        (("--depths", "1,1000"), "--depths: Expected: numbers below 1000"),
        (("--widths", "4,x"), "--widths: Expected: integers such as 4,8. Received: '4,x'"),
        (("--widths", "4,8,4"), "--widths: Expected: different values. Received: 4 more than once"),
        (("--widths", "2000000000"), "--widths: Expected: a size that fits into"),
        (("--seeds", "0"), "--seeds: Expected: an integer from 1"),
        (("--seeds", "9999999999"), "--seeds: Expected: at most 1000000 seeds"),
        (("--epochs", "-1"), "--epochs: Expected: an integer from 0"),
        (("--batch", "0"), "--batch: Expected: an integer from 1"),
        (("--rate", "-1"), "--rate: Expected: a positive number"),
        (("--rate", "nan"), "--rate: Expected: a positive number"),
        (("--rate", "1e60", "--dtype", "float32"), "--rate: Expected: a number from 1e-38 to 1e38 in float32"),
        (("--momentum", "1"), "--momentum: Expected: a number from 0 to 1, without 1"),
        (("--samples", "21"), "--samples: Expected: from 1 to 20 samples, as the data have. Received: 21"),
        (("--dtype", "float16"), "--dtype: Expected: float64 or float32"),
        (("--data", "nowhere"), "--data: Expected: one of digits"),
        (("--resume",), "--resume: there is no such run in"),
        (("--scheduler", "nonsense"), "--scheduler: Expected: the address of a Dask scheduler, such as tcp://"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of distributed's import
def test_bad_input_is_one_line_and_leaves_nothing_behind(data, tmp_path, arguments, message):
    done = run(data, tmp_path / "fresh", *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_sweep_or_in_use_is_refused(data, finished, tmp_path):
    folder, _ = finished
    done = run(data, folder, "--epochs", 4)
    assert done.exit_code == 2
    assert "epochs is 3 there and 4 here" in done.stderr
    np.savez(tmp_path / "data.npz", X=np.eye(3), Y=np.ones((3, 1)))
    done = run(tmp_path / "data.npz", folder)
    assert done.exit_code == 2
    assert "data_sha256 is" in done.stderr
    opened = run(data, tmp_path / "run", "--epochs", -1)
    assert opened.exit_code == 2
    choices = landscapes.Choices(str(data), "1,2", "2,3", 2, 3, None, 8, 0.01, 0.5, "float64")
    configuration = landscapes.prepared(choices).configuration
    with runs.RunFolder(configuration, tmp_path / "run") as other:
        other.claim()
        done = run(data, tmp_path / "run")
        assert done.exit_code == 2
        assert f"in use by process {os.getpid()}" in done.stderr
    with sweeps.Store(tmp_path / "run" / "cells.sqlite") as store:  # a sweep in Python that writes the same file
        store.claim({"data": "x", "stages": []})
        done = run(data, tmp_path / "run")
    assert done.exit_code == 2
    assert "cells.sqlite: Expected: a store that is free" in done.stderr
    assert run(data, tmp_path / "run").exit_code == 2, "the cells are those of other data"


# -- clusters --------------------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    """A scheduler with one worker in threads of this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from distributed import LocalCluster

        with LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp"
        ) as c:
            yield c


@pytest.mark.filterwarnings("ignore")
def test_workers_of_a_scheduler_compute_the_networks(cluster, data, finished, tmp_path):
    found = document(data, tmp_path / "run", "--scheduler", cluster.scheduler_address)
    np.testing.assert_allclose(table(found), table(finished[1]), rtol=1e-9)
    assert found["configuration"] == finished[1]["configuration"]
    (worker,) = cluster.scheduler_info["workers"]
    done = run(data, tmp_path / "other", "--scheduler", worker)
    assert done.exit_code == 2
    assert "where a worker answers" in done.stderr


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_does_not_answer(data, tmp_path, monkeypatch):
    monkeypatch.setattr("globopt_jax.cli.cluster.PATIENCE", 0.2)
    done = run(data, tmp_path / "run", "--scheduler", "tcp://127.0.0.1:1")
    assert done.exit_code == 2
    assert "Received: tcp://127.0.0.1:1, where no scheduler answers within 0.2 s." in done.stderr
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = run(data, tmp_path / "run", "--scheduler", "tcp://127.0.0.1:1")
    assert done.exit_code == 2
    assert done.stderr == "globopt: --scheduler needs Dask: pip install 'globopt_jax[cluster]'.\n"
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_goes_away_is_named(data, tmp_path, monkeypatch):
    def gone(*_, **__):
        raise RuntimeError("client: the scheduler has gone. The same call goes on; so does the same call")

    monkeypatch.setattr(sweeps, "landscape", gone)
    done = run(data, tmp_path / "run")
    assert done.exit_code == 2
    assert done.stderr.endswith(
        "--scheduler: the scheduler has gone. The same call goes on; so does the same command\n"
    )
