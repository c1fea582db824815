"""Which precisions a test takes in every run."""

import jax.numpy as jnp
import pytest

#: For a test whose formulas other tests check in float32: there it runs in the slow set alone.
slow_in_float32 = pytest.mark.parametrize(
    "dtype",
    [pytest.param(jnp.float64, id="x64"), pytest.param(jnp.float32, id="x32", marks=pytest.mark.slow)],
    indirect=True,
)
