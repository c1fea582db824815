"""What does J, the loss that local minima like this point would have, cost, and how exact is it?

`local_minima.tangent_projection` against least-squares solvers that get the dense Jacobian for nothing: numpy's lstsq
(gelsd), scipy's gelsy, jax.numpy's lstsq, PyTorch's where it is installed, and LSMR of scipy and matfree. Weights as
they are initialized, MNIST. Every solver runs alone in a process of its own, so that its peak of memory is its own;
OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are unset there, since an old kernel would make the peers slower than they are.

    python -m benchmarks.tangent FOLDER [CASE ..]        (FOLDER with MNIST's files; from the root of the project)
    python -m benchmarks.tangent quick
    python -m benchmarks.tangent plot                    (the picture anew, from the table)
    python -m benchmarks.tangent traced                  (inside of jit and vmap, on the digits)

prints a table, and writes it to benchmarks/tangent.md and tangent.png; rows of other cases stay there. The relative
error is that of J against numpy's, with the same cutoff. "traced" compares `vmap(tangent_value)` over eight networks
with `jacrev` and `jnp.linalg.lstsq` under the same `vmap`.
"""

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from benchmarks.plumbing import alone, cells_of, machine, markdown, medians, publish, timed
from globopt_jax import datasets, local_minima, networks
from globopt_jax.local_minima.jacobian import model_of
from globopt_jax.local_minima.passes import Jacobian

#: name -> (samples, widths or "cnn", samples for LAPACK)
CASES = {
    "64-32-32-32-10": (10_000, (64, 32, 32, 32, 10), 10_000),
    "64-64-64-64-10": (10_000, (64, 64, 64, 64, 10), 2000),
    "CNN on 28 x 28": (10_000, "cnn", 2000),
    "quick": (150, (64, 6, 5, 10), 150),
}
LIMIT = 400  # seconds a solver
PATIENCE = 1800  # for the reference, without which there are no errors
REFERENCE = "numpy.linalg.lstsq (gelsd)"
LSMR_STEPS = 300
#: The relative error up to which a solver counts as exact.
ACCURACY = 1e-6
#: The case of the picture.
SHOWN = "64-32-32-32-10"
#: Inside of jit and vmap: samples of the digits and widths; more outputs than parameters, then fewer.
TRACED = ((500, (64, 8, 10)), (24, (64, 16, 16, 10)))
SEEDS = 8
TRACED_COLUMNS = ("network", "m", "ours compiles", "lstsq compiles", "ours", "lstsq", "ratio", "sure", "error")
#: The first word of the paragraph above their table.
INSIDE = "Inside"
COLUMNS = (
    "network",
    "m",
    "solver",
    "J",
    "rank",
    "relative error",
    "seconds",
    "first call",
    "times ours",
    "peak (GiB)",
    "of the dense Jacobian",
)


def instance(case: str, m: int, folder: str) -> tuple[Callable[[Any, Any], Any], Any, np.ndarray, np.ndarray]:
    """(apply, params, X, Y): m random training images, KHK19's crop and size for the networks, whole for the CNN."""
    rng = np.random.default_rng(0)
    data = datasets.load("mnist", folder) if folder else datasets.load("digits")
    chosen = rng.permutation(len(data.X))[:m]
    X, Y = data.X[chosen], data.Y[chosen]
    widths = CASES[case][1]
    if widths == "cnn":
        return *_cnn(X), X.reshape(m, 28, 28, 1), Y
    X = datasets.shrink(X, 24, 8) if folder else X
    W = [rng.normal(size=s) * (2 / s[0]) ** 0.5 for s in pairwise(widths)]
    return networks.feed_forward("relu"), W, X, Y


