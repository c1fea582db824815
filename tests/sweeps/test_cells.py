"""Networks of a sweep, cell by cell, against networks of their own shape that are written out here."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from globopt_jax import losses, networks, sweeps
from globopt_jax.local_minima import tangent_projection
from globopt_jax.sweeps.cells import Worker
from globopt_jax.sweeps.padding import Shape, arrays_for, draw, forward, pad, unpad
from globopt_jax.sweeps.plan import TOGETHER, Cell, Portion, _as_many_as_fit, planned
from globopt_jax.sweeps.training import orders

SEEDS = (0, 3)
M, DX, DY = 45, 5, 3


@functools.cache
def samples(dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.normal(size=(M, DX)).astype(dtype), rng.normal(size=(M, DY)).astype(dtype)


def output(kernels, X):
    """The sum of subnetworks, each written out."""
    stacks = kernels if kernels[0].ndim == 3 else [w[None] for w in kernels]
    total = 0.0
    for i in range(len(stacks[0])):
        h = X
        for w in stacks[:-1]:
            h = jax.nn.relu(h @ w[i])
        total = total + h @ stacks[-1][i]
    return total


def trained_alone(cell, seed, X, Y, *, optimizer, loss, power, epochs=3, batch=16):
    """Train one network in arrays of its own shape, step by step."""
    weights = [jnp.asarray(w) for w in draw(cell.shape, DX, DY, seed, "fan_in", X.dtype)]
    method = optimizer(cell.rate)
    state = method.init(weights)

    @functools.partial(jax.jit, static_argnums=2)
    @jax.numpy_dtype_promotion("standard")  # optax's optimizers mix dtypes
    def step(weights, state, count, chosen):
        def objective(w):
            mean = loss(output(w, X[chosen]), Y[chosen]) / count
            return mean + cell.lam * sum(jnp.sum(jnp.abs(a) ** power) for a in w) if power else mean

        updates, state = method.update(jax.grad(objective)(weights), state, weights)
        return optax.apply_updates(weights, updates), state

    X, Y = jnp.asarray(X), jnp.asarray(Y)
    for number in range(epochs):
        order = orders((seed,), number, M, batch)[0].ravel()[:M]
        for begin in range(0, M, batch):
            chosen = order[begin : begin + batch]
            weights, state = step(weights, state, min(batch, M), jnp.asarray(chosen))
    return [np.asarray(w) for w in weights]


def clipped(rate):
    """An optimizer that looks at the columns of a matrix."""
    return optax.chain(optax.adaptive_grad_clip(0.01), optax.sgd(rate))


def plan_of(X, Y, **changes):
    axes = {
        "depth": [1, 2, 4],
        "width": [2, 3, 5],
        "subnetworks": 1,
        "penalty": "none",
        "lam": 0.0,
        "rate": 0.05,
        "seed": SEEDS,
    }
    options = {
        "epochs": 3,
        "batch": 16,
        "optimizer": functools.partial(optax.sgd, momentum=0.5),
        "loss": "squared",
        "activation": "relu",
        "initial": "fan_in",
        "tangent": False,
        "snapshots": (),
    }
    return planned(
        X,
        Y,
        None,
        {n: changes.get(n, v) for n, v in axes.items()},
        {n: changes.get(n, v) for n, v in options.items()},
    )


@pytest.mark.parametrize(
    ("loss", "optimizer", "changes"),
    [
        ("squared", functools.partial(optax.sgd, momentum=0.5), {}),
        (
            "softmax_cross_entropy",
            optax.adam,
            {"penalty": ["l1", "l2", "l3"], "lam": 0.01, "width": [2, 5], "depth": [1, 3]},
        ),
        ("squared", functools.partial(optax.sgd, momentum=0.9), {"subnetworks": [2], "depth": [1, 3], "width": [2, 5]}),
        ("squared", clipped, {"depth": [1, 3], "width": [2, 5]}),
    ],
    ids=["shapes", "penalties", "subnetworks", "columns"],
)
def test_a_padded_network_trains_like_one_of_its_own_shape(loss, optimizer, changes):
    X, Y = samples()
    if loss != "squared":
        Y = np.eye(DY)[np.argmax(Y, axis=1)]
    plan = plan_of(X, Y, loss=loss, optimizer=optimizer, **changes)
    worker = Worker(plan)
    seen = set()
    portions = plan.portions(alone=True)
    for portion in portions[:: max(len(portions) // 9, 1)]:
        (cell,) = portion.cells
        power = {"none": 0, "l1": 1, "l2": 2, "l3": 3}[cell.penalty]
        padded = worker.trained(worker.initial(portion), portion)
        found = worker.kernels(padded, portion)
        for kernels, seed in zip(found, portion.seeds, strict=True):
            options: dict[str, Any] = {
                "epochs": 3,
                "batch": 16,
                "optimizer": optimizer,
                "loss": losses.by_name(loss),
                "power": power,
            }
            alone = trained_alone(cell, seed, X, Y, **options)
            for a, b in zip(kernels, alone, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
        # What pads the arrays is exactly zero, after training too.
        arrays = worker.arrays[cell.shape]
        for i, kernels in enumerate(found):
            for a, b in zip(pad(kernels, arrays), padded, strict=True):
                np.testing.assert_array_equal(a, np.asarray(b[i]))
        seen.add(arrays)
    assert len(seen) == 1
    assert len({portion.cells for portion in portions}) == len(plan.cells)


@pytest.mark.parametrize(
    "changes",
    [
        {"penalty": ["none", "l1", "l3"], "lam": [0.0, 0.01], "rate": [0.01, 0.05], "width": [2, 5], "depth": [1, 3]},
        {"subnetworks": [2], "depth": [1, 3], "width": [2, 5]},
    ],
    ids=["penalties", "subnetworks"],
)
def test_cells_in_one_call_are_the_cells_one_by_one(changes):
    """As on accelerators, where all networks with arrays of one shape are trained in one call."""
    X, Y = samples()
    plan = plan_of(X, Y, **changes)
    worker = Worker(plan)
    together = Portion(tuple(plan.cells), plan.axes["seed"])
    expected = [row for portion in plan.portions(alone=True) for row in worker.rows(portion)]
    found = worker.rows(together)
    assert len(found) == len(expected) == len(plan.cells) * len(plan.axes["seed"])
    for a, b in zip(found, expected, strict=True):
        for name in b.keys() - {"seconds"}:
            assert a[name] == (pytest.approx(b[name], rel=1e-11) if isinstance(b[name], float) else b[name]), name


def test_outputs_gradients_and_j_of_a_padded_network():
    X, Y = samples()
    network = networks.feed_forward("relu")
    shapes = [Shape(d, w) for d in (1, 3) for w in (2, 5)]
    arrays = arrays_for(shapes, DX, DY)
    assert len(set(arrays.values())) == 1
    inputs, ones = jnp.asarray(X), jnp.asarray(Y)

    @jax.jit
    def values(weights, depth):
        predicted, pull = jax.vjp(lambda w: forward(network, w, depth, inputs), weights)
        return predicted, forward(network, weights, depth, inputs, skip=False), pull(ones)[0]

    for shape in shapes:
        kernels = draw(shape, DX, DY, 1, "he", "float64")
        weights = [jnp.asarray(w) for w in pad(kernels, arrays[shape])]
        predicted, without_skips, gradients = values(weights, jnp.asarray(shape.depth))
        wanted, pull = jax.vjp(lambda w: output(w, inputs), [jnp.asarray(w) for w in kernels])
        np.testing.assert_allclose(predicted, wanted, atol=1e-12)
        np.testing.assert_allclose(without_skips, wanted, atol=1e-12)
        inside = unpad(gradients, arrays[shape], shape)
        for a, b in zip(inside, pull(ones)[0], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
        for a, b in zip(pad(inside, arrays[shape]), gradients, strict=True):
            np.testing.assert_array_equal(a, np.asarray(b))


@pytest.mark.parametrize("subnetworks", [1, 2])
def test_j_of_a_sweep_is_that_of_the_network(subnetworks):
    X, Y = samples()
    found = sweeps.sweep(X, Y, depths=[1, 2], widths=[2, 3], seeds=[4], epochs=1, subnetworks=subnetworks)
    for depth, width in ((1, 2), (2, 3)):
        made = sweeps.train(X, Y, depth=depth, width=width, seeds=[4], epochs=1, subnetworks=subnetworks)
        for stage, stacked in made._asdict().items():
            kernels = [jnp.asarray(w[0]) for w in stacked]
            alone = tangent_projection(output if subnetworks > 1 else networks.feed_forward(), kernels, X, Y)
            cell = found.sel(depth=depth, width=width, seed=4, stage=stage)
            assert float(cell.J) == pytest.approx(float(alone.value), abs=1e-9)
            assert int(cell["rank"]) == int(alone.rank)
            assert float(cell.loss) == pytest.approx(float(alone.loss), rel=1e-9)


def test_j_is_computed_in_float64():
    """Float32 does not resolve a tangent space; the initial weights are those of float32."""
    X, Y = samples("float32")
    found = sweeps.landscape(X, Y, depths=[2], widths=[2], seeds=1, epochs=0)
    kernels = [jnp.asarray(w, jnp.float64) for w in draw(Shape(2, 2), DX, DY, 0, "fan_out", "float32")]
    alone = tangent_projection(networks.feed_forward(), kernels, X.astype(float), Y.astype(float))
    np.testing.assert_allclose(found.J.values.ravel(), float(alone.value), atol=1e-9)
    assert found["rank"].values.ravel().tolist() == [int(alone.rank)] * 2


def test_a_cell_depends_on_no_other_cell():
    """Not on the other widths, depths, seeds, penalties, nor on the number of seeds in a call."""
    X, Y = samples()
    options: dict[str, Any] = {"epochs": 2, "batch": 10, "tangent": False, "rates": 0.05}
    many = sweeps.sweep(X, Y, depths=[1, 2, 3], widths=[2, 4, 7], seeds=[0, 1, 2], **options)
    one = sweeps.sweep(X, Y, depths=2, widths=4, seeds=[1], **options)
    place = {"depth": 2, "width": 4, "seed": 1}
    assert one.loss.dims == ("seed", "stage")
    np.testing.assert_allclose(many.loss.sel(place), one.loss.sel(seed=1), rtol=1e-13)
    again = sweeps.sweep(X, Y, depths=[1, 2, 3], widths=[2, 4, 7], seeds=[0, 1, 2], **options)
    np.testing.assert_array_equal(many.loss, again.loss)


def test_seeds_and_shapes_draw_different_weights():
    a, b = (draw(Shape(2, 4), 3, 2, seed, "fan_out", "float64") for seed in (0, 1))
    assert np.max(np.abs(a[0] - b[0])) > 0.1
    drawn = draw(Shape(2, 400), 300, 200, 0, "fan_out", "float64")
    for w, (d_in, d_out) in zip(drawn, [(300, 400), (400, 400), (400, 200)], strict=True):
        assert w.shape == (d_in, d_out)
        assert np.std(w) == pytest.approx(d_out**-0.5, rel=0.02)
    assert abs(np.corrcoef(drawn[0][:, :200].ravel(), drawn[1][:300, :200].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(("name", "wanted"), [("fan_in", 1 / 300), ("he", 2 / 300), ("glorot", 2 / 700)])
def test_names_of_initial_scales(name, wanted):
    (first, _) = draw(Shape(1, 400), 300, 10, 0, name, "float64")
    assert np.var(first) == pytest.approx(wanted, rel=0.02)


def test_every_sample_is_taken_once_an_epoch():
    found = orders((0, 1), 5, M, 16)
    assert found.shape == (2, 3, 16)
    for row in found:
        assert sorted(row.ravel()[:M]) == list(range(M))
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], orders((0,), 6, M, 16)[0])


def test_numbers_of_a_cell():
    """Loss, accuracy and the same on test samples, in both dtypes."""
    for dtype in ("float32", "float64"):
        X, Y = samples(dtype)
        Y = np.eye(DY, dtype=dtype)[np.argmax(Y, axis=1)]
        held = X[:20], Y[:20]
        options: dict[str, Any] = {"epochs": 2, "batch": 9, "rates": 0.05}
        found = sweeps.sweep(X, Y, depths=1, widths=6, seeds=2, test=held, tangent=False, **options)
        made = sweeps.train(X, Y, depth=1, width=6, seeds=2, epochs=2, batch=9, rate=0.05)
        for stage, stacked in made._asdict().items():
            for seed in (0, 1):
                predicted = np.asarray(output([jnp.asarray(w[seed]) for w in stacked], X))
                cell = found.sel(seed=seed, stage=stage)
                assert float(cell.loss) == pytest.approx(0.5 * np.sum((predicted - Y) ** 2), rel=1e-5)
                hits = predicted.argmax(1) == Y.argmax(1)
                assert float(cell.accuracy) == pytest.approx(np.mean(hits))
                assert float(cell.test_accuracy) == pytest.approx(np.mean(hits[:20]))
        assert made.trained[0].dtype == dtype
        assert "J" not in found


def test_snapshots():
    """A network after three of five epochs is the network that was trained for three."""
    X, Y = samples()
    options: dict[str, Any] = {"depths": [1, 2], "widths": 3, "seeds": 2, "batch": 9, "rates": 0.05, "tangent": False}
    found = sweeps.sweep(X, Y, **options, epochs=5, snapshots=[3, 1])
    assert found.stage.values.tolist() == ["initial", "epoch 1", "epoch 3", "trained"]
    shorter = sweeps.sweep(X, Y, **options, epochs=3)
    np.testing.assert_allclose(found.loss.sel(stage="epoch 3"), shorter.loss.sel(stage="trained"), rtol=1e-13)
    assert np.all(found.loss.diff("stage") != 0)


def test_training_that_diverges_is_shown():
    X, Y = samples()
    found = sweeps.sweep(X, Y, depths=2, widths=3, seeds=1, epochs=8, rates=50.0, activation="linear")
    cell = found.sel(seed=0)
    assert np.isnan(cell.J.sel(stage="trained"))
    assert int(cell["rank"].sel(stage="trained")) == -1
    assert np.isfinite(cell.J.sel(stage="initial"))


def test_a_network_whose_output_overflows_has_no_j():
    """Its weights are finite, and the sweep goes on."""
    X, Y = samples()
    (plan, worker) = (plan := plan_of(X, Y, activation=cubic, width=2, depth=2)), Worker(plan)
    kernels = [1e60 * w for w in worker.kernels(worker.initial(plan.portions()[0]), plan.portions()[0])[0]]
    assert worker.tangent(kernels, plan.cells[0].shape) == {"J": None, "rank": None, "sure": None}


def cubic(z):
    return z**3


def test_a_batch_of_more_than_all_samples_is_all_of_them():
    X, Y = samples()
    options: dict[str, Any] = {"depths": 1, "widths": 3, "epochs": 2, "tangent": False}
    found = [sweeps.sweep(X, Y, **options, batch=batch).loss for batch in (M, 10**12)]
    np.testing.assert_array_equal(*found)


def test_portions_and_programs():
    """Seeds of small networks go together, those of large ones one by one; all shapes share a few arrays."""
    X, Y = samples()
    plan = plan_of(X, Y, width=[2, 400], depth=[2], seed=[0, 1, 2])
    assert [p.seeds for p in plan.portions(alone=True)] == [(0, 1, 2), (0,), (1,), (2,)]
    done = [(*Cell(2, 2, 1, "none", 0.0, 0.05), 1)]
    assert plan.portions(done, alone=True)[0].seeds == (0, 2)
    assert [p.cells for p in _as_many_as_fit(plan.cells, (0, 1), TOGETHER // 4)] == [tuple(plan.cells)]
    assert [p.cells for p in _as_many_as_fit(plan.cells, (0, 1), TOGETHER // 3)] == [(cell,) for cell in plan.cells]
    assert [p.seeds for p in _as_many_as_fit(plan.cells[:1], (0, 1, 2), TOGETHER // 2)] == [(0, 1), (2,)]
    assert [p.seeds for p in _as_many_as_fit(plan.cells[:1], (0, 1), 2 * TOGETHER)] == [(0,), (1,)]
    shapes = [Shape(d, w) for d in range(1, 7) for w in (2, 4, 8, 16, 32)]
    assert {(a.depth, a.width) for a in arrays_for(shapes, 64, 10).values()} == {(6, 8), (6, 16), (6, 32)}
    assert arrays_for([Shape(0, 5), Shape(1, 5)], 4, 2)[Shape(0, 5)].depth == 0


def test_a_short_last_step_is_shorter_in_proportion():
    """One epoch of 8 samples and one more equals one of 8, and then an eighth of the gradient of the last sample."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    options: dict[str, Any] = {"depth": 1, "width": 4, "seeds": 1, "rate": 0.1, "batch": 8, "optimizer": optax.sgd}
    made = sweeps.train(X, Y, **options, epochs=1)
    start, end = ([w[0] for w in weights] for weights in (made.initial, made.trained))
    order = orders((0,), 0, 9, 8)[0].ravel()[:9]

    def stepped(weights, chosen):
        gradient = jax.grad(lambda w: jnp.sum((output(w, X[chosen]) - Y[chosen]) ** 2) / 2)(weights)
        return [w - 0.1 / 8 * g for w, g in zip(weights, gradient, strict=True)]

    wanted = stepped(stepped(start, order[:8]), order[8:])
    for found, right in zip(end, wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-12)
