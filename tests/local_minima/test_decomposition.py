"""Shares per unit against projections that are formed; order, sums, ranks, rank-deficient and dead networks."""

import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import local_minima, networks
from tests.local_minima.instances import close, instance, jacobian, oracle
from tests.precision import slow_in_float32


def blocks_of(W, X, activation):
    """D_k^(l) in the paper's order from autodiff: [(l, k, columns (m dy, fan in))]; the output block last, whole."""
    A = jacobian(W, X, activation)
    found, start = [], 0
    for l, w in enumerate(W):
        block = A[:, start : start + w.size].reshape(len(A), *w.shape)
        start += w.size
        if l < len(W) - 1:
            found.append([block[:, :, k] for k in range(w.shape[1])])
        else:
            found.append([block.reshape(len(A), -1)])
    return found


def shares_by_projectors(W, X, Y, activation, order=None):
    """1/2 (||P[blocks up to here] y||^2 - ||P[blocks before] y||^2), each from its own decomposition.

    None where a prefix of the blocks has a singular value that might be rounding: then nobody knows the shares.
    """
    blocks, y = blocks_of(W, X, activation), Y.ravel()
    A = jacobian(W, X, activation)
    limit = 0.5 * np.linalg.norm(A, 2) * np.finfo(float).eps * (sum(A.shape) + 1) ** 0.5
    seen, before, shares = np.zeros((len(y), 0)), 0.0, {}
    for l in order or range(1, len(W) + 1):
        shares[l] = []
        for block in blocks[l - 1]:
            seen = np.concatenate([seen, block], axis=1)
            U, s = np.linalg.svd(seen, full_matrices=False)[0], np.linalg.svd(seen, compute_uv=False)
            if np.any((s > limit / 2) & (s < 1e4 * limit)):
                return None
            after = 0.5 * np.sum((U[:, s > limit].T @ y) ** 2)
            shares[l].append(after - before)
            before = after
    return [np.array(shares[l]) for l in sorted(shares)]


def assert_right(seed, methods, largest=6, compare=True, inputs=12):
    """Return whether the single shares were compared, too."""
    W, X, Y, activation = instance(seed, largest, inputs)
    A, size = jacobian(W, X, activation), 0.5 * np.sum(Y**2)
    J, rank, unclear = oracle(A, Y)
    wanted = shares_by_projectors(W, X, Y, activation) if compare else None
    for method in methods:
        found = local_minima.decompose(W, X, Y, activation, method=method)
        assert bool(found.converged)
        assert [s.shape for s in found.shares] == [(w.shape[1],) for w in W[:-1]] + [(1,)]
        total = sum(np.sum(s) for s in found.shares)
        assert total == pytest.approx(size - float(found.value), abs=1e-9 * size)
        assert abs(float(found.unattributed)) <= 1e-9 * size
        assert close(float(found.value) - J, size, A, Y)
        assert unclear or sum(np.sum(r) for r in found.ranks) == int(found.rank) == rank
        assert all(np.all(s >= 0) for s in found.shares)
        for share, by_projectors in zip(found.shares, wanted or found.shares, strict=True):
            assert share == pytest.approx(by_projectors, abs=1e-7 * size)
    return wanted is not None


def test_random_networks():
    assert sum(assert_right(seed, local_minima.METHODS) for seed in (0, 1, 3)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_two_hundred_random_networks(block):
    for seed in range(20 * block, 20 * (block + 1)):
        assert_right(seed, ("dense", "gram"), largest=20, compare=False)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(2))
def test_many_inputs_and_narrow_layers(block):
    for seed in range(20 * block, 20 * (block + 1)):
        assert_right(seed, ("dense", "gram"), largest=4, inputs=60)


@pytest.mark.parametrize("method", local_minima.METHODS)
def test_a_unit_adds_no_more_than_it_has_weights(method):
    """A first layer of many inputs, and a dead unit behind it: noise in the padding of narrow units is no direction."""
    rng = np.random.default_rng(0)
    W = [rng.normal(size=s) for s in ((40, 4), (4, 4), (4, 2))]
    X, Y = rng.normal(size=(100, 40)), rng.normal(size=(100, 2))
    found = local_minima.decompose(W, X, Y, method=method)
    assert found.ranks[0].tolist() == [40] * 4
    assert np.max(found.ranks[1]) <= 4
    wanted = shares_by_projectors(W, X, Y, "relu")
    assert wanted is not None
    for share, by_projectors in zip(found.shares, wanted, strict=True):
        assert share == pytest.approx(by_projectors, abs=1e-9 * float(found.target))
    assert abs(float(found.unattributed)) < 1e-10
    assert "leaves open" not in found.reason
    assert "leaves open which units explain 20.0%" in found._replace(unattributed=0.2 * found.target).reason


def test_orders_change_the_shares_and_not_the_sum():
    W, X, Y, activation = instance(5)
    size = 0.5 * np.sum(Y**2)
    order = [len(W), *range(1, len(W))]
    first, other = (local_minima.decompose(W, X, Y, activation, order=o) for o in (None, order))
    wanted = shares_by_projectors(W, X, Y, activation, order)
    assert wanted is not None
    for share, by_projectors in zip(other.shares, wanted, strict=True):
        assert share == pytest.approx(by_projectors, abs=1e-8 * size)
    assert float(other.shares[-1][0]) > float(first.shares[-1][0])
    assert sum(map(np.sum, first.shares)) == pytest.approx(sum(map(np.sum, other.shares)), rel=1e-9)
    assert other.order.tolist() == order


