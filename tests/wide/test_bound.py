"""The bound of the loss by the gradient of a layer, against losses in longer numbers."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import wide
from globopt_jax.wide import bound
from tests.contracts import assert_kept
from tests.precision import slow_in_float32
from tests.wide import oracle

#: Samples and widths: one layer has N - 1 units or more; one to four hidden layers, one output and several.
SHAPES = ((5, (3, 6, 4, 2)), (8, (2, 9, 3, 1)), (12, (4, 16, 6, 5, 2)), (9, (10, 4, 2)), (6, (3, 5, 8, 4, 3, 2)))


@functools.cache
def bounds(activation):
    return jax.jit(jax.vmap(functools.partial(wide.loss_bounds, activation=activation)))


def points(N, widths, count, seed, dtype="float64"):
    """Weights of sizes from a thirtieth to ten times the usual one, and targets of several sizes."""
    rng = np.random.default_rng([29, seed])
    scales = 10 ** rng.uniform(-1.5, 1, size=(count, 1, 1))
    params = [
        (scales * rng.normal(size=(count, a, b)) / a**0.5, rng.normal(size=(count, b)))
        for a, b in itertools.pairwise(widths)
    ]
    X = rng.normal(size=(count, N, widths[0]))
    Y = 10 ** rng.uniform(-2, 2, size=(count, 1, 1)) * rng.normal(size=(count, N, widths[-1]))
    return jax.tree.map(lambda a: a.astype(dtype), (params, X, Y))


def first(N, widths):
    """One of them."""
    params, X, Y = points(N, widths, 1, 3)
    return [(w[0], b[0]) for w, b in params], X[0], Y[0]


def fitted(N, widths, count, seed, activation, dtype="float64"):
    """Weights that fit the data, moved by 1e-1 to 1e-15 of their size: losses down to rounding."""
    rng = np.random.default_rng([31, seed])
    params, X, Y = jax.tree.map(lambda a: np.asarray(a, dtype), points(N, widths, count, seed))
    k = int(np.argmax(widths[:-1]))
    rows = []
    for i in range(count):
        given = [(w[i], b[i]) for w, b in params]
        found = wide.interpolate(given, X[i], Y[i], k, activation).params
        size = 10 ** -rng.uniform(1, 15)
        rows.append([tuple(a * (1 + size * rng.normal(size=a.shape)) for a in pair) for pair in found])
    stacked = [tuple(np.stack(a) for a in zip(*layer, strict=True)) for layer in zip(*rows, strict=True)]
    return jax.tree.map(lambda a: np.asarray(a, dtype), (stacked, X, Y))


def assert_above(instances, activation, dtype):
    """No bound of any form and layer is below the loss; the smallest bounds over the losses come back."""
    params, X, Y = instances
    found = jax.tree.map(np.asarray, bounds(activation)(params, X, Y))
    assert found.loss.dtype == dtype
    ratios = []
    for i in range(len(X)):
        truth = oracle.loss([(w[i], b[i]) for w, b in params], X[i], Y[i], activation)
        for form in (found.product[i], found.per_sample[i], found.kernel[i]):
            assert np.all(form >= truth), (i, form, truth)
        ratios.append(min(found.kernel[i]) / float(truth))
    return np.array(ratios)


@slow_in_float32
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", pytest.param("softplus", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [0, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_no_bound_is_below_the_loss(shape, activation, dtype):
    N, widths = SHAPES[shape]
    ratios = assert_above(points(N, widths, 100, shape, dtype), activation, dtype)
    # Four hidden layers of these sizes leave few constants that float32 tells from zero.
    assert np.mean(np.isfinite(ratios)) > (0.25 if dtype == jnp.float32 else 0.8)


@pytest.mark.parametrize("activation", ["tanh", pytest.param("softplus", marks=pytest.mark.slow)])
def test_no_bound_is_below_a_loss_of_the_size_of_rounding(activation, dtype):
    N, widths = SHAPES[0]
    ratios = assert_above(fitted(N, widths, 30, 0, activation, dtype), activation, dtype)
    assert np.mean(np.isfinite(ratios)) > 0.5


#: Three to five layers of weights, with 5 to 40 samples.
LARGE = (
    (5, (3, 6, 4, 2)),
    (12, (4, 16, 6, 5, 2)),
    (20, (5, 24, 8, 3)),
    (30, (6, 33, 12, 4, 2)),
    (40, (8, 44, 10, 8, 5, 2)),
)


@pytest.mark.slow
@pytest.mark.parametrize("shape", LARGE, ids=lambda shape: f"N={shape[0]}")
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus"])
def test_ten_thousand_points(activation, shape):
    """670 points for each activation and shape, half of them near zero loss."""
    N, widths = shape
    _ = assert_above(points(N, widths, 335, 100, "float64"), activation, "float64")
    _ = assert_above(fitted(N, widths, 335, 100, activation, "float64"), activation, "float64")


def test_an_activation_in_the_place_of_the_layer_is_named():
    with pytest.raises(ValueError, match="layer: Expected: an integer; the activation is the argument after it"):
        _ = bound.checked_layer("sigmoid", [])


def test_a_flat_activation_hides_no_rounding(dtype):
    """The sum of the inputs is -160 and comes out as 128, so that tanh is -1 and comes out as 1, the target."""
    start = 2.0 ** (30 if dtype == jnp.float32 else 59)  # where floats are 128 apart
    X = jnp.asarray([[start, *[80.0] * 6, -start - 640.0]], dtype)
    params = [(jnp.ones((8, 1), dtype), jnp.zeros(1, dtype)), (jnp.ones((1, 1), dtype), jnp.zeros(1, dtype))]
    Y = jnp.ones((1, 1), dtype)
    found = wide.loss_bounds(params, X, Y)
    for form in (found.product, found.per_sample, found.kernel):
        assert np.all(np.asarray(form) >= 2)
    assert wide.classify(params, X, Y).kind != "global_minimum"


def test_the_last_singular_value_gives_false_bounds(monkeypatch):
    """With more units than samples, the N-th singular value is the last; with fewer there is none."""
    rng = np.random.default_rng(0)
    X, Y, W = (rng.normal(size=s) for s in ((8, 3), (8, 2), (3, 4)))
    V = np.linalg.lstsq(np.tanh(X @ W), Y, rcond=None)[0]  # the gradient of the last layer is zero
    params = [(W, None), (V, None)]
    honest = wide.loss_bounds(params, X, Y)
    assert np.isinf(honest.product[1])
    assert honest.best >= honest.loss > 0.1
    monkeypatch.setattr(bound, "_smallest", last)
    bound._bounds.clear_cache()
    mutated = wide.loss_bounds(params, X, Y)
    bound._bounds.clear_cache()  # other tests have these shapes
    for form in (mutated.product, mutated.per_sample):
        assert form[1] < 1e-20


def last(M, n):
    """The mutation: the last singular value there is."""
    del n
    return jnp.linalg.svd(M.value, compute_uv=False)[..., -1]


def test_by_hand():
    """One linear layer: the gradient is X^T E, and c is the smallest singular value of X."""
    X, Y = jnp.diag(jnp.array([1.0, 2.0])), jnp.array([[1.0], [1.0]])
    found = wide.loss_bounds([(jnp.zeros((2, 1)), None)], X, Y)
    np.testing.assert_allclose([*found.product, *found.per_sample, *found.kernel], 2.5, rtol=1e-12)  # (1 + 4) / 2
    assert float(found.loss) == 1.0
    assert found.reason == (
        "The loss is 1, and it is at most 2.5: the features of layer 0 and the gradient of layer 1 prove it."
    )
    none = wide.loss_bounds([(jnp.zeros((1, 1)), None)], jnp.ones((2, 1)), Y)
    assert np.isinf(none.best)
    assert "no layer bounds it" in none.reason


def test_a_product_of_two_layers():
    """Against the formula written out in NumPy, without margins."""
    rng = np.random.default_rng(0)
    X, Y, W, b, V = (rng.normal(size=s) for s in ((4, 3), (4, 2), (3, 6), (6,), (6, 2)))
    found = wide.loss_bounds([(W, b), (V, None)], X, Y)
    F = np.tanh(X @ W + b)
    E = F @ V - Y
    slopes = 1 - F**2
    J = slopes[:, :, None] * V[None]
    Ft = np.hstack([X, np.ones((4, 1))])
    g = Ft.T @ np.einsum("nqo,no->nq", J, E)
    s = np.linalg.svd(Ft, compute_uv=False)[3]
    product = s * slopes.min() * np.linalg.svd(V, compute_uv=False)[1]
    samples = s * min(np.linalg.svd(j, compute_uv=False)[1] for j in J)
    K = np.einsum("ij,iqo,jqp->iojp", Ft @ Ft.T, J, J).reshape(8, 8)
    for c, value in ((product, found.product), (samples, found.per_sample)):
        np.testing.assert_allclose(value[0], 0.5 * np.sum(g**2) / c**2, rtol=1e-9)
    np.testing.assert_allclose(found.kernel[0], 0.5 * np.sum(g**2) / np.linalg.eigvalsh(K)[0], rtol=1e-9)
    np.testing.assert_allclose(found.gradient[1], np.linalg.norm(F.T @ E), rtol=1e-9)
    assert float(wide.loss_bound([(W, b), (V, None)], X, Y, 0)) == float(found.kernel[0])
    assert float(wide.loss_bound([(W, b), (V, None)], X, Y)) == float(found.best)


def test_forms_and_memory():
    """Without memory for the Jacobian the kernel's eigenvalues take its place, and then the form is left out."""
    params, X, Y = first(5, SHAPES[0][1])
    large, small, none = (wide.loss_bounds(params, X, Y, memory=memory).kernel[1] for memory in (2**28, 2500, 1))
    assert np.isinf(none)
    np.testing.assert_allclose(small, large, rtol=1e-3)
    assert small >= large


