"""J against the dense singular value decomposition of a Jacobian from autodiff; every method, every kind of model."""

import dataclasses
import itertools
import subprocess
import sys

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import datasets, deep_linear, linalg, local_minima, networks
from globopt_jax.local_minima.jacobian import model_of
from tests.local_minima.instances import close, instance, jacobian, oracle
from tests.precision import slow_in_float32

METHODS = local_minima.METHODS


def assert_right(seed, methods, largest=6, memory=20_000):
    W, X, Y, activation = instance(seed, largest)
    A, size = jacobian(W, X, activation), 0.5 * np.sum(Y**2)
    J, rank, unclear = oracle(A, Y)
    for method in methods:
        found = local_minima.tangent_projection(networks.feed_forward(activation), W, X, Y, method, memory=memory)
        # "dual" says that it did not converge where rounding, 0.01 eps times the condition, leaves too much inside.
        eps, left = np.finfo(np.float64).eps, float(found.inside)
        kept = method == "dual" and eps**0.5 < left <= 0.01 * eps * float(found.largest) / float(found.smallest)
        assert bool(found.converged) or kept
        assert close(float(found.value) - J, size, A, Y), (method, float(found.value), J)
        assert unclear or int(found.rank) == rank
        assert float(found.value) <= float(found.loss) + 1e-12 * size
        # A linear last layer: the prediction lies in the tangent space, and nothing is lost in between.
        assert close(float(found.value + found.gap - found.loss), float(found.loss), A, Y)


@pytest.mark.parametrize("seed", [1, 3])
def test_random_networks(seed):
    assert_right(seed, METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_tiny_gap_keeps_its_digits(method):
    """Near a stationary point the gap is far below the rounding of the loss."""
    W, X, Y, activation = instance(3)
    A, rng = jacobian(W, X, activation), np.random.default_rng(0)
    network = networks.feed_forward(activation)
    within, left = A @ rng.normal(size=A.shape[1]), rng.normal(size=Y.size)
    U, s, _ = np.linalg.svd(A, full_matrices=False)
    U = U[:, s > 1e-12 * s[0]]
    for _ in range(2):
        left -= U @ (U.T @ left)
    size = 1e-9 * np.linalg.norm(left)
    Y = np.asarray(network(W, X)) + (left + size * within / np.linalg.norm(within)).reshape(Y.shape)
    found = local_minima.tangent_projection(network, W, X, Y, method)
    assert float(found.gap) == pytest.approx(0.5 * size**2, rel=1e-4, abs=0)


def linear(w, X):
    return X @ w


@pytest.mark.parametrize(("smallest", "digits"), [(1e-9, 1e-10), (3e-13, 1e-7)])
def test_dense_keeps_its_digits_where_the_jacobian_is_ill_conditioned(smallest, digits, rng):
    """A linear model, so that A is X itself: rounding of ``A x`` alone would cost seven of the digits."""
    left, right = (np.linalg.qr(rng.normal(size=(n, 80)))[0] for n in (120, 80))
    X, Y = left * np.geomspace(1, smallest, 80) @ right, rng.normal(size=(120, 1))
    J, rank, _ = oracle(X, Y)
    found = local_minima.tangent_projection(linear, rng.normal(size=(80, 1)), X, Y, "dense")
    assert int(found.rank) == rank == 80
    assert float(found.value) == pytest.approx(J, rel=digits, abs=0)
    assert 0 < float(found.inside) < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_small_and_large_numbers(dtype, rng):
    """``A^T Y`` underflows or overflows, and J does not."""
    X, Y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    J = oracle(X, Y)[0]
    w = np.zeros((3, 1), dtype)
    for a, b in [(1e-36, 1e-11), (1e28, 1e11)] if dtype == np.float32 else [(1e-250, 1e-74), (1e250, 1e74)]:
        with jax.enable_x64(dtype == np.float64):
            found = local_minima.tangent_projection(linear, w, dtype(a * X), dtype(b * Y))
        assert float(found.value) / b**2 == pytest.approx(J, rel=1e-5)


@pytest.mark.parametrize("method", ["gram", "dual"])
def test_squares_of_weak_directions_have_to_be_numbers(method, rng):
    """Those of the strong ones are: a Gram matrix would lose one of six directions without a word."""
    left, right = (np.linalg.qr(rng.normal(size=(n, 6)))[0] for n in (12, 6))
    X = (1e-14 * left * np.geomspace(1, 1e-5, 6) @ right.T).astype(np.float32)
    Y, w = rng.normal(size=(12, 1)).astype(np.float32), np.zeros((6, 1), np.float32)
    with jax.enable_x64(False):
        assert int(local_minima.tangent_projection(linear, w, X, Y, "dense").rank) == 6
        with pytest.raises(ValueError, match="Expected: a Jacobian whose squares float32 can hold"):
            _ = local_minima.tangent_projection(linear, w, X, Y, method)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_two_hundred_random_networks(block):
    for seed in range(20 * block, 20 * (block + 1)):
        assert_right(seed, METHODS, largest=20)


@slow_in_float32
def test_any_model_gives_what_the_structure_gives(dtype):
    """Kernels and biases, by structure, by autodiff of the same network, and as a model of Flax."""
    from flax import linen

    class Model(linen.Module):
        @linen.compact
        def __call__(self, X):
            hidden = linen.Dense(4, param_dtype=dtype)(X)
            return linen.Dense(2, param_dtype=dtype)(linen.relu(hidden))

    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 3)).astype(dtype), rng.normal(size=(30, 2)).astype(dtype)
    apply, variables = networks.from_flax(Model(), Model().init(jax.random.key(0), X))
    pairs = [(layer["kernel"], layer["bias"]) for layer in (variables["Dense_0"], variables["Dense_1"])]
    network = networks.feed_forward("relu")
    found = [
        local_minima.tangent_projection(a, p, X, Y, method)
        for a, p in ((network, pairs), (lambda p, X: network(p, X), pairs), (apply, variables))
        for method in METHODS
    ]
    tolerance = 1e-3 if dtype == jnp.float32 else 1e-10
    for each in found:
        assert each.value.dtype == dtype
        assert int(each.rank) == int(found[0].rank)
        assert float(each.value) == pytest.approx(float(found[0].value), rel=tolerance)
    assert [int(each.kinks) for each in found] == [0] * 3 + [-1] * 6


