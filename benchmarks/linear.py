"""What do the answers about deep linear networks cost?

`gradients` against `jax.grad` of the same loss, both jitted, interleaved, in one run; and `classify` and
`suboptimality_bound`, which nobody else offers, in seconds. Medians after compilation, which stands apart.

    python -m benchmarks.linear [quick]        (from the root of the project)

prints the tables, and writes them to benchmarks/linear.md.
"""

import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.plumbing import machine, markdown, medians, publish, timed
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


def gradients_table(shapes: Sequence[Any], dtype: Any) -> list[str]:
    """Ours against autodiff's, and how far apart the two answers are."""
    ours, theirs = jax.jit(deep_linear.gradients), jax.jit(jax.grad(layer_by_layer))
    rows = []
    for m, widths in shapes:
        W, X, Y = instance(m, widths, dtype)
        a, b = medians([partial(ours, W, X, Y), partial(theirs, W, X, Y)], 9 if m > 1000 else 200)
        pairs = zip(ours(W, X, Y), theirs(W, X, Y), strict=True)
        apart = max(float(jnp.max(jnp.abs(u - v)) / jnp.max(jnp.abs(v))) for u, v in pairs)
        shape = [m, "-".join(map(str, widths)), jnp.dtype(dtype).name]
        rows.append([*shape, 1e3 * float(a), 1e3 * float(b), f"{a / b:.2f}", f"{apart:.1g}"])
    columns = ("m", "widths", "dtype", "ours (ms)", "jax.grad (ms)", "ours / jax.grad", "difference")
    return markdown(columns, rows, left=("widths", "dtype"))


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
    rows = []
    for name, job in jobs.items():
        _, first = timed(job)
        rows.append([name, float(medians([job], 5)[0]), first])
    what = f"{'-'.join(map(str, widths))}, m = {m}, {jnp.dtype(dtype).name}"
    return markdown([what, "seconds", "first call"], rows, left=[what])


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
    text = "\n\n".join([*parts, f"{machine()}; `python -m benchmarks.linear`; medians after compilation.\n"])
    publish(__file__, text, write=not quick)


if __name__ == "__main__":
    main(sys.argv[1:])
