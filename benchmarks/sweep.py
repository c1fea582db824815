"""What does a sweep over shapes cost beside a loop that compiles each shape?

Digits, depths 1-6 x widths 2, 4, 8, 16, 32 x 4 seeds, stochastic gradient descent with momentum on batches of 64. The
peer is the loop that one writes in JAX: `jit` and `vmap` over the seeds for each shape, arrays of the shape's own size,
orders of samples as an argument, since `jax.random.permutation` inside each program would cost the peer another 0.4 to
0.7 s of compilation for each shape. Both start from the same weights and take the same samples in the same order, and
their losses after training are compared. Each run is a process of its own, compilation included; runs take turns.

The second table compares two ways to train the same networks: one call for each cell, and one for all cells whose
arrays have the same shape.

    python -m benchmarks.sweep [repeats]            (from the root of the project)

prints tables, and writes them to benchmarks/sweep.md.
"""

import functools
import json
import logging
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.plumbing import alone, machine, markdown, medians, publish, timed
from globopt_jax import datasets, local_minima, networks
from globopt_jax.sweeps import engines, training
from globopt_jax.sweeps.cells import Worker
from globopt_jax.sweeps.padding import draw
from globopt_jax.sweeps.plan import Plan, Portion, planned

DEPTHS, WIDTHS, SEEDS, BATCH, RATE, MOMENTUM = (1, 2, 3, 4, 5, 6), (2, 4, 8, 16, 32), 4, 64, 0.01, 0.5
#: dtype, epochs, and whether J is computed before and after training.
CASES = (("float32", 10, 0), ("float32", 40, 0), ("float64", 10, 0), ("float64", 40, 0), ("float64", 10, 1))
COLUMNS = (
    "dtype",
    "epochs",
    "J",
    "sweep",
    "loop",
    "loop / sweep",
    "programs of the sweep",
    "of the loop",
    "difference",
)


def plan_of(dtype: str, epochs: int, tangent: bool) -> Plan:
    """The sweep of a case."""
    X, Y, _ = datasets.load("digits")
    axes = {"depth": DEPTHS, "width": WIDTHS, "seed": range(SEEDS), "rate": RATE}
    rest = {"subnetworks": 1, "penalty": "none", "lam": 0.0}
    options = {
        "optimizer": functools.partial(optax.sgd, momentum=MOMENTUM),
        "loss": "squared",
        "activation": "relu",
        "initial": "fan_out",
        "epochs": epochs,
        "batch": BATCH,
        "tangent": tangent,
        "snapshots": (),
    }
    return planned(X.astype(dtype), Y.astype(dtype), None, axes | rest, options)


def swept(plan: Plan, by_cells: bool | None = None) -> list[float]:
    """The losses after training, or with J both values of J, of all networks by the library."""

    def values(worker: Worker, portion: Portion) -> list[list[float]]:
        if plan.recipe.tangent:
            return [[row[name] for name in ("J_initial", "J_trained")] for row in worker.rows(portion)]
        kernels = worker.kernels(worker.trained(worker.initial(portion), portion), portion)
        return [[loss_of(w, plan)] for w in kernels]

    found = {}
    for portion, values_of_portion in engines.here(plan, plan.portions(alone=by_cells), values):
        found.update(zip(portion.members, values_of_portion, strict=True))
    return [value for place in Portion(tuple(plan.cells), plan.axes["seed"]).members for value in found[place]]


