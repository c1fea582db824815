"""HV17: Haeffele & Vidal, Global optimality in neural network training, CVPR 2017."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import homogeneous, linalg, losses, rigorous
from globopt_jax.claims.registry import Claim, Outcome, eps, largest, outcome, remembered
from globopt_jax.homogeneous.capacity import alive, pad
from globopt_jax.homogeneous.training import steps
from globopt_jax.linalg import matmul

_PAPER = "Haeffele & Vidal 2017, Global optimality in neural network training"
_claim = partial(Claim, paper=_PAPER)


STATEMENTS = ("HV17 (6)-(8)", "HV17 Def degree", "HV17 Def nondegenerate", "HV17 Prop 1", "HV17 Thm 1", "HV17 Cor 1")
STATEMENTS += ("HV17 Thm 2", "HV17 Sec 6", "HV17 Prop 2")


class Trained(NamedTuple):
    """A random ReLU regression problem, and a run of the meta-algorithm on it from one neuron."""

    problem: homogeneous.Problem
    X: jax.Array
    Y: jax.Array
    trace: homogeneous.Trace
    params: Any
    certificate: homogeneous.Certificate


#: The family of the claims that share these runs.
TRAINED = "a trained ReLU network"


@remembered
def trained(key: jax.Array) -> Trained:
    """Return the problem of a key and its run."""
    problem, X, Y = _neurons(key)
    start = problem.phi.init(key, r=1, dx=2, dy=1)
    found = homogeneous.minimize(problem, start, X, Y, key=key, effort="quick")
    return Trained(problem, X, Y, found.trace, found.params, found.certificate)


def _neurons(key: jax.Array, m: int = 24, dx: int = 2) -> tuple[homogeneous.Problem, jax.Array, jax.Array]:
    """Return a random ReLU regression problem, with lam a tenth of lam_max, and its data."""
    kx, ky = jax.random.split(key)
    X, Y = jax.random.normal(kx, (m, dx)), jax.random.normal(ky, (m, 1))
    # For two inputs the polar is known exactly.
    top = rigorous.polar_bound("arcs", np.asarray(Y, np.float64), np.asarray(X, np.float64), (0.0, 1.0))
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 0.1 * top)
    return problem, X, Y


def degrees(key: jax.Array) -> Outcome:
    """Measure the degree of a deep ReLU subnetwork; control: with softplus there is none."""
    phi = homogeneous.deep_subnetwork("relu", layers=3)
    one = jax.tree.map(lambda w: w[0], phi.init(key, r=1, dx=3, dy=2, widths=(4, 4)))
    X = jax.random.normal(key, (10, 3))
    degree, departure = homogeneous.measured_degree(phi, one, X)

    def softplus_network(w: list[jax.Array], X: jax.Array) -> jax.Array:
        return jax.nn.softplus(jax.nn.softplus(X @ w[0]) @ w[1]) @ w[2]

    _, control = homogeneous.measured_degree(softplus_network, one, X)
    return outcome(abs(degree - 3) + departure, 1e3 * eps(), control)


def _nondegenerate(key: jax.Array) -> Outcome:
    """Compare ``||phi(w)||`` with ``||X||_2 theta(w)``; control: a penalty of one layer alone does not bound phi."""
    X = jax.random.normal(jax.random.fold_in(key, 1), (10, 3))
    problem = homogeneous.Problem(homogeneous.deep_subnetwork("relu", layers=3), "sum_of_powers", "squared", 1.0)
    params = problem.phi.init(key, r=50, dx=3, dy=2, widths=(4, 4))
    scales = jnp.logspace(-2, 2, 50).astype(X.dtype)  # of the first layer; the last one shrinks, so that phi stays
    params = [params[0] * scales[:, None, None], params[1], params[2] / scales[:, None, None]]
    size = jax.vmap(lambda w: linalg.norm(problem.phi(w, X)))(params) / jnp.linalg.norm(X, 2)
    ratio = size / jax.vmap(problem.theta)(params)
    one_layer = size / jnp.sum(jnp.square(params[0]), axis=(1, 2)) ** 1.5
    return outcome(jnp.maximum(jnp.max(ratio) - 1, 0), 1e2 * eps(), jnp.max(one_layer) - 1)


def _one_subnetwork(key: jax.Array) -> Outcome:
    """Check both examples of section 6: the rank of a matrix, and HV17's condition as printed, which is false.

    ``phi(w) = g(angle of w) w`` with ``g(t) = 1 + cos(4 t) / 2`` has every output, and ``theta(w) = ||w||`` satisfies
    the triangle inequality, but the output (s, s) costs less with two subnetworks than with one.
    """
    rank = 2
    A, B = jax.random.normal(key, (5, rank)), jax.random.normal(jax.random.fold_in(key, 1), (rank, 4))
    Z = matmul(A, B)
    found = homogeneous.omega("linear", "sum_of_powers", Z, jnp.eye(5), key=key)
    exact = abs(float(found.upper) / float(jnp.sum(jnp.linalg.svd(Z, compute_uv=False))) - 1)

    def phi(w: Any, X: Any) -> jax.Array:
        return X * ((1 + jnp.cos(4 * jnp.arctan2(w[1], w[0])) / 2) * w)[None]

    s, ones = jnp.exp(jax.random.normal(jax.random.fold_in(key, 2))), jnp.ones((1, 1))
    single, double = 2 * s * jnp.ones((1, 2)), 2 / 3 * s * jnp.eye(2)  # g is 1/2 on the diagonal and 3/2 on the axes
    outputs = [homogeneous.elemental(phi, degree=1).total(w, ones) for w in (single, double)]
    off = jnp.max(jnp.abs(jnp.stack(outputs) - s)) / s
    one, two = (jnp.sum(jnp.linalg.norm(w, axis=1)) for w in (single, double))
    wrong = exact + float(off) + (len(found.params[0]) != rank)
    return outcome(wrong, 1e3 * eps(), (one - two) / one)


def _factorization(key: jax.Array) -> Outcome:
    Y = jax.random.normal(key, (8, 6))
    sigma = np.linalg.svd(np.asarray(Y, np.float64), compute_uv=False)
    lam = float(0.5 * sigma[2])
    kept = np.maximum(sigma - lam, 0)
    optimum = 0.5 * np.sum((sigma - kept) ** 2) + lam * np.sum(kept)
    problem = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, lam)
    start = problem.phi.init(key, r=1, dx=8, dy=6)
    eye = jnp.eye(8)
    found = homogeneous.minimize(problem, start, eye, Y, key=key, effort="quick")
    control = float(homogeneous.objective(problem, start, eye, Y)) / optimum - 1
    values = float(found.certificate.objective), float(homogeneous.objective(problem, found.params, eye, Y))
    return outcome(largest(*(abs(value / optimum - 1) for value in values)), 1e3 * eps(), control)


def zero_subnetwork(key: jax.Array) -> Outcome:
    """Grade a local minimum with a zero subnetwork; control: weights near it."""
    at = trained(key)
    # Append a subnetwork that is all zero, which does not change the objective.
    params = pad(at.params, len(at.params[0]) + 1)
    certificate = homogeneous.certify(at.problem, params, at.X, at.Y, effort="quick")
    worse = homogeneous.certify(at.problem, jax.tree.map(lambda w: 1.1 * w, params), at.X, at.Y, effort="quick")
    has_zero = int(certificate.zero_subnetworks) > 0
    return outcome(float(certificate.relative_gap) + (not has_zero), 4 * eps() ** 0.5, worse.relative_gap)


def _escape(key: jax.Array) -> Outcome:
    """Control: a local minimum of one neuron alone is not global, and its polar exceeds lam."""
    polar = np.asarray(trained(key).trace.polar)
    return outcome(polar[-1] - 1, 4 * eps() ** 0.5, polar[polar > 0][0] - 1)


def _reduction(key: jax.Array) -> Outcome:
    problem, X, Y = _neurons(key, m=6)
    params = problem.phi.init(key, r=20, dx=2, dy=1)  # more subnetworks than output entries, so dependent outputs
    params = steps.tidy(problem, params, X, Y)
    reduced = steps.reduce(problem, params, X)
    before, after = (homogeneous.predict(problem, p, X) for p in (params, reduced))
    moved = float(jnp.linalg.norm(after - before) / jnp.linalg.norm(before))
    rise = float(homogeneous.objective(problem, reduced, X, Y) / homogeneous.objective(problem, params, X, Y)) - 1
    left = int(alive(reduced).sum())
    # Control: setting as many subnetworks to zero without rescaling the others changes the prediction.
    control = homogeneous.predict(problem, jax.tree.map(lambda w: w[:left], params), X)
    control = float(jnp.linalg.norm(control - before) / jnp.linalg.norm(before))
    return outcome(largest(moved, rise, left > 6), 1e4 * eps(), control)


def monotone(key: jax.Array) -> Outcome:
    """Check that the meta-algorithm never rises, and ends at a global minimum; control: its start."""
    at = trained(key)
    objective = np.asarray(at.trace.objective)
    rise = float(np.max(np.diff(objective) / objective[:-1], initial=0.0))
    gap = float(at.certificate.relative_gap)
    return outcome(largest(rise, gap), 4 * eps() ** 0.5, objective[0] / objective[-1] - 1)


def _low_degree(key: jax.Array) -> Outcome:
    phi = homogeneous.deep_subnetwork("relu", layers=3)
    X = jax.random.normal(key, (12, 3))
    params = phi.init(key, r=4, dx=3, dy=1, widths=(3, 3))
    size = 1e-2

    def rise(power: int) -> jax.Array:
        """Return the increase of the objective from zero weights to size * params, divided by size^3.

        The constant term of the loss is left out of the formula, so that nothing cancels.
        """
        problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(power), losses.squared, 1.0)
        fitted = homogeneous.predict(problem, params, X)
        matched = jnp.sum(jax.vmap(homogeneous.sum_of_powers(3))(params))
        Y = fitted * 2 * matched / jnp.sum(fitted * fitted)  # along params the loss falls by twice the matched penalty
        cost = jnp.sum(jax.vmap(problem.theta)(params)) * size ** (power - 3)
        return cost - jnp.sum(Y * fitted) + size**3 * jnp.sum(fitted * fitted) / 2

    # With weight decay, of degree 2 < 3, the objective rises although the loss falls. With the power 3 it falls.
    return outcome(jnp.maximum(-rise(2), 0.0), 0.0, -rise(3))


def _high_degree(key: jax.Array) -> Outcome:
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(4), losses.squared, 1.0)
    matched = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 1.0)
    X = jax.random.normal(key, (12, 3))
    params = problem.phi.init(key, r=2, dx=3, dy=2)
    copies = 256
    split = homogeneous.split(problem, params, copies)
    before, after = (homogeneous.predict(problem, p, X) for p in (params, split))
    moved = jnp.linalg.norm(after - before) / jnp.linalg.norm(before)

    def shrinkage(p: homogeneous.Problem) -> jax.Array:
        theta = jax.vmap(p.theta)
        return jnp.sum(theta(split)) / jnp.sum(theta(params))

    # With degree 4 > 2 the same function as 256 copies has a penalty 256 times smaller. With degree 2 it is the same.
    return outcome(jnp.maximum(moved, shrinkage(problem) - 1 / copies), 1e4 * eps(), shrinkage(matched))


def gauge(key: jax.Array) -> Outcome:
    """Check the properties of Omega where it is the nuclear norm; control: superadditivity."""
    k1, k2 = jax.random.split(key)
    A, B = jax.random.normal(k1, (5, 4)), jax.random.normal(k2, (5, 4))

    def value(Z: jax.Array) -> tuple[float, float, int]:
        found = homogeneous.omega("linear", "sum_of_powers", Z, jnp.eye(5), key=key)
        return float(found.lower), float(found.upper), len(found.params[0])

    (low_a, a, r), (low_b, b, _), (low_sum, whole, _) = value(A), value(B), value(A + B)
    zero, doubled, half = value(0 * A)[1], value(2 * A)[1], value((A + B) / 2)[1]
    nuclear = float(jnp.sum(jnp.linalg.svd(A, compute_uv=False)))
    wrong = [
        abs(zero),  # zero only at Z = 0
        largest(-a, 0.0),
        abs(doubled - 2 * a),  # degree 1
        largest(whole - a - b, 0.0),  # subadditive
        largest(half - (a + b) / 2, 0.0),  # convex
        float(r > 20),  # attained by at most card(Z) subnetworks
        largest(*(x - y for x, y in ((low_a, a), (low_b, b), (low_sum, whole)))),
        abs(a - nuclear),
        abs(low_a - nuclear),
    ]
    return outcome(largest(*wrong) / a, 1e3 * eps(), (a + b - whole) / a)


def _pruned(key: jax.Array) -> Outcome:
    """Control: dropping subnetworks without new scales changes the output."""
    problem = homogeneous.Problem("relu", "sum_of_powers", losses.squared, 1.0)
    params = problem.phi.init(key, r=30, dx=3, dy=2)
    X = jax.random.normal(key, (5, 3))
    before = homogeneous.predict(problem, params, X)

    def change(params: Any) -> float:
        return float(jnp.max(jnp.abs(homogeneous.predict(problem, params, X) - before)) / jnp.max(jnp.abs(before)))

    def cost(params: Any) -> float:
        return float(jnp.sum(jax.vmap(problem.theta)(params)))

    found = homogeneous.prune(problem, params, X)
    raised = largest(cost(found) / cost(params) - 1, 0.0)
    residual = change(found) + raised + (len(found[0]) > before.size)
    return outcome(residual, 1e4 * eps(), change(jax.tree.map(lambda w: w[: before.size], params)))


CLAIMS = (
    _claim(
        key="HV17 Def degree",
        statement="A deep ReLU subnetwork with K weight layers is positively homogeneous of degree K.",
        equation="section 4, definition 1",
        check=degrees,
    ),
    _claim(
        key="HV17 Def nondegenerate",
        statement="theta is positive where phi is not zero, and unbounded where phi is: ||phi(w)|| <= ||X|| theta(w).",
        equation="section 5, nondegenerate pair",
        check=_nondegenerate,
        traceable=True,
    ),
    _claim(
        key="HV17 Sec 6",
        statement="rank(Z) subnetworks attain the nuclear norm; a triangle inequality of theta does not make one do.",
        equation="section 6, first paragraphs (as printed the second is false)",
        check=_one_subnetwork,
    ),
    _claim(
        key="HV17 (6)-(8)",
        statement="The factorized problem with 1/2 (||W1||^2 + ||W2||^2) has the value of the nuclear-norm problem.",
        equation="section 3, (6) to (8)",
        check=_factorization,
    ),
    _claim(
        key="HV17 Thm 1",
        statement="A local minimum with one subnetwork all zero is a global minimum.",
        equation="Theorem 1",
        check=zero_subnetwork,
        family=TRAINED,
    ),
    _claim(
        key="HV17 Cor 1",
        statement="A local minimum is global exactly when the polar of minus the loss gradient is at most lam.",
        equation="Corollary 1",
        check=_escape,
        family=TRAINED,
    ),
    _claim(
        key="HV17 Thm 2 reduction",
        statement="Scaling along a linear dependence of the outputs zeroes a subnetwork at constant prediction.",
        equation="Theorem 2, step 3",
        check=_reduction,
    ),
    _claim(
        key="HV17 Thm 2",
        statement="From every start a path on which the objective never rises leads to a global minimum.",
        equation="Theorem 2",
        check=monotone,
        family=TRAINED,
    ),
    _claim(
        key="HV17 Prop 2 lower",
        statement="If theta has a lower degree than phi, zero is a local minimum for every lam > 0.",
        equation="supplement, Proposition 2",
        check=_low_degree,
        traceable=True,
    ),
    _claim(
        key="HV17 Prop 2 higher",
        statement="If theta has a higher degree than phi, splitting a subnetwork sends its penalty to zero.",
        equation="supplement, Proposition 2",
        check=_high_degree,
        traceable=True,
    ),
    _claim(
        key="HV17 Prop 1",
        statement="Omega is 0 only at 0, of degree 1, subadditive, convex, attained by at most card(Z) subnetworks.",
        equation="Proposition 1 (K18 Theorem 3.4)",
        check=gauge,
    ),
    _claim(
        key="HV17 Prop 1 card",
        statement="At most card(Z) subnetworks give a network's output at no higher penalty.",
        equation="Proposition 1 and Theorem 2, step 3",
        check=_pruned,
    ),
)
