"""Fifty results, to the last bit, before a change and after it.

    python -m tests.unchanged write before.npz      # on the old commit
    python -m tests.unchanged compare before.npz    # on the new one: prints every array that differs

Certificates, trained weights and their traces, tangent projections, decompositions, classifications, escapes. Only
runs on the same machine and the same versions can be compared: other processors sum in another order.
"""

import itertools
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import deep_linear, homogeneous, local_minima, losses, networks

#: What differs from run to run.
SKIPPED = ("seconds",)
CP = homogeneous.elemental(lambda w, X: jnp.outer(X @ w[0], w[1] * w[2]), degree=3)
CUBES = homogeneous.regularizer(lambda w: sum(jnp.sum(jnp.abs(a)) ** 3 for a in w) / 3, degree=3)


def arrays(name: str, result: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of a result, with its path."""
    for path, leaf in jax.tree.leaves_with_path(result):
        key = jax.tree_util.keystr(path)
        if not any(skipped in key for skipped in SKIPPED):
            yield name + key, np.asarray(leaf)


def data(seed: int, m: int, dx: int, dy: int, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and targets that the loss knows."""
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(m, dx)), rng.normal(size=(m, dy))
    if loss == "softmax_cross_entropy":
        Y = np.eye(dy)[Y.argmax(axis=1)]
    return X, np.sign(Y) if loss == "logistic" else Y


def graded(seed: int, phi: Any, theta: Any, loss: str, shape: tuple[int, int, int], train: bool, **more: Any) -> Any:
    """A certificate of random weights, or what `minimize` makes of them."""
    X, Y = data(seed, *shape, loss)
    dtype = more.pop("dtype", np.float64)
    problem = homogeneous.Problem(phi, theta, losses.by_name(loss), more.pop("lam", 0.5))
    widths = more.pop("widths", ())
    if phi is CP:
        keys = jax.random.split(jax.random.key(seed), 3)
        sizes = (shape[1], shape[2], shape[2])
        start: Any = [jax.random.normal(k, (2, n)) for k, n in zip(keys, sizes, strict=True)]
    else:
        start = phi.init(jax.random.key(seed), r=3, dx=shape[1], dy=shape[2], widths=widths)
    start = jax.tree.map(lambda w: np.asarray(w, dtype), start)
    arguments = (problem, start, X.astype(dtype), Y.astype(dtype))
    key = jax.random.key(seed + 1)
    if train:
        return homogeneous.minimize(*arguments, key=key, outer=6, **more)
    return homogeneous.certify(*arguments, key=key, **more)


def strongest(seed: int, phi: Any, shape: tuple[int, int, int]) -> Any:
    """The largest useful lam."""
    X, Y = data(seed, *shape, "squared")
    problem = homogeneous.Problem(phi, homogeneous.sum_of_powers(), losses.squared, 1.0)
    start = phi.init(jax.random.key(seed), r=1, dx=shape[1], dy=shape[2])
    return homogeneous.lam_max(problem, X, Y, params=start, effort="quick")


def tangent(seed: int, widths: tuple[int, ...], m: int, method: str) -> Any:
    """J of a random network, and the shares of its units."""
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(m, widths[0])), rng.normal(size=(m, widths[-1]))
    W = [rng.normal(size=s) for s in itertools.pairwise(widths)]
    found = local_minima.tangent_projection(networks.feed_forward("relu"), W, X, Y, method=method)
    return found, local_minima.decompose(W, X, Y, "relu")


def linear(seed: int, widths: tuple[int, ...], indices: tuple[int, ...] | None, dtype: Any) -> Any:
    """Class, bounds and escape of a deep linear network: a critical point, or random weights."""
    rng = np.random.default_rng(seed)
    X, Y = (rng.normal(size=(9, n)).astype(dtype) for n in (widths[0], widths[-1]))
    if indices is None:
        W: Any = [rng.normal(size=s).astype(dtype) for s in itertools.pairwise(widths)]
    else:
        W = deep_linear.critical_point(X, Y, widths, indices, jax.random.key(seed))
    found = deep_linear.classify(W, X, Y), deep_linear.suboptimality_bound(W, X, Y)
    return found, deep_linear.escape(W, X, Y, 0.1, jax.random.key(seed))


