"""J, half the squared distance from targets to tangent space (KHK19 Theorem 1), for any differentiable model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.linalg.tolerances import check_criterion
from globopt_jax.local_minima.balance import balanced
from globopt_jax.local_minima.inputs import check, prediction
from globopt_jax.local_minima.jacobian import model_of
from globopt_jax.local_minima.mesh import on_automatic_mesh
from globopt_jax.local_minima.passes import MEMORY, Jacobian, faint_words, kink_words, kinks_of
from globopt_jax.local_minima.spaces import METHODS, NOT_CONVERGED, projected
from globopt_jax.shapes import Array

__all__ = ["TangentProjection", "tangent_projection"]


class TangentProjection(NamedTuple):
    """The targets, the prediction and the residual projected onto the tangent space; arrays only (NumPy).

    The tangent space is the column space of A, the Jacobian of the output in all parameters. Singular values are those
    of A for a network at one scale, see `tangent_projection`.
    """

    value: Array
    """``J = 1/2 ||PN[A] vec Y||^2``, half the squared distance from the targets to the tangent space."""
    rank: Array
    """The numerical rank of A."""
    loss: Array
    """The loss ``1/2 ||Yhat - Y||^2``."""
    gap: Array
    """The tangent gap ``1/2 ||P[A] vec(Y - Yhat)||^2``, the part of the loss inside the tangent space. It is 0 exactly
    at stationary points; ``loss - gap = value`` where Yhat lies in the tangent space."""
    outside: Array
    """``||PN[A] vec Yhat||``: 0 where Yhat lies in the tangent space, as for every network with a linear last layer."""
    size: Array
    """``||vec Yhat||``."""
    cutoff: Array
    """The value at or below which singular values of A count as zero."""
    largest: Array
    """The largest singular value of A."""
    smallest: Array
    """The smallest singular value above the cutoff; an estimate by "gram" and "dual"."""
    resolution: Array
    """The fraction of the largest singular value below which others cannot be told from rounding."""
    inside: Array
    """The part of the projected-out arrays that the iteration left in the tangent space, relative to the data. J is off
    by its square (by "dual" at most by about its value), and by the effect of rounding on A's weakest directions."""
    kinks: Array
    """The number of pre-activations at which the activation has no derivative and 0 is taken; -1 where unknown."""
    faint: Array
    """For each layer of a `networks.feed_forward`, or each leaf of other parameters: how many columns of A are not
    zero, and so small that the cutoff hides directions among them that are weaker than sqrt(eps)."""
    steps: Array
    """The number of steps of the iteration."""
    converged: Array
    """A 0-d bool: whether the iteration converged."""
    method_code: Array
    """The index in `METHODS` of the method; ``.method`` is its name."""

    @property
    def method(self) -> str:
        """How the projection was computed, one of `METHODS`."""
        return METHODS[int(self.method_code)]

    @property
    def reason(self) -> str:
        """The result in a few sentences."""
        words = [
            f"J, half the squared distance from the targets to the tangent space of rank {int(self.rank)}, is "
            f"{float(self.value):.10g}. The loss is {float(self.loss):.10g}, and the tangent gap, its part inside the "
            f"tangent space, {float(self.gap):.3g}."
        ]
        if float(self.outside) > float(self.resolution) ** 0.5 * float(self.size):
            words.append(
                f"The prediction does not lie in the tangent space (its part outside has norm "
                f"{float(self.outside):.3g}): loss and J need not agree at stationary points."
            )
        if int(self.kinks):
            words.append(kink_words(int(self.kinks)))
        if np.any(self.faint):
            words.append(faint_words(self.faint, "layers, or leaves of params"))
        if self.value.dtype == np.float32:
            words.append(
                f"In float32 singular values below {float(self.resolution):.2g} of the largest cannot be told from "
                "rounding, and J is uncertain by the part of the targets along their directions."
            )
        if not bool(self.converged):
            words.append(NOT_CONVERGED)
        return " ".join(words)

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


