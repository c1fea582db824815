"""Losses: gradients, conjugates and dual points against calculus, brute force and Fenchel-Young."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.test_util import check_grads

from globopt_jax import losses, rigorous
from tests.oracles import loss_values

LOSSES = [losses.squared, losses.softmax_cross_entropy, losses.logistic, losses.huber(0.7)]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
WITH_DOMAIN = [loss for loss in LOSSES if loss.name != "squared"]
seeds = st.integers(0, 2**32 - 1)


def targets(loss, rng, m=5, dy=3, soft=False):
    """Targets that the loss knows, in float64."""
    if loss.name == "softmax_cross_entropy":
        if soft:
            return rng.dirichlet(np.ones(dy), size=m)
        return np.eye(dy)[rng.integers(0, dy, m)]
    if loss.name == "logistic":
        return rng.choice([-1.0, 1.0], size=(m, dy))
    return rng.normal(size=(m, dy))


def sample(loss, seed, dtype, scale=1.0, soft=False):
    """(Z, Y) of the dtype."""
    rng = np.random.default_rng(seed)
    Y = targets(loss, rng, soft=soft)
    return jnp.asarray(scale * rng.normal(size=Y.shape), dtype), jnp.asarray(Y, dtype)


def tolerance(dtype, factor=200.0):
    return factor * float(jnp.finfo(dtype).eps)


@every_loss
def test_value_is_the_sum_written_out(loss, dtype):
    """The value equals the textbook formula, entry by entry."""
    for seed in range(3):
        Z, Y = sample(loss, seed, dtype, scale=3.0)
        expected = loss_values(loss.name, np.asarray(Z, np.float64), np.asarray(Y, np.float64))
        assert loss(Z, Y).dtype == dtype
        np.testing.assert_allclose(loss(Z, Y), expected, rtol=tolerance(dtype))


@every_loss
@pytest.mark.parametrize("soft", [False, True])
def test_gradient_is_the_derivative(loss, soft, dtype):
    """The analytic gradient equals autodiff, and autodiff equals finite differences."""
    Z, Y = sample(loss, 1, dtype, soft=soft)
    np.testing.assert_allclose(loss.gradient(Z, Y), jax.grad(loss)(Z, Y), atol=tolerance(dtype, 20))
    assert loss.gradient(Z, Y).dtype == dtype
    rough = 1e-6 if dtype == jnp.float64 else 5e-2  # what finite differences can tell
    check_grads(lambda z: loss(z, Y), (Z,), order=1, modes=["fwd", "rev"], atol=rough, rtol=rough)


@every_loss
def test_gradient_grows_at_most_like_its_argument(loss, dtype):
    """Curvature at most 1, on which the append step's first guess rests."""
    Z, Y = sample(loss, 2, dtype)
    other, _ = sample(loss, 3, dtype)
    change = jnp.linalg.norm(loss.gradient(Z, Y) - loss.gradient(other, Y))
    assert change <= (1 + tolerance(dtype)) * jnp.linalg.norm(Z - other)


@every_loss
@hypothesis.given(seed=seeds, scale=st.sampled_from([1e-3, 0.3, 1.0, 5.0, 30.0]), soft=st.booleans())
def test_fenchel_young(loss, dtype, seed, scale, soft):
    """``loss(Z) + loss*(U) >= <U, Z>`` for every U of the domain, with equality at the gradient."""
    Z, Y = sample(loss, seed, dtype, scale, soft)
    elsewhere, _ = sample(loss, seed + 1, dtype, scale, soft)
    value = loss(Z, Y)
    for at in (Z, elsewhere):
        U = loss.gradient(at, Y)
        inner = jnp.sum(U * Z)
        slack = value + loss.conjugate(U, Y) - inner
        noise = tolerance(dtype) * (1 + abs(value) + jnp.sum(jnp.abs(U * Z)) + jnp.sum(U * U))
        assert slack >= -noise
        if at is Z:
            assert slack <= noise


def inside(loss, rng, Y):
    """A point well inside the conjugate's domain."""
    return np.asarray(loss.gradient(jnp.asarray(rng.normal(size=Y.shape)), jnp.asarray(Y)))


