"""KHK19: Kawaguchi, Huang & Kaelbling, Effect of depth and width on local minima in deep learning, 2019."""

import itertools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import deep_linear, linalg, local_minima, networks
from globopt_jax.claims.registry import Claim, Outcome, eps, outcome, remembered

_PAPER = "Kawaguchi, Huang & Kaelbling 2019, Effect of depth and width on local minima in deep learning"
_claim = partial(Claim, paper=_PAPER)

#: The network of most claims: a layer of ReLU units, a layer of linear and ReLU units, and the outputs.
_WIDTHS, _SAMPLES = (4, 5, 4, 2), 40
_RELU, _LINEAR = (0.0, 1.0), (1.0, 1.0)
_MIXED = ((_RELU,) * 5, (_LINEAR, _LINEAR, _RELU, _RELU))


STATEMENTS = ("KHK19 Prop 1", "KHK19 Prop 2", "KHK19 Thm 1", "KHK19 Def 1", "KHK19 Thm 2", "KHK19 Cor 1", "KHK19 Def 2")
STATEMENTS += ("KHK19 Cor 2", "KHK19 Lemma 1", "KHK19 Lemma 3", "KHK19 Lemma 4", "KHK19 Lemma 5", "KHK19 Lemma 6")


class _Minimum(NamedTuple):
    W: list[jax.Array]
    X: jax.Array
    Y: jax.Array
    loss: float


def _weights(key: jax.Array, widths: tuple[int, ...]) -> list[jax.Array]:
    keys = jax.random.split(key, len(widths) - 1)
    shapes = itertools.pairwise(widths)
    return [jax.random.normal(k, s) * (2 / s[0]) ** 0.5 for k, s in zip(keys, shapes, strict=True)]


def _minimum(key: jax.Array, W: list[jax.Array], activation: Any, X: jax.Array, free: Any = None) -> _Minimum | None:
    """Return a local minimum, whose targets are the network's output plus noise orthogonal to the tangent space.

    None is returned where a singular value is so small that rounding tilts its direction: there the dtype does not tell
    what is orthogonal.
    """
    D = local_minima.jacobian_blocks(W, X, activation)
    A = np.concatenate([np.asarray(block, np.float64).transpose(1, 2, 0).reshape(block.shape[1], -1) for block in D], 1)
    if free is not None:
        A = A[:, free]
    Yhat = np.asarray(networks.feed_forward(activation)(W, X), np.float64)
    noise = np.asarray(jax.random.normal(key, (Yhat.size,)), np.float64)
    U, s, _ = np.linalg.svd(A, full_matrices=False)
    # Zeros come out as rounding of the blocks in their dtype, and of the decomposition in float64.
    zero, solid = eps() + 4 * np.finfo(np.float64).eps, 300 * eps()
    if np.any((s > zero * s[0]) & (s < solid * s[0])):
        return None
    noise, _ = linalg.split(U[:, s >= solid * s[0]], noise)
    noise *= 0.02 * np.linalg.norm(Yhat) / np.linalg.norm(noise)
    E = noise.reshape(Yhat.shape[::-1]).T  # vec stacks columns
    return _Minimum(W, X, jnp.asarray(Yhat + E, X.dtype), 0.5 * float(np.sum(E**2)))


#: The family of the claims that share these local minima, and the sets of layers whose bounds they share.
_MINIMA, _SETS = "a local minimum", ((), (1,), (2,), (1, 2), (0,))


@remembered
def _instance(key: jax.Array) -> _Minimum:
    found = None
    while found is None:
        key, kx, kw, ke = jax.random.split(key, 4)
        found = _minimum(ke, _weights(kw, _WIDTHS), _MIXED, jax.random.normal(kx, (_SAMPLES, _WIDTHS[0])))
    return found


@remembered
def _bounds(key: jax.Array) -> Any:
    at = _instance(key)
    return local_minima.regression_bounds(at.W, at.X, at.Y, _MIXED, _SETS)


def _lemma_1(key: jax.Array) -> Outcome:
    at = _instance(key)
    Yhat = networks.feed_forward(_MIXED)(at.W, at.X)
    D = local_minima.jacobian_blocks(at.W, at.X, _MIXED)

    def residual(vec: Any) -> jax.Array:
        said = [jnp.einsum("kra,ak->r", block, w, precision="highest") for block, w in zip(D, at.W, strict=True)]
        return jnp.max(jnp.abs(jnp.stack(said) - vec[None])) / jnp.max(jnp.abs(vec))

    # Control: ravel stacks rows, where vec stacks columns.
    return outcome(residual(local_minima.vec(Yhat)), 1e3 * eps(), residual(jnp.ravel(Yhat)))


