"""Activations and losses, and which parts of NH17's Assumption 3.2 each of them satisfies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import losses
from globopt_jax.inputs import one_of
from globopt_jax.networks import ACTIVATIONS as PIECEWISE
from globopt_jax.networks import FeedForward, feed_forward

__all__ = ["ACTIVATIONS", "FAILURES", "LOSSES", "Entry", "Smooth", "activation_entry", "loss_entry", "network_of"]
__all__ += ["points", "smooth"]


@dataclass(frozen=True)
class Smooth:
    """A function of one real number with the properties that its user declares, made by `smooth`."""

    function: Callable[[Any], Any]
    """An elementwise function."""
    analytic: bool
    """Whether it is real analytic."""

    def __call__(self, t: Any) -> Any:
        """Return the function at each entry of t."""
        return self.function(t)


def smooth(function: Any, *, analytic: bool) -> Smooth:
    """Return an activation of your own, with the property that no computation can find out.

    Args:
        function: an elementwise function of JAX.
        analytic: whether the function is real analytic, that is, equal to its Taylor series near every point.

    Raises:
        TypeError: the function is not callable, or JAX cannot trace it.
        ValueError: it mixes the entries of its array.

    Example:
        >>> from globopt_jax.wide import assumption
        >>> assumption(jnp.eye(3), smooth(lambda t: jnp.tanh(2 * t), analytic=True)).holds
        True
    """
    if not callable(function):
        raise TypeError(f"function: Expected: a function. Received: {type(function).__name__}.")
    _ = feed_forward(function)  # checks that it acts on each entry
    return Smooth(function, bool(analytic))


@dataclass(frozen=True)
class Entry:
    """What is known of an activation or a loss."""

    function: Callable[[Any], Any]
    """The function."""
    fails: str = ""
    """The property that it lacks, in words; empty if it satisfies its part of Assumption 3.2."""
    sampled: bool = False
    """Whether the answer is from samples of the function, which is evidence and no proof."""


#: The activations with names.
ACTIVATIONS: dict[str, Entry] = {
    "tanh": Entry(jnp.tanh),
    "sigmoid": Entry(jax.nn.sigmoid),
    "softplus": Entry(jax.nn.softplus),
    "arctan": Entry(jnp.arctan),
    "erf": Entry(jax.scipy.special.erf),
    "elu": Entry(jax.nn.elu, "it is not analytic at 0"),
    "gelu": Entry(lambda t: jax.nn.gelu(t, approximate=False), "its derivative is negative below -0.75"),
    "silu": Entry(jax.nn.silu, "its derivative is negative below -1.28"),
    "sin": Entry(jnp.sin, "its derivative is negative on intervals"),
    "softsign": Entry(jax.nn.soft_sign, "it is not analytic at 0"),
    "log_sigmoid": Entry(jax.nn.log_sigmoid, "it is neither bounded nor small at negative numbers"),
    "linear": Entry(lambda t: t, "it is neither bounded nor small at negative numbers"),
    "relu": Entry(jax.nn.relu, "it is not analytic at 0, and its derivative is 0 at negative numbers"),
    "leaky_relu": Entry(jax.nn.leaky_relu, "it is not analytic at 0"),
    "absolute": Entry(jnp.abs, "it is not analytic at 0, and its derivative is negative at negative numbers"),
}
#: The losses of one residual with names.
LOSSES: dict[str, Entry] = {
    "squared": Entry(lambda a: 0.5 * jnp.square(a)),
    "pseudo_huber": Entry(lambda a: jnp.sqrt(1 + jnp.square(a)) - 1),
    "log_cosh": Entry(lambda a: jnp.logaddexp(a, -a) - jnp.log(2.0)),
    "huber": Entry(
        lambda a: jnp.where(jnp.abs(a) <= 1, 0.5 * jnp.square(a), jnp.abs(a) - 0.5),
        "its second derivative is not continuous",
    ),
    "absolute": Entry(jnp.abs, "it has no derivative at 0"),
    "logistic": Entry(lambda a: jnp.logaddexp(0.0, -a), "it has no minimum"),
}
#: What an activation or a loss may lack; results hold the index. The first entry is nothing.
FAILURES = (
    "",
    *dict.fromkeys(entry.fails for catalogue in (ACTIVATIONS, LOSSES) for entry in catalogue.values() if entry.fails),
    "it is declared not to be analytic",
    "it or its derivative is not finite where it was sampled",
    "its derivative is not positive at some of the points where it was sampled",
    "it grows faster than linearly at positive numbers",
    "its derivative is zero at a point that is no minimum",
    "its derivative is not continuous",
)
#: Functions without a name are sampled at points from -_SPAN to _SPAN, and at _FAR.
_SPAN, _POINTS, _FAR = 30.0, 6001, 1e6


def network_of(activation: Any) -> FeedForward:
    """Return the network of an activation.

    Raises:
        ValueError: the name is unknown.
    """
    if isinstance(activation, Smooth):
        activation = activation.function
    if isinstance(activation, str):
        name = one_of("activation", activation, ACTIVATIONS, ", or a function")
        return feed_forward(name) if name in PIECEWISE else FeedForward(None, ACTIVATIONS[name].function)
    return feed_forward(activation)


def activation_entry(activation: Any) -> Entry:
    """Return what is known of an activation, or what samples of it show.

    Raises:
        ValueError: the name is unknown, or a function comes without `smooth`.
    """
    if isinstance(activation, str):
        _ = network_of(activation)
        return ACTIVATIONS[activation]
    if not isinstance(activation, Smooth):
        raise ValueError(
            "activation: Expected: a name, or wide.smooth(function, analytic=True or False), since no computation "
            f"finds out whether a function is analytic. Received: {type(activation).__name__}."
        )
    return Entry(activation.function, _sampled_activation(activation), sampled=True)


def loss_entry(loss: Any) -> Entry:
    """Return what is known of a loss, or what samples of it show.

    Raises:
        ValueError: the name is unknown, or the loss is no function.
    """
    if isinstance(loss, losses.Squared):
        return LOSSES["squared"]
    if isinstance(loss, losses.Huber):
        return LOSSES["huber"]
    if isinstance(loss, str) or not callable(loss) or isinstance(loss, losses.Loss):
        return LOSSES[one_of("loss", loss, LOSSES, ", or a function of one residual")]
    return Entry(loss, _sampled_loss(loss), sampled=True)


def _sampled_activation(activation: Smooth) -> str:
    """Return what samples of an activation lack."""
    if not activation.analytic:
        return "it is declared not to be analytic"
    t = points()
    value, slope = (np.asarray(a, np.float64) for a in jax.jvp(activation.function, (t,), (jnp.ones_like(t),)))
    far = np.asarray(activation.function(jnp.asarray([-_FAR, -1e3, _FAR], t.dtype)), np.float64)
    if not np.all(np.isfinite(value)):
        return "it or its derivative is not finite where it was sampled"
    # Far from 0 a derivative may have underflowed to 0; near 0 it is positive, and nowhere is it negative.
    rounding = float(jnp.finfo(t.dtype).eps) * np.max(np.abs(slope))
    if np.any(slope < -rounding) or np.any(slope[np.abs(np.asarray(t)) <= 1] <= 0):
        return "its derivative is not positive at some of the points where it was sampled"
    largest = np.max(np.abs(value))
    if np.max(np.abs(far)) <= 2 * largest:
        return ""
    if not abs(far[1]) <= 1e-9 * max(1.0, largest):
        return "it is neither bounded nor small at negative numbers"
    linear = abs(far[2]) <= 2 * _FAR * max(1.0, largest / _SPAN)
    return "" if linear else "it grows faster than linearly at positive numbers"


def _sampled_loss(loss: Callable[[Any], Any]) -> str:
    """Return what samples of a loss lack."""
    a = points()
    value, slope = (np.asarray(v, np.float64) for v in jax.jvp(loss, (a,), (jnp.ones_like(a),)))
    curvature = np.asarray(jax.jvp(jax.grad(lambda t: jnp.sum(loss(t))), (a,), (jnp.ones_like(a),))[1], np.float64)
    if not np.all(np.isfinite([value, slope, curvature])):
        return "it or its derivative is not finite where it was sampled"
    for derivative, lacks in ((slope, "its derivative is"), (curvature, "its second derivative is")):
        if np.max(np.abs(np.diff(derivative))) > 0.2 * np.max(np.abs(derivative)):
            return f"{lacks} not continuous"
    turns = np.flatnonzero(np.sign(slope[:-1]) * np.sign(slope[1:]) <= 0)
    if not len(turns):
        return "it has no minimum"
    # Between two points the loss changes by at most the step times the larger slope, about.
    change = 2 * _SPAN / (_POINTS - 1) * (np.abs(slope[turns]) + np.abs(slope[turns + 1]))
    rounding = 10 * float(jnp.finfo(a.dtype).eps) * (np.abs(value[turns]) + np.abs(np.min(value)))
    high = value[turns] - np.min(value) > change + rounding
    return "its derivative is zero at a point that is no minimum" if np.any(high) else ""


def points(dtype: Any = None) -> jax.Array:
    """Return the points where functions are sampled."""
    return jnp.linspace(-_SPAN, _SPAN, _POINTS, dtype=dtype)
