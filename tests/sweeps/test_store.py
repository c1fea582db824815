"""The store of a sweep: cells survive kills and full disks, and a file of another kind is refused by name."""

import contextlib
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import optax
import pytest

from globopt_jax import losses, sweeps
from globopt_jax.sweeps.names import function_named
from globopt_jax.sweeps.plan import AXES

SETTINGS: dict[str, Any] = {"data": "x", "stages": ["initial", "trained"]}
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)), RNG.normal(size=(30, 2))
OPTIONS: dict[str, Any] = {"depths": [1, 2], "widths": [2, 3], "seeds": 2, "epochs": 2, "batch": 8, "tangent": False}


def options(**changes: Any) -> dict[str, Any]:
    return OPTIONS | changes


def place(depth=1, seed=0):
    return dict(zip(AXES, (depth, 8, 1, "none", 0.0, 0.01, seed), strict=True))


@pytest.mark.usefixtures("cell_by_cell")
def test_a_sweep_goes_on_where_it_stopped(tmp_path):
    """Cells of the store are not computed again, and further axes are added to them."""
    path = tmp_path / "cells.sqlite"
    whole = sweeps.sweep(X, Y, **OPTIONS)
    seen: list[Any] = []
    _ = sweeps.sweep(X, Y, **options(depths=[1]), store=path, progress=seen.append)
    assert [(p.done, p.total) for p in seen] == [(2, 4), (4, 4)]
    seen.clear()
    found = sweeps.sweep(X, Y, **OPTIONS, store=path, progress=seen.append)
    assert [(p.done, p.total) for p in seen] == [(6, 8), (8, 8)]
    assert {row["depth"] for p in seen for row in p.latest} == {2}
    assert seen[-1].left == 0
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-12)
    stored = sweeps.Store(path).to_xarray()
    assert stored.loss.dims == found.loss.dims == ("depth", "width", "seed", "stage")
    np.testing.assert_array_equal(stored.loss, found.loss)
    assert stored.attrs == found.attrs
    seen.clear()
    _ = sweeps.sweep(X, Y, **OPTIONS, store=path, progress=seen.append)
    assert not seen
    lines = sweeps.Store(path).to_csv(tmp_path / "cells.csv").splitlines()
    assert len(lines) == 9
    assert lines[0].startswith("depth,width,subnetworks,penalty,lam,rate,seed,J_initial")
    assert (tmp_path / "cells.csv").read_text().splitlines() == lines


