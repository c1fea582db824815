"""The regularized parallel network problem and its objective.

f_r(W) = loss(sum_i phi(W_i), Y) + lam sum_i theta(W_i)        (HV17 (17), K18 (3.3))
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import losses
from globopt_jax.homogeneous import maps, regularizers
from globopt_jax.homogeneous.maps import ElementalMap
from globopt_jax.homogeneous.regularizers import Regularizer
from globopt_jax.inputs import real
from globopt_jax.losses import Loss
from globopt_jax.shapes import Inputs, Params, Scalar, Targets

__all__ = ["Problem", "check_lam", "objective", "penalty", "predict"]

Map = TypeVar("Map", bound=ElementalMap)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, init=False)
class Problem(Generic[Map]):
    """The problem ``min over r and W of loss(sum_i phi(W_i), Y) + lam sum_i theta(W_i)``.

    Map, regularizer and loss are static and compared by value; lam is data, so a problem vmaps over it.

    Args:
        phi: the elemental map, from `relu_neuron`, `rank_one`, `deep_subnetwork` or `elemental`, or the name of one:
            relu, leaky_relu, absolute or linear for one neuron; relu:3 for subnetworks with three weight layers.
        theta: the regularizer, or its name: sum_of_powers or product_of_norms. Its free exponent is bound to phi here.
        loss: one of `globopt_jax.losses`, or its name. Losses are sums over samples, not means.
        lam: the strength, > 0, in the units of loss over theta.

    Raises:
        ValueError: lam is a number that is not finite and > 0, or a name is unknown.
        TypeError: phi, theta or loss is something else, such as a plain function.

    >>> from globopt_jax import homogeneous, losses
    >>> p = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 0.1)
    >>> p.theta.degree
    2
    >>> p == homogeneous.Problem("relu", "sum_of_powers", "squared", 0.1)
    True
    """

    phi: Map = field(metadata={"static": True})
    theta: Regularizer = field(metadata={"static": True})
    loss: Loss = field(metadata={"static": True})
    lam: Any

    def __init__(self, phi: Map | str, theta: Regularizer | str, loss: Loss | str, lam: Any) -> None:
        known = _catalogued("phi", phi, ElementalMap, maps.by_name, "relu_neuron() or elemental(fn, degree=...)")
        penalty = _catalogued(
            "theta", theta, Regularizer, regularizers.by_name, "sum_of_powers() or regularizer(fn, degree=...)"
        )
        if isinstance(lam, (bool, int, float, complex, str, np.ndarray, np.generic)):  # no tracer, no placeholder
            check_lam(lam)
        object.__setattr__(self, "phi", known)
        object.__setattr__(self, "theta", penalty.bind(known))
        object.__setattr__(self, "loss", _catalogued("loss", loss, Loss, losses.by_name, "losses.squared"))
        object.__setattr__(self, "lam", lam)


def _catalogued(name: str, value: Any, kind: type, by_name: Callable[[str], Any], hint: str) -> Any:
    """The value itself, or what it names.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor of the kind wanted.
    """
    if isinstance(value, str):
        return by_name(value)
    if not isinstance(value, kind):
        received = repr(value)
        if getattr(value, "__module__", "") in (maps.__name__, regularizers.__name__):
            received = f"the function {value.__name__}; call it: {value.__name__}()"
        raise TypeError(f"{name}: Expected: a name, or such as {hint}. Received: {received}.")
    return value


def predict(problem: Problem, params: Params, X: Inputs) -> Targets:
    """Compute the network's output ``Phi_r(W) = sum_i phi(W_i)``, shape (m, dy): a pure function of arrays.

    Args:
        problem: its map is used.
        params: r subnetworks on a leading axis.
        X: inputs (m, dx).

    >>> import jax.numpy as jnp
    >>> from globopt_jax import homogeneous
    >>> p = homogeneous.Problem("linear", "sum_of_powers", "squared", 0.5)
    >>> predict(p, (jnp.array([[1.0, 0.0]]), jnp.array([[2.0]])), jnp.eye(2)).tolist()
    [[2.0], [0.0]]
    """
    return _total(problem, _reals(params), real("X", X))


# One program each, where eager operations are ten; inside of another program nothing changes.
@partial(jax.jit, inline=True)
def _total(problem: Problem, params: Params, X: Inputs) -> Targets:
    return problem.phi.total(params, X)


def _reals(params: Params) -> Params:
    """The weights as arrays of floats."""
    return jax.tree.map(lambda w: real("params", w), params)


@partial(jax.jit, inline=True)
def penalty(problem: Problem, params: Params) -> jax.Array:
    """``theta(W_i)`` of every subnetwork, shape (r,)."""
    return jax.vmap(problem.theta)(params)


def objective(problem: Problem, params: Params, X: Inputs, Y: Targets) -> Scalar:
    """Compute ``f_r(W) = loss(Phi_r(W), Y) + lam sum_i theta(W_i)``: a pure function of arrays (HV17 (17)).

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


def check_lam(lam: Any) -> None:
    """Raise ValueError unless every entry of lam is finite and > 0."""
    try:
        values = np.asarray(lam, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.full(1, np.nan)
    if isinstance(lam, str) or not (np.all(np.isfinite(values)) and np.all(values > 0)):
        raise ValueError(f"lam: Expected: finite and > 0. Received: {lam!r}.")
