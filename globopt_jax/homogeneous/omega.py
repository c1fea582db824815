"""Omega, the cheapest way to write a matrix as a sum of subnetworks (HV17 Proposition 1, K18 Definition 3.3)."""

import itertools
import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results, rigorous
from globopt_jax.homogeneous.capacity import alive, pad_to_power_of_two
from globopt_jax.homogeneous.effort import Effort, EffortName, effort_named
from globopt_jax.homogeneous.grading import describe
from globopt_jax.homogeneous.inputs import check
from globopt_jax.homogeneous.lam_max import lam_max
from globopt_jax.homogeneous.maps import ElementalMap, Neuron, PiecewiseLinear
from globopt_jax.homogeneous.minimize import minimize
from globopt_jax.homogeneous.polar import ascent, bound_of, directions
from globopt_jax.homogeneous.problem import Problem, predict
from globopt_jax.homogeneous.prune import exact
from globopt_jax.homogeneous.regularizers import Regularizer
from globopt_jax.homogeneous.tensors import CPTensor
from globopt_jax.homogeneous.training.steps import each, reduce, rescaled
from globopt_jax.inputs import check_data, check_key, finite
from globopt_jax.losses import squared
from globopt_jax.shapes import Array, Params

__all__ = ["Omega", "omega"]

#: The strengths at which `minimize` looks for subnetworks, the later ones in units of ``||Z||^2 / Omega``.
STRENGTHS = (1e-1, 1e-2, 1e-3)
#: The most rounds of new subnetworks, the relative difference of both sides that counts as none, and the rounds without
#: progress after which the search ends.
ROUNDS, EXCESS, PATIENCE = 300, 1e-9, 20
#: The most entries of Z for which columns are generated where training and a linear system can do instead.
COLUMNS = 500
#: The most entries of Z, or rows of the linear system, for which random subnetworks are added, so that every output can
#: be written as a sum.
SPANNED = 1000
#: The number of random subnetworks that training without columns begins with.
MANY = 64


class Omega(NamedTuple):
    """Both sides of Omega(Z), and the weights that attain the upper one."""

    upper: Array
    """``sum_i theta(W_i)`` of `params`, whose output is Z up to `residual`; inf if no subnetworks were found whose sum
    is Z."""
    lower: Array
    """A rigorous lower bound, ``<U, Z>`` over an upper bound of the polar at U; 0 where there is no such bound."""
    params: Params
    """The subnetworks on a leading axis, at most card(Z) = m dy of them; one zero subnetwork if upper is inf."""
    residual: Array
    """``||Phi(params) - Z|| / ||Z||``: rounding, or 1 if upper is inf."""
    rigorous: Array
    """Whether the lower bound is from an upper bound of the polar that is not infinite."""

    @property
    def reason(self) -> str:
        """Both sides in a sentence."""
        lower = f"at least {float(self.lower):.10g}"
        if not self.rigorous:
            lower = "at least 0, since no bound of the polar is known,"
        if np.isinf(self.lower):
            return "Omega(Z) is infinite: no sum of subnetworks is Z."
        if not np.isfinite(self.upper):
            return (
                f"No sum of subnetworks was found that is Z. Omega(Z) is {lower}, and infinite if there is no such "
                "sum. Linear neurons with l2 norms need no search; elsewhere another key or a higher effort may find "
                "one."
            )
        count = len(jax.tree.leaves(self.params)[0])
        found = f"Omega(Z) is {lower} and at most {float(self.upper):.10g}, by {count} subnetwork{'s' * (count != 1)}."
        if self.upper <= 1.001 * self.lower or not self.rigorous:
            return found
        return f"{found} The lower side rests on a bound of the polar that is often loose; a higher effort may help."

    __str__ = results.words


