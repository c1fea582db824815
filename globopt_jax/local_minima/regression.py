"""Local minima are no worse than regression on their own features (KHK19 Theorem 2, Corollaries 1 and 2)."""

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.inputs import integer
from globopt_jax.linalg import matmul, norm
from globopt_jax.linalg.tolerances import check_criterion
from globopt_jax.local_minima.balance import balanced
from globopt_jax.local_minima.decomposition import shares_of
from globopt_jax.local_minima.inputs import check, prediction
from globopt_jax.local_minima.jacobian import FeedForwardModel, Restricted
from globopt_jax.local_minima.mesh import on_automatic_mesh
from globopt_jax.local_minima.passes import MEMORY, Jacobian, Samples, faint_words, kink_words
from globopt_jax.local_minima.spaces import NOT_CONVERGED
from globopt_jax.local_minima.units import LinearUnits, linear_units
from globopt_jax.networks import Activation, FeedForward, feed_forward, kernels_of
from globopt_jax.shapes import Array

__all__ = ["RegressionBounds", "regression_bounds"]

#: The most layers of which all subsets are taken; of more layers, the empty set, each layer alone, and all of them.
MOST = 4


class RegressionBounds(NamedTuple):
    """The bounds of KHK19 Theorem 2 for s sets S of layers, one row for each set; arrays only (NumPy)."""

    layers: Array
    """(s, H+1): bool, which of the layers 0..H are in S."""
    admissible: Array
    """(s,): bool, whether all layers of S are at or above t, so that the bound holds."""
    regression: Array
    """(s,): ``1/2 ||PN[Phi^(S)] Y||^2``, the global minimum of linear regression on the features of S. One cutoff
    decides the rank of features and tangent space together."""
    improvement: Array
    """(s,): how much lower the bound becomes with the tangent space."""
    shares: tuple[Array, ...]
    """H arrays (s, d_l): the share of each hidden unit in the improvement."""
    value: Array
    """(s,): the bound, regression minus improvement."""
    unattributed: Array
    """(s,): the part of ``1/2 ||Y||^2 - value`` that could not be attributed because of rounding. Regression and
    improvement are uncertain by as much."""
    loss: Array
    """The loss ``1/2 ||Yhat - Y||^2``."""
    t: Array
    """The smallest t such that dy units of every layer above t act linearly."""
    residuals: Array
    """(H+1,): ``||Phi^(l)^T (Yhat - Y)|| / (||Phi^(l)|| s)`` with ``s = max(||Y||, ||Yhat - Y||)``. At a differentiable
    local minimum they are 0 for l >= t (Lemma 4)."""
    stationarity: Array
    """The largest ``||dL/dW_l|| / (||A_l|| s)``, with the block A_l of the Jacobian; it has no units."""
    margin: Array
    """The distance of the linear units from their kinks, see `LinearUnits`."""
    kinks: Array
    """The number of pre-activations without a derivative; -1 where unknown."""
    faint: Array
    """(s,): how many columns of features and tangent space the cutoff may hide, see `TangentProjection`."""
    converged: Array
    """A 0-d bool: whether the iterations of all projections converged."""

    @property
    def reason(self) -> str:
        """A line for each set, and a few sentences about all of them."""
        lines = [f"The loss is {float(self.loss):.6g}; dy units of every layer above t = {int(self.t)} act linearly."]
        for chosen, regression, value in zip(self.layers, self.regression, self.value, strict=True):
            names = ", ".join(str(l) for l in np.flatnonzero(chosen))
            features = f"Features of layers {names}" if names else "No features"
            lines.append(f"{features}: regression {float(regression):.6g}, with the tangent space {float(value):.6g}.")
        words = []
        size, slack = float(self.loss) or 1.0, linalg.decision_tolerance(self.value.dtype)
        above = self.admissible & (self.value < self.loss - slack * size)
        if float(self.stationarity) > slack:
            words.append(
                f"The point is not stationary ({float(self.stationarity):.2g}), so that nothing here bounds its loss: "
                "these are bounds for local minima with the same activation patterns and linear units."
            )
        elif np.any(above):
            words.append("The loss lies above an admissible bound: the point is stationary, but no local minimum.")
        if int(self.kinks):
            words.append(kink_words(int(self.kinks)))
        if not np.all(self.admissible):
            words.append("A set with a layer below t gives no bound.")
        if np.max(self.unattributed) > slack * size:
            words.append(
                f"Because of rounding, up to {np.max(self.unattributed):.2g} may belong to the regression or to the "
                "tangent space."
            )
        if np.any(self.faint):
            words.append(faint_words(self.faint, "sets"))
        if not bool(self.converged):
            words.append(NOT_CONVERGED)
        return "\n".join([*lines, *([" ".join(words)] if words else [])])

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


