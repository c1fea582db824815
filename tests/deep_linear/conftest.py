"""Fifty profiles compile hundreds of programs in one process; without this it runs out of places to map them."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _forget_compiled_programs(request: pytest.FixtureRequest):
    yield
    if request.node.get_closest_marker("slow"):
        jax.clear_caches()
