"""The work of `check`, `verify` and `datasets`, which write no files."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax
import joblib
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from globopt_jax import claims, origin, rigorous
from globopt_jax import datasets as data
from globopt_jax.cli import report
from globopt_jax.cli.task import is_float64
from globopt_jax.inputs import integer

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


def selected(
    select: Sequence[str] | None, seed: int, instances: int, dtype: str, jobs: int | None = 1
) -> Iterator[claims.Verdict]:
    """Return an iterator that tries the selected claims, in their order.

    Args:
        select: keys or beginnings of keys; None or an empty list selects all.
        seed: the seed of the random instances.
        instances: the number of instances of each claim.
        dtype: float64 or float32.
        jobs: the number of processes. None is the number of cores if there are many claims and JAX computes on them.

    Raises:
        ValueError: a selection matches no claim, the number of instances or of jobs is below 1, or there is no such
            dtype.
    """
    x64, found = is_float64(dtype), claims.chosen(select or None)
    sharing: dict[str, list[str]] = {}
    for claim in found:
        sharing.setdefault(claim.drawn_for, []).append(claim.key)
    if jobs is None:
        jobs = joblib.cpu_count() if jax.default_backend() == "cpu" and len(sharing) > _MANY else 1
    jobs = min(integer("--jobs", jobs), len(sharing))
    alone = claims.verify(seed, select or None, instances=instances)
    if jobs == 1:
        return alone
    return _in_processes([*sharing.values()], [claim.key for claim in found], seed, instances, x64, jobs)


def _in_processes(
    groups: list[list[str]], keys: list[str], seed: int, instances: int, x64: bool, jobs: int
) -> Iterator[claims.Verdict]:
    """Try groups of claims in processes: most of the time goes into compilations and Python, which use one core."""
    work: Any = joblib.Parallel(n_jobs=jobs, return_as="generator")(
        joblib.delayed(_group)(group, seed, instances, x64) for group in groups
    )
    # A process that has grown is replaced by a new one, which joblib says in a warning.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs")
    named, known = {claim.key: claim for claim in claims.all_claims()}, dict[str, tuple[Any, ...]]()
    with contextlib.closing(work):
        for key in keys:
            while key not in known:
                try:
                    known |= next(work)
                except BrokenProcessPool as error:
                    raise MemoryError("a process was killed; --jobs 1 takes less") from error
            yield claims.Verdict(named[key], *known[key])


def _group(keys: list[str], seed: int, instances: int, x64: bool) -> dict[str, tuple[Any, ...]]:
    """Try some claims in this process, and return what a `Verdict` holds beside the claim."""
    with jax.enable_x64(x64):
        chosen = [claim for claim in claims.all_claims() if claim.key in keys]
        return {v.claim.key: v[1:] for v in claims.verify(seed, claims=chosen, instances=instances)}


def listed(select: Sequence[str] | None, *, json: bool, quiet: bool) -> None:
    """Print the keys and statements of the selected claims, without trying them.

    Raises:
        ValueError: a selection matches no claim.
    """
    found = claims.chosen(select or None)
    if json:
        report.document([{name: getattr(claim, name) for name in _OF_CLAIM} | {"claim": claim.key} for claim in found])
        return
    console, width = Console(quiet=quiet), max(len(claim.key) for claim in found)
    for claim in found:
        console.print(Text(f"{claim.key:<{width}} {claim.statement}"), soft_wrap=True)


def verify(
    verdicts: Iterator[claims.Verdict], *, seed: int, dtype: str, statements: bool, json: bool, quiet: bool
) -> bool:
    """Print each verdict on a line as soon as it is known, and return whether all claims hold."""
    console = Console(quiet=quiet or json)
    width = max(len(claim.key) for claim in claims.all_claims())

    def line(name: str, *cells: str) -> Text:
        return Text(
            f"{name:<{width}} " + " ".join(f"{cell:>{size}}" for cell, size in zip(cells, _SIZES, strict=False))
        )

    console.print(Text.assemble(line("claim", *_HEADINGS), " verdict"), style="bold", soft_wrap=True)
    records: list[dict[str, Any]] = []
    with jax.enable_x64(is_float64(dtype)):
        for verdict in verdicts:
            record = _record(verdict)
            records.append(record)
            control = "" if record["control"] is None else f"{record['control']:.1e}"
            numbers = f"{record['residual']:.1e}", f"{record['tolerance']:.1e}", control
            found = line(record["claim"], *numbers, str(record["instances"]), f"{record['seconds']:.1f}")
            word = ("holds", "green") if record["holds"] else (f"FAILS in {record['failed']}", "bold red")
            console.print(Text.assemble(found, " ", word), soft_wrap=True)
            if statements:
                for part in Text(record["statement"], style="dim").wrap(console, console.width - 2):
                    console.print(Text("  ").append_text(part), soft_wrap=True)
    failing = [record["claim"] for record in records if not record["holds"]]
    console.print(Text(_READ), style="dim")
    console.print(
        Text(f"{len(failing)} of {len(records)} claims FAIL: {', '.join(failing)}." if failing else _all(records))
    )
    if json:
        made = origin.provenance(dtype=dtype)
        report.document({"holds": not failing, "seed": seed, "claims": records, "provenance": made})
    return not failing


#: The number of groups of claims above which further processes pay for their start.
_MANY = 8
#: The columns of `verify`, and their widths.
_HEADINGS, _SIZES = ("residual", "tolerance", "control", "runs", "seconds"), (8, 9, 8, 4, 7)
#: How to read them.
_READ = (
    "A residual tells by how much an instance misses the statement. It is a relative error; where the tolerance is 0 "
    "or 0.5, it counts contradictions. A control is the residual where the hypothesis is broken. The largest residual "
    "and the smallest control are shown. A claim holds if no residual is above the tolerance, and every control is. "
    "This is evidence and no proof."
)
#: What JSON says of a claim beside its key.
_OF_CLAIM = ("statement", "paper", "equation")


def _all(records: Sequence[dict[str, Any]]) -> str:
    """Return the sentence on claims that all hold."""
    runs = sum(record["instances"] for record in records)
    said = f"All {len(records)} claims hold" if len(records) > 1 else "The claim holds"
    on = f"all {runs} random instances" if runs > 1 else "a random instance"
    return f"{said} on {on}, and every control fails as it should."


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
    console = Console(quiet=quiet)
    for d in described:
        m, dx, dy = d.shape
        console.print(Text(f"{d.name}: {m} samples, {dx} inputs, {dy} outputs"), style="bold", soft_wrap=True)
        for text in (d.about, d.source, d.licence):
            console.print(Padding(Text(text), (0, 0, 0, 2), expand=False))


def _record(verdict: claims.Verdict) -> dict[str, Any]:
    claim, found = verdict.claim, verdict.outcome
    return {
        "claim": claim.key,
        **{name: getattr(claim, name) for name in _OF_CLAIM},
        "residual": float(found.residual),
        "tolerance": float(found.tolerance),
        "control": None if found.control is None else float(found.control),
        "holds": bool(found.holds),
        "instances": verdict.instances,
        "failed": verdict.failed,
        "seconds": verdict.seconds,
    }