def _theorem_1(key: jax.Array) -> Outcome:
    at = _instance(key)
    network = networks.feed_forward(_MIXED)
    found = local_minima.tangent_projection(network, at.W, at.X, at.Y)
    moved = [w * 1.01 if l == 0 else w + 0.01 for l, w in enumerate(at.W)]
    away = local_minima.tangent_projection(network, moved, at.X, at.Y)
    gaps = (abs(float(each.loss - each.value)) / float(each.loss) for each in (found, away))
    return outcome(next(gaps), 1e4 * eps(), next(gaps))


def _decomposition(key: jax.Array) -> Outcome:
    at = _instance(key)
    found = local_minima.decompose(at.W, at.X, at.Y, _MIXED)
    target = float(found.target)
    # Control: without N each block is projected on alone, and parts common to several blocks count several times.
    y = np.asarray(local_minima.vec(at.Y), np.float64)
    alone = 0.0
    for block in local_minima.jacobian_blocks(at.W, at.X, _MIXED):
        for D in np.asarray(block, np.float64):
            alone += 0.5 * float(y @ D @ np.linalg.lstsq(D, y, rcond=1e-10)[0])
    total = sum(float(np.sum(s)) for s in found.shares)
    residual = abs(total + float(found.value) - target) / target
    return outcome(residual, 1e3 * eps(), abs(alone + float(found.value) - target) / target)


def _proposition_1(key: jax.Array) -> Outcome:
    """Compare the shares of a network with one hidden layer and one output with the projectors printed in the paper."""
    kx, kw, ky = jax.random.split(key, 3)
    X, Y, W = jax.random.normal(kx, (30, 3)), jax.random.normal(ky, (30, 1)), _weights(kw, (3, 4, 1))
    found = local_minima.decompose(W, X, Y)
    inputs, y = np.asarray(X, np.float64), np.asarray(Y, np.float64)[:, 0]
    Z = inputs @ np.asarray(W[0], np.float64)
    blocks = [float(W[1][k, 0]) * (Z[:, k] > 0)[:, None] * inputs for k in range(4)] + [np.maximum(Z, 0)]

    def shares(order: list[int]) -> np.ndarray:
        N, said = np.eye(len(y)), np.zeros(len(blocks))
        for k in order:
            U, s, _ = np.linalg.svd(N @ blocks[k], full_matrices=False)
            U = U[:, s > 1e-8]
            said[k] = 0.5 * np.sum((U.T @ y) ** 2)
            N = N - U @ U.T
        return said

    ours = np.concatenate([np.asarray(s, np.float64) for s in found.shares])
    size = 0.5 * np.sum(y**2)
    errors = (float(np.max(np.abs(ours - shares(order)))) / size for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]))
    return outcome(next(errors), 1e4 * eps(), next(errors))


def _lemma_5(key: jax.Array) -> Outcome:
    """Check J against half the squared distance of y from the span of the columns of [Lam_k X]_k.

    The two agree if no outgoing weight is 0. In the control some outgoing weights are 0, at no local minimum.
    """
    kx, kw, ky = jax.random.split(key, 3)
    X, Y, W = jax.random.normal(kx, (30, 3)), jax.random.normal(ky, (30, 1)), _weights(kw, (3, 4, 1))
    inputs = np.asarray(X, np.float64)
    patterns = (inputs @ np.asarray(W[0], np.float64) > 0).astype(float)
    Dt = (patterns[:, :, None] * inputs[:, None, :]).reshape(30, -1)
    y = np.asarray(Y, np.float64)[:, 0]
    wanted = 0.5 * float(np.sum((y - Dt @ np.linalg.lstsq(Dt, y, rcond=1e-10)[0]) ** 2))
    network = networks.feed_forward("relu")
    without = [W[0], W[1].at[1:].set(0)]
    values = (float(local_minima.tangent_projection(network, w, X, Y).value) for w in (W, without))
    return outcome(abs(next(values) - wanted) / wanted, 1e4 * eps(), abs(next(values) - wanted) / wanted)


def _proposition_2(key: jax.Array) -> Outcome:
    """Check that the layer explains white noise completely where dx d > m, and only partly far below that."""
    found = local_minima.phase_change(key, 24, 6, (2, 40), 8)
    short = float(np.max(24 - found.rank[1]))
    return outcome(float(np.max(found.fraction[1])) + short, 0.0, float(np.min(found.fraction[0])))