def omega(
    phi: ElementalMap | str,
    theta: Regularizer | str,
    Z: Any,
    X: Any,
    *,
    key: Array,
    params: Params | None = None,
    widths: tuple[int, ...] = (),
    effort: EffortName | Effort | None = None,
) -> Omega:
    """Bound ``Omega(Z) = inf of sum_i theta(W_i) over all r and W with sum_i phi(W_i, X) = Z`` from both sides.

    Omega is a gauge: positively homogeneous of degree 1, subadditive and convex, zero only at Z = 0, and attained by at
    most card(Z) subnetworks (HV17 Proposition 1, K18 Theorem 3.4). Its dual is the polar,
    ``Omega(Z) = sup <U, Z> over polar(U) <= 1``.

    - Linear neurons with l2 norms: the nuclear norm of ``X^+ Z`` over the slope, in closed form, on both sides. Where Z
      is outside of the range of X, the lower bound says so by its size, the inverse of rounding. Singular values of X
      below the rounding of the largest count as 0, so that upper is for an output that differs from Z by `residual`.
    - Tensors of rank one with l2 norms (`cp_tensor`): the lower bound is the largest nuclear norm of an unfolding of
      ``X^+ Z``, and the upper bound is searched for as below.
    - Otherwise the upper bound is the cheapest combination of a pool of subnetworks, by a linear program. The pool
      begins with what `minimize` finds for the targets Z at small strengths. Then the program's dual point U asks the
      polar for subnetworks with ``<U, phi(w)> > theta(w)``, until there are none. The lower bound is the better one of
      ``<U, Z> / polar_upper(U)`` and ``lower_bound / lam`` of the certificates, both evaluated with margins for
      rounding. Where the polar is known exactly (one neuron, at most two inputs) both sides meet.
    - For more than 500 entries of Z, and maps of the catalogue without cones, no columns are generated. The upper bound
      is what `minimize` finds at the smallest strength, after a change of the last layer that leaves nothing of Z: the
      one of least norm, random subnetworks included. With more than 1,000 samples (for tensors: entries of all modes
      but the last) nothing is taken out, and the upper bound is inf. A hundred digits take minutes.

    Host function.

    Args:
        phi: the elemental map, or its name.
        theta: the regularizer of the same degree, or its name.
        Z: the output (m, dy) to write as a sum.
        X: inputs (m, dx); the identity for matrix factorization.
        key: the random key of the searches.
        params: subnetworks that the pool begins with, such as a network whose output is Z; also the shapes of the
            weights of a map of your own. None draws them.
        widths: the hidden widths of drawn deep subnetworks; () means all 1.
        effort: quick, standard (None) or high, or an `Effort`.

    Returns:
        An `Omega`. If Z is outside of the range of phi, Omega is infinite; then `upper` is inf.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, degrees that differ, or a map of your own without params.
        TypeError: an array does not hold real numbers.

    References:
        Haeffele & Vidal 2017, (10) and Proposition 1; Koh 2018, Definition 3.3, Theorem 3.4 and (A.2).

    Example:
        >>> Z = jnp.diag(jnp.array([3.0, 1.0]))  # the nuclear norm is 4
        >>> found = omega("linear", "sum_of_powers", Z, jnp.eye(2), key=jax.random.key(0))
        >>> print(f"{found.lower:.9f} {found.upper:.9f}")
        4.000000000 4.000000000
    """
    problem = Problem(phi, theta, squared, 1.0)
    key, work = check_key(key), effort_named(effort)
    Z, X = finite("Z", Z), finite("X", X)
    check_data(X, Z, targets="Z")
    if params is None:
        if not isinstance(problem.phi, PiecewiseLinear | CPTensor):
            raise ValueError("params: Expected: some subnetworks, since the map is your own. Received: None.")
        params = problem.phi.init(key, r=1, dx=X.shape[1], dy=Z.shape[1], widths=widths)
        params = jax.tree.map(lambda w: w.astype(np.result_type(X.dtype, np.float32)), params)
        params = jax.vmap(problem.theta.project)(params)
    params, X, Z = check(problem, params, X, Z)
    if not bool(jnp.any(Z)):
        return _answer(problem, jax.tree.map(lambda w: 0 * w[:1], params), X, Z, 0.0, True)
    if isinstance(problem.phi, Neuron) and not problem.phi.has_kinks and getattr(problem.theta, "is_l2", False):
        return _nuclear(problem, params, X, Z)
    if Z.size > COLUMNS and _ends_linearly(problem):
        return _by_training(problem, params, X, Z, key, work)
    return _by_columns(problem, params, X, Z, key, work)


