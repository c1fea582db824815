"""Problem, objective, the check of degrees, and everything bad that can come in."""

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import homogeneous, losses
from globopt_jax.homogeneous.degrees import check_degrees, measured_degree
from globopt_jax.homogeneous.inputs import check
from globopt_jax.homogeneous.problem import objective, predict
from tests.oracles import activation


def neurons(lam: Any = 0.1, loss: losses.Loss = losses.squared, theta: Any = None) -> homogeneous.Problem:
    """The two-layer ReLU problem."""
    theta = homogeneous.sum_of_powers() if theta is None else theta
    return homogeneous.Problem(homogeneous.relu_neuron(), theta, loss, lam)


def data(dtype, m=6, dx=3, dy=2, r=4):
    """(params, X, Y)."""
    rng = np.random.default_rng(0)
    params = tuple(jnp.asarray(rng.normal(size=(r, d)), dtype) for d in (dx, dy))
    return params, jnp.asarray(rng.normal(size=(m, dx)), dtype), jnp.asarray(rng.normal(size=(m, dy)), dtype)


def test_objective_written_out(dtype):
    """f_r(W) as HV17 (17) has it, in NumPy."""
    params, X, Y = data(dtype)
    w1, w2, A, B = (np.asarray(a, np.float64) for a in (*params, X, Y))
    expected = 0.5 * np.sum((activation((0.0, 1.0), A @ w1.T) @ w2 - B) ** 2) + 0.05 * (np.sum(w1**2) + np.sum(w2**2))
    value = objective(neurons(), params, X, Y)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected, rtol=1e-5 if dtype == jnp.float32 else 1e-13)


def test_lam_is_data(dtype):
    """lam vmaps, differentiates, and another lam means no other compilation."""
    params, X, Y = data(dtype)
    traces = []

    @jax.jit
    def f(problem):
        traces.append(1)
        return objective(problem, params, X, Y)

    lams = jnp.asarray([0.1, 0.5, 2.0], dtype)
    one_by_one = [f(neurons(jnp.asarray(lam, dtype))) for lam in (0.1, 0.5, 2.0)]
    assert len(traces) == 1
    at_once = jax.jit(jax.vmap(lambda lam: objective(neurons(lam), params, X, Y)))(lams)
    np.testing.assert_allclose(at_once, jnp.stack(one_by_one), rtol=1e-6)
    stacked = jax.vmap(lambda p: objective(p, params, X, Y))(neurons(lams))
    np.testing.assert_allclose(stacked, at_once, rtol=1e-6)


def test_problems_are_equal_by_value():
    """Built twice, a problem is the same static structure: nothing recompiles."""
    assert neurons() == neurons()
    assert neurons() != neurons(0.2)
    assert neurons(loss=losses.huber(0.5)) == neurons(loss=losses.huber(0.5))
    assert neurons(loss=losses.huber(0.5)) != neurons(loss=losses.huber(0.6))
    leaves, tree = jax.tree.flatten(neurons(0.3))
    assert leaves == [0.3]
    assert jax.tree.structure(neurons()) == tree
    assert hash(tree) == hash(jax.tree.structure(neurons()))
    again = jax.tree.unflatten(tree, [0.3])
    assert again == neurons(0.3)
    assert again.theta.degree == 2


@pytest.mark.parametrize("lam", [0.0, -1.0, np.nan, np.inf, -np.inf, np.asarray([0.1, 0.0])])
def test_lam_must_be_positive(lam):
    """Also where it comes as an array, then before any work."""
    with pytest.raises(ValueError, match="lam: Expected: finite and > 0"):
        neurons(lam)
    params, X, Y = data(jnp.float64)
    with pytest.raises(ValueError, match="lam: Expected: finite and > 0"):
        check(neurons(jnp.asarray(lam)), params, X, Y)


