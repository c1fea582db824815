"""Portions that are done by threads of this process."""

import os
import queue
import signal
import threading
import time

import jax
import numpy as np
import pytest
import threadpoolctl

from globopt_jax.sweeps import engines
from globopt_jax.sweeps.cells import ROOM, THREADED, TURNS, Turns, Worker
from globopt_jax.sweeps.plan import planned
from globopt_jax.sweeps.sweep import SGD

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch):
    """Threads are for CPUs; what they compute is the same elsewhere."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")


def plan_of(dtype="float64", **changes):
    axes = {"depth": [1, 2], "width": [2, 3], "subnetworks": 1, "penalty": "none", "lam": 0.0, "rate": [0.1, 0.01]}
    axes |= {"seed": (0, 1)}
    options = {
        "optimizer": SGD,
        "loss": "squared",
        "activation": "relu",
        "initial": "fan_out",
        "epochs": 3,
        "batch": 8,
        "tangent": True,
        "snapshots": (),
    }
    given = {name: changes.pop(name) for name in axes.keys() & changes}
    return planned(X.astype(dtype), Y.astype(dtype), None, axes | given, options | changes)


def without_time(results):
    return sorted(
        tuple(value for name, value in row.items() if name != "seconds") for _, rows in results for row in rows
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_threads_compute_the_same_numbers(dtype, monkeypatch):
    """Each thread has the precision of the sweep, whichever its caller has."""
    plan, found, used = plan_of(dtype), {}, set()
    rows = Worker.rows

    def watched(worker, portion):
        used.add(threading.get_ident())
        return rows(worker, portion)

    for cores in (1, 3):
        used.clear()
        monkeypatch.setattr(engines, "_cores", lambda cores=cores: cores)
        found[cores] = without_time(engines.here(plan, plan.portions(), watched))
        assert (threading.get_ident() in used) == (cores == 1)
    assert len(found[1]) == 16
    assert found[1] == found[3]


def test_large_networks_are_done_one_after_the_other(monkeypatch):
    monkeypatch.setattr(engines, "_cores", lambda: 2)
    plan = plan_of(width=[2, 600])
    used = {}
    for portion, thread in engines.here(plan, plan.portions(), lambda *_: threading.get_ident()):
        used.setdefault(portion.cells[0].width, set()).add(thread)
    assert used[600] == {threading.get_ident()}
    assert threading.get_ident() not in used[2]
    large = plan_of(width=[600], depth=[2], rate=[0.1], seed=(0,), epochs=1, tangent=False)
    ((_, (row,)),) = engines.here(large, large.portions())
    assert row["seconds"] > 0


def lapack_threads():
    """Of all libraries that can have several."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return {pool["num_threads"] for pool in pools if pool["threading_layer"] != "disabled"}


@pytest.fixture
def two_lapack_threads():
    """What most people have; the suite has one. A thread that has ended keeps nobody from setting limits."""

    limits = []

    def run(change):
        thread = threading.Thread(target=change)
        thread.start()
        thread.join()

    run(lambda: limits.append(threadpoolctl.threadpool_limits(2, user_api="blas")))
    assert lapack_threads() == {2}
    yield
    run(limits[0].restore_original_limits)


def test_small_networks_share_the_room_and_a_large_one_has_it_alone(two_lapack_threads):
    """Two that need 0.4 of it fit beside each other; a third waits, and so does a large one, in either order."""
    turns, begun, go_on = Turns(), queue.Queue(), threading.Semaphore(0)

    def work(columns):
        with turns.take(columns, int(0.4 * ROOM)):
            begun.put(columns)
            assert go_on.acquire(timeout=60)

    def nobody_begins():
        time.sleep(0.1)
        return begun.empty()

    threads = [threading.Thread(target=work, args=(columns,)) for columns in (5, 5, 5, THREADED + 1)]
    for thread in threads[:3]:
        thread.start()
    assert [begun.get(timeout=60) for _ in range(2)] == [5, 5]
    threads[3].start()
    assert nobody_begins()
    assert lapack_threads() == {1}
    go_on.release(2)
    last = [begun.get(timeout=60)]
    assert nobody_begins()
    assert lapack_threads() == ({1} if last == [5] else {2})
    go_on.release()
    last.append(begun.get(timeout=60))
    go_on.release()
    for thread in threads:
        thread.join(60)
    assert sorted(last) == [5, THREADED + 1]
    assert lapack_threads() == {2}


