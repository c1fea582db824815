"""What does a certified optimum cost, against the convex program of the same problem?

Scalar ReLU regression in two dimensions: there the problem over all widths is a convex program with a group of
variables for each of the 2 m activation patterns (Pilanci & Ergen 2020), which CVXPY hands to Clarabel. Ours trains a
network and proves its gap. Both are asked for 1e-8 relative; the error is against the better of the two.

    python -m benchmarks.scalar [m ...]        (from the root of the project)

prints a table, and writes it to benchmarks/scalar.md: medians of seconds and the worst gap and error over five data
sets, solved by both in turn. A data set before them makes ours compile, and that time stands apart; so does Clarabel's
share of CVXPY's time.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.plumbing import machine, markdown, publish, timed
from globopt_jax import homogeneous, losses
from tests import oracles

COLUMNS = (
    "m",
    "ours, compiling (s)",
    "ours (s)",
    "width",
    "proved gap",
    "error",
    "CVXPY in all (s)",
    "Clarabel alone (s)",
    "its error",
    "CVXPY / ours",
)


def problem_of(m: int, seed: int) -> tuple[homogeneous.Problem, np.ndarray, np.ndarray]:
    """A noisy teacher of two neurons, with a tenth of lam_max."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(m, 2))
    Y = np.maximum(X @ [1, 0.5], 0) - np.maximum(X @ [-0.3, 0.8], 0) + 0.3 * rng.normal(size=m)
    phi, theta = homogeneous.relu_neuron(), homogeneous.sum_of_powers()
    one = phi.init(jax.random.key(0), r=1, dx=2, dy=1)
    top = homogeneous.lam_max(homogeneous.Problem(phi, theta, losses.squared, 1.0), X, Y[:, None], params=one)
    return homogeneous.Problem(phi, theta, losses.squared, 0.1 * float(top.lower)), X, Y[:, None]


class Pair(NamedTuple):
    """Both answers to one problem, and their seconds."""

    ours: float
    width: int
    gap: float
    seconds: float
    theirs: float
    all_seconds: float
    solver_seconds: float


def by_cvxpy(X: np.ndarray, Y: np.ndarray, lam: float) -> Any:
    """The convex program of the same problem, solved."""
    program = oracles.convex_program("squared", X, Y, lam)
    oracles.solve(program, 1e-8)
    return program


def both(m: int, seed: int) -> Pair:
    """Solve one problem twice."""
    problem, X, Y = problem_of(m, seed)
    start = problem.phi.init(jax.random.key(seed), r=2, dx=2, dy=1)
    found, seconds = timed(partial(homogeneous.minimize, problem, start, X, Y, key=jax.random.key(1)))
    program, all_seconds = timed(partial(by_cvxpy, X, Y, problem.lam))
    return Pair(
        float(found.certificate.objective),
        len(found.params[0]),
        float(found.certificate.relative_gap),
        seconds,
        float(program.value),
        all_seconds,
        float(program.solver_stats.solve_time or np.nan),
    )


def measure(m: int, count: int) -> list[Any]:
    """One row of the table: medians of seconds, the worst of errors and gaps, over `count` problems after the first."""
    first, *pairs = [both(m, seed) for seed in range(count + 1)]
    of = {name: np.array([getattr(pair, name) for pair in pairs]) for name in Pair._fields}
    best = np.minimum(of["ours"], of["theirs"])
    ours, everything = float(np.median(of["seconds"])), float(np.median(of["all_seconds"]))
    return [
        m,
        first.seconds,
        ours,
        f"{of['width'].min()} to {of['width'].max()}",
        float(np.max(of["gap"])),
        float(np.max((of["ours"] - best) / best)),
        everything,
        float(np.median(of["solver_seconds"])),
        float(np.max((of["theirs"] - best) / best)),
        everything / ours,
    ]


def table(sizes: Sequence[int], count: int = 5) -> str:
    """The measurements as Markdown."""
    return "\n".join(markdown(COLUMNS, [measure(m, count) for m in sizes]))


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the table beside this file."""
    sizes = [int(a) for a in arguments] or [20, 60, 200]
    with jax.enable_x64(True):
        measured = table(sizes)
    publish(__file__, f"{measured}\n\n{machine()}; `python -m benchmarks.scalar {' '.join(map(str, sizes))}`.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
