"""How often is a critical point called by its right name, by structure and by the eigenvalues of the Hessian?

Critical points of random deep linear networks, built so that their names are known: all subsets of kept directions,
plain and with changes of basis between the layers. `classify` against the dense `jax.hessian`, which calls a point a
saddle if its lowest eigenvalue is below -1e-8 of the largest, and a minimum otherwise.

    python -m benchmarks.saddles [instances]        (from the root of the project)

prints a table, and writes it to benchmarks/saddles.md.
"""

import itertools
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from benchmarks.plumbing import machine, markdown, publish
from globopt_jax import deep_linear

WIDTHS = ((4, 5, 3), (5, 2, 4), (4, 4, 4, 3), (4, 2, 5, 3), (3, 4, 4, 4, 3))
CONDITIONS = (None, 10.0, 1e3)
COLUMNS = (
    "the point is a",
    "basis between layers",
    "points",
    "named right by classify",
    "by jax.hessian's eigenvalues",
)


@partial(jax.jit, static_argnums=3)
def _lowest(flat: Any, X: Any, Y: Any, unravel: Any) -> Any:
    values = jnp.linalg.eigvalsh(jax.hessian(lambda v: deep_linear.loss(unravel(v), X, Y))(flat))
    return values[0] / jnp.max(jnp.abs(values))


def by_hessian(weights: list[Any], X: Any, Y: Any) -> str:
    """What a Hessian can say."""
    shapes = tuple(w.shape for w in weights)
    flat = jax.flatten_util.ravel_pytree(weights)[0]
    return "strict saddle" if float(_lowest(flat, X, Y, _unraveler(shapes))) < -1e-8 else "global minimum"


class _unraveler:
    """Flat weights to kernels; equal for equal shapes, so that nothing compiles twice."""

    def __init__(self, shapes: tuple[Any, ...]) -> None:
        self.shapes = shapes

    def __call__(self, v: Any) -> list[Any]:
        cuts = np.cumsum([a * b for a, b in self.shapes])[:-1]
        return [part.reshape(s) for part, s in zip(jnp.split(v, cuts), self.shapes, strict=True)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _unraveler) and other.shapes == self.shapes

    def __hash__(self) -> int:
        return hash(self.shapes)


def truth(s: np.ndarray, k: int, layers: int, indices: tuple[int, ...]) -> str:
    """The name that the papers give to the constructed point."""
    n = len(indices)
    if np.isclose(np.sum(s[list(indices)] ** 2), np.sum(s[:k] ** 2), rtol=1e-12):
        return "global minimum"
    if n == k or layers == 2 or indices != tuple(range(n)):
        return "strict saddle"
    return "degenerate saddle"


def table(instances: int) -> str:
    """The counts as Markdown."""
    right: Counter[tuple[str, str, str]] = Counter()
    rng = np.random.default_rng(0)
    for widths in WIDTHS:
        for number in range(instances):
            X, Y = rng.normal(size=(20, widths[0])), rng.normal(size=(20, widths[-1]))
            s = np.asarray(deep_linear.global_minimum(X, Y, min(widths)).singular_values)
            for size in range(min(widths) + 1):
                for indices in itertools.combinations(range(min(widths[0], widths[-1])), size):
                    for condition in CONDITIONS:
                        key = None if condition is None else jax.random.key(number)
                        W = deep_linear.critical_point(X, Y, widths, indices, key, condition=condition or 1.0)
                        name = truth(s, min(widths), len(widths) - 1, indices)
                        found = deep_linear.classify(W, X, Y)
                        strict = "strict saddle" if found.is_strict else "degenerate saddle"
                        ours = strict if found.kind == "saddle" else found.kind.replace("_", " ")
                        basis = "plain" if condition is None else f"condition {condition:g}"
                        right[name, basis, "points"] += 1
                        right[name, basis, "classify"] += ours == name
                        right[name, basis, "hessian"] += by_hessian(W, X, Y) == name
    rows = []
    for name, basis in sorted({(a, b) for a, b, _ in right}):
        points, *named = (right[name, basis, what] for what in ("points", "classify", "hessian"))
        rows.append([name, basis, points, *(f"{100 * count / points:.1f} %" for count in named)])
    return "\n".join(markdown(COLUMNS, rows, left=COLUMNS[:2]))


def main(arguments: Sequence[str]) -> None:
    """Count, print, and write the table beside this file."""
    instances = int(arguments[0]) if arguments else 5
    with jax.enable_x64(True):
        counted = table(instances)
    publish(
        __file__,
        f"{counted}\n\nfloat64, {instances} data sets for each of the widths "
        f"{', '.join('-'.join(map(str, w)) for w in WIDTHS)}. A Hessian has no name for a degenerate "
        f"saddle: it is flat, and looks like a minimum.\n\n{machine()}; `python -m benchmarks.saddles {instances}`.\n",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
