"""The polar where it is known exactly, with the directions that attain it (NumPy, host functions).

Linear subnetworks: the singular vectors of ``X^T U``. One neuron in dx <= 2: the best direction on every arc of
constant activation pattern. `rigorous` computes the values with their rounding margins; here are the directions to
append.
"""

from typing import Any

import jax
import numpy as np

from globopt_jax import rigorous
from globopt_jax.homogeneous.maps import DeepSubnetwork, Neuron
from globopt_jax.shapes import Params

__all__ = ["directions"]


def directions(
    phi: Any, theta: Any, kind: str, U: np.ndarray, X: np.ndarray, template: Params, floor: float
) -> Params | None:
    """Subnetworks of unit norms whose ``<U, phi(w)>`` exceeds `floor`, best first; None where none is known.

    Args:
        phi, theta: a neuron or a deep subnetwork, and its regularizer. The directions maximize for l2 norms, and for
            linear neurons with an l1 norm; for other norms they are good places to start a search from.
        kind: the kind of bound (`rigorous.BOUNDS`): linear or arcs.
        U: (m, dy). X: (m, dx).
        template: stacked weights of the shape wanted.
    """
    U, X = np.asarray(U, np.float64), np.asarray(X, np.float64)
    norms = theta.layer_norms(template)
    if kind == "linear" and len(norms) == 2 and "l1" in norms and isinstance(phi, Neuron):
        first, last = _along_coordinates(X.T @ U * phi.slopes[1], norms, floor)
    elif kind == "linear" and phi.layers > 1:
        left, sigma, right = np.linalg.svd(X.T @ U * abs(phi.slopes[1]) ** (phi.layers - 1), full_matrices=False)
        keep = sigma > floor
        first, last = left.T[keep], right[keep] * np.sign(phi.slopes[1]) ** (phi.layers - 1)
    elif kind == "arcs":
        values, angles, _ = rigorous.arcs(U, X, phi.slopes)
        # An arc's maximum is a local maximum of the circle iff no neighbour is larger; ends are shared.
        keep = (values > floor) & (values >= np.roll(values, 1)) & (values >= np.roll(values, -1))
        order = np.argsort(-values[keep])[:64]
        t = np.unique(np.round(np.mod(angles[keep][order], 2 * np.pi), 12), return_index=True)[1]
        t = angles[keep][order][np.sort(t)]
        first = np.stack([np.cos(t), np.sin(t)], axis=1)[:, : X.shape[1]]
        a = X @ first.T
        last = np.where(a > 0, phi.slopes[1] * a, phi.slopes[0] * a).T @ U
        sizes = np.linalg.norm(last, axis=1, keepdims=True)
        last = last / np.where(sizes > 0, sizes, 1)
    else:
        return None
    if not len(first):
        return None
    return _embedded(phi, first, last, template)


def _along_coordinates(M: np.ndarray, norms: tuple[str, ...], floor: float) -> tuple[np.ndarray, np.ndarray]:
    """``max w1^T M w2`` where a norm is l1: coordinate vectors in that layer, the best reply in the other."""
    if norms[0] != "l1":
        last, first = _along_coordinates(M.T, norms[::-1], floor)
        return first, last
    replies = {"l1": np.eye(M.shape[1])[np.abs(M).argmax(axis=1)] * np.sign(M), "l2": M, "linf": np.sign(M)}[norms[1]]
    sizes = {"l1": 1.0, "l2": np.linalg.norm(M, axis=1, keepdims=True), "linf": 1.0}[norms[1]]
    replies = replies / np.where(sizes == 0, 1.0, sizes)
    values = (M * replies).sum(axis=1)
    order = np.argsort(-values)
    order = order[values[order] > floor]
    return np.eye(len(M))[order], replies[order]


def _embedded(phi: Any, first: np.ndarray, last: np.ndarray, template: Params) -> Params:
    """One-unit-wide subnetworks as weights of the template's shape."""
    leaves, tree = jax.tree.flatten(template)
    if isinstance(phi, Neuron):
        return jax.tree.unflatten(tree, [first, last])
    assert isinstance(phi, DeepSubnetwork)
    kernels = [np.zeros((len(first), *w.shape[1:])) for w in leaves]
    kernels[0][:, :, 0] = first
    for kernel in kernels[1:-1]:
        kernel[:, 0, 0] = 1
    kernels[-1][:, 0, :] = last
    return jax.tree.unflatten(tree, kernels)