def _ends_linearly(problem: Problem) -> bool:
    """Whether the last layer is linear and its weights are free."""
    return isinstance(problem.phi, PiecewiseLinear | CPTensor) and not problem.theta.is_cone


def _answer(
    problem: Problem, params: Params, X: Any, Z: Any, lower: float, proved: bool, reached: bool | None = None
) -> Omega:
    """Return the result for subnetworks whose output is Z, or for none; None finds out whether it is."""
    output, costs = (np.asarray(a, np.float64) for a in each(problem, params, X))
    target = np.asarray(Z, np.float64).ravel()
    size = float(np.linalg.norm(target))
    left = float(np.linalg.norm(output.sum(axis=0) - target))
    residual = left / size if size else 0.0
    if reached is None:  # rounding of the weights moves the output by so much
        scale = max(size, float(np.linalg.norm(output, axis=1).sum()))
        reached = left <= 1e2 * linalg.machine_epsilon(Z.dtype) * scale
    return Omega(
        upper=np.asarray(costs.sum() if reached else np.inf),
        lower=np.asarray(max(lower, 0.0)),
        params=params if reached else jax.tree.map(lambda w: jnp.zeros_like(w[:1]), params),
        residual=np.asarray(residual if reached else 1.0),
        rigorous=np.asarray(proved),
    )


def _nuclear(problem: Problem, params: Params, X: Any, Z: Any) -> Omega:
    """The closed form for linear neurons: the singular vectors of ``X^+ Z``, and the dual point ``X^{+T} U V^T``.

    If Z is outside of the range of X, its part there is a dual point whose polar is rounding, and the bound is huge.
    """
    inputs, targets = (np.asarray(a, np.float64) for a in (X, Z))
    slope = problem.phi.slopes[1]
    eps = linalg.machine_epsilon(Z.dtype)
    basis, sizes, rows = np.linalg.svd(inputs, full_matrices=False)
    rank = int(np.sum(sizes > sizes[0] * max(inputs.shape) * np.finfo(np.float64).eps))
    inverse = (rows[:rank].T / sizes[:rank]) @ basis[:, :rank].T
    outside, _ = linalg.split(basis[:, :rank], targets)
    reached = bool(np.linalg.norm(outside) <= 1e2 * eps * np.linalg.norm(targets))
    left, s, right = np.linalg.svd(inverse @ targets, full_matrices=False)
    tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1])
    kept = tails > 10 * eps * s[0]  # the rest is the rounding of Z
    if not np.any(kept):
        kept = np.arange(len(s)) == 0  # no part of Z is in the range of X: a subnetwork without weight
    root = np.sqrt(s[kept] / abs(slope))
    weights = [root[:, None] * left.T[kept], np.sign(slope) * root[:, None] * right[kept]]
    found = jax.tree.map(lambda w: jnp.asarray(w, Z.dtype), jax.tree.unflatten(jax.tree.structure(params), weights))
    U = inverse.T @ (left[:, kept] @ right[kept]) / abs(slope)
    dx = inputs.shape[1]
    description = describe(problem, found, dx)

    def proved(U: np.ndarray) -> float:
        polar = bound_of(problem, dx).upper(description, U, inputs, rigorous.empty_multipliers())
        return _paired(U, targets, polar)

    lower = proved(U) if reached else max(proved(U), proved(outside))
    return _answer(problem, found, X, Z, lower, True, reached)


