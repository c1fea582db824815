"""The commands that look at what there is: `check`, `verify` and `datasets`."""

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
    """Whether the certificate stored in a run folder holds.

    Raises:
        ValueError: the folder holds no certificate that can be read.
    """
    verdict = rigorous.check_folder(folder)
    if json:
        report.document(verdict._asdict())
    elif not quiet:
        console = Console()
        console.print(Text(verdict.reason, style="green" if verdict.holds else "bold red"), soft_wrap=True)
        console.print(Text(f"The same without JAX: python -m globopt_jax.rigorous {folder}"), soft_wrap=True)
    return verdict.holds


def selected(select: Sequence[str] | None, seed: int) -> Iterator[claims.Verdict]:
    """The verdicts on the claims asked for, computed one by one.

    Raises:
        ValueError: a selection that matches no claim.
    """
    return claims.verify(seed, select or None)


def verify(verdicts: Iterator[claims.Verdict], *, json: bool, quiet: bool) -> bool:
    """Show verdicts as they come; whether all of them hold."""
    console = Console(quiet=quiet or json)
    table = Table(title="claims", title_justify="left", title_style="bold")
    for name in ("claim", "statement", "residual", "tolerance", "control", "verdict", "seconds"):
        right = name in ("residual", "tolerance", "control", "seconds")
        # Where there is little room the other columns give way, not the words.
        least = {"claim": 10, "statement": 24}.get(name)
        table.add_column(name, justify="right" if right else "left", min_width=least, overflow="fold")
    records: list[dict[str, Any]] = []
    # The claims' residuals mean most in float64; in float32 they hold to what it resolves.
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
    """List the data sets."""
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
