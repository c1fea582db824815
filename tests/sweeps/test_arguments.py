"""What `sweep`, `landscape` and `train` refuse, by name and before any work."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from globopt_jax import sweeps

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 4)), RNG.normal(size=(12, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": [1, -1]}, "depths: Expected: an integer, at least 0. Received: -1"),
        ({"depths": []}, "depths: Expected: at least one value. Received: none"),
        ({"depths": [1.5]}, "depths: Expected: an integer"),
        ({"widths": [0]}, "widths: Expected: an integer, at least 1. Received: 0"),
        ({"widths": [2, 4, 2]}, "widths: Expected: different values. Received: 2 more than once"),
        ({"widths": np.array([2, 2])}, "widths: Expected: different values"),
        ({"seeds": []}, "seeds: Expected: at least one value"),
        ({"seeds": 0}, "seeds: Expected: an integer, 1..1000000. Received: 0"),
        ({"seeds": [1, 2, 1]}, "seeds: Expected: different values. Received: 1 more than once"),
        ({"seeds": [2**32]}, "seeds: Expected: an integer, 0..4294967295"),
        ({"seeds": [-1]}, "seeds: Expected: an integer, 0"),
        ({"depths": [0, 1], "subnetworks": [1, 3]}, "depths: Expected: at least 1 hidden layer in 3 subnetworks"),
        ({"subnetworks": 0}, "subnetworks: Expected: an integer, at least 1"),
        ({"penalties": ["l2", "ridge"]}, "penalties: Expected: none, l1, l2, l3, ... . Received: 'ridge'"),
        ({"penalties": ["l0"]}, "penalties: Expected"),
        ({"penalties": ["none", "l2"]}, "lams: Expected: a strength above 0 for the penalty l2. Received: 0."),
        ({"penalties": ["l01"]}, "penalties: Expected"),
        ({"penalties": ["l" + "9" * 5000]}, "penalties: Expected"),
        ({"lams": [-0.1]}, "lams: Expected: a number that is not negative. Received: -0.1"),
        ({"lams": [np.nan]}, "lams: Expected"),
        ({"rates": [0.0]}, "rates: Expected: a positive number. Received: 0.0"),
        ({"epochs": -1}, "epochs: Expected: an integer, at least 0"),
        ({"epochs": 5, "snapshots": 7}, "snapshots: Expected: numbers below epochs, 5. Received: 7"),
        ({"seeds": 2**40}, "seeds: Expected: an integer, 1..1000000. Received: 1099511627776"),
        ({"epochs": 5, "snapshots": [5]}, "snapshots: Expected: numbers below epochs, 5. Received: 5"),
        ({"progress": 3}, "progress: Expected: a function of a Progress. Received: 3"),
        ({"batch": 0}, "batch: Expected: an integer, at least 1"),
        ({"loss": "cubic"}, "cubic"),
        ({"activation": np.cos}, "activation"),
        ({"activation": jnp.cbrt}, "activation: Expected: a function with a finite slope at 0. Received: one with inf"),
        ({"activation": lambda z: z > 0}, "activation: Expected: a function with real values. Received: one with bool"),
        ({"activation": [(0, 1), (0.1, 1)]}, "activation: Expected: one activation for all units"),
        ({"initial": "xavier"}, "initial: Expected: one of fan_out, fan_in, he, glorot. Received: 'xavier'"),
        ({"test": X}, "test: Expected: a pair"),
        ({"test": (X, Y[:, 0])}, "test: X, Y: Expected: shapes"),
        ({"test": (X[:, :3], Y)}, r"test: Expected: 4 inputs and 2 targets, as in X and Y. Received: shapes \(12, 3\)"),
    ],
)
def test_arguments_of_a_sweep(changes, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        sweeps.sweep(X, Y, **changes, store=tmp_path / "cells.sqlite")
    assert not list(tmp_path.iterdir())


def test_arguments_of_a_landscape():
    with pytest.raises(ValueError, match="depths: Expected: an integer, at least 1. Received: 0"):
        sweeps.landscape(X, Y, depths=[0, 1])
    with pytest.raises(ValueError, match="momentum: Expected: a number from 0 to 1, without 1. Received: 1"):
        sweeps.landscape(X, Y, momentum=1.0)


def test_data_of_a_sweep():
    with pytest.raises(ValueError, match="rates: Expected: numbers that float32 can hold, as X. Received: 1e"):
        sweeps.sweep(X.astype(np.float32), Y.astype(np.float32), rates=[0.1, 1e60])
    for bad, message in (
        (0 * X, "X: Expected: inputs that are not all 0. Received: zeros"),
        (X * 1e300, "X: Expected: a largest entry of 0 or between"),
        (X[:3], "X, Y"),
        (np.full((12, 4), np.nan), "X: Expected: finite"),
        (X * 1j, "X: Expected"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            sweeps.landscape(bad, Y)


def test_one_value_is_no_dimension():
    """An axis given as an array of one value is one; numbers of NumPy are numbers."""
    found = sweeps.sweep(X, Y, depths=np.int64(1), widths=np.array([2]), seeds=[0], rates=0.1, epochs=0, tangent=False)
    assert found.loss.dims == ("width", "seed", "stage")
    assert int(found.depth) == 1


def test_optimizers():
    """A function of the rate is one; an optimizer with a rate, or one that depends on the size of a layer, is not."""
    shapes: dict[str, Any] = {"depths": [1], "widths": [2, 3], "tangent": False, "epochs": 1}
    for given, message in (
        (optax.sgd(0.1), "a function of the learning rate"),
        (functools.partial(optax.sgd, 0.1), "named arguments in functools.partial"),
        (lambda rate: rate, "a function that returns an optax optimizer"),
        (lambda: optax.sgd(0.1), "a function that is called with a learning rate"),
        (functools.partial(optax.adamw, mask=[1]), "hashable options"),
        (optax.lbfgs, "needs gradients and weights alone.*value_fn"),
        (lambda rate: optax.sgd(float(rate)), "can be traced"),
    ):
        with pytest.raises(TypeError, match=f"optimizer: Expected: .*{message}"):
            sweeps.sweep(X, Y, **shapes, optimizer=given)

    def centered(rate):
        return optax.chain(optax.centralize(), optax.sgd(rate))

    def clipped(rate):
        return optax.chain(optax.clip_by_block_rms(50.0), optax.sgd(rate))

    for given, name in ((centered, "centered"), (clipped, "clipped"), (optax.contrib.muon, "muon")):
        with pytest.raises(ValueError, match=rf"optimizer: .*do not depend on the size of a layer.*{name}\(rate\)"):
            sweeps.sweep(X, Y, **shapes, optimizer=given)
    for given in (optax.sm3, optax.contrib.muon):
        with pytest.raises(ValueError, match=r"optimizer: .*how the weights of subnetworks lie in an array"):
            sweeps.sweep(X, Y, depths=1, widths=2, subnetworks=2, tangent=False, epochs=1, optimizer=given)
    _ = sweeps.sweep(X, Y, depths=1, widths=2, tangent=False, epochs=1, optimizer=centered)


def test_one_cell_is_trained():
    with pytest.raises(ValueError, match="width: Expected: one value. Received: 2 values"):
        sweeps.train(X, Y, width=[2, 3])
    found = sweeps.train(X, Y, depth=0, seeds=[3], epochs=1)
    assert [w.shape for w in found.trained] == [(1, 4, 2)]


def test_a_client_that_is_none():
    with pytest.raises(TypeError, match="client: Expected: a dask.distributed.Client. Received: str"):
        sweeps.landscape(X, Y, depths=[1], widths=[2], client="tcp://localhost:8786")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("call", [sweeps.sweep, sweeps.landscape])
def test_the_warning_about_lost_precision_points_to_the_caller(call):
    with jax.enable_x64(False), pytest.warns(UserWarning, match="x64 is off") as said:
        _ = call(X, Y, widths=2, depths=1, seeds=1, epochs=0)
    assert [str(warning.filename) for warning in said] == [__file__]
