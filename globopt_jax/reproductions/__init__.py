"""The papers' experiments, rerun on their data: Figure 1 of KHK19, and Tables 4.1 and 4.2 of K18.

Each experiment is a function that trains what is missing in its stores, and returns a report in Markdown. The command
`globopt reproduce` runs them.
"""

from collections.abc import Callable

from globopt_jax.reproductions import k18, khk19
from globopt_jax.reproductions.report import Experiment

__all__ = ["EXPERIMENTS", "Experiment"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__


#: All experiments by their names on the command line.
EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    "khk19-figure-1": khk19.Figure1,
    "k18-table-4.1": k18.Table41,
    "k18-table-4.2": k18.Table42,
}
