"""The work of `globopt linear`: classify a deep linear network, or train one in steps that survive a kill."""

import contextlib
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from globopt_jax import deep_linear, runs
from globopt_jax.cli import layouts, report
from globopt_jax.cli.folder_run import FolderRun
from globopt_jax.cli.task import check_numbers, data_named, integers, is_float64
from globopt_jax.cli.terminal import check_memory
from globopt_jax.deep_linear.second_order import lowest
from globopt_jax.npz import read_arrays

__all__ = ["RADIUS", "Choices", "Diverged", "Run", "Task", "check_classifying", "check_training", "classified", "show"]
__all__ += ["training"]

#: The number of checkpoints of a run, and the number of rows of its history.
CHUNKS, LOOKS = 50, 500
#: The default radius of the search for weights of a lower loss, in the Frobenius norm.
RADIUS = 0.1


class Diverged(RuntimeError):
    """Raised where the loss overflows during training. The learning rate is too large, which only training can tell."""


class Choices(NamedTuple):
    """The options of training, as they were typed; the help of `globopt linear` describes them. None is the default."""

    data: str
    hidden: str | None
    init: float | None
    optimizer: str | None
    rate: float | None
    steps: int | None
    whiten: bool
    seed: int
    dtype: str


def check_classifying(options: Sequence[Any], *, resume: bool) -> None:
    """Raise ValueError if an option of training comes with a weights file."""
    names = ("--hidden", "--init", "--optimizer", "--rate", "--steps", "--out")
    given = [name for name, value in zip(names, options, strict=True) if value is not None]
    given += ["--resume"] * resume
    if given:
        raise ValueError(
            f"{' and '.join(given)} cannot be combined with a weights file, which is classified and not trained."
        )


def check_training(escape: Path | None, radius: float | None, layout: str | None) -> None:
    """Raise ValueError if an option of classifying comes without a weights file."""
    for name, value in (("--escape", escape), ("--radius", radius), ("--layout", layout)):
        if value is not None:
            raise ValueError(f"{name} needs a weights file. Without a weights file, globopt linear trains a network.")


def classified(
    weights: Path,
    data: str,
    radius: float | None,
    escape: Path | None,
    layout: str | None,
    *,
    whiten: bool,
    seed: int,
    dtype: str,
) -> dict[str, Any]:
    """Classify the weights in a file, and search for weights of a lower loss nearby.

    The arguments are the values of the command's options, as the help of `globopt linear` describes them.

    Returns:
        The classification, the entry "escape" on the weights of a lower loss, and the entry "read", a sentence on how
        the weights file was read.

    Raises:
        ValueError: an option or the content of a file is wrong.
        OSError: a file cannot be read or written.
    """
    check_numbers(seed=seed)
    radius = RADIUS if radius is None else radius
    if escape is not None and (escape.is_dir() or not escape.parent.is_dir() or escape.suffix != ".npz"):
        raise ValueError(f"--escape: Expected: an .npz file in a folder that exists. Received: {escape}.")
    with jax.enable_x64(is_float64(dtype)):
        X, Y = _data(data, dtype, whiten=whiten)
        stored, how = layouts.chain(weights, read_arrays(weights), (X.shape[1], Y.shape[1]), layout)
        kernels = [a.astype(dtype) for a in stored]
        ends = kernels[0].shape[:1] + kernels[-1].shape[1:]
        if ends != (X.shape[1], Y.shape[1]):
            raise ValueError(
                f"--data: Expected: data with {ends[0]} inputs and {ends[-1]} outputs, as the weights have (kernels "
                f"are (d_(l-1), d_l), where PyTorch stores their transposes). Received: {data} with X {X.shape} and Y "
                f"{Y.shape}."
            )
        key = jax.random.key(seed)
        found = deep_linear.classify(kernels, X, Y, key=key)
        down = deep_linear.escape(kernels, X, Y, radius, key)
        if escape is not None and down.found:
            _save(escape, down.weights)
        written = escape if down.found else None
        return {**found.to_json(), "escape": _way_down(down, radius, written), "read": f"{weights}: {how}"}


