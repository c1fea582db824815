"""K18: Koh, Global optimality in deep neural networks with regularization, thesis, 2018."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import deep_linear, homogeneous, losses, path_sums, rigorous
from globopt_jax.claims import yun_sra_jadbabaie2018
from globopt_jax.claims.registry import Claim, Outcome, eps, outcome

_PAPER = "Koh 2018, Global optimality in deep neural networks with regularization"
_claim = partial(Claim, paper=_PAPER)


def _polar(key: jax.Array) -> Outcome:
    kx, ku = jax.random.split(key)
    X = np.asarray(jax.random.normal(kx, (30, 2)), np.float64)
    U = np.asarray(jax.random.normal(ku, (30, 2)), np.float64)
    upper = rigorous.polar_bound("arcs", U, X, (0.0, 1.0))
    t = np.linspace(0, 2 * np.pi, 200_001)
    grid = np.linalg.norm(np.maximum(X @ np.stack([np.cos(t), np.sin(t)]), 0).T @ U, axis=1).max()
    # From the nearest grid point the function changes by at most its Lipschitz constant times half the spacing.
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
    return outcome(residual, 1e2 * eps() ** 0.5, abs(float(beta @ worse.residuals)))


def _weak_duality(key: jax.Array) -> Outcome:
    X = jax.random.normal(key, (16, 3))
    Y = jax.random.normal(jax.random.fold_in(key, 1), (16, 2))
    lam = 1.0
    problem = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, lam)
    params = problem.phi.init(key, r=8, dx=3, dy=2)
    found = homogeneous.minimize(problem, params, X, Y, key=key, effort="quick")
    excess = float(found.certificate.lower_bound - found.certificate.objective)
    # Control: the gradient at the zero network, not scaled into the polar ball, gives a value above the objective.
    claimed = rigorous.dual_value("squared", -np.asarray(Y, np.float64), np.asarray(Y, np.float64))[0]
    scale = float(found.certificate.objective)
    return outcome(max(excess, 0.0) / scale, 1e-12, (claimed - scale) / scale)


def _local_minima(key: jax.Array) -> Outcome:
    """Compare the ends of descents from random weights, with and without a bottleneck, with the closed form."""
    rate, steps = 0.02, 6000
    worst, control = 0.0, np.inf
    for widths in ((3, 4, 2), (4, 1, 3)):
        kx, kr, kw = jax.random.split(jax.random.fold_in(key, widths[1]), 3)
        X = jax.random.normal(kx, (20, widths[0])) / 20**0.5
        Y = X @ jax.random.normal(kr, (widths[0], widths[-1])) + 0.1 * jax.random.normal(kw, (20, widths[-1]))

        def descend(W: list[jax.Array], X: jax.Array = X, Y: jax.Array = Y) -> list[jax.Array]:
            def step(W: list[jax.Array], _: None) -> tuple[list[jax.Array], None]:
                grads = deep_linear.gradients(W, X, Y)
                return [w - rate * 5 * g for w, g in zip(W, grads, strict=True)], None

            return jax.lax.scan(step, W, length=steps)[0]

        keys = jax.random.split(kw, len(widths) - 1)
        start = [jax.random.normal(k, s) * 0.5 for k, s in zip(keys, itertools.pairwise(widths), strict=True)]
        end = jax.jit(descend)(start)
        best = deep_linear.global_minimum(X, Y, min(widths))
        scale = float(jnp.sum(Y * Y))
        ends = (deep_linear.loss(end, X, Y), deep_linear.relaxed_loss(deep_linear.product(end), X, Y))
        worst = max(worst, *(abs(float(value - best.value)) / scale for value in ends))
        # The other direction: the minimizer of the rank-constrained problem is a product of weights.
        back = deep_linear.factors(best.map, widths)
        worst = max(worst, abs(float(deep_linear.loss(back, X, Y) - best.value)) / scale)
        control = min(control, abs(float(deep_linear.loss(start, X, Y) - best.value)) / scale)
    return outcome(worst, 1e2 * eps() ** 0.5, control)


def _path_sum(key: jax.Array) -> Outcome:
    """Compare the contraction with a list of all paths; control: all paths active."""
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
    errors = [float(np.max(np.abs(np.asarray(a, np.float64) - listed) / scale)) for a in (found, linear)]
    return outcome(errors[0], 1e2 * eps(), errors[1])


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
        statement="Local minima of a deep linear network and the rank-constrained problem correspond; all are global.",
        equation="Theorems 2.1 to 2.3 (Lu & Kawaguchi 2017)",
        check=_local_minima,
    ),
    _claim(
        key="K18 (2.3)",
        statement="The rank-constrained problem has the minimum of the deep linear network, in closed form.",
        equation="section 2.1, (2.3)",
        check=yun_sra_jadbabaie2018.closed_form,
    ),
    _claim(
        key="K18 Thm 2.4",
        statement="Without a bottleneck a critical point is a global minimum iff its product has rank k.",
        equation="Theorem 2.4 (YSJ18 Theorem 2.1)",
        check=yun_sra_jadbabaie2018.without_bottleneck,
    ),
    _claim(
        key="K18 Thm 2.5",
        statement="With a bottleneck the row space of S_p must be the span of the top k directions as well.",
        equation="Theorem 2.5 (YSJ18 Theorem 2.2)",
        check=yun_sra_jadbabaie2018.with_bottleneck,
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
    ),
    _claim(
        key="K18 Thm 3.5",
        statement="A dual point in the polar ball bounds the objective of every width; one outside it does not.",
        equation="Theorem 3.5, appendix A",
        check=_weak_duality,
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
    ),
)
