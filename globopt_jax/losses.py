"""Convex losses: value, gradient and convex conjugate, all of them sums over samples.

A loss is a hashable object, called as ``loss(Yhat, Y)``. Its conjugate in the prediction,

    loss*(U) = sup over Z of <U, Z> - loss(Z, Y),

turns a dual point U into a lower bound: ``loss(Z) >= <U, Z> - loss*(U)`` for every Z (Fenchel-Young), with
equality exactly at ``U = loss.gradient(Z, Y)``. The conjugate is +inf outside its domain; nothing is clipped,
because a clipped dual point certifies nonsense.
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
from globopt_jax.inputs import real
from globopt_jax.shapes import Array, Scalar, Targets

__all__ = ["Huber", "Logistic", "Loss", "SoftmaxCrossEntropy", "Squared", "by_name", "huber", "logistic"]
__all__ += ["softmax_cross_entropy", "squared"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__


def _on_reals(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of two arrays, on what `inputs.real` makes of them."""
    first, second = list(inspect.signature(method).parameters)[1:]

    @functools.wraps(method)
    def converted(self: Any, *given: Any, **named: Any) -> Any:
        a, b = inspect.signature(method).bind(self, *given, **named).args[1:] if named else given
        return method(self, real(first, a), real(second, b))

    return converted


@dataclass(frozen=True)
class Loss(abc.ABC):
    """What every loss offers; see the module's docstring for the formulas."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The loss as one writes it on a command line."""

    @abc.abstractmethod
    def __call__(self, Yhat: Targets, Y: Targets) -> Scalar:
        """The value, summed over samples and outputs."""

    @abc.abstractmethod
    def gradient(self, Yhat: Targets, Y: Targets) -> Float[Array, "m dy"]:
        """The gradient in the prediction, shape (m, dy)."""

    @abc.abstractmethod
    def conjugate(self, U: Targets, Y: Targets) -> Scalar:
        """``loss*(U)``; +inf outside the domain."""

    @abc.abstractmethod
    def dual_limit(self, U: Targets, Y: Targets) -> Scalar:
        """The largest s for which ``s U`` lies in the conjugate's domain (0 <= s, U itself in the domain)."""

    @abc.abstractmethod
    def dual_point(self, free: Targets, Y: Targets) -> Float[Array, "m dy"]:
        """A point of the conjugate's domain from unconstrained coordinates (for ascent in the dual)."""

    @abc.abstractmethod
    def dual_coordinates(self, U: Targets, Y: Targets) -> Float[Array, "m dy"]:
        """Coordinates that ``dual_point`` maps to U (up to rounding at the domain's boundary)."""

    def __init_subclass__(cls) -> None:
        """Let what users call take any arrays of real numbers."""
        for name in ("__call__", "gradient", "conjugate"):
            if name in vars(cls):
                setattr(cls, name, _on_reals(vars(cls)[name]))

    def check_targets(self, Y: np.ndarray) -> None:
        """Raise ValueError unless Y can be the target of this loss; here any real numbers can."""
        del Y

    def exact_targets(self, Y: np.ndarray) -> np.ndarray:
        """The targets that are computed with: Y itself, or the nearby point of the loss's domain (a host function)."""
        return Y

    def into_domain(self, V: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """V moved into the conjugate's domain, to the last digit (a host function)."""
        del Y
        return V

    def best_scale(self, U: Targets, Y: Targets, upper: Scalar) -> Scalar:
        """The s in ``[0, upper]`` that maximizes the concave ``-loss*(s U)``, by bisection on its slope."""
        slope = jax.grad(lambda s: -self.conjugate(s * U, Y))

        def halve(_: Array, ends: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
            low, high = ends
            middle = 0.5 * (low + high)
            rising = slope(middle) > 0
            return jnp.where(rising, middle, low), jnp.where(rising, high, middle)

        low, high = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(upper), upper))
        # A maximum at the upper end is handed back exactly, so that its derivative in `upper` survives.
        return jnp.where(high >= upper, upper, jax.lax.stop_gradient(low))