def test_missing_cells_are_seen(tmp_path):
    with sweeps.Store(tmp_path / "a") as store:
        store.claim(SETTINGS)
        store.write([place() | {"loss_initial": 1.5, "rank_initial": 3}, place(2, 1) | {"loss_initial": np.nan}])
        store.write([place() | {"loss_initial": 9.0}])  # a finished cell keeps its numbers
    found = sweeps.Store(tmp_path / "a").to_xarray()
    initial = found.sel(stage="initial", width=8)
    np.testing.assert_array_equal(initial.loss, [[1.5, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(initial["rank"], [[3, -1], [-1, -1]])
    assert found.attrs["data"] == "x"
    typo = sweeps.Store(tmp_path / "b")
    for read in (typo.to_xarray, typo.to_csv):
        with pytest.raises(FileNotFoundError, match="/b, where there is none"):
            read()


def test_a_store_belongs_to_its_settings(tmp_path):
    path = tmp_path / "cells.sqlite"
    _ = sweeps.sweep(X, Y, **options(depths=1), store=path)
    for changes, message in (
        ({"epochs": 3}, "epochs is 2 there and 3 here"),
        ({"batch": 9}, "batch is 8 there and 9 here"),
        ({"initial": "he"}, "initial"),
    ):
        with pytest.raises(ValueError, match=f"settings of the sweep in this store. Received: others, {message}"):
            sweeps.sweep(X, Y, **options(**changes), store=path)
    with pytest.raises(ValueError, match="others, data is"):
        sweeps.sweep(X + 1, Y, **OPTIONS, store=path)
    assert len(sweeps.Store(path).finished()) == 4


def test_a_store_needs_its_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="cells.sqlite: Expected: a file in a folder that exists. Received: "):
        sweeps.sweep(X, Y, **OPTIONS, store=tmp_path / "missing" / "cells.sqlite")


def test_other_files_are_refused(tmp_path):
    text, folder, foreign, newer, torn = (tmp_path / name for name in ("text", "folder", "foreign", "newer", "torn"))
    text.write_text("not a store " * 500)
    folder.mkdir()
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE things (name TEXT)")
    connection.close()
    for path in (newer, torn):
        with sweeps.Store(path) as store:
            store.claim(SETTINGS)
            store.write([place(seed=i) for i in range(200)])
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    torn.write_bytes(torn.read_bytes()[:-5000])
    for path, message in (
        (text, "a file that SQLite refuses"),
        (folder, "Received: a folder"),
        (foreign, "of another application"),
        (newer, "Received: format 99"),
    ):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(ValueError, match=f"{path}: Expected: .*{message}"):
            sweeps.Store(path)
        with pytest.raises((ValueError, OSError), match=str(path)):
            sweeps.sweep(X, Y, **OPTIONS, store=path)
        assert not path.is_file() or path.read_bytes() == before
    with pytest.raises(ValueError, match="a file that SQLite refuses"):
        _ = sweeps.Store(torn).rows()
    with pytest.raises(OSError, match="nowhere"):
        sweeps.sweep(X, Y, **OPTIONS, store=tmp_path / "nowhere" / "cells.sqlite")


def test_a_function_is_told_by_the_globals_that_it_names():
    """Numbers and functions around it, but no module: a store of scale 1 is none of scale 2."""
    source = "def inner(x): return shift + x\ndef outer(x): return [np.tanh(scale * inner(y)) for y in x]"

    def named(**around):
        scope = {"np": np, **around}
        exec(source, scope)
        return function_named(scope["outer"])

    plain = named(scale=1.0, shift=np.ones(2))
    assert plain == named(scale=1.0, shift=np.ones(2), other=3)
    assert len({plain, named(scale=2.0, shift=np.ones(2)), named(scale=1.0, shift=np.zeros(2))}) == 3
    jitted = [named(scale=jax.jit(f), shift=1.0) for f in (lambda x: x, lambda x: 2 * x)]
    assert jitted[0] != jitted[1]


def test_a_store_that_lacks_its_last_byte_is_damaged(tmp_path):
    """SQLite fills the page up with a zero; the number that ends there is then another, in the index alone."""
    path = tmp_path / "cells.sqlite"
    with sweeps.Store(path) as store:
        store.claim(SETTINGS)
        store.write([place()])
    path.write_bytes(path.read_bytes()[:-1])
    for use in (sweeps.Store(path).rows, sweeps.Store(path).to_csv, lambda: sweeps.Store(path).claim(SETTINGS)):
        with pytest.raises(ValueError, match=f"{path}: .*a damaged file"):
            use()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE cells SET loss_trained = 'abc'", "loss_trained of the type REAL. Received: 'abc'"),
        ("UPDATE cells SET depth = 1.5", "depth of the type INTEGER NOT NULL. Received: 1.5"),
        ("ALTER TABLE cells DROP COLUMN seconds", "cells with seconds. Received: depth, width"),
        ("""UPDATE sweep SET identity = '{"stages": [1, 2]}'""", "without settings"),
        ("""UPDATE sweep SET identity = '{"stages": ["x REAL); DROP TABLE cells; --"]}'""", "without settings"),
        ("DROP TABLE cells", "one without the table of cells"),
    ],
)
def test_an_edited_store_is_named(tmp_path, statement, message):
    path = tmp_path / "cells.sqlite"
    with sweeps.Store(path) as store:
        store.claim(SETTINGS)
        store.write([place()])
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)

    def read() -> Any:
        return sweeps.Store(path).to_xarray()

    def write() -> Any:
        with sweeps.Store(path) as store:
            store.claim(SETTINGS)
            return store.rows()

    for use in (read, write):
        with pytest.raises((ValueError, OSError), match=f"{path}: .*{re.escape(message)}"):
            use()


