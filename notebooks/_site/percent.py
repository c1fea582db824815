"""Notebooks in percent format as pages."""

from typing import Any

import jupytext


def read(text: str) -> Any:
    """Read a percent script as a notebook whose cells are highlighted as Python."""
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook
