"""The settings of training and measuring that all cells of a sweep share, checked and hashable."""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from globopt_jax import losses, networks
from globopt_jax.inputs import integer, one_of
from globopt_jax.sweeps.names import digest, function_named
from globopt_jax.sweeps.padding import INITIALS

__all__ = ["Optimizer", "Recipe", "power_of"]


@dataclass(frozen=True)
class Optimizer:
    """A function from a learning rate to an optax optimizer, with the arguments that were bound to it.

    Two sweeps with equal optimizers share their compiled programs, and a store can name the optimizer.
    """

    function: Callable[..., optax.GradientTransformation]
    """The function, which is called with the learning rate first."""
    options: tuple[tuple[str, Any], ...] = ()
    """Named arguments."""

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        """Return the optimizer with a learning rate, which may be traced."""
        with jax.numpy_dtype_promotion("standard"):  # optax's optimizers mix dtypes
            made = self.function(rate, **dict(self.options))

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            with jax.numpy_dtype_promotion("standard"):
                return made.update(updates, state, params)

        return optax.GradientTransformation(made.init, update)

    @property
    def name(self) -> str:
        """The module and the name of the function, with the arguments that were bound to it."""
        return self._called(f"{self.function.__module__}.{self.function.__qualname__}")

    @property
    def identity(self) -> str:
        """The name, which also tells functions that share one."""
        return self._called(function_named(self.function))

    def _called(self, function: str) -> str:
        bound = [f"{n}={function_named(v) if callable(v) else repr(v)}" for n, v in self.options]
        return f"{function}({', '.join(['rate', *bound])})"

    @classmethod
    def of(cls, given: Any) -> "Optimizer":
        """Return an optimizer from a function of the learning rate, or from `functools.partial` of one.

        Raises:
            TypeError: the argument is no such function; an optimizer that has a learning rate already is one case.
        """
        if isinstance(given, Optimizer):
            return given
        whole: Any = given if isinstance(given, functools.partial) else callable(given) and functools.partial(given)
        if not whole:
            raise TypeError(
                "optimizer: Expected: a function of the learning rate, such as functools.partial(optax.sgd, "
                f"momentum=0.9). Received: {type(given).__name__}; the rates are an axis of the sweep."
            )
        # The learning rate comes first, so that bound positional arguments would take its place.
        if whole.args:
            raise TypeError(f"optimizer: Expected: named arguments in functools.partial. Received: {whole.args!r}.")
        made = cls(whole.func, tuple(sorted(whole.keywords.items())))
        try:
            _ = hash(made)
            trial = made.function(0.01, **dict(made.options))
        except TypeError as error:
            raise TypeError(
                f"optimizer: Expected: a function that is called with a learning rate, and hashable options. "
                f"Received: {made.function!r} with {dict(made.options)} ({error})."
            ) from error
        if not isinstance(trial, optax.GradientTransformation):
            raise TypeError(
                f"optimizer: Expected: a function that returns an optax optimizer. Received: {type(trial).__name__}."
            )
        matrix = np.ones((3, 2), np.float32)
        try:
            _ = jax.eval_shape(made._updates, 0.01, matrix, matrix)
        except TypeError as error:  # such as a line search, or a rate that has to be a number of Python
            raise TypeError(
                "optimizer: Expected: an optimizer that can be traced, and that needs gradients and weights alone. "
                f"Received: {made.name} ({str(error).splitlines()[0]})."
            ) from error
        return made

    def keeps_padding(self) -> bool:
        """Whether zeros around a weight matrix with zero gradients stay zero and change no other update."""

        def framed(matrix: Any, rows: int, columns: int) -> Any:
            return jnp.pad(matrix, ((0, rows), (0, columns)))

        # Of several forms, since some optimizers compare the sides of a matrix.
        frames = [functools.partial(framed, rows=rows, columns=columns) for rows, columns in ((2, 3), (0, 5), (7, 0))]
        return self._commutes(lambda stack: stack[0], frames)

    def keeps_arrangement(self) -> bool:
        """Whether the weights of subnetworks are updated in the same way as a stack of matrices and side by side."""
        return self._commutes(lambda stack: stack, [lambda stack: jnp.swapaxes(stack, 0, 1).reshape(3, 4)])

    def _commutes(self, taken: Any, arrangements: Any) -> bool:
        """Whether arranged weights have the arranged updates, for weights that are taken from a stack (2, 3, 2)."""
        weights, gradients = np.random.default_rng(0).normal(size=(2, 2, 3, 2)).astype(np.float32)

        @jax.jit
        def pairs(size: Any) -> list[tuple[Any, Any]]:
            given = taken(weights), size * taken(gradients)
            alone = self._updates(0.01, *given)
            others = [self._updates(0.01, *map(arranged, given)) for arranged in arrangements]
            return [
                (arranged(a), b)
                for arranged, other in zip(arrangements, others, strict=True)
                for a, b in zip(alone, other, strict=True)
            ]

        # Of several sizes, since clipping changes large gradients alone.
        found = [pair for size in np.asarray([1e-3, 1.0, 1e3], np.float32) for pair in pairs(size)]
        return all(np.allclose(b, a, rtol=1e-3, atol=1e-6 * np.max(np.abs(a))) for a, b in found)

    def _updates(self, rate: Any, weights: Any, gradients: Any) -> list[Any]:
        """Return the updates of two steps."""
        method, leaves, found = self(rate), [weights], []
        state = method.init(leaves)
        for scale in (1.0, -0.5):
            updates, state = method.update([scale * gradients], state, leaves)
            leaves = jax.tree.map(jnp.add, leaves, updates)
            found += jax.tree.leaves(updates)
        return found


