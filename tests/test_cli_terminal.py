"""The command on other people's machines: terminals, pipes, file systems and platforms that are not like ours."""

import errno
import json
import os
import pathlib
import re
import subprocess
import sys
from unittest import mock

import filelock
import jax
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import globopt_jax
from globopt_jax import __main__, plotting, runs
from globopt_jax.cli import app, layouts, task, terminal

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODULE = (sys.executable, "-m", "globopt_jax")


def globopt(*arguments: object):
    """Run the command in this process, as most people have JAX configured."""
    with jax.numpy_dtype_promotion("standard"):
        return CliRunner().invoke(app, [str(a) for a in arguments])


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; $G is the command."""
    known = os.environ | {"G": " ".join(MODULE)} | environment
    return subprocess.run(["bash", "-c", line], cwd=ROOT, env=known, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(path, X=rng.normal(size=(12, 3)), Y=rng.normal(size=(12, 2)))
    return path


# -- what is optional does not cost the result -----------------------------------------------------------


def no_locks(code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    return refuse


def test_a_run_without_locks_and_pictures_ends_with_its_result(data, tmp_path, monkeypatch):
    """Both at once: a file system whose flock fails, and a drawing that raises."""
    monkeypatch.setattr(filelock, "lock_descriptor", no_locks(errno.ENOSYS))
    monkeypatch.setattr(plotting, "progress", lambda *_: 1 / 0)
    arguments = ("solve", "--data", data, "--map", "linear", "--width", 2, "--effort", "quick", "--lam", 2)
    done = globopt(*arguments, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert f"globopt: {tmp_path / 'run'} is not locked, since its file system has no locks (Func" in done.stderr
    assert "plots.png could not be drawn (ZeroDivisionError: division by zero); the result is complete" in done.stderr
    assert "which could not be locked" in " ".join(done.stdout.split())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["locked"] is False
    assert result["check"]["holds"] is True
    assert not {"run.lock", "plots.png"} & {path.name for path in (tmp_path / "run").iterdir()}
    again = globopt(*arguments, "--out", tmp_path / "run")
    assert again.exit_code == 0
    assert again.stderr == ""


def test_a_linear_run_without_locks_and_pictures_ends_with_its_result(tmp_path, monkeypatch):
    monkeypatch.setattr(filelock, "lock_descriptor", no_locks(errno.ENOTSUP))
    monkeypatch.setattr(plotting, "growth", lambda *_: 1 / 0)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", X=rng.normal(size=(20, 4)), Y=rng.normal(size=(20, 3)))
    arguments = ("linear", "--data", tmp_path / "d.npz", "--hidden", 3, "--steps", 200, "--init", 0.3)
    arguments = (*arguments, "--seed", 1, "--out", tmp_path / "run")  # the programs of `test_cli_linear`
    done = globopt(*arguments)
    assert done.exit_code == 0, done.output
    assert "is not locked" in done.stderr
    assert "plots.png could not be drawn" in done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["locked"] is False
    assert not (tmp_path / "run" / "run.lock").exists()
    assert globopt(*arguments).exit_code == 0


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_pictures_are_drawn_whatever_backend_is_named(backend, tmp_path):
    """In a process of its own, since matplotlib reads the variable when it is imported."""
    code = (
        "import sys\n"
        "from globopt_jax import __main__, cli, runs\n"
        "from globopt_jax.cli import report\n"
        "def draw():\n"
        "    with runs.RunFolder({}, sys.argv[1]) as folder:\n"
        "        report.draw(folder, lambda figure: figure.subplots())\n"
        "cli.main = draw\n"
        "__main__.main()\n"
    )
    environment = os.environ | {"MPLBACKEND": backend}
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert (tmp_path / "run" / "plots.png").read_bytes().startswith(b"\x89PNG")


# -- exit codes ------------------------------------------------------------------------------------------


def test_a_pipe_that_closes_is_no_failure(tmp_path):
    """By the time that the command writes, `true` has gone."""
    done = shell("set -o pipefail; $G datasets --json | true")
    assert (done.returncode, done.stderr) == (0, "")
    assert shell(f"set -o pipefail; $G check {tmp_path} 2>&1 | true").returncode == 2


def test_a_bug_is_one_line_and_70():
    code = (
        "import sys; from globopt_jax import __main__, cli; from globopt_jax.cli import inspection\n"
        "inspection.datasets = lambda **_: 1 / 0; sys.argv = ['globopt', 'datasets']; __main__.main()\n"
    )

    known = os.environ | {"GLOBOPT_TRACEBACK": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == 70
    before, last = done.stderr[:-1].rsplit("\n", 1)
    assert last.startswith("globopt: a bug: ZeroDivisionError: division by zero (<string>:2). Please report it")
    assert "GLOBOPT_TRACEBACK=1" in last
    assert before.startswith("Traceback (most recent call last)")


def test_without_the_variable_a_bug_is_one_line_and_no_memory_is_bad_input(capsys, monkeypatch):
    monkeypatch.delenv("GLOBOPT_TRACEBACK", raising=False)
    for error, code, text in (
        (KeyError("x"), 70, "a bug: KeyError: 'x'"),
        (MemoryError(), 2, "this needs more memory than the machine has (MemoryError)"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 2, "this needs more memory than the machine has"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ):
        with pytest.raises(type(error)) as raised:
            raise error
        assert __main__.failed(raised.value) == code
        said = capsys.readouterr().err
        assert text in said
        assert said.count("\n") == 1


def test_letters_that_a_terminal_lacks_are_spelled():
    done = shell("$G datasets", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "digits" in done.stdout


def test_what_jax_says_about_a_platform_that_is_not_there(data, monkeypatch):
    done = shell(f"$G solve --data {data}", JAX_PLATFORMS="nonsense")
    assert done.returncode == 2
    assert done.stderr.startswith("globopt: JAX_PLATFORMS: Expected: a platform that JAX finds on this machine.")
    assert "Received: 'nonsense'; JAX says RuntimeError: Unable to initialize backend 'nonsense'" in done.stderr
    assert done.stderr.count("\n") == 1

    def without_a_word():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", without_a_word)
    for arguments in (("solve",), ("certify", "w.npz"), ("linear",), ("linear", "w.npz"), ("verify",)):
        done = globopt(*arguments)
        assert done.exit_code == 2, arguments
        assert "JAX says nothing but AssertionError. Unset the variable" in done.stderr
        assert done.stderr.count("\n") == 1


# -- sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("solve --width 1000000000000", "--width: Expected: a size that fits into"),
        ("solve --width 9999999999999999999999", "--width: Expected: an integer from 1 to 2^63 - 1"),
        ("solve --map relu:3 --widths 3000000,3000000", "Received: 16 and --widths 3000000,3000000, which takes"),
        ("solve --map relu:99999999", "--map: Expected: NAME or NAME:LAYERS"),
        ("linear --hidden 1000000000000", "--hidden: Expected: a size that fits into"),
        ("linear --hidden 9000000,9000000", "--hidden: Expected: a size that fits into"),
        ("linear --hidden " + ",".join("1" * 1000), "--hidden: Expected: fewer than 1000 widths"),
        ("linear --steps 2147483648", "--steps: Expected: an integer from 1 to 2^31 - 1"),
    ],
)
def test_sizes_that_no_memory_holds_are_refused(arguments, message, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = globopt(*arguments.split(), "--data", data)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_memory_of_a_container_counts(monkeypatch):
    there = terminal.memory()
    assert there is None or there > 2**28
    monkeypatch.setattr(terminal, "memory", lambda: 2**30)
    terminal.check_memory("--width", 3, 2**30)
    with pytest.raises(ValueError, match="--width: Expected: a size that fits into 1 GiB of memory. Received: 4"):
        terminal.check_memory("--width", 4, 2**30 + 1)


# -- how a file is read ----------------------------------------------------------------------------------

RNG = np.random.default_rng(1)
SQUARE = {"W1": RNG.normal(size=(3, 3)), "W2": RNG.normal(size=(3, 2))}
NEURONS = {"W1": RNG.normal(size=(5, 3)), "W2": RNG.normal(size=(5, 2))}


def prediction(params):
    """The weights of a linear network that stacked neurons are: (dx, dy)."""
    return np.asarray(params[0]).T @ np.asarray(params[1])


@pytest.mark.parametrize("layout", ["kernels", "stacked"])
def test_both_commands_read_two_matrices_in_the_same_way(layout):
    first = SQUARE["W1"] if layout == "kernels" else SQUARE["W1"].T
    stacked, ones, how = layouts.subnetworks(SQUARE, (3, 2), layout)
    assert not ones
    np.testing.assert_allclose(prediction(stacked), first @ SQUARE["W2"])
    kernels, also = layouts.chain(pathlib.Path("w"), SQUARE, (3, 2), layout)
    np.testing.assert_allclose(kernels[0] @ kernels[1], first @ SQUARE["W2"])
    assert how == also
    assert how.startswith("W1 (3, 3), W2 (3, 2): read as ")
    assert ("kernels" if layout == "kernels" else "stacked neurons") in how
    assert "3 inputs, 3 hidden units, 2 outputs" in how


def test_shapes_that_fit_one_reading_decide():
    """Also the one that the command did not expect."""
    kernels = {"W1": NEURONS["W1"].T, "W2": NEURONS["W2"]}
    wanted = NEURONS["W1"].T @ NEURONS["W2"]
    for stored, word in ((NEURONS, "stacked"), (kernels, "kernels")):
        params, _, how = layouts.subnetworks(stored, (3, 2))
        np.testing.assert_allclose(prediction(params), wanted)
        assert word in how
        pair, also = layouts.chain(pathlib.Path("w"), stored, (3, 2))
        np.testing.assert_allclose(pair[0] @ pair[1], wanted)
        assert word in also
    both = {"W1": np.eye(3), "W2": SQUARE["W2"]}  # the two readings are one network
    np.testing.assert_allclose(prediction(layouts.subnetworks(both, (3, 2))[0]), SQUARE["W2"])


def test_files_that_fit_both_readings_are_refused(data, tmp_path):
    np.savez(tmp_path / "square.npz", allow_pickle=False, **SQUARE)
    for command in (("certify", "--map", "linear", "--lam", 1), ("certify", "--lam", 1), ("linear",)):
        done = globopt(command[0], tmp_path / "square.npz", *command[1:], "--data", data, "--out", tmp_path / "run")
        done = done if command[0] == "certify" else globopt("linear", tmp_path / "square.npz", "--data", data)
        assert done.exit_code == 2
        assert "--layout: Expected: kernels or stacked, since W1 is square" in done.stderr
        assert not (tmp_path / "run").exists()
    done = globopt("linear", tmp_path / "square.npz", "--data", data, "--layout", "kernels", "--json")
    assert done.exit_code == 0, done.output
    found, stored = json.loads(done.stdout), runs.read_arrays(data)
    assert "kernels" in found["read"]
    assert found["read"] in done.stderr
    by_hand = 0.5 * np.sum((stored["X"] @ SQUARE["W1"] @ SQUARE["W2"] - stored["Y"]) ** 2)
    assert found["loss"] == pytest.approx(by_hand)
    made = task.grading(task.Options(str(data), "linear", lam=1.0), tmp_path / "square.npz", "kernels")
    np.testing.assert_allclose(prediction(made.params), SQUARE["W1"] @ SQUARE["W2"])
    assert made.read is not None
    assert "kernels" in made.read


@pytest.mark.parametrize(
    ("stored", "layout", "message"),
    [
        (
            NEURONS,
            "kernels",
            r"--layout: Expected: W1 \(3, 5\) and W2 \(5, 2\) for kernels, with 3 inputs and 2 outputs",
        ),
        (NEURONS, "rows", "--layout: Expected: kernels or stacked. Received: 'rows'"),
        ({"W1": np.ones((2, 3, 2)), "W2": np.ones((2, 2, 2))}, "kernels", "--layout: Expected: stacked"),
        ({"kernel1": NEURONS["W1"].T, "kernel2": NEURONS["W2"]}, "stacked", "--layout: Expected: kernels, as the file"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(stored, layout, message):
    with pytest.raises(ValueError, match=message):
        layouts.subnetworks(stored, (3, 2), layout)


def test_a_layout_beside_three_layers_or_none_is_refused(data):
    three = {f"W{l}": np.eye(3) for l in (1, 2, 3)}
    with pytest.raises(ValueError, match="--layout: Expected: kernels, for W1, W2, W3"):
        layouts.chain(pathlib.Path("w"), three, (3, 3), "stacked")
    done = globopt("linear", "--data", data, "--layout", "kernels")
    assert done.exit_code == 2
    assert "--layout needs a weights file." in done.stderr


# -- version and help ------------------------------------------------------------------------------------


def test_the_version():
    done = globopt("--version")
    assert (done.exit_code, done.stdout) == (0, f"globopt {globopt_jax.__version__}\n")


def test_the_help_has_one_style_of_defaults():
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        text = " ".join(globopt(name, "--help").stdout.split())
        assert "[default" not in text, name
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.default not in (None, False, "", ()):
                assert f"Default: {parameter.default}." in parameter.help, f"{name} {parameter.name}"
    for code in ("70 a bug", "130 stopped", "2 bad input", "closes the pipe"):
        assert code in " ".join(globopt("--help").stdout.replace("│", " ").split())


def test_compiled_programs_are_kept_where_the_user_says(tmp_path):
    """In the user's cache folder, one folder for each kind of processor, unless the environment names another."""
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(tmp_path)}):
        for name in ("COMPILATION_CACHE_DIR", "COMPILATION_CACHE_MAX_SIZE", "PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
            _ = os.environ.pop(f"JAX_{name}", None)
        __main__._keep_compiled()
        assert re.search(r"globopt_jax.compiled.\w+-[0-9a-f]{8}$", os.environ["JAX_COMPILATION_CACHE_DIR"])
        assert not list(tmp_path.iterdir())  # JAX makes it, when there is something to keep
        os.environ["JAX_COMPILATION_CACHE_DIR"] = "elsewhere"
        __main__._keep_compiled()
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
