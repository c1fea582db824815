"""Compiled programs that train and measure padded networks of one shape, vmapped over the networks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.shapes import Array
from globopt_jax.sweeps.padding import Padded, forward
from globopt_jax.sweeps.recipe import Recipe

__all__ = ["Batches", "Knobs", "Measured", "epoch", "in_chunks", "measure", "orders", "shares", "start"]

#: The most samples that are measured at a time.
_CHUNK = 1024
#: Philox keys from this number on draw the orders of samples; smaller ones draw the weights of layers.
_ORDERS = 2**32


class Knobs(NamedTuple):
    """The numbers of a cell that a compiled program takes as arguments, or arrays with one for each network.

    Scalars leave out the layers that are missing. With arrays, all layers are computed.
    """

    depth: Any
    """The number of hidden layers."""
    rate: Any
    """The learning rate."""
    lam: Any
    """The strength of the penalty."""
    penalty: Any
    """The index of the penalty's power in the recipe."""


class Batches(NamedTuple):
    """The samples of all steps of one epoch."""

    samples: Any
    """(networks, steps, batch): the indices of the samples."""
    weights: Any
    """(steps, batch): one over the batch, and 0 for missing samples of the last step."""


class Measured(NamedTuple):
    """Sums over the samples."""

    loss: Any
    """The loss."""
    correct: Any
    """The number of samples whose largest output is at the largest target."""


@functools.partial(jax.jit, static_argnums=0)
def start(recipe: Recipe, weights: Padded, rate: Any) -> Any:
    """Return the state of the optimizer, given weights with a leading axis for the networks."""
    return jax.vmap(lambda w, rate: recipe.optimizer(rate).init(_matrices(w)), (0, _axis(rate)))(weights, rate)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def epoch(
    recipe: Recipe, weights: Padded, state: Any, knobs: Knobs, X: Array, Y: Array, batches: Batches
) -> tuple[Padded, Any]:
    """Train all networks for one epoch.

    Args:
        recipe: the settings of the sweep.
        weights: padded weights with a leading axis for the networks.
        state: the state of the optimizer, from `start` or from the last epoch.
        knobs: the numbers of the cell, or of each network.
        X: inputs (m, dx).
        Y: targets (m, dy).
        batches: the samples of each step.

    Returns:
        Weights and state after the epoch.
    """

    def trained(weights: Padded, state: Any, knobs: Knobs, samples: Any) -> tuple[Padded, Any]:
        optimizer = recipe.optimizer(knobs.rate)

        def step(carry: tuple[Padded, Any], batch: tuple[Any, Any]) -> tuple[tuple[Padded, Any], None]:
            weights, state = carry
            chosen, shares = batch
            predicted, pull = jax.vjp(lambda w: forward(recipe.network, w, knobs.depth, X[chosen]), weights)
            (gradients,) = pull(shares[:, None] * recipe.loss.gradient(predicted, Y[chosen]))
            gradients = _penalized(recipe, gradients, weights, knobs)
            updates, state = optimizer.update(_matrices(gradients), state, _matrices(weights))
            return (jax.tree.map(lambda w, u: w + u.reshape(w.shape), weights, updates), state), None

        return jax.lax.scan(step, (weights, state), (samples, batches.weights))[0]

    return _mapped(trained, (0, 0, _axis(knobs.rate), 0), weights, state, knobs, batches.samples)


def _matrices(weights: Padded) -> Padded:
    """Return the weights of one network as matrices, which some optimizers treat in another way than stacks of one."""
    return [w[0] if w.ndim == 3 and len(w) == 1 else w for w in weights]


def _mapped(function: Callable[..., Any], axes: tuple[int | None, ...], *arguments: Any) -> Any:
    """Return `jax.vmap` of a function over the networks, or the function itself for one network.

    XLA on CPUs multiplies a batch of one matrix half as fast as a matrix, at the sizes of K18.
    """
    if len(jax.tree.leaves(arguments)[0]) > 1:
        return jax.vmap(function, axes)(*arguments)
    single = (
        jax.tree.map(lambda a: a[0], argument) if axis == 0 else argument
        for axis, argument in zip(axes, arguments, strict=True)
    )
    return jax.tree.map(lambda a: a[None], function(*single))


