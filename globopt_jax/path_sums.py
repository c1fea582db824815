"""ReLU networks as sums over paths, and the assumption under which they become deep linear networks (K18 section 2.2).

A path leads from an input through one unit of each hidden layer to an output. With Z_path = 1 where all units of a path
are active for a sample and 0 otherwise, the output of a ReLU network without biases is (K18 (2.8))

    Yhat = q * sum over paths of x_path * Z_path * product of the path's weights.

The number of paths grows exponentially with the depth, so that no function here lists them: `path_sum` contracts the
sum layer by layer. Theorem 2.6 takes the Z_path for random numbers of mean rho that depend on neither inputs nor
weights (A1p-m and A5u-m). The expected network is then ``q rho X W_1 ... W_{H+1}``, a deep linear network, and `reduce`
hands it to the topic `deep_linear`. `path_activity` measures how far a network is from the assumptions.

Pure array functions are `path_sum`, `unit_masks`, `expected_output`, `total_variance`, `monte_carlo`, `reduce` and
`path_activity`.

    >>> W = [jnp.array([[1.0, -1.0]]), jnp.array([[2.0], [3.0]])]
    >>> X = jnp.array([[1.0], [-1.0]])
    >>> path_sum(W, X, unit_masks(W, X)).tolist()  # the output of the ReLU network
    [[2.0], [3.0]]
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import deep_linear, linalg, results
from globopt_jax.inputs import check_data, integer, is_traced, number, real, typed_key
from globopt_jax.linalg import matmul
from globopt_jax.networks import kernels_of
from globopt_jax.shapes import Array, Scalar

__all__ = ["Estimate", "PathActivity", "Reduction", "expected_output", "monte_carlo", "path_activity", "path_sum"]
__all__ += ["reduce", "total_variance", "unit_masks"]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__


#: The bytes that the products of two samples' patterns may take.
_MEMORY = 64 * 2**20


class Estimate(NamedTuple):
    """A mean over random masks."""

    mean: Array
    """(m, dy): the mean output."""
    error: Array
    """(m, dy): the standard error of the mean."""


class Reduction(NamedTuple):
    """The deep linear problem of Theorem 2.6, in the order in which the functions of `deep_linear` take it."""

    weights: list[Array]
    """The kernels, unchanged."""
    X: Array
    """(m, dx): the inputs times ``q rho``."""
    Y: Array
    """(m, dy): the targets, unchanged."""


class PathActivity(NamedTuple):
    """Which paths of a ReLU network are active, and how far this is from A1p-m and A5u-m."""

    layers: Array
    """(H,): for each hidden layer, the mean share of active units."""
    by_sample: Array
    """(m,): the share of the active paths of each sample, the product over layers of its shares of active units."""
    rate: Array
    """The mean of ``by_sample``: the rho that fits best."""
    over_samples: Array
    """The standard deviation of ``by_sample`` over the samples. A5u-m, that activity does not depend on the input,
    wants 0."""
    over_paths: Array
    """The standard deviation over the paths of the share of samples for which a path is active. A1p-m, that all paths
    are active with one probability, wants 0. Rounding leaves about the square root of machine epsilon."""
    factor: Array
    """The c with the smallest ``||Yhat - c X W_1 ... W_{H+1}||``; 0 where the linear network vanishes."""
    error: Array
    """``||Yhat - c X W_1 ... W_{H+1}|| / ||Yhat||`` for this c: 0 if the network is linear on the data, at most 1."""

    @property
    def reason(self) -> str:
        """The activity in a few sentences."""
        if not np.isfinite(self.error):
            return "Nothing is known: a number is NaN or infinite, or overflows."
        if not float(self.rate):
            return "No path is active for any sample, so that the output is zero."
        return (
            f"On average {float(self.rate):.3g} of the paths are active for a sample. The standard deviation between "
            f"samples is {float(self.over_samples):.2g}; the assumption A5u-m says 0. A path is active for some share "
            f"of the samples; its standard deviation between paths is {float(self.over_paths):.2g}; A1p-m says 0. The "
            f"best multiple of the linear network with these weights differs from the output by "
            f"{100 * float(self.error):.3g} % of the output's norm."
        )

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def unit_masks(weights: Any, X: Any, *, output_relu: bool = False) -> list[Array]:
    """Return which units are active: 1 where a pre-activation is positive, 0 elsewhere, NaN where it is not finite.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l) of a ReLU network without biases.
        X: inputs (m, dx).
        output_relu: whether a ReLU acts on the output as well, as in K18 (2.6).

    Returns:
        A mask (m, d_l) for each hidden layer, and one for the output if it has a ReLU.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: an array does not hold real numbers.

    Example:
        >>> [mask.tolist() for mask in unit_masks([jnp.array([[1.0, -1.0]]), jnp.ones((2, 1))], jnp.ones((1, 1)))]
        [[[1.0, 0.0]]]
    """
    kernels, X = _checked(weights, X)
    masks, h = [], X
    for w in kernels if output_relu else kernels[:-1]:
        h = matmul(h, w)
        masks.append(jnp.where(jnp.isfinite(h), (h > 0).astype(h.dtype), jnp.nan))  # XLA takes 0 times NaN for 0
        h = h * masks[-1]
    return masks


def path_sum(weights: Any, X: Any, masks: Sequence[Any], q: Any = 1.0) -> Array:
    """Return the sum over all paths (K18 (2.8)) where Z_path is the product of the masks of the path's units.

    The sum is contracted layer by layer: ``h <- (h W_l) * mask_l``. With the network's own masks this is its output.

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).
        masks: for each hidden layer an array (m, d_l), or (1, d_l) for all samples; any numbers. One more is the mask
            of the output.
        q: the factor of normalization.

    Returns:
        (m, dy).

    Raises:
        ValueError: the shapes do not fit, or there are too few or too many masks.
        TypeError: an array does not hold real numbers.

    Example:
        >>> path_sum([jnp.ones((2, 3)), jnp.ones((3, 1))], jnp.ones((1, 2)), [jnp.ones((1, 3))]).tolist()  # 6 paths
        [[6.0]]
    """
    kernels, X = _checked(weights, X)
    masks = [real("masks", mask) for mask in masks]
    shapes = [mask.shape for mask in masks]
    fits = all(
        len(s) == 2 and s[0] in (1, len(X)) and s[1] == w.shape[1] for s, w in zip(shapes, kernels, strict=False)
    )
    if len(masks) not in (len(kernels) - 1, len(kernels)) or not fits:
        wanted = [(len(X), w.shape[1]) for w in kernels]
        raise ValueError(
            f"masks: Expected: shapes {wanted[:-1]}, and {wanted[-1]} for a ReLU at the output. Received: {shapes}."
        )
    h = X
    for l, w in enumerate(kernels):
        h = matmul(h, w)
        h = h * masks[l] if l < len(masks) else h
    return q * h


def expected_output(weights: Any, X: Any, rho: Any, q: Any = None) -> Array:
    """Return ``E Yhat = q rho X W_1 ... W_{H+1}`` for masks with ``E[Z_path | X, W] = rho`` (K18 Theorem 2.6).

    No independence between paths is needed.

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).
        rho: the probability that a path is active, above 0 (the smallest normal number) and up to 1. A traced one
            outside of it gives NaN.
        q: the factor of normalization; None is ``1 / rho``, as in the theorem.

    Returns:
        (m, dy).

    Raises:
        ValueError: the shapes do not fit, or rho is a number outside of (0, 1].
        TypeError: an array does not hold real numbers.

    Example:
        >>> expected_output([jnp.eye(2), 2 * jnp.eye(2)], jnp.ones((1, 2)), rho=0.5).tolist()
        [[2.0, 2.0]]
    """
    kernels, X = _checked(weights, X)
    rho, q = _factors(rho, q, X.dtype)
    return q * rho * deep_linear.predict(kernels, X)


def reduce(weights: Any, X: Any, Y: Any, rho: Any, q: Any = None) -> Reduction:
    """Return the deep linear problem whose loss is ``1/2 ||E Yhat - Y||^2`` (K18 Theorem 2.6).

    Hand it to the functions of `deep_linear`, such as ``deep_linear.classify(*reduce(weights, X, Y, rho))``.

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).
        Y: targets (m, dy).
        rho: as in `expected_output`.
        q: as in `expected_output`.

    Returns:
        A `Reduction`.

    Raises:
        ValueError: the shapes do not fit, or rho is a number outside of (0, 1].
        TypeError: an array does not hold real numbers.

    Example:
        >>> X, Y = jnp.eye(2), jnp.diag(jnp.array([3.0, 1.0]))
        >>> deep_linear.classify(*reduce([jnp.zeros((2, 2))] * 3, X, Y, rho=0.25)).kind
        'saddle'
    """
    kernels, X = _checked(weights, X)
    Y = real("Y", Y)
    check_data(X, Y)
    if Y.shape[1] != kernels[-1].shape[1]:
        raise ValueError(f"Y: Expected: {kernels[-1].shape[1]} columns. Received: {Y.shape[1]}.")
    rho, q = _factors(rho, q, X.dtype)
    return Reduction(kernels, q * rho * X, Y)


def total_variance(weights: Any, X: Any, rho: Any, q: Any = None, *, output_relu: bool = False) -> Scalar:
    """Return ``sum over samples and outputs of Var Yhat`` for unit masks that are independent Bernoulli numbers.

    Each unit is active with the probability ``p = rho^{1/H}``, so that a path is active with rho. The expected loss is
    larger than the loss of the expectation by half of this: ``E 1/2 ||Yhat - Y||^2 = 1/2 ||E Yhat - Y||^2 + 1/2 Var``.
    The second moments ``S = E h h^T`` of a sample go through a layer as ``W^T S W``, times p on the diagonal and p^2
    elsewhere.

    Array function: pure, works under `jit`, `vmap` and `grad`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).
        rho: as in `expected_output`.
        q: as in `expected_output`.
        output_relu: whether the outputs have masks as well; then ``p = rho^{1/(H+1)}``.

    Raises:
        ValueError: the shapes do not fit, rho is a number outside of (0, 1], or there is no layer with masks.
        TypeError: an array does not hold real numbers.

    Example:
        >>> W = [jnp.ones((1, 1)), jnp.ones((1, 1))]  # one path: 1/rho with probability rho, else 0
        >>> float(total_variance(W, jnp.ones((1, 1)), rho=0.25))
        3.0
    """
    kernels, X = _checked(weights, X)
    rho, q = _factors(rho, q, X.dtype)
    return _total_variance(kernels, X, rho, q, _masked(kernels, output_relu))


@partial(jax.jit, static_argnums=4)  # outside of a program, every call would compile the loop again
def _total_variance(kernels: list[Any], X: Any, rho: Any, q: Any, masked: int) -> Scalar:
    p = rho ** (1 / masked)

    def of_sample(x: Any) -> Any:
        # The covariance is carried, not the second moment, from which the squared mean would have to be subtracted.
        mean, covariance = x[None], jnp.zeros((len(x), len(x)), x.dtype)
        for l, w in enumerate(kernels):
            mean, covariance = matmul(mean, w), matmul(w.T, matmul(covariance, w))
            if l < masked:
                noise = jnp.diagonal(covariance) + jnp.square(mean[0])
                mean, covariance = p * mean, p**2 * covariance + (p - p**2) * jnp.diag(noise)
        return jnp.trace(covariance)

    return q**2 * jnp.sum(jax.lax.map(of_sample, X))


def monte_carlo(
    weights: Any, X: Any, rho: Any, key: Any, samples: int = 1000, q: Any = None, *, output_relu: bool = False
) -> Estimate:
    """Estimate the expected output from random unit masks, each active with the probability ``rho^{1/H}``.

    The masks of a draw are shared by all inputs and outputs.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l).
        X: inputs (m, dx).
        rho: as in `expected_output`.
        key: the random key.
        samples: the number of draws, at least 2.
        q: as in `expected_output`.
        output_relu: whether the outputs have masks as well; then a unit is active with ``rho^{1/(H+1)}``.

    Returns:
        An `Estimate` with the mean and its standard error.

    Raises:
        ValueError: the shapes do not fit, rho is a number outside of (0, 1], there are fewer than 2 draws, or there is
            no layer with masks.
        TypeError: an array does not hold real numbers, or the key is no random key.

    Example:
        >>> found = monte_carlo([jnp.eye(2), jnp.eye(2)], jnp.ones((1, 2)), 0.5, jax.random.key(0))
        >>> bool(jnp.all(jnp.abs(found.mean - 1) < 4 * found.error))
        True
    """
    kernels, X = _checked(weights, X)
    samples, key = integer("samples", samples, 2), typed_key(key)
    rho, q = _factors(rho, q, X.dtype)
    return _monte_carlo(kernels, X, rho, q, key, samples, _masked(kernels, output_relu))


@partial(jax.jit, static_argnums=(5, 6))
def _monte_carlo(kernels: list[Any], X: Any, rho: Any, q: Any, key: Any, samples: int, masked: int) -> Estimate:
    widths = [w.shape[1] for w in kernels[:masked]]
    p = rho ** (1 / masked)

    def draw(carry: Any, key: Any) -> tuple[Any, None]:
        count, mean, spread = carry
        keys = jax.random.split(key, len(widths))
        masks = [jax.random.bernoulli(k, p, (1, d)).astype(X.dtype) for k, d in zip(keys, widths, strict=True)]
        found = path_sum(kernels, X, masks, q)
        # Welford's recursion, which does not cancel.
        change = found - mean
        mean = mean + change / (count + 1)
        return (count + 1, mean, spread + change * (found - mean)), None

    zero = jnp.zeros((len(X), kernels[-1].shape[1]), X.dtype)
    (_, mean, spread), _ = jax.lax.scan(draw, (jnp.zeros((), X.dtype), zero, zero), jax.random.split(key, samples))
    return Estimate(mean, jnp.sqrt(spread / (samples * (samples - 1))))


def path_activity(weights: Any, X: Any) -> PathActivity:
    """Measure which paths of a ReLU network are active, and how far this is from the assumptions of Theorem 2.6.

    Nothing is listed: the mean over all paths of the squared share of samples is the mean over pairs of samples of the
    product over layers of their common shares of active units.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l), with at least one hidden layer.
        X: inputs (m, dx).

    Returns:
        A `PathActivity`.

    Raises:
        ValueError: the shapes do not fit, or there is no hidden layer.
        TypeError: an array does not hold real numbers.

    Example:
        >>> found = path_activity([jnp.array([[1.0, -1.0]]), jnp.ones((2, 1))], jnp.array([[1.0], [-1.0]]))
        >>> float(found.rate), float(found.over_samples), float(found.over_paths), float(found.error)
        (0.5, 0.0, 0.0, 1.0)
    """
    kernels, X = _checked(weights, X)
    if len(kernels) < 2:
        raise ValueError("weights: Expected: at least one hidden layer. Received: one kernel.")
    return _path_activity(kernels, X)


@jax.jit
def _path_activity(kernels: list[Any], X: Any) -> PathActivity:
    masks = unit_masks(kernels, X)
    output, linear = path_sum(kernels, X, masks), deep_linear.predict(kernels, X)
    whole = linalg.norm(output)
    known = jnp.where(jnp.isfinite(whole), 1, jnp.nan)
    shares = known * jnp.stack([jnp.mean(mask, axis=1) for mask in masks])
    by_sample = jnp.prod(shares, axis=0)
    rate = jnp.mean(by_sample)
    variance = _common(masks) - jnp.square(rate)
    size = linalg.norm(linear)
    direction = linear / jnp.where(size > 0, size, 1)  # squares of small outputs would underflow
    along = jnp.sum(output * direction)
    return PathActivity(
        layers=jnp.mean(shares, axis=1),
        by_sample=by_sample,
        rate=rate,
        over_samples=jnp.std(by_sample),
        over_paths=jnp.sqrt(jnp.maximum(variance, 0)),
        factor=along / jnp.where(size > 0, size, 1),
        error=linalg.norm(output - along * direction) / jnp.where(whole > 0, whole, 1),
    )


def _common(masks: list[Any]) -> Any:
    """Return the mean over pairs of samples of the product over layers of the share of units active for both."""
    m, dtype = len(masks[0]), masks[0].dtype
    rows = max(min(m, _MEMORY // (m * dtype.itemsize)), 1)
    chunks = -(-m // rows)
    padded = [jnp.pad(mask, ((0, chunks * rows - m), (0, 0))).reshape(chunks, rows, -1) for mask in masks]

    def of_chunk(part: list[Any]) -> Any:
        product = jnp.ones((rows, m), dtype)
        for own, mask in zip(part, masks, strict=True):
            product = product * (matmul(own, mask.T) / mask.shape[1])
        return jnp.sum(product)

    return jnp.sum(jax.lax.map(of_chunk, padded)) / m**2


def _checked(weights: Any, X: Any) -> tuple[list[Any], Any]:
    """Return kernels and inputs as arrays that fit."""
    kernels = [real("weights", w) for w in kernels_of(weights)]
    X = real("X", X)
    if X.ndim != 2 or X.shape[1] != kernels[0].shape[0] or not X.size:
        raise ValueError(f"X: Expected: shape (m, {kernels[0].shape[0]}). Received: {X.shape}.")
    if any(0 in w.shape for w in kernels):
        raise ValueError(f"weights: Expected: at least one unit in each layer. Received: {[w.shape for w in kernels]}.")
    return kernels, X


def _masked(kernels: list[Any], output_relu: bool) -> int:
    """Return the number of layers whose units have masks."""
    if len(kernels) == 1 and not output_relu:
        raise ValueError(
            "weights: Expected: at least one hidden layer, or output_relu=True, since paths without a masked unit are "
            "always active. Received: one kernel."
        )
    return len(kernels) - (not output_relu)


def _factors(rho: Any, q: Any, dtype: Any) -> tuple[Any, Any]:
    """Return rho and q as arrays. A rho outside of (0, 1] is an error, or NaN where it is traced."""
    least = linalg.smallest_normal(dtype)  # 1 / rho has to be a number
    if not is_traced(rho):
        rho = number("rho", rho, f"a number above {least:.3g} and up to 1", lambda v: least < v <= 1)
    rho = jnp.asarray(rho, dtype)
    rho = jnp.where((rho > least) & (rho <= 1), rho, jnp.nan)
    return rho, 1 / rho if q is None else jnp.asarray(q, dtype)