@every_loss
def test_conjugate_is_the_supremum(loss):
    """Brute force over a fine grid of predictions of one sample comes close from below."""
    rng = np.random.default_rng(0)
    grid = np.linspace(-12, 12, 24001)
    for _ in range(4):
        Y = targets(loss, rng, m=1, dy=2 if loss.name == "softmax_cross_entropy" else 1)
        U = inside(loss, rng, Y)
        # Adding a constant to all logits changes nothing, so one logit may stay 0.
        Z = np.zeros((len(grid), *Y.shape))
        Z[:, 0, 0] = grid
        best = ((U * Z).sum(axis=(1, 2)) - loss_values(loss.name, Z, Y)).max()
        found = float(loss.conjugate(jnp.asarray(U), jnp.asarray(Y)))
        assert best <= found + 1e-12
        assert best >= found - 1e-6


@pytest.mark.parametrize("loss", WITH_DOMAIN, ids=lambda loss: loss.name)
def test_conjugate_is_infinite_outside_its_domain(loss, dtype):
    """There the supremum is +inf, and one bad entry is enough; nothing is clipped."""
    Z, Y = sample(loss, 4, dtype)
    U = loss.gradient(Z, Y)
    assert jnp.isfinite(loss.conjugate(U, Y))
    for factor in (1e3,) if loss.name.startswith("huber") else (-1.0, 1e3):
        bad = U.at[2, 1].set(factor * U[2, 1])
        assert loss.conjugate(bad, Y) == jnp.inf
        assert rigorous.dual_value(loss.name, np.asarray(bad, np.float64), np.asarray(Y, np.float64))[0] == (-np.inf)


def test_huber_is_finite_up_to_its_threshold_on_both_sides(dtype):
    """The domain |u| <= delta is closed."""
    loss, Y = losses.huber(0.5), jnp.ones((1, 1), dtype)
    edge = jnp.full((1, 1), 0.5, dtype)
    for U in (edge, -edge):
        assert jnp.isfinite(loss.conjugate(U, Y))
        assert loss.conjugate(U * (1 + 4 * jnp.finfo(dtype).eps), Y) == jnp.inf


def test_conjugate_at_the_corners_of_the_simplex(dtype):
    """0 log 0 = 0, and the slope towards a corner is no NaN."""
    Y = jnp.eye(3, dtype=dtype)
    assert jax.jit(losses.softmax_cross_entropy.conjugate)(jnp.zeros((3, 3), dtype), Y) == 0
    signs = jnp.asarray([[1.0], [-1.0]], dtype)
    for U in (jnp.zeros((2, 1), dtype), -signs):
        assert jax.jit(losses.logistic.conjugate)(U, signs) == 0
        assert jnp.all(jnp.isfinite(jax.jit(jax.grad(losses.logistic.conjugate))(U, signs)))


@every_loss
@hypothesis.given(seed=seeds, scale=st.sampled_from([0.01, 1.0, 20.0]), soft=st.booleans())
def test_dual_point_is_inside_the_domain(loss, dtype, seed, scale, soft):
    """Any coordinates whatever give a point with a finite conjugate."""
    free, Y = sample(loss, seed, dtype, scale, soft)
    assert jnp.isfinite(loss.conjugate(loss.dual_point(free, Y), Y))


@every_loss
def test_dual_coordinates_come_back(loss, dtype):
    """``dual_point(dual_coordinates(U)) = U`` inside the domain."""
    Z, Y = sample(loss, 5, dtype)
    U = 0.9 * loss.gradient(Z, Y)
    back = loss.dual_point(loss.dual_coordinates(U, Y), Y)
    np.testing.assert_allclose(back, U, atol=tolerance(dtype, 30))


@pytest.mark.parametrize("loss", WITH_DOMAIN, ids=lambda loss: loss.name)
@pytest.mark.parametrize("soft", [False, True])
def test_dual_limit_is_exact(loss, soft, dtype):
    """Just inside the limit the conjugate is finite, just outside it is not."""
    for seed in range(5):
        Z, Y = sample(loss, seed, dtype, soft=soft)
        U = loss.gradient(Z, Y)
        limit = loss.dual_limit(U, Y)
        assert limit >= 1 - tolerance(dtype, 4)
        assert jnp.isfinite(loss.conjugate(limit * (1 - tolerance(dtype, 4)) * U, Y))
        assert loss.conjugate(limit * (1 + 1e-3) * U, Y) == jnp.inf


