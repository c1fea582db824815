"""Every notebook runs, at a small setting, and what it asserts holds."""

import pathlib
import runpy

import jax
import pytest

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(path for path in FOLDER.glob("*.py") if path.name != "conf.py")  # conf.py is the site's


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch):
    monkeypatch.setenv("GLOBOPT_NOTEBOOK_ROWS", "40")
    monkeypatch.setenv("GLOBOPT_NOTEBOOK_EFFORT", "quick")
    # A notebook is written for JAX as most people have it.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _ = runpy.run_path(str(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_a_percent_script(path):
    text = path.read_text()
    assert "# %% [markdown]" in text
    assert "assert " in text
