"""Which unit, which layer explains how much of the targets? The Gram-Schmidt decomposition of J (KHK19 Theorem 1)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.linalg import matmul
from globopt_jax.linalg.tolerances import check_criterion
from globopt_jax.local_minima.balance import balanced
from globopt_jax.local_minima.blocks import unit_columns
from globopt_jax.local_minima.inputs import check, prediction
from globopt_jax.local_minima.jacobian import Layered, Restricted
from globopt_jax.local_minima.mesh import on_automatic_mesh
from globopt_jax.local_minima.passes import MEMORY, Jacobian, faint_words, in_few_widths, kink_words, kinks_of
from globopt_jax.local_minima.spaces import METHODS, NOT_CONVERGED, space_of
from globopt_jax.networks import Activation, feed_forward
from globopt_jax.shapes import Array

__all__ = ["Decomposition", "Shares", "decompose", "shares_of"]

#: A direction counts where it exceeds the cutoff that often: what projections leave of a dependent block is noise.
NOISE = 4
#: What Gram-Schmidt may fail to attribute, in units of rounding, before singular values decide.
LOST = 1e4
#: Up to that rank singular values decide where Gram-Schmidt cannot tell directions from its noise.
PREFIXES = 500


class Decomposition(NamedTuple):
    """Where J comes from; arrays only (NumPy).

    ``shares``: H+1 arrays, for every hidden layer one entry a unit, ``1/2 ||P[N_k D_k] vec Y||^2``; the output block
    last, (1,). ``ranks``: likewise, the dimension that each adds. ``value``: J. ``target``: ``1/2 ||Y||^2``, so that
    ``target - sum of shares - unattributed = value``. ``unattributed``: what of the tangent space's share no block
    could be given, since it lies within rounding. ``loss``: ``1/2 ||Yhat - Y||^2``. ``rank``, ``cutoff``: of the
    Jacobian. ``order``: of the layers, 1..H+1. ``kinks``: pre-activations without a derivative, where 0 is taken; -1:
    unknown. ``faint`` (H+1,): of each layer, how many columns of the Jacobian the cutoff may hide, see
    `TangentProjection`. ``converged``: bool.
    """

    shares: tuple[Array, ...]
    ranks: tuple[Array, ...]
    value: Array
    target: Array
    unattributed: Array
    loss: Array
    rank: Array
    cutoff: Array
    order: Array
    kinks: Array
    faint: Array
    converged: Array
    method_code: Array

    @property
    def method(self) -> str:
        """One of `METHODS`."""
        return METHODS[int(self.method_code)]

    @property
    def reason(self) -> str:
        """The result in a few sentences."""
        target = float(self.target) or 1.0
        parts = [f"layer {l} {np.sum(share) / target:.1%}" for l, share in enumerate(self.shares[:-1], 1)]
        parts.append(f"the output layer {np.sum(self.shares[-1]) / target:.1%}")
        names = ", ".join(str(l) for l in self.order)
        lost = float(self.unattributed) / target
        open_ = lost > linalg.decision_tolerance(self.value.dtype)
        doubt = f" Rounding leaves open which units explain {lost:.1%}." if open_ else ""
        doubt += f" {kink_words(int(self.kinks))}" if int(self.kinks) else ""
        doubt += f" {faint_words(self.faint, 'layers')}" if np.any(self.faint) else ""
        doubt += "" if bool(self.converged) else f" {NOT_CONVERGED}"
        return (
            f"Of 1/2 ||Y||^2 = {float(self.target):.6g} the tangent space of rank {int(self.rank)} leaves J = "
            f"{float(self.value):.6g}. In the order of layers {names}: {', '.join(parts)}.{doubt}"
        )

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


class Shares(NamedTuple):
    """``shares``, ``ranks``: a pair of arrays a block of columns, an entry a unit. ``unattributed``: what they lack of
    ``1/2 ||P[A] vec B||^2``. ``outside``: ``PN[A] vec B`` as (m, dy)."""

    shares: list[np.ndarray]
    ranks: list[np.ndarray]
    unattributed: float
    outside: Array
    rank: int
    cutoff: float
    faint: np.ndarray
    converged: bool
    method: str


@on_automatic_mesh
def decompose(
    weights: Any,
    X: Any,
    Y: Any,
    activation: Activation = "relu",
    order: Sequence[int] | None = None,
    method: str = "auto",
    cutoff: str = "press",
    *,
    memory: int = MEMORY,
) -> Decomposition:
    """Decompose ``J = 1/2 ||Y||^2 - sum_l sum_k 1/2 ||P[N_k^(l) D_k^(l)] vec Y||^2`` by units and layers.

    N_k^(l) projects out all blocks that come earlier, layer by layer and unit by unit, the output block
    ``I_dy (x) Phi^(H)`` last (KHK19 (4.2); Proposition 1 is the case H = 1, dy = 1). So a share is what a unit adds to
    those before it, and depends on the order; the sum does not.

    Gram-Schmidt runs in coordinates of the column space of the whole Jacobian, with one cutoff for all blocks: a block
    that depends on earlier ones is rounding after their projection, and must not be judged by its own size. Where weak
    directions come early their rounding drowns later ones: then, up to a rank of 500, the singular values of all blocks
    up to each unit decide; beyond, what could not be given to a unit is ``unattributed``.

    Shares do not depend on the scale of a unit's weights, see `tangent_projection`.

    Takes several times as long as `tangent_projection`, which is enough for the value.

    Host function: jits inside, one compilation for every shape and order, and a few for the rank.

    Args:
        weights: kernels W_l (d_{l-1}, d_l), or pairs with a bias, which counts to its unit. X: (m, dx). Y: (m, dy).
        activation: see `networks.feed_forward`.
        order: of the layers, a permutation of 1..H+1; None: 1..H+1.
        method, cutoff, memory: see `tangent_projection`.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, outputs that overflow, no permutation, an unknown method or
            cutoff.
        TypeError: arrays that are not real numbers.

    Example:
        >>> X, Y = jnp.eye(3)[:, :2], jnp.array([[3.0], [4.0], [5.0]])
        >>> found = decompose([jnp.eye(2), jnp.ones((2, 1))], X, Y)
        >>> [share.round(6).tolist() for share in found.shares], round(float(found.value), 6)
        ([[4.5, 8.0], [0.0]], 12.5)
    """
    check_criterion(cutoff)
    network = feed_forward(activation)
    weights, X, Y = check(network, weights, X, Y, method, memory, "weights")
    layers = len(weights)
    whole = range(1, layers + 1)
    wanted = tuple(whole) if order is None else tuple(order) if np.ndim(order) == 1 else ()
    if not all(hasattr(l, "__index__") for l in wanted) or sorted(wanted) != list(whole):
        raise ValueError(f"order: Expected: a permutation of 1..{layers}. Received: {order}.")
    wanted = tuple(map(int, wanted))
    model = Layered(network, layers=wanted)
    point = balanced(model, weights)
    predicted = prediction(model, point, X)
    found = shares_of(model, point.params, X, Y, method, cutoff, memory)
    of = {l: i for i, l in enumerate(wanted)}
    by_layer = [found.shares[of[l]] for l in range(1, layers + 1)]
    ranks = [found.ranks[of[l]] for l in range(1, layers + 1)]
    faint = np.array([found.faint[of[l]] for l in range(1, layers + 1)])
    by_layer[-1], ranks[-1] = np.sum(by_layer[-1], keepdims=True), np.sum(ranks[-1], keepdims=True)
    dtype = by_layer[0].dtype
    return Decomposition(
        shares=tuple(by_layer),
        ranks=tuple(ranks),
        value=np.asarray(0.5 * np.sum(np.square(found.outside)), dtype),
        target=np.asarray(0.5 * jnp.sum(jnp.square(Y)), dtype),
        unattributed=np.asarray(found.unattributed, dtype),
        loss=np.asarray(0.5 * jnp.sum(jnp.square(predicted - Y)), dtype),
        rank=np.asarray(found.rank),
        cutoff=np.asarray(found.cutoff, dtype),
        order=np.asarray(wanted),
        kinks=np.asarray(kinks_of(model, point.params, X, memory)),
        faint=faint,
        converged=np.asarray(found.converged),
        method_code=np.asarray(METHODS.index(found.method)),
    )


def shares_of(
    model: Layered | Restricted, weights: Any, X: Array, Y: Array, method: str, cutoff: str, memory: int
) -> Shares:
    """Gram-Schmidt over all units of all blocks of a model, in the model's order."""
    A = Jacobian(model, weights, X, Y.shape[1], int(memory))
    space = space_of(A, method, cutoff)
    right = Y[..., None]
    projected = space.project_out(right)
    units = unit_columns(model, weights, Y.shape[1])
    if space.rank == 0:
        empty = [np.zeros(len(u), X.dtype) for u in units]
        zero = [np.zeros(len(u), np.int32) for u in units]
        total, shares, ranks = 0.0, empty, zero
    else:
        # Rounding tilts the basis out of the column space. For what lies in it, that is an error of second order.
        within = right - projected.outside
        C, z = space.coordinates(within)
        total = 0.5 * float(jnp.sum(jnp.square(within)))
        width = max(u.shape[1] for u in units)
        table = np.concatenate(
            [np.pad(u, ((0, 0), (0, width - u.shape[1])), constant_values=A.shape[1]) for u in units]
        )
        limit = jnp.asarray(NOISE * space.cutoff, C.dtype)
        C, z = (jnp.asarray(in_few_widths(np.asarray(a).T).T) for a in (C, z))
        most = jnp.asarray(space.rank, jnp.int32)
        share, rank = map(np.asarray, _gram_schmidt(C, z[:, 0], most, jnp.asarray(table), limit))
        lost = total - float(np.sum(share)) > LOST * A.eps * total
        if (np.sum(rank) < space.rank or lost) and space.rank <= PREFIXES:
            share, rank = map(np.asarray, _by_prefixes(C, z[:, 0], most, jnp.asarray(table), limit / NOISE))
        ends = np.cumsum([len(u) for u in units])[:-1]
        shares, ranks = np.split(share, ends), np.split(rank, ends)
    return Shares(
        [np.asarray(s) for s in shares],
        [np.asarray(r) for r in ranks],
        total - sum(float(np.sum(s)) for s in shares),
        projected.outside[..., 0],
        space.rank,
        space.cutoff,
        space.faint,
        projected.converged and space.converged,
        space.method,
    )


