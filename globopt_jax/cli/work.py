"""The work of `solve` and `certify` in steps that survive a kill: find lam, train, prove the bound."""

import contextlib
import csv
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import homogeneous, rigorous, runs
from globopt_jax.cli import report
from globopt_jax.cli.display import Display, Row
from globopt_jax.cli.folder_run import FolderRun
from globopt_jax.cli.task import Task
from globopt_jax.homogeneous import Certificate, Progress, Refinement, Trace, checkpoint
from globopt_jax.homogeneous.capacity import alive, pad
from globopt_jax.homogeneous.effort import effort_named
from globopt_jax.homogeneous.problem import penalty
from globopt_jax.shapes import Params

__all__ = ["Bounds", "Run"]

STAGES = {
    "start": "bound: before fitting",
    "fixed": "bound: its parameters fitted",
    "descent": "bound: after a further descent",
    "joint": "bound: dual point fitted too",
}


class Bounds(NamedTuple):
    """The history of the certificate, with a row for each stage of the bound."""

    stage: np.ndarray
    """The names of the stages, keys of `STAGES`."""
    lower_bound: np.ndarray
    """The proved lower bounds of the global minimum."""
    polar_upper: np.ndarray
    """The proved upper bounds of the polar, not divided by lam."""
    relative_gap: np.ndarray
    """The relative gaps."""
    rigorous: np.ndarray
    """Whether a better bound than the trivial one was proved."""
    seconds: np.ndarray
    """The seconds that training and certificate had taken by then."""

    def and_then(self, stage: str, certificate: Certificate, seconds: float) -> "Bounds":
        """Return the history with one more row."""
        row = (stage, *(getattr(certificate, name) for name in self._fields[1:-1]), seconds)
        return Bounds(*(np.append(column, entry) for column, entry in zip(self, row, strict=True)))