def looped(plan: Plan) -> list[float]:
    """The same by a loop over the shapes, each with programs of its own."""
    X, Y = jnp.asarray(plan.data.X), jnp.asarray(plan.data.Y)
    m, dtype, epochs = len(X), X.dtype, plan.recipe.epochs
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    shares = jnp.asarray(training.shares(m, BATCH, dtype))

    def output(weights: Any, inputs: Any) -> Any:
        for w in weights[:-1]:
            inputs = jax.nn.relu(inputs @ w)
        return inputs @ weights[-1]

    def objective(weights: Any, inputs: Any, targets: Any, share: Any) -> Any:
        return 0.5 * jnp.sum(share[:, None] * jnp.square(output(weights, inputs) - targets))

    def of_seed(weights: Any, state: Any, order: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            weights, state = carry
            chosen, share = batch
            gradients = jax.grad(objective)(weights, X[chosen], Y[chosen], share)
            updates, state = optimizer.update(gradients, state, weights)
            return (optax.apply_updates(weights, updates), state), None

        return jax.lax.scan(step, (weights, state), (order, shares))[0]

    epoch = jax.jit(jax.vmap(of_seed), donate_argnums=(0, 1))
    start = jax.jit(jax.vmap(optimizer.init))
    tangent = jax.jit(functools.partial(local_minima.tangent_value, networks.feed_forward("relu")))
    orders = [jnp.asarray(training.orders(tuple(range(SEEDS)), n, m, BATCH)) for n in range(epochs)]

    def J(weights: Any) -> list[float]:
        with jax.enable_x64(True):
            wide = [np.asarray(w, np.float64) for w in weights]
            data = X.astype(np.float64), Y.astype(np.float64)
            return [float(tangent([jnp.asarray(w[i]) for w in wide], *data).value) for i in range(SEEDS)]

    found: list[float] = []
    for cell in plan.cells:
        drawn = [draw(cell.shape, X.shape[1], Y.shape[1], seed, "fan_out", dtype) for seed in range(SEEDS)]
        weights = [jnp.asarray(np.stack(w)) for w in zip(*drawn, strict=True)]
        before = J(weights) if plan.recipe.tangent else []
        state = start(weights)
        for order in orders:
            weights, state = epoch(weights, state, order)
        after = jax.block_until_ready(weights)
        if plan.recipe.tangent:
            found += [value for pair in zip(before, J(after), strict=True) for value in pair]
        else:
            found += [loss_of([np.asarray(w[i]) for w in after], plan) for i in range(SEEDS)]
    return found


def loss_of(kernels: list[np.ndarray], plan: Plan) -> float:
    """The loss of a network, in NumPy."""
    h = plan.data.X
    for w in kernels[:-1]:
        h = np.maximum(h @ w, 0)
    return 0.5 * float(np.sum(np.square(h @ kernels[-1] - plan.data.Y)))


def once(peer: str, dtype: str, epochs: int, tangent: bool) -> dict[str, Any]:
    """Run one peer, and return its values, its seconds, and the number of its compilations."""
    compiled = _Compilations()
    with jax.enable_x64(dtype == "float64"):
        plan = plan_of(dtype, epochs, tangent)
        _ = jax.device_put(np.zeros(1)).block_until_ready()  # JAX itself has started
        began = time.perf_counter()
        values = {"sweep": swept, "loop": looped}[peer](plan)
        seconds = time.perf_counter() - began
    return {"values": values, "seconds": seconds, "programs": len(compiled.names)}


class _Compilations(logging.Handler):
    """Counts the programs that JAX compiles."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        jax.config.update("jax_log_compiles", True)
        logger = logging.getLogger("jax")
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Finished XLA compilation"):
            self.names.append(message)


def table(repeats: int, cases: Any = CASES) -> str:
    """The comparison as Markdown; seconds are medians over the repeats, with J those of one run."""
    rows = []
    for dtype, epochs, tangent in cases:
        runs: dict[str, list[Any]] = {"sweep": [], "loop": []}
        for _ in range(1 if tangent else repeats):  # J takes minutes, and its time varies less
            for peer, found in runs.items():
                found.append(alone("benchmarks.sweep", (peer, dtype, epochs, tangent), 1800))
        failed = next((run for found in runs.values() for run in found if isinstance(run, str)), None)
        if failed is not None:
            raise RuntimeError(failed)
        sweep, loop = (float(np.median([run["seconds"] for run in found])) for found in runs.values())
        a, b = (np.asarray(found[0]["values"]) for found in runs.values())
        difference = f"{float(np.max(np.abs(a - b) / np.max(np.abs(b)))):.1e}"
        programs = [found[0]["programs"] for found in runs.values()]
        said = "yes" if tangent else "no"
        rows.append([dtype, epochs, said, f"{sweep:.1f} s", f"{loop:.1f} s", loop / sweep, *programs, difference])
    return "\n".join(markdown(COLUMNS, rows, left=["dtype", "J"]))


def ways(repeats: int) -> str:
    """One call for each cell beside one call for several, as Markdown."""
    rows = []
    for epochs in (10, 40):
        plan = plan_of("float32", epochs, False)
        calls = [functools.partial(swept, plan, by_cells) for by_cells in (True, False)]
        (a, first_a), (b, first_b) = map(timed, calls)
        difference = f"{float(np.max(np.abs(np.subtract(a, b))) / np.max(np.abs(b))):.1e}"
        seconds = [f"{s:.1f} s" for s in (first_a, first_b, *medians(calls, repeats))]
        rows.append([jax.default_backend(), epochs, *seconds, difference])
    columns = (
        "backend",
        "epochs",
        "by cells, first",
        "together, first",
        "by cells, later",
        "together, later",
        "difference",
    )
    return "\n".join(markdown(columns, rows, left=["backend"]))


def main() -> None:
    """Write the tables, or run one peer alone."""
    if sys.argv[1:2] == ["alone"]:
        peer, dtype, epochs, tangent = sys.argv[2:6]
        print(json.dumps(once(peer, dtype, int(epochs), bool(int(tangent)))))
        return
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    text = (
        f"{table(repeats)}\n\nDigits, depths 1-6, widths 2, 4, 8, 16, 32, four seeds; compilation included. Medians of "
        f'{repeats} runs that took turns, and one run with J. "Difference" is the largest one of the losses after '
        "training, or of J, relative to the largest loss or J.\n\n"
        f"{ways(repeats)}\n\nOne call for each cell, or one for all cells with arrays of one shape, in float32; "
        'the first time with compilation, and later without. "Difference" is as above.\n\n'
        f"{machine()}; `python -m benchmarks.sweep {repeats}`.\n"
    )
    publish(__file__, text)


if __name__ == "__main__":
    main()