def _lemma_3(key: jax.Array) -> Outcome:
    """Compare the shares of Theorem 2, summed, with one projection on what the tangent space adds to the features."""
    at, found = _instance(key), _bounds(key)
    y = np.asarray(local_minima.vec(at.Y), np.float64)
    features = [np.asarray(at.X, np.float64)]
    for w, slopes in zip(at.W[:-1], _MIXED, strict=True):
        Z = features[-1] @ np.asarray(w, np.float64)
        negative, positive = np.asarray(slopes).T
        features.append(np.where(Z > 0, positive * Z, negative * Z))
    # vec stacks columns, so that Phibar = I (x) Phi.
    Phi = np.kron(np.eye(at.Y.shape[1]), np.hstack(features[1:]))
    blocks = local_minima.jacobian_blocks(at.W, at.X, _MIXED)[:-1]
    D = np.concatenate([np.asarray(b, np.float64).transpose(1, 2, 0).reshape(len(y), -1) for b in blocks], axis=1)

    def explained(A: np.ndarray) -> float:
        U, s, _ = np.linalg.svd(A, full_matrices=False)
        return 0.5 * float(np.sum((U[:, s > 1e3 * eps() * s[0]].T @ y) ** 2))

    wanted, scale = explained(np.hstack([Phi, D])) - explained(Phi), 0.5 * float(y @ y)
    said = sum(float(np.sum(share[_SETS.index((1, 2))])) for share in found.shares)
    # Control: the tangent space alone, without the features taken out first.
    return outcome(abs(said - wanted) / scale, 1e5 * eps(), abs(explained(D) - wanted) / scale)


def _lemma_6(key: jax.Array) -> Outcome:
    """Check the rank of ``[Lam_k X]_k`` below and above ``dx d = m``; control: a sample that is off in every unit."""
    kx, kl = jax.random.split(key)
    m, dx = 24, 4
    X = jax.random.normal(kx, (m, dx))

    def rank(Lam: jax.Array) -> jax.Array:
        Dt = (Lam[:, :, None] * X[:, None, :]).reshape(m, -1)
        return jnp.asarray(linalg.numerical_rank(Dt), X.dtype)

    few, many = (jax.random.uniform(k, (m, d), minval=-1.0) for k, d in zip(jax.random.split(kl), (3, 12), strict=True))
    wrong = jnp.abs(rank(few) - dx * 3) + jnp.abs(rank(many) - m)
    return outcome(wrong, 0.0, m - rank(many.at[0].set(0)))


def _separated(key: jax.Array, *, strong: bool) -> Outcome:
    """Check that linear units built into each layer from t = 1 on are found, and are lost with some edges more."""
    X = jax.random.normal(key, (_SAMPLES, 3)).at[:, 0].set(1)
    W = local_minima.with_linear_units(key, X, (8, 5, 4, 2), 1, activation="absolute", strong=strong)
    found = local_minima.linear_units(W, X, "absolute", strong=strong)
    broken = [jnp.asarray(w).at[:2, -1].set(-100) if l == 2 else w for l, w in enumerate(W)]
    gone = local_minima.linear_units(broken, X, "absolute", strong=strong)
    return outcome(max(2 - int(found.sizes[1]), 0), 0, max(2 - int(gone.sizes[1]), 0))


def _lemma_4(key: jax.Array) -> Outcome:
    found = _bounds(key)
    t = int(found.t)
    return outcome(np.max(found.residuals[t:]), 1e3 * eps(), np.max(found.residuals[:t], initial=0.0))


def _theorem_2(key: jax.Array) -> Outcome:
    found = _bounds(key)
    distance = np.abs(found.value - found.loss) / float(found.loss)
    return outcome(np.max(distance[found.admissible]), 1e4 * eps(), np.min(distance[~found.admissible]))


def _zeros(key: jax.Array) -> Outcome:
    """Check for deep linear networks that the bound is the optimum at a global minimum, and false at zero weights."""
    kx, ky = jax.random.split(key)
    X, Y = jax.random.normal(kx, (_SAMPLES, 4)), jax.random.normal(ky, (_SAMPLES, 2))
    best = deep_linear.global_minimum(X, Y, 2)
    W = deep_linear.factors(best.map, (4, 5, 3, 2))
    scale = float(best.value)
    found = local_minima.regression_bounds(W, X, Y, "linear", [(0,), (0, 1, 2)])
    zeros = local_minima.regression_bounds([0 * w for w in W], X, Y, "linear", [(0,)])
    residual = np.max(np.abs(found.value - scale)) + abs(float(found.loss) - scale)
    return outcome(residual / scale, 1e4 * eps(), float(zeros.loss - zeros.value[0]) / scale)


