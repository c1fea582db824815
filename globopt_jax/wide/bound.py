"""A bound on the loss at any point of a network, from the gradient of one layer (Nguyen & Hein 2018, Lemma 4.3)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.inputs import all_finite, check_data, in_one_dtype, integer, real
from globopt_jax.linalg import lapack, matmul
from globopt_jax.networks import FeedForward, Layer, layers_of
from globopt_jax.shapes import Array, Scalar
from globopt_jax.wide.catalogue import network_of
from globopt_jax.wide.passes import Backward, Forward, Known, backward, forward, in_range, known, longest

__all__ = ["MEMORY", "LossBounds", "checked", "concrete", "loss_bound", "loss_bounds"]

#: The bytes that the matrices of a bound may take by default.
MEMORY = 256 * 2**20


class LossBounds(NamedTuple):
    """Upper bounds of ``1/2 ||F_L - Y||^2``, an entry for each layer k = 0..L-1 whose gradient they are from.

    A bound is inf where its constant c is zero up to rounding.
    """

    product: Array
    """(L,): the bounds of the product form: singular values of kernels times smallest slopes."""
    per_sample: Array
    """(L,): the bounds of the per-sample form: the smallest singular value of each sample's Jacobian."""
    kernel: Array
    """(L,): the bounds of the kernel form: the smallest eigenvalue of the tangent kernel of the layer."""
    gradient: Array
    """(L,): the norm of the gradient of layer k + 1, enlarged by its rounding error."""
    loss: Array
    """The loss itself."""
    best: Array
    """The smallest of all bounds."""
    layer: Array
    """The layer k of the smallest bound."""

    @property
    def reason(self) -> str:
        """The bounds in a sentence."""
        if not np.isfinite(self.loss):
            return f"The loss is {float(self.loss):.6g}, and nothing is known of it: a number is NaN, or overflows."
        if not np.isfinite(self.best):
            return (
                f"The loss is {float(self.loss):.6g}, and no layer bounds it: constants are zero to rounding, a "
                "pre-activation is at a kink to rounding, or the scale of an array leaves no room for its squares."
            )
        return (
            f"The loss is {float(self.loss):.6g}, and it is at most {float(self.best):.6g}: the features of layer "
            f"{int(self.layer)} and the gradient of layer {int(self.layer) + 1} prove it."
        )

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def loss_bound(
    params: Any,
    X: Any,
    Y: Any,
    layer: int | None = None,
    activation: Any = "tanh",
    *,
    memory: int = MEMORY,
) -> Scalar:
    """Return an upper bound of ``1/2 ||F_L - Y||^2`` at any point: the smallest of `loss_bounds`.

    The loss is at most ``1/2 ||g||^2 / c^2``, where g is the gradient of layer k + 1. So at a critical point with c > 0
    the loss is zero, which is Theorem 3.4 of NH17 (k = 0) and the usable form of its Theorem 3.8.

    Array function: pure, works under `jit`, `vmap` and `grad`. The derivative is that of the bound without its margin
    for rounding.

    Args:
        params: a list of pairs (kernel (n_{l-1}, n_l), bias (n_l,) or None), or of kernels. The last layer is linear.
        X: inputs (N, dx).
        Y: targets (N, dy).
        layer: the layer k, from 0 (the inputs) to L - 1, whose features and next gradient are used. None takes the best
            of all layers.
        activation: tanh, sigmoid, softplus, or another name of `ACTIVATIONS`; or as in `networks.feed_forward`. The
            bound holds for any activation at points where it is differentiable.
        memory: the most bytes that the matrices of the kernel form may take. Beyond them the eigenvalues of K are
            computed, which resolve less, and where K does not fit either the form is left out.

    Returns:
        A scalar in units of the loss, never below the loss; inf where c is zero up to rounding, or where rounding may
        have crossed a kink of the activation, or where an array is so large or small that products of its entries may
        overflow or underflow. It accounts for its own rounding errors, given that the activation is evaluated to 16
        eps, that its second derivative is nowhere larger than 1.1 times what it is on a fine grid from -30 to 30, and
        that singular values are computed to `linalg.factorization_error`; none of this is proved.

    Raises:
        ValueError: the shapes do not fit, the layer is out of range, or the activation is unknown.
        TypeError: an array does not hold real numbers.

    References:
        Nguyen & Hein 2017, Theorems 3.4 and 3.8; Nguyen & Hein 2018 (arXiv 1710.10928), Lemma 4.3.

    Example:
        >>> X, Y = jnp.eye(2), jnp.array([[1.0], [0.0]])
        >>> params = [(jnp.eye(2), jnp.zeros(2)), (jnp.ones((2, 1)), jnp.zeros(1))]
        >>> bound = loss_bound(params, X, Y, 0, "tanh")
        >>> loss = jnp.sum(jnp.square(jnp.tanh(X) @ jnp.ones((2, 1)) - Y)) / 2
        >>> bool(loss <= bound < 7 * loss)
        True
    """
    layers, X, Y = checked(params, X, Y)
    chosen = range(len(layers)) if layer is None else [checked_layer(layer, layers)]
    return _bounds(layers, X, Y, tuple(chosen), network_of(activation), memory).best


