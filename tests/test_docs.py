"""The README is true: its snippets run, its names exist, its links lead somewhere."""

import contextlib
import io
import os
import pathlib
import re
import shlex

import jax
from typer.main import get_command
from typer.testing import CliRunner

from globopt_jax.cli import app

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_two_commands_are_an_installation_with_its_job_and_one_with_the_tests():
    job, tests = blocks("sh")[:2]
    assert job.splitlines()[-1] == ".venv/bin/globopt solve"
    assert "pytest" in tests.splitlines()[-1]


def test_the_python_and_the_commands_run_in_order(tmp_path):
    """One reader, one folder: the commands find the files that the snippets wrote."""
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(printed):
        # Snippets are written for JAX as most people have it.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
            for snippet in blocks("python"):
                exec(compile(snippet, "README.md", "exec"), names)
        for line in "".join(blocks("bash")).splitlines():
            program, *arguments = shlex.split(line)
            assert program == "globopt"
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, done.output
    assert "no network of any width goes below" in printed.getvalue()
    assert "stop: " in printed.getvalue()


def test_every_command_is_in_the_readme():
    commands = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    assert {name for name in commands if f"`globopt {name}" not in README} == set()
    spoken_of = set(re.findall(r"`globopt (\w+)", README))
    assert spoken_of == set(commands)


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
    for path in re.findall(r"notebooks/[\w./]+", README):
        assert os.path.exists(ROOT / path), path


def test_the_names_of_the_notation_table_exist():
    from globopt_jax import homogeneous, losses

    table = README.partition("## Paper notation")[2].partition("\n## ")[0]
    for module, name in re.findall(r"`(homogeneous|losses)\.(\w+)", table):
        assert hasattr({"homogeneous": homogeneous, "losses": losses}[module], name)
    for name in ("relu_neuron", "rank_one", "deep_subnetwork", "sum_of_powers", "product_of_norms"):
        assert f"`{name}`" in table
        assert hasattr(homogeneous, name)
