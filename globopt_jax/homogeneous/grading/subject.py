"""The weights to be graded, with all numbers about them that stay the same in every stage of the work."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from globopt_jax import rigorous
from globopt_jax.homogeneous.capacity import alive, pad_to_power_of_two
from globopt_jax.homogeneous.cones import NonNegative
from globopt_jax.homogeneous.effort import Effort
from globopt_jax.homogeneous.maps import PiecewiseLinear
from globopt_jax.homogeneous.polar import PolarBound, bound_of, relaxation
from globopt_jax.homogeneous.problem import Problem, objective, predict
from globopt_jax.homogeneous.regularizers import Layered
from globopt_jax.homogeneous.samples import pad_rows, pad_samples
from globopt_jax.homogeneous.span import spanned
from globopt_jax.homogeneous.tensors import CPTensor
from globopt_jax.shapes import Array, Inputs, Params, Targets

__all__ = ["Subject", "describe", "subject"]


@dataclass(frozen=True)
class Subject:
    """A problem and weights for it: in JAX for searches, in NumPy float64 for proofs."""

    problem: Problem
    """The problem: map, regularizer, loss and lam."""
    params: Params
    """The weights, padded with zero subnetworks."""
    X: Inputs
    """The inputs, padded (`pad_samples`)."""
    Y: Targets
    """The targets, padded."""
    X64: np.ndarray
    """The inputs (m, dx) without padding, in float64."""
    Y64: np.ndarray
    """The targets (m, dy) without padding, in float64."""
    key: Array
    """The random key of the searches."""
    effort: Effort
    """The effort of searches and fits."""
    description: dict[str, Any]
    """The problem in plain values, as `rigorous` takes it."""
    bound: PolarBound
    """The kind of upper bound of the polar."""
    weights: list[np.ndarray]
    """The weights without padding, in float64."""
    G: np.ndarray
    """The loss's gradient in the prediction (m, dy) without padding, in float64."""
    objective: float
    """The objective of the weights."""
    error: float
    """A bound of the objective's rounding error."""
    minimum: float
    """The lower bound that the loss alone proves; -inf where it proves none."""
    trivial: float
    """The lower bound that the loss alone proves, with the larger margin of a claim; -inf where it proves none."""
    targets_moved: float
    """The largest change of an entry of Y that made rows sum to 1 exactly."""

    @cached_property
    def residual(self) -> Array:
        """G in the dtype of the data, padded with zeros."""
        return self.padded(self.G)

    @cached_property
    def inputs(self) -> Inputs:
        """The inputs for the relaxation, which needs only their inner products: in the samples' span if dx is large."""
        span = spanned(self.X)
        return self.X if span is None else span.X

    @cached_property
    def groups(self) -> Array:
        """The groups of samples for the relaxation's cut columns, one-hot; padding is in no group."""
        return self.padded(relaxation.groups_of(self.X64, self.effort.groups))

    def padded(self, rows: np.ndarray) -> Array:
        """A row for each sample in the dtype of the data, padded with zeros."""
        return pad_rows(rows.astype(self.Y.dtype), len(self.Y))

    @property
    def width(self) -> int:
        """The number of given subnetworks."""
        return len(self.weights[0])

    @property
    def zero_subnetworks(self) -> int:
        """The number of given subnetworks that are all zero."""
        return self.width - int(np.sum(alive(self.params)))


def subject(
    problem: Problem, params: Params, X: Inputs, Y: Targets, key: Array, effort: Effort, targets_moved: float = 0.0
) -> Subject:
    """Return a `Subject` for checked arrays, with objective, gradient and trivial bound evaluated."""
    description = describe(problem, params, X.shape[1])
    bound = bound_of(problem, X.shape[1])
    X64, Y64 = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    weights = [np.asarray(w, np.float64) for w in jax.tree.leaves(params)]
    # Zero subnetworks and rows without loss leave the objective unchanged, and few shapes are compiled.
    padded = pad_to_power_of_two(params)
    problem, X, Y = pad_samples(problem, X, Y)
    if bound.exists:
        value, error = rigorous.objective(description, weights, X64, Y64)
        # Where large subnetworks cancel, what is known is an upper bound.
        if error > rigorous.PRECISION * abs(value) + rigorous.UNDERFLOW:
            value += 2 * error  # twice, for computers whose sums are rounded otherwise
        # The gradient is computed in float64, so that the dtype of the weights does not round it.
        Z, _ = rigorous.predict(weights, X64, tuple(description["slopes"]))
        G, _ = rigorous.gradient(description["loss"], Z, Y64)
    else:
        value, error = float(objective(problem, params, X, Y)), 0.0
        G = np.asarray(_gradient(problem, padded, X, Y), np.float64)[: len(Y64)]
    values = (rigorous.dual_value(description["loss"], np.zeros_like(Y64), Y64, caution) for caution in (1, 2))
    minimum, trivial = (least if moved == 0 else -np.inf for least, moved in values)
    if value + error < trivial:  # a user's own penalty was negative after all
        minimum = trivial = -np.inf
    return Subject(
        problem,
        padded,
        X,
        Y,
        X64,
        Y64,
        key,
        effort,
        description,
        bound,
        weights,
        G,
        value,
        error,
        minimum,
        trivial,
        targets_moved,
    )


@jax.jit
def _gradient(problem: Problem, params: Params, X: Inputs, Y: Targets) -> Array:
    """Return the loss's gradient in the prediction."""
    return problem.loss.gradient(predict(problem, params, X), Y)


def describe(problem: Problem, params: Params, dx: int) -> dict[str, Any]:
    """Return the problem in plain values, as `rigorous` takes it and a stored certificate holds it."""
    leaves, phi, theta = jax.tree.leaves(params), problem.phi, problem.theta
    # In the cone both penalties are the same, and a lower bound without the cone is one with it.
    theta = theta.theta if isinstance(theta, NonNegative) else theta
    plain: dict[str, Any] = {
        "bound": bound_of(problem, dx).name,
        "loss": problem.loss.name,
        "lam": float(problem.lam),
        "layers": len(leaves),
    }
    if not (isinstance(phi, PiecewiseLinear | CPTensor) and isinstance(theta, Layered)):
        return plain
    known = {
        "slopes": [1.0, 1.0] if isinstance(phi, CPTensor) else list(phi.slopes),
        "theta": theta.name,
        "norms": list(theta.layer_norms(params)),
        "sizes": [int(np.prod(w.shape[1:])) for w in leaves],
    }
    return plain | known