@dataclass(frozen=True)
class Squared(Loss):
    """``1/2 ||Yhat - Y||_F^2``; conjugate ``1/2 ||U||^2 + <U, Y>``, finite everywhere."""

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

    def best_scale(self, U: Targets, Y: Targets, upper: Scalar) -> Scalar:
        square = jnp.sum(U * U)
        free = -jnp.sum(U * Y) / jnp.where(square > 0, square, 1)
        return jnp.clip(free, 0, upper)


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """``sum_i logsumexp(yhat_i) - <y_i, yhat_i>`` for rows y_i of the probability simplex (one-hot labels).

    Conjugate ``sum q log q`` with ``q = U + Y``, finite where every row of q lies in the simplex. The
    minimum over predictions is the entropy of Y: 0 for one-hot rows.
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
        # q comes out of a sum of numbers of size at most 1: its zero and its row sums are known to a few eps.
        slack = 8 * q.shape[1] * linalg.machine_epsilon(q.dtype)
        inside = jnp.all(q >= -slack) & jnp.all(jnp.abs(jnp.sum(q, axis=1) - 1) <= slack)
        safe = jnp.where(q > 0, q, 1)
        return jnp.where(inside, jnp.sum(xlogy(safe, safe)), jnp.inf)

    def dual_limit(self, U: Targets, Y: Targets) -> Scalar:
        # q = s p + (1 - s) y stays non-negative up to the smallest y / (y - p) = -y / u over u < 0.
        falling = U < 0
        return jnp.min(jnp.where(falling, -Y / jnp.where(falling, U, 1), jnp.inf))

    def dual_point(self, free: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return jax.nn.softmax(free, axis=1) - Y

    def dual_coordinates(self, U: Targets, Y: Targets) -> Float[Array, "m dy"]:
        return jnp.log(jnp.maximum(U + Y, linalg.smallest_normal(U.dtype) ** 0.5))

    def exact_targets(self, Y: np.ndarray) -> np.ndarray:
        """Y with rows that sum to 1 exactly: multiples of 2^-53 (2^-24 in float32), the largest takes what is left.

        A sum that misses 1 by d makes the loss fall without end along (1, ..., 1), and every bound of it false.

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
        """Raise ValueError unless the rows of Y lie in the probability simplex, in two columns or more."""
        sums = np.abs(Y.sum(axis=1) - 1)
        if Y.shape[1] < 2 or Y.min() < 0 or sums.max() > 1e-5:
            raise ValueError(
                "Y: Expected: rows of the probability simplex for softmax cross-entropy (one-hot labels, two columns "
                f"or more). Received: {Y.shape[1]} column(s), smallest entry {Y.min():.3g}, row sums off "
                f"by up to {sums.max():.3g} (1e-5 is allowed; Y / Y.sum(axis=1, keepdims=True) has rows that sum to 1)."
            )


@dataclass(frozen=True)
class Logistic(Loss):
    """``sum log(1 + exp(-y yhat))`` for y in {-1, 1}.

    Conjugate ``sum q log q + (1 - q) log(1 - q)`` with ``q = -y u``, finite for q in [0, 1].
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
        # Inner where: the entropy's slope is infinite at 0 and 1, where its value is 0.
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
    """``sum h(yhat - y)`` with ``h(t) = t^2/2`` for ``|t| <= delta``, else ``delta |t| - delta^2/2``.

    Conjugate ``sum u y + u^2/2``, finite where ``|u| <= delta``.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise ValueError(f"delta: Expected: a finite number > 0. Received: {self.delta!r}.")

    @property
    def name(self) -> str:
        # Every digit: a certificate knows the loss by its name alone.
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

    def into_domain(self, V: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return np.clip(V, -self.delta, self.delta)


#: ``losses.squared(Yhat, Y)``, ``.gradient``, ``.conjugate``.
squared = Squared()
#: ``losses.softmax_cross_entropy(Yhat, Y)`` for one-hot (or simplex) rows.
softmax_cross_entropy = SoftmaxCrossEntropy()
#: ``losses.logistic(Yhat, Y)`` for targets in {-1, 1}.
logistic = Logistic()


def huber(delta: float = 1.0) -> Huber:
    """The Huber loss with threshold delta > 0, in the units of Y.

    Raises:
        ValueError: delta is not a finite number > 0.

    >>> import jax.numpy as jnp
    >>> float(huber(1.0)(jnp.array([[3.0]]), jnp.array([[0.0]])))
    2.5
    """
    return Huber(delta)


def by_name(name: str) -> Loss:
    """The loss that a command line names: squared, softmax_cross_entropy, logistic or huber:DELTA.

    Raises:
        ValueError: no such loss. TypeError: no name.

    >>> by_name("huber:0.5")
    Huber(delta=0.5)
    """
    catalogue: dict[str, Loss] = {loss.name: loss for loss in (squared, softmax_cross_entropy, logistic)}
    if not isinstance(name, str):
        raise TypeError(f"loss: Expected: a name such as {', '.join(catalogue)}. Received: {name!r}.")
    head, _, tail = name.partition(":")
    if head == "huber":
        try:
            return huber(float(tail) if tail else 1.0)
        except ValueError as error:
            raise ValueError(f"loss: Expected: huber:DELTA with DELTA > 0. Received: {name!r}.") from error
    if name not in catalogue:
        raise ValueError(f"loss: Expected: one of {', '.join(catalogue)}, huber:DELTA. Received: {name!r}.")
    return catalogue[name]