def _axis(knob: Any) -> int | None:
    """Return the axis over which a knob is vmapped."""
    return 0 if jnp.ndim(knob) else None


def _penalized(recipe: Recipe, gradients: Padded, weights: Padded, knobs: Knobs) -> Padded:
    """Add the gradient of ``lam sum |w|^p``; where a weight is zero the gradient for p = 1 is zero."""
    if not any(recipe.powers):
        return gradients

    def slope(p: int) -> Any:
        if p == 0:
            return lambda weights: jax.tree.map(jnp.zeros_like, weights)
        return lambda weights: jax.tree.map(lambda w: p * jnp.abs(w) ** (p - 1) * jnp.sign(w), weights)

    slopes = jax.lax.switch(knobs.penalty, [slope(p) for p in recipe.powers], weights)
    return jax.tree.map(lambda g, s: g + knobs.lam * s, gradients, slopes)


@functools.partial(jax.jit, static_argnums=0)
def measure(recipe: Recipe, weights: Padded, depth: Any, X: Array, Y: Array, present: Array) -> Measured:
    """Measure all networks; samples come in chunks (n, c, ...), and `present` (n, c) is 0 for padding."""

    def measured(weights: Padded, depth: Any) -> Measured:
        def add(total: Measured, chunk: tuple[Any, Any, Any]) -> tuple[Measured, None]:
            inputs, targets, there = chunk
            predicted = forward(recipe.network, weights, depth, inputs, skip=False)
            each = jax.vmap(lambda a, b: recipe.loss(a[None], b[None]))(predicted, targets)
            hits = jnp.argmax(predicted, axis=1) == jnp.argmax(targets, axis=1)
            return Measured(
                total.loss + jnp.sum(there * each), total.correct + jnp.sum(jnp.where(hits, there, 0))
            ), None

        zero = jnp.zeros((), X.dtype)
        return jax.lax.scan(add, Measured(zero, zero), (X, Y, present))[0]

    return _mapped(measured, (0, _axis(depth)), weights, depth)


@functools.lru_cache(maxsize=128)
def orders(seeds: tuple[int, ...], epoch: int, m: int, batch: int) -> np.ndarray:
    """Return the samples of the steps of one epoch, (seeds, steps, batch), drawn by NumPy for each seed alone.

    A batch of more than all samples is one of all samples.

    The last step of an epoch is completed by copies of sample 0, which have the weight zero.
    """
    batch = min(batch, m)
    steps = -(-m // batch)
    found = np.zeros((len(seeds), steps * batch), np.int32)
    for row, seed in zip(found, seeds, strict=True):
        row[:m] = np.random.Generator(np.random.Philox(key=[seed, _ORDERS + epoch])).permutation(m)
    return found.reshape(len(seeds), steps, batch)


def shares(m: int, batch: int, dtype: Any) -> np.ndarray:
    """Return the weight of each sample of each step (steps, batch): one over the batch, 0 for padding.

    So all samples count the same. With one over the size of the step, a short last step would be as long as the others
    and much noisier. On CIFAR-10 a last step of 32 samples instead of 128 lowered the accuracy after it from 40 to 31
    percent.
    """
    batch = min(batch, m)
    steps = -(-m // batch)
    return ((np.arange(steps * batch) < m).reshape(steps, batch) / batch).astype(dtype)


def in_chunks(array: np.ndarray) -> np.ndarray:
    """Return (m, ...) as (n, c, ...), with zeros for what is missing of the last chunk."""
    m = len(array)
    n = -(-m // _CHUNK)
    c = -(-m // n)
    found = np.zeros((n * c, *array.shape[1:]), array.dtype)
    found[:m] = array
    return found.reshape(n, c, *array.shape[1:])
