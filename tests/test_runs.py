"""Run folders: whole files or none, one writer, one configuration."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import files, runs

CONFIG = {"data": "digits", "lam": 0.1, "optimizer": {"name": "lbfgs", "steps": 100}}

WRITER = """
import itertools, sys
import numpy as np
from globopt_jax import runs

with runs.RunFolder({"lam": 0.1}, sys.argv[1]) as run:
    last = run.load_checkpoint()
    first = 0 if last is None else last.meta["step"] + 1
    for step in itertools.count(first):
        run.save_checkpoint({"W": np.full((200, 100), step), "b": np.full(7, step)}, {"step": step})
        print(step, flush=True)
"""


def start_writer(folder):
    """Start a process that writes checkpoints into a folder until it is killed."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)


def contents(folder):
    """Every file below a folder, with its bytes."""
    return {p.relative_to(folder): p.read_bytes() for p in pathlib.Path(folder).rglob("*") if p.is_file()}


def test_opening_writes_nothing_and_the_first_write_creates_the_folder(tmp_path):
    path = tmp_path / "deep" / "run"
    with runs.RunFolder(CONFIG, path) as run:
        assert not run.started
        assert run.load_checkpoint() is None
        assert run.result is None
        assert not path.parent.exists()
        run.write_text("note.txt", "λ\n")
        run.write_bytes("plot.png", b"\x89PNG")
        assert run.started
    assert json.loads((path / "config.json").read_text())["config"] == CONFIG
    assert (path / "note.txt").read_text(encoding="utf-8") == "λ\n"
    assert (path / "plot.png").read_bytes() == b"\x89PNG"


def test_the_same_configuration_resumes_and_then_reads_the_finished_result(tmp_path):
    with runs.RunFolder(CONFIG, tmp_path) as run:
        run.save_checkpoint({"W1": np.arange(6.0).reshape(2, 3)}, {"step": 3, "gap": np.float64(0.5)})
    with runs.RunFolder(CONFIG, tmp_path) as run:
        assert run.started
        checkpoint = run.load_checkpoint()
        assert checkpoint is not None
        np.testing.assert_array_equal(checkpoint.arrays["W1"], np.arange(6.0).reshape(2, 3))
        assert checkpoint.meta == {"step": 3, "gap": 0.5}
        run.finish({"objective": 1.5, "gap": float("inf")})
    before = contents(tmp_path)
    with runs.RunFolder(CONFIG, tmp_path) as run:
        assert run.result == {"objective": 1.5, "gap": "inf"}
    assert contents(tmp_path) == before


def test_another_configuration_is_refused_by_name_and_value(tmp_path):
    with runs.RunFolder(CONFIG, tmp_path) as run:
        run.save_checkpoint({"W1": np.ones(2)})
    before = contents(tmp_path)
    other = {"data": "digits", "lam": 0.2, "seed": 1, "optimizer": {"name": "adam", "steps": 100}}
    expected = (
        "lam is 0.1 there and 0.2 here; "
        'optimizer.name is "lbfgs" there and "adam" here; '
        "seed is absent there and 1 here"
    )
    with pytest.raises(ValueError) as error:
        runs.RunFolder(other, tmp_path)
    assert expected in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "data" not in str(error.value).replace(str(tmp_path), "")
    assert contents(tmp_path) == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(ValueError, match="thesis.tex"):
        runs.RunFolder(CONFIG, tmp_path)
    with pytest.raises(ValueError, match="Received: a file"):
        runs.RunFolder(CONFIG, tmp_path / "thesis.tex")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"lam": 0.1}', '{"globopt_jax_run": 0, "config": {}}'])
def test_the_config_of_another_program_is_no_run(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        runs.RunFolder(CONFIG, tmp_path)
    assert contents(tmp_path) == {pathlib.Path("config.json"): text.encode()}


def test_a_run_of_another_version_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"globopt_jax_run": runs.FORMAT - 1, "config": CONFIG}))
    with pytest.raises(ValueError, match="Received: a run of another one"):
        runs.RunFolder(CONFIG, tmp_path)


