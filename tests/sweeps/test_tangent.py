"""J of padded networks against J of the networks themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from globopt_jax import networks
from globopt_jax.local_minima import TangentValue, tangent_projection
from globopt_jax.sweeps import cells
from globopt_jax.sweeps.cells import Worker
from globopt_jax.sweeps.padding import Shape, draw
from globopt_jax.sweeps.plan import planned
from globopt_jax.sweeps.tangent import _cuts, _value, groups_for, padded_value

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(80, 6)), RNG.normal(size=(80, 3))


@pytest.mark.parametrize("activation", ["relu", pytest.param("absolute", marks=pytest.mark.slow)])
def test_networks_of_many_shapes_share_a_program(activation):
    """J and rank of each are those of the network alone; the cutoff counts its own columns."""
    network = networks.feed_forward(activation)
    shapes = [Shape(d, w) for d in (1, 2, 4) for w in (1, 3, 5)]
    groups = groups_for(shapes, 6, 3, work=80.0)
    assert {(a.depth, a.width) for a in groups.values()} == {(4, 5)}
    before = _value._cache_size()
    for shape in shapes:
        kernels = draw(shape, 6, 3, 2, "he", "float64")
        found = padded_value(network, kernels, groups[shape], jnp.asarray(X), jnp.asarray(Y))
        alone = tangent_projection(network, kernels, X, Y)
        assert bool(found.sure)
        assert int(found.rank) == int(alone.rank)
        assert float(found.value) == pytest.approx(float(alone.value), rel=1e-12)
    assert _value._cache_size() == before + 1


def test_scale_and_dead_units_do_not_matter():
    network = networks.feed_forward("relu")
    shape = Shape(2, 3)
    (arrays,) = set(groups_for([shape, Shape(3, 5)], 6, 3, work=80.0).values())
    kernels = draw(shape, 6, 3, 2, "he", "float64")
    scaled = [1e6 * kernels[0], 1e-9 * kernels[1], kernels[2]]
    dead = [kernels[0] * np.array([1.0, 0, 1])[None], kernels[1], kernels[2]]
    for weights in (scaled, dead, [0 * w for w in kernels]):
        found = padded_value(network, weights, arrays, jnp.asarray(X), jnp.asarray(Y))
        alone = tangent_projection(network, weights, X, Y)
        assert int(found.rank) == int(alone.rank)
        assert float(found.value) == pytest.approx(float(alone.value), rel=1e-10)


def test_groups_weigh_compilations_against_columns_of_zeros():
    shapes = [Shape(d, w) for d in range(1, 7) for w in (2, 4, 8, 16, 32)]
    few = groups_for(shapes, 64, 10, work=1.0)
    many = groups_for(shapes, 64, 10, work=1e9)
    assert {(a.depth, a.width) for a in few.values()} == {(6, 8), (6, 16), (6, 32)}
    assert all(many[s].depth == s.depth for s in shapes if s.width > 8)
    assert _cuts([1.0, 1.0, 100.0]) == [0, 2, 3]
    assert _cuts([]) == [0]


def test_a_value_that_is_not_sure_goes_to_the_host_function(monkeypatch):
    axes = {"depth": 2, "width": 3, "subnetworks": 1, "penalty": "none", "lam": 0.0, "rate": 0.1, "seed": [0]}
    options = {
        "epochs": 0,
        "batch": 8,
        "optimizer": functools.partial(optax.sgd, momentum=0.5),
        "loss": "squared",
        "activation": "relu",
        "initial": "fan_out",
        "tangent": True,
        "snapshots": (),
    }
    plan = planned(X, Y, None, axes, options)
    (right,) = Worker(plan).rows(plan.portions()[0])
    unsure = TangentValue(jnp.asarray(-1.0), jnp.asarray(-5), jnp.asarray(False))
    monkeypatch.setattr(cells, "padded_value", lambda *given: unsure)
    (found,) = Worker(plan).rows(plan.portions()[0])
    assert (right["sure_trained"], found["sure_trained"]) == (True, False)
    assert found["J_trained"] == pytest.approx(right["J_trained"], rel=1e-12)
    assert found["rank_initial"] == right["rank_initial"]
    with jax.enable_x64(False):  # J is computed in float64 in any case
        (narrow,) = Worker(plan).rows(plan.portions()[0])
    assert narrow["J_initial"] == pytest.approx(right["J_initial"], rel=1e-6)
