"""The work of `check`, `verify` and `datasets`, which write no files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from globopt_jax import claims, rigorous
from globopt_jax import datasets as data
from globopt_jax.cli import report

__all__ = ["check", "datasets", "selected", "verify"]


def check(folder: Path, *, json: bool, quiet: bool) -> bool:
    """Verify the certificate in a run folder, print the verdict, and return whether the certificate holds.

    Args:
        folder: the run folder.
        json: whether to print one JSON document.
        quiet: whether to print no text.

    Raises:
        ValueError: the folder holds no certificate that can be read.
    """
    verdict = rigorous.check_folder(folder)
    if json:
        report.document(verdict._asdict())
    elif not quiet:
        console = Console()
        console.print(Text(verdict.reason, style="green" if verdict.holds else "bold red"), soft_wrap=True)
        console.print(Text(f"Check again without JAX: python -m globopt_jax.rigorous {folder}"), soft_wrap=True)
    return verdict.holds


def selected(select: Sequence[str] | None, seed: int) -> Iterator[claims.Verdict]:
    """Return an iterator that tries the selected claims one by one.

    Args:
        select: keys or beginnings of keys; None or an empty list selects all.
        seed: the seed of the random instances.

    Raises:
        ValueError: a selection matches no claim.
    """
    return claims.verify(seed, select or None)


def verify(verdicts: Iterator[claims.Verdict], *, json: bool, quiet: bool) -> bool:
    """Print each verdict as soon as it is known, and return whether all claims hold."""
    console = Console(quiet=quiet or json)
    table = Table(title="claims", title_justify="left", title_style="bold")
    for name in ("claim", "statement", "residual", "tolerance", "control", "verdict", "seconds"):
        right = name in ("residual", "tolerance", "control", "seconds")
        # On a narrow terminal other columns shrink first, so that the statements stay readable.
        least = {"claim": 10, "statement": 24}.get(name)
        table.add_column(name, justify="right" if right else "left", min_width=least, overflow="fold")
    records: list[dict[str, Any]] = []
    # float64 gives the sharpest residuals. The claims hold in float32, too, with larger tolerances.
    with jax.enable_x64(True), Live(table, console=console, auto_refresh=False) as live:
        for verdict in verdicts:
            record = _record(verdict)
            records.append(record)
            control = record["control"]
            table.add_row(
                record["claim"],
                record["statement"],
                f"{record['residual']:.2g}",
                f"{record['tolerance']:.2g}",
                "" if control is None else f"{control:.2g}",
                Text("holds", style="green") if record["holds"] else Text("FAILS", style="bold red"),
                f"{record['seconds']:.1f}",
            )
            live.refresh()
    holds = all(record["holds"] for record in records)
    if json:
        report.document({"holds": holds, "claims": records})
    return holds


def datasets(*, json: bool, quiet: bool) -> None:
    """Print the descriptions of all data sets."""
    described = [data.describe(name) for name in data.names()]
    if json:
        report.document(
            [
                {"name": d.name, "about": d.about, "shape": d.shape, "source": d.source, "licence": d.licence}
                for d in described
            ]
        )
        return
    table = Table()
    for name in ("name", "m, dx, dy", "about", "source", "licence"):
        table.add_column(name, overflow="fold")
    for d in described:
        table.add_row(*map(Text, (d.name, ", ".join(map(str, d.shape)), d.about, d.source, d.licence)))
    Console(quiet=quiet).print(table)


def _record(verdict: claims.Verdict) -> dict[str, Any]:
    claim, found = verdict.claim, verdict.outcome
    return {
        "claim": claim.key,
        "statement": claim.statement,
        "paper": claim.paper,
        "equation": claim.equation,
        "residual": float(found.residual),
        "tolerance": float(found.tolerance),
        "control": None if found.control is None else float(found.control),
        "holds": bool(found.holds),
        "seconds": verdict.seconds,
    }