def test_what_a_kill_leaves_before_the_configuration_is_still_a_fresh_folder(tmp_path):
    (tmp_path / "run.lock").touch()
    (tmp_path / ".config.json.0a1b.tmp").write_text("{")
    with runs.RunFolder(CONFIG, tmp_path) as run:
        run.claim()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "run.lock"]


def test_a_run_that_settles_there_between_opening_and_writing_is_respected(tmp_path):
    late = runs.RunFolder({"lam": 0.2}, tmp_path)
    with runs.RunFolder({"lam": 0.1}, tmp_path) as run:
        run.claim()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="lam is 0.1 there"):
        late.write_text("note.txt", "mine")
    assert contents(tmp_path) == before


def test_two_processes_do_not_write_the_same_folder(tmp_path):
    with start_writer(tmp_path) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "0\n"
            with (
                pytest.raises(runs.FolderInUse, match=f"process {other.pid} "),
                runs.RunFolder({"lam": 0.1}, tmp_path),
            ):
                pass
        finally:
            other.kill()
    with runs.RunFolder({"lam": 0.1}, tmp_path) as run:  # the lock died with its process
        run.claim()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL])
def test_a_file_system_without_locks_is_written_and_says_so(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with runs.RunFolder(CONFIG, tmp_path) as run:
            assert run.unlocked is None, "nobody has tried"
            run.claim()
            run.claim()
            run.save_checkpoint({"W1": np.ones(2)}, {"step": 1})
            assert run.unlocked == os.strerror(code)
            assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.npz", "config.json"]
        with runs.RunFolder(CONFIG, tmp_path) as run:
            assert run.load_checkpoint() is not None
            run.finish({"objective": 1.0})
    assert runs.RunFolder(CONFIG, tmp_path).result == {"objective": 1.0}


def test_files_are_written_where_folders_cannot_be_opened_and_readers_are_in_the_way(tmp_path, monkeypatch):
    """As on Windows: no descriptor of a folder, and no replacing of a file that somebody reads just now."""
    busy = [True, True]

    def replace(source, target):
        if busy and busy.pop():
            raise PermissionError(errno.EACCES, "in use", str(target))
        os.replace(source, target)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "a folder")

    windows = types.SimpleNamespace(**{**vars(os), "name": "nt", "replace": replace, "open": refuse})
    monkeypatch.setattr(files, "os", windows)
    files.write_text(tmp_path / "a.txt", "a")
    assert contents(tmp_path) == {pathlib.Path("a.txt"): b"a"}
    windows.name, busy[:] = "posix", [True]
    with pytest.raises(PermissionError):
        files.write_text(tmp_path / "a.txt", "b")
    assert contents(tmp_path) == {pathlib.Path("a.txt"): b"a"}


def test_two_objects_in_one_process_do_not_share_a_folder(tmp_path):
    with runs.RunFolder(CONFIG, tmp_path) as run:
        run.claim()
        run.claim()  # once more is harmless
        with pytest.raises(runs.FolderInUse):
            runs.RunFolder(CONFIG, tmp_path).write_text("note.txt", "")
    runs.RunFolder(CONFIG, tmp_path).close()


