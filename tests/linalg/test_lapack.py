"""Decompositions of batches: JAX's values and derivatives, and no batch that jaxlib could wait for forever."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import function_space, linalg, local_minima, networks, wide
from globopt_jax.linalg import lapack

RNG = np.random.default_rng(0)
BATCH = RNG.normal(size=(3, 4, 4)) + 4 * np.eye(4)

FUNCTIONS = {
    "svd": (lambda f: lambda M: f.svd(M, full_matrices=False)[1], BATCH),
    "qr": (lambda f: lambda M: f.qr(M)[1], BATCH),
    "eigh": (lambda f: lambda M: f.eigh(M + M.T)[0], BATCH),
    "eigvalsh": (lambda f: lambda M: f.eigvalsh(M + M.T), BATCH),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_derivatives_are_those_of_jax(name):
    made, batch = FUNCTIONS[name]
    ours, plain = made(lapack), made(jnp.linalg)
    slope_ours, slope_plain = (jax.grad(lambda M, f=f: jnp.sum(f(M) ** 3)) for f in (ours, plain))
    for f, expected in ((ours, plain), (slope_ours, slope_plain)):
        looped = np.stack([expected(M) for M in batch])
        np.testing.assert_allclose(jax.jit(jax.vmap(f))(batch), looped, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(jax.vmap(jax.vmap(f))(batch[None])[0], looped, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_leading_axes_are_a_batch(name):
    f = getattr(lapack, name)
    stack = (BATCH + BATCH.swapaxes(-1, -2))[None]
    for ours, expected in zip(
        jax.tree.leaves(f(stack)), jax.tree.leaves(getattr(jnp.linalg, name)(stack)), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)
    calls, batched = batches(f, stack)
    assert calls
    assert bool(batched) == (not lapack.DEADLOCKS)


def batches(program, *arguments):
    """The decompositions of LAPACK in a program for CPUs, and those among them that work on batches.

    Triangular solves are left out, since jaxlib does them on one thread.
    """
    text = jax.jit(program).trace(*arguments).lower(lowering_platforms=("cpu",)).as_text()
    calls = [line for line in text.splitlines() if "@lapack_" in line]
    calls = [line for line in calls if "trsm" not in line]
    return calls, [line for line in calls if re.search(r"\(tensor<\d+x\d+x\d+x", line)]


@pytest.mark.parametrize("method", ["dense", "gram", "dual"])
def test_tangent_values_decompose_no_batches(method, rng):
    weights = [rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 5, 2))]
    X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
    network = networks.feed_forward("relu")
    calls, batched = batches(jax.vmap(lambda W: local_minima.tangent_value(network, W, X, Y, method=method)), weights)
    assert calls
    assert bool(batched) == (not lapack.DEADLOCKS)


@pytest.mark.parametrize("name", ["svd", "singular_values", "numerical_rank", "spectral_norm"])
def test_linear_algebra_decomposes_no_batches(name):
    calls, batched = batches(jax.vmap(getattr(linalg, name)), BATCH)
    assert calls
    assert bool(batched) == (not lapack.DEADLOCKS)


KERNELS = [RNG.normal(size=(3, 6)), RNG.normal(size=(6, 2))]
PROGRAMS = {
    "loss_bounds": lambda X, Y: wide.loss_bounds([(w, w[0]) for w in KERNELS], X, Y),
    "descent_direction": lambda X, Y: function_space.descent_direction(function_space.layers_of(KERNELS), X, Y),
    "inequality": lambda X, Y: function_space.inequality(function_space.layers_of(KERNELS), X, Y),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_jacobians_of_samples_are_decomposed_one_by_one(name, rng):
    calls, batched = batches(PROGRAMS[name], rng.normal(size=(5, 3)), rng.normal(size=(5, 2)))
    assert calls
    assert bool(batched) == (not lapack.DEADLOCKS)


def test_no_module_calls_jax_for_what_could_be_a_batch():
    """But for matrices that the host decomposes one at a time, and chains in which each waits for the one before."""
    chains = {"linalg/lapack.py", "homogeneous/training/active_set.py", "homogeneous/polar/relaxation.py"}
    hosts = {"homogeneous/omega.py", "wide/interpolation.py", "claims/haeffele_vidal2017.py"}
    package = pathlib.Path(linalg.__file__).parents[1]
    calls = re.compile(r"jnp\.linalg\.(svd|qr|eigh|eigvalsh|lstsq|pinv|matrix_rank|cond)|linalg\.norm\(.*, (ord=)?2\)")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if calls.search(path.read_text())}
    assert found <= chains | hosts