@on_automatic_mesh
def regression_bounds(
    weights: Any,
    X: Any,
    Y: Any,
    activation: Activation = "relu",
    sets: Iterable[Sequence[int]] | None = None,
    *,
    restricted: bool = False,
    strong: bool = False,
    tolerance: float | None = None,
    method: str = "auto",
    cutoff: str = "press",
    memory: int = MEMORY,
) -> RegressionBounds:
    """Bound the loss of local minima by regression on the features of layers S, improved by the tangent space.

    At a differentiable local minimum with (dy, t) weakly separated linear units (see `linear_units`), the loss L obeys

        ``L <= 1/2 ||PN[Phi^(S)] Y||^2 - sum_(l <= H) sum_k 1/2 ||P[N_k^(l) PN[I_dy (x) Phi^(S)] D_k^(l)] vec Y||^2``

    for every subset S of (t..H), the empty set included, and L equals the right side (KHK19 Theorem 2, (5.1); the sum
    is that of Lemma 3). Here Phi^(S) are the features of the layers in S, P[M] projects onto the column space of M,
    PN[M] onto its orthogonal complement, and D_k^(l), N_k^(l) are those of `decompose`. Every network has t <= H. A
    stationary point need not obey the bound: the deep linear network of zeros is stationary.

    With `restricted`, the bound is for local minima over the weights without the edges that Definition 1 requires to
    vanish; derivatives in these edges then do not count (Corollary 1, (5.2)). With `strong`, the bound is for local
    minima with strongly separated linear units and S in {t, H} (Corollary 2).

    The bounds do not depend on the scale of a unit's weights, see `tangent_projection`. ``residuals`` and
    ``stationarity`` are computed for the network at one scale.

    Each set costs one `decompose` of the Jacobian extended by the features of all sets.

    Host function: jits inside, with a compilation for every shape and union of the sets, and a few for the rank.

    Args:
        weights: kernels W_l (d_{l-1}, d_l), without biases.
        X: inputs (m, dx).
        Y: targets (m, dy).
        activation: a piecewise linear activation, see `networks.feed_forward`.
        sets: the sets S of layers 0..H, where 0 stands for the inputs. None is all subsets of (t..H) if these are four
            layers or fewer; otherwise the empty set, each layer alone, and all layers. With `strong`, None is all
            subsets of {t, H}. Sets with a layer below t are computed and marked as not admissible.
        restricted: whether to bound local minima over the weights without the vanishing edges (Corollary 1).
        strong: whether to bound local minima with strongly separated units (Corollary 2).
        tolerance: the size that counts as zero for the linear units, see `linear_units`.
        method: how the projection is computed, see `tangent_projection`.
        cutoff: which singular values count as zero, see `linalg.cutoff`.
        memory: the bytes that the chunks of a pass may take.

    Returns:
        `RegressionBounds` with one row for each set.

    Raises:
        ValueError: the shapes do not fit together, or a layer has a bias.
        ValueError: an array holds NaN or inf, or the outputs overflow.
        ValueError: a set has layers outside of 0..H.
        ValueError: the activation is smooth.
        ValueError: both `restricted` and `strong` are set.
        ValueError: `method` or `cutoff` is unknown, or `memory` is not positive.
        TypeError: an array does not hold real numbers.

    Example:
        >>> X, Y = jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [0.0]])
        >>> found = regression_bounds([jnp.array([[0.2]]), jnp.ones((1, 1))], X, Y)  # the fit of Y by X, with a ReLU
        >>> [round(float(v), 6) for v in found.regression], [round(float(v), 6) for v in found.value]
        ([0.5, 0.4, 0.4, 0.4], [0.4, 0.4, 0.4, 0.4])
        >>> round(float(found.loss), 6), int(found.t)
        (0.4, 0)
    """
    check_criterion(cutoff)
    if restricted and strong:
        raise ValueError("restricted, strong: Expected: one of them (Corollary 1, or 2). Received: both.")
    network = feed_forward(activation)
    weights, X, Y = check(network, kernels_of(weights), X, Y, method, memory, "weights")
    point = balanced(FeedForwardModel(network), weights)
    predicted = prediction(FeedForwardModel(network), point, X)
    weights = point.params
    units = linear_units(weights, X, activation, strong=strong, tolerance=tolerance)
    hidden, t = len(weights) - 1, int(units.t)
    chosen = _sets(sets, t, hidden, strong)
    basis = tuple(sorted(set().union(*chosen)))
    model = Restricted(FeedForwardModel(network, basis=basis, layers=tuple(range(1, hidden + 1))))
    kept = _kept(weights, units) if restricted else None
    found = [
        shares_of(model, (weights, jnp.asarray([l in S for l in basis], X.dtype), kept), X, Y, method, cutoff, memory)
        for S in chosen
    ]
    shares = [[f.shares[len(basis) + l] for f in found] for l in range(hidden)]
    value = np.array([0.5 * np.sum(np.square(np.asarray(f.outside, np.float64))) for f in found])
    improvement = np.array([sum(float(np.sum(s)) for s in f.shares[len(basis) :]) for f in found])
    samples = Jacobian(FeedForwardModel(network), weights, X, Y.shape[1], int(memory)).chunks()
    blocks = _block_norms(network, weights, samples)
    loss, residuals, stationarity, kinks = map(np.asarray, _point(network, weights, X, Y, predicted - Y, blocks))
    dtype = np.dtype(X.dtype)
    return RegressionBounds(
        layers=np.array([[l in S for l in range(hidden + 1)] for S in chosen]),
        admissible=np.array([min(S, default=hidden) >= t for S in chosen]),
        # Not as a difference from ||Y||^2, which would lose digits where the bound is small.
        regression=(value + improvement).astype(dtype),
        improvement=improvement.astype(dtype),
        shares=tuple(np.stack(s) for s in shares),
        value=value.astype(dtype),
        unattributed=np.array([f.unattributed for f in found], dtype),
        loss=loss,
        t=np.asarray(t),
        residuals=residuals,
        stationarity=stationarity,
        margin=np.asarray(units.margin),
        kinks=kinks,
        faint=np.array([np.sum(f.faint) for f in found]),
        converged=np.asarray(all(f.converged for f in found)),
    )


