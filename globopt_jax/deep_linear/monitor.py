"""A monitor for training loops: judgement, gap bound and singular values every n steps, as an optax transformation."""

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
    """What a monitor saw, a row a look.

    ``step`` (t,): updates before the look. ``loss``, ``gap`` = loss - optimum, ``gap_bound``: see
    `suboptimality_bound`, ``stationarity``: the gradient free of units, ``code``: index into the kinds of `classify`,
    ``rank``: numerical rank of the product, all (t,). ``kept`` (t, n): the share of each direction of the fit.
    ``singular_values`` (t, n): of the prediction X R, largest first; those of the fit are what they grow to.
    """

    step: Array
    loss: Array
    gap: Array
    gap_bound: Array
    stationarity: Array
    code: Array
    rank: Array
    kept: Array
    singular_values: Array

    @property
    def kinds(self) -> list[str]:
        """The verdict of every row in words, "diverged" where the loss is NaN; saddles are not told apart."""
        rows = zip(np.atleast_1d(np.asarray(self.code)), np.atleast_1d(np.asarray(self.loss)), strict=True)
        return ["diverged" if np.isnan(loss) else KINDS[int(code)] for code, loss in rows]


class MonitorState(NamedTuple):
    """``step``: updates so far. ``every``: updates between two looks. ``used``: rows in use. ``rows``: all of them."""

    step: Array
    every: Array
    used: Array
    rows: History


def observe(weights: Sequence[Any], fit: Fit, samples: int, step: Any = 0) -> History:
    """One row, at weights whose dtype is made the fit's; an array function."""
    weights = [jnp.asarray(w, fit.inputs.dtype) for w in weights]
    # Weights that have diverged are noted as NaN; LAPACK would complain about them on the standard output.
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
    """Watch a deep linear network while it trains: an optax transformation that changes nothing and takes notes.

        ``optimizer = optax.chain(deep_linear.monitor(X, Y, every=100), optax.adam(1e-3))``

    The data are reduced once (`least_squares`); a look costs some products and singular value decompositions of the
    size of the layers, whatever the number of samples, and happens every n-th update, under `jit` and `scan` as well.
    When the rows are used up every second one is dropped, and looks become half as frequent: a run of any length fits.
    A look is at the weights before the update. Read the notes with `history`.

    Under `vmap` over networks JAX evaluates both sides of a condition, so that every update pays for a look.

    Args:
        X: (m, dx). Y: (m, dy); all of the data, whatever the batches. every: at least 1.
        capacity: rows, an even number. kernels: the list of kernels W_l (d_{l-1}, d_l) in the optimizer's params.

    Raises:
        ValueError: data with NaN or shapes that do not fit, numbers that are not positive; from `update`, if the
            training loop passes no params.
        TypeError: data that are not real numbers, `kernels` is no function.

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
    """The kernels in an optimizer's params.

    Raises:
        ValueError: they are no matrices, or lead from other numbers of inputs to other numbers of outputs.
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
    """Return what a monitor noted, as NumPy arrays, from an optimizer's state, chained or not.

    Raises:
        ValueError: no monitor, or more than one, is in there; the states of many networks at once.
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, MonitorState))
    found = [s for s in leaves if isinstance(s, MonitorState)]
    if len(found) != 1:
        raise ValueError(
            f"state: Expected: the state of an optimizer with one monitor. Received: {len(found)} of them."
        )
    if np.ndim(found[0].used):
        raise ValueError(
            "state: Expected: one network's; of many take jax.tree.map(lambda a: a[i], state). Received: "
            f"{np.shape(found[0].used)} of them."
        )
    used = int(found[0].used)
    return jax.tree.map(lambda a: np.asarray(a)[:used], found[0].rows)