def _cnn(X: np.ndarray) -> tuple[Callable[[Any, Any], Any], Any]:
    """Two convolutions and a dense layer, 4,266 parameters."""
    from flax import linen

    class Cnn(linen.Module):
        """Kernels of 3 x 3, every other pixel."""

        @linen.compact
        def __call__(self, x: Any) -> Any:
            for features in (4, 8):
                x = linen.Conv(features, (3, 3), strides=(2, 2), param_dtype=jnp.float64)(x)
                x = linen.relu(x)
            return linen.Dense(10, param_dtype=jnp.float64)(x.reshape(len(x), -1))

    start = jnp.asarray(X[:1].reshape(1, 28, 28, 1))
    return networks.from_flax(Cnn(), Cnn().init(jax.random.key(0), start))


def dense(apply: Any, params: Any, X: Any, Y: Any) -> np.ndarray:
    """The Jacobian, (m dy, N)."""
    params = jax.tree.map(jnp.asarray, params)
    A = Jacobian(model_of(apply), params, jnp.asarray(X), Y.shape[1], 2**28)
    blocks = [
        np.asarray(Jacobian(A.model, params, jnp.asarray(X[i : i + 500]), A.dy, 2**28).dense())
        for i in range(0, len(X), 500)
    ]
    return np.concatenate(blocks)


def ours(apply: Any, params: Any, X: Any, Y: Any, _: Any) -> tuple[float, int]:
    """J and the rank."""
    found = local_minima.tangent_projection(apply, params, X, Y)
    return float(found.value), int(found.rank)


def _left(A: np.ndarray, y: np.ndarray, x: Any) -> float:
    return 0.5 * float(np.sum((y - A @ np.asarray(x)) ** 2))


def _cutoff(A: np.ndarray) -> float:
    return 0.5 * np.finfo(np.float64).eps * (sum(A.shape) + 1) ** 0.5


def numpy_gelsd(*problem: Any) -> tuple[float, int]:
    """numpy.linalg.lstsq."""
    A, y = problem[4], problem[3].ravel()
    x, _, rank, _ = np.linalg.lstsq(A, y, rcond=_cutoff(A))
    return _left(A, y, x), int(rank)


def scipy_gelsy(*problem: Any) -> tuple[float, int]:
    """scipy.linalg.lstsq by a pivoted QR factorization."""
    import scipy.linalg

    A, y = problem[4], problem[3].ravel()
    found: Any = scipy.linalg.lstsq(A, y, cond=_cutoff(A), lapack_driver="gelsy", check_finite=False)
    return _left(A, y, found[0]), int(found[2])


def jax_lstsq(*problem: Any) -> tuple[float, int]:
    """jax.numpy.linalg.lstsq."""
    A, y = problem[4], problem[3].ravel()
    x, _, rank, _ = jnp.linalg.lstsq(jnp.asarray(A), jnp.asarray(y), rcond=_cutoff(A))
    return _left(A, y, x), int(rank)


def torch_gelsd(*problem: Any) -> tuple[float, int]:
    """torch.linalg.lstsq."""
    import torch  # pyright: ignore[reportMissingImports]

    A, y = problem[4], problem[3].ravel()
    found = torch.linalg.lstsq(torch.from_numpy(A), torch.from_numpy(y)[:, None], rcond=_cutoff(A), driver="gelsd")
    return _left(A, y, found.solution.numpy()[:, 0]), int(found.rank)


def scipy_lsmr(*problem: Any) -> tuple[float, int]:
    """scipy.sparse.linalg.lsmr on the dense matrix."""
    from scipy.sparse.linalg import lsmr

    A, y = problem[4], problem[3].ravel()
    found = lsmr(A, y, atol=1e-14, btol=1e-14, conlim=0, maxiter=LSMR_STEPS)
    return _left(A, y, found[0]), -1


def matfree_lsmr(*problem: Any) -> tuple[float, int]:
    """matfree.lstsq.lsmr, with the Jacobian's products from autodiff."""
    from jax.flatten_util import ravel_pytree
    from matfree.lstsq import lsmr

    apply, params, X, Y, _ = problem
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))
    X, y = jnp.asarray(X), jnp.ravel(jnp.asarray(Y))
    out, pull = jax.vjp(lambda v: jnp.ravel(apply(unravel(v), X)), flat)
    del out
    solve = lsmr(atol=1e-14, btol=1e-14, ctol=1e-16, maxiter=LSMR_STEPS)
    x, _ = jax.jit(lambda y: solve(lambda u: pull(u)[0], y))(y)
    image = jax.jvp(lambda v: jnp.ravel(apply(unravel(v), X)), (flat,), (x,))[1]
    return 0.5 * float(jnp.sum(jnp.square(y - image))), -1


