"""Where the portions of a sweep are computed: in this process, or by the workers of a Dask client."""

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax

from globopt_jax.sweeps.cells import Worker
from globopt_jax.sweeps.plan import Plan, Portion, Row

__all__ = ["check_client", "here", "on_cluster", "precision"]

#: What is said of a cluster that has gone.
GONE = (
    "client: Expected: a cluster that stays. Received: one whose scheduler has gone, or a client that was closed. "
    "Finished cells are stored; the same call goes on with the others."
)


def here(
    plan: Plan, portions: Sequence[Portion], do: Callable[[Worker, Portion], Any] = Worker.rows
) -> Iterator[tuple[Portion, Any]]:
    """Do the portions in this process, and yield each one and its result when it is finished.

    On CPUs there is a thread for each core, and each of them does one portion of small networks at a time: the steps of
    such networks are too short for several cores, and one thread trains while another one compiles. The other portions
    are done one after the other.

    Args:
        plan: the sweep.
        portions: portions of the plan.
        do: what is done with a portion. By default it is trained and measured, and its result are the rows of a store.
    """
    with precision(plan):
        worker = Worker(plan)
    small = [portion for portion in portions if plan.is_cached(portion.cells[0])]
    threads = min(len(small), _cores()) if jax.default_backend() == "cpu" else 1
    if threads > 1:
        yield from _in_threads(worker, threads, small, do)
        portions = [portion for portion in portions if not plan.is_cached(portion.cells[0])]
    for portion in portions:
        with precision(plan):  # not around the yield, since the caller has a precision of its own
            found = do(worker, portion)
        yield portion, found


def _in_threads(worker: Worker, threads: int, portions: Sequence[Portion], do: Any) -> Iterator[tuple[Portion, Any]]:
    """Do the portions in threads. After an error or Ctrl-C they end with the epoch or the J that they are in."""
    device = worker.X.device  # the default device of the caller; each thread has its own, as its own precision

    def done(portion: Portion) -> Any:
        with precision(worker.plan), jax.default_device(device):
            return do(worker, portion)

    worker.threads, pool = threads, ThreadPoolExecutor(threads)
    futures = {pool.submit(done, portion): portion for portion in portions}
    try:
        for future in as_completed(futures):
            if future.exception() is not None:  # what is finished comes first, so that it is not lost
                for other in [f for f in futures if f.done() and f.exception() is None]:
                    yield futures[other], other.result()
            yield futures.pop(future), future.result()
    finally:
        worker.stopped = True
        pool.shutdown(cancel_futures=True)
        worker.stopped, worker.threads = False, 1


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_client(client: Any) -> None:
    """Raise an error unless the client is one of Dask that has a scheduler."""
    if not all(hasattr(client, name) for name in ("submit", "status", "scheduler_info")):
        raise TypeError(f"client: Expected: a dask.distributed.Client. Received: {type(client).__name__}.")
    if client.status != "running":
        raise ValueError(
            f"client: Expected: a client that is connected. Received: one whose status is {client.status}."
        )


def on_cluster(plan: Plan, portions: Sequence[Portion], client: Any) -> Iterator[tuple[Portion, list[Row]]]:
    """Do the portions on the workers of a client, and yield them as they are finished.

    A portion whose worker dies is done again by another worker. The plan is a task of its own, not scattered data, so
    that the scheduler can send it again after every copy of it died with its worker.

    Raises:
        RuntimeError: the scheduler has gone, or the workers of one portion died more often than the scheduler allows
            (distributed.scheduler.allowed-failures, 3 by default).
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")
        shared = client.submit(_same, plan, pure=False)
    futures = {client.submit(_rows, shared, p, pure=False): p for p in portions}
    try:
        for future in _finished(client, futures):
            yield futures[future], _result(client, future, futures[future])
            future.release()
    finally:
        if client.status == "running":  # a closed client would wait for an answer
            with contextlib.suppress(Exception):
                client.cancel([*futures, shared])


def _finished(client: Any, futures: Iterable[Any]) -> Iterator[Any]:
    """Yield futures as they finish. Dask's own iterator waits forever for a client that is closed meanwhile."""
    from distributed import as_completed  # imported here, since only clusters need it

    waiting = as_completed(futures, loop=client.loop)  # the client need not be Dask's default client
    while not waiting.is_empty():
        batch = waiting.next_batch(block=False)
        yield from batch
        if not batch:
            _check_open(client)
            time.sleep(0.01)


def _result(client: Any, future: Any, portion: Portion) -> list[Row]:
    from distributed import CancelledError, KilledWorker

    while True:
        _check_open(client)
        try:
            return future.result(timeout=1)  # seconds, after which it is checked again whether the client is open
        except TimeoutError:
            if future.status == "error":
                raise  # the portion's own error
        except KilledWorker as error:
            raise RuntimeError(
                f"client: the workers that computed {portion} died, one after the other, perhaps for lack of memory. "
                "Finished cells are stored; the same call goes on with the others."
            ) from error
        except CancelledError as error:
            raise RuntimeError(GONE) from error


def _check_open(client: Any) -> None:
    """Raise an error if the client was closed. One that lost its scheduler tries to find it again for a while."""
    if client.status not in ("running", "connecting"):
        raise RuntimeError(GONE)


def _same(plan: Plan) -> Plan:
    return plan


#: The last plan of this process and its worker, so that data and programs are kept between portions.
_last: dict[str, Any] = {"plan": None, "worker": None}


def _rows(plan: Plan, portion: Portion) -> list[Row]:
    """Do a portion in a process of the cluster."""
    with precision(plan):
        if _last["plan"] is not plan:
            _last.update(plan=plan, worker=Worker(plan))
        return _last["worker"].rows(portion)


def precision(plan: Plan) -> Any:
    """Return the context in which a plan is trained: x64 is on for float64 and off for float32."""
    return jax.enable_x64(plan.data.X.dtype.itemsize == 8)
