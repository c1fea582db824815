"""The output of a finished run: a sentence, a small table, a JSON document, and a picture."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from globopt_jax import rigorous, runs
from globopt_jax.cli.display import Row
from globopt_jax.cli.terminal import say
from globopt_jax.homogeneous import Certificate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from globopt_jax.plotting import PolarCurve

__all__ = ["document", "draw", "facts", "picture", "place", "summary"]


def document(value: Any) -> None:
    """Print a value as one JSON document on stdout. Infinities and NaN become strings, as in the files of a run."""
    print(json.dumps(json.loads(runs.canonical_json(value)), indent=2))


def summary(result: dict[str, Any], folder: Path) -> None:
    """Print the result of `solve` or `certify` as a sentence and a small table on stdout.

    Args:
        result: the document of the run.
        folder: the run folder.
    """
    found, lam = result["certificate"], result["lam"]
    share = ""
    if (ends := result["lam_max"]) is not None:
        fraction = result["configuration"]["lam_fraction"]
        share = f" = {fraction:g} lam_max; lam_max is {ends['lower']:.8g}, at most {ends['upper']:.8g}"
    proved = "proved" if found["rigorous"] else "the trivial bound, since no better bound was proved"
    lines = [
        ("lam", f"{lam:.8g}{share}"),
        ("subnetworks", str(result["width"])),
        ("objective", f"{float(found['objective']):.10g}"),
        ("lower bound", f"{rigorous.at_least(float(found['lower_bound']), 10)}, {proved}"),
        ("relative gap", f"{rigorous.at_most(100 * float(found['relative_gap']))} %"),
        (
            "polar / lam",
            f"{float(found['polar_lower']) / lam:.6f} found, at most {float(found['polar_upper']) / lam:.6f}",
        ),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())),
        ("run folder", place(result, folder)),
    ]
    facts(result["reason"], lines)
    console = Console()
    if result["check"]["holds"]:
        console.print(
            Text(f"The certificate was checked in NumPy alone. To check it again: globopt check {folder}"),
            soft_wrap=True,
        )
    else:
        console.print(Text(f"The check of the stored certificate FAILED: {result['check']['reason']}"))


def facts(sentence: str, lines: Sequence[tuple[str, str]]) -> None:
    """Print a sentence and a table of pairs (name, value) on stdout."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in lines:
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    console = Console()
    console.print(Text(sentence), soft_wrap=True)
    console.print(table)


def place(result: dict[str, Any], folder: Path | str) -> str:
    """Return the run folder as text, with a remark if the folder could not be locked."""
    return f"{folder}{'' if result.get('locked', True) else ', which could not be locked'}"


def draw(folder: runs.RunFolder, picture: Callable[["Figure"], None], name: str = "plots.png") -> None:
    """Add a picture to a finished run: a PNG file without a date or a version in it.

    The result is there already, so whatever a picture raises is a remark and no failure.
    """
    try:
        from globopt_jax import plotting  # late: matplotlib takes half a second

        figure = plotting.figure((10, 6.6))
        picture(figure)
        folder.write_bytes(name, plotting.png(figure))
    except Exception as error:
        say(f"{folder.path / name} could not be drawn ({type(error).__name__}: {error}); the result is complete")


def picture(
    figure: "Figure", certificate: Certificate, rows: Sequence[Row], sizes: np.ndarray, curve: "PolarCurve | None"
) -> None:
    """The plots of a run on one page; without a curve of the polar, the history of the lower bound."""
    from globopt_jax import plotting

    proved = np.array([row.rigorous for row in rows])
    names = ("seconds", "objective", "lower_bound", "gap")
    seconds, objective, bound, gap = (np.array([getattr(row, name) for row in rows]) for name in names)
    hindsight = None
    if np.ptp(objective):  # weights that are only graded have one objective
        final = float(certificate.lower_bound)
        hindsight = np.array([rigorous.relative(value - final, value) for value in objective])
    (above, right), (below, last) = figure.subplots(2, 2)
    _ = plotting.progress(above, seconds, objective, bound, proved)
    _ = plotting.gap(right, seconds, gap, proved, hindsight=hindsight)
    _ = plotting.subnetworks(below, sizes)
    if curve is None:
        _ = plotting.bound_history(last, seconds, objective, bound, proved)
    else:
        _ = plotting.polar(last, curve, certificate)
