"""J, what the tangent space of a network leaves of the targets (KHK19 Theorem 1), for any differentiable model."""

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
from globopt_jax.local_minima.spaces import METHODS, NOT_CONVERGED, space_of
from globopt_jax.shapes import Array

__all__ = ["TangentProjection", "tangent_projection"]


class TangentProjection(NamedTuple):
    """What the tangent space at a point says; arrays only (NumPy), `.method` and `.reason` are read off them.

    ``value``: ``J = 1/2 ||PN[A] vec Y||^2``, A the Jacobian of the output in all parameters. ``rank``: of A. ``loss``:
    ``1/2 ||Yhat - Y||^2``. ``gap``: the tangent gap ``1/2 ||P[A] vec(Y - Yhat)||^2``, 0 exactly at stationary points;
    ``loss - gap = value`` where Yhat lies in the tangent space. ``outside``: ``||PN[A] vec Yhat||``, which is 0 then,
    and for every network whose last layer is linear. ``size``: ``||vec Yhat||``. ``cutoff``, ``largest``: of the
    singular values of A, and ``smallest``: the smallest that counts, roughly for "gram"
    and "dual", which need not know it. ``resolution``: singular values below that
    part of the largest cannot be told from rounding. ``inside``: relative to the data, what the iteration left in the
    tangent space; J is off by its square (by "dual" at most by about itself), and by what rounding of the Jacobian does
    to its weakest directions.
    ``kinks``: pre-activations without a derivative, where 0 is taken; -1: unknown. ``faint``: of each layer of a
    `networks.feed_forward`, of each leaf of other parameters, how many columns of A are not zero and so small that the
    cutoff hides what is weaker than sqrt(eps) in them. ``steps``: of the iteration. ``converged``: bool.

    The singular values are those of A for a network at one scale, see `tangent_projection`.
    """

    value: Array
    rank: Array
    loss: Array
    gap: Array
    outside: Array
    size: Array
    cutoff: Array
    largest: Array
    smallest: Array
    resolution: Array
    inside: Array
    kinks: Array
    faint: Array
    steps: Array
    converged: Array
    method_code: Array

    @property
    def method(self) -> str:
        """One of `METHODS`."""
        return METHODS[int(self.method_code)]

    @property
    def reason(self) -> str:
        """The result in a few sentences."""
        words = [
            f"The tangent space of rank {int(self.rank)} leaves J = {float(self.value):.10g} of the targets; the loss "
            f"is {float(self.loss):.10g}, and its tangent gap {float(self.gap):.3g}."
        ]
        if float(self.outside) > float(self.resolution) ** 0.5 * float(self.size):
            words.append(
                f"The prediction does not lie in the tangent space ({float(self.outside):.3g} of it is outside): loss "
                "and J need not agree at stationary points."
            )
        if int(self.kinks):
            words.append(kink_words(int(self.kinks)))
        if np.any(self.faint):
            words.append(faint_words(self.faint, "layers, or leaves of params"))
        if self.value.dtype == np.float32:
            words.append(
                f"In float32 singular values below {float(self.resolution):.2g} of the largest cannot be told from "
                "rounding, nor what lies there of J."
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
    """Return ``J = 1/2 ||PN[A] vec Y||^2``: the loss of every local minimum with this point's tangent space.

    A (m dy, N) is the Jacobian of ``apply(params, X)`` in its N parameters. At a differentiable local minimum of a
    network with a linear last layer the loss is J (KHK19 Theorem 1; stationarity is enough), and everywhere
    ``loss - J = 1/2 ||P[A] vec(Y - Yhat)||^2 >= 0``.

    A is never stored but by "dense". The others need four matrices of the smaller side squared, and take Gram matrix,
    images and residuals from passes over chunks of samples; for `networks.feed_forward` from the structure of its
    Jacobian. Numerical rank (where singular values keep a factor of ten from the cutoff) and accuracy are those of a
    singular value decomposition in the dtype computed in: the Gram matrix only preconditions (`linalg.columns`). In
    float32 singular values below ``resolution`` of the largest (8e-6 for the digits) cannot be told from noise, and J
    differs from that in float64 by what lies there.

    With a piecewise linear activation, the weights into a hidden unit times a > 0, those out of it divided by a, and
    the whole last kernel times a leave the column space of A alone, and are undone by powers of two before any cutoff:
    J and rank do not depend on how the scale is spread over units and layers. Other models cannot be rescaled; what
    they may lose is ``faint``.

    Host function: jits inside, one compilation a shape, and a few for how much of A depends on the rest. A function is
    compiled for as itself: make it once, not anew for every call, and what it holds is what it held at the first one.
    Samples may be sharded over devices.

    Args:
        apply: ``(params, X) -> Yhat``, differentiable, sample by sample (no batch statistics).
        params: a pytree of floats. X: (m, ...), made floats; what wants integers casts them back. Y: (m, dy).
        method: "dense" (singular value decomposition), "gram" (N columns), "dual" (m dy rows), or "auto": dense if A is
            small, else the smaller side. In sweeps name it: from about 150 columns or rows on, where "auto" still takes
            "dense", "gram" (many samples) and "dual" (many parameters) need a third to a tenth of its time.
        cutoff: which singular values of A count as zero, see `linalg.cutoff`.
        memory: bytes for the chunks of a pass.

    Raises:
        ValueError: an unknown method or cutoff, NaN or inf, outputs that do not fit Y or that depend on other samples,
            numbers whose squares overflow or vanish, a budget that is not positive.
        TypeError: arrays that are not real numbers, params with leaves that are not.

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
    space = space_of(A, method, cutoff)
    # Y by itself: J does not depend on the prediction, and its accuracy is not to, either.
    right = jnp.stack([Y, Y - predicted, predicted], axis=-1)
    found = space.project_out(right)
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
    """J, loss, tangent gap and what of the prediction is outside, from (Y, residual, prediction) and what is left."""

    def half(a: Any) -> Any:
        return 0.5 * jnp.sum(jnp.square(a))

    residual, left = right[..., 1], outside[..., 1]
    return half(outside[..., 0]), half(residual), half(residual - left), linalg.norm(outside[..., 2])
