"""What arrays and keys may be: one conversion for every public function, and what each kind becomes."""

import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear, homogeneous, inputs, local_minima, losses

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))
W1, W2 = RNG.normal(size=(3, 2)), RNG.normal(size=(2, 2))
KEY = jax.random.key(0)
PROBLEM = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, 3.0)


@pytest.mark.parametrize("which", ["quick", pytest.param("all", marks=pytest.mark.slow)])
def test_every_function_takes_and_refuses_the_same_kinds_of_arrays(which):
    """In a process of its own, which has what users have: no annotation is enforced there."""
    command = [sys.executable, "-m", "tests.kinds", which]
    root = pathlib.Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_each_dtype_becomes(dtype):
    floats = jnp.zeros((), dtype).dtype
    for given, host, array in (
        (np.float16, np.float32, np.float32),
        (np.float32, np.float32, np.float32),
        (">f4", np.float32, np.float32),
        (np.float64, np.float64, floats),
        (np.longdouble, np.float64, floats),
        (np.int8, np.int8, floats),
        (np.bool_, np.bool_, floats),
    ):
        a = np.ones(3, given)
        assert inputs.finite("X", a).dtype == host
        assert inputs.finite("X", a).dtype.isnative
        assert inputs.real("X", a).dtype == array
    assert inputs.real("X", jnp.ones(3, jnp.float16)).dtype == np.float32
    assert jax.jit(lambda a: inputs.real("X", a))(jnp.ones(3, jnp.float16)).dtype == np.float32
    np.testing.assert_array_equal(inputs.finite("X", [1, 2.5]), [1, 2.5])


def test_the_common_dtype_loses_no_digits(dtype):
    wide = [np.ones(2, t) for t in (np.float64, ">f8", np.longdouble)] + [np.array([2**24 + 1])]
    for a in wide:
        if dtype == jnp.float64:
            assert inputs.common_dtype([a, np.ones(1, np.float32)]) == np.float64
        else:
            with pytest.warns(UserWarning, match="computed in float32 because x64 is off"):
                assert inputs.common_dtype([a]) == np.float32
    for a in (np.ones(2, np.float16), np.array([2**24]), np.zeros((0, 2), int), [True]):
        assert inputs.common_dtype([a, np.ones(1, np.float32)]) == np.float32


def test_a_verdict_does_not_depend_on_the_byte_order():
    """Targets 1000 + t, which float32 does not resolve."""
    t = np.linspace(0, 1, 8)[:, None]
    x, y = np.hstack([np.ones_like(t), t]), 1000 + t
    W = [np.array([[1.0], [0.0]]), np.array([[np.mean(y)]])]
    found = [deep_linear.classify([w.astype(o) for w in W], x.astype(o), y.astype(o)) for o in ("f8", ">f8")]
    assert found[0].kind == found[1].kind
    assert found[0].loss == found[1].loss


KEYS = {
    "typed": jax.random.key(7),
    "old": jax.random.PRNGKey(7),
    "NumPy's": np.asarray(jax.random.PRNGKey(7)),
    "rbg": jax.random.key(7, impl="rbg"),
    "old rbg": jax.random.PRNGKey(7, impl="rbg"),
    "unsafe": jax.random.key(7, impl="unsafe_rbg"),
}

KEYED: dict[str, Callable[[Any], Any]] = {
    "deep_linear.critical_point": lambda key: deep_linear.critical_point(X, Y, (3, 2, 2), (0,), key),
    "phi.init": lambda key: homogeneous.rank_one().init(key, r=2, dx=3, dy=2),
    "local_minima.with_linear_units": lambda key: local_minima.with_linear_units(key, np.abs(X), (4, 4), 1, 1),
}


@pytest.mark.parametrize("name", KEYED)
def test_keys_of_every_implementation_are_taken(name):
    found = {kind: jax.tree.map(np.asarray, KEYED[name](key)) for kind, key in KEYS.items()}
    for one, other in (("typed", "old"), ("typed", "NumPy's"), ("rbg", "old rbg")):
        chex.assert_trees_all_equal(found[one], found[other])


#: Either our words, or those of the annotations, which only tests enforce.
WRONG = r"key: Expected: one jax.random.key\(seed\)|typechecking parameter 'key'"


@pytest.mark.parametrize("key", [7, None, np.zeros(2), np.zeros(3, np.uint32), jax.random.split(jax.random.key(0))])
def test_what_is_no_key_is_refused(key):
    for name, function in KEYED.items():
        if key is None and name == "deep_linear.critical_point":  # which has a default
            continue
        with pytest.raises(TypeError, match=WRONG):
            function(key)
    calls: list[Callable[[Any], Any]] = [
        lambda key: deep_linear.escape([W1, W2], X, Y, 0.1, key),
        lambda key: deep_linear.ascend([W1, W2], X, Y, 0.1, key),
        lambda key: local_minima.phase_change(key, 4, 2, [1, 2]),
        lambda key: homogeneous.minimize(PROBLEM, (W1.T, W2), X, Y, key=key),
    ]
    if key is not None:
        calls += [
            lambda key: homogeneous.certify(PROBLEM, (W1.T, W2), X, Y, key=key),
            lambda key: homogeneous.lam_max(PROBLEM, X, Y, params=(W1.T, W2), key=key),
            lambda key: deep_linear.classify([W1, W2], X, Y, key=key),
        ]
    for function in calls:
        with pytest.raises(TypeError, match=WRONG):
            function(key)