SOLVERS = {
    "globopt_jax": ours,
    REFERENCE: numpy_gelsd,
    "scipy.linalg.lstsq (gelsy)": scipy_gelsy,
    "jax.numpy.linalg.lstsq": jax_lstsq,
    "torch.linalg.lstsq (gelsd)": torch_gelsd,
    "scipy lsmr": scipy_lsmr,
    "matfree lsmr": matfree_lsmr,
}
WITHOUT_MATRIX = ("globopt_jax", "matfree lsmr")


def report(case: str, solver: str, m: int, folder: str) -> None:
    """What the process of one solver does: solve, twice if the first call compiles, and say what it took."""
    from threadpoolctl import threadpool_info

    with jax.enable_x64(True):
        apply, params, X, Y = instance(case, m, folder)
        A = None if solver in WITHOUT_MATRIX else dense(apply, params, X, Y)
        times, value, rank = [], np.nan, -1
        for _ in range(2 if solver == "globopt_jax" or ("jax" in solver and m < 3000) else 1):
            (value, rank), seconds = timed(partial(SOLVERS[solver], apply, params, X, Y, A))
            times.append(seconds)
        columns = sum(np.size(leaf) for leaf in jax.tree.leaves(params))
    kernels = sorted({info.get("architecture", "") for info in threadpool_info()} - {""})
    print(
        json.dumps(
            {
                "value": value,
                "rank": rank,
                "first": times[0],
                "seconds": times[-1],
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "dense": m * Y.shape[1] * int(columns) * 8,
                "kernels": kernels,
            }
        )
    )


def measure(case: str, solver: str, m: int, folder: str) -> dict[str, Any] | str:
    """What a solver reports from a process of its own; a sentence where it gives no answer."""
    limit = PATIENCE if solver == REFERENCE else LIMIT
    found = alone("benchmarks.tangent", [case, solver, m, folder], limit)
    print(case, m, solver, found, file=sys.stderr, flush=True)
    return found


def table(case: str, folder: str, solvers: Sequence[str]) -> tuple[list[list[Any]], set[str]]:
    """A row for each solver, and the processor's kind that OpenBLAS saw."""
    whole, _, for_lapack = CASES[case]
    rows: list[list[Any]] = []
    kernels: set[str] = set()
    for m in sorted({whole, for_lapack}, reverse=True):
        names = solvers if m == for_lapack else ["globopt_jax"]
        found = {solver: measure(case, solver, m, folder) for solver in names}
        exact, ours = found.get(REFERENCE), found["globopt_jax"]
        for solver, numbers in found.items():
            if isinstance(numbers, str):
                rows.append([case, m, solver, numbers, *[""] * (len(COLUMNS) - 4)])
                continue
            error = ratio = ""
            if isinstance(exact, dict):
                error = f"{abs(numbers['value'] - exact['value']) / exact['value']:.1g}"
            if isinstance(ours, dict):
                ratio = f"{numbers['seconds'] / ours['seconds']:.1f}"
            memory = [f"{numbers['peak'] / 2**30:.2f}", f"{numbers['peak'] / numbers['dense']:.2f}"]
            rank = numbers["rank"] if numbers["rank"] >= 0 else ""
            answer = [f"{numbers['value']:.10g}", rank, error, numbers["seconds"], numbers["first"], ratio]
            rows.append([case, m, solver, *answer, *memory])
            kernels |= set(numbers["kernels"])
    return rows, kernels


