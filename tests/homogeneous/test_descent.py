"""The descent: its stopping rule means the same in all units, and `minimize` is never above plain L-BFGS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import homogeneous, losses
from globopt_jax.homogeneous.training import descent
from tests.oracles import plain_lbfgs


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_the_stopping_rule_is_relative(unit):
    """With targets and lam in other units the weights change by a root, and the descent ends equally close."""
    Y = np.random.default_rng(0).normal(size=(6, 5))
    sigma = np.linalg.svd(Y, compute_uv=False)
    lam = 0.3 * sigma[0]
    kept = np.maximum(sigma - lam, 0)
    optimum = 0.5 * np.sum((sigma - kept) ** 2) + lam * np.sum(kept)
    phi = homogeneous.rank_one()
    problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.squared, lam * unit)
    start = jax.tree.map(lambda w: w * unit**0.5, phi.init(jax.random.key(0), r=8, dx=6, dy=5))
    options = {"optimizer": descent.default_optimizer(), "steps": 2000}
    data = (jnp.eye(6), jnp.asarray(Y * unit))
    found = descent.descend(problem, start, *data, tolerance=jnp.asarray(1e-6), **options)
    assert found.converged
    assert 20 < found.steps < 2000
    assert float(found.objective) / unit / unit == pytest.approx(optimum, rel=1e-9)
    early = descent.descend(problem, start, *data, tolerance=jnp.asarray(1e-2), **options)
    assert early.converged
    assert early.steps < found.steps
    assert not descent.descend(problem, start, *data, tolerance=jnp.asarray(0.0), **options | {"steps": 5}).converged


#: (m, dx, dy, r) of the comparisons; squared loss and softmax cross-entropy each.
SHAPES = [
    (50, 2, 1, 4),
    (50, 2, 3, 6),
    (50, 5, 2, 8),
    (100, 3, 1, 5),
    (100, 8, 4, 10),
    (100, 16, 1, 8),
    (200, 4, 3, 12),
    (200, 10, 5, 10),
    (200, 32, 2, 8),
    (300, 6, 2, 16),
    (400, 20, 3, 12),
    (500, 12, 1, 10),
    (600, 64, 3, 8),
    (800, 8, 4, 16),
    (1000, 64, 10, 10),
]


def teacher(seed):
    """A noisy teacher of five neurons, or the classes it chooses; lam is 0.03, 0.1 or 0.3 of lam_max (a search's)."""
    m, dx, dy, r = SHAPES[seed // 2]
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(m, dx))
    Y = np.maximum(X @ rng.normal(size=(dx, 5)) / np.sqrt(dx), 0) @ rng.normal(size=(5, dy))
    Y = Y + 0.3 * rng.normal(size=Y.shape)
    loss = losses.squared
    if seed % 2:
        loss, scores = losses.softmax_cross_entropy, Y if dy > 1 else np.hstack([Y, 0 * Y])
        Y = np.eye(scores.shape[1])[scores.argmax(axis=1)]
    phi, theta = homogeneous.relu_neuron(), homogeneous.sum_of_powers()
    one = phi.init(jax.random.key(0), r=1, dx=dx, dy=Y.shape[1])
    quick = {"params": one, "effort": "quick"}
    top = homogeneous.lam_max(homogeneous.Problem(phi, theta, loss, 1.0), X, Y, **quick)
    lam = (0.03, 0.1, 0.3)[seed % 3] * float(top.lower)
    return homogeneous.Problem(phi, theta, loss, lam), X, Y, r


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_minimize_is_never_above_plain_lbfgs(seed):
    """From one start, `minimize` is not above the best that L-BFGS reaches from that start and two others."""
    problem, X, Y, r = teacher(seed)
    shape = {"r": r, "dx": X.shape[1], "dy": Y.shape[1]}
    starts = [problem.phi.init(jax.random.key(100 + s), **shape) for s in range(3)]
    found = homogeneous.minimize(problem, starts[0], X, Y, key=jax.random.key(1), effort=EFFORT)
    best = min(plain_lbfgs(problem.loss.name, start, X, Y, problem.lam) for start in starts)
    assert float(found.certificate.objective) <= best * (1 + 1e-6)


#: A whole search, and no more work on the bound than it takes to have one.
EFFORT = homogeneous.Effort(fixed=150, joint=0, groups=1, starts=64, climbs=200)
