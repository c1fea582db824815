"""Train some networks of a sweep again, and return their weights."""

from typing import Any, NamedTuple

import numpy as np

from globopt_jax.sweeps import engines
from globopt_jax.sweeps.cells import Worker
from globopt_jax.sweeps.plan import AXES, Values, planned, seeds_of
from globopt_jax.sweeps.sweep import SGD

__all__ = ["Trained", "train"]


class Trained(NamedTuple):
    """The weights of networks that differ in the seed alone, before and after training.

    `initial` and `trained` are lists with an array for each layer, whose first axis is the seeds.
    """

    initial: list[np.ndarray]
    """A kernel (d_{l-1}, d_l) for each layer, with a leading axis for the seeds: (seeds, d_{l-1}, d_l). With r > 1
    subnetworks, an axis of length r follows the seeds."""
    trained: list[np.ndarray]
    """The same after the last epoch."""


def train(
    X: Any,
    Y: Any,
    *,
    depth: Values = 1,
    width: Values = 8,
    seeds: Values = 1,
    subnetworks: Values = 1,
    penalty: Values = "none",
    lam: Values = 0.0,
    rate: Values = 0.01,
    epochs: int = 40,
    batch: int = 64,
    optimizer: Any = SGD,
    loss: Any = "squared",
    activation: Any = "relu",
    initial: str = "fan_out",
) -> Trained:
    """Train some networks of a sweep again, and return their weights.

    A sweep keeps numbers and no weights. This function trains the networks of one depth, width, penalty and rate again,
    one for each seed, from the same initial weights and with the same orders of samples. The weights agree with those
    of the sweep up to rounding.
    Host function.

    Args:
        X: inputs (m, dx).
        Y: targets (m, dy).
        depth: the number H of hidden layers.
        width: the number of units of each hidden layer.
        seeds: the seeds; a single number n means the seeds 0 to n - 1.
        subnetworks: the number r of parallel subnetworks.
        penalty: "none", or "l1", "l2", "l3", ...
        lam: the strength of the penalty.
        rate: the learning rate.
        epochs: as in `sweep`.
        batch: as in `sweep`.
        optimizer: as in `sweep`.
        loss: as in `sweep`.
        activation: as in `sweep`.
        initial: as in `sweep`.

    Returns:
        A `Trained`.

    Raises:
        ValueError: as in `sweep`.
        TypeError: as in `sweep`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
        >>> [w.shape for w in train(X, Y, depth=2, width=3, seeds=[5, 7], epochs=0).trained]
        [(2, 3, 3), (2, 3, 3), (2, 3, 1)]
    """
    values = (depth, width, subnetworks, penalty, lam, rate, seeds_of(seeds))
    options = {
        "epochs": epochs,
        "batch": batch,
        "optimizer": optimizer,
        "loss": loss,
        "activation": activation,
        "initial": initial,
        "tangent": False,
        "snapshots": (),
    }
    plan = planned(X, Y, None, dict(zip(AXES, values, strict=True)), options)
    for name in plan.axes.keys() - plan.scalars - {"seed"}:
        raise ValueError(f"{name}: Expected: one value. Received: {len(plan.axes[name])} values.")
    with engines.precision(plan):
        worker = Worker(plan)
        stages: list[list[list[np.ndarray]]] = [[], []]
        for portion in plan.portions():
            weights = worker.initial(portion)
            stages[0] += worker.kernels(weights, portion)
            stages[1] += worker.kernels(worker.trained(weights, portion), portion)
    return Trained(*([np.stack(w) for w in zip(*stage, strict=True)] for stage in stages))
