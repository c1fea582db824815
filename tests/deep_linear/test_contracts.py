"""The array functions of the deep linear networks, held to what every array function promises."""

import itertools

import jax
import numpy as np
import pytest

from globopt_jax import deep_linear, linalg
from globopt_jax.deep_linear.judgement import judgement_at
from tests import contracts

DX, DY, M, WIDTHS = 4, 3, 9, (4, 5, 2, 3)


def case(rng):
    return ([rng.normal(size=s) for s in itertools.pairwise(WIDTHS)], *data(rng))


def data(rng):
    return rng.normal(size=(M, DX)), rng.normal(size=(M, DY))


def residual(rng):
    root = rng.normal(size=(3, 3))
    return [0.2 * rng.normal(size=(3, 3)) for _ in range(2)], rng.normal(size=(3, 3)), root.T @ root


@jax.jit
def judgement(weights, X, Y):
    return judgement_at(weights, deep_linear.least_squares(X, Y), M)[0]


def spaces(A, B):
    return (
        linalg.project(A, B),
        linalg.project_out(A, B),
        linalg.numerical_rank(A),
        linalg.spectral_norm(A),
        linalg.svd(A, "golub").rank,
    )


def everything(weights, X, Y):
    return (
        deep_linear.loss(weights, X, Y),
        deep_linear.predict(weights, X),
        deep_linear.gradients(weights, X, Y),
        deep_linear.gap_bounds(weights, X, Y).best,
    )


REGISTRY = {
    "loss, predict, gradients, bounds": (everything, case),
    "global_minimum": (lambda X, Y: deep_linear.global_minimum(X, Y, 2), data),
    "relaxed_loss": (lambda w, X, Y: deep_linear.relaxed_loss(deep_linear.product(w), X, Y), case),
    "factors": (
        lambda R: deep_linear.product(deep_linear.factors(R, WIDTHS)),
        lambda rng: (rng.normal(size=(DX, DY)),),
    ),
    "bottleneck_conditions": (deep_linear.bottleneck_conditions, case),
    "judgement": (judgement, case),
    "residual_risk": (deep_linear.residual_risk, residual),
    "residual_gradients": (deep_linear.residual_gradients, residual),
    "residual_gap": (deep_linear.residual_gap, residual),
    "linalg": (spaces, lambda rng: (rng.normal(size=(6, 3)), rng.normal(size=(6, 2)))),
}


@pytest.mark.parametrize("name", REGISTRY)
def test_array_function(name, dtype):
    f, make = REGISTRY[name]
    contracts.assert_kept(f, make, dtype)


def test_the_rank_of_global_minimum_may_be_traced(dtype):
    X, Y = (jax.numpy.asarray(a, dtype) for a in data(np.random.default_rng(0)))
    sweep = jax.jit(jax.vmap(deep_linear.global_minimum, (None, None, 0)))(X, Y, jax.numpy.arange(5))
    assert sweep.map.shape == (5, DX, DY)
    for rank in range(5):
        one = deep_linear.global_minimum(X, Y, rank)
        jax.tree.map(lambda a, b, r=rank: np.testing.assert_allclose(a[r], b, rtol=1e-4, atol=1e-5), sweep, one)