def test_a_convolutional_network():
    """690 columns, so that the Gram matrix is taken by blocks; the derivatives of kernels sample by sample."""
    from flax import linen

    class Model(linen.Module):
        @linen.compact
        def __call__(self, X):
            hidden = linen.Conv(4, (3, 3), strides=(2, 2), param_dtype=X.dtype)(X)
            return linen.Dense(10, param_dtype=X.dtype)(linen.relu(hidden).reshape(len(X), -1))

    data = datasets.load("digits")
    X, Y = jnp.asarray(data.X[:100]).reshape(-1, 8, 8, 1), data.Y[:100]
    apply, variables = networks.from_flax(Model(), Model().init(jax.random.key(0), X))
    flat, unravel = jax.flatten_util.ravel_pytree(variables)
    A = np.asarray(jax.jacrev(lambda v: apply(unravel(v), X))(flat)).reshape(1000, 690)
    J, rank, _ = oracle(A, Y)
    found = local_minima.tangent_projection(apply, variables, X, Y, "gram", memory=2**22)
    assert float(found.value) == pytest.approx(J, rel=1e-10)
    assert int(found.rank) == rank
    # A convolution with a group a sample is what makes the time on CPUs grow with the square of the batch.
    of_sample = jax.jacrev(lambda v, x: apply(v, x[None])[0])
    ours = jax.jit(lambda v, X: model_of(apply).chunk(v, X, jnp.ones(len(X))).rows)
    together = jax.jit(jax.vmap(of_sample, (None, 0)))
    for rows, grouped in ((ours, jax.default_backend() != "cpu"), (together, True)):
        assert ("feature_group_count = 100" in rows.lower(variables, X).as_text()) == grouped


