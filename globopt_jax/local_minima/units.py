"""The units that act linearly on the data, and the layer above which enough of them do (KHK19 Definitions 1 and 2)."""

import bisect
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.inputs import check_key, common_dtype, finite, integer
from globopt_jax.linalg import matmul
from globopt_jax.local_minima.balance import balanced
from globopt_jax.local_minima.jacobian import FeedForwardModel
from globopt_jax.networks import Activation, FeedForward, Sweep, feed_forward, kernels_of
from globopt_jax.shapes import Array

__all__ = ["LinearUnits", "kernels_and_inputs", "linear_units", "with_linear_units"]

#: The most draws of the layers below t; one must give features with a direction that is positive on all samples.
DRAWS = 100


class LinearUnits(NamedTuple):
    """The largest sets S^(l) of separated units that act linearly on the data; arrays only (NumPy).

    Weights induce (n, t) separated linear units if every layer above t has a set of n or more of them.
    """

    sets: tuple[Array, ...]
    """H+1 bool arrays (d_l,): the sets S^(1)..S^(H+1), which are meaningful for the layers above ``t``."""
    sizes: Array
    """(H+1,): for each t = 0..H the largest n for which the weights induce (n, t) separated linear units."""
    n: Array
    """The wanted number of units."""
    t: Array
    """The smallest t with ``sizes[t] >= n``; -1 if there is none."""
    margins: tuple[Array, ...]
    """H arrays (d_l,): the smallest pre-activation of each unit over the samples, relative to its largest absolute one.
    A unit with a kink and positive slope 1 acts linearly where its margin is >= 0, and also at all weights nearby where
    its margin is > 0, which Lemma 4 needs. The margin is inf where both slopes are 1."""
    margin: Array
    """The largest margin such that the units with this margin or more suffice for (n, t) separated linear units; inf
    where there is no t."""
    edge: Array
    """The largest weight that was taken for zero, relative to the largest weight of its layer. Before, the weights into
    every unit are brought to a norm between 1 and 2."""
    strong: Array
    """A 0-d bool: whether the units are strongly separated (Definition 2)."""
    tolerance: Array
    """The relative size that counted as zero."""

    @property
    def reason(self) -> str:
        """The result in a few sentences."""
        kind = "strongly" if bool(self.strong) else "weakly"
        sizes = ", ".join(f"{int(n)} for t = {t}" for t, n in enumerate(self.sizes))
        if int(self.t) < 0:
            return (
                f"There is no t above which every layer has {int(self.n)} {kind} separated linear units (the largest "
                f"n: {sizes})."
            )
        words = (
            f"Above t = {int(self.t)} every layer has n = {int(self.n)} {kind} separated linear units; the largest n: "
            f"{sizes}."
        )
        if float(self.margin) <= 0:
            words += " One of them touches its kink: the smallest change of the weights may make it nonlinear."
        return words

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def linear_units(
    weights: Any,
    X: Any,
    activation: Activation = "relu",
    n: int | None = None,
    *,
    strong: bool = False,
    tolerance: float | None = None,
) -> LinearUnits:
    """Find the largest sets of separated linear units that the weights induce on X (KHK19 Definitions 1 and 2).

    A unit k of layer l acts linearly if ``Phi^(l)[:, k] = Phi^(l-1) W_l[:, k]`` on all samples: its activation changes
    none of its inputs. S^(H+1) is the set of the outputs. The units of S^(l) act linearly and, for l <= H-1, have no
    edge (nonzero weight) to a unit outside S^(l+1); such units are weakly separated. One sweep from the output finds
    the largest sets for all t.

    Strongly separated units of the layers t+2..H also have no edge from a unit outside S^(l-1). These sets depend on t,
    and are found by deleting units until nothing changes. Every single edge must vanish, not only the sum of edges.

    Host function.

    Args:
        weights: kernels W_l (d_{l-1}, d_l), without biases.
        X: inputs (m, dx).
        activation: a piecewise linear activation, see `networks.feed_forward`.
        n: the number of units that every layer above t needs; None is dy.
        strong: whether to look for strongly separated units (Definition 2).
        tolerance: the size that counts as zero; None is sqrt(eps). It is relative to a unit's largest pre-activation,
            and for weights to the largest weight of the layer, after the weights into every unit have been brought to a
            norm between 1 and 2.

    Returns:
        A `LinearUnits`.

    Raises:
        ValueError: the shapes do not fit together, or a layer has a bias.
        ValueError: an array holds NaN or inf.
        ValueError: n is below 1, or the tolerance is not in [0, 1).
        ValueError: the activation is smooth.
        TypeError: an array does not hold real numbers.

    Example:
        >>> found = linear_units([jnp.eye(2), jnp.eye(2), jnp.ones((2, 1))], jnp.array([[1.0, 2.0], [3.0, 1.0]]))
        >>> found.sizes.tolist(), int(found.t)
        ([1, 1, 1], 0)
    """
    weights, X = kernels_and_inputs(weights, X)
    dy, hidden = weights[-1].shape[1], len(weights) - 1
    wanted = dy if n is None else integer("n", n)
    limit = np.asarray(linalg.decision_tolerance(X.dtype) if tolerance is None else tolerance)
    if limit.ndim or limit.dtype.kind not in "fiu" or not 0 <= limit < 1:
        raise ValueError(f"tolerance: Expected: at least 0, and below 1. Received: {tolerance}.")
    network = feed_forward(activation)
    slopes = [network.slopes_at(l, hidden) for l in range(hidden)]
    weights = balanced(FeedForwardModel(network), weights).params
    present, edge = _edges(weights, limit)
    linear, margins = _acting(_sweep(network, weights, X), slopes, limit)
    units = _Units(linear, margins, present, dy, strong)
    # t = H asks for the outputs alone; each smaller t asks for the set of one more layer.
    by_t = [units.sets(t) for t in range(hidden + 1)]
    sizes = np.array([_size(sets, t) for t, sets in enumerate(by_t)])
    enough = np.flatnonzero(sizes >= wanted)
    t = int(enough[0]) if enough.size else -1
    return LinearUnits(
        sets=tuple(by_t[max(t, 0)]),
        sizes=sizes,
        n=np.asarray(wanted),
        t=np.asarray(t),
        margins=tuple(margins),
        margin=np.asarray(units.margin(t, wanted) if t >= 0 else np.inf),
        edge=np.asarray(edge),
        strong=np.asarray(strong),
        tolerance=limit,
    )