def test_activations_of_your_own_and_kinks():
    params, X, Y = first(5, SHAPES[0][1])
    found = wide.loss_bound(params, X, Y, 1, "tanh")
    for same in (jnp.tanh, wide.smooth(jnp.tanh, analytic=True)):
        assert float(wide.loss_bound(params, X, Y, 1, same)) == float(found)
    truth = oracle.loss(params, X, Y, "relu")
    assert float(wide.loss_bound(params, X, Y, 2, "relu")) >= truth
    kinked = [(0 * params[0][0], 0 * params[0][1]), *params[1:]]  # every pre-activation is 0
    assert np.isinf(wide.loss_bound(kinked, X, Y, 2, "relu"))


def test_arrays_of_two_precisions_are_computed_in_the_wider_one():
    """Errors of float32 must not pass for those of float64."""
    params, X, Y = first(5, SHAPES[0][1])
    narrow = [tuple(a.astype("float32") for a in pair) for pair in params]
    for Z in (Y, Y.astype("float32")):
        found = wide.loss_bounds(narrow, X.astype("float32"), Z)
        assert found.best.dtype == Z.dtype
        wanted = wide.loss_bounds(
            [tuple(a.astype(Z.dtype) for a in p) for p in narrow], X.astype("float32").astype(Z.dtype), Z
        )
        np.testing.assert_array_equal(found.best, wanted.best)