@pytest.mark.parametrize(
    ("phi", "theta", "p", "q", "reason"),
    [
        (homogeneous.deep_subnetwork(layers=3), homogeneous.sum_of_powers(2), 3, 2, "certify"),
        (homogeneous.relu_neuron(), homogeneous.sum_of_powers(3), 2, 3, "many small copies"),
        (homogeneous.deep_subnetwork(layers=4), homogeneous.sum_of_powers(2), 4, 2, "dominates near zero"),
    ],
)
def test_mismatched_degrees_are_named(phi, theta, p, q, reason):
    """Both degrees, and why they matter."""
    problem = homogeneous.Problem(phi, theta, losses.squared, 0.1)
    params = phi.init(jax.random.key(0), r=2, dx=3, dy=2)
    message = f"phi has degree {p}, theta has degree {q}.*{reason}"
    with pytest.raises(ValueError, match=message):
        check_degrees(problem, params, jnp.ones((4, 3)))
    X, Y = np.ones((4, 3)), np.ones((4, 2))
    with pytest.raises(ValueError, match=message):
        homogeneous.certify(problem, params, X, Y)
    with pytest.raises(ValueError, match=message):
        homogeneous.lam_max(problem, X, Y, params=params)
    with pytest.raises(ValueError, match=message):
        homogeneous.minimize(problem, params, X, Y, key=jax.random.key(0))


def squared_sum(w):
    """Degree 2."""
    return jnp.sum(w[0] ** 2) + jnp.sum(w[1] ** 2)


def test_a_users_penalty_is_measured():
    """A stated degree that is not the measured one is refused, naming both."""
    params, X, _ = data(jnp.float64)
    good = neurons(theta=homogeneous.regularizer(squared_sum, degree=2))
    check_degrees(good, params, X)
    bad = neurons(theta=homogeneous.regularizer(squared_sum, degree=3))
    with pytest.raises(ValueError, match=r"theta .* Expected: theta\(a w\) = a\^3 .* Received: degree 2 "):
        check_degrees(bad, params, X)


def test_measured_degree_of_powers_and_of_nothing(dtype):
    """t^2.5 has degree 2.5; 1 + t has none; the zero function has any, reported as NaN."""
    w = jnp.asarray([0.5, 2.0], dtype)
    degree, departure = measured_degree(lambda w: jnp.abs(w) ** 2.5, w)
    assert degree == pytest.approx(2.5, abs=1e-5)
    assert departure < 1e-4
    _, departure = measured_degree(lambda w: 1 + w, w)
    assert departure > 0.05
    assert all(np.isnan(measured_degree(jnp.zeros_like, w)))


def bad_inputs():
    """(what is wrong, the message, the change to a good call)."""
    nan = np.asarray([[np.nan, 0.0, 1.0]] * 6)
    hole = np.where(np.arange(12).reshape(6, 2) == 5, np.inf, 1.0)
    ce = {"problem": neurons(loss=losses.softmax_cross_entropy)}
    return [
        ("1-D Y", r"X, Y: .*\(6, 3\) and \(6,\).*one-hot", {"Y": np.ones(6)}),
        ("1-D X", "X, Y: Expected", {"X": np.ones(6)}),
        ("lengths", "X, Y: Expected", {"X": np.ones((5, 3))}),
        ("empty", "X, Y: Expected", {"X": np.ones((0, 3)), "Y": np.ones((0, 2))}),
        ("no inputs", "X, Y: Expected", {"X": np.ones((6, 0))}),
        ("NaN", r"X: Expected: finite numbers. Received: 6 NaN or inf, the first at \(0, 0\)", {"X": nan}),
        ("inf", r"Y: Expected: finite numbers. Received: 1 NaN or inf, the first at \(2, 1\)", {"Y": hole}),
        ("NaN weights", r"params\[1\]: Expected: finite", {"params": (np.ones((4, 3)), np.full((4, 2), np.nan))}),
        ("r = 0", "params: Expected: r >= 1", {"params": (np.ones((0, 3)), np.ones((0, 2)))}),
        ("two widths", "params: Expected: .*leading axis", {"params": (np.ones((4, 3)), np.ones((3, 2)))}),
        ("one axis", "params: Expected: .*leading axis", {"params": (np.ones(3), np.ones(2))}),
        ("no weights", "params: Expected", {"params": ()}),
        ("dx", r"params: Expected: shapes \[\(r, 3\), \(r, 2\)\]", {"params": (np.ones((4, 2)), np.ones((4, 2)))}),
        ("layers", "params: Expected: shapes", {"params": (np.ones((4, 3)),) * 3}),
        ("labels", "one-hot", {**ce, "Y": np.arange(6)}),
        (
            "label column",
            "rows of the probability simplex",
            {**ce, "params": (np.ones((4, 3)), np.ones((4, 1))), "Y": np.arange(6)[:, None]},
        ),
        ("0/1 signs", "every entry -1 or 1", {"problem": neurons(loss=losses.logistic), "Y": np.eye(6)[:, :2]}),
    ]


