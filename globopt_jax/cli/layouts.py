"""The meaning of the arrays in a weights file: kernels, or stacked subnetworks.

The shapes decide. Where both meanings fit the shapes, the user must give `--layout`. The functions here also return a
sentence that says how the file was read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from globopt_jax.inputs import finite
from globopt_jax.shapes import Params

__all__ = ["chain", "check_layout", "subnetworks"]

KERNELS, STACKED = "kernels", "stacked"


def check_layout(layout: str | None) -> None:
    """Raise ValueError unless `--layout` is kernels, stacked, or not given (None)."""
    if layout not in (None, KERNELS, STACKED):
        raise ValueError(f"--layout: Expected: {KERNELS} or {STACKED}. Received: {layout!r}.")


def subnetworks(
    stored: Mapping[str, np.ndarray], ends: tuple[int, int], layout: str | None = None
) -> tuple[Params, bool, str]:
    """Return the stacked subnetworks of a weights file.

    Args:
        stored: the arrays of the file.
        ends: dx and dy of the data.
        layout: the value of `--layout`.

    Returns:
        The subnetworks, whether X needs a column of ones for their biases, and a sentence on how the file was read.

    Raises:
        ValueError: the names or shapes fit no known layout, an output bias is not zero, or two matrices fit both
            layouts and `layout` is None.
    """
    check_layout(layout)
    names = set(stored)
    if "kernel1" in names and names <= {"kernel1", "kernel2", "bias1", "bias2"}:
        return _two_layers(stored, ends, layout)
    weights = [stored[f"W{k + 1}"] for k in range(len(names)) if f"W{k + 1}" in names]
    if weights and len(weights) == len(names):
        if len(weights) == 2 and all(w.ndim == 2 for w in weights):
            return _pair(stored, weights, ends, layout)
        if all(w.ndim == 3 for w in weights):
            return _deep(stored, weights, layout)
    deep = ""
    if len(weights) > 2 and len(weights) == len(names) and all(w.ndim == 2 for w in weights):
        deep = " A network with these kernels is one subnetwork: save W1[None], W2[None], ...."
    raise ValueError(
        "Expected: W1 (r, dx) and W2 (r, dy), or W1..WK of shapes (r, n_k-1, n_k), or kernel1 (dx, h) and "
        f"kernel2 (h, dy) with or without bias1 (h,). Received: {shapes(stored)}.{deep}"
    )


def _two_layers(
    stored: Mapping[str, np.ndarray], ends: tuple[int, int], layout: str | None
) -> tuple[Params, bool, str]:
    """Return the subnetworks of an ordinary two-layer network: kernel1, kernel2 and perhaps bias1."""
    if stored.get("kernel2") is None or any(stored[k].ndim != 2 for k in ("kernel1", "kernel2")):
        raise ValueError(f"Expected: kernel1 (dx, h) and kernel2 (h, dy). Received: {shapes(stored)}.")
    if layout == STACKED:
        raise ValueError(
            f"--layout: Expected: {KERNELS}, as the file names its arrays kernel1, .... Received: {layout}."
        )
    if np.any(stored.get("bias2", 0)):
        raise ValueError(
            "bias2: Expected: zeros, or no bias2. Received: an output bias, which the problem does not have because "
            "nothing penalizes it. Train without output bias; a hidden unit with a bias can be constant instead."
        )
    inner, outer = stored["kernel1"].T, stored["kernel2"]
    if inner.shape[1] != ends[0] or outer.shape != (len(inner), ends[1]):
        fits = (len(inner), outer.shape[0]) == ends and inner.shape[1] == outer.shape[1]
        hint = " Transposed they fit: PyTorch stores kernels as (outputs, inputs)." if fits else ""
        raise ValueError(
            f"kernel1, kernel2: Expected: shapes ({ends[0]}, h) and (h, {ends[1]}), as the data have {ends[0]} inputs "
            f"and {ends[1]} outputs. Received: {shapes(stored)}.{hint}"
        )
    read = _words(stored, KERNELS, (len(inner.T), len(inner), outer.shape[1]))
    bias = stored.get("bias1")
    if bias is None:
        return (inner, outer), False, read
    if bias.shape != inner.shape[:1]:
        raise ValueError(f"bias1: Expected: shape {inner.shape[:1]}. Received: {bias.shape}.")
    return (np.concatenate([inner, bias[:, None]], axis=1), outer), True, read


def _pair(
    stored: Mapping[str, np.ndarray], weights: list[np.ndarray], ends: tuple[int, int], layout: str | None
) -> tuple[Params, bool, str]:
    """Return the subnetworks of two matrices, which are kernels or stacked neurons."""
    meant = _meant(stored, weights, ends, layout) or STACKED
    inner = weights[0].T if meant == KERNELS else weights[0]
    widths = (inner.shape[1], len(inner), weights[1].shape[1])
    return (inner, weights[1]), False, _words(stored, meant, widths)


def _deep(stored: Mapping[str, np.ndarray], weights: list[np.ndarray], layout: str | None) -> tuple[Params, bool, str]:
    """Return the subnetworks of arrays that all have a leading axis of subnetworks."""
    if layout == KERNELS:
        raise ValueError(
            f"--layout: Expected: {STACKED}, since every array has three axes, the first of subnetworks. Received: "
            f"{layout}."
        )
    widths, r = (*(w.shape[1] for w in weights), weights[-1].shape[2]), len(weights[0])
    return weights, False, _words(stored, STACKED, widths, f"{r} subnetwork{'s' * (r != 1)} of ")


def chain(
    path: Path, stored: Mapping[str, np.ndarray], ends: tuple[int, int], layout: str | None = None
) -> tuple[list[np.ndarray], str]:
    """Return the kernels of a chain of layers from a weights file with W1..WL or kernel1..kernelL.

    Args:
        path: the file, for messages.
        stored: the arrays of the file.
        ends: dx and dy of the data.
        layout: the value of `--layout`.

    Returns:
        The kernels, and a sentence on how the file was read.

    Raises:
        ValueError: the file has other arrays, or two matrices fit both layouts and `layout` is None.
    """
    check_layout(layout)
    for prefix in ("W", "kernel"):
        names = [f"{prefix}{l + 1}" for l in range(len(stored))]
        if not stored or set(names) != set(stored):
            continue
        kernels = [finite(f"{path}: {name}", stored[name]) for name in names]
        if not all(a.ndim == 2 and a.size for a in kernels):
            continue
        meant = KERNELS
        if prefix == "W" and len(kernels) == 2:
            meant = _meant(stored, kernels, ends, layout) or KERNELS
        elif layout == STACKED:
            raise ValueError(f"--layout: Expected: {KERNELS}, for {', '.join(names)}. Received: {layout}.")
        if meant == STACKED:
            kernels[0] = kernels[0].T
        return kernels, _words(stored, meant, (len(kernels[0]), *(a.shape[1] for a in kernels)))
    raise ValueError(
        f"{path}: Expected: matrices W1..WL, or kernel1..kernelL, without gaps, and no biases. Received: "
        f"{shapes(stored)}."
    )


def shapes(stored: Mapping[str, np.ndarray]) -> str:
    """Return the names and shapes of the arrays of a file, for messages."""
    return ", ".join(f"{name} {array.shape}" for name, array in stored.items()) or "no arrays"


def _meant(
    stored: Mapping[str, np.ndarray], pair: Sequence[np.ndarray], ends: tuple[int, int], layout: str | None
) -> str | None:
    """Return the layout of two matrices: the value of `--layout`, or the layout that fits the data; None if none fits.

    Raises:
        ValueError: `--layout` does not fit the data, or both layouts fit and give different networks.
    """
    inner, outer = pair
    h = len(outer)
    known = {KERNELS: (ends[0], h), STACKED: (h, ends[0])}
    fitting = [name for name, shape in known.items() if inner.shape == shape and outer.shape[1] == ends[1]]
    if layout is not None:
        if layout not in fitting:
            raise ValueError(
                f"--layout: Expected: W1 {known[layout]} and W2 {(h, ends[1])} for {layout}, with {ends[0]} inputs and "
                f"{ends[1]} outputs. Received: {shapes(stored)}."
            )
        return layout
    if len(fitting) == 2 and not np.array_equal(inner, inner.T):
        raise ValueError(
            f"--layout: Expected: {KERNELS} or {STACKED}, since W1 is square: its rows can be the inputs of kernels or "
            f"the hidden units of stacked neurons, which are different networks. Received: no --layout, with "
            f"{shapes(stored)}."
        )
    return fitting[0] if fitting else None


def _words(stored: Mapping[str, np.ndarray], meant: str, widths: Sequence[int], what: str = "") -> str:
    first, *hidden, last = widths
    kind = (
        "kernels (inputs, outputs)"
        if meant == KERNELS or what
        else "stacked neurons (hidden, inputs) and (hidden, outputs)"
    )
    units = f"{first} inputs, {' and '.join(map(str, hidden)) or 'no'} hidden units, {last} outputs"
    return f"{shapes(stored)}: read as {what}{kind}, {units}"
