"""What does J, the loss that local minima like this point would have, cost, and how exact is it?

`local_minima.tangent_projection` against least-squares solvers that get the dense Jacobian for nothing: numpy's lstsq
(gelsd), scipy's gelsy, jax.numpy's lstsq, PyTorch's where it is installed, and LSMR of scipy and matfree. Weights as
they are initialized, MNIST. Every solver runs alone in a process of its own, so that its peak of memory is its own;
OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are unset there, since an old kernel would make the peers slower than they are.

    python -m benchmarks.tangent FOLDER [CASE ..]        (FOLDER with MNIST's files; from the root of the project)
    python -m benchmarks.tangent quick

prints a table, and writes it to benchmarks/tangent.md and tangent.png; rows of other cases stay there. The relative
error is that of J against numpy's, with the same cutoff.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


def alone(case: str, solver: str, m: int, folder: str) -> None:
    """What the process of one solver does: solve, twice if the first call compiles, and say what it took."""
    from threadpoolctl import threadpool_info

    with jax.enable_x64(True):
        apply, params, X, Y = instance(case, m, folder)
        A = None if solver in WITHOUT_MATRIX else dense(apply, params, X, Y)
        times, value, rank = [], np.nan, -1
        for _ in range(2 if solver == "globopt_jax" or ("jax" in solver and m < 3000) else 1):
            began = time.perf_counter()
            value, rank = SOLVERS[solver](apply, params, X, Y, A)
            times.append(time.perf_counter() - began)
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
    """Run a solver in a process of its own; a sentence where it gives no answer."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    command = [sys.executable, "-m", "benchmarks.tangent", "alone", case, solver, str(m), folder]
    limit = PATIENCE if solver == REFERENCE else LIMIT
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {limit} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return lines[-1][:80]
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(case: str, folder: str, solvers: Sequence[str]) -> tuple[list[str], dict[str, float], set[str]]:
    """A row a solver; seconds for the plot; the processor's kind that OpenBLAS saw."""
    whole, _, for_lapack = CASES[case]
    rows, bars, kernels = [], {}, set()
    for m in sorted({whole, for_lapack}, reverse=True):
        names = solvers if m == for_lapack else ["globopt_jax"]
        found: dict[str, Any] = {}
        for solver in names:
            found[solver] = measure(case, solver, m, folder)
            print(case, m, solver, found[solver], file=sys.stderr, flush=True)
        exact = found.get(REFERENCE)
        ours = found["globopt_jax"]
        for solver, numbers in found.items():
            if isinstance(numbers, str):
                rows.append(f"| {case} | {m} | {solver} | {numbers} | | | | | | |")
                continue
            error = ratio = ""
            if isinstance(exact, dict):
                error = f"{abs(numbers['value'] - exact['value']) / exact['value']:.1g}"
            if isinstance(ours, dict):
                ratio = f"{numbers['seconds'] / ours['seconds']:.1f}"
            memory = f"{numbers['peak'] / 2**30:.2f} | {numbers['peak'] / numbers['dense']:.2f}"
            rank = numbers["rank"] if numbers["rank"] >= 0 else ""
            rows.append(
                f"| {case} | {m} | {solver} | {numbers['value']:.10g} | {rank} | {error} | {numbers['seconds']:.3g} | "
                f"{numbers['first']:.3g} | {ratio} | {memory} |"
            )
            bars[solver] = numbers["seconds"]
            kernels |= set(numbers["kernels"])
    return rows, bars, kernels


def plot(bars: dict[str, float], title: str, path: Path) -> None:
    """Seconds of every solver, on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.5 + 0.4 * len(bars)), layout="constrained")
    ax = figure.subplots()
    _ = ax.barh(list(bars)[::-1], list(bars.values())[::-1], color="#0072B2")
    ax.set_xscale("log")
    _ = ax.set_xlabel(f"seconds for J, {title}")
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write table and plot beside this file."""
    if arguments and arguments[0] == "alone":
        alone(arguments[1], arguments[2], int(arguments[3]), arguments[4] if len(arguments) > 4 else "")
        return
    quick = "quick" in arguments
    folder = "" if quick else next((a for a in arguments if a not in CASES), "")
    if not folder and not quick:
        raise SystemExit("Expected: the folder with MNIST's files. Received: none.")
    head = [
        "| network | m | solver | J | rank | relative error | seconds | first call | times ours | peak (GiB) | "
        "of the dense Jacobian |",
        "| :--- | ---: | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows: list[str] = []
    kernels: set[str] = set()
    target = Path(tempfile.mkdtemp()) if quick else Path(__file__).parent
    chosen = [case for case in CASES if case in arguments] or [case for case in CASES if case != "quick"]
    for case in chosen:
        found, bars, used = table(case, folder, list(SOLVERS)[:2] if quick else list(SOLVERS))
        rows += found
        kernels |= used
        if len(bars) > 1 and (quick or case == "64-32-32-32-10"):
            plot(bars, f"{case}, m = {CASES[case][0]}", target / "tangent.png")
    machine = f"Python {platform.python_version()}, jax {jax.__version__}, {jax.devices()[0].device_kind}"
    note = (
        "J, its rank, and what it costs: the second call where the first one compiles, the making of the dense "
        "Jacobian not counted against those who need it. LSMR has no rank, and stops after "
        f"{LSMR_STEPS} steps. {machine}, {os.cpu_count()} cores, OpenBLAS with its kernels for "
        f"{', '.join(sorted(kernels))}; `python -m benchmarks.tangent FOLDER`.\n"
    )
    text = "\n".join([*head, *rows, "", note])
    print(text)
    if not quick:
        path = target / "tangent.md"
        seen = path.read_text().splitlines() if path.exists() else []
        # In the order of CASES, and the rows of those that did not run as they were.
        body = [row for case in CASES for row in (rows if case in chosen else seen) if row.startswith(f"| {case} |")]
        _ = path.write_text("\n".join([*head, *body, "", note]))


if __name__ == "__main__":
    main(sys.argv[1:])