@pytest.mark.parametrize(("name", "message", "change"), bad_inputs(), ids=lambda v: v if isinstance(v, str) else "")
def test_bad_input_is_refused_before_any_work(name, message, change):
    """Each error names the argument, what was expected and what came."""
    params, X, Y = data(jnp.float64)
    call = {"problem": neurons(), "params": params, "X": X, "Y": Y} | change
    with pytest.raises(ValueError, match=message):
        check(**call)
    with pytest.raises(ValueError, match=message):
        homogeneous.certify(call["problem"], call["params"], call["X"], call["Y"])


@pytest.mark.parametrize("bad", [np.full((6, 3), "a"), np.full((6, 3), 1j)])
def test_arrays_must_be_real_numbers(bad):
    """Strings and complex numbers are a TypeError that names the array."""
    params, _, Y = data(jnp.float64)
    with pytest.raises(TypeError, match="X: Expected: real numbers"):
        check(neurons(), params, bad, Y)


def test_deep_shapes_must_chain():
    """Each kernel starts where the one before ends."""
    phi = homogeneous.deep_subnetwork(layers=3)
    problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.squared, 0.1)
    kernels = [np.ones((2, 3, 4)), np.ones((2, 5, 4)), np.ones((2, 4, 2))]
    with pytest.raises(ValueError, match="3 kernels .* from 3 to 2"):
        check(problem, kernels, np.ones((6, 3)), np.ones((6, 2)))


def test_integers_are_numbers_and_one_dtype_comes_out(dtype):
    """Integer data is fine; everything is handed back in one dtype."""
    params, _, Y = data(dtype)
    w, X, Y = check(neurons(), params, np.arange(18).reshape(6, 3), Y)
    assert {a.dtype for a in (*w, X, Y)} == {np.dtype(dtype)}
    np.testing.assert_array_equal(X, np.arange(18).reshape(6, 3))


def test_float64_that_would_be_lost_is_announced():
    """With x64 off, float64 input gives one warning that names the switch."""
    params, X, Y = data(jnp.float64)
    host = jax.tree.map(np.asarray, (params, X, Y))
    with jax.enable_x64(False), pytest.warns(UserWarning, match="jax.enable_x64"):
        _, X, _ = check(neurons(), *host)
    assert X.dtype == jnp.float32


def test_rounding_to_float32_completes_no_targets():
    """The targets of the squared loss are used as they are: nothing says that they moved, however large they are."""
    params, X, Y = data(jnp.float64)
    host = jax.tree.map(np.asarray, (params, X, 1e9 * Y))
    with jax.enable_x64(False), pytest.warns(UserWarning, match="jax.enable_x64"):
        found = homogeneous.certify(neurons(), *host, effort="quick")
    assert float(found.targets_moved) == 0
    assert "completed" not in found.reason