@jax.jit
def _gram_schmidt(C: Array, z: Array, most: Array, units: Array, limit: Array) -> tuple[Array, Array]:
    """Shares and ranks (U,) of the columns `units` (U, w) of C (r, N), where N stands for no column; C has rank `most`.

    A direction u = C t that is left of a unit counts if ``||C t|| > limit ||t||``, as a singular value would: after the
    projection of a block that depends on weak directions before it, ``||C t||`` alone is rounding times their t.
    """
    (r, N), w = C.shape, units.shape[1]
    padded = jnp.concatenate([C, jnp.zeros((r, 1), C.dtype)], axis=1)

    def step(carry: Any, columns: Any) -> tuple[Any, Any]:
        basis, combinations, used = carry  # (r, r + n), (N, r + n) with basis = C combinations
        block = padded[:, columns]
        block, coefficients = linalg.split(basis, block)
        U, s, Vt = jnp.linalg.svd(block, full_matrices=False)
        t = jnp.zeros((N + 1, len(s)), C.dtype).at[columns].add(Vt.T)[:N]
        t = t - matmul(combinations, matmul(coefficients, Vt.T))
        # A direction of the unit's own columns has ||t|| >= 1; a smaller one belongs to the padding.
        kept = s > limit * jnp.maximum(jnp.linalg.norm(t, axis=0), 1)
        kept = kept & (used + jnp.cumsum(kept, dtype=jnp.int32) <= most)  # never more directions than there are
        U = jnp.where(kept[None], U, 0)
        U = U - matmul(basis, matmul(basis.T, U))  # small s: rounding that was small beside the block is not beside s
        t = jnp.where(kept[None], t / jnp.where(kept, s, 1)[None], 0)
        added = jnp.sum(kept, dtype=jnp.int32)
        share = 0.5 * jnp.sum(jnp.square(matmul(U.T, z)))
        # What is kept comes first, and the next unit overwrites the rest: r columns and one unit's are enough.
        first = jnp.argsort(~kept, stable=True)
        corner = jnp.zeros_like(used), used
        basis = jax.lax.dynamic_update_slice(basis, U[:, first], corner)
        combinations = jax.lax.dynamic_update_slice(combinations, t[:, first], corner)
        return (basis, combinations, used + added), (share, added)

    room = r + min(r, w)
    start = jnp.zeros((r, room), C.dtype), jnp.zeros((N, room), C.dtype), jnp.zeros((), jnp.int32)
    return jax.lax.scan(step, start, units)[1]