def test_a_process_killed_while_it_writes_leaves_a_readable_checkpoint(tmp_path):
    """SIGKILL at several moments: the checkpoint is whole, of one step, and the next process goes on."""
    reached = -1
    for delay in (0.0, 0.003, 0.007, 0.013, 0.021):
        with start_writer(tmp_path) as writer:
            assert writer.stdout is not None
            announced = int(writer.stdout.readline())
            assert announced == reached + 1
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
            announced = int((["", *writer.stdout.read().split()])[-1] or announced)
        checkpoint = runs.RunFolder({"lam": 0.1}, tmp_path).load_checkpoint()
        assert checkpoint is not None
        arrays, meta = checkpoint
        assert meta["step"] in (announced, announced + 1)  # at most the step in progress is lost
        np.testing.assert_array_equal(arrays["W"], np.full((200, 100), meta["step"]))
        np.testing.assert_array_equal(arrays["b"], np.full(7, meta["step"]))
        reached = meta["step"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_litter(tmp_path, monkeypatch, fails):
    """Ctrl-C at the worst moments."""
    with runs.RunFolder(CONFIG, tmp_path) as run:
        run.save_checkpoint({"W1": np.zeros(3)}, {"step": 0})
        before = contents(tmp_path)

        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, fails, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run.save_checkpoint({"W1": np.ones(3)}, {"step": 1})
        assert contents(tmp_path) == before


def test_ctrl_c_frees_the_folder(tmp_path):
    def solve():
        with runs.RunFolder(CONFIG, tmp_path) as run:
            run.save_checkpoint({}, {"step": 4})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve()
    with runs.RunFolder(CONFIG, tmp_path) as run:
        run.claim()
        checkpoint = run.load_checkpoint()
    assert checkpoint == ({}, {"step": 4})


def test_arrays_come_back_as_they_were(tmp_path, dtype):
    arrays = {
        "W": jnp.ones((2, 3), dtype),
        "scalar": np.float32(2),
        "none": np.zeros((0, 4)),
        "names": np.array(["λ"]),
    }
    runs.write_arrays(tmp_path / "a.npz", arrays)
    read = runs.read_arrays(tmp_path / "a.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        runs.write_arrays(tmp_path / name, {"file": np.arange(3), "allow_pickle": np.ones(2)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("array", [np.array([{}]), jnp.ones(2, jnp.bfloat16)], ids=["objects", "bfloat16"])
def test_arrays_that_would_not_read_back_are_refused(tmp_path, array):
    with pytest.raises(ValueError, match="W.*: Expected: numbers or text"):
        runs.write_arrays(tmp_path / "a.npz", {"W": array})
    assert not contents(tmp_path)


def test_a_checkpoint_keeps_one_name_for_itself(tmp_path):
    with pytest.raises(ValueError, match="__meta__"):
        runs.RunFolder(CONFIG, tmp_path / "run").save_checkpoint({"__meta__": np.ones(1)})
    assert not (tmp_path / "run").exists()


def test_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    runs.write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_default_folder_depends_on_the_configuration_alone():
    shuffled = {
        "optimizer": {"steps": np.int64(100), "name": "lbfgs"},
        "lam": np.float64(0.1),
        "data": "digits",
    }
    assert runs.default_folder(shuffled) == runs.default_folder(CONFIG)
    assert runs.default_folder({**CONFIG, "lam": 0.2}) != runs.default_folder(CONFIG)
    assert runs.RunFolder(CONFIG).path == runs.default_folder(CONFIG)


def test_json_refuses_what_it_cannot_say():
    with pytest.raises(TypeError, match="object"):
        runs.canonical_json({"key": object()})
    assert runs.canonical_json([np.array([1.0, np.nan]), pathlib.Path("a") / "b", True, None]) == (
        '[[1.0,"nan"],"a/b",true,null]'
    )


def test_provenance_names_the_data_and_the_dtype(dtype):
    data = {"X": np.eye(2)}
    record = runs.provenance(data)
    assert record["data"] == runs.hash_arrays(data)
    assert record["dtype"] == np.dtype(dtype).name
    assert json.loads(runs.canonical_json(record)) == record
    assert runs.provenance(data, np.float32)["dtype"] == "float32"
    assert runs.provenance()["data"] is None


def test_the_hash_of_data_sees_names_dtypes_shapes_and_entries():
    variants = [
        {"X": np.zeros(2)},
        {"Y": np.zeros(2)},
        {"X": np.zeros(2, np.float32)},
        {"X": np.zeros((2, 1))},
        {"X": np.array([0.0, 1.0])},
        {"X": np.zeros(())},
        {"X": np.zeros(1)},
    ]
    assert len({runs.hash_arrays(variant) for variant in variants}) == len(variants)
    assert runs.hash_arrays({"X": np.eye(3)[::-1]}) == runs.hash_arrays({"X": np.eye(3)[::-1].copy()})
