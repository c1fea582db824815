"""Sweeps over shapes, seeds, learning rates and penalties."""

import functools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import optax

from globopt_jax.inputs import integer, number
from globopt_jax.sweeps import engines
from globopt_jax.sweeps.plan import AXES, Plan, Row, Values, is_one, planned, seeds_of
from globopt_jax.sweeps.store import Store, dataset

if TYPE_CHECKING:
    import xarray

__all__ = ["SGD", "Progress", "landscape", "run", "sweep"]

#: The optimizer of KHK19 for images.
SGD = functools.partial(optax.sgd, momentum=0.5)


class Progress(NamedTuple):
    """How far a sweep is, after a portion of its cells was stored.

    `done` of `total` cells are finished; the sweep has taken `seconds`, and the other cells will take about `left`
    seconds. `latest` has the cells that were finished last.
    """

    done: int
    """The number of finished cells; each seed is a cell."""
    total: int
    """The number of all cells."""
    seconds: float
    """The seconds since the sweep began or was resumed."""
    left: float
    """An estimate of the seconds that the other cells will take."""
    latest: Sequence[Row]
    """The cells that were finished last, with their coordinates and numbers."""


def sweep(
    X: Any,
    Y: Any,
    *,
    depths: Values = 1,
    widths: Values = 8,
    seeds: Values = 1,
    subnetworks: Values = 1,
    penalties: Values = "none",
    lams: Values = 0.0,
    rates: Values = 0.01,
    epochs: int = 40,
    batch: int = 64,
    optimizer: Any = SGD,
    loss: Any = "squared",
    activation: Any = "relu",
    initial: str = "fan_out",
    tangent: bool = True,
    snapshots: int | Iterable[int] = (),
    test: Any = None,
    store: str | os.PathLike[str] | None = None,
    client: Any = None,
    progress: Any = None,
) -> "xarray.Dataset":
    """Train networks of many shapes, and measure each of them before and after training.

    A network is a sum of r subnetworks, and each of them is a fully connected network with H hidden layers of one
    width, no biases, and a linear last layer. A cell of the sweep is one network: a depth, a width, a number of
    subnetworks, a penalty with its strength, a learning rate, and a seed. Training minimizes the mean of the loss over
    the samples of a batch plus ``lam sum |w|^p`` over all weights. The result holds the loss without the penalty,
    summed over all samples.

    Initial weights and the order of the samples depend on the seed and on the shape of the network, and on no other
    cell: NumPy draws them. Networks of several shapes share compiled programs: widths are padded with zeros, and the
    depth is a number in the program. Padding changes no number beyond rounding. On CPUs the cells that differ in the
    seed alone are trained in one call if their weights fit into the caches, and each core has a call of its own. On
    accelerators all cells whose arrays have one shape are trained in one call. Training runs in the dtype of X, and in
    float32 if x64 is off. J and the rank are computed in float64, since float32 does not resolve the tangent spaces of
    deep networks.

    With a `store`, finished cells are in a file as soon as they are done. The same call resumes an interrupted sweep,
    and a call with more values on its axes computes those that are missing. Host function.

    Args:
        X: inputs (m, dx).
        Y: targets (m, dy).
        depths: the numbers H of hidden layers, at least 0, or at least 1 with several subnetworks. A list is a
            dimension of the result, and a single value is none. This holds for each axis but the seeds, which are
            always a dimension.
        widths: the numbers of units of each hidden layer.
        seeds: the seeds, integers from 0 to 2^32 - 1. A single number n means the seeds 0 to n - 1.
        subnetworks: the numbers r of parallel subnetworks.
        penalties: "none", or "l1", "l2", "l3", ... for p = 1, 2, 3, ... up to 99.
        lams: the strengths of the penalty, one of them above 0. They do nothing where the penalty is "none".
        rates: the learning rates.
        epochs: the number of passes over the samples; 0 measures the initial weights alone.
        batch: the number of samples of a step. The last step of an epoch takes the samples that are left, and each of
            them counts 1/batch as all others do.
        optimizer: a function from a learning rate to an optax optimizer, with options bound by `functools.partial`.
            Its updates must not depend on the size of a layer if several shapes share a program.
        loss: the name of a loss, or an object of `losses.Loss`.
        activation: as in `networks.feed_forward`, with the value 0 and a finite slope at 0.
        initial: the standard deviation of the initial weights of a layer: "fan_out" is 1/sqrt(d_out), as in KHK19,
            "fan_in" 1/sqrt(d_in), "he" sqrt(2/d_in), "glorot" sqrt(2/(d_in + d_out)).
        tangent: whether J and the rank are computed.
        snapshots: numbers of epochs, or one, from 1 to ``epochs - 1``, after which the networks are measured, too.
        test: a pair of inputs and targets that are measured and not trained on.
        store: the file of the store; None keeps the cells in memory only.
        client: a `dask.distributed.Client`, whose workers then do the work. None does it in this process.
        progress: a function that is called with a `Progress` after each portion of cells.

    Returns:
        An `xarray.Dataset`. Its dimensions are those axes that were given as lists, in the order depth, width,
        subnetworks, penalty, lam, rate, then seed, and then stage: "initial", "epoch 5" for a snapshot, "trained". Its
        variables are J, rank, loss, accuracy (for one-hot targets), test_loss, test_accuracy, sure, and seconds. The
        seconds are a network's share of the time that its process worked. A network whose weights or outputs are no
        longer finite has NaN for J, and -1 for the rank.

    Raises:
        ValueError: an argument is out of range, an axis is empty or holds a value twice, or the store belongs to other
            settings, to another version of the package, or to another program.
        TypeError: an argument is of another kind.
        StoreInUse: another process writes the store.
        OSError: the store cannot be written; finished cells in it are safe.
        RuntimeError: the cluster has gone; finished cells are in the store.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
        >>> found = sweep(X, Y, depths=[1, 2], widths=[2, 3], rates=[0.1, 0.01], epochs=2, batch=8)
        >>> dict(found.sizes)
        {'depth': 2, 'width': 2, 'rate': 2, 'seed': 1, 'stage': 2}
        >>> bool((found.J <= found.loss).all())  # J is the distance to the tangent space, which holds the prediction
        True
    """
    axes = {
        "depth": depths,
        "width": widths,
        "subnetworks": subnetworks,
        "penalty": penalties,
        "lam": lams,
        "rate": rates,
        "seed": seeds_of(seeds),
    }
    options = {
        "epochs": epochs,
        "batch": batch,
        "optimizer": optimizer,
        "loss": loss,
        "activation": activation,
        "initial": initial,
        "tangent": tangent,
        "snapshots": snapshots,
    }
    plan = planned(X, Y, test, axes, options)
    if client is not None:
        engines.check_client(client)
    if not (progress is None or callable(progress)):
        raise TypeError(f"progress: Expected: a function of a Progress. Received: {progress!r}.")
    return run(plan, store, client, progress)