def test_small_singular_values_are_not_lost_to_the_gram_matrix():
    """Two inputs that differ by 1e-9: below what a Gram matrix sees, far above the cutoff."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    X[:, 2] = X[:, 1] + 1e-9 * rng.normal(size=40)
    Y = rng.normal(size=(40, 1))
    W = [np.ones((3, 1))]
    J, rank, _ = oracle(X, Y)
    assert rank == 3
    for method in METHODS:
        found = local_minima.tangent_projection(networks.feed_forward("linear"), W, X, Y, method)
        assert int(found.rank) == 3
        # The third direction is only determined to 1e-7 by numbers with 16 digits.
        assert float(found.value) == pytest.approx(J, rel=1e-6)
    assert oracle(X[:, :2], Y)[0] > J * (1 + 1e-4), "the direction matters"


def test_float32_on_the_digits():
    """Within 1e-4 of float64; the result says what it could not resolve."""
    data, rng = datasets.load("digits"), np.random.default_rng(0)
    W = [rng.normal(size=s) * (2 / s[0]) ** 0.5 for s in itertools.pairwise((64, 8, 8, 10))]
    network = networks.feed_forward("relu")
    X, Y = data.X[:300], data.Y[:300]
    exact = local_minima.tangent_projection(network, W, X, Y)
    assert exact.method == "gram"
    assert "float32" not in exact.reason
    with jax.enable_x64(False):
        single, X, Y = [w.astype(np.float32) for w in W], X.astype(np.float32), Y.astype(np.float32)
        found = local_minima.tangent_projection(network, single, X, Y)
    assert found.value.dtype == np.float32
    assert bool(found.converged)
    assert float(found.value) == pytest.approx(float(exact.value), rel=1e-4)
    assert 1e-6 < float(found.resolution) < 1e-4
    assert f"below {float(found.resolution):.2g} of the largest" in found.reason


@pytest.mark.parametrize(("m", "method"), [(100, "gram"), (20, "dual")])
def test_auto_takes_the_smaller_side_and_the_dense_way_where_it_fails(m, method, monkeypatch):
    from globopt_jax.local_minima import spaces

    rng = np.random.default_rng(0)
    W = [rng.normal(size=s) for s in itertools.pairwise((64, 8, 10) if m == 100 else (64, 32, 10))]
    X, Y = rng.normal(size=(m, 64)), rng.normal(size=(m, 10))
    network = networks.feed_forward("relu")
    monkeypatch.setattr(spaces, "MANY", 600)
    plain = local_minima.tangent_projection(network, W, X, Y, "dense")
    assert local_minima.tangent_projection(network, W, X, Y).method == method
    kind = {"gram": spaces._Gram, "dual": spaces._Dual}[method]
    project = kind.project_out
    monkeypatch.setattr(kind, "project_out", lambda *args: project(*args)._replace(converged=False))
    found = local_minima.tangent_projection(network, W, X, Y)
    assert found.method == "dense"
    assert bool(found.converged)
    assert float(found.value) == float(plain.value)
    assert local_minima.tangent_projection(network, W, X, Y, method).method == method
    small = [w * s for w, s in zip(W, (1e-160, 1.0), strict=True)]
    tanh = networks.feed_forward(jnp.tanh)  # nothing is rescaled: squares underflow
    assert local_minima.tangent_projection(tanh, small, 1e-160 * X, Y).method == "dense"


def test_stationary_points_have_no_tangent_gap():
    """Least squares in the last layer alone leaves a gap; at the minimum over all layers it is gone."""
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(50, 3)), rng.normal(size=(50, 2))
    first = rng.normal(size=(3, 1))
    network = networks.feed_forward("linear")
    partly = local_minima.tangent_projection(network, [first, np.linalg.lstsq(X @ first, Y)[0]], X, Y)
    best = deep_linear.factors(deep_linear.global_minimum(X, Y, 1).map, (3, 1, 2))
    wholly = local_minima.tangent_projection(network, best, X, Y)
    assert float(wholly.gap) <= 1e-24
    assert float(wholly.loss) == pytest.approx(float(wholly.value), rel=1e-12)
    assert float(partly.gap) > 1e-3


def test_a_prediction_outside_the_tangent_space_is_said():
    """A fixed skip connection is nobody's derivative: the result says what is outside."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 2)), rng.normal(size=(20, 1))
    direction = X[:, :1] / np.linalg.norm(X[:, 0])

    def left(B):
        return B - direction @ (direction.T @ B)

    for method in METHODS:
        found = local_minima.tangent_projection(lambda p, X: p * X[:, :1] + X[:, 1:], jnp.ones(()), X, Y, method)
        assert float(found.value) == pytest.approx(0.5 * np.sum(left(Y) ** 2), rel=1e-12)
        assert float(found.outside) == pytest.approx(np.linalg.norm(left(X[:, 1:])), rel=1e-12)
        residual = Y - X[:, :1] - X[:, 1:]
        assert float(found.gap) == pytest.approx(0.5 * np.sum((residual - left(residual)) ** 2), rel=1e-10)
        assert "does not lie in the tangent space" in found.reason


