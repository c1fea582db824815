"""NH17: Nguyen & Hein, The loss surface of deep and wide neural networks, ICML 2017."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp

from globopt_jax import linalg, networks, wide
from globopt_jax.claims.registry import Claim, Outcome, eps, largest, outcome

_PAPER = "Nguyen & Hein 2017, The loss surface of deep and wide neural networks"
_claim = partial(Claim, paper=_PAPER)

STATEMENTS = ("NH17 Assumption 3.2", "NH17 Thm 3.4", "NH17 Thm 3.8")

#: Samples, and widths with a layer of N - 1 units.
_SAMPLES, _WIDTHS = 5, (3, 4, 3, 2)


def _network(key: jax.Array, widths: tuple[int, ...] = _WIDTHS) -> list[tuple[jax.Array, jax.Array]]:
    pairs = [jax.random.split(k) for k in jax.random.split(key, len(widths) - 1)]
    shapes = itertools.pairwise(widths)
    return [
        (jax.random.normal(kw, shape), jax.random.normal(kb, shape[1:]))
        for (kw, kb), shape in zip(pairs, shapes, strict=True)
    ]


def _data(key: jax.Array, dx: int, dy: int, samples: int = _SAMPLES) -> tuple[jax.Array, jax.Array]:
    kx, ky = jax.random.split(jax.random.fold_in(key, 7))
    return jax.random.normal(kx, (samples, dx)), jax.random.normal(ky, (samples, dy))


def _assumption(key: jax.Array) -> Outcome:
    X, _ = _data(key, 3, 1)
    good = [
        wide.assumption(X, name, loss) for name in ("tanh", "sigmoid", "softplus") for loss in ("squared", "log_cosh")
    ]
    twice = wide.assumption(X.at[1].set(X[0]))
    bad = [wide.assumption(X, name) for name in ("relu", "elu", "gelu", "silu", "sin", "softsign")]
    bad += [wide.assumption(X, "tanh", loss) for loss in ("huber", "absolute", "logistic")] + [twice]
    return outcome(sum(not a.holds for a in good), 0.5, float(all(not a.holds for a in bad)))


def _bounded(layer: int, widths: tuple[int, ...], key: jax.Array) -> Outcome:
    """Compare losses with the bounds at random points; with too many samples, a critical point has a loss.

    The bounds are equalities for one linear layer and orthonormal inputs, as many as samples.
    """

    def bounds(found: wide.LossBounds, k: int) -> jax.Array:
        return jnp.stack([found.product[k], found.per_sample[k], found.kernel[k]]) / found.loss

    X, Y = _data(key, widths[0], widths[-1])
    excess = jnp.max(1 - bounds(wide.loss_bounds(_network(key, widths), X, Y), layer))
    Q = linalg.svd(jax.random.normal(key, (4, 4))).U
    equal = bounds(wide.loss_bounds([(0 * Q[:, :2], None)], Q, 1 + Y[:4, :2], "linear"), 0)
    excess = jnp.maximum(excess, jnp.maximum(jnp.max(1 - equal), jnp.max(equal) - 1 - eps() ** 0.5))
    # Control: one layer, more samples than inputs, and the least-squares solution, whose gradient is zero.
    X, Y = _data(key, 3, 2, 8)
    found = linalg.svd(X)
    W, s = found.Vt.T @ ((found.U.T @ Y) / found.s[:, None]), found.s
    g = X.T @ (X @ W - Y)
    claimed = 0.5 * jnp.sum(jnp.square(g)) / s[-1] ** 2  # the last singular value instead of the N-th, which is 0
    loss = 0.5 * jnp.sum(jnp.square(X @ W - Y))
    return outcome(jnp.maximum(excess, 0), 10 * eps(), (loss - claimed) / loss)


def _fitted(key: jax.Array) -> Outcome:
    X, Y = _data(key, _WIDTHS[0], _WIDTHS[-1])
    scale = 0.5 * float(jnp.sum(jnp.square(Y)))
    exact = wide.interpolate(_network(key), X, Y, 1)
    left = networks.feed_forward(jnp.tanh)(exact.params, X) - Y
    loss = largest(exact.loss, 0.5 * float(jnp.sum(jnp.square(left))))
    X, Y = _data(key, _WIDTHS[0], _WIDTHS[-1], 9)  # more samples than the features have ranks
    short = wide.interpolate(_network(key), X, Y, 1)
    return outcome(loss / scale, 1e4 * eps(), float(short.loss) / scale)


def _hessian(key: jax.Array) -> Outcome:
    """At zero loss the Hessian block of layer k + 1 is non-singular for n_k = N - 1 and n_{k+1} = n_L alone."""

    def smallest(widths: tuple[int, ...], number: int = 0) -> float:
        own = jax.random.fold_in(key, number)
        X, Y = _data(own, widths[0], widths[-1], 4)
        params = wide.interpolate(_network(own, widths), X, Y, 1).params
        return float(wide.classify(params, X, Y, 1).hessian)

    singular = largest(smallest((2, 3, 3, 2)), smallest((2, 4, 2)))
    # The best of some networks, since a non-singular Hessian may be badly conditioned.
    return outcome(singular, 4 * eps(), largest(*(smallest((2, 3, 2), number) for number in range(5))))


CLAIMS = (
    _claim(
        key="NH17 Assumption 3.2",
        statement="The assumption on data, activation and loss is checked part by part.",
        equation="Assumption 3.2",
        check=_assumption,
    ),
    _claim(
        key="NH17 Thm 3.4",
        statement="With rank [X, 1] = N the loss is at most 1/2 ||g||^2 / c^2: it is 0 at critical points with c > 0.",
        equation="Theorem 3.4, in the form of Nguyen & Hein 2018, Lemma 4.3",
        check=partial(_bounded, 0, (5, 4, 3, 2)),
        traceable=True,
    ),
    _claim(
        key="NH17 Thm 3.8",
        statement="The same holds with the features of a wide hidden layer, rank [F_k, 1] = N.",
        equation="Theorem 3.8, in the form of Nguyen & Hein 2018, Theorem 4.4",
        check=partial(_bounded, 1, _WIDTHS),
        traceable=True,
    ),
    _claim(
        key="NH17 Thm 3.8 Hessian",
        statement="At zero loss the Hessian of layer k + 1 is singular unless n_k = N - 1 and n_{k+1} = n_L.",
        equation="Theorem 3.8, the condition on the Hessian",
        check=_hessian,
    ),
    _claim(
        key="NH17 Thm 3.8 fit",
        statement="If rank [F_k, 1] = N and the layers above have dy units or more, some weights fit every target.",
        equation="Theorem 3.8, existence",
        check=_fitted,
    ),
)
