"""The tasks of `solve` and `certify`: data, problem, weights and configuration, all checked before any work."""

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from globopt_jax import datasets, homogeneous, losses, npz, runs
from globopt_jax.cli import layouts
from globopt_jax.cli.terminal import check_memory
from globopt_jax.homogeneous import maps, regularizers
from globopt_jax.homogeneous.effort import EFFORTS
from globopt_jax.homogeneous.inputs import check, targets_moved
from globopt_jax.homogeneous.norms import NORMS
from globopt_jax.inputs import one_of
from globopt_jax.losses import Loss
from globopt_jax.shapes import Array, Inputs, Params, Targets

__all__ = [
    "Options",
    "Task",
    "Training",
    "check_numbers",
    "data_named",
    "grading",
    "in_dtype",
    "integers",
    "is_float64",
]
__all__ += ["training"]


class Options(NamedTuple):
    """The options that `solve` and `certify` share, as they were typed."""

    data: str
    """The name of a data set, or the path of an .npz."""
    map: str = "relu"
    """The map of a subnetwork: an activation, or activation:layers."""
    widths: str = ""
    """The hidden widths of a deep subnetwork as a list such as 4,4."""
    regularizer: str = "sum_of_powers"
    """The penalty of a subnetwork."""
    norms: str = "l2"
    """The norm of each layer in the penalty, or a list of norms."""
    loss: str = "squared"
    """The loss."""
    lam: float | None = None
    """The strength of the regularizer; None if it is given as a fraction."""
    lam_fraction: float | None = None
    """The strength as a fraction of lam_max; None if it is given itself."""
    seed: int = 0
    """The seed of the initial weights and of the searches."""
    dtype: str = "float64"
    """float64 or float32."""
    effort: str = "standard"
    """The effort of the searches and of the bound."""


class Training(NamedTuple):
    """The options that only `solve` has."""

    width: int
    """The number of subnetworks at the start."""
    optimizer: str
    """lbfgs, adam or sgd."""
    rate: float | None
    """The learning rate; None is the default of the optimizer."""


class Task(NamedTuple):
    """A task whose options were checked. Nothing has been computed or written yet."""

    command: str
    """solve or certify."""
    configuration: dict[str, Any]
    """The options and the hash of the data, to which the run folder belongs."""
    dtype: str
    """float64 or float32."""
    phi: homogeneous.ElementalMap
    """The map of a subnetwork."""
    theta: homogeneous.Regularizer
    """The penalty of a subnetwork."""
    loss: Loss
    """The loss."""
    params: Params
    """The subnetworks at the start, or the subnetworks to grade."""
    X: Inputs
    """Inputs (m, dx)."""
    Y: Targets
    """Targets (m, dy)."""
    targets_moved: float
    """The largest change of a target that completed rows to sums of exactly 1 (softmax cross-entropy)."""
    optimizer: optax.GradientTransformation | None
    """The optimizer of training; None is L-BFGS."""
    read: str | None = None
    """A sentence on how the weights file was read; None without a weights file."""

    def problem(self, lam: float) -> homogeneous.Problem:
        """Return the problem with the given strength of the regularizer."""
        return homogeneous.Problem(self.phi, self.theta, self.loss, lam)

    def key(self, purpose: int) -> Array:
        """Return the random key of a purpose: 0 initial weights, 1 lam_max, 2 training, 3 the certificate."""
        return jax.random.fold_in(jax.random.key(self.configuration["seed"]), purpose)

    def x64(self) -> Any:
        """Return the context in which everything is computed: x64 is on for float64 and off for float32."""
        return jax.enable_x64(self.dtype == "float64")


