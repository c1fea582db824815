"""The same sweep on a cluster of two processes: equal cells, and workers that die."""

import os
import signal
import time
import warnings
from typing import Any

import numpy as np
import pytest

from globopt_jax import sweeps

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)), RNG.normal(size=(30, 2))
OPTIONS: dict[str, Any] = {"depths": [1, 2, 3], "widths": [2, 3], "seeds": 2, "epochs": 3, "batch": 8, "tangent": False}


def options(**changes: Any) -> dict[str, Any]:
    return OPTIONS | changes


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes with one thread each, which inherit this environment."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from distributed import LocalCluster

        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as found:
            yield found


@pytest.fixture
def client(cluster):
    from distributed import Client

    with Client(cluster) as found:
        yield found


def worker_processes(client) -> list[int]:
    return list(client.run(os.getpid).values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cell_by_cell")
def test_a_cluster_computes_the_same_cells(client, tmp_path):
    path = tmp_path / "cells.sqlite"
    seen: list[Any] = []
    found = sweeps.sweep(X, Y, **OPTIONS, client=client, store=path, progress=seen.append)
    np.testing.assert_allclose(found.loss, sweeps.sweep(X, Y, **OPTIONS).loss, rtol=1e-12)
    assert [p.done for p in seen] == [2, 4, 6, 8, 10, 12]
    seen.clear()
    again = sweeps.sweep(X, Y, **OPTIONS, client=client, store=path, progress=seen.append)
    assert not seen
    np.testing.assert_array_equal(again.loss, found.loss)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_worker_that_dies_costs_no_cell(client, kills, tmp_path):
    path, left = tmp_path / "cells.sqlite", [kills]

    def kill(progress):
        if left[0]:
            left[0] -= 1
            time.sleep(0.05)
            os.kill(worker_processes(client)[0], signal.SIGKILL)

    slower = options(epochs=40, batch=2)
    found = sweeps.sweep(X, Y, **slower, client=client, store=path, progress=kill)
    assert left == [0]
    np.testing.assert_allclose(found.loss, sweeps.sweep(X, Y, **slower).loss, rtol=1e-10)
    assert len(sweeps.Store(path).finished()) == 12


@pytest.mark.filterwarnings("ignore")
def test_a_client_need_not_be_the_default_client(cluster):
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        found = sweeps.sweep(X, Y, **options(depths=1, widths=2), client=client)
    assert not np.any(np.isnan(found.loss))


@pytest.mark.filterwarnings("ignore")
def test_a_client_that_is_closed(cluster):
    from distributed import Client

    client = Client(cluster)
    client.close()
    with pytest.raises(ValueError, match="client: Expected: a client that is connected. Received: one .* is closed"):
        sweeps.sweep(X, Y, **OPTIONS, client=client)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cell_by_cell")
def test_a_client_that_is_closed_during_the_sweep(cluster, tmp_path):
    from distributed import Client

    client, path = Client(cluster), tmp_path / "cells.sqlite"
    with pytest.raises(RuntimeError, match=r"client: .*Finished cells are stored"):
        sweeps.sweep(X, Y, **OPTIONS, client=client, store=path, progress=lambda _: client.close())
    assert sweeps.Store(path).finished()
    found = sweeps.sweep(X, Y, **OPTIONS, store=path)
    assert not np.any(np.isnan(found.loss))
