"""`certify`: how far any weights are at most from the global minimum over all widths."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import rigorous
from globopt_jax.homogeneous import dual, meta
from globopt_jax.homogeneous.certificate import Certificate, describe
from globopt_jax.homogeneous.dual import Effort
from globopt_jax.homogeneous.inputs import check, targets_moved
from globopt_jax.homogeneous.polar import relaxation
from globopt_jax.homogeneous.problem import Problem, objective, penalty, predict, width
from globopt_jax.homogeneous.regularizers import Layered
from globopt_jax.homogeneous.span import spanned
from globopt_jax.homogeneous.steps import alive, roomy
from globopt_jax.inputs import check_key
from globopt_jax.shapes import Array, Inputs, Params, Targets

__all__ = ["Grader", "Refinement", "certify", "refine"]


class Refinement(NamedTuple):
    """A certificate on its way, and what is needed to go on from it; `homogeneous.stored` turns it into arrays.

    ``point``: the dual point that the stage started from; ``state``: where its ascent stands. None before there is one.
    """

    certificate: Certificate
    stage: str
    point: Array | None
    state: dual.Ascent | None


def certify(
    problem: Problem,
    params: Params,
    X: Any,
    Y: Any,
    *,
    key: Array | None = None,
    effort: str | Effort | None = None,
) -> Certificate:
    """How far given weights are at most from the global minimum of the problem over all widths (host function).

    With ``G = grad loss(Phi_r(W))``, every dual point U in the conjugate's domain and every ``s <= lam / P`` with P
    an upper bound of its polar give ``-loss*(s U) <= min f``. Tried are ``U = G``, then, if the weights are not
    stationary, the gradient at the end of a descent of our own from them, then (for the relaxation) an ascent in U
    and the multipliers together. The best is evaluated by `rigorous` in NumPy float64 with its rounding margin. The
    weights themselves are not changed, converged or not. Targets of softmax cross-entropy are completed to rows that
    sum to 1 exactly; the result says by how much.

    Args:
        problem: map, regularizer, loss, lam.
        params: r subnetworks from any source; zero ones are welcome.
        X: inputs (m, dx). Y: targets (m, dy).
        key: for the searches; None is a fixed key.
        effort: quick, standard (None) or high, or an `Effort`.

    Returns:
        A `Certificate`. In float32 the search and the multipliers are worse, the bound as rigorous.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, lam <= 0, targets the loss does not know, degrees of phi and
            theta that differ (both are named), a penalty that is negative, or 0 where phi is not, at tried weights.

    Reference:
        HV17 Theorem 1 and Corollary 1; K18 (A.2), (A.10); the polar's bounds are in `homogeneous.polar`.

    >>> import jax.numpy as jnp
    >>> from globopt_jax import homogeneous, losses
    >>> problem = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, 1.0)
    >>> Y = jnp.diag(jnp.array([3.0, 0.5]))  # soft-thresholded: one rank of size 2 is left
    >>> w = (jnp.array([[2.0**0.5, 0.0]]), jnp.array([[2.0**0.5, 0.0]]))
    >>> print(f"{homogeneous.certify(problem, w, jnp.eye(2), Y).relative_gap:.6f}")
    0.000000
    """
    given = Y
    params, X, Y = check(problem, params, X, Y)
    key = jax.random.key(0) if key is None else check_key(key)
    *_, last = refine(problem, params, X, Y, key=key, effort=effort, targets_moved=targets_moved(given, Y))
    return last.certificate


def refine(
    problem: Problem,
    params: Params,
    X: Inputs,
    Y: Targets,
    *,
    key: Array,
    effort: str | Effort | None = None,
    resume: Refinement | None = None,
    targets_moved: float = 0.0,
) -> Iterator[Refinement]:
    """`certify` on checked arrays as an iterator: a rigorous certificate at once, better ones as the work goes on."""
    work = dual.effort_named(effort)
    grader = Grader(problem, params, X, Y, key, work, targets_moved)
    stage = resume.stage if resume else "start"
    best = resume.certificate if resume else grader.first()
    state = resume.state if resume else None
    U = grader.U if resume is None or resume.point is None else resume.point
    # A stage that had ended yields nothing more: what it found is in its state.
    coordinates = None if state is None else state.best_coordinates
    if resume is None:
        yield Refinement(best, "start", None, None)
    if grader.kind == "none":
        return
    if grader.kind == "relaxation" and stage in ("start", "fixed"):
        for fitted in grader.fit(U, joint=False, state=state):
            coordinates = fitted.coordinates
            best = grader.better(best, U, coordinates, own=True)
            yield Refinement(best, "fixed", U, fitted.state)
    away = stage == "descent" or (stage != "joint" and not grader.stationary(best))
    if work.joint and away:
        state = state if stage == "descent" else None
        if stage != "descent":
            U, coordinates = grader.descended(), None
            best = grader.better(best, U, None)
            yield Refinement(best, "descent", U, None)
        if grader.kind == "relaxation":
            for fitted in grader.fit(U, joint=False, state=state):
                coordinates = fitted.coordinates
                best = grader.better(best, U, coordinates)
                yield Refinement(best, "descent", U, fitted.state)
    if grader.kind == "relaxation" and work.joint and float(best.relative_gap) > work.target:
        state = state if stage == "joint" else None
        for fitted in grader.fit(U, joint=True, start=coordinates, state=state):
            best = grader.better(best, fitted.U, fitted.coordinates)
            yield Refinement(best, "joint", U, fitted.state)
            if float(best.relative_gap) <= work.target:
                return


class Grader:
    """One problem, one set of weights: the pieces that `refine` puts in order."""

    def __init__(
        self,
        problem: Problem,
        params: Params,
        X: Inputs,
        Y: Targets,
        key: Array,
        effort: Effort,
        targets_moved: float = 0.0,
    ) -> None:
        self.problem, self.X, self.Y, self.key, self.effort = problem, X, Y, key, effort
        self.targets_moved = targets_moved
        # Zeros up to a power of two: everything compiled sees few shapes, and the network is the same.
        self.given, self.params = params, roomy(params)
        self.plain = describe(problem, params, X.shape[1])
        self.kind = self.plain["bound"]
        self.X64, self.Y64 = np.asarray(X, np.float64), np.asarray(Y, np.float64)
        # The relaxation sees inputs by their products alone: of many features the span of the samples is enough.
        span = spanned(X)
        self.inputs = X if span is None else span.X
        self.weights = [np.asarray(w, np.float64) for w in jax.tree.leaves(params)]
        values = (rigorous.dual_value(self.plain["loss"], np.zeros_like(self.Y64), self.Y64, c) for c in (1, 2))
        # What the minimum of the loss proves, and what of it is claimed.
        self.minimum, self.trivial = (value if moved == 0 else -np.inf for value, moved in values)
        if self.kind == "none":
            self.objective, self.error = float(objective(problem, params, X, Y)), 0.0
            self.U = _gradient(problem, self.params, X, Y)
            self.U64 = np.asarray(self.U, np.float64)
        else:
            self.objective, self.error = rigorous.objective(self.plain, self.weights, self.X64, self.Y64)
            # The gradient of the weights as they are, not as their dtype would round it.
            Z, _ = rigorous.predict(self.weights, self.X64, tuple(self.plain["slopes"]))
            self.U64, _ = rigorous.gradient(self.plain["loss"], Z, self.Y64)
            self.U = jnp.asarray(self.U64, Y.dtype)
        if self.objective + self.error < self.trivial:  # a user's own penalty was negative after all
            self.minimum = self.trivial = -np.inf

    def first(self) -> Certificate:
        """The certificate of the scaled residual, with multipliers as they start."""
        problem = self.problem
        found = meta.directions(problem, self.params, -self.U, self.X, self.key, self.effort, floor=np.inf)
        search = found.polar
        residuals, theta = _first_order(problem, self.params, self.X, self.U)
        total = float(np.sum(theta)) or 1.0
        lam = self.plain["lam"]
        _, estimate = _scaled(problem.loss, self.U, self.Y, *(jnp.asarray(a, self.Y.dtype) for a in (search, lam)))
        number = _number
        trivial = min(self.trivial, self.objective)
        blank = Certificate(
            objective=number(self.objective),
            lower_bound=number(trivial),
            lower_bound_estimate=number(min(max(float(estimate), trivial), self.objective)),
            polar_upper=number(np.inf),
            polar_lower=number(search),
            rigorous=np.asarray(False),
            lam=number(lam),
            residuals=np.asarray(residuals, np.float64)[: width(self.given)] / total,
            zero_subnetworks=np.asarray(int(np.sum(~alive(self.given)))),
            resolution=number(max(64 * float(jnp.finfo(self.Y.dtype).eps), 10 * rigorous.RESERVE)),
            targets_moved=number(self.targets_moved),
            theta_proved=np.asarray(isinstance(problem.theta, Layered)),
            bound_code=np.asarray(rigorous.BOUNDS.index(self.kind)),
            dual_point=np.zeros_like(self.Y64),
            multipliers=rigorous.empty_multipliers(),
            polar_multipliers=rigorous.empty_multipliers(),
        )
        if self.kind == "none":
            return blank
        return self.better(blank, self.U64, None, own=True)

    def better(
        self, old: Certificate, U: Any, coordinates: relaxation.Coordinates | None, own: bool = False
    ) -> Certificate:
        """The certificate with U's lower bound, if that is larger; `own`: U is G, so its bound is the polar's."""
        slopes = tuple(self.plain["slopes"])
        U = self.U64 if own else np.asarray(U, np.float64)
        multipliers = rigorous.empty_multipliers()
        if self.kind == "relaxation":
            near = jnp.asarray(U, self.Y.dtype)
            at = _initial(near, jnp.asarray(self.groups, near.dtype)) if coordinates is None else coordinates
            multipliers = relaxation.multipliers(near, slopes, at)
        if own:
            old = self._with_polar(old, multipliers)
        for V, s in self._scaled_down(U, multipliers):
            scaled = multipliers._replace(mu=multipliers.mu * s**2, N=multipliers.N * s**2)
            bound, _ = rigorous.lower_bound(self.plain, V, scaled, self.X64, self.Y64, caution=2)
            if np.isfinite(bound):
                break
        else:
            return old
        if not bound > float(old.lower_bound):
            return old
        bound = within(bound, self.objective, self.error)  # at a global minimum the two may cross by rounding
        estimate = max(bound, float(old.lower_bound_estimate))
        return old._replace(
            lower_bound=_number(bound),
            lower_bound_estimate=_number(estimate),
            rigorous=np.asarray(bound > self.minimum),
            dual_point=V,
            multipliers=scaled,
        )

    def _with_polar(self, old: Certificate, multipliers: rigorous.Multipliers) -> Certificate:
        """The certificate with the polar's bound at -G that these multipliers prove, if that is smaller."""
        upper = rigorous.polar_at(self.plain, self.weights, multipliers, self.X64, self.Y64) * (1 + rigorous.RESERVE)
        if not upper < float(old.polar_upper):
            return old
        # Two searches' rounding apart, no search exceeds a bound.
        lower = within(float(old.polar_lower), upper, float(old.resolution) * upper)
        return old._replace(polar_upper=_number(upper), polar_lower=_number(lower), polar_multipliers=multipliers)

    def _scaled_down(self, U: np.ndarray, multipliers: rigorous.Multipliers) -> Iterator[tuple[np.ndarray, float]]:
        """(s U, s) with the best s for which s U is feasible, then with smaller ones in case rounding forbids it."""
        slopes, layers = tuple(self.plain["slopes"]), self.plain["layers"]
        shape = (self.plain["norms"], self.plain["sizes"])
        polar = rigorous.polar_bound(self.kind, U, self.X64, slopes, layers, multipliers, *shape)
        if not np.isfinite(polar) or not np.any(U):
            return
        name, loss = self.plain["loss"], self.problem.loss
        limit = float(loss.dual_limit(jnp.asarray(U, self.Y.dtype), self.Y)) * (1 - 1e-12)

        def value(s: float) -> float:
            return rigorous.dual_value(name, self._feasible(s * U), self.Y64)[0]

        for reserve in (rigorous.RESERVE, 1e-9, 1e-7, 1e-5, 1e-3):
            top = min(self.plain["lam"] / polar * (1 - reserve) if polar > 0 else np.inf, limit)
            top = top if np.isfinite(top) else 1.0
            if name == "squared":
                s = float(np.clip(-np.sum(U * self.Y64) / np.sum(U * U), 0, top))
            else:
                low, high = 0.0, top
                for _ in range(40):
                    a, b = low + 0.382 * (high - low), low + 0.618 * (high - low)
                    low, high = (low, b) if value(a) >= value(b) else (a, high)
                s = max((low, high, top), key=value)
            if s > 0:
                yield self._feasible(s * U), s

    def _feasible(self, V: np.ndarray) -> np.ndarray:
        """V moved into the conjugate's domain, to the last digit; what is certified is the point that comes back."""
        name, _, delta = self.plain["loss"].partition(":")
        if name == "huber":
            return np.clip(V, -float(delta), float(delta))
        if name == "logistic":
            return -self.Y64 * np.clip(-self.Y64 * V, 0, 1)
        if name == "softmax_cross_entropy":
            return self.problem.loss.exact_targets(np.maximum(V + self.Y64, 0)) - self.Y64
        return V

    @property
    def groups(self) -> np.ndarray:
        if not hasattr(self, "_groups"):
            self._groups = dual.groups_of(self.X64, self.effort.groups)
        return self._groups

    def fit(self, U: Targets, *, joint: bool, start: Any = None, state: Any = None) -> Iterator[dual.Fitted]:
        """Fit the relaxation's multipliers (and U, if joint) from a start."""
        count = self.effort.joint if joint else self.effort.fixed
        if not count or not np.any(np.asarray(U)):
            return
        at = _initial(U, jnp.asarray(self.groups, U.dtype)) if start is None else start
        yield from dual.ascend(
            self.problem.loss,
            tuple(self.plain["slopes"]),
            self.plain["lam"],
            U,
            self.inputs,
            self.Y,
            start=at,
            joint=joint,
            steps=count,
            unit=_size(self.objective),
            state=state,
        )

    def stationary(self, certificate: Certificate) -> bool:
        """Whether a descent from here has nothing to gain that the dual point would notice."""
        settled = float(np.max(np.abs(certificate.residuals), initial=0.0)) < 1e-5
        return settled and float(certificate.polar_lower) <= (1 + 1e-4) * float(certificate.lam)

    def descended(self) -> Targets:
        """The loss's gradient where a descent of our own from these weights ends: a better dual point."""
        params = self.params
        for progress in meta.iterate(
            self.problem,
            params,
            self.X,
            self.Y,
            key=jax.random.fold_in(self.key, 1),
            effort=self.effort,
            outer=8,
        ):
            params = progress.params
        return _gradient(self.problem, params, self.X, self.Y)


def within(lower: float, upper: float, tolerance: float) -> float:
    """`lower`, at most `upper` where they cross by rounding alone; a real contradiction stays to be seen."""
    return min(lower, upper) if lower <= upper + tolerance else lower


def _number(value: float) -> np.ndarray:
    return np.asarray(value, np.float64)


def _size(value: float) -> float:
    return max(abs(value), float(np.finfo(np.float64).tiny))


@jax.jit
def _initial(U: Targets, groups: Array) -> relaxation.Coordinates:
    return relaxation.initial(U, groups)


_scaled = jax.jit(dual.scaled, static_argnums=0)


@jax.jit
def _gradient(problem: Problem, params: Params, X: Inputs, Y: Targets) -> Array:
    return problem.loss.gradient(predict(problem, params, X), Y)


@jax.jit
def _first_order(problem: Problem, params: Params, X: Inputs, G: Targets) -> tuple[Array, Array]:
    """``<-G, phi_i> / lam - theta_i`` and ``theta_i`` of every subnetwork (K18 (A.10))."""
    theta = penalty(problem, params)
    inner = jax.vmap(lambda w: problem.phi.inner(w, -G, X))(params)
    return inner / jnp.asarray(problem.lam, G.dtype) - theta, theta
