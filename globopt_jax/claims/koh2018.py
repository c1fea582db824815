"""K18: Koh, Global optimality in deep neural networks with regularization, thesis, 2018."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import homogeneous, losses
from globopt_jax.claims.registry import Claim, Outcome, outcome
from globopt_jax.homogeneous import rigorous

_PAPER = "Koh 2018, Global optimality in deep neural networks with regularization"
_claim = partial(Claim, paper=_PAPER)


def _eps() -> float:
    return float(jnp.finfo(jnp.zeros(()).dtype).eps)


def _polar(key: jax.Array) -> Outcome:
    kx, ku = jax.random.split(key)
    X = np.asarray(jax.random.normal(kx, (30, 2)), np.float64)
    U = np.asarray(jax.random.normal(ku, (30, 2)), np.float64)
    upper = rigorous.polar_bound("arcs", U, X, (0.0, 1.0))
    t = np.linspace(0, 2 * np.pi, 200_001)
    grid = np.linalg.norm(np.maximum(X @ np.stack([np.cos(t), np.sin(t)]), 0).T @ U, axis=1).max()
    # Between two grid points the function moves by less than its Lipschitz constant times half the spacing.
    miss = np.linalg.norm(np.linalg.norm(U, axis=1) @ np.linalg.norm(X, axis=1)) * (t[1] / 2)
    below = max(grid - upper, 0.0)
    return outcome(below + max(upper - grid - miss, 0.0), 1e-12 * upper, abs(0.99 * upper - grid))


def _first_order(key: jax.Array) -> Outcome:
    X = jax.random.normal(key, (24, 2))
    Y = jax.random.normal(jax.random.fold_in(key, 1), (24, 1))
    one = homogeneous.relu_neuron().init(key, r=2, dx=2, dy=1)
    make = partial(homogeneous.Problem, homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared)
    problem = make(0.1 * float(homogeneous.lam_max(make(1.0), X, Y, params=one, effort="quick").lower))
    found = homogeneous.minimize(problem, one, X, Y, key=key, effort="quick")
    beta = np.asarray(jax.random.normal(jax.random.fold_in(key, 2), found.certificate.residuals.shape))
    worse = homogeneous.certify(problem, jax.tree.map(lambda w: 1.1 * w, found.params), X, Y, effort="quick")
    residual = abs(float(beta @ found.certificate.residuals))
    return outcome(residual, 1e2 * _eps() ** 0.5, abs(float(beta @ worse.residuals)))


def _weak_duality(key: jax.Array) -> Outcome:
    X = jax.random.normal(key, (16, 3))
    Y = jax.random.normal(jax.random.fold_in(key, 1), (16, 2))
    lam = 1.0
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, lam)
    params = problem.phi.init(key, r=8, dx=3, dy=2)
    found = homogeneous.minimize(problem, params, X, Y, key=key, effort="quick")
    excess = float(found.certificate.lower_bound - found.certificate.objective)
    # Without rescaling into the polar ball the residual of the zero network claims more than there is.
    claimed = rigorous.dual_value("squared", -np.asarray(Y, np.float64), np.asarray(Y, np.float64))[0]
    scale = float(found.certificate.objective)
    return outcome(max(excess, 0.0) / scale, 1e-12, (claimed - scale) / scale)


CLAIMS = (
    _claim(
        key="K18 (A.2)",
        statement="The polar of one ReLU neuron in two dimensions is the largest maximum over the arcs of patterns.",
        equation="appendix A, (A.2)",
        check=_polar,
    ),
    _claim(
        key="K18 Lemma A.1",
        statement="At a local minimum <-G / lam, sum beta_i phi_i> equals sum beta_i theta_i for every beta.",
        equation="appendix A, (A.10)",
        check=_first_order,
    ),
    _claim(
        key="K18 Thm 3.5",
        statement="A dual point in the polar ball bounds the objective of every width; one outside it does not.",
        equation="Theorem 3.5, appendix A",
        check=_weak_duality,
    ),
)