@jax.jit
def _by_prefixes(C: Array, z: Array, most: Array, units: Array, limit: Array) -> tuple[Array, Array]:
    """`_gram_schmidt` by the rank of ``[C_1 .. C_k]`` for every k, from singular values, which absolute rounding suits.

    The blocks so far are kept as ``U diag(s)``: weak directions stay small, and do not blow up what follows.
    """
    r, w = C.shape[0], units.shape[1]
    padded = jnp.concatenate([C, jnp.zeros((r, 1), C.dtype)], axis=1)
    mix = jax.random.normal(jax.random.key(0), (r, min(r, w)), C.dtype)

    def step(carry: Any, columns: Any) -> tuple[Any, Any]:
        seen, basis, used = carry  # (r, r), (r, r + n)
        U, s, _ = jnp.linalg.svd(jnp.concatenate([seen, padded[:, columns]], axis=1), full_matrices=False)
        kept = s > limit
        added = jnp.clip(jnp.sum(kept, dtype=jnp.int32) - used, 0, jnp.minimum(mix.shape[1], most - used))
        # What is new in the column space: at most as much as the unit has columns, which random combinations span.
        new, _ = linalg.split(basis, matmul(jnp.where(kept[None], U, 0), mix))
        new = jnp.linalg.svd(new, full_matrices=False)[0]
        new = jnp.where((jnp.arange(new.shape[1], dtype=added.dtype) < added)[None], new, 0)
        basis = jax.lax.dynamic_update_slice(basis, new, (jnp.zeros_like(used), used))
        share = 0.5 * jnp.sum(jnp.square(matmul(new.T, z)))
        return (jnp.where(kept, s, 0)[None] * U, basis, used + added), (share, added)

    start = jnp.zeros((r, r), C.dtype), jnp.zeros((r, r + mix.shape[1]), C.dtype), jnp.zeros((), jnp.int32)
    return jax.lax.scan(step, start, units)[1]
