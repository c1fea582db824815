"""A monitor for training loops: an optax transformation that records kind, gap, bound and singular values."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from globopt_jax import linalg
from globopt_jax.deep_linear.fit import Fit, proved_fit
from globopt_jax.deep_linear.inputs import check_pair
from globopt_jax.deep_linear.judgement import KINDS, NOT_CRITICAL, judgement_at
from globopt_jax.deep_linear.network import predict, widths_of
from globopt_jax.inputs import integer
from globopt_jax.shapes import Array

__all__ = ["History", "MonitorState", "history", "monitor", "observe"]


class History(NamedTuple):
    """The records of a monitor, one row for each observation, from `history`."""

    step: Array
    """(t,): the number of updates before the observation."""
    loss: Array
    """(t,): the loss L on all of the monitor's data; nan where the weights have diverged."""
    gap: Array
    """(t,): ``L - L*``."""
    gap_bound: Array
    """(t,): the upper bound of the gap, see `suboptimality_bound`."""
    stationarity: Array
    """(t,): the dimensionless gradient, see `Classification`."""
    code: Array
    """(t,): the index of the kind that `classify` tells; ``.kinds`` has the names."""
    rank: Array
    """(t,): the numerical rank of the product of all kernels."""
    kept: Array
    """(t, n): the share of each direction of the fit that the network has learned."""
    singular_values: Array
    """(t, n): the singular values of the prediction X R, largest first. They grow to the singular values of the fit."""

    @property
    def kinds(self) -> list[str]:
        """The kind of every row in words, "diverged" where the loss is NaN. Strict saddles are not distinguished."""
        rows = zip(np.atleast_1d(np.asarray(self.code)), np.atleast_1d(np.asarray(self.loss)), strict=True)
        return ["diverged" if np.isnan(loss) else KINDS[int(code)] for code, loss in rows]


class MonitorState(NamedTuple):
    """The optax state of a monitor."""

    step: Array
    """The number of updates so far."""
    every: Array
    """The number of updates between two observations."""
    used: Array
    """The number of rows in use."""
    rows: History
    """All rows, used or not."""


def observe(weights: Sequence[Any], fit: Fit, samples: int, step: Any = 0) -> History:
    """Return one row of the history at weights, which are converted to the dtype of the fit; an array function."""
    weights = [jnp.asarray(w, fit.inputs.dtype) for w in weights]
    # Zeros replace weights that have diverged, since LAPACK would print complaints; the row becomes NaN below.
    well = jnp.isfinite(jnp.sum(jnp.square(predict(weights, fit.inputs))))
    weights = [jnp.where(well, w, 0) for w in weights]
    judgement, point = judgement_at(weights, fit, samples)
    n = len(fit.singular_values)
    values = linalg.singular_values(point.before[-1])[:n]
    seen = History(
        step=jnp.asarray(step, jnp.int32),
        loss=judgement.loss,
        gap=judgement.gap,
        gap_bound=judgement.gap_bound,
        stationarity=judgement.stationarity,
        code=judgement.code,
        rank=judgement.rank,
        kept=judgement.kept,
        singular_values=jnp.pad(values, (0, n - len(values))),
    )
    diverged = jax.tree.map(lambda a: jnp.where(well, a, jnp.nan) if jnp.issubdtype(a.dtype, jnp.floating) else a, seen)
    return diverged._replace(code=jnp.where(well, seen.code, NOT_CRITICAL))