def loss_bounds(params: Any, X: Any, Y: Any, activation: Any = "tanh", *, memory: int = MEMORY) -> LossBounds:
    """Return upper bounds of ``1/2 ||F_L - Y||^2`` from the gradient of each layer, in three forms.

    Let ``Ft = [F_k, 1]`` be the features of layer k, F_k where layer k + 1 has no bias, and let g be the gradient of
    layer k + 1, bias included. Then ``loss <= 1/2 ||g||^2 / c^2`` for

    - ``product``: ``c = sigma_N(Ft) prod_{l=k+1}^{L-1} min |act'(G_l)| sigma_{n_{l+1}}(W_{l+1})``, which needs
      ``n_{k+1} >= n_{k+2} >= ... >= n_L``;
    - ``per_sample``: ``c = sigma_N(Ft) min_i sigma_{n_L}(J_i)`` with ``J_i = dF_L(i)/dG_{k+1}(i)``, which needs
      ``n_l >= n_L`` above layer k;
    - ``kernel``: ``c^2 = lambda_min(K)`` with ``K[(i,o),(j,p)] = (Ft Ft^T)_ij (J_i^T J_j)_op``, which needs no width in
      particular.

    Each form is at most the one before it, up to rounding. The singular values are the N-th and the n_L-th, which are 0
    where a matrix has fewer.

    Array function: pure, works under `jit` and `vmap`.

    Args:
        params: as in `loss_bound`.
        X: inputs (N, dx).
        Y: targets (N, dy).
        activation: as in `loss_bound`.
        memory: as in `loss_bound`.

    Returns:
        A `LossBounds`.

    Raises:
        ValueError: the shapes do not fit, or the activation is unknown.
        TypeError: an array does not hold real numbers.

    Example:
        >>> X, Y = jnp.eye(2), jnp.array([[1.0], [0.0]])
        >>> found = loss_bounds([(jnp.eye(2), jnp.zeros(2)), (jnp.ones((2, 1)), jnp.zeros(1))], X, Y)
        >>> bool(jnp.all(found.loss <= found.kernel) & jnp.all(found.kernel < 1.01 * found.product))
        True
    """
    layers, X, Y = checked(params, X, Y)
    return _bounds(layers, X, Y, tuple(range(len(layers))), network_of(activation), memory)