def _edges(weights: list[Array], limit: np.ndarray) -> tuple[list[np.ndarray], float]:
    """Return for every layer which weights are edges, and the largest other weight relative to its layer's largest."""
    present, edge = [], 0.0
    for w in map(np.asarray, weights):
        size = np.max(np.abs(w), initial=0)
        small = np.abs(w) <= limit * size
        edge = max(edge, float(np.max(np.abs(w[small]), initial=0) / size) if size else 0.0)
        present.append(~small)
    return present, edge


def _acting(seen: Sweep, slopes: list[np.ndarray], limit: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return which units of every hidden layer act linearly on all samples, and the margins of all units."""
    linear, margins = [], []
    for features, before, pairs in zip(seen.features[1:], seen.preactivations, slopes, strict=True):
        G, Phi = np.asarray(before), np.asarray(features)
        size = np.max(np.abs(G), axis=0)
        linear.append(np.max(np.abs(Phi - G), axis=0) <= limit * size)
        always = np.all(np.broadcast_to(pairs, (G.shape[1], 2)) == 1, axis=1)
        margins.append(np.where(always, np.inf, np.min(G, axis=0) / np.where(size > 0, size, 1)))
    return linear, margins


class _Units(NamedTuple):
    """The units and edges from which separated sets are chosen."""

    linear: list[np.ndarray]
    """For each hidden layer, which units act linearly."""
    margins: list[np.ndarray]
    """For each hidden layer, the margins of the units."""
    present: list[np.ndarray]
    """For each layer, which weights are edges."""
    dy: int
    """The number of outputs."""
    strong: bool
    """Whether the sets are strongly separated."""

    def sets(self, t: int, least: float = -np.inf) -> list[np.ndarray]:
        """Return the largest separated sets above layer t among the units with the margin `least` or more."""
        linear = [a & (b >= least) for a, b in zip(self.linear, self.margins, strict=True)]
        weak = _weak(linear, self.present, self.dy)
        return _strong(weak, self.present, t) if self.strong else weak

    def margin(self, t: int, wanted: int) -> float:
        """Return the largest margin such that the units with this margin or more are enough."""
        # A bisection: a larger margin admits fewer units, and never gives larger sets.
        ladder = np.unique(np.concatenate([[np.inf], *self.margins[t:]]))
        steps = bisect.bisect_left(ladder, True, key=lambda least: _size(self.sets(t, least), t) < wanted)
        return ladder[steps - 1] if steps else np.inf


def _size(sets: list[np.ndarray], t: int) -> int:
    """Return the n of (n, t) separated linear units."""
    return min(int(np.sum(s)) for s in sets[t:])


@partial(jax.jit, static_argnums=0)
def _sweep(network: FeedForward, weights: list[Array], X: Array) -> Sweep:
    return network.sweep(weights, X)


def kernels_and_inputs(weights: Any, X: Any) -> tuple[list[Array], Array]:
    """Return kernels without biases and inputs as arrays of one dtype, after checks.

    Raises:
        ValueError: the shapes do not fit together, an array holds NaN or inf, or a layer has a bias.
        TypeError: an array does not hold real numbers.
    """
    host = [finite(f"weights[{l}]", w) for l, w in enumerate(kernels_of(weights))]
    X = finite("X", X)
    if X.ndim != 2 or not X.size or X.shape[1] != host[0].shape[0]:
        raise ValueError(f"X: Expected: shape (m, {host[0].shape[0]}). Received: {X.shape}.")
    dtype = common_dtype([X, *host])
    return [jnp.asarray(w, dtype) for w in host], jnp.asarray(X, dtype)


def _weak(linear: list[np.ndarray], present: list[np.ndarray], dy: int) -> list[np.ndarray]:
    """Apply Definition 1 from the output backward; linear[l-1], present[l] are layer l's units and outgoing edges."""
    sets = [np.ones(dy, bool)]
    for l in range(len(linear), 0, -1):
        # All outputs are in S^(H+1), so that the edges of the last hidden layer meet no condition.
        stays = ~np.any(present[l][:, ~sets[0]], axis=1) if l < len(linear) else True
        sets.insert(0, linear[l - 1] & stays)
    return sets


def _strong(weak: list[np.ndarray], present: list[np.ndarray], t: int) -> list[np.ndarray]:
    """Apply Definition 2 for this t by deletion; weak[l-1] belongs to layer l."""
    sets = [s.copy() for s in weak]
    while True:
        before = [s.copy() for s in sets]
        for l in range(t + 1, len(weak) - 1):  # layers l and l+1, l = t+1..H-1
            edges = present[l]
            sets[l] &= ~np.any(edges[~sets[l - 1]], axis=0)
            sets[l - 1] &= ~np.any(edges[:, ~sets[l]], axis=1)
        if all(np.array_equal(a, b) for a, b in zip(before, sets, strict=True)):
            return sets


def with_linear_units(
    key: Array,
    X: Any,
    widths: Sequence[int],
    t: int,
    n: int | None = None,
    activation: Activation = "relu",
    *,
    strong: bool = False,
) -> list[Array]:
    """Return random kernels that induce (n, t) separated linear units on X (KHK19 Definitions 1 and 2).

    The first n units of every layer above t are the linear ones. Their pre-activations are positive on all samples,
    with a margin of at least a quarter of the largest possible. This condition is dropped where all activations above
    layer t are linear.

    Host function.

    Args:
        key: a random key.
        X: inputs (m, dx).
        widths: the widths d_1..d_{H+1}; the last is dy.
        t: the layer above which units are linear, 0..H.
        n: the number of linear units, at most the smallest of d_{t+1}..d_{H+1}; None is dy.
        activation: a piecewise linear activation with positive slope 1 above layer t.
        strong: whether the units are strongly separated (Definition 2).

    Returns:
        A list of H+1 kernels W_l (d_{l-1}, d_l).

    Raises:
        TypeError: `key` is no key, or X does not hold real numbers.
        ValueError: a size does not fit, or X holds NaN or inf.
        ValueError: a positive slope above layer t is not 1.
        ValueError: no direction of the features of layer t is positive on all samples. A constant feature in X helps,
            and so does a leaky or absolute activation below t.

    Example:
        >>> X = jnp.array([[1.0, 0.5], [1.0, -0.5], [1.0, 0.1]])  # a constant feature
        >>> W = with_linear_units(jax.random.key(0), X, (4, 3, 2), 0)
        >>> linear_units(W, X).sizes.tolist()
        [2, 2, 2]
    """
    key = check_key(key)
    host = finite("X", X)
    dtype = common_dtype([host])
    if host.ndim != 2 or not host.size:
        raise ValueError(f"X: Expected: shape (m, dx). Received: {host.shape}.")
    if np.ndim(widths) != 1 or not len(widths):
        raise ValueError(f"widths: Expected: d_1..d_(H+1). Received: {widths}.")
    widths = [host.shape[1], *(integer("widths", d) for d in widths)]
    hidden = len(widths) - 2
    t = integer("t", t, 0, hidden)
    count = integer("n", widths[-1] if n is None else n, 1, min(widths[t + 1 :]))
    network = feed_forward(activation)
    if any(np.any(network.slopes_at(l, hidden)[:, 1] != 1) for l in range(t, hidden)):
        raise ValueError(f"activation: Expected: positive slopes of 1. Received: {activation!r}.")
    linear = all(np.all(network.slopes_at(l, hidden) == 1) for l in range(t, hidden))  # for all inputs
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    inputs = jnp.asarray(host, dtype)
    weights, Phi, positive = _below(network, rng, inputs, widths[: t + 1], hidden, needed=not linear)
    for l in range(t + 1, hidden + 2):
        w = _drawn(rng, widths[l - 1], widths[l])
        if t + 1 < l <= hidden:
            w[:count, count:] = 0  # weakly separated
        if l <= hidden:
            if strong and l > t + 1:
                w[count:, :count] = 0
            if positive is not None:
                # In later layers, the linear units of the layer before are positive on all samples.
                direction = positive if l == t + 1 else np.where(np.arange(len(w)) < count, 1.0, 0.0)
                w[:, :count] = _lifted(w[:, :count], direction, np.asarray(Phi))
        weights.append(jnp.asarray(w, dtype))
        if l <= hidden:
            Phi = network.activate(matmul(Phi, weights[-1]), l - 1, hidden)[0]
    return weights


def _drawn(rng: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    """Return a random kernel that preserves the size of its inputs under a ReLU."""
    return rng.normal(size=(inputs, outputs)) * (2 / inputs) ** 0.5


def _below(
    network: FeedForward, rng: np.random.Generator, X: Array, widths: list[int], hidden: int, *, needed: bool
) -> tuple[list[Array], Array, np.ndarray | None]:
    """Draw the kernels of the layers 1..t; return them, their features, and if needed a positive direction.

    The direction is one in the space of the features of layer t that is positive on all samples.

    Raises:
        ValueError: none of `DRAWS` draws has such a direction.
    """
    draws = DRAWS if len(widths) > 1 else 1
    for _ in range(draws):
        weights: list[Array] = []
        Phi: Any = X
        for l, (a, b) in enumerate(pairwise(widths)):
            weights.append(jnp.asarray(_drawn(rng, a, b), X.dtype))
            Phi = network.activate(matmul(Phi, weights[-1]), l, hidden)[0]
        positive = _positive_direction(np.asarray(Phi)) if needed else None
        if not needed or positive is not None:
            return weights, Phi, positive
    raise ValueError(
        "X: Expected: samples with a direction in the features of layer t that is positive on all of them. "
        f"Received: none in {draws} draws; append a constant feature, or choose more units or another activation "
        "below t."
    )


def _lifted(kernel: np.ndarray, direction: np.ndarray, Phi: np.ndarray) -> np.ndarray:
    """Return columns whose features are positive on all samples: the direction plus a part of the random kernel.

    The random part changes a feature by at most three quarters.
    """
    need = np.max(np.abs(Phi @ kernel) / (Phi @ direction)[:, None], axis=0)
    return direction[:, None] + 0.75 * kernel / np.where(need > 0, need, 1)


def _positive_direction(Phi: np.ndarray) -> np.ndarray | None:
    """Return the direction w in the unit box that maximizes the smallest entry of Phi w, scaled to length 1.

    A linear program finds it. None if the smallest entry is not positive.
    """
    from scipy.optimize import linprog  # late: scipy.optimize takes a while to load

    m, d = Phi.shape
    size = float(np.max(np.abs(Phi), initial=0)) or 1.0
    constraints = np.concatenate([-Phi / size, np.ones((m, 1))], axis=1)
    found = linprog([0.0] * d + [-1.0], constraints, np.zeros(m), bounds=[(-1, 1)] * d + [(None, None)])
    if not found.success or found.x[-1] <= 1e-9:
        return None
    return found.x[:d] / np.linalg.norm(found.x[:d])