def instances() -> dict[str, Callable[[], Any]]:
    """Fifty calls, by name."""
    phi, theta = homogeneous, homogeneous.sum_of_powers
    product = homogeneous.product_of_norms
    maps = {
        "relu": (phi.relu_neuron(), (20, 4, 2), ()),
        "planar": (phi.relu_neuron(), (14, 2, 1), ()),
        "rank_one": (phi.rank_one(), (12, 5, 3), ()),
        "linear3": (phi.deep_subnetwork("linear", layers=3), (12, 4, 3), (2, 2)),
        "deep3": (phi.deep_subnetwork("relu", layers=3), (15, 3, 2), (2, 2)),
    }
    calls: dict[str, Callable[[], Any]] = {}
    for k, (name, (f, shape, widths)) in enumerate(maps.items()):
        loss = ("squared", "logistic", "huber:1", "squared", "logistic")[k]
        options: dict[str, Any] = {"widths": widths, "effort": "quick"}
        calls[f"certify-{name}"] = partial(graded, k, f, theta(), loss, shape, False, **options)
        calls[f"certify-{name}-x32"] = partial(graded, k, f, product(), loss, shape, False, dtype=np.float32, **options)
        calls[f"minimize-{name}"] = partial(graded, k, f, theta(), loss, shape, True, **options)
        calls[f"minimize-{name}-x32"] = partial(graded, k, f, product(), loss, shape, True, dtype=np.float32, **options)
    relu, soft, few = phi.relu_neuron(), "softmax_cross_entropy", (20, 3, 3)
    calls["certify-softmax"] = partial(graded, 20, relu, theta(), soft, few, False)
    calls["minimize-softmax"] = partial(graded, 21, relu, theta(), soft, few, True, effort="quick")
    calls["certify-standard"] = partial(graded, 22, relu, theta(), "squared", (16, 3, 1), False)
    calls["minimize-standard"] = partial(graded, 23, relu, theta(), "squared", (16, 3, 1), True)
    for k, norms in enumerate(("l1", "linf", ("l1", "l2"))):
        both = {"l1": relu, "linf": phi.rank_one()}.get(str(norms), phi.rank_one())
        calls[f"minimize-{norms}"] = partial(
            graded, 24 + k, both, theta(norms=norms), "squared", few, True, effort="quick"
        )
    calls["certify-own"] = partial(graded, 27, CP, CUBES, "squared", few, False, effort="quick")
    calls["minimize-own"] = partial(graded, 28, CP, CUBES, "squared", few, True, effort="quick", lam=0.2)
    calls["minimize-wide"] = partial(graded, 29, relu, theta(), "squared", (6, 600, 1), True, effort="quick")
    for k, name in enumerate(("relu", "planar", "rank_one", "deep3")):
        calls[f"lam_max-{name}"] = partial(strongest, 30 + k, maps[name][0], maps[name][1])
    for k, method in enumerate(("dense", "gram", "dual", "auto")):
        calls[f"tangent-{method}"] = partial(tangent, 40 + k, (4, 6, 5, 2), 30, method)
    for k, indices in enumerate((None, (0,), (0, 1), (1,), ())):
        for dtype in (np.float64, np.float32):
            name = f"linear-{indices}-{np.dtype(dtype)}"
            calls[name] = partial(linear, 50 + k, (4, 3, 3), indices, dtype)
    for k, widths in enumerate(((3, 2, 5, 4), (5, 5))):
        calls[f"linear-{widths}"] = partial(linear, 60 + k, widths, None, np.float64)
    return calls


def main(mode: str, path: str) -> int:
    """Write the results, or compare them with those of before."""
    found: dict[str, Any] = {}
    with jax.enable_x64(True):
        for name, call in instances().items():
            found |= dict(arrays(name, call()))
            print(name, flush=True)
    if mode == "write":
        np.savez(path, **found)
        return 0
    differ = 0
    with np.load(path) as before:
        for name in sorted({*before.files, *found}):
            if name not in found or name not in before.files:
                print(f"only {'before' if name in before.files else 'after'}: {name}")
            elif before[name].tobytes() != found[name].tobytes() or before[name].shape != found[name].shape:
                both = before[name], found[name]
                worst = np.max(np.abs(both[0] - both[1])) if both[0].shape == both[1].shape else "shapes"
                print(f"differs: {name} (by {worst})")
            else:
                continue
            differ += 1
    total = zlib.crc32(b"".join(found[name].tobytes() for name in sorted(found)))
    print(f"{len(found)} arrays of {len(instances())} results, checksum {total:08x}: {differ} differ")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
