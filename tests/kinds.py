"""Every public function against every kind of array; run as a program, without the annotations that tests enforce.

Prints a line for each function that does not take, or refuse, a kind as `globopt_jax.inputs` says.
"""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.sparse
from jax.experimental import sparse

from globopt_jax import (
    datasets,
    deep_linear,
    function_space,
    homogeneous,
    linalg,
    local_minima,
    losses,
    networks,
    path_sums,
    wide,
)

# Small integers, which every kind below can say.
RNG = np.random.default_rng(0)
X, Y = RNG.integers(-4, 5, (6, 3)).astype(float), RNG.integers(-4, 5, (6, 2)).astype(float)
W1, W2, R = (RNG.integers(-2, 3, s).astype(float) for s in ((3, 2), (2, 2), (3, 2)))
SQUARE = [RNG.integers(-2, 3, (3, 3)).astype(float) for _ in range(2)]
KEY = jax.random.key(0)
PROBLEM = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, 3.0)

#: name: the function, its arrays in order, and how it is called with them.
FUNCTIONS: dict[str, tuple[Any, tuple[np.ndarray, ...], Any]] = {
    "datasets.validate": (datasets.validate, (X, Y), lambda f, x, y: f(x, y)),
    "datasets.shrink": (datasets.shrink, (RNG.integers(0, 9, (2, 9)).astype(float),), lambda f, x: f(x, 3, 1)),
    "datasets.gray": (datasets.gray, (RNG.integers(0, 9, (2, 12)).astype(float),), lambda f, x: f(x)),
    "deep_linear.product": (deep_linear.product, (W1, W2), lambda f, *w: f(w)),
    "deep_linear.predict": (deep_linear.predict, (W1, W2, X), lambda f, a, b, x: f([a, b], x)),
    "deep_linear.loss": (deep_linear.loss, (W1, W2, X, Y), lambda f, a, b, x, y: f([a, b], x, y)),
    "deep_linear.gradients": (deep_linear.gradients, (W1, W2, X, Y), lambda f, a, b, x, y: f([a, b], x, y)),
    "deep_linear.relaxed_loss": (deep_linear.relaxed_loss, (R, X, Y), lambda f, r, x, y: f(r, x, y)),
    "deep_linear.least_squares": (deep_linear.least_squares, (X, Y), lambda f, x, y: f(x, y)),
    "deep_linear.global_minimum": (deep_linear.global_minimum, (X, Y), lambda f, x, y: f(x, y, 1)),
    "deep_linear.gap_bounds": (deep_linear.gap_bounds, (W1, W2, X, Y), lambda f, a, b, x, y: f([a, b], x, y)),
    "deep_linear.suboptimality_bound": (
        deep_linear.suboptimality_bound,
        (W1, W2, X, Y),
        lambda f, a, b, x, y: f([a, b], x, y),
    ),
    "deep_linear.bottleneck_conditions": (
        deep_linear.bottleneck_conditions,
        (W1, W2, X, Y),
        lambda f, a, b, x, y: f([a, b], x, y),
    ),
    "deep_linear.factors": (deep_linear.factors, (R,), lambda f, r: f(r, (3, 2, 2))),
    "deep_linear.population_data": (deep_linear.population_data, (R, SQUARE[0] @ SQUARE[0].T), lambda f, r, c: f(r, c)),
    "deep_linear.residual_kernels": (deep_linear.residual_kernels, tuple(SQUARE), lambda f, *w: f(w)),
    "deep_linear.residual_risk": (
        deep_linear.residual_risk,
        (*SQUARE, SQUARE[0] + SQUARE[1], np.eye(3)),
        lambda f, a, b, r, c: f([a, b], r, c),
    ),
    "deep_linear.classify": (deep_linear.classify, (W1, W2, X, Y), lambda f, a, b, x, y: f([a, b], x, y)),
    "deep_linear.escape": (deep_linear.escape, (W1, W2, X, Y), lambda f, a, b, x, y: f([a, b], x, y, 0.1, KEY)),
    "deep_linear.critical_point": (deep_linear.critical_point, (X, Y), lambda f, x, y: f(x, y, (3, 2, 2), (0,), KEY)),
    "function_space.risk": (
        function_space.risk,
        (W1, W2, X, Y),
        lambda f, a, b, x, y: f(function_space.layers_of([a, b]), x, y),
    ),
    "homogeneous.objective": (
        homogeneous.objective,
        (W1.T, W2, X, Y),
        lambda f, a, b, x, y: f(PROBLEM, (a, b), x, y),
    ),
    "homogeneous.predict": (homogeneous.predict, (W1.T, W2, X), lambda f, a, b, x: f(PROBLEM, (a, b), x)),
    "homogeneous.certify": (homogeneous.certify, (W1.T, W2, X, Y), lambda f, a, b, x, y: f(PROBLEM, (a, b), x, y)),
    "linalg.svd": (linalg.svd, (X,), lambda f, x: f(x).s),
    "linalg.numerical_rank": (linalg.numerical_rank, (X,), lambda f, x: f(x)),
    "local_minima.jacobian_blocks": (local_minima.jacobian_blocks, (W1, W2, X), lambda f, a, b, x: f([a, b], x)),
    "local_minima.vec": (local_minima.vec, (W1,), lambda f, w: f(w)),
    "local_minima.tangent_projection": (
        local_minima.tangent_projection,
        (W1, W2, X, Y),
        lambda f, a, b, x, y: f(networks.feed_forward("relu"), [a, b], x, y),
    ),
    "local_minima.decompose": (local_minima.decompose, (W1, W2, X, Y), lambda f, a, b, x, y: f([a, b], x, y)),
    "local_minima.linear_units": (local_minima.linear_units, (W1, W2, X), lambda f, a, b, x: f([a, b], x)),
    "local_minima.smallest_pattern_value": (
        local_minima.smallest_pattern_value,
        ((X > 0) * 1.0,),
        lambda f, p: f(p, 4),
    ),
    "losses.squared": (losses.squared, (X, SQUARE[0][[0, 1, 2, 0, 1, 2]]), lambda f, a, b: f(a, b)),
    "losses.softmax_cross_entropy.gradient": (
        losses.softmax_cross_entropy.gradient,
        (X, np.eye(3)[[0, 1, 2, 0, 1, 2]]),
        lambda f, a, b: f(a, b),
    ),
    "path_sums.path_activity": (path_sums.path_activity, (W1, W2, X), lambda f, a, b, x: f([a, b], x)),
    "path_sums.total_variance": (path_sums.total_variance, (W1, W2, X), lambda f, a, b, x: f([a, b], x, 0.5)),
    "wide.loss_bounds": (wide.loss_bounds, (W1, W2, X, Y), lambda f, a, b, x, y: f([(a, None), (b, None)], x, y)),
    "networks.feed_forward": (networks.feed_forward("relu"), (W1, W2, X), lambda f, a, b, x: f([a, b], x)),
}