def test_a_network_that_overflows_has_no_bound():
    params, X, Y = first(5, SHAPES[0][1])
    found = wide.loss_bounds([(1e200 * w, b) for w, b in params], X, Y, "softplus")
    for form in (found.product, found.per_sample, found.kernel):
        assert not np.any(np.isnan(form))
        assert np.isinf(form[0])
    assert "overflows" in str(wide.loss_bounds([(1e300 * w, b) for w, b in params], X, Y, "softplus"))


def test_no_bound_rests_on_numbers_that_overflow_or_underflow():
    """Nothing computed is infinite or zero here: a product of constants is, or the squares of an error bound."""
    scales = ([1e-150, 1e160, 1e149, 1e-153, 1e-2], np.float64), ([1e-10, 1e20, 1e20, 1e-17, 1e-13], np.float32)
    for kernels, dtype in scales:
        params = [(np.full((1, 1), w, dtype), None) for w in kernels]
        found = wide.loss_bounds(params, np.ones((1, 1), dtype), np.full((1, 1), 0.5, dtype), "linear")
        assert found.loss > 0.1
        assert found.best >= found.loss
    b, W, c = np.array([0.1, 0.7, -0.3]), np.array([[0.3], [0.9], [1.1]]), np.array([0.2])
    params = [(np.array([[1e-25, 5e-26]]), None), (1e-160 * np.array([[1.0, 2, 3], [3, -1, 1]]), b), (W, c)]
    Y = (b @ W + c).reshape(1, 1) * (1 - 2.2e-16)  # a loss of 1.6e-33
    assert wide.loss_bounds(params, np.array([[1e25]]), Y, "linear").best > 1e-33