class Run(FolderRun):
    """A run of `solve` or `certify` in its folder.

    Args:
        task: the checked options, data and weights.
        folder: the run folder.
        quiet: whether to show no progress.
    """

    def __init__(self, task: Task, folder: runs.RunFolder, *, quiet: bool = False) -> None:
        super().__init__(folder)
        self.task = task
        self.display = Display(f"globopt {task.command}", quiet=quiet)
        self.params: Params = task.params
        self.progress: Progress | None = None
        self.bounds = Bounds(np.zeros(0, "U16"), *(np.zeros(0) for _ in Bounds._fields[1:]))
        self.refinement: Refinement | None = None
        self.meta: dict[str, Any] = {"lam_max": None, "trained": task.command == "certify", "seconds": {}}

    def load(self) -> None:
        """Read the checkpoint of an interrupted run, or store the data of a new run.

        Raises:
            ValueError: a file is damaged.
            OSError: a file cannot be read or written.
        """
        if self.folder.result is None:
            with self.task.x64():
                self._load()

    def _again(self, result: dict[str, Any]) -> dict[str, Any]:
        return {**result, "check": self._verdict(result)}

    def _enter(self, at_work: contextlib.ExitStack) -> None:
        at_work.enter_context(self.task.x64())
        _ = at_work.enter_context(self.display)

    def _work(self) -> dict[str, Any]:
        lam = self._lam()
        problem = self.task.problem(lam)
        self._show(lam)
        if not self.meta["trained"]:
            self._train(problem)
        certificate = self._certify(problem)
        self.display.now("writing the results")
        return self._result(problem, certificate)

    @property
    def trace(self) -> Trace | None:
        """The trace of training so far; None before its first step and for `certify`."""
        return None if self.progress is None else self.progress.trace

    # -- steps -------------------------------------------------------------------------------------------

    def _lam(self) -> float:
        options = self.task.configuration
        if options["lam"] is not None:
            return float(options["lam"])
        if self.meta["lam_max"] is None:
            self.display.now("looking for lam_max")
            began = time.monotonic()
            task = self.task
            found = homogeneous.lam_max(
                task.problem(1.0),
                task.X,
                task.Y,
                params=task.params,
                key=task.key(1),
                # lam follows from the search. The proved upper bound is only shown, so a looser one is enough.
                effort=replace(effort_named(options["effort"]), fixed=150),
            )
            self.meta["lam_max"] = {"lower": float(found.lower), "upper": float(found.upper)}
            self.meta["seconds"]["lam_max"] = time.monotonic() - began
            self._save()
        ends = self.meta["lam_max"]
        lam = options["lam_fraction"] * ends["lower"]
        self.display.remark(
            f"lam = {lam:.8g}, {options['lam_fraction']:g} of lam_max = {ends['lower']:.8g} "
            f"(found by a search; proved to be at most {ends['upper']:.8g})"
        )
        return lam

    def _train(self, problem: homogeneous.Problem) -> None:
        task = self.task
        arguments: dict[str, Any] = {
            "key": task.key(2),
            "effort": effort_named(task.configuration["effort"]),
            "optimizer": task.optimizer,
            "resume": self.progress,
        }
        self.display.now("training")
        for progress in homogeneous.iterate(problem, self.params, task.X, task.Y, **arguments):
            self.params, self.progress = progress.params, progress
            self.meta["trained"] = progress.done
            if progress.whole:  # a run that resumes at such a point ends exactly as an uninterrupted run
                self._save()
            self.display.row(list(self._trace_rows())[-1])
        self.meta["seconds"]["training"] = self._clock()
        self.params = pad(self.params, 1)
        self._save()

    def _certify(self, problem: homogeneous.Problem) -> Certificate:
        task = self.task
        begun, before = time.monotonic(), self._clock()
        self.display.now("proving a lower bound")
        for refinement in homogeneous.refine(
            problem,
            self.params,
            task.X,
            task.Y,
            key=task.key(3),
            effort=task.configuration["effort"],
            resume=self.refinement,
            targets_moved=task.targets_moved,
        ):
            self.refinement = refinement
            seconds = before + time.monotonic() - begun
            self.bounds = self.bounds.and_then(refinement.stage, refinement.certificate, seconds)
            self._save()
            self.display.row(list(self._bound_rows(float(problem.lam)))[-1])
        assert self.refinement is not None  # refine yields at least once
        trained = self.meta["seconds"].get("training", 0.0)
        self.meta["seconds"]["certificate"] = self._clock() - trained
        return self.refinement.certificate

    def _result(self, problem: homogeneous.Problem, certificate: Certificate) -> dict[str, Any]:
        task, folder = self.task, self.folder
        leaves = jax.tree.leaves(self.params)
        described = homogeneous.describe(problem, self.params, task.X.shape[1])
        claimed = {n: float(getattr(certificate, n)) for n in ("objective", "lower_bound")}
        record = certificate.to_json()
        folder.write_arrays("weights.npz", {f"W{k + 1}": np.asarray(w) for k, w in enumerate(leaves)})
        folder.write_arrays("certificate.npz", certificate.arrays())
        folder.write_json("certificate.json", {"problem": described, "claimed": claimed, "certificate": record})
        lam = float(problem.lam)
        rows = [*self._trace_rows(), *self._bound_rows(lam)]
        columns = {} if self.trace is None else self.trace._asdict()
        bounds = {f"bound_{n}": a for n, a in self.bounds._asdict().items()}
        folder.write_arrays("trace.npz", columns | bounds)
        folder.write_text("trace.csv", _csv(rows))
        return {
            "command": task.command,
            "configuration": task.configuration,
            "lam": lam,
            "lam_max": self.meta["lam_max"],
            "width": int(alive(self.params).sum()),
            "certificate": record,
            "reason": certificate.reason,
            "stopped": None if self.trace is None else self.trace.reason,
            "check": self._verdict(),
            "read": task.read,
            "locked": folder.unlocked is None,
            "seconds": self.meta["seconds"],
            "provenance": runs.provenance({"X": task.X, "Y": task.Y}, task.dtype),
        }

    def _picture(self, figure: Any) -> None:
        from globopt_jax import plotting  # late: it loads matplotlib

        assert self.refinement is not None  # _work has set it
        certificate = self.refinement.certificate
        problem = self.task.problem(float(certificate.lam))
        rows = [*self._trace_rows(), *self._bound_rows(float(problem.lam))]
        curve = plotting.polar_curve(problem, self.params, self.task.X, self.task.Y)
        report.picture(figure, certificate, rows, np.asarray(penalty(problem, self.params)), curve)

    def _verdict(self, result: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the certificate in the folder, and for a finished result also whether it belongs to the task."""
        try:
            verdict = rigorous.check_folder(self.folder.path)
            foreign = self._foreign(result) if verdict.holds and result is not None else None
        except (ValueError, OSError, KeyError, TypeError, OverflowError) as error:  # files are missing or damaged
            return {"holds": False, "reason": f"The files of the run cannot be read ({error})."}
        if foreign is not None:
            return {"holds": False, "reason": f"The folder holds another run than this command's: {foreign}."}
        return {"holds": verdict.holds, "reason": verdict.reason}

    def _foreign(self, result: dict[str, Any]) -> str | None:
        """Return the reason why a finished run does not belong to the task; None if it does."""
        task, folder, options = self.task, self.folder, self.task.configuration
        ends = result["lam_max"]
        lam = float(options["lam"]) if options["lam"] is not None else options["lam_fraction"] * ends["lower"]
        described = homogeneous.describe(task.problem(lam), task.params, task.X.shape[1])
        data = folder.read_arrays("problem.npz")
        if result["configuration"] != folder.config:
            return "its configuration differs"
        if not (np.array_equal(data["X"], np.asarray(task.X)) and np.array_equal(data["Y"], np.asarray(task.Y))):
            return "problem.npz has other data"
        if folder.read_json("certificate.json")["problem"] != json.loads(runs.canonical_json(described)):
            return "certificate.json describes another problem"
        if task.command == "certify":
            weights = folder.read_arrays("weights.npz").values()
            leaves = map(np.asarray, jax.tree.leaves(task.params))
            if not all(np.array_equal(a, b) for a, b in zip(weights, leaves, strict=True)):
                return "weights.npz has other weights"
        return None

    # -- checkpoints -------------------------------------------------------------------------------------

    def _save(self) -> None:
        arrays = {f"params.{k}": np.asarray(w) for k, w in enumerate(jax.tree.leaves(self.params))}
        if self.progress is not None:
            arrays |= {f"progress.{n}": a for n, a in checkpoint.pack_progress(self.progress).items()}
        arrays |= {f"bounds.{n}": a for n, a in self.bounds._asdict().items()}
        if self.refinement is not None:
            arrays |= {f"refinement.{n}": a for n, a in checkpoint.pack_refinement(self.refinement).items()}
        self.folder.save_checkpoint(arrays, self.meta)

    def _load(self) -> None:
        try:
            self._unpack(self.folder.load_checkpoint())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{self.folder.path}: Expected: a checkpoint of this run. Received: damaged files ({error}). To start "
                "anew, remove the folder or give another --out."
            ) from error

    def _unpack(self, stored: runs.Checkpoint | None) -> None:
        if stored is None:
            data = {"X": np.asarray(self.task.X), "Y": np.asarray(self.task.Y)}
            self.folder.write_arrays("problem.npz", data)
            return
        arrays, self.meta = stored
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = array
        leaves = [jnp.asarray(parts["params"][str(k)]) for k in range(len(parts["params"]))]
        self.params = jax.tree.unflatten(jax.tree.structure(self.task.params), leaves)
        if "progress" in parts:
            self.progress = checkpoint.unpack_progress(parts["progress"], self.task.params)
        self.bounds = Bounds(**parts["bounds"])
        if "refinement" in parts:
            self.refinement = checkpoint.unpack_refinement(parts["refinement"])

    # -- the display -------------------------------------------------------------------------------------

    def _clock(self) -> float:
        """Return the recorded seconds of training and certificate so far."""
        if len(self.bounds.seconds):
            return float(self.bounds.seconds[-1])
        return 0.0 if self.trace is None else float(self.trace.seconds[-1])

    def _show(self, lam: float) -> None:
        for row in (*self._trace_rows(), *self._bound_rows(lam)):
            self.display.row(row)

    def _trace_rows(self) -> Iterator[Row]:
        if self.trace is None:
            return
        for event, outer, width, value, polar, gap, seconds in zip(self.trace.events, *self.trace[1:], strict=True):
            word, _, rest = event.partition(": ")
            event = rest if word == "stop" else word
            estimate = value - gap * abs(value) if np.isfinite(gap) else np.nan
            yield Row(
                str(outer),
                event,
                int(width),
                float(value),
                float(polar),
                float(estimate),
                float(gap),
                False,
                float(seconds),
            )

    def _bound_rows(self, lam: float) -> Iterator[Row]:
        if self.refinement is None:
            return
        width, value = int(alive(self.params).sum()), float(self.refinement.certificate.objective)
        for stage, lower, polar, gap, proved, seconds in zip(*self.bounds, strict=True):
            yield Row(
                "",
                STAGES[str(stage)],
                width,
                value,
                float(polar) / lam,
                float(lower),
                float(gap),
                bool(proved),
                float(seconds),
            )


def _csv(rows: list[Row]) -> str:
    """Return the rows as CSV with a header. Lower bound and gap are estimates where `rigorous` is False."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    _ = writer.writerow(Row._fields)
    _ = writer.writerows(rows)
    return text.getvalue()