def _sets(sets: Iterable[Sequence[int]] | None, t: int, hidden: int, strong: bool) -> list[tuple[int, ...]]:
    """Return the given sets in their order, or without any the sets of the theorem."""
    if sets is not None:
        found = list(sets) if isinstance(sets, Iterable) else []
        if not found or any(isinstance(S, str) or not isinstance(S, Iterable) for S in found):
            raise ValueError(f"sets: Expected: sets of layers, at least one, such as [(), (1,)]. Received: {sets!r}.")
        return [tuple(sorted({integer("sets", l, 0, hidden) for l in S})) for S in found]
    layers = sorted({t, hidden}) if strong else list(range(t, hidden + 1))
    sizes = range(len(layers) + 1) if len(layers) <= MOST else (0, 1, len(layers))
    return [S for size in sizes for S in itertools.combinations(layers, size)]


def _kept(weights: list[Array], units: LinearUnits) -> Array:
    """Return 1 for the columns that Corollary 1 keeps, 0 for the edges from S^(l-1) to units outside S^(l)."""
    hidden, t = len(weights) - 1, int(units.t)
    kept = []
    for l, w in enumerate(weights[:-1], 1):
        mask = np.ones(w.shape)
        if t + 2 <= l <= hidden:
            mask[np.ix_(np.asarray(units.sets[l - 2]), ~np.asarray(units.sets[l - 1]))] = 0
        kept.append(mask.ravel())
    return jnp.asarray(np.concatenate([np.zeros(0), *kept]), weights[0].dtype)


def _ratio(A: Array, *sizes: Array) -> Array:
    """Return ||A|| divided by the product of sizes, or 0 where the product is 0."""
    size = jnp.prod(jnp.stack(sizes))
    return jnp.where(size > 0, norm(A) / jnp.where(size > 0, size, 1), 0)


@partial(jax.jit, static_argnums=0)
def _block_norms(network: FeedForward, weights: list[Array], samples: Samples) -> Array:
    """Return ``||A_l||_F`` of the Jacobian's blocks, ``||A_l||_F^2 = sum_i ||signals_i||^2 ||features_i||^2``."""

    def norms(chunk: Samples) -> Array:
        A = FeedForwardModel(network).chunk(weights, *chunk)
        pairs = zip(A.signals, A.features, strict=True)
        return jnp.stack([norm(jax.vmap(norm)(s) * jax.vmap(norm)(f)) for s, f in pairs])

    return jax.vmap(norm, 1)(jax.lax.map(norms, samples))


@partial(jax.jit, static_argnums=0)
def _point(
    network: FeedForward, weights: list[Array], X: Array, Y: Array, E: Array, blocks: Array
) -> tuple[Array, Array, Array, Array]:
    """Return loss, Lemma 4's residuals, stationarity and kinks.

    E is the residual of the given network, `blocks` the norms of the Jacobian's blocks.
    """
    seen = network.sweep(weights, X)
    size = jnp.maximum(norm(Y), norm(E))
    grads = jax.grad(lambda W: jnp.sum(network(W, X) * E))(weights)
    eta = jnp.stack([_ratio(g, a, size) for a, g in zip(blocks, grads, strict=True)])
    residuals = jnp.stack([_ratio(matmul(f.T, E), norm(f), size) for f in seen.features])
    return 0.5 * jnp.sum(jnp.square(E)), residuals, jnp.max(eta), seen.kinks