def concrete(params: Any, X: Any, Y: Any) -> tuple[Any, Any, Any]:
    """Return params, X and Y as arrays of one dtype, for functions that cannot be traced.

    Raises:
        ValueError: an array has NaN or inf, or its squares overflow.
        TypeError: an array does not hold real numbers, or is traced.
    """
    given = layers_of(params)
    named = [("X", X), ("Y", Y)]
    named += [(f"params[{l}][0]", w) for l, (w, _) in enumerate(given)]
    named += [(f"params[{l}][1]", b) for l, (_, b) in enumerate(given) if b is not None]
    arrays = dict(zip((name for name, _ in named), in_one_dtype(all_finite(named)), strict=True))
    pairs = [(arrays[f"params[{l}][0]"], arrays.get(f"params[{l}][1]")) for l in range(len(given))]
    return pairs, arrays["X"], arrays["Y"]


def checked(params: Any, X: Any, Y: Any) -> tuple[list[Layer], Any, Any]:
    """Return layers and data as arrays of one dtype, the widest of theirs, that fit together."""
    layers = [Layer(real("kernel", w), None if b is None else real("bias", b)) for w, b in layers_of(params)]
    X, Y = real("X", X), real("Y", Y)
    # The bounds of rounding errors are for one precision.
    dtype = max((a.dtype for a in jax.tree.leaves((layers, X, Y))), key=lambda dtype: dtype.itemsize)
    layers, X, Y = jax.tree.map(lambda a: a.astype(dtype), (layers, X, Y))
    check_data(X, Y)
    dx, dy = layers[0].kernel.shape[0], layers[-1].kernel.shape[1]
    if X.shape[1] != dx or Y.shape[1] != dy:
        raise ValueError(f"X, Y: Expected: {dx} inputs and {dy} targets. Received: {X.shape[1]} and {Y.shape[1]}.")
    if any(0 in layer.kernel.shape for layer in layers):
        raise ValueError(
            f"params: Expected: at least one unit in each layer. Received: {[w.shape for w, _ in layers]}."
        )
    return layers, X, Y


def checked_layer(layer: Any, layers: list[Layer]) -> int:
    """Return the layer k as an integer.

    Raises:
        ValueError: it is none, or out of range.
    """
    if isinstance(layer, str):
        raise ValueError(
            "layer: Expected: an integer; the activation is the argument after it, or activation=.... Received: "
            f"{layer!r}."
        )
    return integer("layer", layer, 0, len(layers) - 1)


@partial(jax.jit, static_argnums=(3, 4, 5))  # without jit a first call would take three times as long
def _bounds(
    layers: list[Layer], X: Any, Y: Any, chosen: tuple[int, ...], network: FeedForward, memory: int
) -> LossBounds:
    passed = forward(network, layers, X)
    found = backward(passed, layers, Y)
    rows = [_of_layer(passed, layers, found[k], k, memory) for k in chosen]
    sound = passed.smooth & in_range(passed, found, layers)
    *forms, gradient = (jnp.stack(column) for column in zip(*rows, strict=True))
    product, per_sample, kernel = (jnp.where(sound, form, jnp.inf) for form in forms)
    loss = 0.5 * jnp.sum(jnp.square(passed.output.value - Y))
    smallest = jnp.minimum(jnp.minimum(product, per_sample), kernel)
    layer = jnp.asarray(chosen, jnp.int32)[jnp.argmin(smallest)]
    return LossBounds(product, per_sample, kernel, gradient, loss, jnp.min(smallest), layer)


def _of_layer(passed: Forward, layers: list[Layer], found: Backward, k: int, memory: int) -> tuple[Any, Any, Any, Any]:
    """Return the three bounds of one layer, and the norm of its gradient."""
    g = linalg.norm(found.gradient.value) + found.gradient.error
    wide = _smallest(found.features, len(found.features.value))
    constants = (
        linalg.product_at_most([wide, *_through_kernels(passed, layers, k)], g.dtype),
        linalg.product_at_most([wide, _through_samples(found.jacobians)], g.dtype),
        _of_kernel(found, memory),
    )
    tiny = linalg.smallest_normal(g.dtype) ** 0.5
    bounds = []
    for c in constants:
        solid = (c > tiny) & jnp.isfinite(c) & jnp.isfinite(g)
        bounds.append(jnp.where(solid, 0.5 * jnp.square(g / jnp.where(solid, c, 1)), jnp.inf))
    return (*bounds, g)


