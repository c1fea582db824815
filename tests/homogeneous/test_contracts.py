"""The array functions of the homogeneous networks, held to what every array function promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import homogeneous, losses
from globopt_jax.homogeneous.duality import scaled
from globopt_jax.homogeneous.polar import ascent, relaxation
from globopt_jax.homogeneous.problem import objective, penalty, predict
from globopt_jax.homogeneous.training import steps
from tests import contracts

R, M, DX, DY = 3, 5, 3, 2
NEURON, DEEP = homogeneous.relu_neuron(), homogeneous.deep_subnetwork("leaky_relu", layers=3)
CP = homogeneous.elemental(lambda w, X: jnp.matmul(X, w[0])[:, None] * w[1][None, :], degree=2)


def weights(rng, phi):
    """R subnetworks."""
    if phi is DEEP:
        return [rng.normal(size=s) for s in ((R, DX, 2), (R, 2, 2), (R, 2, DY))]
    return (rng.normal(size=(R, DX)), rng.normal(size=(R, DY)))


def data(rng, loss=losses.squared):
    """(X, Y) that the loss knows."""
    X, Y = rng.normal(size=(M, DX)), rng.normal(size=(M, DY))
    if loss is losses.softmax_cross_entropy:
        Y = np.eye(DY)[rng.integers(0, DY, M)]
    if loss is losses.logistic:
        Y = rng.choice([-1.0, 1.0], size=(M, DY))
    return X, Y


def everything_of_a_loss(loss):
    """Value, gradient, conjugate and the dual side, at a prediction."""

    def f(Z, Y):
        U = loss.gradient(Z, Y)
        free = loss.dual_coordinates(0.5 * U, Y)
        upper = jnp.minimum(loss.dual_limit(U, Y), 0.9)
        scale = loss.best_scale(U, Y, upper)
        return loss(Z, Y), U, loss.conjugate(0.5 * U, Y), free, loss.dual_point(free, Y), scale

    return f, lambda rng: (rng.normal(size=(M, DY)), data(rng, loss)[1])


def everything_of_a_problem(phi, theta):
    """Prediction, penalties, objective and its gradient, with lam as data."""

    def f(params, X, Y, lam):
        problem = homogeneous.Problem(phi, theta, losses.squared, lam)
        return predict(problem, params, X), penalty(problem, params), jax.grad(objective, 1)(problem, params, X, Y)

    return f, lambda rng: (weights(rng, phi), *data(rng), rng.uniform(0.1, 1.0))


def one_subnetwork(phi):
    """phi itself, the inner product with its output, and the balanced weights."""
    theta = homogeneous.sum_of_powers().bind(phi)

    def f(params, X, U):
        one = jax.tree.map(lambda w: w[0], params)
        return phi(one, X), phi.inner(one, U, X), theta.balance(one), ascent.normalize(theta, one)

    return f, lambda rng: (weights(rng, phi), *data(rng))


def search(U, X, starts):
    return ascent.search(NEURON, homogeneous.sum_of_powers(2), U, X, starts, 12)


def relaxed(U, X):
    return relaxation.bound(U, X, (0.0, 1.0), relaxation.initial(U, jnp.ones((M, 1), U.dtype)))


def rescaled(Z, Y, bound, lam):
    return scaled(losses.huber(0.5), losses.huber(0.5).gradient(Z, Y), Y, bound, lam)


def tidied(params, X, Y, lam):
    problem = homogeneous.Problem(NEURON, homogeneous.sum_of_powers(), losses.squared, lam)
    return steps.tidy(problem, params, X, Y)


REGISTRY = {
    **{
        f"losses.{loss.name}": everything_of_a_loss(loss)
        for loss in (losses.squared, losses.softmax_cross_entropy, losses.logistic, losses.huber(0.5))
    },
    "objective, neuron, sum": everything_of_a_problem(NEURON, homogeneous.sum_of_powers()),
    "objective, neuron, product": everything_of_a_problem(NEURON, homogeneous.product_of_norms(("l1", "linf"))),
    "objective, deep": everything_of_a_problem(DEEP, homogeneous.product_of_norms()),
    "objective, a user's": everything_of_a_problem(CP, homogeneous.sum_of_powers()),
    "neuron": one_subnetwork(NEURON),
    "deep subnetwork": one_subnetwork(DEEP),
    "ascent.search": (search, lambda rng: (*data(rng)[::-1], weights(rng, NEURON))),
    "relaxation.bound": (relaxed, lambda rng: data(rng)[::-1]),
    "scaled": (
        rescaled,
        lambda rng: (rng.normal(size=(M, DY)), data(rng)[1], rng.uniform(1, 2), rng.uniform(0, 1)),
    ),
    "steps.tidy": (tidied, lambda rng: (weights(rng, NEURON), *data(rng), rng.uniform(0.1, 1.0))),
}


@pytest.mark.parametrize("name", REGISTRY)
def test_array_function(name, dtype):
    f, make = REGISTRY[name]
    contracts.assert_kept(f, make, dtype)