def training(options: Options, start: Training) -> Task:
    """Return the task of `solve`, with its data and initial weights.

    Args:
        options: the options that `solve` and `certify` share.
        start: the options that only `solve` has.

    Raises:
        ValueError: an option or the data are wrong, or the network does not fit into memory.
        OSError: a file cannot be read.
    """
    check_numbers(seed=options.seed, width=start.width)
    with jax.enable_x64(is_float64(options.dtype)):
        X, Y = data_named(options.data)
        phi = maps.by_name(options.map, "--map")
        widths = integers("--widths", options.widths)
        if widths and not isinstance(phi, maps.DeepSubnetwork):
            raise ValueError(
                "--widths needs a deep map such as relu:3. "
                f"Received: --widths {options.widths} with --map {options.map}."
            )
        hidden = widths or (1,) * (phi.layers - 1)
        if len(hidden) == phi.layers - 1:  # otherwise phi.init raises an error that names both numbers
            sizes = (X.shape[1], *hidden, Y.shape[1])
            # Weights, gradient, next weights, and for L-BFGS twenty pairs of steps and gradient changes. Each hidden
            # unit also has a value and a derivative for each sample.
            copies = 43 if start.optimizer == "lbfgs" else 3
            numbers = start.width * (copies * sum(a * b for a, b in pairwise(sizes)) + 2 * len(X) * sum(hidden))
            given = f"{start.width}" + f" and --widths {options.widths}" * bool(widths)
            check_memory("--width", given, numbers * np.dtype(options.dtype).itemsize)
        key = jax.random.fold_in(jax.random.key(options.seed), 0)
        params = phi.init(key, r=start.width, dx=X.shape[1], dy=Y.shape[1], widths=widths)
        extra = {"widths": list(widths), **start._asdict()}
        return _checked("solve", options, phi, params, X, Y, _optimizer(start), extra)


def grading(options: Options, weights: Path, layout: str | None = None) -> Task:
    """Return the task of `certify`, with its data and the weights to grade.

    Args:
        options: the options that `solve` and `certify` share.
        weights: the file of the weights.
        layout: the value of `--layout`, which two matrices need if their shapes fit both layouts.

    Raises:
        ValueError: an option, the data or the weights are wrong.
        OSError: a file cannot be read.
    """
    check_numbers(seed=options.seed)
    with jax.enable_x64(is_float64(options.dtype)):
        X, Y = data_named(options.data)
        stored = npz.read_arrays(weights)
        params, ones, how = layouts.subnetworks(stored, (X.shape[1], Y.shape[1]), layout)
        if ones:
            X = np.concatenate([X, np.ones((len(X), 1))], axis=1)
        phi = maps.by_name(options.map, "--map")
        depth = len(params)
        if isinstance(params, list) and ":" not in options.map:
            phi = homogeneous.deep_subnetwork(phi.slopes, layers=depth)
        if phi.layers != depth:
            raise ValueError(
                f"{weights}: Expected: {phi.layers} weight layers for --map {options.map}. Received: {depth}."
            )
        extra = {"weights": runs.hash_arrays({f"W{k + 1}": np.asarray(w) for k, w in enumerate(params)})}
        return _checked("certify", options, phi, params, X, Y, None, extra)._replace(read=f"{weights}: {how}")


