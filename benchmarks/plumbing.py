"""What the benchmarks share: clocks that wait for the answer, a process for each peer, and tables in Markdown.

A benchmark's question, its instances and its peers stand in its own file. Compile time and run time are always apart:
`timed` clocks a first call, `medians` clocks later ones.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

Answer = TypeVar("Answer")

#: Variables that tie OpenBLAS to an old processor's kernels, which would make the peers slower than they are.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def timed(function: Callable[[], Answer]) -> tuple[Answer, float]:
    """The function's answer, waited for, and the seconds of this one call."""
    began = time.perf_counter()
    answer = jax.block_until_ready(function())
    return answer, time.perf_counter() - began


def medians(functions: Sequence[Callable[[], Any]], repeats: int) -> np.ndarray:
    """Median seconds of each function over interleaved calls; one call before them, which may compile, is not counted.

    Interleaved calls slow down alike on a busy machine, so that ratios keep their meaning.
    """
    for function in functions:
        _ = timed(function)
    return np.median([[timed(function)[1] for function in functions] for _ in range(repeats)], axis=0)


def alone(module: str, arguments: Sequence[Any], limit: float) -> dict[str, Any] | str:
    """Run ``python -m module alone arguments`` in a process of its own, so that its peak of memory is its own.

    Args:
        module: a benchmark whose `main` prints one line of JSON for these arguments, after whatever else it prints.
        arguments: what follows the word alone.
        limit: seconds.

    Returns:
        The JSON object, or a sentence where the process gives no answer.
    """
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    command = [sys.executable, "-m", module, "alone", *map(str, arguments)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {limit:g} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return lines[-1][:80]
    return json.loads(done.stdout.strip().splitlines()[-1])


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]], left: Sequence[str] = ()) -> list[str]:
    """The lines of a table: floats with three digits, columns aligned to the right except those named in `left`.

    >>> print(*markdown(["peer", "seconds"], [["ours", 0.12345]], left=["peer"]), sep="\\n")
    | peer | seconds |
    | :--- | ---: |
    | ours | 0.123 |
    """
    ruler = [":---" if name in left else "---:" for name in columns]
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in ([*columns], ruler, *cells)]


def cells_of(line: str) -> list[str]:
    """The cells of one line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def machine() -> str:
    """What the numbers were measured with."""
    return f"Python {platform.python_version()}, jax {jax.__version__}, {jax.devices()[0].device_kind}"


def publish(benchmark: str, text: str, *, write: bool = True) -> None:
    """Print the text, and write it beside the benchmark's file as Markdown."""
    print(text)
    if write:
        _ = Path(benchmark).with_suffix(".md").write_text(text)
