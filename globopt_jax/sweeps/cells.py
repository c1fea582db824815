"""Train and measure the portions of a sweep."""

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import local_minima
from globopt_jax.local_minima.passes import MEMORY
from globopt_jax.networks import FeedForward
from globopt_jax.shapes import Array
from globopt_jax.sweeps.padding import Shape, draw, pad, unpad
from globopt_jax.sweeps.plan import AXES, Plan, Portion, Row, column
from globopt_jax.sweeps.recipe import power_of
from globopt_jax.sweeps.tangent import groups_for, padded_value
from globopt_jax.sweeps.training import Batches, Knobs, epoch, in_chunks, measure, orders, shares, start

__all__ = ["ROOM", "THREADED", "TURNS", "Held", "Turns", "Worker"]

#: Up to this number of columns of the Jacobian, LAPACK is faster with one thread.
THREADED = 5000
#: The numbers that threads may hold together: the Gram matrix of so many columns, and the chunks of a pass.
ROOM = THREADED**2 + MEMORY // 8


class Held(NamedTuple):
    """Samples on the device, in chunks for measuring."""

    X: Array
    """(n, c, dx)."""
    Y: Array
    """(n, c, dy)."""
    present: Array
    """(n, c): 1 for samples, 0 for padding."""
    m: int
    """The number of samples."""

    @classmethod
    def of(cls, X: np.ndarray, Y: np.ndarray) -> "Held":
        """Put samples on the device."""
        inputs, targets, present = (jax.device_put(in_chunks(a)) for a in (X, Y, np.ones(len(X), X.dtype)))
        return cls(inputs, targets, present, len(X))