@every_loss
def test_dual_limit_of_zero_is_infinite(loss, dtype):
    """0 stays 0 at any scale, and divides by nothing."""
    _, Y = sample(loss, 0, dtype)
    assert loss.dual_limit(jnp.zeros_like(Y), Y) == jnp.inf


@every_loss
def test_best_scale_beats_a_fine_grid(loss, dtype):
    """No s of the interval gives more than the s found, whether the best one is inside or at the end."""

    @jax.jit
    @jax.vmap
    def compare(U, Y, share):
        upper = share * jnp.minimum(loss.dual_limit(U, Y), 2)
        s = loss.best_scale(U, Y, upper)
        grid = jnp.linspace(0, 1, 2001, dtype=dtype) * upper
        best = jnp.max(jax.lax.map(lambda t: -loss.conjugate(t * U, Y), grid))
        return upper, s, -loss.conjugate(s * U, Y), best

    Z, Y = (jnp.stack(a) for a in zip(*[sample(loss, k, dtype, scale=2.0) for k in range(6)], strict=True))
    shares = jnp.asarray([0.05, 0.999] * 3, dtype)
    upper, s, found, best = compare(jax.vmap(loss.gradient)(Z, Y), Y, shares)
    assert jnp.all((s >= 0) & (s <= upper))
    assert jnp.all(found >= best - tolerance(dtype, 50) * (1 + jnp.abs(best)))


def test_huge_logits_stay_finite(dtype):
    """Logits of 1e4 give exact values, not inf or NaN."""
    Z = jnp.asarray([[1e4, 0.0, -1e4]], dtype)
    for label, expected in enumerate((0.0, 1e4, 2e4)):
        Y = jnp.eye(3, dtype=dtype)[label : label + 1]
        assert losses.softmax_cross_entropy(Z, Y) == expected
        assert jnp.all(jnp.isfinite(losses.softmax_cross_entropy.gradient(Z, Y)))
    for z, expected in ((1e4, 0.0), (-1e4, 1e4)):
        one, at = jnp.ones((1, 1), dtype), jnp.full((1, 1), z, dtype)
        assert losses.logistic(at, one) == expected
        assert jnp.isfinite(losses.logistic.gradient(at, one)).all()
        assert jnp.isfinite(losses.logistic.conjugate(losses.logistic.gradient(at, one), one))


def test_names_come_back():
    """A loss's name says which loss it is, with every digit."""
    for loss in [*LOSSES, losses.huber(2 / 3), losses.huber(1e-7), losses.huber(float(np.float32(0.1)))]:
        assert losses.by_name(loss.name) == loss
    assert losses.by_name("huber") == losses.huber(1.0)


@pytest.mark.parametrize("name", ["hinge", "", "huber:-1", "huber:0", "huber:nan", "huber:x", "Squared"])
def test_unknown_names_are_refused(name):
    """The message names what was received and what exists."""
    with pytest.raises(ValueError, match=r"loss: Expected: .*huber:DELTA.* Received:"):
        losses.by_name(name)


@pytest.mark.parametrize("delta", [0.0, -1.0, np.nan, np.inf])
def test_huber_refuses_its_threshold(delta):
    """delta must be a finite number > 0."""
    with pytest.raises(ValueError, match="delta: Expected"):
        losses.huber(delta)


@pytest.mark.parametrize(
    ("loss", "Y"),
    [
        (losses.softmax_cross_entropy, [[1.0], [1.0]]),
        (losses.softmax_cross_entropy, [[0.0, 2.0], [3.0, 1.0]]),
        (losses.softmax_cross_entropy, [[-0.5, 1.5]]),
        (losses.logistic, [[0.0], [1.0]]),
    ],
)
def test_targets_that_do_not_fit_are_refused(loss, Y):
    """Labels where one-hot rows are needed, zeros where signs are."""
    with pytest.raises(ValueError, match="Y: Expected: .* for .* Received: "):
        loss.check_targets(np.asarray(Y))


@every_loss
def test_targets_that_fit_are_taken(loss):
    """No complaint about good targets."""
    loss.check_targets(targets(loss, np.random.default_rng(0)))