@slow_in_float32
def test_blocks_are_those_of_lemma_1(dtype):
    """vec(Yhat) = sum_k D_k^(l) W_l[:, k] for every l, and D is the derivative."""
    for seed in (0, 3):
        W, X, _, activation = instance(seed)
        weights, inputs = [jnp.asarray(w, dtype) for w in W], jnp.asarray(X, dtype)
        D = local_minima.jacobian_blocks(weights, inputs, activation)
        wanted = local_minima.vec(networks.feed_forward(activation)(weights, inputs))
        eps = float(jnp.finfo(dtype).eps)
        near = 1e3 * eps * float(jnp.max(jnp.abs(wanted)))
        for l, (block, w) in enumerate(zip(D, weights, strict=True)):
            assert block.dtype == dtype
            found = sum(np.asarray(block[k]) @ np.asarray(w[:, k]) for k in range(w.shape[1]))
            assert found == pytest.approx(np.asarray(wanted), abs=near)
            if l < len(W) - 1:
                by_autodiff = blocks_of(W, X, activation)[l]
                rows = np.arange(len(X) * W[-1].shape[1]).reshape(len(X), -1).T.ravel()  # vec's order
                for k in range(w.shape[1]):
                    size = float(np.max(np.abs(by_autodiff[k]))) + 1
                    assert np.asarray(block[k]) == pytest.approx(by_autodiff[k][rows], abs=1e3 * eps * size)


def test_one_hidden_layer_is_proposition_1():
    """H = 1, dy = 1: D_k = W2_k Lam_k X, then Phi (KHK19 Proposition 1), with projectors formed as printed there."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(25, 3)), rng.normal(size=(25, 1))
    W = [rng.normal(size=(3, 4)), rng.normal(size=(4, 1))]
    Z = X @ W[0]
    blocks = [W[1][k, 0] * (Z[:, k] > 0)[:, None] * X for k in range(4)] + [np.maximum(Z, 0)]
    Q, shares = np.zeros((25, 0)), []
    for D in blocks:
        N = np.eye(25) - Q @ np.linalg.pinv(Q, rcond=1e-12)
        U, s, _ = np.linalg.svd(N @ D, full_matrices=False)
        U = U[:, s > 1e-10]
        shares.append(0.5 * np.sum((U.T @ Y) ** 2))
        Q = np.concatenate([Q, U], axis=1)
    found = local_minima.decompose(W, X, Y)
    assert found.shares[0] == pytest.approx(shares[:4], abs=1e-12)
    assert found.shares[1] == pytest.approx(shares[4:], abs=1e-12)


def test_a_dependent_block_is_not_noise_that_counts():
    """Four equal units: the first one has it all; a cutoff relative to each block would give noise to the others."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    W = [np.repeat(rng.normal(size=(3, 1)), 4, axis=1), np.repeat(rng.normal(size=(1, 2)), 4, axis=0)]
    for method in local_minima.METHODS:
        found = local_minima.decompose(W, X, Y, method=method)
        assert found.shares[0][0] > 1
        assert np.max(found.shares[0][1:]) <= 1e-20
        assert found.ranks[0].tolist() == [3, 0, 0, 0]


def test_dead_networks_have_no_shares(dtype):
    X, Y = np.ones((5, 2), dtype), np.ones((5, 3), dtype)
    found = local_minima.decompose([np.zeros((2, 4), dtype), np.zeros((4, 3), dtype)], X, Y)
    assert [s.tolist() for s in found.shares] == [[0] * 4, [0]]
    assert float(found.value) == float(found.target) == 7.5
    assert int(found.rank) == 0
    assert "0.0%" in str(local_minima.decompose([np.ones((2, 1), dtype)], X, 0 * Y[:, :1])), "no targets, no NaN"


def test_results_are_stored(tmp_path):
    W, X, Y, activation = instance(2)
    found = local_minima.decompose(W, X, Y, activation)
    found.save(tmp_path / "shares.npz")
    again = local_minima.Decomposition.load(tmp_path / "shares.npz")
    for one, other in zip(found.shares, again.shares, strict=True):
        assert np.array_equal(one, other)
    assert found.to_json()["shares"] == [s.tolist() for s in found.shares]
    assert "leaves J" in str(again)


def test_biases_count_to_their_units():
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(30, 2)), rng.normal(size=(30, 1))
    W = [(rng.normal(size=(2, 3)), rng.normal(size=3)), (rng.normal(size=(3, 1)), rng.normal(size=1))]
    found = local_minima.decompose(W, X, Y)
    whole = local_minima.tangent_projection(networks.feed_forward("relu"), W, X, Y)
    assert 0.5 * np.sum(Y**2) - sum(map(np.sum, found.shares)) == pytest.approx(float(whole.value), rel=1e-10)


@pytest.mark.parametrize("order", [[1, 1], [1], [0, 1], [1, 2, 3]])
def test_orders_that_are_none_are_named(order):
    with pytest.raises(ValueError, match=r"order: Expected: a permutation of 1..2. Received: \["):
        local_minima.decompose([np.ones((2, 2)), np.ones((2, 1))], np.ones((4, 2)), np.ones((4, 1)), order=order)