def _paired(U: np.ndarray, Z: np.ndarray, polar: float) -> float:
    """Return ``<U, Z> / polar`` without more than it: inf where the polar is 0, and 0 where it is infinite."""
    products = (U * Z).ravel()
    inner = math.fsum(products) - 2 * np.finfo(np.float64).eps * math.fsum(np.abs(products))
    if not inner > 0:
        return 0.0
    return inner / polar * (1 - 1e-15) if polar > 0 else np.inf


class _Trained(NamedTuple):
    """What training at one strength gives."""

    params: Params
    lower: float
    """A lower bound of Omega."""
    proved: bool
    """Whether it is rigorous."""


def _trained(
    problem: Problem, params: Params, X: Any, Z: Any, keys: Iterable[Array], work: Effort, **options: Any
) -> Iterator[_Trained]:
    """Train for the targets Z at small strengths, each time from the weights before."""
    scale = float(jnp.linalg.norm(Z))
    for strength, key in zip(STRENGTHS, keys, strict=True):
        lam = strength * scale
        solution = minimize(_at(problem, lam), params, X, Z, key=key, effort=work, **options)
        params, certificate = solution.params, solution.certificate
        # Where the output is Z the objective is lam Omega(Z), so that its lower bound is one of lam Omega(Z).
        lower = float(certificate.lower_bound) / lam * (1 - 1e-15)
        yield _Trained(params, lower, bool(certificate.rigorous))
        scale = float(jnp.sum(Z * Z)) / max(lower, float(certificate.objective) / lam)