def with_lstsq(apply: Any, W: Any, X: Any, Y: Any) -> Any:
    """J by three lines of JAX."""
    flat, unravel = jax.flatten_util.ravel_pytree(W)
    A = jax.jacrev(lambda v: jnp.ravel(apply(unravel(v), X)))(flat)
    x = jnp.linalg.lstsq(A, jnp.ravel(Y), rcond=0.5 * float(jnp.finfo(A.dtype).eps) * (sum(A.shape) + 1) ** 0.5)[0]
    return 0.5 * jnp.sum(jnp.square(jnp.ravel(Y) - A @ x))


def traced_row(m: int, widths: Sequence[int], repeats: int = 3) -> list[Any]:
    """`vmap(tangent_value)` against `with_lstsq` under vmap, for networks as KHK19 initializes them."""
    data, rng = datasets.load("digits"), np.random.default_rng(0)
    X, Y = jnp.asarray(data.X[:m]), jnp.asarray(data.Y[:m])
    stack = [jnp.asarray(rng.normal(size=(SEEDS, *s)) / s[1] ** 0.5) for s in pairwise(widths)]
    apply = networks.feed_forward("relu")
    ours = jax.jit(jax.vmap(lambda W: local_minima.tangent_value(apply, W, X, Y)))
    peer = jax.jit(jax.vmap(lambda W: with_lstsq(apply, W, X, Y)))
    compiled, seconds = zip(*(timed(lambda f=f: f.lower(stack).compile()) for f in (ours, peer)), strict=True)
    found, exact = compiled[0](stack), np.asarray(compiled[1](stack))
    error = float(np.max(np.abs(np.asarray(found.value) - exact))) / (0.5 * float(jnp.sum(jnp.square(Y))))
    own, other = (float(t) for t in medians([partial(f, stack) for f in compiled], repeats))
    name = "-".join(map(str, widths))
    sure = f"{int(jnp.sum(found.sure))} of {SEEDS}"
    return [name, m, *seconds, own, other, f"{other / own:.1f}", sure, f"{error:.0e}"]


def traced(quick: bool) -> list[str]:
    """The paragraph and the table on `tangent_value`."""
    cases = [(30, (64, 3, 10))] if quick else TRACED
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(True):  # the peer is not strict
        rows = [traced_row(m, widths) for m, widths in cases]
    words = (
        f"{INSIDE} of jit and vmap: `tangent_value` over {SEEDS} networks of one shape on m of the digits, against "
        "`jacrev` and `jnp.linalg.lstsq` under the same `vmap` with the same cutoff, in float64. Seconds to compile, "
        "and of a call for all networks (median); the largest difference of J relative to `1/2 ||Y||^2`. "
        f"{machine()}, {os.cpu_count()} cores, OPENBLAS_NUM_THREADS {os.environ.get('OPENBLAS_NUM_THREADS', 'unset')} "
        "(on a busy machine, set it to 1); `python -m benchmarks.tangent traced`."
    )
    return [words, "", *markdown(TRACED_COLUMNS, rows, left=("network",))]


