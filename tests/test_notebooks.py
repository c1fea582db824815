"""Every notebook runs as Jupyter runs it, what it asserts holds, and its pictures are there."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# conf.py is the documentation site's.
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").glob("*.py") if path.name != "conf.py")
SMALL = {"GLOBOPT_NOTEBOOK_ROWS": "40", "GLOBOPT_NOTEBOOK_EFFORT": "quick"}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def render(path, folder, settings):
    """Execute a notebook in a kernel of its own: how many pictures it shows, and how many figures it makes."""
    target = folder / f"{path.stem}.ipynb"
    command = [sys.executable, "-m", "jupytext", "--to", "ipynb", "--execute", "--output", str(target), str(path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GLOBOPT_NOTEBOOK")} | settings
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = [cell for cell in json.loads(target.read_text())["cells"] if cell["cell_type"] == "code"]
    shown = [output["data"] for cell in cells for output in cell["outputs"] if "data" in output]
    return sum("image/png" in data for data in shown), sum("plotting.figure(" in "".join(c["source"]) for c in cells)


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_a_notebook_runs_and_shows_its_pictures(path, tmp_path):
    shown, made = render(path, tmp_path, SMALL)
    assert shown == made > 0


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs_at_its_own_setting(path, tmp_path):
    # Here the work takes longer than the compiler, whose optimizations the suite leaves out.
    shown, made = render(path, tmp_path, {"XLA_FLAGS": ""})
    assert shown == made > 0


@every_notebook
def test_a_notebook_is_a_percent_script(path):
    text = path.read_text()
    assert "# %% [markdown]" in text
    assert "assert " in text
