"""Samples that are no samples pad a data set to few sizes, so that one sample more or less compiles nothing.

A padding row has inputs of zeros, and targets of NaN, by which `Padded` knows it: it has no loss and no gradient.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from globopt_jax.homogeneous.problem import Problem
from globopt_jax.losses import Loss, is_catalogued
from globopt_jax.shapes import Array, Inputs, Scalar, Targets

__all__ = ["Padded", "pad_rows", "pad_samples"]

#: The largest data set that is padded. With more samples the work takes longer than the compiler.
MOST = 4096


def pad_samples(problem: Problem, X: Inputs, Y: Targets) -> tuple[Problem, Array, Array]:
    """Return the problem and its data with padding rows: up to a multiple of 8, and at most m/16 rows from m = 128 on.

    All is returned as it came if m exceeds `MOST`, if the map is your own (it may have no value at inputs of zeros), or
    if the loss is (it may be no sum over samples).

    >>> from globopt_jax import homogeneous, losses
    >>> p = homogeneous.Problem("relu", "sum_of_powers", "squared", 1.0)
    >>> padded, X, Y = pad_samples(p, jnp.ones((6, 2)), jnp.ones((6, 1)))
    >>> X.shape, Y[:, 0].tolist()
    ((8, 2), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, nan, nan])
    >>> float(padded.loss(jnp.full((8, 1), 3.0), Y))  # of 6 samples
    12.0
    """
    loss, m = problem.loss, len(X)
    loss = loss.loss if isinstance(loss, Padded) else loss
    if m > MOST or not problem.phi.is_known or not is_catalogued(loss):
        return problem, X, Y
    step = max(8, 1 << max((m - 1).bit_length() - 5, 0))
    size = -(-m // step) * step
    padded = Problem(problem.phi, problem.theta, Padded(loss), problem.lam)
    return padded, pad_rows(X, size, 0.0), pad_rows(Y, size, np.nan)


def pad_rows(rows: Any, size: int, value: float = 0.0) -> jax.Array:
    """The rows, followed by rows of one value up to the size."""
    host = np.asarray(rows)  # in NumPy, since JAX would compile for every m
    return jax.device_put(np.pad(host, [(0, size - len(host)), (0, 0)], constant_values=value))


@dataclass(frozen=True)
class Padded(Loss):
    """A loss whose targets may have padding rows: rows of NaN, where the prediction and the dual point play no part."""

    loss: Loss
    """The loss of the other rows."""

    @property
    def name(self) -> str:
        return self.loss.name

    def _rows(self, Z: Targets | None, U: Targets | None, Y: Targets) -> tuple[Any, Any, jax.Array]:
        """Predictions, dual point and targets with rows in the padding at which loss, gradient and conjugate are 0."""
        settled = self.loss.settled(Y.shape[1])
        assert settled is not None  # `pad_samples` pads for no other loss
        padding = jnp.isnan(Y)
        z, y = (jnp.asarray(row, Y.dtype)[None] for row in settled)
        Z = None if Z is None else jnp.where(padding, z, Z)
        U = None if U is None else jnp.where(padding, 0, U)
        return Z, U, jnp.where(padding, y, Y)

    def __call__(self, Yhat: Targets, Y: Targets) -> Scalar:
        Z, _, Y = self._rows(Yhat, None, Y)
        return self.loss(Z, Y)

    def gradient(self, Yhat: Targets, Y: Targets) -> Float[Array, "m dy"]:
        _, _, real = self._rows(None, None, Y)
        return jnp.where(jnp.isnan(Y), 0, self.loss.gradient(Yhat, real))

    def conjugate(self, U: Targets, Y: Targets) -> Scalar:
        _, U, Y = self._rows(None, U, Y)
        return self.loss.conjugate(U, Y)

    def dual_limit(self, U: Targets, Y: Targets) -> Scalar:
        _, U, Y = self._rows(None, U, Y)
        return self.loss.dual_limit(U, Y)

    def dual_point(self, free: Targets, Y: Targets) -> Float[Array, "m dy"]:
        _, _, real = self._rows(None, None, Y)
        return jnp.where(jnp.isnan(Y), 0, self.loss.dual_point(free, real))

    def dual_coordinates(self, U: Targets, Y: Targets) -> Float[Array, "m dy"]:
        _, U, Y = self._rows(None, U, Y)
        return self.loss.dual_coordinates(U, Y)

    def settled(self, dy: int) -> tuple[np.ndarray, np.ndarray] | None:
        return self.loss.settled(dy)

    def best_scale(self, U: Targets, Y: Targets, upper: Scalar) -> Scalar:
        _, U, Y = self._rows(None, U, Y)
        return self.loss.best_scale(U, Y, upper)

    def exact_targets(self, Y: np.ndarray) -> np.ndarray:
        return self.loss.exact_targets(Y)

    def into_domain(self, V: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return self.loss.into_domain(V, Y)