@pytest.mark.parametrize("form", ["product", "per_sample", "kernel"])
def test_the_gradient_of_a_bound_at_zero_biases(form):
    """Biases start at zero in most networks, where the norm of a bias has no derivative."""
    draw = np.random.default_rng(3)
    params = [(draw.normal(size=(6, 8)), np.zeros(8)), (draw.normal(size=(8, 2)), np.zeros(2))]
    X, Y = draw.normal(size=(5, 6)), draw.normal(size=(5, 2))
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    f = jax.jit(lambda v: getattr(wide.loss_bounds(unravel(v), X, Y), form)[1])
    slope, v = jax.grad(f)(flat), draw.normal(size=flat.shape)
    moved = [float(f(flat + t * v)) for t in (-1e-6, 1e-6)]
    np.testing.assert_allclose(slope @ v, (moved[1] - moved[0]) / 2e-6, rtol=1e-5)


def test_contracts(dtype):
    def make(rng):
        params = [(rng.normal(size=(3, 6)), rng.normal(size=6)), (rng.normal(size=(6, 2)), rng.normal(size=2))]
        return params, rng.normal(size=(5, 3)), rng.normal(size=(5, 2))

    assert_kept(lambda params, X, Y: wide.loss_bounds(params, X, Y).gradient, make, dtype)
    assert_kept(lambda params, X, Y: wide.loss_bound(params, X, Y, 1), make, dtype)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 2}, "layer: Expected: an integer, 0..1. Received: 2."),
        ({"activation": "relu6"}, "activation: Expected: one of tanh, sigmoid"),
        ({"activation": "abs"}, "or a function. Received: 'abs'. Did you mean 'absolute'?"),
        ({"X": np.ones((5, 4))}, "X, Y: Expected: 3 inputs and 2 targets. Received: 4 and 2."),
        ({"Y": np.ones((4, 2))}, "X, Y: Expected: shapes (m, dx) and (m, dy)."),
        ({"params": [(np.ones((3, 0)), np.ones(0)), (np.ones((0, 2)), np.ones(2))]}, "at least one unit"),
        ({"params": [(np.ones((3, 4)), np.ones(4)), (np.ones((5, 2)), np.ones(2))]}, "params: Expected: a list of"),
    ],
)
def test_bad_input(changes, message):
    given = {
        "params": [(np.ones((3, 4)), np.ones(4)), (np.ones((4, 2)), np.ones(2))],
        "X": np.ones((5, 3)),
        "Y": np.ones((5, 2)),
        "layer": 1,
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = wide.loss_bound(**given | changes)
