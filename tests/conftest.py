"""One strict environment for every test and every doctest.

float64, no silent promotion of dtypes or ranks, full matmul precision, and every annotation of the package
checked while it runs. A test that takes the fixture `dtype` runs twice: with x64 on, and again with x64 off.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib.metadata
import itertools
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("MPLBACKEND", "Agg")  # plots are written, never shown; subprocesses inherit it
# Compiling is most of the time here, and small problems gain nothing from optimized code.
# The scheduler: without that, jaxlib 0.10.2 can wait forever in a program with several batched factorizations.
# The emitters: those of before compile in a quarter of the time, as long as there is a choice.
# The split: code generation in parallel takes more work in all, and the workers use all cores already.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_enable_concurrency_optimized_scheduler=false"
    " --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false"
    * importlib.metadata.version("jaxlib").startswith("0.10."),
)
# The workers use all cores already, and threads of OpenBLAS wait in loops: four notebooks took 92 s, and 62 with this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The workers and the commands that tests start inherit one cache, which lives as long as this run.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="globopt-jax-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.02"
    _ = atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# Tracing makes so many objects that the default thresholds collect garbage all the time.
gc.set_threshold(200_000, 20, 20)

# The hook rewrites modules as they are imported: one imported before it would go unchecked, without a word.
assert "globopt_jax" not in sys.modules, "globopt_jax was imported before its annotations could be checked"
jaxtyping.install_import_hook("globopt_jax", "beartype.beartype")

hypothesis.settings.register_profile(
    "globopt_jax",
    deadline=None,  # the first example compiles
    derandomize=True,
    max_examples=20,
    # `dtype` is set up once a test, not once an example, and that is what is wanted of it.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("globopt_jax")


def pytest_collection_finish() -> None:
    """What is imported now stays, and no collection of garbage has to look at it again."""
    _ = gc.collect()
    gc.freeze()


_tests = itertools.count(1)


def _configuration() -> dict[str, object]:
    """What a test could change for the tests after it."""
    # pytest names the running test there, scikit-learn tunes OpenMP when it is first imported.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "KMP_"))}
    return {
        "jax.config": {name: getattr(jax.config, name, None) for name in jax.config.values},
        "the environment variables": environment,
        "the working directory": os.getcwd(),
        "numpy's floating-point errors": np.geterr(),
        "numpy's print options": np.get_printoptions(),
    }


@pytest.fixture(autouse=True)
def _leaves_no_configuration_behind():
    """Fail the test that changes a global setting, rather than a later one that meets it."""
    before = _configuration()
    yield
    after = _configuration()
    leaked = [name for name in before if before[name] != after[name]]
    assert not leaked, f"Expected a test to restore {', '.join(leaked)}. Received a change that outlives it."


def _make_room() -> None:
    """Forget programs in time: each takes maps of memory, Linux gives 65,530 of them, and XLA crashes without.

    At 20,000 maps, a process would have 4 GB of programs.
    """
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists():
        with maps.open("rb") as lines:
            if sum(1 for _ in lines) > 10_000:
                jax.clear_caches()
                _ = gc.collect()
                with contextlib.suppress(AttributeError):  # a C library without it
                    ctypes.CDLL(None).malloc_trim(0)  # programs leave many small holes


@pytest.fixture
def make_room():
    """What a test that compiles thousands of programs calls now and then."""
    return _make_room


@pytest.fixture(autouse=True)
def _room_for_compiled_programs(request: pytest.FixtureRequest):
    """Counting the maps takes a while: after every slow test, and every twentieth of the others."""
    yield
    if request.node.get_closest_marker("slow") or next(_tests) % 20 == 0:
        _make_room()


@pytest.fixture
def rng():
    """The same random numbers for a test, whichever tests ran before it."""
    return np.random.default_rng(0)


@pytest.fixture
def cell_by_cell(monkeypatch):
    """Sweeps train one cell at a time, as on CPUs: accelerators train many at once, and report them at once."""
    from globopt_jax.sweeps.plan import Plan

    monkeypatch.setattr(Plan, "portions", functools.partialmethod(Plan.portions, alone=True))


@pytest.fixture(params=[jnp.float64, jnp.float32], ids=["x64", "x32"])
def dtype(request: pytest.FixtureRequest):
    """The dtype to compute in; float32 comes with x64 switched off, as most users have it."""
    with jax.enable_x64(request.param == jnp.float64):
        yield request.param
