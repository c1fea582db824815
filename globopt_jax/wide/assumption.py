"""Assumption 3.2 of NH17, part by part."""

from typing import Any, NamedTuple

import numpy as np

from globopt_jax import linalg, results
from globopt_jax.inputs import finite
from globopt_jax.shapes import Array
from globopt_jax.wide.catalogue import FAILURES, activation_entry, loss_entry

__all__ = ["Assumption", "assumption"]

#: The number of samples whose distances to all others are computed at a time.
_CHUNK = 1024


class Assumption(NamedTuple):
    """Which parts of Assumption 3.2 hold; `.reason` names those that fail."""

    distance: Array
    """The smallest distance of two samples, divided by the largest norm of a sample; inf for one sample."""
    tolerance: Array
    """The distance up to which two samples count as equal: sqrt(eps) of the dtype."""
    activation_code: Array
    """The index in `FAILURES` of what the activation lacks; 0 if it lacks nothing."""
    loss_code: Array
    """The index in `FAILURES` of what the loss lacks; 0 if it lacks nothing."""
    sampled: Array
    """(2,): bool, whether the answers on activation and loss are from samples of them, which is evidence, no proof."""

    @property
    def distinct(self) -> bool:
        """Part 1: all samples are different."""
        return bool(self.distance > self.tolerance)

    @property
    def holds(self) -> bool:
        """Whether all parts hold."""
        return self.distinct and not int(self.activation_code) and not int(self.loss_code)

    @property
    def reason(self) -> str:
        """The parts that fail, in sentences."""
        said = []
        if not self.distinct:
            said.append("Part 1 fails: two samples are equal to rounding.")
        for part, name, code in ((2, "activation", self.activation_code), (3, "loss", self.loss_code)):
            if int(code):
                said.append(f"Part {part} fails for the {name}: {FAILURES[int(code)]}.")
        if not said:
            said.append("All parts of Assumption 3.2 hold.")
        for name, sampled in zip(("activation", "loss"), self.sampled, strict=True):
            if sampled:
                said.append(f"The answer on the {name} is from samples of the function, which is no proof.")
        return " ".join(said)

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def assumption(X: Any, activation: Any = "tanh", loss: Any = "squared") -> Assumption:
    """Check Assumption 3.2 of NH17 on data, activation and loss.

    The parts are: (1) the samples are distinct; (2) the activation is real analytic with a positive derivative
    everywhere, and it is bounded, or at most ``r1 exp(r2 t)`` for t < 0 and ``r3 t + r4`` for t >= 0 in absolute value;
    (3) the loss of one residual is twice continuously differentiable, and its derivative is zero only at its minimum.

    Host function.

    Args:
        X: inputs (N, dx).
        activation: a name of `ACTIVATIONS`, or an activation of your own in `smooth`.
        loss: a name of `LOSSES`, or a function of one residual.

    Returns:
        An `Assumption`.

    Raises:
        ValueError: a name is unknown, X is no matrix of finite numbers, or an activation of your own comes without
            `smooth`.
        TypeError: X does not hold real numbers.

    Example:
        >>> print(assumption(np.eye(3), "elu"))
        Part 2 fails for the activation: it is not analytic at 0.
    """
    X = finite("X", X)
    if X.ndim != 2 or not X.size:
        raise ValueError(f"X: Expected: shape (N, dx). Received: {X.shape}.")
    entries = activation_entry(activation), loss_entry(loss)
    dtype = X.dtype if X.dtype.kind == "f" else np.dtype(np.float64)
    codes = [np.asarray(FAILURES.index(entry.fails), np.int32) for entry in entries]
    return Assumption(
        distance=np.asarray(_distance(X.astype(np.float64))),
        tolerance=np.asarray(linalg.decision_tolerance(dtype)),
        activation_code=codes[0],
        loss_code=codes[1],
        sampled=np.asarray([entry.sampled for entry in entries]),
    )


def _distance(X: np.ndarray) -> float:
    """Return the smallest distance of two rows over the largest norm of a row."""
    X = X / max(float(np.max(np.abs(X))), np.finfo(np.float64).tiny)
    squares = np.sum(X * X, axis=1)
    smallest = np.inf
    for begin in range(0, len(X), _CHUNK):
        part = X[begin : begin + _CHUNK]
        distances = squares[begin : begin + _CHUNK, None] + squares[None] - 2 * part @ X.T
        distances[np.arange(len(part)), begin + np.arange(len(part))] = np.inf
        # The formula cancels, so the nearest neighbour of each row is measured again.
        nearest = np.argmin(distances, axis=1)
        if len(X) > 1:
            smallest = min(smallest, float(np.min(np.linalg.norm(part - X[nearest], axis=1))))
    return smallest / max(float(np.sqrt(np.max(squares))), np.finfo(np.float64).tiny)
