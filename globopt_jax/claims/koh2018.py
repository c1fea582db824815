"""K18: Koh, Global optimality in deep neural networks with regularization, thesis, 2018."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import deep_linear, homogeneous, losses, path_sums, rigorous
from globopt_jax.claims import haeffele_vidal2017, yun_sra_jadbabaie2018
from globopt_jax.claims.registry import Claim, Outcome, eps, largest, outcome
from globopt_jax.linalg import matmul

_PAPER = "Koh 2018, Global optimality in deep neural networks with regularization"
_claim = partial(Claim, paper=_PAPER)


STATEMENTS = ("K18 Thm 2.1", "K18 Thm 2.2", "K18 Thm 2.3", "K18 (2.3)", "K18 Thm 2.4", "K18 Thm 2.5", "K18 (2.8)")
STATEMENTS += ("K18 Thm 2.6", "K18 Def 3.1", "K18 Thm 3.2", "K18 Def 3.3", "K18 Thm 3.4", "K18 Thm 3.5", "K18 Cor 3.6")
STATEMENTS += ("K18 (A.2)", "K18 Lemma A.1")


def _polar(key: jax.Array) -> Outcome:
    kx, ku = jax.random.split(key)
    X = np.asarray(jax.random.normal(kx, (30, 2)), np.float64)
    U = np.asarray(jax.random.normal(ku, (30, 2)), np.float64)
    upper = rigorous.polar_bound("arcs", U, X, (0.0, 1.0))

    def values(t: np.ndarray) -> np.ndarray:
        return np.linalg.norm(np.maximum(X @ np.stack([np.cos(t), np.sin(t)]), 0).T @ U, axis=1)

    # From the nearest grid point the function changes by at most its Lipschitz constant times half the spacing. So
    # the maximum is near one of the good points, around which the grid is made finer.
    steepest = np.linalg.norm(U, axis=1) @ np.linalg.norm(X, axis=1)
    t, spacing = np.linspace(0, 2 * np.pi, 20_001, retstep=True)
    good = t[values(t) >= values(t).max() - steepest * spacing / 2]
    grid = values((good[:, None] + np.linspace(-spacing / 2, spacing / 2, 101)).ravel()).max()
    miss = steepest * spacing / 200
    below = largest(grid - upper, 0.0)
    return outcome(below + largest(upper - grid - miss, 0.0), 1e-12 * upper, abs(0.99 * upper - grid))


def _smallest(key: jax.Array) -> Outcome:
    """Compare Omega with the penalties of networks that have the output Z; control: half of a network has another."""
    problem = homogeneous.Problem("linear", "sum_of_powers", losses.squared, 1.0)
    params = problem.phi.init(key, r=7, dx=5, dy=4)
    Z = homogeneous.predict(problem, params, jnp.eye(5))
    found = homogeneous.omega(problem.phi, problem.theta, Z, jnp.eye(5), key=key)

    def excess(params: Any) -> float:
        """How far Omega is above the penalty of weights, relative to it."""
        return float(found.lower) / float(jnp.sum(jax.vmap(problem.theta)(params))) - 1

    attained = largest(abs(excess(found.params)), abs(float(found.upper / found.lower) - 1))
    return outcome(largest(excess(params), attained), 1e3 * eps(), excess(jax.tree.map(lambda w: 0.5 * w, params)))


def _first_order(key: jax.Array) -> Outcome:
    """Check (A.10) for random beta at a trained network; control: weights near it, for the beta that shows it best."""
    at = haeffele_vidal2017.trained(key)
    beta = np.asarray(jax.random.normal(jax.random.fold_in(key, 2), at.certificate.residuals.shape))
    worse = homogeneous.certify(at.problem, jax.tree.map(lambda w: 1.1 * w, at.params), at.X, at.Y, effort="quick")
    residual = abs(float(beta @ at.certificate.residuals))
    return outcome(residual, 4 * eps() ** 0.5, np.linalg.norm(worse.residuals))


def _weak_duality(key: jax.Array) -> Outcome:
    """Compare the lower bound with the objective; control: a dual point that is not scaled into the polar ball."""
    at = haeffele_vidal2017.trained(key)
    scale, Y = float(at.certificate.objective), np.asarray(at.Y, np.float64)
    claimed = rigorous.dual_value("squared", -Y, Y)[0]  # the gradient at the zero network
    excess = float(at.certificate.lower_bound) - scale
    return outcome(largest(excess, 0.0) / scale, 1e-12, (claimed - scale) / scale)


def _local_minima(widths: tuple[int, ...], of_map: bool, key: jax.Array) -> Outcome:
    """Compare the end of a descent from random weights, or its product, with the closed form; control: the start."""
    kx, kr, kw = jax.random.split(key, 3)
    X = jax.random.normal(kx, (20, widths[0])) / 20**0.5
    Y = matmul(X, jax.random.normal(kr, (widths[0], widths[-1]))) + 0.1 * jax.random.normal(kw, (20, widths[-1]))

    def step(W: list[jax.Array], _: None) -> tuple[list[jax.Array], None]:
        return [w - 0.1 * g for w, g in zip(W, deep_linear.gradients(W, X, Y), strict=True)], None

    keys = jax.random.split(kw, len(widths) - 1)
    start = [jax.random.normal(k, s) * 0.5 for k, s in zip(keys, itertools.pairwise(widths), strict=True)]
    end, _ = jax.lax.scan(step, start, length=6000)
    best = deep_linear.global_minimum(X, Y, min(widths))
    found = deep_linear.relaxed_loss(deep_linear.product(end), X, Y) if of_map else deep_linear.loss(end, X, Y)
    # The other direction: the minimizer of the rank-constrained problem is a product of weights.
    back = deep_linear.loss(deep_linear.factors(best.map, widths), X, Y)
    errors = [jnp.abs(value - best.value) / jnp.sum(Y * Y) for value in (found, back, deep_linear.loss(start, X, Y))]
    return outcome(jnp.maximum(errors[0], errors[1]), 4 * eps() ** 0.5, errors[2])


def _path_sum(key: jax.Array) -> Outcome:
    """Compare the contraction with a list of all paths, and with the network itself; control: all paths active."""
    widths = (3, 5, 4, 2)
    keys = jax.random.split(key, 4)
    W = [jax.random.normal(k, shape) for k, shape in zip(keys, itertools.pairwise(widths), strict=False)]
    X = jax.random.normal(keys[3], (8, 3))
    x, w, z = jax.tree.map(lambda a: np.asarray(a, np.float64), (X, W, path_sums.unit_masks(W, X)))
    listed, scale = np.zeros((8, 2)), np.zeros((8, 2))
    for a, b, c, d in itertools.product(*map(range, widths)):
        path = x[:, a] * w[0][a, b] * w[1][b, c] * w[2][c, d]
        listed[:, d] += path * z[0][:, b] * z[1][:, c]
        scale[:, d] += np.abs(path)
    found = path_sums.path_sum(W, X, path_sums.unit_masks(W, X))
    linear = path_sums.path_sum(W, X, [jnp.ones((1, width), X.dtype) for width in widths[1:-1]])
    network = np.maximum(np.maximum(x @ w[0], 0) @ w[1], 0) @ w[2]
    errors = [float(np.max(np.abs(np.asarray(a, np.float64) - listed) / scale)) for a in (found, network, linear)]
    return outcome(largest(*errors[:2]), 1e2 * eps(), errors[2])


def _reduction(key: jax.Array) -> Outcome:
    """The expected output against the mean over all masks; control: another probability."""
    keys = jax.random.split(key, 3)
    W, X = [jax.random.normal(keys[0], (3, 4)), jax.random.normal(keys[1], (4, 2))], jax.random.normal(keys[2], (6, 3))
    masks = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=4)), X.dtype)

    def mean(rho: float) -> jax.Array:
        chances = jnp.prod(jnp.where(masks > 0, rho, 1 - rho), axis=1)
        outputs = jax.vmap(lambda mask: path_sums.path_sum(W, X, [mask[None]], 1 / 0.3))(masks)
        return jnp.einsum("n,nmd->md", chances, outputs, precision="highest")

    wanted = path_sums.expected_output(W, X, 0.3)
    errors = [jnp.max(jnp.abs(mean(rho) - wanted)) / jnp.max(jnp.abs(wanted)) for rho in (0.3, 0.4)]
    return outcome(errors[0], 1e2 * eps(), errors[1])


CLAIMS = (
    _claim(
        key="K18 Thm 2.1",
        statement="The product of a deep linear network's local minimum is a minimum of the rank-constrained problem.",
        equation="Theorem 2.1 (Lu & Kawaguchi 2017)",
        check=partial(_local_minima, (4, 1, 3), True),
        traceable=True,
    ),
    _claim(
        key="K18 Thm 2.2",
        statement="All local minima of the rank-constrained problem are global.",
        equation="Theorem 2.2 (Lu & Kawaguchi 2017)",
        check=partial(_local_minima, (4, 2, 3), True),
        traceable=True,
    ),
    _claim(
        key="K18 Thm 2.3",
        statement="All local minima of a deep linear network are global.",
        equation="Theorem 2.3 (Lu & Kawaguchi 2017)",
        check=partial(_local_minima, (3, 4, 2), False),
        traceable=True,
    ),
    _claim(
        key="K18 (2.3)",
        statement="The rank-constrained problem has the minimum of the deep linear network, in closed form.",
        equation="section 2.1, (2.3)",
        check=yun_sra_jadbabaie2018.closed_form,
        family="YSJ18 Prop 3.1",
    ),
    _claim(
        key="K18 Thm 2.4",
        statement="Without a bottleneck a critical point is a global minimum iff its product has rank k.",
        equation="Theorem 2.4 (YSJ18 Theorem 2.1)",
        check=yun_sra_jadbabaie2018.without_bottleneck,
        family="YSJ18 Thm 2.1",
    ),
    _claim(
        key="K18 Thm 2.5",
        statement="With a bottleneck the row space of S_p must be the span of the top k directions as well.",
        equation="Theorem 2.5 (YSJ18 Theorem 2.2)",
        check=yun_sra_jadbabaie2018.with_bottleneck,
        family="YSJ18 Thm 2.2",
    ),
    _claim(
        key="K18 Def 3.1",
        statement="A deep ReLU network is positively homogeneous: f(a v) = a^k f(v) for all a > 0.",
        equation="Definition 3.1 (HV17 section 5)",
        check=haeffele_vidal2017.degrees,
        family="HV17 Def degree",
    ),
    _claim(
        key="K18 Thm 3.2",
        statement="With equal degrees a local minimum with one pair of columns zero is global.",
        equation="Theorem 3.2 (HV17 Theorem 1)",
        check=haeffele_vidal2017.zero_subnetwork,
        family=haeffele_vidal2017.TRAINED,
    ),
    _claim(
        key="K18 Def 3.3",
        statement="Omega(Z) is the smallest sum of theta over all networks with output Z: at most that of any of them.",
        equation="Definition 3.3 (HV17 (15))",
        check=_smallest,
    ),
    _claim(
        key="K18 Thm 3.4",
        statement="Omega is positively homogeneous of degree 1 and convex.",
        equation="Theorem 3.4 (HV17 Proposition 1)",
        check=haeffele_vidal2017.gauge,
        family="HV17 Prop 1",
    ),
    _claim(
        key="K18 Cor 3.6",
        statement="With r > card(Z) a path on which the objective never rises leads to a global minimum.",
        equation="Corollary 3.6 (HV17 Theorem 2)",
        check=haeffele_vidal2017.monotone,
        family=haeffele_vidal2017.TRAINED,
    ),
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
        family=haeffele_vidal2017.TRAINED,
    ),
    _claim(
        key="K18 Thm 3.5",
        statement="A dual point in the polar ball bounds the objective of every width; one outside it does not.",
        equation="Theorem 3.5, appendix A",
        check=_weak_duality,
        family=haeffele_vidal2017.TRAINED,
    ),
    _claim(
        key="K18 (2.8)",
        statement="The output of a ReLU network is the sum over its paths of input, activity and weights.",
        equation="section 2.2, (2.8)",
        check=_path_sum,
    ),
    _claim(
        key="K18 Thm 2.6",
        statement="If each path is active with probability rho, the expected network is rho times the deep linear one.",
        equation="Theorem 2.6 (Kawaguchi 2016)",
        check=_reduction,
        traceable=True,
    ),
)