def _smallest(M: Known, n: int) -> Array:
    """Return a lower bound of the n-th singular value of each matrix of a stack (..., p, q); 0 if there are fewer."""
    if min(M.value.shape[-2:]) < n:
        return jnp.zeros((), M.value.dtype)
    s = lapack.svd(M.value, compute_uv=False, full_matrices=False)
    rounding = linalg.factorization_error(max(M.value.shape[-2:]), M.value.dtype) * s[..., 0]
    return jnp.maximum(s[..., n - 1] - rounding - M.error, 0)


def _through_kernels(passed: Forward, layers: list[Layer], k: int) -> list[Any]:
    """Return factors of ``prod_{l=k+1}^{L-1} min |act'(G_l)| sigma_{n_{l+1}}(W_{l+1})`` without more than it."""
    dtype = passed.output.value.dtype
    factors, zero = [1 - 8 * len(layers) * linalg.machine_epsilon(dtype)], jnp.zeros((), dtype)
    for l in range(k + 1, len(layers)):
        slope = passed.slopes[l - 1]
        W = layers[l].kernel
        flattest = jnp.maximum(jnp.min(jnp.abs(slope.value)) - slope.error, 0)
        factors += [flattest, _smallest(known(W, zero), W.shape[1])]
    return factors


def _through_samples(J: Known) -> Array:
    """Return ``min_i sigma_{n_L}(J_i)`` without more than it."""
    return jnp.min(_smallest(J, J.value.shape[2]))


def _of_kernel(found: Backward, memory: int) -> Array:
    """Return the square root of ``lambda_min(K)`` without more than it; 0 where the memory does not suffice.

    K is ``M M^T`` with a row ``Ft_i (x) J_i[:, o]`` of M for each sample and output, and the singular values of M keep
    twice as many digits as the eigenvalues of K. Ft is replaced by its triangular factor, which has at most N columns.
    """
    F, J = found.features, found.jacobians
    (N, n), (_, q, dy) = F.value.shape, J.value.shape
    dtype, rows = F.value.dtype, N * dy
    if min(n, N) * q < rows:
        return jnp.zeros((), dtype)
    tallest, steepest = longest(F.value) + F.error, longest(J.value) + J.error
    rounding = linalg.factorization_error(max(n, N), dtype)
    error = steepest * (F.error + rounding * linalg.norm(F.value)) + tallest * J.error
    if 3 * rows * min(n, N) * q * dtype.itemsize <= memory:
        R = lapack.qr(F.value.T, mode="r") if n > N else F.value.T  # Ft Ft^T = R^T R
        M = jnp.einsum("an,nqo->noaq", R, J.value, precision="highest").reshape(rows, -1)
        error = error + linalg.machine_epsilon(dtype) * linalg.norm(M)
        return _smallest(known(M, error), rows)
    if 3 * rows**2 * dtype.itemsize <= memory:
        outputs = J.value.transpose(0, 2, 1).reshape(rows, q)
        K = jnp.repeat(jnp.repeat(matmul(F.value, F.value.T), dy, 0), dy, 1) * matmul(outputs, outputs.T)
        trace = jnp.trace(K)
        relative = linalg.product_rounding(n, dtype) + linalg.product_rounding(q, dtype)
        relative = relative + linalg.factorization_error(rows, dtype) + 2 * linalg.machine_epsilon(dtype)
        lowest = lapack.eigvalsh(K)[0] - 1.01 * relative * trace
        return jnp.maximum(jnp.sqrt(jnp.maximum(lowest, 0)) - error, 0)
    return jnp.zeros((), dtype)