@on_automatic_mesh
def tangent_projection(
    apply: Callable[[Any, Any], Any],
    params: Any,
    X: Any,
    Y: Any,
    method: str = "auto",
    cutoff: str = "press",
    *,
    memory: int = MEMORY,
) -> TangentProjection:
    """Compute J, half the squared distance from the targets to the tangent space, with rank, loss and tangent gap.

    ``J = 1/2 ||PN[A] vec Y||^2``, where A (m dy, N) is the Jacobian of ``apply(params, X)`` in its N parameters and
    PN[A] projects onto the orthogonal complement of its column space, the tangent space. At a differentiable local
    minimum of a network with a linear last layer, the loss equals J (KHK19 Theorem 1; a stationary point is enough).
    At every point of such a network ``loss - J = 1/2 ||P[A] vec(Y - Yhat)||^2 >= 0``, the tangent gap.

    Scale: with a piecewise linear activation, J and rank do not depend on how the scale is spread over units and
    layers. Multiplying the weights into a hidden unit by a > 0 and dividing the weights out of it by a, or multiplying
    the whole last kernel by a, leaves the column space of A unchanged; powers of two undo such scaling before any
    cutoff is taken. Other models are not rescaled; ``faint`` counts the columns that the cutoff may hide.

    Accuracy: J is as accurate as by a singular value decomposition in the dtype of the data. The rank agrees with that
    decomposition too, where singular values differ from the cutoff by a factor of ten. In float32, singular values
    below ``resolution`` times the largest (8e-6 for the digits) cannot be told from noise, and J differs from its
    float64 value by the part of the targets along these directions. In float64, rounding may keep "dual" from
    converging where the condition of A (the largest singular value by the smallest one above the cutoff) exceeds 1e10;
    ``converged`` says so.

    Memory: only "dense" stores A. "gram" and "dual" store four matrices with the smaller side of A squared. They take
    the Gram matrix, which only serves as a preconditioner (`linalg.columns`), images and residuals from passes over
    chunks of samples, and for `networks.feed_forward` from the structure of its Jacobian.

    Host function: jits inside, with one compilation for every shape, and a few for the number of dependent columns.
    `apply` is a static argument: pass the same function object at every call; values that it closes over are frozen at
    the first call. Samples may be sharded over devices.

    Args:
        apply: a differentiable function (params, X) -> Yhat that treats samples one by one (no batch statistics).
        params: a pytree of arrays.
        X: inputs (m, ...). They are cast to floats; a model that needs integers casts them back.
        Y: targets (m, dy).
        method: "dense" (singular value decomposition), "gram" (N columns), "dual" (m dy rows), or "auto", which takes
            "dense" if A has up to 300,000 entries, or up to 4,000,000 with at most 64 columns or rows, and otherwise
            the smaller side. Where this does not converge, "auto" takes "dense" for up to 4,000,000 entries with at
            most 500 columns or rows.
        cutoff: which singular values of A count as zero, see `linalg.cutoff`.
        memory: the bytes that the chunks of a pass may take.

    Returns:
        A `TangentProjection`.

    Raises:
        ValueError: `method` or `cutoff` is unknown, or `memory` is not positive.
        ValueError: an array holds NaN or inf.
        ValueError: the outputs do not fit Y, or the output of a sample depends on other samples.
        ValueError: numbers are so large or small that their squares overflow or underflow.
        TypeError: an array or a leaf of params does not hold real numbers.

    Example:
        >>> from globopt_jax import networks
        >>> X, Y = jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [0.0]])
        >>> found = tangent_projection(networks.feed_forward("linear"), [jnp.array([[2.0]])], X, Y)
        >>> round(float(found.value), 6), int(found.rank), round(float(found.loss), 6), found.method
        (0.4, 1, 8.5, 'dense')
    """
    check_criterion(cutoff)
    params, X, Y = check(apply, params, X, Y, method, memory)
    model = model_of(apply)
    point = balanced(model, params)
    A = Jacobian(model, point.params, X, Y.shape[1], int(memory))
    predicted = prediction(model, point, X)
    # Y is projected by itself, so that the accuracy of J does not depend on the prediction.
    right = jnp.stack([Y, Y - predicted, predicted], axis=-1)
    space, found = projected(A, method, cutoff, right)
    value, loss, gap, beside = map(np.asarray, _numbers(right, found.outside))
    dtype = np.dtype(X.dtype)
    return TangentProjection(
        value=value,
        rank=np.asarray(space.rank),
        loss=loss,
        gap=gap,
        outside=beside,
        size=np.asarray(linalg.norm(predicted)),
        cutoff=np.asarray(space.cutoff, dtype),
        largest=np.asarray(space.largest, dtype),
        smallest=np.asarray(space.smallest, dtype),
        resolution=np.asarray(space.resolution, dtype),
        inside=np.asarray(found.inside, dtype),
        kinks=np.asarray(kinks_of(model, point.params, X, memory)),
        faint=space.faint,
        steps=np.asarray(found.steps),
        converged=np.asarray(found.converged and space.converged),
        method_code=np.asarray(METHODS.index(space.method)),
    )


@jax.jit
def _numbers(right: Array, outside: Array) -> tuple[Array, Array, Array, Array]:
    """Return J, loss, tangent gap and the norm of the prediction's part outside the tangent space.

    `right` is (Y, residual, prediction); `outside` is the part of each outside the tangent space.
    """

    def half(a: Any) -> Any:
        return 0.5 * jnp.sum(jnp.square(a))

    residual, left = right[..., 1], outside[..., 1]
    within = residual - left
    # The parts are orthogonal. If their product is more than its rounding, the projection is off inside the space, and
    # with the product this error enters squared. Otherwise the product would drown a tiny gap.
    product = jnp.sum(within * left)
    rounding = 10 * jnp.finfo(left.dtype).eps * linalg.norm(left) * linalg.norm(residual)
    gap = jnp.maximum(half(within) + jnp.where(jnp.abs(product) > rounding, product, 0), 0)
    return half(outside[..., 0]), half(residual), gap, linalg.norm(outside[..., 2])
