"""YSJ18: Yun, Sra & Jadbabaie, Global optimality conditions for deep neural networks, ICLR 2018."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import deep_linear, function_space, linalg
from globopt_jax.claims.registry import Claim, Outcome, eps, largest, outcome

_PAPER = "Yun, Sra & Jadbabaie 2018, Global optimality conditions for deep neural networks"
_claim = partial(Claim, paper=_PAPER)

#: Widths without and with a bottleneck. All claims share these shapes, so that few programs are compiled.
_WIDE, _NARROW, _SAMPLES = (5, 6, 5, 4), (5, 2, 6, 4), 30


STATEMENTS = ("YSJ18 Thm 2.1", "YSJ18 Thm 2.2", "YSJ18 matrix factorization", "YSJ18 Cor 2.3", "YSJ18 Prop 3.1")
STATEMENTS += ("YSJ18 Lemma 3.2", "YSJ18 Prop 3.4", "YSJ18 Prop 3.5", "YSJ18 Prop 3.6", "YSJ18 Prop 3.7", "YSJ18 (6)")
STATEMENTS += ("YSJ18 Thm 4.1", "YSJ18 Thm 4.2", "YSJ18 Prop 4.3", "YSJ18 Lemma B.1")


def _data(key: jax.Array, widths: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    kx, kr, kn = jax.random.split(key, 3)
    X = jax.random.normal(kx, (_SAMPLES, widths[0]))
    R = jax.random.normal(kr, (widths[0], widths[-1]))
    return X, X @ R + jax.random.normal(kn, (_SAMPLES, widths[-1]))


def _weights(key: jax.Array, widths: tuple[int, ...]) -> list[jax.Array]:
    keys = jax.random.split(key, len(widths) - 1)
    shapes = itertools.pairwise(widths)
    return [jax.random.normal(k, s) / s[0] ** 0.5 for k, s in zip(keys, shapes, strict=True)]


def _gradients(key: jax.Array) -> Outcome:
    X, Y = _data(key, _WIDE)
    W = _weights(jax.random.fold_in(key, 1), _WIDE)

    def distance(found: list[jax.Array], wanted: list[jax.Array]) -> jax.Array:
        return jnp.max(
            jnp.stack([jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)) for a, b in zip(found, wanted, strict=True)])
        )

    wanted = jax.grad(deep_linear.loss)(W, X, Y)
    found = deep_linear.gradients(W, X, Y)
    wrong = deep_linear.gradients(W, X, 1.01 * Y)  # the same partial products with another residual E
    return outcome(distance(found, wanted), 1e3 * eps(), distance(wrong, wanted))


def closed_form(key: jax.Array) -> Outcome:
    """Compare the closed-form value, and the loss of the closed-form map, with a computation in NumPy."""
    X, Y = _data(key, _NARROW)
    found = deep_linear.global_minimum(X, Y, 2)
    attained = deep_linear.relaxed_loss(found.map, X, Y)
    # The best rank-2 approximation of the least-squares fit F, by Eckart and Young.
    F = np.asarray(X, np.float64) @ np.linalg.lstsq(np.asarray(X, np.float64), np.asarray(Y, np.float64), rcond=None)[0]
    s = np.linalg.svd(F, compute_uv=False)
    value = 0.5 * np.sum((np.asarray(Y, np.float64) - F) ** 2) + 0.5 * np.sum(s[2:] ** 2)
    error = largest(abs(float(attained) - value), abs(float(found.value) - value)) / value
    other = deep_linear.global_minimum(X, Y, 1)
    return outcome(error, 1e3 * eps(), abs(float(deep_linear.relaxed_loss(other.map, X, Y)) - value) / value)


def _iff(widths: tuple[int, ...], key: jax.Array) -> Outcome:
    """Check that rank and row space tell which critical points are global minima, and that others are saddles."""
    X, Y = _data(key, widths)
    k = min(widths)
    keep = [(), (0,), (1,), tuple(range(k))] + ([(0, 2)] if k == 2 else [])
    wrong, control = 0, 0
    for number, indices in enumerate(keep):
        W = deep_linear.critical_point(X, Y, widths, indices, jax.random.fold_in(key, number), condition=5.0)
        found = deep_linear.classify(W, X, Y)
        by_structure = len(indices) == k and (k == min(widths[0], widths[-1]) or float(found.angle) < eps() ** 0.5)
        wrong += (found.kind == "global_minimum") != by_structure
        wrong += not by_structure and not bool(deep_linear.escape(W, X, Y, 0.1, key).found)
        # Control: a point that is not critical is named neither a global minimum nor a saddle.
        kicked = [w + 0.1 * v for w, v in zip(W, _weights(key, widths), strict=True)]
        control += deep_linear.classify(kicked, X, Y).kind == "not_critical"
    return outcome(wrong, 0.5, float(control == len(keep)))


without_bottleneck, with_bottleneck = partial(_iff, _WIDE), partial(_iff, _NARROW)


def _bound(key: jax.Array) -> Outcome:
    worst, control = -np.inf, 0.0
    for widths in (_WIDE, _NARROW):
        X, Y = _data(key, widths)
        best = deep_linear.global_minimum(X, Y, min(widths))
        near = deep_linear.factors(best.map, widths)
        for number, scale in enumerate((1.0, 0.1, 1e-3)):
            noise = _weights(jax.random.fold_in(key, number), widths)
            W = [a + scale * b for a, b in zip(near, noise, strict=True)]
            gap = float(deep_linear.loss(W, X, Y) - best.value)
            bounds = deep_linear.gap_bounds(W, X, Y)
            worst = largest(worst, (gap - float(bounds.best)) / float(best.value))
            # Control: a quarter of the bound is false. A gradient of half the norm would give that quarter.
            control = largest(control, (gap - 0.25 * float(bounds.best - bounds.margin)) / float(best.value))
    return outcome(largest(worst, 0.0), 10 * eps(), control)


def _full_rank(key: jax.Array) -> Outcome:
    """Check ``sigma_k(R) <= ||W_1|| sigma_dy(S_1)``; control: with a last layer of zeros no such eps exists."""
    W = _weights(key, _WIDE)

    def eps_over_needed(W: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        above = linalg.singular_values(deep_linear.product(W[1:]))[-1]
        whole = linalg.singular_values(deep_linear.product(W))[_WIDE[-1] - 1]
        return above, whole / linalg.spectral_norm(W[0])

    above, needed = eps_over_needed(W)
    none, _ = eps_over_needed([*W[:-1], 0 * W[-1]])
    missing = jnp.where(above > 0, jnp.maximum(needed - above, 0) / needed, 1.0)
    return outcome(missing, 1e3 * eps(), (needed - none) / needed)


def _bottleneck(key: jax.Array) -> Outcome:
    X, Y = _data(key, _NARROW)
    W = deep_linear.critical_point(X, Y, _NARROW, (0, 2), key, condition=5.0)
    found = deep_linear.bottleneck_conditions(W, X, Y)
    moved = deep_linear.bottleneck_conditions([*W[:-1], 1.1 * W[-1]], X, Y)
    return outcome(jnp.where(found.critical, found.stationarity, 1.0), 1e3 * eps(), moved.stationarity)


def _projector(key: jax.Array) -> Outcome:
    X, Y = _data(key, _NARROW)
    best = deep_linear.global_minimum(X, Y, 2)
    errors = []
    for indices in ((0, 1), (0, 2)):
        W = deep_linear.critical_point(X, Y, _NARROW, indices, key, condition=5.0)
        found = deep_linear.bottleneck_conditions(W, X, Y)
        gap = deep_linear.loss(W, X, Y) - best.value
        same = bool(found.distance < 1e3 * eps() ** 0.5) == (indices == (0, 1))
        error = jnp.abs(found.gap - gap) / best.value + found.map_residual / best.singular_values[0]
        errors.append(float(error) + (not same))
    W = _weights(key, _NARROW)  # control: at a point that is not critical X R differs from F Pi
    moved = deep_linear.bottleneck_conditions(W, X, Y)
    return outcome(largest(*errors), 1e4 * eps(), moved.map_residual / best.singular_values[0])


def _ascent(key: jax.Array) -> Outcome:
    X, Y = _data(key, _WIDE)
    points = [
        [jnp.zeros(w.shape) for w in _weights(key, _WIDE)],
        deep_linear.critical_point(X, Y, _WIDE, (0,)),
        deep_linear.critical_point(X, Y, _WIDE, range(4)),
    ]
    lowest = min(float(deep_linear.ascend(W, X, Y, 0.1, key).increase) for W in points)
    # Control: a step against the gradient lowers the loss.
    W = _weights(key, _WIDE)
    down = [w - 1e-4 * g for w, g in zip(W, deep_linear.gradients(W, X, Y), strict=True)]
    return outcome(largest(-lowest, 0.0) + (lowest == 0), 0.0, deep_linear.loss(W, X, Y) - deep_linear.loss(down, X, Y))


def _residual(key: jax.Array) -> Outcome:
    d, layers, rate = 4, 3, 0.02
    covariance = jnp.eye(d)

    def descend(R: jax.Array) -> list[jax.Array]:
        def step(W: list[jax.Array], _: None) -> tuple[list[jax.Array], None]:
            grads = deep_linear.residual_gradients(W, R, covariance)
            return [w - rate * g for w, g in zip(W, grads, strict=True)], None

        return jax.lax.scan(step, [jnp.zeros((d, d))] * layers, length=3000)[0]

    descend = jax.jit(descend)
    R = jnp.eye(d) + 0.1 * jax.random.normal(key, (d, d))
    end = deep_linear.residual_gap(descend(R), R, covariance)
    # Elsewhere in the region the bound is that of Theorem 2.2 of Hardt and Ma, which is not 0.
    somewhere = [0.05 * w for w in jax.random.normal(jax.random.fold_in(key, 1), (layers, d, d))]
    near = deep_linear.residual_gap(somewhere, R, covariance)
    missing = jnp.where(near.inside, jnp.maximum(near.gap - near.bound, 0) / near.gap, 1.0)
    # Control: with a reflection as target the region holds no critical point, and the gap does not vanish.
    turned = R.at[0].multiply(-1)
    stuck = deep_linear.residual_gap(descend(turned), turned, covariance)
    return outcome(jnp.maximum(jnp.where(end.inside, end.bound, 1.0), missing), 1e3 * eps(), stuck.gap)


def _factorization(key: jax.Array) -> Outcome:
    Y = jax.random.normal(key, (6, 5))
    U, s, Vt = np.linalg.svd(np.asarray(Y))
    pairs = [[jnp.asarray(U[:, i] * s[i]), jnp.asarray(Vt[i])] for i in ([0, 1], [0, 2])]
    found, other = (deep_linear.classify(W, jnp.eye(6), Y) for W in pairs)
    named = found.kind == "global_minimum" and other.kind == "saddle" and bool(other.is_strict)
    return outcome(abs(float(found.gap)) / float(found.loss) + (not named), 1e2 * eps(), other.gap)


def _smooth_leaky(t: jax.Array) -> jax.Array:
    """A smooth activation with slopes between 0.1 and 1 and the value 0 at 0."""
    return 0.1 * t + 0.9 * (jax.nn.softplus(t) - jnp.log(jnp.asarray(2.0, t.dtype)))


def _layers(key: jax.Array, widths: tuple[int, ...]) -> list[Any]:
    return function_space.layers_of(_weights(key, widths), _smooth_leaky)


def _frechet(key: jax.Array) -> Outcome:
    """Compare (6) with the derivative by autodiff along a change of the layer; control: a risk without the 1/2."""
    widths = (4, 5, 4, 3)
    X, Y = _data(key, widths)
    layers, V = _layers(jax.random.fold_in(key, 1), widths), jax.random.normal(jax.random.fold_in(key, 2), (5, 4))

    def eta(z: jax.Array) -> jax.Array:
        return jnp.sin(z @ V)

    def moved(t: jax.Array) -> Any:
        return function_space.risk([layers[0], lambda z: layers[1](z) + t * eta(z), layers[2]], X, Y)

    wanted = jax.grad(moved)(jnp.zeros((), X.dtype))
    found = function_space.derivative(layers, X, Y, eta, 2)
    size = jnp.abs(wanted)
    return outcome(jnp.abs(found - wanted) / size, 1e4 * eps(), jnp.abs(2 * found - wanted) / size)


def _inequality(widths: tuple[int, ...], layer: int, key: jax.Array) -> Outcome:
    """It is an equality for two scalings; control: so that a factor above 2 is false."""
    X, Y = _data(key, widths)
    found = function_space.inequality(_layers(jax.random.fold_in(key, 1), widths), X, Y, layer)
    tight = function_space.inequality([lambda z: 2 * z, lambda z: 3 * z], jnp.ones((1, 1)), jnp.zeros((1, 1)), layer)
    return outcome(
        jnp.maximum(jnp.maximum(found.right - found.left, 0) / found.right, jnp.abs(tight.right / tight.left - 1)),
        1e2 * eps(),
        (1.1 * tight.right - tight.left) / tight.left,
    )


def _in_function_space(key: jax.Array) -> Outcome:
    X = jax.random.normal(key, (20, 3))
    V = jax.random.normal(jax.random.fold_in(key, 1), (3, 2))

    def target(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ V)

    Y = jax.vmap(target)(X)
    layers = function_space.global_minimum(target, (3, 4, 2, 2))
    found = function_space.inequality(layers, X, Y)
    off = function_space.risk([*layers[:-1], lambda z: 1.1 * z], X, Y)
    return outcome(found.gap + jnp.abs(found.eps2 - 1), 1e2 * eps(), off)


CLAIMS = (
    _claim(
        key="YSJ18 Lemma 3.2",
        statement="The gradient of layer l is P_{l-1}^T E S_l^T.",
        equation="Lemma 3.2, (5)",
        check=_gradients,
        traceable=True,
    ),
    _claim(
        key="YSJ18 Prop 3.1",
        statement="The best map of rank k is the least-squares map projected on the top k right directions of the fit.",
        equation="Proposition 3.1, (4)",
        check=closed_form,
    ),
    _claim(
        key="YSJ18 Thm 2.1",
        statement="Without a bottleneck a critical point is a global minimum iff its product has rank k.",
        equation="Theorem 2.1",
        check=without_bottleneck,
    ),
    _claim(
        key="YSJ18 Thm 2.2",
        statement="With a bottleneck the row space of S_p must be the span of the top k directions as well.",
        equation="Theorem 2.2",
        check=with_bottleneck,
    ),
    _claim(
        key="YSJ18 Prop 3.4",
        statement="Gradients divided by singular values of partial products bound the gap at every point.",
        equation="Proposition 3.4, generalized",
        check=_bound,
    ),
    _claim(
        key="YSJ18 Prop 3.5",
        statement="If the product has full rank, the layers above the first have a smallest singular value above 0.",
        equation="Proposition 3.5",
        check=_full_rank,
        traceable=True,
    ),
    _claim(
        key="YSJ18 Prop 3.6",
        statement="A point of full rank is critical iff E A^T = 0 and B^T E = 0 at the bottleneck.",
        equation="Proposition 3.6",
        check=_bottleneck,
    ),
    _claim(
        key="YSJ18 Prop 3.7",
        statement="At these points X R = F Pi; minima are global iff Pi projects on the span of the top k directions.",
        equation="Proposition 3.7",
        check=_projector,
    ),
    _claim(
        key="YSJ18 Lemma B.1",
        statement="No critical point is a local maximum: a larger loss is found in every neighbourhood.",
        equation="appendix B, Lemma B.1",
        check=_ascent,
    ),
    _claim(
        key="YSJ18 Cor 2.3",
        statement="A critical point of a linear residual network with all norms below 1 is a global minimum.",
        equation="Corollary 2.3 (Hardt & Ma 2017, Theorem 2.2)",
        check=_residual,
        traceable=True,
    ),
    _claim(
        key="YSJ18 matrix factorization",
        statement="||U V^T - Y||^2 is the case X = I, H = 1; other pairs of singular directions are strict saddles.",
        equation="section 2.2",
        check=_factorization,
    ),
    _claim(
        key="YSJ18 (6)",
        statement="The Frechet derivative of the risk in a layer is E[(h - h*)^T J[above] eta(below)].",
        equation="appendix A.2, (6)",
        check=_frechet,
        traceable=True,
    ),
    _claim(
        key="YSJ18 Thm 4.1",
        statement="||D_{h_1} L||_op ||h - h*||_nl >= 2 eps (L - L*) if the Jacobians above have sigma_min >= eps.",
        equation="Theorem 4.1 and its proof in appendix A.3",
        check=partial(_inequality, (5, 6, 4, 3), 1),
        traceable=True,
    ),
    _claim(
        key="YSJ18 Thm 4.2",
        statement="For dx <= dy the same holds at a layer j above invertible layers, with eps1 eps2.",
        equation="Theorem 4.2 and its proof in appendix A.4",
        check=partial(_inequality, (3, 3, 6, 4), 2),
        traceable=True,
    ),
    _claim(
        key="YSJ18 Prop 4.3",
        statement="The sets of Theorems 4.1 and 4.2 hold a global minimum: h* in one layer, the others pad or cut off.",
        equation="Proposition 4.3",
        check=_in_function_space,
        traceable=True,
    ),
)