#: Too slow to compile for every day; what they refuse is tried all the same.
SLOW = {"homogeneous.certify", "local_minima.decompose", "local_minima.jacobian_blocks", "wide.loss_bounds"} | {
    f"deep_linear.{n}" for n in ("bottleneck_conditions", "classify", "escape", "gap_bounds", "suboptimality_bound")
}
HOST = {"datasets.validate", "datasets.shrink", "datasets.gray", "homogeneous.certify"} | {
    f"deep_linear.{n}" for n in ("classify", "escape", "critical_point")
}
HOST |= {f"local_minima.{n}" for n in ("tangent_projection", "decompose", "linear_units", "smallest_pattern_value")}

SAME: dict[str, Callable[[np.ndarray], Any]] = {
    "big-endian": lambda a: a.astype(">f8"),
    "int": lambda a: a.astype(np.int64),
    "big-endian int": lambda a: a.astype(">i2"),
    "longdouble": lambda a: a.astype(np.longdouble),
    "pandas": pd.DataFrame,
    "nothing masked": lambda a: np.ma.masked_array(a, mask=False),
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "jax": jnp.asarray,
}

SPARSE = sparse.BCOO.fromdense(jnp.eye(2))  # of any shape: nobody looks that far

#: kind: how it is made, and what is said of it.
REFUSED: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "masked": (lambda a: np.ma.masked_array(a, mask=np.arange(a.size).reshape(a.shape) == 1), "1 masked entries"),
    "sparse": (scipy.sparse.csr_array, r"toarray\(\)"),
    "sparse matrix": (scipy.sparse.coo_matrix, r"toarray\(\)"),
    "sparse of JAX": (lambda _: SPARSE, r"todense\(\)"),
    "complex": (lambda a: a + 1j, "complex128"),
    "text": (lambda a: a.astype(str), "dtype <U"),
    "objects": (lambda a: a.astype(object), "dtype object"),
    "dates": (lambda a: a.astype("M8[s]"), r"datetime64\[s\]"),
    "bfloat16": (lambda a: jnp.asarray(a, jnp.bfloat16), "dtype bfloat16"),
}


def call(name: str, *arrays: Any) -> list[np.ndarray]:
    """The leaves of what a function returns."""
    function, _, how = FUNCTIONS[name]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(how(function, *arrays))]


def not_taken(name: str) -> Iterator[str]:
    """Kinds that give another result than float64 of NumPy."""
    _, arrays, _ = FUNCTIONS[name]
    wanted = call(name, *arrays)
    for kind, make in SAME.items():
        try:
            found = call(name, *map(make, arrays))
        except Exception as error:
            yield f"{kind}: {type(error).__name__}: {error}"
            continue
        for a, b in zip(found, wanted, strict=True):
            if a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                yield f"{kind}: another result"


def not_refused(name: str) -> Iterator[str]:
    """Kinds that are not refused in the words of `inputs`. The last array alone is of the kind."""
    _, (*others, last), _ = FUNCTIONS[name]
    for kind, (make, message) in REFUSED.items():
        expected = ValueError if kind == "masked" or name == "datasets.validate" else TypeError
        try:
            _ = call(name, *others, make(last))
            yield f"{kind}: taken"
        except Exception as error:
            if type(error) is not expected or not re.search(f"Expected.*{message}", str(error)):
                yield f"{kind}: {type(error).__name__}: {error}"


def not_finite(name: str) -> Iterator[str]:
    """Host functions that take NaN, infinities, or what is infinite in float64."""
    _, (*others, last), _ = FUNCTIONS[name]
    for bad in (np.nan, np.inf, "1e400"):
        broken = last.astype(np.longdouble if bad == "1e400" else np.float64)
        broken[0, 1] = bad
        try:
            _ = call(name, *others, broken)
            yield f"{bad}: taken"
        except Exception as error:
            if "finite numbers" not in str(error):
                yield f"{bad}: {type(error).__name__}: {error}"


def main() -> int:
    """Try everything, with the argument `all` the slow functions, too; the number of failures."""
    left_out = set() if "all" in sys.argv else SLOW
    found = [f"{n}: {line}" for n in FUNCTIONS if n not in left_out for line in not_taken(n)]
    found += [f"{n}: {line}" for n in FUNCTIONS for line in not_refused(n)]
    found += [f"{n}: {line}" for n in sorted(HOST) for line in not_finite(n)]
    print(*found, sep="\n")
    return len(found)


if __name__ == "__main__":
    with jax.enable_x64(True):
        raise SystemExit(min(main(), 99))