def landscape(
    X: Any,
    Y: Any,
    *,
    depths: Values = (1, 2, 3, 4, 5),
    widths: Values = (4, 8, 16, 32),
    seeds: Values = 3,
    epochs: int = 40,
    batch: int = 64,
    rate: Values = 0.01,
    momentum: float = 0.5,
    store: str | os.PathLike[str] | None = None,
    client: Any = None,
    progress: Any = None,
) -> "xarray.Dataset":
    """Compute J over depth and width before and after training, as in Figure 1 of KHK19.

    The networks are fully connected ReLU networks without biases, trained on the squared loss by stochastic gradient
    descent with momentum. The initial weights of layer l have the standard deviation ``1/sqrt(d_l)``. The defaults are
    those of the paper for images; its synthetic data have a batch of 200 and a momentum of 0.9. This function is
    `sweep` with these settings, and its documentation describes store, client and progress.

    Args:
        X: inputs (m, dx).
        Y: targets (m, dy).
        depths: the numbers H of hidden layers, at least 1.
        widths: the numbers of units of each hidden layer.
        seeds: the seeds; a single number n means the seeds 0 to n - 1.
        epochs: the number of passes over the samples.
        batch: the number of samples of a step.
        rate: the learning rate.
        momentum: the momentum coefficient.
        store: the file of the store; None keeps the cells in memory only.
        client: a `dask.distributed.Client`; None computes in this process.
        progress: a function that is called with a `Progress` after each portion of cells.

    Returns:
        An `xarray.Dataset` with the dimensions depth, width, seed and stage (initial, trained), and with the variables
        J, loss, rank and others, see `sweep`.

    Raises:
        ValueError: as for `sweep`; a depth is below 1; a momentum is negative, or 1 or more.
        TypeError, StoreInUse, OSError, RuntimeError: as for `sweep`.

    Example:
        >>> from globopt_jax import datasets
        >>> X, Y, _ = datasets.load("digits")
        >>> found = landscape(X[:50, ::4], Y[:50], depths=[1], widths=[2, 4], seeds=1, epochs=1)
        >>> found.J.dims
        ('depth', 'width', 'seed', 'stage')
        >>> initial = found.J.sel(stage="initial", depth=1, seed=0)
        >>> bool(initial.sel(width=4) < initial.sel(width=2))
        True
    """
    momentum = number("momentum", momentum, "a number from 0 to 1, without 1", lambda v: 0 <= v < 1)
    depths, widths = ([given] if is_one(given) else list(given) for given in (depths, widths))
    for depth in depths:
        _ = integer("depths", depth)
    return sweep(
        X,
        Y,
        depths=depths,
        widths=widths,
        seeds=seeds,
        rates=rate,
        epochs=epochs,
        batch=batch,
        optimizer=functools.partial(optax.sgd, momentum=momentum),
        store=store,
        client=client,
        progress=progress,
    )


def run(plan: Plan, path: Any, client: Any, progress: Callable[[Progress], object] | None) -> "xarray.Dataset":
    """Do what is left of a plan, and return all of its cells."""
    if path is None:
        rows = _worked(plan, [], client, progress, None)
    else:
        with Store(path) as store:
            store.claim(plan.identity)
            rows = _worked(plan, store.rows(), client, progress, store)
    return dataset(rows, plan.axes, plan.scalars, plan.identity)


def _worked(
    plan: Plan,
    rows: list[Row],
    client: Any,
    progress: Callable[[Progress], object] | None,
    store: Store | None,
) -> list[Row]:
    """Do the portions that are left, storing each one before the next is reported."""
    rows = [*rows]
    wanted = {(*cell, seed) for cell in plan.cells for seed in plan.axes["seed"]}
    finished = {place for row in rows if (place := tuple(row[name] for name in AXES)) in wanted}
    portions = plan.portions(finished)
    costs = {portion: plan.cost(portion) for portion in portions}
    total = sum(costs.values())
    began, spent, done = time.monotonic(), 0.0, len(finished)
    results = engines.here(plan, portions) if client is None else engines.on_cluster(plan, portions, client)
    for portion, found in results:
        if store is not None:
            store.write(found)
        rows.extend(found)
        done, spent = done + len(found), spent + costs[portion]
        if progress is not None:
            seconds = time.monotonic() - began
            left = seconds * (total / spent - 1)
            _ = progress(Progress(done, len(wanted), seconds, left, tuple(found)))
    return rows
