"""YSJ18 Prop 3.6 and 3.7, seen from the bottleneck."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import deep_linear
from tests.deep_linear import instances

conditions = jax.jit(deep_linear.bottleneck_conditions, static_argnums=3)


@pytest.mark.parametrize("seed", instances.PROFILES)
def test_critical_points_of_full_rank(seed):
    """Every set of k directions is critical; the map is F Pi, and the gap the formula's; global for the top k only."""
    p = instances.profile(seed, hidden=seed % 6 + 1)
    truth = instances.truth(p.X, p.Y, p.k)
    rank = int(np.sum(truth.s > 1e-10 * truth.s[0]))
    narrow = [l for l in range(1, len(p.widths) - 1) if p.widths[l] == p.k]
    if not narrow or rank < p.k:
        with pytest.raises(ValueError, match="indices: Expected" if narrow else "layer: Expected: a hidden layer"):
            _ = (
                deep_linear.critical_point(p.X, p.Y, p.widths, range(p.k))
                if narrow
                else deep_linear.bottleneck_conditions(instances.weights(p), p.X, p.Y)
            )
        return
    sets = list(itertools.combinations(range(min(rank, 6)), p.k))[:4] if p.k <= 6 else [range(p.k)]
    for number, indices in enumerate(sets):
        W = deep_linear.critical_point(p.X, p.Y, p.widths, indices, jax.random.key(number))
        is_global = np.isclose(np.sum(truth.s[list(indices)] ** 2), np.sum(truth.s[: p.k] ** 2), rtol=1e-12)
        for layer in narrow:
            found = conditions(W, p.X, p.Y, layer)
            assert bool(found.critical)
            assert found.stationarity < 1e-9
            assert found.map_residual < 1e-8 * truth.s[0]
            gap = instances.loss(W, p.X, p.Y) - truth.optimum
            np.testing.assert_allclose(found.gap, gap, atol=1e-8 * np.sum(p.Y**2))
            assert bool(found.global_minimum) == is_global
            assert (found.distance < 1e-6) == is_global


@pytest.mark.parametrize("seed", instances.PROFILES)
def test_they_agree_with_autodiff_and_with_the_gradients_sizes(seed):
    """Anywhere: sigma_k(W_2..W_p) ||E A^T|| <= ||dL/dW_1||, and the mirror image; random points are not critical."""
    p = instances.profile(seed, hidden=seed % 6 + 1)
    narrow = [l for l in range(1, len(p.widths) - 1) if p.widths[l] == p.k]
    for start in range(3):
        W = [jnp.asarray(w) for w in instances.weights(p, start)]
        grads = jax.grad(deep_linear.loss)(W, p.X, p.Y)
        for layer in narrow[:2]:
            found = conditions(W, p.X, p.Y, layer)
            assert not bool(found.critical)
            assert not bool(found.global_minimum)
            np.testing.assert_allclose(found.first_gradient, np.linalg.norm(grads[0]), rtol=1e-9)
            np.testing.assert_allclose(found.last_gradient, np.linalg.norm(grads[-1]), rtol=1e-9)
            assert found.first_factor * found.backward <= found.first_gradient * (1 + 1e-9)
            assert found.last_factor * found.forward <= found.last_gradient * (1 + 1e-9)


def test_a_layer_that_is_no_bottleneck_is_named():
    W = [np.ones((3, 2)), np.ones((2, 4)), np.ones((4, 3))]
    with pytest.raises(ValueError, match=r"smallest width 2 of \(3, 2, 4, 3\). Received: 2"):
        deep_linear.bottleneck_conditions(W, np.ones((5, 3)), np.ones((5, 3)), layer=2)
    with pytest.raises(ValueError, match="Received: none, and no hidden layer has this width"):
        deep_linear.bottleneck_conditions([np.ones((3, 3))], np.ones((5, 3)), np.ones((5, 3)))
