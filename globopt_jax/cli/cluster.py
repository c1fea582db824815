"""The Dask cluster of a command."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from globopt_jax import runs, sweeps
from globopt_jax.cli.terminal import say

__all__ = ["errors_in_words", "scheduler"]

#: The seconds in which a scheduler has to answer.
PATIENCE = 5.0


@contextlib.contextmanager
def scheduler(address: str | None) -> Iterator[Any]:
    """Connect to a Dask scheduler, and yield a client; None where there is no address.

    Raises:
        ImportError: Dask is not installed.
        ValueError: nothing that is a scheduler answers at the address.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client, Security, rpc  # imported here, since only clusters need it
    except ImportError as error:
        raise ImportError("--scheduler needs Dask: pip install 'globopt_jax[cluster]'.") from error

    async def ask() -> Any:
        # A Client that finds no scheduler waits for minutes when it is thrown away, so this question comes first.
        remote = rpc(address, connection_args=Security().get_connection_args("client"))
        try:
            return await asyncio.wait_for(remote.identity(), PATIENCE)
        finally:
            _ = await remote.close_rpc()

    expected = "--scheduler: Expected: the address of a Dask scheduler, such as tcp://127.0.0.1:8786. Received:"
    try:
        known = asyncio.run(ask())
    except TimeoutError:
        raise ValueError(f"{expected} {address}, where no scheduler answers within {PATIENCE:g} s.") from None
    except Exception as error:  # Dask has no common class for addresses that it cannot read
        raise ValueError(f"{expected} {address!r} ({error}).") from error
    if known.get("type") != "Scheduler":
        raise ValueError(f"{expected} {address}, where a {str(known.get('type')).lower()} answers.")
    if not known.get("workers"):
        say(f"the scheduler at {address} has no workers yet; the sweep waits for them")
    with Client(address, timeout=PATIENCE, set_as_default=False) as client:
        yield client


@contextlib.contextmanager
def errors_in_words() -> Iterator[None]:
    """Turn errors of a sweep into those of a command, whose messages name its options."""
    try:
        yield
    except sweeps.StoreInUse as error:
        raise runs.FolderInUse(str(error)) from None
    except RuntimeError as error:
        if not str(error).startswith("client: "):
            raise
        words = str(error).replace("client: ", "--scheduler: ", 1).replace("the same call", "the same command")
        raise ConnectionError(words) from None
