"""What every array function promises: jit equals eager, vmap equals a loop, the dtype stays, nothing retraces."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np


def assert_kept(f: Callable[..., Any], make: Callable[[np.random.Generator], Any], dtype: Any) -> None:
    """One function, two sets of arguments; integers stay integers."""
    chex.clear_trace_counter()  # the counter knows functions by their source, and would add up all that come here

    @jax.jit
    @chex.assert_max_traces(n=1)  # another call with the same shapes traces nothing
    def jitted(*arguments):
        return f(*arguments)

    calls = [jax.tree.map(lambda a: jnp.asarray(a, dtype), make(np.random.default_rng(seed))) for seed in (0, 1)]
    results = [jitted(*call) for call in calls]
    for leaf in jax.tree.leaves(results):
        assert leaf.dtype == dtype or not jnp.issubdtype(leaf.dtype, jnp.floating)
        assert jnp.all(jnp.isfinite(leaf))
    if dtype == jnp.float32:
        return  # rounding apart, the rest is the same program
    close: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}
    eager = f(*calls[0])
    chex.assert_trees_all_close(eager, results[0], **close)
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *calls)
    together = jax.jit(jax.vmap(f))(*stacked)
    looped = jax.tree.map(lambda *a: jnp.stack(a), *results)
    chex.assert_trees_all_close(together, looped, **close)


def compiled() -> list[Any]:
    """How many programs XLA has compiled so far in this process, as a list that grows."""
    found: list[Any] = []

    def record(event: str, duration_secs: float, **of: str | int) -> None:
        del duration_secs
        if "backend_compile" in event:
            found.append(of)

    jax.monitoring.register_event_duration_secs_listener(record)
    return found
