"""The checks that the host functions of homogeneous networks make, beyond those of `globopt_jax.inputs`."""

from typing import Any

import jax
import numpy as np

from globopt_jax.homogeneous.degrees import check_degrees
from globopt_jax.homogeneous.maps import PiecewiseLinear
from globopt_jax.homogeneous.problem import Problem, check_lam, objective
from globopt_jax.homogeneous.samples import pad_samples
from globopt_jax.inputs import all_finite, check_data, common_dtype, finite, in_one_dtype, numbers
from globopt_jax.losses import is_catalogued, squared
from globopt_jax.shapes import Params

__all__ = ["check", "check_network", "targets_moved"]


def check(problem: Problem, params: Params, X: Any, Y: Any) -> tuple[Params, jax.Array, jax.Array]:
    """Check a problem, its weights and its data, and return weights, X and Y as arrays of one dtype.

    Targets of softmax cross-entropy are completed to rows that sum to 1 exactly (`Loss.exact_targets`).

    Args:
        problem: map, regularizer, loss and lam.
        params: r subnetworks on a leading axis.
        X: inputs (m, dx).
        Y: targets (m, dy).

    Raises:
        ValueError: shapes that do not fit, NaN or inf, entries whose squares overflow or vanish, lam that is not > 0,
            a loss of your own, targets outside the loss's domain, degrees that differ, a map or penalty that is not
            finite, weights whose objective overflows.
        TypeError: arrays that are not real numbers.
    """
    leaves, tree = jax.tree.flatten(params)
    named = [("X", X), ("Y", Y), *((f"params[{k}]", w) for k, w in enumerate(leaves))]
    host = all_finite(named)
    check_data(host["X"], host["Y"])
    if not is_catalogued(problem.loss):  # the verifier knows a loss by its name alone
        raise ValueError(f"loss: Expected: a loss of `globopt_jax.losses`. Received: {problem.loss!r}.")
    problem.loss.check_targets(host["Y"])
    _check_shapes(problem, host, tree)
    check_lam(problem.lam)
    if np.ndim(problem.lam):
        raise ValueError(f"lam: Expected: one number (`path` takes an array). Received: shape {np.shape(problem.lam)}.")
    X, Y, *leaves = in_one_dtype(host)
    dtype, params = X.dtype, jax.tree.unflatten(tree, leaves)
    if problem.theta.is_cone and not _inside(problem, params):
        raise ValueError("params: Expected: weights >= 0, where the penalty is finite. Received: negative ones.")
    check_degrees(problem, params, X)
    Y = jax.device_put(np.asarray(problem.loss.exact_targets(np.asarray(Y)), dtype))
    padded, *data = pad_samples(problem, X, Y)
    value = float(_objective(padded, params, *data))
    if not np.isfinite(value):
        raise ValueError(
            f"params: Expected: weights whose objective is a number in {np.dtype(dtype)}. Received: {value}."
        )
    return params, X, Y


def _inside(problem: Problem, params: Params) -> bool:
    """Whether all weights are in the cone."""
    pairs = zip(jax.tree.leaves(jax.vmap(problem.theta.project)(params)), jax.tree.leaves(params), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def check_network(problem: Problem, params: Params, X: Any) -> tuple[Params, jax.Array]:
    """Check map, regularizer, weights and inputs, without a loss and targets; see `check`."""
    host, leaves = finite("X", X), jax.tree.leaves(params)
    if isinstance(problem.phi, PiecewiseLinear):
        dy = np.shape(leaves[-1])[-1] if leaves and np.ndim(leaves[-1]) else 1
    else:
        dy = jax.eval_shape(problem.phi.total, params, host).shape[-1]
    plain = Problem(problem.phi, problem.theta, squared, 1.0)
    params, X, _ = check(plain, params, host, np.zeros((len(host), dy), host.dtype))
    return params, X


_objective = jax.jit(objective)


def targets_moved(given: Any, used: jax.Array) -> float:
    """The largest change of an entry by which `check` completed the targets; rounding to their dtype is none."""
    rounded = np.asarray(numbers("Y", given), used.dtype).astype(np.float64)
    return float(np.max(np.abs(rounded - np.asarray(used, np.float64))))


def _check_shapes(problem: Problem, host: dict[str, np.ndarray], tree: Any) -> None:
    X, Y = host["X"], host["Y"]
    weights = [host[f"params[{k}]"] for k in range(tree.num_leaves)]
    phi = problem.phi
    plain = [jax.tree.structure(kind([0] * len(weights))) for kind in (tuple, list)]
    if phi.is_known and tree not in plain:
        raise TypeError(f"params: Expected: a tuple or list of arrays, layer by layer. Received: {tree}.")
    if not weights or any(w.ndim < 2 or len(w) != len(weights[0]) for w in weights):
        raise ValueError(
            "params: Expected: arrays with one leading axis r for all subnetworks (of a two-layer network kernel1.T "
            "and kernel2, with kernels (in, out); PyTorch's are (out, in)). Received: shapes "
            f"{[w.shape for w in weights]}."
        )
    if not len(weights[0]):
        raise ValueError("params: Expected: r >= 1 subnetworks. Received: r = 0.")
    if isinstance(phi, PiecewiseLinear):
        shapes = [w.shape[1:] for w in weights]
        expected = phi.shapes(shapes, X.shape[1], Y.shape[1])
        if expected is not None:
            received = ", ".join(f"(r, {', '.join(map(str, s))})" for s in shapes)
            raise ValueError(f"params: Expected: shapes {expected}. Received: [{received}].")
        return
    dtype = common_dtype([X, *weights])
    like = [jax.ShapeDtypeStruct(a.shape, dtype) for a in (X, *weights)]
    out = jax.eval_shape(phi.total, jax.tree.unflatten(tree, like[1:]), like[0])
    if out.shape != Y.shape:
        raise ValueError(f"phi: Expected: outputs of shape {Y.shape}, as Y. Received: {out.shape}.")