class Worker:
    """Does portions of a plan, and keeps the data on the device between them. Several threads can share a worker."""

    #: The number of threads that do portions at the same time.
    threads = 1
    #: Set to True to end the portions that are being done, after the epoch or the J that they are in, by an error.
    stopped = False

    def __init__(self, plan: Plan) -> None:
        self.plan, self.recipe, self.arrays = plan, plan.recipe, plan.arrays
        data, dtype = plan.data, plan.data.X.dtype
        self.dtype = dtype
        flat = {_flat(shape) for shape in self.arrays} - {None}
        networks = len(plan.axes["seed"]) * (len(plan.recipe.stages) if plan.recipe.epochs else 1)
        work = float(len(data.X)) * networks
        self.groups = groups_for(sorted(flat), data.X.shape[1], data.Y.shape[1], work) if flat else {}
        self.X, self.Y = jax.device_put(data.X), jax.device_put(data.Y)
        self.shares = jax.device_put(shares(len(data.X), self.recipe.batch, dtype))
        self.held = {"": Held.of(data.X, data.Y)}
        if data.test is not None:
            self.held["test_"] = Held.of(*data.test)

    def rows(self, portion: Portion) -> list[Row]:
        """Train and measure the networks of a portion. Return a row for each of them."""
        began = time.monotonic()
        rows: list[Row] = [dict(zip(AXES, (*cell, seed), strict=True)) for cell, seed in portion.members]
        for number, weights in enumerate(self.training(self.initial(portion), portion)):
            stages = [name for name, epochs in self.recipe.stages.items() if epochs == number]
            if stages:
                for row, measured in zip(rows, self._measured(weights, portion), strict=True):
                    row |= {column(name, stage): value for name, value in measured.items() for stage in stages}
        for row in rows:
            # Threads share the time, so that the seconds of all networks add up to those of the sweep.
            row["seconds"] = (time.monotonic() - began) / len(rows) / self.threads
        return rows

    def initial(self, portion: Portion) -> list[Any]:
        """Return the padded initial weights, with a leading axis for the members of the portion."""
        arrays = self.arrays[portion.cells[0].shape]
        drawn = [
            draw(cell.shape, arrays.dx, arrays.dy, seed, self.recipe.initial, self.dtype)
            for cell, seed in portion.members
        ]
        return [jax.device_put(np.stack(w)) for w in zip(*(pad(kernels, arrays) for kernels in drawn), strict=True)]

    def training(self, weights: list[Any], portion: Portion) -> Iterator[list[Any]]:
        """Yield the padded weights before training and after each epoch. The next epoch uses them up."""
        yield weights
        if not self.recipe.epochs:
            return
        knobs = self.knobs(portion)
        state = start(self.recipe, weights, knobs.rate)
        for number in range(self.recipe.epochs):
            drawn = orders(portion.seeds, number, len(self.X), self.recipe.batch)
            samples = jax.device_put(np.concatenate([drawn] * len(portion.cells)))
            weights, state = epoch(self.recipe, weights, state, knobs, self.X, self.Y, Batches(samples, self.shares))
            _ = jax.block_until_ready(weights)  # so that Ctrl-C waits for one epoch and not for all of them
            self._check_wanted()
            yield weights

    def knobs(self, portion: Portion) -> Knobs:
        """Return the numbers of the cells: scalars for one cell, and arrays over the members for several."""
        columns = zip(
            *((c.depth, c.rate, c.lam, self.recipe.powers.index(power_of(c.penalty))) for c in portion.cells),
            strict=True,
        )
        kinds = (np.int32, self.dtype, self.dtype, np.int32)
        found = [np.asarray(values, kind) for values, kind in zip(columns, kinds, strict=True)]
        several = len(portion.cells) > 1
        return Knobs(*(jax.device_put(np.repeat(v, len(portion.seeds)) if several else v[0]) for v in found))

    def trained(self, weights: list[Any], portion: Portion) -> list[Any]:
        """Return padded weights after all epochs. The given weights are used up."""
        for trained in self.training(weights, portion):
            weights = trained
        return weights

    def _measured(self, weights: list[Any], portion: Portion) -> list[dict[str, Any]]:
        """Return the numbers of each network."""
        depth = self.knobs(portion).depth
        rows: list[dict[str, Any]] = [{} for _ in range(len(weights[0]))]
        for prefix, held in self.held.items():
            found = measure(self.recipe, weights, depth, held.X, held.Y, held.present)
            for row, loss, correct in zip(rows, *map(np.asarray, found), strict=True):
                row[f"{prefix}loss"] = float(loss)
                if self.plan.data.classes:
                    row[f"{prefix}accuracy"] = float(correct) / held.m
        if self.recipe.tangent:
            for row, kernels, (cell, _) in zip(rows, self.kernels(weights, portion), portion.members, strict=True):
                row |= self.tangent(kernels, cell.shape)
        return rows

    def kernels(self, weights: list[Any], portion: Portion) -> list[list[np.ndarray]]:
        """Return the kernels of each network, without padding."""
        stacked = [np.asarray(w) for w in weights]
        return [
            unpad([w[i] for w in stacked], self.arrays[cell.shape], cell.shape)
            for i, (cell, _) in enumerate(portion.members)
        ]

    def tangent(self, kernels: list[np.ndarray], shape: Shape) -> dict[str, Any]:
        """Return J and the rank of a network, computed in float64, and whether `tangent_value` was sure of them.

        Where it was not, they are from `tangent_projection`. J is missing where weights or outputs are not finite.
        """
        if not all(np.all(np.isfinite(w)) for w in kernels):
            return {"J": None, "rank": None, "sure": None}
        apply, params = _model(self.recipe.network, [w.astype(np.float64) for w in kernels])
        arrays = self.groups.get(_flat(shape))
        if arrays is not None and arrays.parameters > self.plan.data.Y.size:
            arrays = None
        columns = sum(w.size for w in params) if arrays is None else arrays.parameters
        outputs = self.plan.data.Y.size
        room = min(columns, outputs) ** 2 + min(columns * outputs, MEMORY // 8)
        with TURNS.take(columns, room), jax.enable_x64(True):
            self._check_wanted()
            X, Y = self._wide
            if arrays is not None:
                found = padded_value(apply, params, arrays, X, Y)
            else:
                found = _tangent_value(apply, [jax.device_put(w) for w in params], X, Y)
            sure = bool(found.sure)
            if not sure and not np.isfinite(float(jnp.sum(jnp.square(apply(params, X))))):
                return {"J": None, "rank": None, "sure": None}
        if not sure:  # the host function may store the Jacobian, and gets all the room
            with TURNS.take(columns, ROOM), jax.enable_x64(True):
                self._check_wanted()
                found = local_minima.tangent_projection(apply, params, X, Y)
                if not found.converged:
                    found = local_minima.tangent_projection(apply, params, X, Y, method="dense")
        return {"J": float(found.value), "rank": int(found.rank), "sure": sure}

    def _check_wanted(self) -> None:
        """Raise an error in a thread that is to stop."""
        if self.stopped:
            raise CancelledError

    @functools.cached_property
    def _wide(self) -> tuple[Array, Array]:
        """The samples in float64."""
        return jax.device_put(self.plan.data.X.astype(np.float64)), jax.device_put(self.plan.data.Y.astype(np.float64))


class Turns:
    """Threads that compute J take turns: small networks as many at a time as there is room for, large ones alone.

    LAPACK has one thread meanwhile, unless the network is large. Threads of OpenBLAS wait in loops and keep XLA's
    threads from the processor: half of the time, up to some thousands of columns.
    """

    def __init__(self) -> None:
        self.free, self.held = threading.Condition(), {}
        self.limit, self.limited = contextlib.ExitStack(), False

    @contextlib.contextmanager
    def take(self, columns: int, room: int) -> Iterator[None]:
        """Wait for room for so many numbers, and hold it; a Jacobian of many columns takes all of `ROOM`."""
        size, mine = ROOM if columns > THREADED else min(room, ROOM), object()
        try:
            with self.free:
                _ = self.free.wait_for(lambda: sum(self.held.values()) + size <= ROOM)
                self.held[mine] = size  # all or nothing, wherever Ctrl-C comes
                if columns <= THREADED and not self.limited and self._pools is not None:
                    self.limited = True
                    self.limit.enter_context(_one_lapack_thread(self._pools))
            yield
        finally:
            _ = self.held.pop(mine, None)  # before the lock, so that another Ctrl-C takes no room for ever
            with self.free:
                self.free.notify_all()
                if not self.held:
                    self.limited = False
                    self.limit.close()

    @functools.cached_property
    def _pools(self) -> Any:
        """The thread pools of this process; None without threadpoolctl, which comes with scikit-learn."""
        try:
            from threadpoolctl import ThreadpoolController  # imported here, since only sweeps need it
        except ImportError:
            return None
        return ThreadpoolController()


@contextlib.contextmanager
def _one_lapack_thread(pools: Any) -> Iterator[None]:
    """Set the limit and end it in a thread of its own, which ends with it.

    threadpoolctl lets nobody but the thread that set a limit change it, as long as that thread lives. Ctrl-C does not
    reach that thread.
    """
    set_, over = threading.Event(), threading.Event()

    def hold() -> None:
        with pools.limit(limits=1, user_api="blas"):
            set_.set()
            _ = over.wait()

    owner = threading.Thread(target=hold, daemon=True)
    try:
        owner.start()
        _ = set_.wait()
        yield
    finally:
        over.set()
        with contextlib.suppress(RuntimeError):  # Ctrl-C came before it began, and it ends at once
            owner.join()


#: One for all sweeps of the process, which has one memory and one LAPACK.
TURNS = Turns()


@functools.partial(jax.jit, static_argnums=0)
def _tangent_value(apply: Any, params: Any, X: Array, Y: Array) -> local_minima.TangentValue:
    return local_minima.tangent_value(apply, params, X, Y)


def _flat(shape: Shape) -> Any:
    """Return the shape of a network as one fully connected network with hidden layers; None if it is none."""
    if not shape.depth or (shape.depth > 1 and shape.subnetworks > 1):
        return None
    return Shape(shape.depth, shape.width * shape.subnetworks)


def _model(network: FeedForward, kernels: list[np.ndarray]) -> tuple[Any, list[np.ndarray]]:
    """Return a network as a function and its params, in the form that `local_minima` knows best."""
    if kernels[0].ndim == 2:
        return network, kernels
    if len(kernels) > 2:
        return _parallel(network), kernels
    # Subnetworks with one hidden layer are one network with one hidden layer.
    first, last = kernels
    return network, [first.transpose(1, 0, 2).reshape(first.shape[1], -1), last.reshape(-1, last.shape[2])]


@functools.cache
def _parallel(network: FeedForward) -> Any:
    """Return the sum of parallel subnetworks as a function of stacked kernels; the same object for equal networks."""
    return lambda params, X: jnp.sum(jax.vmap(lambda w: network(w, X))(params), axis=0)
