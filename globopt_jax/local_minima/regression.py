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
from globopt_jax.local_minima.jacobian import Layered, Restricted
from globopt_jax.local_minima.mesh import on_automatic_mesh
from globopt_jax.local_minima.passes import MEMORY, Jacobian, Samples, faint_words, kink_words
from globopt_jax.local_minima.spaces import NOT_CONVERGED
from globopt_jax.local_minima.units import LinearUnits, linear_units
from globopt_jax.networks import Activation, FeedForward, feed_forward, kernels_of
from globopt_jax.shapes import Array

__all__ = ["RegressionBounds", "regression_bounds"]

#: All subsets are taken up to that many layers; beyond, the empty one, each layer alone, and all.
MOST = 4


class RegressionBounds(NamedTuple):
    """The right side of Theorem 2 for several sets S of layers; arrays only (NumPy), a row a set.

    ``layers`` (s, H+1): bool, which of 0..H are in S. ``admissible`` (s,): all of S at or above t. ``regression`` (s,):
    ``1/2 ||PN[Phi^(S)] Y||^2``, the global minimum of regression on these features (with the cutoff of features and
    tangent together). ``improvement`` (s,): what the tangent space adds; ``shares``: H arrays (s, d_l), unit by unit.
    ``value`` (s,): their difference, the bound. ``unattributed`` (s,): what of the bound's distance to ``1/2 ||Y||^2``
    rounding leaves open; regression and improvement are no better known. ``loss``: ``1/2 ||Yhat - Y||^2``. ``t``: from
    where on dy units act linearly. ``residuals`` (H+1,): Lemma 4's ``||Phi^(l)^T (Yhat - Y)|| / (||Phi^(l)|| s)``,
    ``s = max(||Y||, ||Yhat - Y||)``, 0 for l >= t at differentiable local minima. ``stationarity``: the largest
    ``||dL/dW_l|| / (||A_l|| s)``, A_l the Jacobian's block of a layer, free of units. ``margin``: of the linear units
    from their kinks, see `LinearUnits`. ``kinks``: pre-activations without a derivative. ``faint`` (s,): how many
    columns of features and tangent the cutoff may hide, see `TangentProjection`. ``converged``: bool.
    """

    layers: Array
    admissible: Array
    regression: Array
    improvement: Array
    shares: tuple[Array, ...]
    value: Array
    unattributed: Array
    loss: Array
    t: Array
    residuals: Array
    stationarity: Array
    margin: Array
    kinks: Array
    faint: Array
    converged: Array

    @property
    def reason(self) -> str:
        """A line a set, and what they say together."""
        lines = [f"The loss is {float(self.loss):.6g}; from t = {int(self.t)} on dy units act linearly."]
        for chosen, regression, value in zip(self.layers, self.regression, self.value, strict=True):
            names = ", ".join(str(l) for l in np.flatnonzero(chosen)) or "none"
            lines.append(f"Features {names}: regression {float(regression):.6g}, with the tangent {float(value):.6g}.")
        words = []
        size, slack = float(self.loss) or 1.0, linalg.decision_tolerance(self.value.dtype)
        above = self.admissible & (self.value < self.loss - slack * size)
        if float(self.stationarity) > slack:
            words.append(
                f"The point is not stationary ({float(self.stationarity):.2g}), so that none of this bounds its loss: "
                "it is what local minima with these activation patterns and linear units would obey."
            )
        elif np.any(above):
            words.append("The loss lies above an admissible bound: a stationary point, but no local minimum.")
        if int(self.kinks):
            words.append(kink_words(int(self.kinks)))
        if not np.all(self.admissible):
            words.append("Sets that reach below t bound nothing.")
        if np.max(self.unattributed) > slack * size:
            words.append(
                f"Rounding leaves open whether up to {np.max(self.unattributed):.2g} is regression's or the tangent's."
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

    At a differentiable local minimum with (dy, t) weakly separated linear units, for every S in (t..H),

        ``L <= 1/2 ||PN[Phi^(S)] Y||^2 - sum_(l <= H) sum_k 1/2 ||P[N_k^(l) PN[I_dy (x) Phi^(S)] D_k^(l)] vec Y||^2``

    (KHK19 Theorem 2, (5.1)), with equality, the empty S included. Every network has t <= H. Being stationary is not
    enough: the deep linear network of zeros is. With `restricted`, at local minima over the weights without the edges
    that Definition 1 asks to vanish, whose derivatives then do not count (Corollary 1, (5.2)). With `strong`, at local
    minima with strongly separated linear units, for S in {t, H} (Corollary 2).

    Nothing here depends on the scale of a unit's weights, see `tangent_projection`; ``residuals`` and ``stationarity``
    are those of the network at one scale.

    Every set takes as long as `decompose` with the features of all sets beside.

    Host function: jits inside, a compilation for every shape and union of the sets, and a few for the rank.

    Args:
        weights: kernels W_l (d_{l-1}, d_l). X: (m, dx). Y: (m, dy). activation: a piecewise linear one.
        sets: the sets S, of layers 0..H (0: the inputs); None: all subsets of (t..H) where these are four layers or
            fewer, else none, each alone, and all; of {t, H} with `strong`. Sets that reach below t are computed and
            marked as not admissible.
        tolerance: what counts as zero for the linear units, see `linear_units`.
        method, cutoff, memory: see `tangent_projection`.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, outputs that overflow, biases, layers outside of 0..H, a smooth
            activation, both `restricted` and `strong`.
        TypeError: arrays that are not real numbers.

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
    point = balanced(Layered(network), weights)
    predicted = prediction(Layered(network), point, X)
    weights = point.params
    units = linear_units(weights, X, activation, strong=strong, tolerance=tolerance)
    hidden, t = len(weights) - 1, int(units.t)
    chosen = _sets(sets, t, hidden, strong)
    basis = tuple(sorted(set().union(*chosen)))
    model = Restricted(Layered(network, basis=basis, layers=tuple(range(1, hidden + 1))))
    kept = _kept(weights, units) if restricted else None
    found = [
        shares_of(model, (weights, jnp.asarray([l in S for l in basis], X.dtype), kept), X, Y, method, cutoff, memory)
        for S in chosen
    ]
    shares = [[f.shares[len(basis) + l] for f in found] for l in range(hidden)]
    value = np.array([0.5 * np.sum(np.square(np.asarray(f.outside, np.float64))) for f in found])
    improvement = np.array([sum(float(np.sum(s)) for s in f.shares[len(basis) :]) for f in found])
    samples = Jacobian(Layered(network), weights, X, Y.shape[1], int(memory)).chunks()
    blocks = _block_norms(network, weights, samples)
    loss, residuals, stationarity, kinks = map(np.asarray, _point(network, weights, X, Y, predicted - Y, blocks))
    dtype = np.dtype(X.dtype)
    return RegressionBounds(
        layers=np.array([[l in S for l in range(hidden + 1)] for S in chosen]),
        admissible=np.array([min(S, default=hidden) >= t for S in chosen]),
        # Not from ||Y||^2: nothing is lost where the bound is small.
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
    """The sets asked for, in order; or those that the theorem speaks of."""
    if sets is not None:
        found = list(sets) if isinstance(sets, Iterable) else []
        if not found or any(isinstance(S, str) or not isinstance(S, Iterable) for S in found):
            raise ValueError(f"sets: Expected: sets of layers, at least one, such as [(), (1,)]. Received: {sets!r}.")
        return [tuple(sorted({integer("sets", l, 0, hidden) for l in S})) for S in found]
    layers = sorted({t, hidden}) if strong else list(range(t, hidden + 1))
    sizes = range(len(layers) + 1) if len(layers) <= MOST else (0, 1, len(layers))
    return [S for size in sizes for S in itertools.combinations(layers, size)]


def _kept(weights: list[Array], units: LinearUnits) -> Array:
    """1 for the columns of the tangent that Corollary 1 keeps, 0 for the edges out of S^(l-1) to outside S^(l)."""
    hidden, t = len(weights) - 1, int(units.t)
    kept = []
    for l, w in enumerate(weights[:-1], 1):
        mask = np.ones(w.shape)
        if t + 2 <= l <= hidden:
            mask[np.ix_(np.asarray(units.sets[l - 2]), ~np.asarray(units.sets[l - 1]))] = 0
        kept.append(mask.ravel())
    return jnp.asarray(np.concatenate([np.zeros(0), *kept]), weights[0].dtype)


def _ratio(A: Array, *sizes: Array) -> Array:
    """||A|| over the product of sizes, 0 where that is 0."""
    size = jnp.prod(jnp.stack(sizes))
    return jnp.where(size > 0, norm(A) / jnp.where(size > 0, size, 1), 0)


@partial(jax.jit, static_argnums=0)
def _block_norms(network: FeedForward, weights: list[Array], samples: Samples) -> Array:
    """``||A_l||_F`` of the Jacobian's blocks, ``sum_i ||signals_i||^2 ||features_i||^2`` squared."""

    def norms(chunk: Samples) -> Array:
        A = Layered(network).chunk(weights, *chunk)
        pairs = zip(A.signals, A.features, strict=True)
        return jnp.stack([norm(jax.vmap(norm)(s) * jax.vmap(norm)(f)) for s, f in pairs])

    return jax.vmap(norm, 1)(jax.lax.map(norms, samples))


@partial(jax.jit, static_argnums=0)
def _point(
    network: FeedForward, weights: list[Array], X: Array, Y: Array, E: Array, blocks: Array
) -> tuple[Array, Array, Array, Array]:
    """Loss, Lemma 4's residuals, stationarity and kinks; E: the residual of the network as it was given, `blocks`: the
    norms of the Jacobian's."""
    seen = network.sweep(weights, X)
    size = jnp.maximum(norm(Y), norm(E))
    grads = jax.grad(lambda W: jnp.sum(network(W, X) * E))(weights)
    eta = jnp.stack([_ratio(g, a, size) for a, g in zip(blocks, grads, strict=True)])
    residuals = jnp.stack([_ratio(matmul(f.T, E), norm(f), size) for f in seen.features])
    return 0.5 * jnp.sum(jnp.square(E)), residuals, jnp.max(eta), seen.kinks
