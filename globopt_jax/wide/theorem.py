"""Theorems 3.4 and 3.8 of NH17 at a point: do their hypotheses hold, and what follows?"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.networks import FeedForward, Layer
from globopt_jax.shapes import Array
from globopt_jax.wide.assumption import assumption
from globopt_jax.wide.bound import checked, checked_layer, concrete, loss_bounds
from globopt_jax.wide.catalogue import network_of
from globopt_jax.wide.passes import backward, forward, longest, residual

__all__ = ["KINDS", "Criticality", "classify"]

#: The kinds of points; `Criticality.code` is the index.
KINDS = ("global_minimum", "not_critical", "not_applicable", "undecided")
#: The most weights of a layer whose Hessian block is computed.
_BLOCK = 1500


class Criticality(NamedTuple):
    """What the theorems say of a point, and the evidence."""

    code: Array
    """The index of the kind; ``.kind`` is its name."""
    loss: Array
    """The loss ``1/2 ||F_L - Y||^2``."""
    most: Array
    """The loss if rounding hides as much of it as it can."""
    bound: Array
    """The upper bound of the loss that the gradient of layer k + 1 proves, see `loss_bound`."""
    stationarity: Array
    """The dimensionless gradient: the largest ``||g_k|| / (||Ft_k||_2 max_i ||J_i|| ||Y||)`` of a layer."""
    tolerance: Array
    """The stationarity, and the loss relative to ``1/2 ||Y||^2``, up to which a value counts as zero: sqrt(eps)."""
    layer: Array
    """The layer k."""
    samples: Array
    """The number N of samples."""
    rank: Array
    """The numerical rank of ``[F_k, 1]``, or of F_k where layer k + 1 has no bias; the theorems need N."""
    conditions: Array
    """The condition numbers of ``[F_k, 1]`` and of the kernels ``W_{k+2}..W_L``; inf where the rank is not full."""
    full_ranks: Array
    """(L - k - 1,): bool, whether each of ``W_{k+2}..W_L`` has full column rank."""
    parts: Array
    """(2,): bool, whether parts 1 and 2 of Assumption 3.2 hold, on the samples and on the activation. Part 3 is on the
    loss, and the squared loss satisfies it."""
    possible: Array
    """Whether the Hessian block of Theorem 3.8 can be non-singular at a point of zero loss. True for k = 0, where
    Theorem 3.4 needs no Hessian."""
    hessian: Array
    """The smallest over the largest singular value of the Hessian block of layer k + 1; nan where k = 0, or where the
    layer has more than 1,500 weights."""

    @property
    def kind(self) -> str:
        """One of "global_minimum", "not_critical", "not_applicable", "undecided"."""
        return KINDS[int(self.code)]

    @property
    def assumption(self) -> bool:
        """Whether Assumption 3.2 holds."""
        return bool(np.all(self.parts))

    @property
    def reason(self) -> str:
        """The verdict in a few sentences."""
        return " ".join(_sentences(self))

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def classify(params: Any, X: Any, Y: Any, layer: int = 0, activation: Any = "tanh") -> Criticality:
    """Say what Theorem 3.4 (layer 0) or Theorem 3.8 (layer k >= 1) of NH17 implies at a point.

    The kind is

    - "global_minimum" if the loss, rounding included, is at most the tolerance times ``1/2 ||Y||^2``, since no loss is
      below 0;
    - "not_critical" if the loss is larger and the gradient is not zero;
    - "not_applicable" if the gradient is zero and a hypothesis fails: a part of Assumption 3.2, the rank N of
      ``[F_k, 1]``, or the full column rank of one of ``W_{k+2}..W_L``;
    - "undecided" if the hypotheses hold. Then an exact critical point would have no loss, so that the point lies near
      a minimum of a badly conditioned problem. The bound says how much loss its gradient allows. The kind is the same
      where the computed loss is as small as at a global minimum, and rounding may hide more.

    For k >= 1 the printed Theorem 3.8 replaces the rank of ``[F_k, 1]`` by ``n_k >= N - 1`` and a non-singular block of
    the Hessian. ``.reason`` says whether that can hold at a point without loss: only if ``n_k = N - 1`` and
    ``n_{k+1} = n_L``.

    Host function.

    Args:
        params: pairs (kernel, bias), as in `loss_bound`.
        X: inputs (N, dx).
        Y: targets (N, dy), not all zero.
        layer: the layer k, from 0 to L - 1.
        activation: a name of `ACTIVATIONS`, or an activation of your own in `smooth`.

    Returns:
        A `Criticality`; `.kind` and `.reason` are the verdict.

    Raises:
        ValueError: the shapes do not fit, an array has NaN or inf, the targets are all zero, or the activation is
            unknown.
        TypeError: an array does not hold real numbers.

    References:
        Nguyen & Hein 2017, Theorems 3.4 and 3.8.

    Example:
        >>> X, Y = np.eye(3), np.array([[1.0], [-1.0], [2.0]])
        >>> params = [(np.eye(3), np.zeros(3)), (np.zeros((3, 1)), np.zeros(1))]  # no signal goes through zeros
        >>> classify(params, X, Y, layer=0).kind
        'not_critical'
    """
    layers, X, Y = checked(*concrete(params, X, Y))
    k = checked_layer(layer, layers)
    if not bool(jnp.any(Y)):
        raise ValueError("Y: Expected: targets that are not all zero. Received: zeros.")
    assumed = assumption(np.asarray(X), activation)
    network = network_of(activation)
    found = _evidence(network, k, layers, X, Y)
    Ft, kernels = found.features, [w for w, _ in layers[k + 1 :]]
    tolerance = linalg.decision_tolerance(Y.dtype)
    full = [int(linalg.numerical_rank(w)) == w.shape[1] for w in kernels]
    rank = int(linalg.numerical_rank(Ft))
    scale = 0.5 * float(jnp.sum(jnp.square(Y)))
    if float(found.most) <= tolerance * scale:
        kind = "global_minimum"
    elif float(found.loss) <= tolerance * scale:
        kind = "undecided"
    elif float(found.stationarity) > tolerance:
        kind = "not_critical"
    else:
        kind = "undecided" if assumed.holds and rank == len(X) and all(full) else "not_applicable"
    widths = [X.shape[1], *(w.shape[1] for w, _ in layers)]
    return Criticality(
        code=np.asarray(KINDS.index(kind), np.int32),
        loss=np.asarray(found.loss),
        most=np.asarray(found.most),
        bound=np.asarray(found.bound),
        stationarity=np.asarray(found.stationarity),
        tolerance=np.asarray(tolerance),
        layer=np.asarray(k, np.int32),
        samples=np.asarray(len(X), np.int32),
        rank=np.asarray(rank, np.int32),
        conditions=np.asarray([_condition(Ft, len(X)), *(_condition(w, w.shape[1]) for w in kernels)]),
        full_ranks=np.asarray(full, bool),
        parts=np.asarray([assumed.distinct, not assumed.activation_code]),
        possible=np.asarray(k == 0 or (widths[k] == len(X) - 1 and widths[k + 1] == widths[-1])),
        hessian=np.asarray(found.hessian),
    )


class _Evidence(NamedTuple):
    features: Any
    """``[F_k, 1]``, or F_k where layer k + 1 has no bias."""
    stationarity: Any
    """The dimensionless gradient."""
    loss: Any
    """The loss."""
    most: Any
    """The loss if rounding hides as much of it as it can."""
    bound: Any
    """The smallest of the three bounds from layer k + 1."""
    hessian: Any
    """The smallest over the largest singular value of the Hessian block of layer k + 1."""


@partial(jax.jit, static_argnums=(0, 1))
def _evidence(network: FeedForward, k: int, layers: list[Layer], X: Any, Y: Any) -> _Evidence:
    outward, eta = forward(network, layers, X), jnp.zeros((), X.dtype)
    passed = backward(outward, layers, Y)
    for found in passed:
        size = linalg.spectral_norm(found.features.value) * longest(found.jacobians.value) * linalg.norm(Y)
        eta = jnp.maximum(eta, linalg.norm(found.gradient.value) / jnp.where(size > 0, size, 1))
    bounds = loss_bounds([(w, b) for w, b in layers], X, Y, network)
    bound = jnp.min(jnp.stack([bounds.product[k], bounds.per_sample[k], bounds.kernel[k]]))
    E = residual(outward, Y)
    most = 0.5 * (linalg.norm(E.value) + E.error) ** 2
    return _Evidence(passed[k].features.value, eta, bounds.loss, most, bound, _hessian(network, layers, X, Y, k))


def _condition(M: Any, n: int) -> float:
    """Return the largest over the n-th singular value; inf if the n-th is zero to rounding."""
    s = np.asarray(linalg.singular_values(M))
    return float(s[0] / s[n - 1]) if n <= int(linalg.numerical_rank(M)) else np.inf


def _hessian(network: FeedForward, layers: list[Layer], X: Any, Y: Any, k: int) -> Any:
    """Return the smallest over the largest singular value of the Hessian block of layer k + 1."""
    kernel, bias = layers[k]
    size = kernel.size + (0 if bias is None else bias.size)
    if k == 0 or size > _BLOCK:
        return jnp.full((), jnp.nan, Y.dtype)

    def loss(flat: Any) -> Any:
        new = [(w, b) for w, b in layers]
        new[k] = (flat[: kernel.size].reshape(kernel.shape), None if bias is None else flat[kernel.size :])
        return 0.5 * jnp.sum(jnp.square(network(new, X) - Y))

    flat = jnp.concatenate([kernel.ravel(), *([] if bias is None else [bias])])
    s = linalg.singular_values(jax.hessian(loss)(flat))
    return s[-1] / jnp.where(s[0] > 0, s[0], 1)


def _sentences(found: Criticality) -> list[str]:
    k, N = int(found.layer), int(found.samples)
    theorem = "Theorem 3.4" if k == 0 else "Theorem 3.8 in its usable form"
    said = {
        "global_minimum": [
            f"The loss is {float(found.loss):.3g}, at most {float(found.tolerance):.2g} of 1/2 ||Y||^2, which counts "
            "as 0: a global minimum."
        ],
        "not_critical": [f"The point is not critical: the dimensionless gradient is {float(found.stationarity):.2g}."],
        "not_applicable": [f"{theorem} does not apply."],
        "undecided": [
            f"The hypotheses of {theorem} hold, and the gradient is zero to the tolerance, so that an exact critical "
            f"point here would have no loss; the loss is {float(found.loss):.3g}."
        ],
    }[found.kind]
    if found.kind == "undecided" and found.loss < found.most / 2:
        said = [f"The loss is {float(found.loss):.3g}, and rounding may hide a loss of {float(found.most):.3g}."]
    for part, holds, name in zip((1, 2), found.parts, ("samples", "activation"), strict=True):
        if not holds:
            said.append(f"Part {part} of Assumption 3.2 fails, on the {name}; `assumption` says why.")
    if int(found.rank) < N:
        said.append(f"The features of layer {k} have rank {int(found.rank)}, and the theorem needs {N}.")
    lacking = [str(k + 2 + i) for i, full in enumerate(found.full_ranks) if not full]
    if lacking:
        kernels = "kernel of layer" if len(lacking) == 1 else "kernels of layers"
        said.append(f"The rank of the {kernels} {', '.join(lacking)} is not its number of columns.")
    if np.isfinite(found.bound):
        said.append(f"The gradient of layer {k + 1} proves that the loss is at most {float(found.bound):.3g}.")
    else:
        said.append(f"The gradient of layer {k + 1} proves no bound.")
    if not found.possible and found.kind in ("undecided", "global_minimum"):
        said.append(
            "With these widths the Hessian of a point without loss is singular, so that Theorem 3.8 as printed says "
            f"nothing there: it needs n_{k} = N - 1 = {N - 1} and n_{k + 1} = n_L."
        )
    return said
