"""Definitions 1 and 2 against brute force over all sets, and networks that have the units."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import local_minima, networks


def tiny(seed):
    """Three hidden layers of two units, half of the edges gone, units that may act linearly."""
    rng = np.random.default_rng([19, seed])
    widths = (2, 2, 2, 2, 1 + seed % 2)
    W = [rng.choice([-1.0, 0, 0, 1, 1], size=s) for s in itertools.pairwise(widths)]
    return W, np.abs(rng.normal(size=(6, 2)))


def by_brute_force(W, X, strong):
    """The largest n for t = 0..H, over all families of sets, from the definitions as they are printed."""
    hidden, dy = len(W) - 1, W[-1].shape[1]
    Phi = [X]
    for w in W[:-1]:
        Phi.append(np.maximum(Phi[-1] @ w, 0))
    linear = [{k for k in range(w.shape[1]) if np.array_equal(f, f0 @ w) or np.allclose(f[:, k], (f0 @ w)[:, k])}
              for w, f0, f in zip(W[:-1], Phi[:-1], Phi[1:], strict=True)]  # fmt: skip
    best = []
    for t in range(hidden + 1):
        choices = [
            [set(c) for size in range(len(linear[l - 1]) + 1) for c in itertools.combinations(linear[l - 1], size)]
            for l in range(t + 1, hidden + 1)
        ]
        largest = 0
        for family in itertools.product(*choices):
            S = {l: s for l, s in zip(range(t + 1, hidden + 1), family, strict=True)} | {hidden + 1: set(range(dy))}
            good = True
            for l in range(t + 1, hidden):
                out = set(range(W[l].shape[1])) - S[l + 1]
                good &= all(W[l][k, j] == 0 for k in S[l] for j in out)
                if strong:
                    outside = set(range(W[l].shape[0])) - S[l]
                    good &= all(W[l][k, j] == 0 for k in outside for j in S[l + 1])
            if good:
                largest = max(largest, min(len(s) for s in S.values()))
        best.append(largest)
    return best


@pytest.mark.parametrize("strong", [False, True])
def test_the_sets_are_the_largest(strong):
    seen = set()
    for seed in range(60):
        W, X = tiny(seed)
        wanted = by_brute_force(W, X, strong)
        found = local_minima.linear_units(W, X, strong=strong)
        assert found.sizes.tolist() == wanted, seed
        dy = W[-1].shape[1]
        assert int(found.t) == min(t for t, n in enumerate(wanted) if n >= dy)
        seen.add(int(found.t))
    assert len(seen) > 2, "all sorts of networks"


def test_every_network_has_them_from_the_last_hidden_layer_on(dtype):
    rng = np.random.default_rng(0)
    W = [rng.normal(size=s).astype(dtype) for s in ((3, 5), (5, 4), (4, 2))]
    found = local_minima.linear_units(W, rng.normal(size=(30, 3)).astype(dtype))
    assert max(found.sizes[:2]) < 2
    assert int(found.t) == 2
    nothing = local_minima.linear_units(W, rng.normal(size=(30, 3)).astype(dtype), n=3)
    assert int(nothing.t) == -1
    assert "There is no t above which every layer has 3 weakly separated linear units" in nothing.reason


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "absolute"])
def test_networks_are_built_with_them(activation, strong):
    X = np.random.default_rng(1).normal(size=(20, 3))
    X[:, 0] = 1
    for t in range(4):
        W = local_minima.with_linear_units(jax.random.key(t), X, (8, 8, 4, 2), t, 2, activation, strong=strong)
        found = local_minima.linear_units(W, X, activation, strong=strong)
        assert int(found.t) <= t
        assert found.sizes[t] >= 2
        assert all(np.min(margin[:2]) > 1e-3 for margin in found.margins[t:])
        # Not because the network is linear anyway.
        Phi, G = networks.feed_forward(activation).sweep(W, jnp.asarray(X))[::2][:2]
        assert t == 3 or any(np.max(np.abs(np.asarray(f - g))) > 0.01 for f, g in zip(Phi[1:], G, strict=True))
        # One edge out of them, and the unit is gone.
        if t < 2 and not strong and not found.sets[t + 1][-1]:
            broken = [np.array(w) for w in W]
            broken[t + 1][0, -1] = -1e3
            assert found.sets[t][0]
            assert not local_minima.linear_units(broken, X, activation).sets[t][0]


def test_linear_networks_have_them_everywhere_and_touching_the_kink_is_said():
    X = np.ones((3, 2))
    W = [np.eye(2)] * 3
    assert local_minima.linear_units(W, X, "linear").sizes.tolist() == [2, 2, 2]
    assert local_minima.linear_units(W, X, "linear").margin == np.inf
    touching = local_minima.linear_units(W, np.array([[1.0, 0.0], [1.0, 2.0]]))
    assert int(touching.t) == 0
    assert touching.margin == 0
    assert "touches its kink" in touching.reason
    # Not if others are enough: the second unit touches its kink, the two others do not.
    W = [np.array([[1.0, 0.0, 1.0], [0.5, 1.0, 1.0]]), np.ones((3, 2))]
    spare = local_minima.linear_units(W, np.array([[1.0, 0.0], [1.0, 2.0]]))
    assert spare.sets[0].tolist() == [True] * 3
    assert float(spare.margin) == pytest.approx(1 / 3)
    assert "touches" not in spare.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n: Expected: an integer, at least 1. Received: 0"),
        ({"X": np.ones((4, 3))}, r"X: Expected: shape \(m, 2\). Received: \(4, 3\)"),
        ({"weights": [(np.ones((2, 2)), np.ones(2)), (np.ones((2, 1)), np.ones(1))]}, "kernels without biases"),
        ({"weights": [np.ones((2, 2)), np.ones((3, 1))]}, "weights: Expected: a list of kernels"),
        ({"tolerance": -1.0}, "tolerance: Expected: at least 0, and below 1. Received: -1"),
        ({"tolerance": np.nan}, "tolerance: Expected: at least 0, and below 1. Received: nan"),
        ({"activation": jnp.tanh}, "activation: Expected: a piecewise linear activation. Received: a function"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"weights": [np.ones((2, 2)), np.ones((2, 1))], "X": np.ones((4, 2)), **change}
    with pytest.raises(ValueError, match=message):
        local_minima.linear_units(**arguments)


def test_what_cannot_be_built_is_named():
    X = np.array([[1.0], [-1.0]])
    with pytest.raises(ValueError, match="direction in the features of layer t that is positive on all of them"):
        local_minima.with_linear_units(jax.random.key(0), X, (3, 2), 0)
    with pytest.raises(ValueError, match="t: Expected: an integer, 0..1. Received: 2"):
        local_minima.with_linear_units(jax.random.key(0), X, (3, 2), 2)
    with pytest.raises(ValueError, match="n: Expected: an integer, 1..2. Received: 3"):
        local_minima.with_linear_units(jax.random.key(0), X, (3, 2), 0, 3)
    with pytest.raises(ValueError, match=r"widths: Expected: d_1..d_\(H\+1\). Received: \(\)"):
        local_minima.with_linear_units(jax.random.key(0), X, (), 0)
    with pytest.raises(ValueError, match="activation: Expected: positive slopes of 1"):
        local_minima.with_linear_units(jax.random.key(0), X, (3, 2), 0, activation=(0.0, 2.0))
    with pytest.raises(TypeError, match=r"key: Expected: one jax.random.key\(seed\). Received: shape \(2,\)"):
        local_minima.with_linear_units(jax.random.split(jax.random.key(0)), X, (3, 2), 0)


@pytest.mark.parametrize("widths", [(4, 2), (4, 1), (8, 8, 2)])
def test_unlucky_draws_are_drawn_again(widths):
    X = np.random.default_rng(0).normal(size=(30, 5))
    X[:, 0] = 1
    for seed in range(20):
        W = local_minima.with_linear_units(jax.random.key(seed), X, widths, 1)
        assert int(local_minima.linear_units(W, X).t) <= 1


def test_a_traced_key_is_named():
    with pytest.raises(TypeError, match="key: Expected: a key, since this is a host function"):
        jax.jit(lambda key: local_minima.with_linear_units(key, np.ones((4, 1)), (2, 2), 0))(jax.random.key(0))


def test_a_network_without_hidden_layers_is_stored(tmp_path):
    found = local_minima.linear_units([np.ones((2, 1))], np.ones((3, 2)))
    found.save(tmp_path / "units.npz")
    again = local_minima.LinearUnits.load(tmp_path / "units.npz")
    assert again.margins == ()
    assert again.to_json() == found.to_json()
    assert found.to_json()["margin"] == "inf"


def test_linear_activations_need_no_positive_direction():
    X = np.array([[1.0], [-1.0]])
    W = local_minima.with_linear_units(jax.random.key(0), X, (5, 2), 0, activation="linear")
    assert local_minima.linear_units(W, X, "linear").sizes.tolist() == [2, 2]
