"""Differentiable local minima: Levenberg-Marquardt from a teacher with 2 % noise on its targets."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares

from globopt_jax import local_minima, networks

RELU, LEAKY, ABSOLUTE, LINEAR = (0.0, 1.0), (0.01, 1.0), (-1.0, 1.0), (1.0, 1.0)


class Minimum(NamedTuple):
    """Weights at which nothing moves any more, the data, and the slopes of every unit; t is that of the teacher."""

    weights: list[np.ndarray]
    X: np.ndarray
    Y: np.ndarray
    activation: Any
    t: int


#: widths d_0..d_{H+1}, t: below t kinked units, in layer t+1 dy linear ones and others, above linear ones only.
SHAPES = [((3, 4, 2), 0), ((3, 4, 2), 1), ((4, 5, 4, 2), 0), ((4, 5, 4, 2), 1), ((2, 4, 4, 3, 1), 1)]


def trained(seed: int, noise: float = 0.02) -> Minimum:
    """A minimum of the shape `seed % 5`; margins below 1e-3 are thrown away."""
    widths, t = SHAPES[seed % len(SHAPES)]
    for attempt in itertools.count():
        rng = np.random.default_rng([13, seed, attempt])
        activation = []
        for l, d in enumerate(widths[1:-1], 1):
            kinked = [(RELU, LEAKY, ABSOLUTE)[int(rng.integers(3))] for _ in range(d)]
            linear = 0 if l <= t else widths[-1] if l == t + 1 else d
            activation.append([LINEAR] * linear + kinked[linear:])
        W = [rng.normal(size=s) * (2 / s[0]) ** 0.5 for s in itertools.pairwise(widths)]
        X = rng.normal(size=(40, widths[0]))
        Yhat = np.asarray(networks.feed_forward(activation)(W, X))
        Y = Yhat + noise * np.std(Yhat) * rng.normal(size=Yhat.shape)
        end = descend(W, X, Y, activation, [np.ones_like(w) for w in W])
        if end is not None:
            return Minimum(end, X, Y, activation, t)
    raise AssertionError


def restricted(seed: int) -> Minimum:
    """A minimum over the weights that separated linear units leave: ReLU units that act linearly on the data."""
    widths, t = (3, 4, 4, 4, 1), 0
    for attempt in itertools.count():
        rng = np.random.default_rng([17, seed, attempt])
        X = rng.normal(size=(40, widths[0]))
        X[:, 0] = 1
        built = local_minima.with_linear_units(jax.random.key(100 * seed + attempt), X, widths[1:], t)
        W = [np.asarray(w) for w in built]
        free = [(w != 0).astype(float) for w in W]
        Yhat = np.asarray(networks.feed_forward("relu")(W, X))
        Y = Yhat + 0.02 * np.std(Yhat) * rng.normal(size=Yhat.shape)
        end = descend(W, X, Y, "relu", free)
        if end is not None:
            return Minimum(end, X, Y, "relu", t)
    raise AssertionError


def descend(W, X, Y, activation, free) -> list[np.ndarray] | None:
    """Levenberg-Marquardt over the free weights; None where it does not end at a clear differentiable minimum."""
    shapes = tuple(w.shape for w in W)
    network = networks.feed_forward(activation)
    mask = np.concatenate([f.ravel() for f in free]) > 0
    slopes = [np.broadcast_to(network.slopes_at(l, len(W) - 1), (w.shape[1], 2)) for l, w in enumerate(W[:-1])]
    start = np.concatenate([w.ravel() for w in W])

    def full(v):
        flat = start * ~mask
        flat[mask] = v
        return flat

    solve: Any = least_squares
    found = solve(
        lambda v: np.asarray(_residual(shapes, full(v), X, Y, slopes)),
        start[mask],
        jac=lambda v: np.asarray(_jacobian(shapes, full(v), X, Y, slopes))[:, mask],
        method="lm" if len(X) * Y.shape[1] >= mask.sum() else "trf",
        ftol=1e-15,
        xtol=1e-15,
        gtol=1e-15,
        max_nfev=2000,
    )
    end = [np.asarray(w) for w in _unravel(shapes, jnp.asarray(full(found.x)))]
    seen = network.sweep(end, jnp.asarray(X))
    kinked = [G[:, p[:, 0] != p[:, 1]] for G, p in zip(map(np.asarray, seen.preactivations), slopes, strict=True)]
    clear = all(np.min(np.abs(G) / np.max(np.abs(G), axis=0), initial=1) > 1e-3 for G in kinked if G.size)
    still = np.max(np.abs(found.grad)) <= 1e-11 * np.sum(Y**2)
    before = network.sweep(W, jnp.asarray(X)).preactivations
    same = all(np.array_equal(a > 0, b > 0) for a, b in zip(seen.preactivations, before, strict=True))
    return end if clear and still and same else None


def _unravel(shapes, flat):
    kernels, begin = [], 0
    for a, b in shapes:
        kernels.append(flat[begin : begin + a * b].reshape(a, b))
        begin += a * b
    return kernels


@functools.partial(jax.jit, static_argnums=0)
def _residual(shapes, flat, X, Y, slopes):
    W = _unravel(shapes, flat)
    Z = jnp.asarray(X)
    for w, pairs in zip(W[:-1], slopes, strict=True):
        Z = Z @ w
        Z = jnp.where(Z > 0, pairs[None, :, 1] * Z, pairs[None, :, 0] * Z)
    return (Z @ W[-1] - Y).ravel()


_jacobian = jax.jit(jax.jacrev(_residual, argnums=1), static_argnums=0)