def test_degenerate_models(dtype):
    X, Y = np.ones((5, 2), dtype), np.ones((5, 3), dtype)
    dead = [np.zeros((2, 4), dtype), np.zeros((4, 3), dtype)]
    for method in METHODS:
        found = local_minima.tangent_projection(networks.feed_forward("relu"), dead, X, Y, method)
        assert int(found.rank) == 0
        assert float(found.value) == 7.5
        assert int(found.kinks) == 20
        assert "exactly at a kink" in found.reason
        zero = local_minima.tangent_projection(networks.feed_forward("relu"), dead, X, 0 * Y, method)
        assert float(zero.value) == 0
    empty = local_minima.tangent_projection(lambda p, X: jnp.zeros((len(X), 3), dtype), {}, X, Y)
    assert float(empty.value) == float(empty.loss) == 7.5


def test_results_are_stored(tmp_path):
    W, X, Y, activation = instance(1)
    found = local_minima.tangent_projection(networks.feed_forward(activation), W, X, Y)
    found.save(tmp_path / "j.npz")
    again = local_minima.TangentProjection.load(tmp_path / "j.npz")
    assert float(again.value) == float(found.value)
    (tmp_path / "text.npz").write_text("J")
    with pytest.raises(ValueError, match="text.npz: Expected: an .npz of numbers. Received: something else "):
        local_minima.TangentProjection.load(tmp_path / "text.npz")
    with pytest.raises(ValueError, match="path: Expected: a file in a folder that exists"):
        found.save(tmp_path / "none" / "j.npz")
    assert again.method == found.to_json()["method"] == "dense"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"Y": np.ones((4, 3))}, ValueError, r"Y: Expected: the shape of apply\(params, X\), \(4, 1\)"),
        ({"X": np.ones((4, 3))}, ValueError, r"X: Expected: shape \(m, 2\). Received: \(4, 3\)"),
        ({"Y": np.ones(4)}, ValueError, r"scalar targets Y.reshape\(m, 1\)"),
        ({"X": np.full((4, 2), np.nan)}, ValueError, "X: Expected: finite numbers. Received: 8 NaN"),
        ({"params": {"a": [np.full((2, 1), np.inf)]}}, ValueError, r"params\['a'\]\[0\]: Expected: finite numbers"),
        ({"params": [np.full((2, 1), np.inf)]}, ValueError, r"params\[0\]: Expected: finite numbers"),
        ({"params": [np.ones((2, 1), complex)]}, TypeError, r"params\[0\]: Expected: real numbers"),
        ({"method": "qr"}, ValueError, "method: Expected: one of auto, dense, gram, dual. Received: 'qr'"),
        ({"cutoff": "eps"}, ValueError, "cutoff: Expected: one of press"),
        ({"memory": 0}, ValueError, "memory: Expected: an integer, at least 1. Received: 0"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = {"params": [np.ones((2, 1))], "X": np.ones((4, 2)), "Y": np.ones((4, 1)), **change}
    with pytest.raises(error, match=message):
        local_minima.tangent_projection(networks.feed_forward("relu"), **arguments)


def test_every_criterion_is_that_of_linalg():
    W, X, Y, activation = instance(2)
    A = jacobian(W, X, activation)
    for criterion in linalg.CRITERIA:
        wanted = int(linalg.numerical_rank(jnp.asarray(A), criterion))
        found = local_minima.tangent_projection(networks.feed_forward(activation), W, X, Y, "dense", criterion)
        assert int(found.rank) == wanted


def test_an_output_that_is_no_matrix_is_named():
    with pytest.raises(ValueError, match=r"apply: Expected: a function that returns an array \(m, dy\)"):
        local_minima.tangent_projection(lambda p, X: X @ p, np.ones(2), np.ones((4, 2)), np.ones((4, 1)))


def test_an_output_in_another_precision_is_named():
    """float32 rounding in a float64 Jacobian would count as rank."""
    with pytest.raises(ValueError, match="apply: Expected: an output in float64, as the parameters. Received: float32"):
        local_minima.tangent_projection(
            lambda p, X: (X @ p).astype(jnp.float32), np.ones((2, 1)), np.ones((4, 2)), np.ones((4, 1))
        )


def test_a_fit_without_error_is_no_prediction_outside():
    W, X, _, activation = instance(0)
    network = networks.feed_forward(activation)
    found = local_minima.tangent_projection(network, W, X, np.asarray(network(W, jnp.asarray(X))))
    assert float(found.loss) <= 1e-30  # 0 where both programs round alike
    assert "does not lie" not in found.reason


def test_a_function_may_have_kinks_that_nobody_counts():
    """jax.nn.relu is no pair of slopes: the same J, and an unknown number of kinks."""
    W, X, Y, _ = instance(0)
    W = [jnp.asarray(w) for w in W]
    by_name, by_function = (
        local_minima.tangent_projection(networks.feed_forward(a), W, X, Y) for a in ("relu", jax.nn.relu)
    )
    assert float(by_function.value) == pytest.approx(float(by_name.value), rel=1e-10)
    assert (int(by_name.kinks), int(by_function.kinks)) == (0, -1)


@pytest.mark.parametrize(
    "mix", [lambda X: X - jnp.mean(X, axis=0, keepdims=True), lambda X: jnp.cumsum(X, axis=0)], ids=["centered", "sums"]
)
def test_a_sample_that_needs_the_others_is_named(mix):
    with pytest.raises(ValueError, match="apply: Expected: a model that treats samples one by one"):
        local_minima.tangent_projection(lambda p, X: mix(X) @ p, np.ones((2, 1)), np.eye(4)[:, :2], np.ones((4, 1)))


def test_a_last_layer_of_zeros_hides_no_batch_statistics():
    """The output is zero, whatever the features are; its derivative is not."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    message = "apply: Expected: a model that treats samples one by one"
    with pytest.raises(ValueError, match=message + ".* derivatives that differ by"):
        local_minima.tangent_projection(lambda p, X: (X - jnp.mean(X, axis=0)[None]) @ p, np.zeros((3, 2)), X, Y)
    with pytest.raises(ValueError, match=message + r".* an output of shape \(20, 2\) for one sample"):
        local_minima.tangent_projection(lambda p, X: p, np.zeros((20, 2)), X, Y)
    assert int(local_minima.tangent_projection(lambda p, X: X @ p, np.zeros((3, 2)), X, Y).rank) == 6


def test_the_warning_of_lost_digits_points_at_the_caller():
    """In a process of its own, without the checks of annotations, which call functions from theirs."""
    script = """
import numpy as np
from globopt_jax import local_minima, networks
W, X, Y = [np.ones((2, 1)), np.ones((1, 1))], np.ones((4, 2)), np.ones((4, 1))
local_minima.tangent_projection(networks.feed_forward(), W, X, Y)
local_minima.decompose(W, X, Y)
local_minima.regression_bounds(W, X, Y, sets=[()])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for line in (5, 6, 7):
        assert f"<string>:{line}: UserWarning: float64 arrays are computed in float32" in done.stderr


def test_what_is_traced_is_named():
    X, Y = np.ones((4, 2)), np.ones((4, 1))
    network = networks.feed_forward("relu")
    with pytest.raises(TypeError, match="since this is a host function"):
        jax.jit(lambda X: local_minima.tangent_projection(network, [np.ones((2, 1))], X, Y))(X)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_squares_that_float32_cannot_hold_are_named_not_lost(scale, method):
    """The dense decomposition scales; Gram matrices cannot, and must not say that nothing is there."""
    rng = np.random.default_rng(0)
    W = [rng.normal(size=s).astype(np.float32) for s in ((3, 4), (4, 1))]
    X = (scale * rng.normal(size=(30, 3))).astype(np.float32)
    Y = rng.normal(size=(30, 1)).astype(np.float32)
    network = networks.feed_forward("linear")
    if method == "dense" and scale < 1:
        assert int(local_minima.tangent_projection(network, W, X, Y, method).rank) == 3
        return
    with pytest.raises(ValueError, match=r"Expected: .* can hold"):
        local_minima.tangent_projection(network, W, X, Y, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_prediction_does_not_enter_j(scale, method):
    """J belongs to the tangent space, which inputs in other units leave alone, though the prediction is far larger."""
    rng = np.random.default_rng(0)
    W, X, Y = [rng.normal(size=s) for s in ((3, 4), (4, 2))], rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    network = networks.feed_forward("relu")
    plain, scaled = (local_minima.tangent_projection(network, W, s * X, Y, method) for s in (1, scale))
    assert float(scaled.value) == pytest.approx(float(plain.value), rel=1e-12)
    assert int(scaled.rank) == int(plain.rank)


@pytest.mark.parametrize("method", METHODS)
def test_a_derivative_that_is_not_finite_is_named(method):
    X, Y = np.array([[0.0], [1.0]]), np.ones((2, 1))
    with pytest.raises(ValueError, match="params, X: Expected: a finite Jacobian. Received: NaN or inf in it"):
        local_minima.tangent_projection(lambda w, X: jnp.sqrt(w * X), jnp.ones(()), X, Y, method)


def test_a_model_without_a_hash_is_named():
    class Model:
        __hash__ = None  # pyright: ignore[reportAssignmentType]

        def __call__(self, w, X):
            return X @ w

    with pytest.raises(TypeError, match="apply: Expected: a function with a hash"):
        local_minima.tangent_projection(Model(), np.ones((1, 1)), np.ones((2, 1)), np.ones((2, 1)))

    @dataclasses.dataclass(frozen=True)
    class Fields:
        widths: list

        def __call__(self, w, X):
            return X @ w

    with pytest.raises(TypeError, match="apply: Expected: a function with a hash"):
        local_minima.tangent_projection(Fields([1]), np.ones((1, 1)), np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(TypeError, match=r"params\['key'\]: Expected: real numbers. Received: PRNGKeyArray"):
        local_minima.tangent_projection(
            lambda p, X: X @ p["w"],
            {"key": jax.random.key(0), "w": np.ones((1, 1))},
            np.ones((2, 1)),
            np.ones((2, 1)),
        )
    with pytest.raises(
        TypeError, match=r"weights\[0\]: Expected: real numbers. Received: dtype bfloat16; take float32"
    ):
        local_minima.decompose([jnp.ones((1, 1), jnp.bfloat16)], np.ones((2, 1)), np.ones((2, 1)))


def test_what_overflows_is_named():
    X, Y = np.full((4, 1), 1e200), np.ones((4, 1))
    with pytest.raises(ValueError, match="apply: Expected: a finite output for these params and X"):
        local_minima.tangent_projection(networks.feed_forward("linear"), [np.full((1, 1), 1e200)], X, Y)
    with pytest.raises(ValueError, match="Y: Expected: a largest entry of 0 or between"):
        local_minima.tangent_projection(networks.feed_forward("linear"), [np.ones((1, 1))], np.ones((4, 1)), 1e80 * Y)
