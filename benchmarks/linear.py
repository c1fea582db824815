"""What do the answers about deep linear networks cost?

`gradients` against `jax.grad` of the same loss, both jitted, interleaved, in one run; and `classify` and
`suboptimality_bound`, which nobody else offers, in seconds. Medians after compilation, which stands apart.

    python -m benchmarks.linear [quick]        (from the root of the project)

prints the tables, and writes them to benchmarks/linear.md.
"""

import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import deep_linear

#: (samples, widths): the large one, small ones, and lopsided ones.
SHAPES = (
    (10_000, (512, 256, 256, 256, 128)),
    (50, (200, 64, 64, 10)),
    (200, (200, 64, 64, 10)),
    (100, (1000, 10, 1000)),
    (5000, (512, 8, 512)),
)


def instance(m: int, widths: tuple[int, ...], dtype: Any) -> tuple[list[Any], Any, Any]:
    """Weights as they are initialized, and data with a linear teacher."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(m, widths[0]))
    Y = X @ rng.normal(size=(widths[0], widths[-1])) / widths[0] ** 0.5 + rng.normal(size=(m, widths[-1]))
    W = [rng.normal(size=s) / s[0] ** 0.5 for s in pairwise(widths)]
    return [jnp.asarray(w, dtype) for w in W], jnp.asarray(X, dtype), jnp.asarray(Y, dtype)


def layer_by_layer(weights: list[Any], X: Any, Y: Any) -> Any:
    """The loss as everybody writes it, for `jax.grad`."""
    Z = X
    for w in weights:
        Z = jnp.matmul(Z, w, precision="highest")
    return 0.5 * jnp.sum((Z - Y) ** 2)


def seconds(functions: Sequence[Callable[[], Any]], repeats: int) -> np.ndarray:
    """Medians over interleaved calls; the first ones, which compile, are not counted."""
    for function in functions:
        _ = jax.block_until_ready(function())
    times = np.zeros((repeats, len(functions)))
    for i in range(repeats):
        for j, function in enumerate(functions):
            began = time.perf_counter()
            _ = jax.block_until_ready(function())
            times[i, j] = time.perf_counter() - began
    return np.median(times, axis=0)


def first(function: Callable[[], Any]) -> float:
    """Seconds of the first call."""
    began = time.perf_counter()
    _ = jax.block_until_ready(function())
    return time.perf_counter() - began


def gradients_table(shapes: Sequence[Any], dtype: Any) -> list[str]:
    """Ours against autodiff's, and how far apart the two answers are."""
    ours, theirs = jax.jit(deep_linear.gradients), jax.jit(jax.grad(layer_by_layer))
    lines = [
        "| m | widths | dtype | ours (ms) | jax.grad (ms) | ours / jax.grad | difference |",
        "| ---: | :--- | :--- | ---: | ---: | ---: | ---: |",
    ]
    for m, widths in shapes:
        W, X, Y = instance(m, widths, dtype)
        a, b = seconds([partial(ours, W, X, Y), partial(theirs, W, X, Y)], 9 if m > 1000 else 200)
        pairs = zip(ours(W, X, Y), theirs(W, X, Y), strict=True)
        apart = max(float(jnp.max(jnp.abs(u - v)) / jnp.max(jnp.abs(v))) for u, v in pairs)
        shape = f"{m} | {'-'.join(map(str, widths))} | {jnp.dtype(dtype).name}"
        lines.append(f"| {shape} | {1e3 * a:.3g} | {1e3 * b:.3g} | {a / b:.2f} | {apart:.1g} |")
    return lines


def answers_table(m: int, widths: tuple[int, ...], dtype: Any) -> list[str]:
    """`classify` at random weights and at a saddle, `suboptimality_bound` and `escape`."""
    W, X, Y = instance(m, widths, dtype)
    saddle = deep_linear.critical_point(X, Y, widths, range(0, min(widths), 2), jax.random.key(0))
    bound = jax.jit(deep_linear.suboptimality_bound)
    jobs = {
        "suboptimality_bound": lambda: bound(W, X, Y),
        "classify, random weights": lambda: deep_linear.classify(W, X, Y),
        "classify, a saddle": lambda: deep_linear.classify(saddle, X, Y),
        "escape from it": lambda: deep_linear.escape(saddle, X, Y, 0.1, jax.random.key(0)).decrease,
    }
    lines = [f"| {'-'.join(map(str, widths))}, m = {m}, {jnp.dtype(dtype).name} | seconds | first call |"]
    lines.append("| :--- | ---: | ---: |")
    for name, job in jobs.items():
        start = first(job)
        lines.append(f"| {name} | {seconds([job], 5)[0]:.3g} | {start:.3g} |")
    return lines


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the tables beside this file."""
    quick = "quick" in arguments
    shapes = [(200, (20, 8, 8, 5)), (30, (40, 3, 40))] if quick else SHAPES
    parts = []
    for dtype in (jnp.float64, jnp.float32):
        with jax.enable_x64(dtype == jnp.float64):
            parts += [
                "\n".join(gradients_table(shapes, dtype)),
                "\n".join(answers_table(shapes[0][0], shapes[0][1], dtype)),
            ]
    machine = f"Python {platform.python_version()}, jax {jax.__version__}, {jax.devices()[0].device_kind}"
    text = "\n\n".join([*parts, f"{machine}; `python -m benchmarks.linear`; medians after compilation.\n"])
    print(text)
    if not quick:
        _ = Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