def _by_training(problem: Problem, params: Params, X: Any, Z: Any, key: Array, work: Effort) -> Omega:
    """Both sides by training: the certificates, and the trained weights with a last layer that leaves nothing of Z."""
    start, rest, *keys = jax.random.split(key, 2 + len(STRENGTHS))
    params = _joined(params, ascent.starts(problem.phi, params, X, start, MANY))
    # Nobody needs the optimum at these strengths: a direction that is worth a hundredth is not followed.
    options = {"outer": max(2, work.starts // 10), "tolerance": 1e-2}
    runs = list(_trained(problem, params, X, Z, keys, work, **options))
    lower, proved = max(run.lower for run in runs), any(run.proved for run in runs)
    if _is_tensor(problem):
        lower, proved = max(lower, _unfolded(problem.phi, *(np.asarray(a, np.float64) for a in (Z, X)))), True
    found = reduce(problem, _completed(problem, runs[-1].params, X, Z, rest), X)
    keep = np.flatnonzero(alive(found))
    return _answer(problem, jax.tree.map(lambda w: w[keep], found), X, Z, lower, proved)


def _completed(problem: Problem, params: Params, X: Any, Z: Any, key: Array) -> Params:
    """Change the last layer by the least norm that leaves nothing of Z, random subnetworks included.

    The output is linear in the last layer: ``Z = features last``, where Z has as many columns as the last layer. For
    tensors the other modes count as rows.
    """
    columns = jax.tree.leaves(params)[-1].shape[-1]
    rows = Z.size // columns
    if rows > SPANNED:
        return params
    drawn = jax.vmap(partial(ascent.normalize, problem.theta))(ascent.starts(problem.phi, params, X, key, 2 * rows))
    *free, last = jax.tree.leaves(drawn)
    whole = _joined(params, jax.tree.unflatten(jax.tree.structure(drawn), [*free, 0 * last]))
    (*below, last), tree = jax.tree.flatten(whole)
    features = np.asarray(_features(problem, whole, X), np.float64)
    target = np.asarray(Z, np.float64).reshape(rows, columns)
    for _ in range(2):  # the second change takes out the rounding of the first
        left = target - features @ np.asarray(last, np.float64).reshape(-1, columns)
        last = last + np.linalg.lstsq(features, left, rcond=None)[0].reshape(last.shape).astype(last.dtype)
    return jax.vmap(problem.theta.balance)(jax.tree.unflatten(tree, [*below, last]))


@jax.jit
def _features(problem: Problem, params: Params, X: Any) -> Array:
    """Return what the last layers multiply, side by side: first columns of outputs for last layers with a single 1."""
    (*below, last), tree = jax.tree.flatten(params)
    columns = last.shape[-1]
    single = jnp.eye(last[0].size, dtype=last.dtype)[::columns].reshape(-1, *last.shape[1:])

    def features(below: list[Array]) -> Array:
        return jax.vmap(lambda e: problem.phi(jax.tree.unflatten(tree, [*below, e]), X).reshape(-1, columns)[:, 0])(
            single
        )

    found = jax.vmap(features)(below)
    return found.reshape(-1, found.shape[-1]).T


def _joined(a: Params, b: Params) -> Params:
    return jax.tree.map(lambda v, w: jnp.concatenate([v, w]), a, b)


def _is_tensor(problem: Problem) -> bool:
    """Whether the nuclear norms of unfoldings are lower bounds."""
    return isinstance(problem.phi, CPTensor) and getattr(problem.theta, "is_l2", False)


def _by_columns(problem: Problem, params: Params, X: Any, Z: Any, key: Array, work: Effort) -> Omega:
    """Both sides by column generation: a pool of subnetworks, a linear program over it, and the polar of its dual."""
    targets = np.asarray(Z, np.float64)
    keys = iter(jax.random.split(key, ROUNDS + len(STRENGTHS) + 3))
    pool = _Pool(problem, X)
    _ = pool.add(params)
    lower, proved = 0.0, False
    for run in _trained(problem, params, X, Z, itertools.islice(keys, len(STRENGTHS)), work):
        _ = pool.add(run.params)
        lower, proved = max(lower, run.lower), proved or run.proved
    solved = pool.program(targets)
    if not solved.feasible and Z.size <= SPANNED:
        _ = pool.add(_spanning(problem, params, X, next(keys), Z.size))
        solved = pool.program(targets)
    values, best = [np.inf], (0.0, solved.dual)
    for _ in range(ROUNDS):
        floor = 1 + EXCESS if solved.feasible else 0.0
        U = jnp.asarray(solved.dual, Z.dtype)
        found = directions(problem, pad_to_power_of_two(params), U, X, next(keys), work, floor=floor)
        if solved.feasible:
            values.append(float(solved.t.sum()))
            best = max(best, (values[-1] / max(found.polar, 1.0), solved.dual), key=lambda pair: pair[0])
        stuck = len(values) > PATIENCE and values[-1] >= values[-PATIENCE] * (1 - EXCESS)
        done = stuck or best[0] >= values[-1] * (1 - EXCESS)
        if done or found.candidates is None or not pool.add(found.candidates):
            break
        last, solved = solved, pool.program(targets)
        if last.feasible and not solved.feasible:  # by the tolerances of the program, among columns nearly equal
            solved = last
            break
    if _is_tensor(problem):
        lower, proved = max(lower, _unfolded(problem.phi, targets, np.asarray(X, np.float64))), True
    elif solved.feasible:
        U = jnp.asarray(best[1] / np.max(np.abs(best[1])), Z.dtype)  # its scale does not enter the bound
        polar = float(lam_max(problem, X, U, params=params, key=next(keys), effort=work).upper)
        lower = max(lower, _paired(np.asarray(U, np.float64), targets, polar))
        proved = proved or bool(np.isfinite(polar))
    if solved.feasible and Z.size <= SPANNED:
        _ = pool.add(_spanning(problem, params, X, next(keys), Z.size))
        solved = pool.completed(solved, targets)
    found = reduce(problem, pool.weights(solved, params, Z.dtype), X)
    keep = np.flatnonzero(alive(found)) if solved.feasible else np.arange(1)
    found = _closed(problem, jax.tree.map(lambda w: w[keep], found), X, Z)
    return _answer(problem, found, X, Z, lower, proved)


def _closed(problem: Problem, params: Params, X: Any, Z: Any) -> Params:
    """Take what the search has left of Z out of it, by Gauss-Newton steps of the weights that are not 0.

    In a cone the subnetworks that span all outputs cannot do so: there Z may have one decomposition alone.
    """
    if Z.size > SPANNED:
        return params
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    rounding, much = (share * float(jnp.linalg.norm(Z)) for share in (100 * linalg.machine_epsilon(Z.dtype), EXCESS))

    def rest(flat: jax.Array) -> Array:
        return jnp.ravel(predict(problem, unravel(flat), X) - Z)

    for _ in range(3):
        r = rest(flat)
        left = float(jnp.linalg.norm(r))
        if not rounding < left < much:
            break
        J = jnp.where(flat != 0, jax.jacobian(rest)(flat), 0)
        moved = flat - jnp.linalg.lstsq(J, r)[0]
        inside = np.isfinite(float(jnp.sum(jax.vmap(problem.theta)(unravel(moved)))))
        if not (inside and float(jnp.linalg.norm(rest(moved))) < left):
            break
        flat = moved
    return unravel(flat)


def _spanning(problem: Problem, params: Params, X: Any, key: Array, size: int) -> Params:
    """Return random subnetworks to write any matrix of this size as a sum of.

    Where the last layer is linear each comes with its negative, and then it is enough that the outputs span the space.
    Elsewhere their non-negative sums may miss some matrices.
    """
    drawn = ascent.starts(problem.phi, params, X, key, 3 * size)
    if problem.theta.is_cone or not isinstance(problem.phi, PiecewiseLinear | CPTensor):
        return drawn
    *below, last = jax.tree.leaves(drawn)
    doubled = [jnp.concatenate([w, w]) for w in below] + [jnp.concatenate([last, -last])]
    return jax.tree.unflatten(jax.tree.structure(drawn), doubled)


def _unfolded(phi: CPTensor, Z: np.ndarray, X: np.ndarray) -> float:
    """A lower bound for tensors of rank one: the largest nuclear norm of an unfolding of ``X^+ Z``, less its rounding.

    Its dual point is the orthogonal factor D of the unfolding, at ``U = X^{+T} D``. The polar at U is the spectral norm
    of the tensor ``X^T U``, which is at most that of each unfolding.
    """
    inverse = np.linalg.pinv(X)
    T, bounds = inverse @ Z, []
    for mode, unfolding in enumerate(phi.unfolded(T)):
        left, _, right = np.linalg.svd(unfolding, full_matrices=False)
        shape = (len(T), *phi.dims)
        folded = (left @ right).reshape(shape[mode], *(d for k, d in enumerate(shape) if k != mode))
        U = inverse.T @ np.moveaxis(folded, 0, mode).reshape(len(T), -1)
        polar = rigorous.polar_bound(
            "unfoldings", U, X, (1.0, 1.0), len(shape), norms=("l2",) * len(shape), sizes=shape
        )
        bounds.append(_paired(U, Z, polar))
    return max(bounds)


def _at(problem: Problem, lam: float) -> Problem:
    """Return the problem at another strength."""
    return Problem(problem.phi, problem.theta, squared, lam)


class _Program(NamedTuple):
    """The solution of ``min sum t`` subject to ``sum t_i phi_i = Z`` and ``t >= 0``."""

    feasible: bool
    """Whether the subnetworks can be added to Z."""
    t: np.ndarray
    """The scales; those of the closest combination where it is not feasible."""
    dual: np.ndarray
    """U (m, dy): ``<U, phi_i> <= 1`` for all subnetworks, and <= 0 where the program is not feasible."""


@jax.jit
def _units(problem: Problem, params: Params, X: Any) -> tuple[Params, Array, Array]:
    """Return the subnetworks scaled to penalty 1, their outputs (r, m dy) and their penalties."""
    units = jax.vmap(lambda w: ascent.normalize(problem.theta, w))(params)
    return units, *each(problem, units, X)


class _Pool:
    """Subnetworks of penalty 1 and their outputs."""

    def __init__(self, problem: Problem, X: Any) -> None:
        self.problem, self.X = problem, X
        self.leaves: list[np.ndarray] = []
        self.tree: Any = None
        self.outputs = np.zeros((0, 0))

    def add(self, params: Params) -> int:
        """Add the subnetworks whose output is not zero, scaled to penalty 1, and return their number."""
        units, *found = _units(self.problem, pad_to_power_of_two(params), self.X)
        outputs, costs = (np.asarray(a, np.float64) for a in found)
        keep = np.flatnonzero((costs > 0) & np.any(outputs != 0, axis=1))
        leaves, self.tree = jax.tree.flatten(units)
        new = [np.asarray(w)[keep] for w in leaves]
        rows = outputs[keep] / costs[keep, None]
        old = self.outputs.reshape(-1, rows.shape[1])
        self.leaves = [np.concatenate([a, b]) for a, b in zip(self.leaves, new, strict=True)] if len(old) else new
        self.outputs = np.concatenate([old, rows])
        return len(keep)

    def program(self, Z: np.ndarray) -> _Program:
        """Find the cheapest combination that is Z, or the closest one in the l1 norm where there is none."""
        from scipy.optimize import linprog  # imported late: nothing else needs it

        if not len(self.outputs):  # all subnetworks were without output
            return _Program(False, np.zeros(0), np.sign(Z))
        columns, target = self.outputs.T, Z.ravel()
        # In coordinates of the span of all columns and of Z there are no more rows than columns.
        basis = np.linalg.qr(np.column_stack([columns, target]))[0] if len(target) > len(self.outputs) else None
        rows, wanted = (columns, target) if basis is None else (basis.T @ columns, basis.T @ target)
        sizes = float(np.max(np.linalg.norm(rows, axis=0))), float(np.linalg.norm(wanted))
        A, b, n = rows / sizes[0], wanted / sizes[1], rows.shape[1]
        options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        solved = linprog(np.ones(n), A_eq=A, b_eq=b, method="highs-ds", options=options)
        feasible = solved.x is not None and solved.status == 0
        if not feasible:
            slack = np.eye(len(b))
            cost = np.concatenate([np.zeros(n), np.ones(2 * len(b))])
            solved = linprog(cost, A_eq=np.hstack([A, slack, -slack]), b_eq=b, method="highs-ds", options=options)
        u = np.asarray(solved.eqlin.marginals) / (sizes[0] if feasible else 1.0)
        dual = (u if basis is None else basis @ u).reshape(Z.shape)
        t = np.maximum(np.asarray(solved.x)[:n], 0) * sizes[1] / sizes[0]
        return _Program(feasible, self._refined(t, target) if feasible else t, dual)

    def completed(self, solved: _Program, Z: np.ndarray) -> _Program:
        """Add what the program's tolerance has left of Z, by the same subnetworks with additional scales."""
        t = np.pad(solved.t, (0, len(self.outputs) - len(solved.t)))
        for _ in range(3):
            rest = Z.ravel() - t @ self.outputs
            if np.linalg.norm(rest) <= 8 * np.finfo(np.float64).eps * np.linalg.norm(Z):
                break
            further = self.program(rest.reshape(Z.shape))
            if not further.feasible:
                break
            t = t + further.t
        return _Program(True, t, solved.dual)

    def _refined(self, t: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return the scales of the same vertex with the accuracy of least squares, where that is closer."""
        better = exact(self.outputs.T, t, target)
        return min((better, t), key=lambda scales: np.linalg.norm(scales @ self.outputs - target))

    def weights(self, solved: _Program, like: Params, dtype: Any) -> Params:
        """Return the subnetworks of a combination that is Z; one zero subnetwork where there is none."""
        support = np.flatnonzero(solved.t) if solved.feasible else np.zeros(0, int)
        if not len(support):
            return jax.tree.map(lambda w: jnp.zeros_like(w[:1]), like)
        units = jax.tree.unflatten(self.tree, [jax.device_put(np.asarray(w[support], dtype)) for w in self.leaves])
        return rescaled(units, solved.t[support] ** (1 / float(self.problem.phi.degree)))