def _way_down(down: deep_linear.Escape, radius: float, written: Path | None = None) -> dict[str, Any]:
    return {
        "found": bool(down.found),
        "method": down.method,
        "radius": radius,
        "distance": float(down.distance),
        "decrease": float(down.decrease),
        "weights": None if written is None else str(written),  # the file to which the weights were written
    }


def _data(name: str, dtype: str, *, whiten: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return X and Y; with `whiten`, the left singular vectors of X, as many as its rank, take the place of X."""
    X, Y = (a.astype(dtype) for a in data_named(name))
    if whiten:
        fit = deep_linear.least_squares(X, Y)
        X = np.linalg.svd(X, full_matrices=False)[0][:, : int(fit.rank)]
    return X, Y


def _save(path: Path, weights: Sequence[Any]) -> None:
    runs.write_arrays(path, {f"W{l + 1}": np.asarray(w) for l, w in enumerate(weights)})


def show(found: dict[str, Any], *, json: bool, quiet: bool) -> None:
    """Print a classification (of `classified` or of a run): verdict, distance from the optimum, and the way down."""
    if json:
        report.document(found)
        return
    if quiet:
        return
    down = found["escape"]
    way = (
        f"{down['decrease']:.6g} lower within {down['radius']:g}: {down['method']}" if down["found"] else down["method"]
    )
    kind = found["kind"].replace("_", " ")
    lines = [
        ("verdict", kind + {True: ", strict", False: ", degenerate", None: ""}[found["is_strict"]]),
        ("loss", f"{found['loss']:.10g}"),
        ("optimum", f"{found['optimum']:.10g}"),
        ("gap", f"{found['gap']:.6g}; gradients and residual prove at most {float(found['gap_bound']):.6g}"),
        ("way down", way + (f"; written to {down['weights']}" if down["weights"] else "")),
    ]
    if "folder" in found:
        lines.append(("run folder", report.place(found, found["folder"])))
    report.facts(found["reason"], lines)


class Task(NamedTuple):
    """A training run whose options were checked. Nothing has been computed or written yet."""

    X: np.ndarray
    Y: np.ndarray
    widths: tuple[int, ...]
    """All widths: dx, the hidden widths, dy."""
    init: float
    """The scale of the initial weights, before the factor 1/sqrt(fan-in)."""
    steps: int
    optimizer: str
    rate: float | None
    """The learning rate; None is the default of the optimizer."""
    configuration: dict[str, Any]
    """The options and the hash of the data, to which the run folder belongs."""

    @property
    def seed(self) -> int:
        """The seed of the initial weights and of the searches."""
        return self.configuration["seed"]

    def x64(self) -> Any:
        """Return the context in which everything is computed: x64 is on for float64 and off for float32."""
        return jax.enable_x64(is_float64(self.configuration["dtype"]))


def training(choices: Choices) -> Task:
    """Check the options of training and load the data.

    Args:
        choices: the options, as they were typed.

    Raises:
        ValueError: an option or the data are wrong, or the network does not fit into memory.
        OSError: a file cannot be read.
    """
    hidden = integers("--hidden", "32,32" if choices.hidden is None else choices.hidden)
    steps = 100_000 if choices.steps is None else choices.steps
    init = 0.01 if choices.init is None else choices.init
    name = choices.optimizer or "sgd"
    check_numbers(seed=choices.seed, steps=steps, **{f"hidden {d}": d for d in hidden})
    for option, value in (("--init", init), ("--rate", choices.rate)):
        if value is not None and not (np.isfinite(value) and (value > 0 or (option == "--init" and value == 0))):
            raise ValueError(f"{option}: Expected: a positive number. Received: {value}.")
    if name not in ("sgd", "adam"):
        raise ValueError(f"--optimizer: Expected: sgd or adam. Received: {name!r}.")
    if len(hidden) > 999:  # the compilation of a thousand layers would take days
        raise ValueError(f"--hidden: Expected: fewer than 1000 widths. Received: {len(hidden)}.")
    with jax.enable_x64(is_float64(choices.dtype)):
        X, Y = _data(choices.data, choices.dtype, whiten=choices.whiten)
    widths = (X.shape[1], *hidden, Y.shape[1])
    numbers = 3 * sum(a * b for a, b in pairwise(widths))  # weights, their gradient and the next weights
    check_memory("--hidden", choices.hidden, numbers * np.dtype(choices.dtype).itemsize)
    configuration = {
        "command": "linear",
        "data": choices.data,
        "data_hash": runs.hash_arrays({"X": X, "Y": Y}),
        "hidden": list(hidden),
        "init": init,
        "optimizer": name,
        "rate": choices.rate,
        "steps": steps,
        "whiten": choices.whiten,
        "seed": choices.seed,
        "dtype": choices.dtype,
    }
    return Task(X, Y, widths, init, steps, name, choices.rate, configuration)


class Run(FolderRun):
    """A training run of `globopt linear` in its folder; with `quiet` it shows no progress."""

    def __init__(self, task: Task, folder: runs.RunFolder, *, quiet: bool) -> None:
        super().__init__(folder)
        self.task = task
        self.console = Console(stderr=True, quiet=quiet)
        self.rate = task.rate
        self.drawn: tuple[deep_linear.History, deep_linear.Classification] | None = None

    def _enter(self, at_work: contextlib.ExitStack) -> None:
        at_work.enter_context(self.task.x64())

    def _work(self) -> dict[str, Any]:
        task = self.task
        weights, state, done, seconds = self._train()
        seen, key = deep_linear.history(state), jax.random.key(task.seed)
        found = deep_linear.classify(weights, task.X, task.Y, key=key)
        self.drawn = seen, found
        return self._result(weights, seen, found, done, seconds)

    def _again(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a finished run, computed again from its weights.

        Raises:
            ValueError: result.json differs from the recomputed result, or a file cannot be read.
        """
        stored = self.folder.read_arrays("weights.npz")
        weights = [stored[f"W{l + 1}"] for l in range(len(self.task.widths) - 1) if f"W{l + 1}" in stored]
        with self.task.x64():
            key = jax.random.key(self.task.seed)
            found = deep_linear.classify(weights, self.task.X, self.task.Y, key=key)
            down = deep_linear.escape(weights, self.task.X, self.task.Y, RADIUS, key)
        derived = {**found.to_json(), "escape": _way_down(down, RADIUS)}
        for name in ("kind", "loss", "optimum", "gap", "gap_bound"):
            right, said = derived[name], result.get(name)
            same = (
                said == right
                if isinstance(right, str)
                else isinstance(said, float) and np.isclose(said, right, rtol=1e-6, atol=1e-12 * abs(derived["loss"]))
            )
            if not same:
                path = self.folder.path / "result.json"
                raise ValueError(f"{path}: Expected: {name} {right}, as weights.npz gives. Received: {said}.")
        return {**result, **derived}

    def _train(self) -> tuple[list[Any], Any, int, float]:
        """Train in chunks of steps, and save each chunk before the next begins.

        Returns:
            The weights, the state of the optimizer, the number of steps done, and the seconds that they took.
        """
        fit = deep_linear.least_squares(self.task.X, self.task.Y)
        self.rate = self._rate(fit) if self.rate is None else self.rate
        make = {"sgd": optax.sgd, "adam": optax.adam}[self.task.optimizer]
        watch = deep_linear.monitor(
            self.task.X, self.task.Y, every=max(self.task.steps // LOOKS, 1), capacity=2 * LOOKS
        )
        optimizer = optax.chain(watch, make(self.rate))

        @partial(jax.jit, static_argnums=1)
        def advance(carry: Any, count: int) -> Any:
            def step(carry: Any, _: None) -> tuple[Any, None]:
                weights, state = carry
                grads = deep_linear.gradients(weights, fit.inputs, fit.targets)
                moves, state = optimizer.update(grads, state, weights)
                return (optax.apply_updates(weights, moves), state), None

            return jax.lax.scan(step, carry, length=count)[0]

        weights = self._start(fit.inputs.dtype)
        carry, done, seconds = self._load((weights, optimizer.init(weights)))
        length = max(self.task.steps // CHUNKS, 1)
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=self.console, transient=True
        )
        with bar:
            shown = bar.add_task("training", total=self.task.steps, completed=done)
            while done < self.task.steps:
                began = time.monotonic()
                count = min(length, self.task.steps - done)
                carry = jax.block_until_ready(advance(carry, count))
                loss = float(deep_linear.loss(carry[0], fit.inputs, fit.targets) + fit.unexplained)
                if not np.isfinite(loss):
                    raise Diverged(
                        f"training diverged: with --rate {self.rate:g} the loss overflows after step {done}. Choose a "
                        f"smaller --rate. {self.folder.path} keeps the run up to that step."
                    )
                done, seconds = done + count, seconds + time.monotonic() - began
                self._checkpoint(carry, done, seconds)
                bar.update(shown, completed=done, description=f"step {done}, loss {loss:.6g}")
        return carry[0], carry[1], done, seconds

    def _rate(self, fit: deep_linear.Fit) -> float:
        """Return the default learning rate.

        For adam it is 0.001. For sgd it is 1 / lambda_max of the Hessian at a balanced global minimum, half the largest
        rate at which gradient descent is stable there.
        """
        if self.task.optimizer == "adam":
            return 1e-3
        k = min(self.task.widths)
        U = fit.directions[:, :k]
        balanced = deep_linear.factors(fit.map @ U @ U.T, self.task.widths)
        return 1.0 / max(float(jax.jit(lowest)(balanced, fit, jax.random.key(0)).scale), 1e-30)

    def _start(self, dtype: Any) -> list[Any]:
        keys = jax.random.split(jax.random.key(self.task.seed), len(self.task.widths) - 1)
        shapes = pairwise(self.task.widths)
        return [
            self.task.init * jax.random.normal(k, s, dtype) / s[0] ** 0.5 for k, s in zip(keys, shapes, strict=True)
        ]

    def _checkpoint(self, carry: Any, done: int, seconds: float) -> None:
        leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(carry))}
        self.folder.save_checkpoint(leaves, {"done": done, "seconds": seconds})

    def _load(self, carry: Any) -> tuple[Any, int, float]:
        stored = self.folder.load_checkpoint()
        if stored is None:
            return carry, 0, 0.0
        tree = jax.tree.structure(carry)
        leaves = [jnp.asarray(stored.arrays[f"leaf{i}"]) for i in range(tree.num_leaves)]
        return jax.tree.unflatten(tree, leaves), stored.meta["done"], stored.meta["seconds"]

    def _result(
        self,
        weights: list[Any],
        seen: deep_linear.History,
        found: deep_linear.Classification,
        done: int,
        seconds: float,
    ) -> dict[str, Any]:
        key = jax.random.key(self.task.seed)
        down = deep_linear.escape(weights, self.task.X, self.task.Y, RADIUS, key)
        self.folder.write_arrays("weights.npz", {f"W{l + 1}": np.asarray(w) for l, w in enumerate(weights)})
        self.folder.write_arrays("history.npz", seen._asdict())
        return {
            **found.to_json(),
            "escape": _way_down(down, RADIUS),
            "rate": self.rate,
            "steps": done,
            "locked": self.folder.unlocked is None,
            "seconds": seconds,
            "configuration": self.task.configuration,
            "provenance": runs.provenance({"X": self.task.X, "Y": self.task.Y}, self.task.X.dtype),
        }

    def _picture(self, figure: Any) -> None:
        assert self.drawn is not None  # the work is done
        picture(*self.drawn, figure)


def picture(seen: deep_linear.History, found: deep_linear.Classification, figure: Any) -> None:
    """The loss, the gap and the singular values over time."""
    from globopt_jax import plotting

    s = np.asarray(found.singular_values)
    above = np.append(np.cumsum(np.square(s[: int(min(found.widths))])[::-1])[::-1], 0.0)
    figure.set_size_inches(14, 3.8)
    left, middle, right = figure.subplots(1, 3)
    _ = plotting.staircase(left, seen, float(found.optimum) + 0.5 * above)
    _ = plotting.certified_gap(middle, seen)
    _ = plotting.growth(right, seen, s)
