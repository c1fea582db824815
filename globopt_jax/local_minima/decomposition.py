"""How much of the targets each unit and each layer explains: the Gram-Schmidt decomposition of J (KHK19 Theorem 1)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.linalg import lapack, matmul
from globopt_jax.linalg.tolerances import check_criterion
from globopt_jax.local_minima.balance import balanced
from globopt_jax.local_minima.blocks import unit_columns
from globopt_jax.local_minima.inputs import check, prediction
from globopt_jax.local_minima.jacobian import FeedForwardModel, Restricted
from globopt_jax.local_minima.mesh import on_automatic_mesh
from globopt_jax.local_minima.passes import MEMORY, Jacobian, faint_words, in_few_widths, kink_words, kinks_of
from globopt_jax.local_minima.spaces import METHODS, NOT_CONVERGED, space_of
from globopt_jax.networks import Activation, feed_forward
from globopt_jax.shapes import Array

__all__ = ["Decomposition", "Shares", "decompose", "shares_of"]

#: A direction counts where it exceeds this many cutoffs; smaller ones may be noise that a projection has left.
NOISE = 4
#: How many roundings of the total Gram-Schmidt may fail to attribute before singular values decide.
LOST = 1e4
#: The largest rank at which singular values decide where Gram-Schmidt cannot tell directions from its noise.
PREFIXES = 500


class Decomposition(NamedTuple):
    """How much of ``1/2 ||Y||^2`` each unit explains, and J, the part that no unit explains; arrays only (NumPy).

    ``target - sum of shares - unattributed = value``.
    """

    shares: tuple[Array, ...]
    """H+1 arrays: for each hidden layer (d_l,) with ``1/2 ||P[N_k D_k] vec Y||^2`` of every unit, and (1,) for the
    output layer."""
    ranks: tuple[Array, ...]
    """Arrays of the same shapes: the number of dimensions that each unit adds to the tangent space."""
    value: Array
    """J, half the squared distance from the targets to the tangent space."""
    target: Array
    """``1/2 ||Y||^2``."""
    unattributed: Array
    """The part of the tangent space's share that could not be attributed to a unit because of rounding."""
    loss: Array
    """The loss ``1/2 ||Yhat - Y||^2``."""
    rank: Array
    """The numerical rank of the Jacobian."""
    cutoff: Array
    """The value at or below which singular values of the Jacobian count as zero."""
    order: Array
    """(H+1,): the order of the layers, a permutation of 1..H+1."""
    kinks: Array
    """The number of pre-activations at which the activation has no derivative and 0 is taken; -1 where unknown."""
    faint: Array
    """(H+1,): for each layer, how many columns of the Jacobian the cutoff may hide, see `TangentProjection`."""
    converged: Array
    """A 0-d bool: whether the iteration of the projection converged."""
    method_code: Array
    """The index in `METHODS` of the method; ``.method`` is its name."""

    @property
    def method(self) -> str:
        """How the projection was computed, one of `METHODS`."""
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
    """The shares of all units of a model with the Jacobian A."""

    shares: list[np.ndarray]
    """For each block of columns an array with the share of each unit."""
    ranks: list[np.ndarray]
    """For each block of columns an array with the number of dimensions that each unit adds."""
    unattributed: float
    """``1/2 ||P[A] vec Y||^2`` minus the sum of all shares."""
    outside: Array
    """``PN[A] vec Y`` as an array (m, dy)."""
    rank: int
    """The numerical rank of A."""
    cutoff: float
    """The value at or below which singular values of A count as zero."""
    faint: np.ndarray
    """For each block of columns, how many columns the cutoff may hide."""
    converged: bool
    """Whether the iteration of the projection converged."""
    method: str
    """How the projection was computed, one of `METHODS`."""


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
    """Decompose the targets into shares of units and layers, and J, the part that no unit explains.

    ``J = 1/2 ||Y||^2 - sum_l sum_k 1/2 ||P[N_k^(l) D_k^(l)] vec Y||^2``

    D_k^(l) is the block of the Jacobian that belongs to unit k of layer l (see `jacobian_blocks`), P[M] projects onto
    the column space of M, and N_k^(l) projects out all blocks that come earlier. The blocks are ordered by layers, and
    within a layer by units (KHK19 (4.2); Proposition 1 is the case H = 1, dy = 1). The share of a unit is therefore the
    part of the targets that the unit explains beyond the units before it. Shares depend on the order; their sum does
    not. Shares do not depend on the scale of a unit's weights, see `tangent_projection`.

    Gram-Schmidt runs in coordinates of the column space of the whole Jacobian, with one cutoff for all blocks. A block
    that depends on earlier blocks consists of rounding once these are projected out, so that its own size cannot serve
    as a cutoff. Where weak directions come early, their rounding hides later directions. Then, up to a rank of 500, the
    singular values of all blocks up to each unit decide; above that rank, the part that could not be attributed to a
    unit is reported as ``unattributed``.

    `decompose` takes several times as long as `tangent_projection`, which is enough where only J is wanted.

    Host function: jits inside, with one compilation for every shape and order, and a few for the rank.

    Args:
        weights: kernels W_l (d_{l-1}, d_l), or pairs (kernel, bias); a bias belongs to its unit.
        X: inputs (m, dx).
        Y: targets (m, dy).
        activation: the activation, see `networks.feed_forward`.
        order: the order of the layers, a permutation of 1..H+1; None is 1..H+1.
        method: how the projection is computed, see `tangent_projection`.
        cutoff: which singular values count as zero, see `linalg.cutoff`.
        memory: the bytes that the chunks of a pass may take.

    Returns:
        A `Decomposition`.

    Raises:
        ValueError: the shapes do not fit together.
        ValueError: an array holds NaN or inf, or the outputs overflow.
        ValueError: `order` is no permutation of the layers.
        ValueError: `method` or `cutoff` is unknown, or `memory` is not positive.
        TypeError: an array does not hold real numbers.

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
    model = FeedForwardModel(network, layers=wanted)
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
    model: FeedForwardModel | Restricted, weights: Any, X: Array, Y: Array, method: str, cutoff: str, memory: int
) -> Shares:
    """Compute the shares of all units of all blocks by Gram-Schmidt, in the model's order of the blocks."""
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
        # Rounding tilts the basis out of the column space. For vectors in that space the error is of second order.
        within = right - projected.outside
        C, z = (in_few_widths(a.T).T for a in space.coordinates(within))
        total = 0.5 * float(jnp.sum(jnp.square(within)))
        width = max(u.shape[1] for u in units)
        table = np.concatenate(
            [np.pad(u, ((0, 0), (0, width - u.shape[1])), constant_values=A.shape[1]) for u in units]
        )
        limit = jnp.asarray(NOISE * space.cutoff, C.dtype)
        C, z = jax.device_put((C, z[:, 0]))
        most = jnp.asarray(space.rank, jnp.int32)
        share, rank = map(np.asarray, _gram_schmidt(C, z, most, jnp.asarray(table), limit))
        lost = total - float(np.sum(share)) > LOST * A.eps * total
        if (np.sum(rank) < space.rank or lost) and space.rank <= PREFIXES:
            share, rank = map(np.asarray, _by_prefixes(C, z, most, jnp.asarray(table), limit / NOISE))
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
    """Return shares and ranks (U,) of the units, whose columns of C (r, N) are the rows of `units` (U, w).

    The index N stands for no column. C has rank `most`. A direction ``u = C t`` that remains of a unit counts if
    ``||C t|| > limit ||t||``, the condition on a singular value. ``||C t||`` alone would not do: for a block that
    depends on weak directions before it, the projection leaves rounding times the large t of these directions.
    """
    (r, N), w = C.shape, units.shape[1]
    padded = jnp.concatenate([C, jnp.zeros((r, 1), C.dtype)], axis=1)

    def step(carry: Any, columns: Any) -> tuple[Any, Any]:
        basis, combinations, used = carry  # (r, r + n), (N, r + n) with basis = C combinations
        block = padded[:, columns]
        block, coefficients = linalg.split(basis, block)
        U, s, Vt = lapack.svd(block, full_matrices=False)
        t = jnp.zeros((N + 1, len(s)), C.dtype).at[columns].add(Vt.T)[:N]
        t = t - matmul(combinations, matmul(coefficients, Vt.T))
        # A direction of the unit's own columns has ||t|| >= 1; a smaller one belongs to the padding.
        kept = s > limit * jnp.maximum(jnp.linalg.norm(t, axis=0), 1)
        kept = kept & (used + jnp.cumsum(kept, dtype=jnp.int32) <= most)  # no more directions than C has
        U = jnp.where(kept[None], U, 0)
        U = U - matmul(basis, matmul(basis.T, U))  # a second time: where s is small, rounding is not small beside it
        t = jnp.where(kept[None], t / jnp.where(kept, s, 1)[None], 0)
        added = jnp.sum(kept, dtype=jnp.int32)
        share = 0.5 * jnp.sum(jnp.square(matmul(U.T, z)))
        # Kept directions come first, and the next unit overwrites the others: r columns and those of one unit suffice.
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
    """Compute the results of `_gram_schmidt` from the rank of ``[C_1 .. C_k]`` for every k.

    The rank is decided by singular values, which tolerate absolute rounding. The blocks so far are kept as
    ``U diag(s)``: weak directions stay small, and do not enlarge the rounding of later blocks.
    """
    r, w = C.shape[0], units.shape[1]
    padded = jnp.concatenate([C, jnp.zeros((r, 1), C.dtype)], axis=1)
    mix = jax.random.normal(jax.random.key(0), (r, min(r, w)), C.dtype)

    def step(carry: Any, columns: Any) -> tuple[Any, Any]:
        seen, basis, used = carry  # (r, r), (r, r + n)
        U, s, _ = lapack.svd(jnp.concatenate([seen, padded[:, columns]], axis=1), full_matrices=False)
        kept = s > limit
        added = jnp.clip(jnp.sum(kept, dtype=jnp.int32) - used, 0, jnp.minimum(mix.shape[1], most - used))
        # The column space grows by at most as many dimensions as the unit has columns; random combinations span them.
        new, _ = linalg.split(basis, matmul(jnp.where(kept[None], U, 0), mix))
        new = lapack.svd(new, full_matrices=False)[0]
        new = jnp.where((jnp.arange(new.shape[1], dtype=added.dtype) < added)[None], new, 0)
        basis = jax.lax.dynamic_update_slice(basis, new, (jnp.zeros_like(used), used))
        share = 0.5 * jnp.sum(jnp.square(matmul(new.T, z)))
        return (jnp.where(kept, s, 0)[None] * U, basis, used + added), (share, added)

    start = jnp.zeros((r, r), C.dtype), jnp.zeros((r, r + mix.shape[1]), C.dtype), jnp.zeros((), jnp.int32)
    return jax.lax.scan(step, start, units)[1]