def test_ctrl_c_gives_back_the_room_and_lapack_its_threads(two_lapack_threads):
    turns = Turns()

    def interrupted():
        with turns.take(5, ROOM):
            assert lapack_threads() == {1}
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert not turns.held
        assert lapack_threads() == {2}


def test_sweeps_of_one_process_take_turns(two_lapack_threads):
    """Each would take the other's limit of LAPACK for the setting to go back to."""
    plan = plan_of(depth=[1], width=[2], rate=[0.1])

    def swept():
        assert list(engines.here(plan, plan.portions()))

    swept()  # compiles
    thread = threading.Thread(target=swept)
    with TURNS.take(THREADED + 1, ROOM):  # what another sweep does
        thread.start()
        thread.join(2)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()
    assert lapack_threads() == {2}


def test_an_error_ends_all_threads(monkeypatch):
    monkeypatch.setattr(engines, "_cores", lambda: 2)
    plan = plan_of(rate=[*np.linspace(0.01, 0.1, 20)], epochs=200, tangent=False)
    begun = []

    def fails(worker, portion):
        begun.append(portion)
        if len(begun) == 2:
            raise OSError("no space left")
        return worker.rows(portion)

    threads = threading.active_count()
    with pytest.raises(OSError, match="no space left"):
        _ = [*engines.here(plan, plan.portions(), fails)]
    assert threading.active_count() == threads
    assert len(begun) < 10


def test_what_is_finished_when_an_error_comes_is_not_lost(monkeypatch):
    monkeypatch.setattr(engines, "_cores", lambda: 2)
    plan = plan_of(tangent=False)
    order, failed = plan.portions()[:3], threading.Event()

    def third_after_the_error(worker, portion):
        del worker
        if portion is order[1]:
            assert first_is_out.wait(60)
            failed.set()
            raise OSError("no space left")
        if portion is order[2]:
            assert failed.wait(60)
            third_is_done.set()
        return portion

    first_is_out, third_is_done = threading.Event(), threading.Event()
    found = []

    def collect():
        for portion, _ in engines.here(plan, order, third_after_the_error):
            found.append(portion)
            first_is_out.set()
            assert third_is_done.wait(60)
            time.sleep(0.1)  # until its thread has handed the result over

    with pytest.raises(OSError, match="no space left"):
        collect()
    assert found == [order[0], order[2]]


def test_what_the_caller_leaves_is_not_done(monkeypatch):
    monkeypatch.setattr(engines, "_cores", lambda: 2)
    plan = plan_of(rate=[*np.linspace(0.01, 0.1, 20)], tangent=False)
    begun = []

    def counted(worker, portion):
        begun.append(portion)
        return worker.rows(portion)

    results = engines.here(plan, plan.portions(), counted)
    _ = next(results)
    results.close()
    assert len(begun) < 20


def test_ctrl_c_ends_the_training_of_all_threads(monkeypatch):
    monkeypatch.setattr(engines, "_cores", lambda: 2)
    plan, threads = plan_of(epochs=10**6, tangent=False), threading.active_count()

    def rows(worker, portion):
        if portion.cells[0].rate == 0.01:
            threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        return worker.rows(portion)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _ = next(engines.here(plan, plan.portions()[:2], rows))
    finally:
        _ = signal.signal(signal.SIGINT, before)
    assert threading.active_count() == threads