def _checked(
    command: str,
    options: Options,
    phi: maps.PiecewiseLinear,
    params: Params,
    X: np.ndarray,
    Y: np.ndarray,
    optimizer: optax.GradientTransformation | None,
    extra: dict[str, Any],
) -> Task:
    """Return the task, or raise ValueError or TypeError unless everything in it fits together."""
    theta = _regularizer(options, phi.layers)
    loss = losses.by_name(options.loss, "--loss")
    _ = one_of("--effort", options.effort, EFFORTS)
    if (options.lam is None) == (options.lam_fraction is None):
        raise ValueError(
            f"Expected: either --lam or --lam-fraction. Received: {'neither' if options.lam is None else 'both'}."
        )
    for name, value in (("--lam", options.lam), ("--lam-fraction", options.lam_fraction)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: Expected: finite and > 0. Received: {value}.")
    dtype = np.dtype(options.dtype)
    params = jax.tree.map(lambda w: in_dtype("weights", w, dtype), params)
    X, Y = in_dtype("X", X, dtype), in_dtype("Y", Y, dtype)
    problem = homogeneous.Problem(phi, theta, loss, 1.0 if options.lam is None else options.lam)
    params, X_checked, Y_checked = check(problem, params, X, Y)
    moved = targets_moved(Y, Y_checked)
    slope = loss.gradient(jnp.zeros_like(Y_checked), Y_checked)
    if options.lam is None and not (np.any(slope) and np.any(X)):
        raise ValueError(
            "--lam-fraction cannot be used with these data, for which lam_max is 0: no network fits them better than "
            "zero weights. Give --lam instead."
        )
    given = options._asdict()
    known = options.data in datasets.names()
    configuration = {
        "command": command,
        **{name: value for name, value in given.items() if name != "widths"},
        "data": options.data if known else Path(options.data).name,
        "data_sha256": runs.hash_arrays({"X": X, "Y": Y}),
        **extra,
    }
    return Task(command, configuration, options.dtype, phi, theta, loss, params, X_checked, Y_checked, moved, optimizer)


def check_numbers(**numbers: int) -> None:
    """Raise ValueError unless the integer options are in range: a seed is at least 0, other numbers at least 1."""
    for name, number in numbers.items():
        low, bits = (0, 63) if name == "seed" else (1, 31 if name == "steps" else 63)  # optax counts steps in int32
        if not low <= number < 2**bits:
            raise ValueError(f"--{name}: Expected: an integer from {low} to 2^{bits} - 1. Received: {number}.")


def is_float64(dtype: str) -> bool:
    """Return whether `--dtype` is float64; raise ValueError unless it is float64 or float32."""
    if dtype not in ("float32", "float64"):
        raise ValueError(f"--dtype: Expected: float64 or float32. Received: {dtype!r}.")
    return dtype == "float64"


def in_dtype(name: str, array: Any, dtype: Any) -> np.ndarray:
    """Return the array in the given dtype, or raise an error if that dtype cannot hold all its entries."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: Expected: real numbers. Received: dtype {array.dtype}.")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if np.all(np.isfinite(array)) and not np.all(np.isfinite(cast)):
        raise ValueError(f"{name}: Expected: numbers that {dtype} can hold. Received: larger numbers.")
    return cast


def data_named(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return X and Y of a data set or of an .npz.

    Raises:
        ValueError: `--data` is neither, or the arrays are refused.
        OSError: the file cannot be read.
    """
    if name.endswith(".npz"):
        found = datasets.load_npz(name)
    else:
        found = datasets.load(one_of("--data", name, datasets.names(), ", or an .npz with X and Y"))
    return found.X, found.Y


def _regularizer(options: Options, layers: int) -> homogeneous.Regularizer:
    norms = tuple(one_of("--norms", norm, NORMS) for norm in options.norms.split(","))
    if len(norms) not in (1, layers):
        message = f"--norms: Expected: one norm, or one for each of {layers} layers. Received: {len(norms)} norms."
        raise ValueError(message)
    return regularizers.by_name(options.regularizer, norms[0] if len(norms) == 1 else norms, "--regularizer")


def _optimizer(start: Training) -> optax.GradientTransformation | None:
    name, rate = start.optimizer, start.rate
    if name not in ("lbfgs", "adam", "sgd"):
        raise ValueError(f"--optimizer: Expected: lbfgs, adam or sgd. Received: {name!r}.")
    if rate is not None and not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"--rate: Expected: finite and > 0. Received: {rate}.")
    if name == "lbfgs":
        if rate is not None:
            raise ValueError("--rate cannot be combined with lbfgs, which chooses its own step sizes.")
        return None
    if name == "adam":
        return optax.adam(0.01 if rate is None else rate)
    if rate is None:
        raise ValueError("--optimizer sgd needs a learning rate: give --rate.")
    return optax.sgd(rate)


def integers(name: str, text: str) -> tuple[int, ...]:
    """Return the integers of a list such as `4,4`.

    Args:
        name: the name of the option, for the message.
        text: the list; an empty text is an empty list.

    Raises:
        ValueError: the text is no list of non-negative integers.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{name}: Expected: integers such as 4,8. Received: {text!r}.")
    return tuple(int(part) for part in parts)