def monitor(
    X: Any,
    Y: Any,
    *,
    every: int = 100,
    capacity: int = 1024,
    kernels: Callable[[Any], Sequence[Any]] = list,
) -> optax.GradientTransformationExtraArgs:
    """Return an optax transformation that records the training of a deep linear network and leaves updates unchanged.

        ``optimizer = optax.chain(deep_linear.monitor(X, Y, every=100), optax.adam(1e-3))``

    Every `every` updates the monitor observes the weights before the update. This works under `jit` and `scan`.
    `history` reads the records from the optimizer's state. When all rows are used, every second row is dropped and
    observations become half as frequent, so that a run of any length fits.

    The data are reduced once, by `least_squares`. One observation costs some products and singular value decompositions
    of the size of the layers, independent of the number of samples. Under `vmap` over networks every update costs as
    much as an observation, since JAX evaluates both sides of a condition.

    Args:
        X: inputs (m, dx), all of the data even if the training uses batches.
        Y: targets (m, dy), all of the data.
        every: the number of updates between two observations, at least 1.
        capacity: the number of rows, an even number.
        kernels: a function that takes the optimizer's params and returns the list of kernels W_l (d_{l-1}, d_l).

    Returns:
        The transformation. Its ``update`` needs the params as third argument.

    Raises:
        ValueError: the data have NaN or shapes that do not fit, `every` or `capacity` is not positive, or `capacity`
            is odd. ``update`` raises it if the training loop passes no params.
        TypeError: the data are not real numbers, or `kernels` is no function.

    Example:
        >>> import optax
        >>> X = Y = jnp.eye(2)
        >>> optimizer = optax.chain(monitor(X, Y, every=1), optax.identity())
        >>> weights = [jnp.eye(2), jnp.zeros((2, 2))]
        >>> _, state = optimizer.update(weights, optimizer.init(weights), weights)
        >>> notes = history(state)
        >>> notes.loss.round(9).tolist(), notes.kinds
        ([1.0], ['not_critical'])
    """
    every, capacity = integer("every", every), integer("capacity", capacity, 2)
    if capacity % 2:
        raise ValueError(f"capacity: Expected: an even number. Received: {capacity}.")
    if not callable(kernels):
        raise TypeError(f"kernels: Expected: a function of params. Received: {type(kernels).__name__}.")
    X, Y = check_pair(X, Y)
    fit, samples = proved_fit(X, Y), len(X)

    def look(params: Any, step: Any) -> History:
        return observe(_kernels_in(params, kernels, (X.shape[1], Y.shape[1])), fit, samples, step)

    def init(params: Any) -> MonitorState:
        row = jax.eval_shape(look, params, jnp.zeros((), jnp.int32))
        rows = jax.tree.map(lambda a: jnp.zeros((capacity, *a.shape), a.dtype), row)
        return MonitorState(jnp.zeros((), jnp.int32), jnp.full((), every, jnp.int32), jnp.zeros((), jnp.int32), rows)

    def note(state: MonitorState, params: Any) -> MonitorState:
        row = look(params, state.step)
        rows = jax.tree.map(lambda a, b: a.at[state.used].set(b), state.rows, row)
        used = state.used + 1
        full = used == capacity
        thinned = jax.tree.map(lambda a: jnp.where(full, jnp.concatenate([a[::2], a[::2]]), a), rows)
        twice = jnp.where(full, 2, 1).astype(jnp.int32)
        return MonitorState(state.step, state.every * twice, used // twice, thinned)

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("params: Expected: optimizer.update(grads, state, params). Received: no params.")
        due = state.step % state.every == 0
        state = jax.lax.cond(due, note, lambda state, _: state, state, params)
        return updates, state._replace(step=state.step + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def _kernels_in(params: Any, kernels: Callable[[Any], Sequence[Any]], ends: tuple[int, int]) -> Sequence[Any]:
    """Return the kernels in an optimizer's params.

    Raises:
        ValueError: the kernels are no matrices, or their numbers of inputs and outputs are not `ends`.
    """
    weights = kernels(params)
    if any(jnp.ndim(w) != 2 for w in weights):
        raise ValueError(
            "params: Expected: a list of kernels, or monitor(..., kernels=) that finds them. Received: "
            f"{jax.tree.structure(params)}."
        )
    widths = widths_of(weights)
    if (widths[0], widths[-1]) != ends:
        raise ValueError(f"params: Expected: kernels from {ends[0]} to {ends[1]} units. Received: widths {widths}.")
    return weights


def history(state: Any) -> History:
    """Return the records of a monitor as NumPy arrays.

    Args:
        state: the state of an optimizer that contains one monitor, chained or not.

    Returns:
        A `History` with one row for each observation. `monitor` has an example.

    Raises:
        ValueError: the state contains no monitor, or more than one, or belongs to many networks (from `vmap`).
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, MonitorState))
    found = [s for s in leaves if isinstance(s, MonitorState)]
    if len(found) != 1:
        raise ValueError(
            f"state: Expected: the state of an optimizer with one monitor. Received: {len(found)} monitors."
        )
    if np.ndim(found[0].used):
        raise ValueError(
            "state: Expected: the state of one network; select one by jax.tree.map(lambda a: a[i], state). Received: "
            f"the states of {np.shape(found[0].used)} networks."
        )
    used = int(found[0].used)
    return jax.tree.map(lambda a: np.asarray(a)[:used], found[0].rows)