def test_functions_of_one_name_are_told_apart(tmp_path):
    """A lambda has no name of its own, and a function inside of another one has variables from there."""

    def with_momentum(momentum):
        def optimizer(rate):
            return optax.sgd(rate, momentum=momentum)

        return optimizer

    for number, (name, one, other) in enumerate(
        [
            ("activation", lambda z: z**2, lambda z: z**3),
            ("optimizer", with_momentum(0.1), with_momentum(0.9)),
            ("loss", *(type("Mine", (type(losses.squared),), {"weight": w, "name": "mine"})() for w in (1, 2))),
        ]
    ):
        path = tmp_path / str(number)
        found = sweeps.sweep(X, Y, **options(depths=1, **{name: one}), store=path)
        again = sweeps.sweep(X, Y, **options(depths=1, **{name: one}), store=path)
        np.testing.assert_array_equal(found.seconds, again.seconds)
        with pytest.raises(ValueError, match=f"Received: others, {name} is "):
            sweeps.sweep(X, Y, **options(depths=1, **{name: other}), store=path)


def test_there_is_one_writer(tmp_path):
    """A second one is told who writes; readers are welcome."""
    path = tmp_path / "cells.sqlite"
    with sweeps.Store(path) as store:
        store.claim(SETTINGS)
        store.write([place()])
        with pytest.raises(sweeps.StoreInUse, match=f"in use by process {os.getpid()} on"):
            sweeps.Store(path).claim(SETTINGS)
        assert len(sweeps.Store(path).finished()) == 1
    with pytest.raises(ValueError, match="has not"):
        store.write([place(2)])


def test_links_to_a_store_have_one_writer(tmp_path):
    path, link = tmp_path / "cells.sqlite", tmp_path / "link.sqlite"
    with sweeps.Store(path) as store:
        store.claim(SETTINGS)
        link.symlink_to(path)
        with pytest.raises(sweeps.StoreInUse):
            sweeps.Store(link).claim(SETTINGS)


@pytest.mark.parametrize("name", [":memory:", "file:cells?mode=memory", "a b%20#ü.sqlite"])
def test_names_have_no_meaning_of_their_own(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with sweeps.Store(name) as store:
        store.claim(SETTINGS)
        store.write([place()])
    assert len(sweeps.Store(name).finished()) == 1


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path):
    path = tmp_path / "cells.sqlite"
    with sweeps.Store(path) as store:
        store.claim(SETTINGS)
        store.write([place()])
        assert store._connection is not None
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match=f"{path}: .* full.*Finished cells in it are safe"):
            store.write([place(seed=i) for i in range(1, 3000)])
        assert store.finished() == [tuple(place().values())]
    assert len(sweeps.Store(path).finished()) == 1


PROGRAM = """
import sys, time, numpy as np
from globopt_jax import sweeps
from globopt_jax.sweeps.names import function_named
import jax; jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
def show(progress):
    print(progress.done, flush=True)
    time.sleep(0.2)  # a fast machine would finish before it is killed
sweeps.sweep(X, Y, depths=range(1, 7), widths=[2, 3, 4], seeds=3, epochs=30, batch=2, tangent=False, store=sys.argv[1],
             progress=show)
"""


def killed(path: pathlib.Path, after: int, pause: float) -> None:
    """Start the program, wait for a number of portions and a while, and kill it."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(after):
        assert process.stdout.readline()
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    _ = process.wait()
    process.stdout.close()


@pytest.mark.usefixtures("cell_by_cell")
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_kills_lose_no_cell_and_double_none(tmp_path, kills):
    path, rng = tmp_path / "cells.sqlite", np.random.default_rng(kills)
    before = 0
    for _ in range(kills):
        killed(path, int(rng.integers(1, 3)), float(rng.uniform(0, 0.1)))
        finished = sweeps.Store(path).finished()
        assert len(finished) == len(set(finished)) > before
        before = len(finished)
    same = options(depths=range(1, 7), widths=[2, 3, 4], seeds=3, epochs=30, batch=2)
    seen: list[Any] = []
    found = sweeps.sweep(X, Y, **same, store=path, progress=seen.append)
    assert len(seen) == 18 - before // 3
    np.testing.assert_allclose(found.loss, sweeps.sweep(X, Y, **same).loss, rtol=1e-10)
    assert not np.any(np.isnan(found.loss))
