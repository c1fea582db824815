"""The regularized parallel network problem, its objective, and the check that its degrees match.

f_r(W) = loss(sum_i phi(W_i), Y) + lam sum_i theta(W_i)        (HV17 (17), K18 (3.3))
"""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.homogeneous.maps import ElementalMap
from globopt_jax.homogeneous.regularizers import Regularizer
from globopt_jax.inputs import real
from globopt_jax.losses import Loss
from globopt_jax.shapes import Inputs, Params, Scalar, Targets

__all__ = ["Problem", "check_lam", "objective", "penalty", "predict", "width"]

Map = TypeVar("Map", bound=ElementalMap)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem(Generic[Map]):
    """A map, a regularizer, a loss (static, compared by value) and a strength lam (data: it vmaps).

    Args:
        phi: the elemental map, from `relu_neuron`, `rank_one`, `deep_subnetwork` or `elemental`.
        theta: the regularizer; its free exponent is bound to phi here.
        loss: one of `globopt_jax.losses`; sums over samples, not means.
        lam: the strength, > 0, in the units of loss over theta.

    Raises:
        ValueError: lam is a number that is not finite and > 0.
        TypeError: phi, theta or loss is something else, such as a plain function or a name.

    >>> from globopt_jax import homogeneous, losses
    >>> p = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 0.1)
    >>> p.theta.degree
    2
    """

    phi: Map = field(metadata={"static": True})
    theta: Regularizer = field(metadata={"static": True})
    loss: Loss = field(metadata={"static": True})
    lam: Any

    def __post_init__(self) -> None:
        for name, value, kind, hint in (
            ("phi", self.phi, ElementalMap, "homogeneous.relu_neuron() or elemental(fn, degree=...)"),
            ("theta", self.theta, Regularizer, "homogeneous.sum_of_powers() or regularizer(fn, degree=...)"),
            ("loss", self.loss, Loss, "losses.squared or losses.by_name('squared')"),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{name}: Expected: such as {hint}. Received: {value!r}.")
        object.__setattr__(self, "theta", self.theta.bind(self.phi))
        if isinstance(self.lam, (bool, int, float, complex, str, np.ndarray, np.generic)):
            check_lam(self.lam)


def predict(problem: Problem, params: Params, X: Inputs) -> Targets:
    """``Phi_r(W) = sum_i phi(W_i)``, shape (m, dy)."""
    return problem.phi.total(_reals(params), real("X", X))


def _reals(params: Params) -> Params:
    """The weights as arrays of floats."""
    return jax.tree.map(lambda w: real("params", w), params)


def penalty(problem: Problem, params: Params) -> jax.Array:
    """``theta(W_i)`` of every subnetwork, shape (r,)."""
    return jax.vmap(problem.theta)(params)


def objective(problem: Problem, params: Params, X: Inputs, Y: Targets) -> Scalar:
    """``f_r(W) = loss(Phi_r(W), Y) + lam sum_i theta(W_i)``, a pure function of arrays (HV17 (17)).

    Args:
        problem: map, regularizer, loss and lam.
        params: r subnetworks on a leading axis.
        X: inputs (m, dx).
        Y: targets (m, dy).

    >>> import jax.numpy as jnp
    >>> from globopt_jax import homogeneous, losses
    >>> p = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, 0.5)
    >>> w = (jnp.array([[1.0, 0.0]]), jnp.array([[2.0]]))
    >>> float(objective(p, w, jnp.eye(2), jnp.array([[2.0], [1.0]])))  # 1/2 * 1 + 0.5 * 1/2 (1 + 4)
    1.75
    """
    params = _reals(params)
    fit = problem.loss(predict(problem, params, X), Y)
    return fit + jnp.asarray(problem.lam, fit.dtype) * jnp.sum(penalty(problem, params))


def width(params: Params) -> int:
    """The number r of stacked subnetworks."""
    return jax.tree.leaves(params)[0].shape[0]


def check_lam(lam: Any) -> None:
    """Raise ValueError unless every entry of lam is finite and > 0."""
    try:
        values = np.asarray(lam, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.full(1, np.nan)
    if isinstance(lam, str) or not (np.all(np.isfinite(values)) and np.all(values > 0)):
        raise ValueError(f"lam: Expected: finite and > 0. Received: {lam!r}.")