def test_zero_subnetworks_change_nothing(dtype):
    """Appending zeros leaves prediction and objective as they are."""
    params, X, Y = data(dtype)
    more = jax.tree.map(lambda w: jnp.concatenate([w, jnp.zeros_like(w)]), params)
    before = predict(neurons(), params, X)
    # Sums of more terms may be taken in another order: rounding of the largest, where entries cancel.
    rounding = 8 * float(jnp.finfo(dtype).eps * jnp.max(jnp.abs(before)))
    np.testing.assert_allclose(predict(neurons(), more, X), before, rtol=1e-6, atol=rounding)
    np.testing.assert_allclose(objective(neurons(), more, X, Y), objective(neurons(), params, X, Y), rtol=1e-6)


def negative(weights):
    """A penalty of degree 2 that rewards."""
    return -jnp.sum(weights[0] ** 2)


def test_a_negative_penalty_is_refused():
    """Every bound rests on theta >= 0: with less there is no minimum to bound."""
    problem = neurons(theta=homogeneous.regularizer(negative, degree=2))
    start = problem.phi.init(jax.random.key(0), r=2, dx=3, dy=2)
    with pytest.raises(ValueError, match="theta: Expected: values >= 0 .* Received: -"):
        _ = homogeneous.certify(problem, start, np.ones((4, 3)), np.ones((4, 2)))


WRONG_KINDS = """
import sys
import numpy as np
from globopt_jax import homogeneous as h, losses
neuron, powers = h.relu_neuron(), h.sum_of_powers()
good, X, Y = h.Problem(neuron, powers, losses.squared, 0.1), np.ones((4, 3), "f4"), np.ones((4, 2), "f4")
w, key = (np.ones((2, 3), "f4"), np.ones((2, 2), "f4")), np.zeros(2, "u4")
calls = {
    "phi: Expected: a name, or such as": lambda: h.Problem(np.sum, powers, losses.squared, 1.0),
    "the function relu_neuron; call it: relu_neuron()": lambda: h.Problem(h.relu_neuron, powers, losses.squared, 1.0),
    "theta: Expected: a name, or such as": lambda: h.Problem(neuron, np.sum, losses.squared, 1.0),
    "loss: Expected: a name, or such as": lambda: h.Problem(neuron, powers, np.sum, 1.0),
    "loss: Expected: a name": lambda: losses.by_name(None),
    "optimizer: Expected": lambda: h.minimize(good, w, X, Y, key=key, optimizer="adam"),
    "params: Expected: a tuple or list": lambda: h.certify(good, {"a": w[0], "b": w[1]}, X, Y),
}
for message, call in calls.items():
    try:
        call()
    except TypeError as error:
        assert message in str(error), error
    else:
        sys.exit(message)
"""


def test_arguments_of_another_kind_are_named():
    """A plain function, a name, a dictionary: what to give instead. Users have no annotations checked, as tests do."""
    done = subprocess.run([sys.executable, "-c", WRONG_KINDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("rleu", "sum_of_powers", "squared"), "phi: Expected: one of relu, .* Received: 'rleu'. Did you mean 'relu'"),
        (("relu:x", "sum_of_powers", "squared"), "phi: Expected: NAME or NAME:LAYERS"),
        (("relu", "powers", "squared"), "theta: Expected: one of sum_of_powers, product_of_norms, or a penalty"),
        (("relu", "sum_of_powers", "mse"), "loss: Expected: one of squared, .* Received: 'mse'"),
    ],
)
def test_names_that_nothing_has(names: Any, message):
    """Maps, penalties and losses may be given by name; another name is refused with those that there are."""
    with pytest.raises(ValueError, match=message):
        homogeneous.Problem(*names, lam=1.0)
    known = homogeneous.Problem("relu:3", "product_of_norms", "huber:2", 1.0)
    phi, theta = homogeneous.deep_subnetwork("relu", layers=3), homogeneous.product_of_norms()
    assert known == homogeneous.Problem(phi, theta, losses.huber(2.0), 1.0)


@pytest.mark.parametrize("lam", ["0.1", 1j, 10**400, float("nan"), -1])
def test_a_strength_that_is_none(lam):
    """Whatever it is, the error names lam."""
    with pytest.raises(ValueError, match="lam: Expected: finite and > 0"):
        homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, lam)