def _corollary_1(key: jax.Array) -> Outcome:
    """Check the equality without the separated edges and their derivatives; in the control the weights were moved."""
    kx, kw, ke = jax.random.split(key, 3)
    X = jax.random.normal(kx, (_SAMPLES, 3)).at[:, 0].set(1)
    # The other units take absolute values: such units are never dead, and rarely linear on all samples.
    activation = ((_RELU, *((-1.0, 1.0),) * 3),) * 3
    at: _Minimum | None = None
    W: list[Any] = []
    while at is None:
        kw, again = jax.random.split(kw)
        W = local_minima.with_linear_units(again, X, (4, 4, 4, 1), 0, activation=activation)
        if all(np.sum(chosen) <= 1 for chosen in local_minima.linear_units(W, X, activation).sets):
            at = _minimum(ke, W, activation, X, np.concatenate([np.asarray(w).ravel() != 0 for w in W]))
    moved = [w * (1 + 0.03 * l) for l, w in enumerate(W)]
    sets = [(), (0,), (1, 3)]
    found, away = (local_minima.regression_bounds(w, X, at.Y, activation, sets, restricted=True) for w in (W, moved))
    distance, apart = (np.abs(each.value - each.loss) / float(each.loss) for each in (found, away))
    return outcome(np.max(distance), 1e5 * eps(), np.min(apart))


def _corollary_2(key: jax.Array) -> Outcome:
    at = _instance(key)
    found = local_minima.regression_bounds(at.W, at.X, at.Y, _MIXED, strong=True)
    below = local_minima.regression_bounds(at.W, at.X, at.Y, _MIXED, [(0,)], strong=True)
    residual = np.max(np.abs(found.value - found.loss)) / float(found.loss)
    return outcome(residual, 1e4 * eps(), abs(float(below.value[0] - below.loss)) / float(below.loss))


CLAIMS = (
    _claim(
        key="KHK19 Lemma 1",
        statement="vec(Yhat) is D^(l) vec(W_l) for every layer l, with vec stacking columns.",
        equation="appendix A, Lemma 1",
        check=_lemma_1,
        family=_MINIMA,
    ),
    _claim(
        key="KHK19 Thm 1",
        statement="At differentiable local minima the loss equals J; elsewhere the tangent gap is the difference.",
        equation="Theorem 1, (4.2)",
        check=_theorem_1,
        family=_MINIMA,
    ),
    _claim(
        key="KHK19 Thm 1, shares",
        statement="J is 1/2 ||Y||^2 minus the shares of all units, in order, each orthogonal to the earlier ones.",
        equation="Theorem 1, (4.2), Lemma 3",
        check=_decomposition,
        family=_MINIMA,
    ),
    _claim(
        key="KHK19 Prop 1",
        statement="With one hidden layer and a scalar output the blocks are W2_k Lam_k X for all k, then Phi.",
        equation="Proposition 1, (3.2)",
        check=_proposition_1,
    ),
    _claim(
        key="KHK19 Lemma 5",
        statement="With one hidden layer and no outgoing weight 0, J is the least-squares loss on [Lam_k X]_k.",
        equation="appendix B, (B.1)",
        check=_lemma_5,
    ),
    _claim(
        key="KHK19 Prop 2",
        statement="On white noise with fixed patterns the rank is min(dx d, m), and J is 0 from dx d = m on.",
        equation="Proposition 2",
        check=_proposition_2,
    ),
    _claim(
        key="KHK19 Lemma 6",
        statement="With fixed patterns and Gaussian inputs [Lam_k X]_k has rank min(dx d, m).",
        equation="appendix B, Lemma 6",
        check=_lemma_6,
        traceable=True,
    ),
    _claim(
        key="KHK19 Def 1",
        statement="One sweep from the output finds weakly separated linear units.",
        equation="Definition 1",
        check=partial(_separated, strong=False),
    ),
    _claim(
        key="KHK19 Def 2",
        statement="Deleting units until nothing changes finds strongly separated linear units.",
        equation="Definition 2",
        check=partial(_separated, strong=True),
    ),
    _claim(
        key="KHK19 Lemma 3",
        statement="The improvement of Theorem 2 is the sum of the shares of all units, in order.",
        equation="appendix A, Lemma 3",
        check=_lemma_3,
        family=_MINIMA,
    ),
    _claim(
        key="KHK19 Lemma 4",
        statement="At local minima the features of all layers from t on are orthogonal to the residual.",
        equation="appendix A, Lemma 4",
        check=_lemma_4,
        family=_MINIMA,
    ),
    _claim(
        key="KHK19 Thm 2",
        statement="The loss at local minima equals the regression bound for every set S of layers from t on.",
        equation="Theorem 2, (5.1)",
        check=_theorem_2,
        family=_MINIMA,
    ),
    _claim(
        key="KHK19 Thm 2, linear",
        statement="For deep linear networks the bound equals the optimum at local minima; at zero weights it is false.",
        equation="section 5.2",
        check=_zeros,
    ),
    _claim(
        key="KHK19 Cor 1",
        statement="With the separated edges removed Theorem 2 holds without the derivatives in them.",
        equation="Corollary 1, (5.2)",
        check=_corollary_1,
    ),
    _claim(
        key="KHK19 Cor 2",
        statement="With strongly separated linear units the bound holds for S in {t, H}.",
        equation="Corollary 2",
        check=_corollary_2,
        family=_MINIMA,
    ),
)
