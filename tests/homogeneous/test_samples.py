"""Padding rows change no value, no gradient and no bound, and spare the compiler its work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import homogeneous, losses
from globopt_jax.homogeneous import samples
from globopt_jax.homogeneous.samples import Padded, pad_rows, pad_samples
from globopt_jax.linalg import machine_epsilon
from tests.contracts import compiled
from tests.precision import slow_in_float32

LOSSES = ("squared", "huber:0.7", "logistic", "softmax_cross_entropy")
every_loss = pytest.mark.parametrize("name", LOSSES)


def targets(name, rng, m, dy):
    Y = rng.normal(size=(m, dy))
    if name == "logistic":
        return np.sign(Y)
    return np.eye(dy)[Y.argmax(axis=1)] if name == "softmax_cross_entropy" else Y


@slow_in_float32
@every_loss
def test_padding_has_no_loss_and_no_gradient(name, dtype):
    rng = np.random.default_rng(0)
    loss, m, dy = losses.by_name(name), 5, 3
    Y = jnp.asarray(targets(name, rng, m, dy), dtype)
    Z = jnp.asarray(rng.normal(size=(8, dy)), dtype)  # predictions in the padding, too
    padded, full = Padded(loss), pad_rows(Y, 8, np.nan)
    eps = 32 * machine_epsilon(dtype)
    assert float(padded(Z, full)) == pytest.approx(float(loss(Z[:m], Y)), rel=eps)
    U = loss.gradient(Z[:m], Y)
    for g in (padded.gradient(Z, full), jax.grad(padded)(Z, full)):
        np.testing.assert_allclose(g[:m], U, rtol=eps, atol=eps)
        assert not np.any(np.asarray(g[m:]))
    # A dual point in the domain, with anything in the padding.
    V = jnp.concatenate([0.5 * U, jnp.ones((3, dy), dtype)])
    assert float(padded.conjugate(V, full)) == pytest.approx(float(loss.conjugate(0.5 * U, Y)), rel=eps, abs=eps)
    assert float(padded.dual_limit(V, full)) == pytest.approx(float(loss.dual_limit(0.5 * U, Y)), rel=eps)
    upper = jnp.asarray(1.5, dtype)
    scales = [float(f.best_scale(a, b, upper)) for f, a, b in ((padded, V, full), (loss, 0.5 * U, Y))]
    assert scales[0] == pytest.approx(scales[1], rel=1e2 * eps)
    free = padded.dual_coordinates(V, full)
    assert np.all(np.isfinite(free))
    back = padded.dual_point(free, full)
    np.testing.assert_allclose(back[:m], 0.5 * U, rtol=1e2 * eps, atol=1e2 * eps)
    assert not np.any(np.asarray(back[m:]))


@every_loss
def test_a_settled_row_has_no_loss_no_gradient_and_no_conjugate(name, dtype):
    loss = losses.by_name(name)
    settled = loss.settled(3)
    assert settled is not None
    z, y = (jnp.asarray(row, dtype)[None] for row in settled)
    zero = jnp.zeros_like(z)
    assert float(loss(z, y)) == 0
    assert not np.any(np.asarray(loss.gradient(z, y)))
    assert float(loss.conjugate(zero, y)) == 0


def test_sizes():
    problem = homogeneous.Problem("relu", "sum_of_powers", "squared", 1.0)
    for m in (1, 8, 9, 127, 128, 129, 600, 1797, 4095, 4096):
        X, Y = jnp.ones((m, 2)), jnp.ones((m, 1))
        padded, X_, Y_ = pad_samples(problem, X, Y)
        assert len(X_) == len(Y_)
        assert 0 <= len(X_) - m < max(8, m / 16 + 1)
        assert np.array_equal(X_[:m], X)
        assert not np.any(np.asarray(X_[m:]))
        assert np.all(np.isnan(np.asarray(Y_[m:])))
        again, X2, Y2 = pad_samples(padded, X_, Y_)  # padding pads nothing
        assert again == padded
        assert X2.shape == X_.shape
        assert Y2.shape == Y_.shape
    X, Y = jnp.ones((samples.MOST + 1, 2)), jnp.ones((samples.MOST + 1, 1))
    assert pad_samples(problem, X, Y)[1] is X


def test_a_map_or_a_loss_of_your_own_is_not_padded():
    own = homogeneous.elemental(lambda w, X: (X / jnp.linalg.norm(X, axis=1, keepdims=True)) @ w[0], degree=1)
    problem = homogeneous.Problem(own, homogeneous.regularizer(lambda w: jnp.sum(jnp.abs(w[0])), degree=1), "huber", 1)
    X, Y = jnp.ones((6, 2)), jnp.ones((6, 1))
    assert pad_samples(problem, X, Y) == (problem, X, Y)


class Mean(losses.Squared):
    """A subclass with a formula of its own, in which every sample has a say in the others' weight."""

    def __call__(self, Yhat, Y):
        return 0.5 * jnp.mean((Yhat - Y) ** 2)

    def gradient(self, Yhat, Y):
        return (Yhat - Y) / Y.size


def test_a_loss_under_the_name_of_another_is_neither_padded_nor_graded():
    problem = homogeneous.Problem("relu", "sum_of_powers", Mean(), 0.1)
    X, Y = jnp.ones((6, 2)), jnp.ones((6, 1))
    assert pad_samples(problem, X, Y) == (problem, X, Y)
    start = problem.phi.init(jax.random.key(0), r=1, dx=2, dy=1)
    with pytest.raises(ValueError, match="loss: Expected: a loss of `globopt_jax.losses`. Received: Mean"):
        homogeneous.certify(problem, start, X, Y)


@pytest.mark.slow
def test_one_sample_more_compiles_nothing_and_padding_changes_no_result(monkeypatch):
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(14, 4)), targets("softmax_cross_entropy", rng, 14, 2)
    problem = homogeneous.Problem("relu", "sum_of_powers", "softmax_cross_entropy", 1.5)
    start = problem.phi.init(jax.random.key(0), r=3, dx=4, dy=2)

    def run(m):
        return homogeneous.certify(problem, start, X[:m], Y[:m], effort=EFFORT)

    # How many subnetworks a descent appends depends on the data, and decides which programs it needs.
    _ = [run(m) for m in (14, 12, 11)]
    programs = compiled()
    found = run(13)
    assert not programs
    assert found.dual_point.shape == (13, 2)
    assert found.multipliers.mu.shape == (13,)
    described = homogeneous.describe(problem, start, 4)
    weights = [np.asarray(w) for w in start]
    claimed = {"objective": float(found.objective), "lower_bound": float(found.lower_bound)}
    proof = (np.asarray(found.dual_point), found.multipliers)
    assert homogeneous.rigorous.check_certificate(described, weights, *proof, X[:13], Y[:13], claimed).holds
    monkeypatch.setattr(samples, "MOST", 0)
    plain = run(13)
    assert programs  # the counter counts
    assert float(found.objective) == float(plain.objective)
    assert float(found.lower_bound) == pytest.approx(float(plain.lower_bound), rel=1e-2)
    assert float(found.polar_upper) == pytest.approx(float(plain.polar_upper), rel=1e-3)


EFFORT = homogeneous.Effort(fixed=100, joint=100, groups=1, starts=16, climbs=30)
