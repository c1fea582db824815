"""The settings of training and measuring that all cells of a sweep share, checked and hashable."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from globopt_jax import losses, networks
from globopt_jax.inputs import integer
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
        bound = [f"{name}={value!r}" for name, value in self.options]
        return f"{self.function.__module__}.{self.function.__qualname__}({', '.join(['rate', *bound])})"

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
        return made

    def keeps_padding(self) -> bool:
        """Whether zeros around a weight matrix with zero gradients stay zero and change no other update."""
        weights, gradients = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
        wide = ((0, 2), (0, 3))
        narrow, padded = map(np.asarray, _moved(self, weights, gradients, wide))
        return bool(np.allclose(np.pad(narrow, wide), padded, rtol=1e-4, atol=1e-7))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _moved(optimizer: Optimizer, weights: Any, gradients: Any, wide: Any) -> tuple[Any, Any]:
    """Return a weight matrix after two steps, as it is and with zeros around it."""

    def moved(weights: Any, gradients: Any) -> Any:
        method, leaves = optimizer(0.01), [weights]
        state = method.init(leaves)
        for scale in (1.0, -0.5):
            updates, state = method.update([scale * gradients], state, leaves)
            leaves = jax.tree.map(jnp.add, leaves, updates)
        return leaves[0]

    return moved(weights, gradients), moved(jnp.pad(weights, wide), jnp.pad(gradients, wide))


@dataclass(frozen=True)
class Recipe:
    """How every cell of a sweep is trained and measured."""

    optimizer: Optimizer
    """The optimizer as a function of the learning rate."""
    loss: losses.Loss
    """The loss of training, a mean over the samples of a batch."""
    network: networks.FeedForward
    """The activation; an activation of zero is zero."""
    initial: str
    """The standard deviation of the initial weights, a name of `padding.INITIALS`."""
    epochs: int
    """The number of passes over the samples."""
    batch: int
    """The number of samples of a step; the last step of an epoch takes the samples that are left."""
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
        activation = self.network.slopes if function is None else f"{function.__module__}.{function.__qualname__}"
        return {
            "optimizer": self.optimizer.name,
            "loss": self.loss.name,
            "activation": activation,
            "initial": self.initial,
            "epochs": self.epochs,
            "batch": self.batch,
            "tangent": self.tangent,
            "stages": list(self.stages),
        }

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Recipe":
        """Return the recipe of the options of `sweep`, or raise an error that names the wrong one."""
        network = networks.feed_forward(options["activation"])
        if network.per_layer:
            raise ValueError("activation: Expected: one activation for all units. Received: slopes for each layer.")
        zero = 0.0 if network.function is None else float(network.function(jnp.zeros(())))
        if zero != 0:
            raise ValueError(f"activation: Expected: a function with the value 0 at 0. Received: one with {zero}.")
        if options["initial"] not in INITIALS:
            raise ValueError(f"initial: Expected: one of {', '.join(INITIALS)}. Received: {options['initial']!r}.")
        loss = losses.by_name(options["loss"]) if isinstance(options["loss"], str) else options["loss"]
        if not isinstance(loss, losses.Loss):
            raise TypeError(f"loss: Expected: a name, or an object of losses.Loss. Received: {options['loss']!r}.")
        epochs = integer("epochs", options["epochs"], 0)
        snapshots = tuple(sorted({integer("snapshots", n) for n in options["snapshots"]}))
        if snapshots and snapshots[-1] >= epochs:
            raise ValueError(f"snapshots: Expected: numbers below epochs, {epochs}. Received: {snapshots[-1]}.")
        return cls(
            optimizer=Optimizer.of(options["optimizer"]),
            loss=loss,
            network=network,
            initial=options["initial"],
            epochs=epochs,
            batch=integer("batch", options["batch"]),
            tangent=bool(options["tangent"]),
            snapshots=snapshots,
        )


def power_of(penalty: Any) -> int:
    """Return p of the penalty ``sum |w|^p`` over all weights, which is named l1, l2, ...; 0 of "none".

    Raises:
        ValueError: the penalty has another name.

    Example:
        >>> power_of("l2"), power_of("none")
        (2, 0)
    """
    if penalty == "none":
        return 0
    if isinstance(penalty, str) and penalty[:1] == "l" and penalty[1:].isdecimal() and int(penalty[1:]):
        return int(penalty[1:])
    raise ValueError(f"penalties: Expected: none, l1, l2, l3, ... . Received: {penalty!r}.")
