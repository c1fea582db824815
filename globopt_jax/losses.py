"""Convex losses with their gradients and convex conjugates. All of them are sums over the samples, not means.

A loss is a hashable object that is called as ``loss(Yhat, Y)``, with predictions and targets of shape (m, dy). Its
convex conjugate in the prediction,

    loss*(U) = sup over Z of <U, Z> - loss(Z, Y),

turns a dual point U of shape (m, dy) into a lower bound of the loss: ``loss(Z, Y) >= <U, Z> - loss*(U)`` for every
prediction Z (Fenchel-Young), with equality exactly at ``U = loss.gradient(Z, Y)``. Outside its domain the conjugate is
+inf. It never clips U into the domain, because the value at a clipped point is no bound for the point that was given.

    >>> Z, Y = jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0]])
    >>> U = squared.gradient(Z, Y)
    >>> float(squared(Z, Y)), float(jnp.sum(U * Z) - squared.conjugate(U, Y))
    (0.5, 0.5)
"""

import abc
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, xlogy
from jaxtyping import Float

from globopt_jax import linalg
from globopt_jax.inputs import one_of, real
from globopt_jax.shapes import Array, Scalar, Targets

__all__ = ["Huber", "Logistic", "Loss", "SoftmaxCrossEntropy", "Squared", "by_name", "huber", "logistic"]
__all__ += ["softmax_cross_entropy", "squared"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__


def _on_reals(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of two arrays that converts both with `inputs.real` first."""
    first, second = list(inspect.signature(method).parameters)[1:]
    compiled = jax.jit(method, static_argnums=0, inline=True)  # one program, where eager operations are ten

    @functools.wraps(method)
    def converted(self: Any, *given: Any, **named: Any) -> Any:
        a, b = inspect.signature(method).bind(self, *given, **named).args[1:] if named else given
        return compiled(self, real(first, a), real(second, b))

    return converted


@dataclass(frozen=True)
class Loss(abc.ABC):
    """The interface of every loss; the module's docstring has the formulas."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name of the loss on a command line and for `by_name`."""

    @abc.abstractmethod
    def __call__(self, Yhat: Targets, Y: Targets) -> Scalar:
        """Return the loss, summed over samples and outputs.

        Args:
            Yhat: predictions (m, dy).
            Y: targets (m, dy).
        """

    @abc.abstractmethod
    def gradient(self, Yhat: Targets, Y: Targets) -> Float[Array, "m dy"]:
        """Return the gradient in the prediction, of shape (m, dy).

        Args:
            Yhat: predictions (m, dy).
            Y: targets (m, dy).
        """

    @abc.abstractmethod
    def conjugate(self, U: Targets, Y: Targets) -> Scalar:
        """Return the convex conjugate ``loss*(U)``, or +inf if U lies outside its domain.

        Args:
            U: a dual point (m, dy).
            Y: targets (m, dy).
        """

    @abc.abstractmethod
    def dual_limit(self, U: Targets, Y: Targets) -> Scalar:
        """Return the largest s >= 0 for which ``s U`` lies in the conjugate's domain; inf if there is no largest.

        Args:
            U: a point (m, dy) of the conjugate's domain.
            Y: targets (m, dy).
        """

    @abc.abstractmethod
    def dual_point(self, free: Targets, Y: Targets) -> Float[Array, "m dy"]:
        """Return the point of the conjugate's domain that has the given coordinates.

        Args:
            free: coordinates (m, dy) without constraints, in which the dual can be ascended.
            Y: targets (m, dy).
        """

    @abc.abstractmethod
    def dual_coordinates(self, U: Targets, Y: Targets) -> Float[Array, "m dy"]:
        """Return coordinates (m, dy) that `dual_point` maps to U, up to rounding at the boundary of the domain."""

    def __init_subclass__(cls) -> None:
        """Make the methods that users call accept every array of real numbers that `inputs.real` accepts."""
        for name in ("__call__", "gradient", "conjugate"):
            if name in vars(cls):
                setattr(cls, name, _on_reals(vars(cls)[name]))

    def settled(self, dy: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return a prediction and a target (dy,) of one sample where loss, gradient and ``loss*(0)`` are exactly 0.

        Rows of padding take them; only data for the losses of this module are padded. None is the default.
        """
        del dy
        return None

    def check_targets(self, Y: np.ndarray) -> None:
        """Raise ValueError unless Y can be the targets of this loss. By default all real numbers can."""
        del Y

    def exact_targets(self, Y: np.ndarray) -> np.ndarray:
        """Return the targets to compute with: Y, or a point near Y at which the loss is defined (a host function)."""
        return Y

    def into_domain(self, V: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """Return V moved into the conjugate's domain (a host function)."""
        del Y
        return V

    def best_scale(self, U: Targets, Y: Targets, upper: Scalar) -> Scalar:
        """Return the s in ``[0, upper]`` that maximizes the concave ``-loss*(s U)``, by default by bisection."""
        slope = jax.grad(lambda s: -self.conjugate(s * U, Y))

        def halve(_: Array, ends: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
            low, high = ends
            middle = 0.5 * (low + high)
            rising = slope(middle) > 0
            return jnp.where(rising, middle, low), jnp.where(rising, high, middle)

        low, high = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(upper), upper))
        # Where the maximum is at the upper end, `upper` itself is returned, and with it the derivative in `upper`.
        return jnp.where(high >= upper, upper, jax.lax.stop_gradient(low))


@dataclass(frozen=True)
class Squared(Loss):
    """The squared loss ``1/2 ||Yhat - Y||_F^2``.

    The conjugate is ``1/2 ||U||_F^2 + <U, Y>``, which is finite everywhere.
    """

    @property
    def name(self) -> str:
        return "squared"

    def __call__(self, Yhat: Targets, Y: Targets) -> Scalar:
        return 0.5 * jnp.sum((Yhat - Y) ** 2)

    def gradient(self, Yhat: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return Yhat - Y

    def conjugate(self, U: Targets, Y: Targets) -> Scalar:
        return jnp.sum(U * (0.5 * U + Y))

    def dual_limit(self, U: Targets, Y: Targets) -> Scalar:
        return jnp.asarray(jnp.inf, U.dtype)

    def dual_point(self, free: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return free

    def dual_coordinates(self, U: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return U

    def settled(self, dy: int) -> tuple[np.ndarray, np.ndarray] | None:
        return np.zeros(dy), np.zeros(dy)

    def best_scale(self, U: Targets, Y: Targets, upper: Scalar) -> Scalar:
        square = jnp.sum(U * U)
        free = -jnp.sum(U * Y) / jnp.where(square > 0, square, 1)
        return jnp.clip(free, 0, upper)


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Softmax cross-entropy: ``sum_i logsumexp(yhat_i) - <y_i, yhat_i>`` over the rows i.

    The targets' rows y_i lie in the probability simplex; one-hot labels do. The conjugate is ``sum q log q`` with
    ``q = U + Y``, finite where every row of q lies in the simplex. The infimum over predictions is the entropy of Y,
    which is 0 for one-hot rows.
    """

    @property
    def name(self) -> str:
        return "softmax_cross_entropy"

    def __call__(self, Yhat: Targets, Y: Targets) -> Scalar:
        return jnp.sum(logsumexp(Yhat, axis=1) - jnp.sum(Y * Yhat, axis=1))

    def gradient(self, Yhat: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return jax.nn.softmax(Yhat, axis=1) - Y

    def conjugate(self, U: Targets, Y: Targets) -> Scalar:
        q = U + Y
        # Entries of q are sums of two numbers of size at most 1, so q and its row sums have errors of a few eps.
        slack = 8 * q.shape[1] * linalg.machine_epsilon(q.dtype)
        inside = jnp.all(q >= -slack) & jnp.all(jnp.abs(jnp.sum(q, axis=1) - 1) <= slack)
        safe = jnp.where(q > 0, q, 1)
        return jnp.where(inside, jnp.sum(xlogy(safe, safe)), jnp.inf)

    def dual_limit(self, U: Targets, Y: Targets) -> Scalar:
        # The entries y + s u stay non-negative up to the smallest -y / u over the entries with u < 0.
        falling = U < 0
        return jnp.min(jnp.where(falling, -Y / jnp.where(falling, U, 1), jnp.inf))

    def dual_point(self, free: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return jax.nn.softmax(free, axis=1) - Y

    def dual_coordinates(self, U: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return jnp.log(jnp.maximum(U + Y, linalg.smallest_normal(U.dtype) ** 0.5))

    def settled(self, dy: int) -> tuple[np.ndarray, np.ndarray] | None:
        first = np.eye(dy)[0]
        return 1e4 * first, first  # the softmax of that prediction is the target exactly

    def exact_targets(self, Y: np.ndarray) -> np.ndarray:
        """Return Y with rows that sum to 1 exactly (a host function).

        Each entry is divided by its row's sum and rounded to a multiple of 2^-53 (2^-24 in float32). The largest entry
        of a row takes the remainder. If a row did not sum to 1 exactly, the loss would fall without end along
        (1, ..., 1) or its negative, and every lower bound would be false.

        >>> from fractions import Fraction
        >>> sum(map(Fraction, softmax_cross_entropy.exact_targets(np.full((1, 3), 0.333333))[0].tolist()))
        Fraction(1, 1)
        >>> softmax_cross_entropy.exact_targets(np.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        bits = 24 if Y.dtype == np.float32 else 53
        wide = np.asarray(Y, np.float64)
        parts = np.rint(np.ldexp(wide / wide.sum(axis=1, keepdims=True), bits)).astype(np.int64)
        parts[np.arange(len(Y)), parts.argmax(axis=1)] += 2**bits - parts.sum(axis=1)
        return np.ldexp(parts.astype(np.float64), -bits).astype(Y.dtype)

    def into_domain(self, V: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return self.exact_targets(np.maximum(V + Y, 0)) - Y

    def check_targets(self, Y: np.ndarray) -> None:
        """Raise ValueError unless Y has two columns or more and rows of the probability simplex (sums within 1e-5)."""
        sums = np.abs(Y.sum(axis=1) - 1)
        if Y.shape[1] < 2 or Y.min() < 0 or sums.max() > 1e-5:
            raise ValueError(
                "Y: Expected: rows of the probability simplex for softmax cross-entropy (one-hot labels, two columns "
                f"or more). Received: {Y.shape[1]} column(s), smallest entry {Y.min():.3g}, row sums off "
                f"by up to {sums.max():.3g} (1e-5 is allowed; Y / Y.sum(axis=1, keepdims=True) has rows that sum to 1)."
            )


@dataclass(frozen=True)
class Logistic(Loss):
    """The logistic loss ``sum log(1 + exp(-y yhat))`` for targets y in {-1, 1}.

    The conjugate is ``sum q log q + (1 - q) log(1 - q)`` with ``q = -y u``, finite where every q lies in [0, 1].
    """

    @property
    def name(self) -> str:
        return "logistic"

    def __call__(self, Yhat: Targets, Y: Targets) -> Scalar:
        return jnp.sum(jax.nn.softplus(-Y * Yhat))

    def gradient(self, Yhat: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return -Y * jax.nn.sigmoid(-Y * Yhat)

    def conjugate(self, U: Targets, Y: Targets) -> Scalar:
        q = -Y * U
        inside = jnp.all((q >= 0) & (q <= 1))
        # The entropy is 0 at q = 0 and q = 1, but its slope is infinite there; the inner where keeps gradients finite.
        interior = (q > 0) & (q < 1)
        safe = jnp.where(interior, q, 0.5)
        entropy = jnp.where(interior, safe * jnp.log(safe) + (1 - safe) * jnp.log1p(-safe), 0)
        return jnp.where(inside, jnp.sum(entropy), jnp.inf)

    def dual_limit(self, U: Targets, Y: Targets) -> Scalar:
        largest = jnp.max(-Y * U)
        return jnp.where(largest > 0, 1 / jnp.where(largest > 0, largest, 1), jnp.inf)

    def dual_point(self, free: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return -Y * jax.nn.sigmoid(free)

    def dual_coordinates(self, U: Targets, Y: Targets) -> Float[Array, "m dy"]:
        tiny = linalg.machine_epsilon(U.dtype)
        q = jnp.clip(-Y * U, tiny, 1 - tiny)
        return jnp.log(q) - jnp.log1p(-q)

    def settled(self, dy: int) -> tuple[np.ndarray, np.ndarray] | None:
        return np.full(dy, 1e4), np.ones(dy)  # exp(-1e4) is 0 exactly

    def into_domain(self, V: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return -Y * np.clip(-Y * V, 0, 1)

    def check_targets(self, Y: np.ndarray) -> None:
        """Raise ValueError unless every entry of Y is -1 or 1."""
        if not np.all(np.abs(Y) == 1):
            values = np.unique(Y)[:5]
            raise ValueError(
                "Y: Expected: every entry -1 or 1 for the logistic loss. "
                f"Received: values such as {', '.join(f'{v:g}' for v in values)}."
            )


@dataclass(frozen=True)
class Huber(Loss):
    """The Huber loss ``sum h(yhat - y)`` with ``h(t) = t^2/2`` for ``|t| <= delta``, else ``delta |t| - delta^2/2``.

    The conjugate is ``sum u y + u^2/2``, finite where every ``|u| <= delta``.
    """

    delta: float = 1.0
    """The threshold, in the units of Y."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise ValueError(f"delta: Expected: a finite number > 0. Received: {self.delta!r}.")

    @property
    def name(self) -> str:
        # A certificate stores the loss by its name alone, so the name has all digits of delta.
        return f"huber:{float(self.delta)!r}".removesuffix(".0")

    def __call__(self, Yhat: Targets, Y: Targets) -> Scalar:
        t = Yhat - Y
        inner = jnp.clip(t, -self.delta, self.delta)
        return jnp.sum(inner * (t - 0.5 * inner))

    def gradient(self, Yhat: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return jnp.clip(Yhat - Y, -self.delta, self.delta)

    def conjugate(self, U: Targets, Y: Targets) -> Scalar:
        return jnp.where(jnp.all(jnp.abs(U) <= self.delta), jnp.sum(U * (0.5 * U + Y)), jnp.inf)

    def dual_limit(self, U: Targets, Y: Targets) -> Scalar:
        largest = jnp.max(jnp.abs(U))
        return jnp.where(largest > 0, self.delta / jnp.where(largest > 0, largest, 1), jnp.inf)

    def dual_point(self, free: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return self.delta * jnp.tanh(free)

    def dual_coordinates(self, U: Targets, Y: Targets) -> Float[Array, "m dy"]:
        edge = 1 - 4 * linalg.machine_epsilon(U.dtype)
        return jnp.arctanh(jnp.clip(U / self.delta, -edge, edge))

    def settled(self, dy: int) -> tuple[np.ndarray, np.ndarray] | None:
        return np.zeros(dy), np.zeros(dy)

    def into_domain(self, V: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return np.clip(V, -self.delta, self.delta)


#: The squared loss, called as ``losses.squared(Yhat, Y)``; it has ``.gradient`` and ``.conjugate``, too.
squared = Squared()
#: Softmax cross-entropy, for targets whose rows are one-hot or lie in the probability simplex.
softmax_cross_entropy = SoftmaxCrossEntropy()
#: The logistic loss, for targets in {-1, 1}.
logistic = Logistic()


def huber(delta: float = 1.0) -> Huber:
    """Return the Huber loss, which is quadratic for residuals of size up to delta and linear beyond.

    Args:
        delta: the threshold > 0, in the units of Y.

    Raises:
        ValueError: delta is not a finite number > 0.

    >>> import jax.numpy as jnp
    >>> float(huber(1.0)(jnp.array([[3.0]]), jnp.array([[0.0]])))
    2.5
    """
    return Huber(delta)


def is_catalogued(loss: Loss) -> bool:
    """Whether a loss is the one that its name says, and not a class of your own or a subclass with another formula.

    >>> is_catalogued(huber(0.5))
    True
    >>> is_catalogued(type("Mean", (Squared,), {"__call__": lambda self, Z, Y: jnp.mean((Z - Y) ** 2)})())
    False
    """
    try:
        return by_name(loss.name) == loss
    except ValueError:
        return False


def by_name(name: str, argument: str = "loss") -> Loss:
    """Return the loss of a name.

    Args:
        name: squared, softmax_cross_entropy, logistic, or huber:DELTA (huber alone means delta = 1).
        argument: the argument that an error names.

    Raises:
        ValueError: there is no loss of this name.
        TypeError: the name is not a string.

    >>> by_name("huber:0.5")
    Huber(delta=0.5)
    """
    catalogue: dict[str, Loss] = {loss.name: loss for loss in (squared, softmax_cross_entropy, logistic)}
    if not isinstance(name, str):
        raise TypeError(f"{argument}: Expected: a name such as {', '.join(catalogue)}. Received: {name!r}.")
    head, _, tail = name.partition(":")
    if head == "huber":
        try:
            return huber(float(tail) if tail else 1.0)
        except ValueError as error:
            raise ValueError(f"{argument}: Expected: huber:DELTA with DELTA > 0. Received: {name!r}.") from error
    return catalogue[one_of(argument, name, catalogue, ", huber:DELTA")]