def plot(lines: Sequence[str], case: str, path: Path) -> None:
    """Seconds of every solver of one case, from the lines of its table, on a logarithmic axis.

    Solvers whose J misses the reference by more than `ACCURACY` did not solve the problem: their bars are hollow and
    say how far off they are. Solvers without an answer have no bar.
    """
    from globopt_jax import plotting
    from globopt_jax.plotting.shared import BLUE, GRAY, INK, ORANGE

    m = str(CASES[case][2])
    rows = [dict(zip(COLUMNS, cells_of(line), strict=False)) for line in lines]
    rows = [row for row in rows if (row["network"], row["m"]) == (case, m)][::-1]
    seconds = [float(row.get("seconds") or "nan") for row in rows]
    reached = [float(row.get("relative error") or "inf") <= ACCURACY for row in rows]
    figure = plotting.figure((7, 1.2 + 0.36 * len(rows)))
    ax = figure.subplots()
    for y, (row, length, well) in enumerate(zip(rows, seconds, reached, strict=True)):
        if not np.isfinite(length):
            _ = ax.text(np.nanmin(seconds), y, row["J"], va="center", size="small", color=INK)
            continue
        own = row["solver"] == "globopt_jax"
        style: dict[str, Any] = (
            {"color": ORANGE if own else BLUE} if well else {"fc": "white", "ec": GRAY, "hatch": "////"}
        )
        _ = ax.barh(y, length, height=0.7, **style)
        words = f" {length:.3g} s"
        if not well:
            off = row["relative error"]
            words += f", J misses by {100 * float(off):.1g} %" if off else ", accuracy unknown"
        _ = ax.text(length, y, words, va="center", size="small", color=INK)
    _ = ax.set_yticks(range(len(rows)), [row["solver"] for row in rows])
    _ = ax.set_xscale("log")
    ours = [t for t, row in zip(seconds, rows, strict=True) if row["solver"] == "globopt_jax"]
    others = [t for t, row, well in zip(seconds, rows, reached, strict=True) if well and row["solver"] != "globopt_jax"]
    title = f"J of {case}, {m} samples"
    if ours and others:
        title += f": the next solver that is as exact takes {min(others) / ours[0]:.2g} times as long"
    _ = ax.set_title(title, fontsize="medium", loc="right")
    _ = ax.set_xlabel(f"seconds; hatched bars: a relative error of {ACCURACY:g} is not reached")
    _ = ax.set_xlim(np.nanmin(seconds) / 2, 12 * np.nanmax(seconds))  # room for the words
    ax.spines[["top", "right"]].set_visible(False)
    _ = path.write_bytes(plotting.png(figure))


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write table and plot beside this file."""
    if arguments and arguments[0] == "alone":
        report(arguments[1], arguments[2], int(arguments[3]), arguments[4] if len(arguments) > 4 else "")
        return
    here = Path(__file__)
    stored = here.with_suffix(".md").read_text().splitlines() if here.with_suffix(".md").exists() else []
    place = next((i for i, line in enumerate(stored) if line.startswith(INSIDE)), len(stored))
    stored, inside = stored[:place], stored[place:]
    if arguments and arguments[0] == "traced":
        text = "\n".join([*stored, *([] if inside else [""]), *traced("quick" in arguments), ""])
        publish(__file__, text, write="quick" not in arguments)
        return
    if "plot" in arguments:
        plot([line for line in stored if line.startswith("| ")], SHOWN, here.with_suffix(".png"))
        return
    quick = "quick" in arguments
    folder = "" if quick else next((a for a in arguments if a not in CASES), "")
    if not folder and not quick:
        raise SystemExit("Expected: the folder with MNIST's files. Received: none.")
    chosen = [case for case in CASES if case in arguments] or [case for case in CASES if case != "quick"]
    rows: list[list[Any]] = []
    kernels: set[str] = set()
    for case in chosen:
        found, used = table(case, folder, list(SOLVERS)[:2] if quick else list(SOLVERS))
        rows += found
        kernels |= used
    head, ruler, *lines = markdown(COLUMNS, rows, left=("network", "solver"))
    if quick or SHOWN in chosen:
        picture = Path(tempfile.mkdtemp()) / "tangent.png" if quick else here.with_suffix(".png")
        plot(lines, "quick" if quick else SHOWN, picture)
    note = (
        "J, its rank, and what it costs: the second call where the first one compiles, the making of the dense "
        "Jacobian not counted against those who need it. LSMR has no rank, and stops after "
        f"{LSMR_STEPS} steps. {machine()}, {os.cpu_count()} cores, OpenBLAS with its kernels for "
        f"{', '.join(sorted(kernels))}; `python -m benchmarks.tangent FOLDER`.\n"
    )
    if not quick:
        # In the order of CASES, and the rows of those that did not run as they were.
        lines = [
            row for case in CASES for row in (lines if case in chosen else stored) if row.startswith(f"| {case} |")
        ]
    publish(__file__, "\n".join([head, ruler, *lines, "", note, *inside, *[""][: len(inside)]]), write=not quick)


if __name__ == "__main__":
    main(sys.argv[1:])