@dataclass(frozen=True)
class Recipe:
    """How every cell of a sweep is trained and measured."""

    optimizer: Optimizer
    """The optimizer as a function of the learning rate."""
    loss: losses.Loss
    """The loss of training, a sum over the samples of a step divided by the batch."""
    network: networks.FeedForward
    """The activation; an activation of zero is zero."""
    initial: str
    """The standard deviation of the initial weights, a name of `padding.INITIALS`."""
    epochs: int
    """The number of passes over the samples."""
    batch: int
    """The number of samples of a step. The last step of an epoch takes the samples that are left, each with the weight
    1/batch as in all other steps, so that plain gradient steps are shorter in proportion."""
    powers: tuple[int, ...] = ()
    """The powers of the penalties in the sweep."""
    tangent: bool = True
    """Whether J is computed."""
    snapshots: tuple[int, ...] = ()
    """The epochs after which the networks are measured, beside the first and the last stage."""

    @property
    def stages(self) -> dict[str, int]:
        """The names of the stages at which networks are measured, with the number of epochs before each of them."""
        between = {f"epoch {n}": n for n in self.snapshots}
        return {"initial": 0, **between, "trained": self.epochs}

    def described(self) -> dict[str, Any]:
        """Return the settings as values that JSON can represent, which is how a store compares sweeps."""
        function = self.network.function
        activation = self.network.slopes if function is None else function_named(function)
        return {
            "optimizer": self.optimizer.identity,
            "loss": _loss_named(self.loss),
            "activation": activation,
            "initial": self.initial,
            "epochs": self.epochs,
            "batch": self.batch,
            "samples count": "1/batch",  # stores of other weights in the last step of an epoch are not continued
            "tangent": self.tangent,
            "stages": list(self.stages),
        }

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Recipe":
        """Return the recipe of the options of `sweep`, or raise an error that names the wrong one."""
        network = networks.feed_forward(options["activation"])
        if network.per_layer:
            raise ValueError("activation: Expected: one activation for all units. Received: slopes for each layer.")
        _check_at_zero(network)
        loss = losses.by_name(options["loss"]) if isinstance(options["loss"], str) else options["loss"]
        if not isinstance(loss, losses.Loss):
            raise TypeError(f"loss: Expected: a name, or an object of losses.Loss. Received: {options['loss']!r}.")
        epochs = integer("epochs", options["epochs"], 0)
        given = options["snapshots"]
        snapshots = tuple(sorted({integer("snapshots", n) for n in (given if np.iterable(given) else [given])}))
        if not isinstance(options["tangent"], bool | np.bool_):
            raise TypeError(f"tangent: Expected: True or False. Received: {options['tangent']!r}.")
        if snapshots and snapshots[-1] >= epochs:
            raise ValueError(f"snapshots: Expected: numbers below epochs, {epochs}. Received: {snapshots[-1]}.")
        return cls(
            optimizer=Optimizer.of(options["optimizer"]),
            loss=loss,
            network=network,
            initial=one_of("initial", options["initial"], INITIALS),
            epochs=epochs,
            batch=integer("batch", options["batch"]),
            tangent=bool(options["tangent"]),
            snapshots=snapshots,
        )


def _loss_named(loss: losses.Loss) -> str:
    """Return the name of a loss, with a hash of its formulas and numbers if it is one of the caller's own."""
    if losses.is_catalogued(loss):
        return loss.name
    own = [[*vars(kind).items()] for kind in type(loss).__mro__ if not kind.__module__.startswith("globopt_jax")]
    return f"{loss.name}#{digest((repr(loss), own[:-1]))}"  # without object


def _check_at_zero(network: networks.FeedForward) -> None:
    """Raise ValueError unless units with the input 0 have the output 0 and receive gradients, as missing units do."""
    function = network.function
    if function is None:
        return
    zero = jnp.asarray(function(jnp.zeros(())))
    if zero.dtype.kind != "f":
        raise ValueError(f"activation: Expected: a function with real values. Received: one with {zero.dtype}.")
    if float(zero) != 0:
        raise ValueError(f"activation: Expected: a function with the value 0 at 0. Received: one with {zero}.")
    # The signal into a missing unit is zero, and zero times an infinite slope is NaN.
    slope = float(jax.grad(function)(jnp.zeros(())))
    if not np.isfinite(slope):
        raise ValueError(f"activation: Expected: a function with a finite slope at 0. Received: one with {slope}.")


def power_of(penalty: Any) -> int:
    """Return p of the penalty ``sum |w|^p`` over all weights, which is named l1, l2, ... up to l99; 0 of "none".

    Raises:
        ValueError: the penalty has another name.

    Example:
        >>> power_of("l2"), power_of("none")
        (2, 0)
    """
    if penalty == "none":
        return 0
    if isinstance(penalty, str) and re.fullmatch("l[1-9][0-9]?", penalty):
        return int(penalty[1:])
    raise ValueError(f"penalties: Expected: none, l1, l2, l3, ... . Received: {penalty!r}.")
