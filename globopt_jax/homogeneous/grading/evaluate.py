"""A certificate from a dual point: find its best multiple in the conjugate's domain, and the bound that this proves."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, rigorous
from globopt_jax.homogeneous.duality import scaled
from globopt_jax.homogeneous.grading.certificate import Certificate
from globopt_jax.homogeneous.grading.subject import Subject
from globopt_jax.homogeneous.polar import directions, relaxation
from globopt_jax.homogeneous.problem import Problem, penalty
from globopt_jax.losses import Loss
from globopt_jax.rigorous import Multipliers
from globopt_jax.shapes import Array, Inputs, Params, Targets

__all__ = ["evaluate", "first", "improved", "within"]

#: Relative reserves between a scaled dual point's polar and lam, in turn, in case rounding forbids the smaller ones.
RESERVES = (rigorous.RESERVE, 1e-9, 1e-7, 1e-5, 1e-3)


class Proved(NamedTuple):
    """A lower bound of the global minimum, with the dual point and the multipliers that prove it."""

    bound: float
    """The lower bound."""
    V: np.ndarray
    """The dual point (m, dy)."""
    multipliers: Multipliers
    """The multipliers of the polar's bound at -V."""


def first(at: Subject) -> Certificate:
    """Return the certificate that the scaled residual proves, with the multipliers from which a fit starts."""
    problem, dtype = at.problem, at.Y.dtype
    polar = directions(problem, at.params, -at.residual, at.X, at.key, at.effort, floor=np.inf).polar
    numbers = (jnp.asarray(a, dtype) for a in (polar, at.description["lam"]))
    estimate = float(_scaled(problem.loss, at.residual, at.Y, *numbers)[1])
    residuals, theta = _first_order(problem, at.params, at.X, at.residual)
    trivial = min(at.trivial, at.objective)
    blank = Certificate(
        objective=_number(at.objective),
        lower_bound=_number(trivial),
        lower_bound_estimate=_number(min(max(estimate, trivial), at.objective)),
        polar_upper=_number(np.inf),
        polar_lower=_number(polar),
        rigorous=np.asarray(False),
        lam=_number(at.description["lam"]),
        residuals=np.asarray(residuals, np.float64)[: at.width] / (float(np.sum(theta)) or 1.0),
        zero_subnetworks=np.asarray(at.zero_subnetworks),
        resolution=_number(max(64 * linalg.machine_epsilon(dtype), rigorous.PRECISION)),
        targets_moved=_number(at.targets_moved),
        theta_proved=np.asarray(problem.theta.is_known),
        bound_code=np.asarray(rigorous.BOUNDS.index(at.bound.name)),
        dual_point=np.zeros_like(at.Y64),
        multipliers=rigorous.empty_multipliers(),
        polar_multipliers=rigorous.empty_multipliers(),
    )
    return improved(at, blank, None, None)


def improved(at: Subject, old: Certificate, U: Array | None, coordinates: relaxation.Coordinates | None) -> Certificate:
    """Return the certificate with the lower bound that U proves, if it is larger than the old one.

    U = None is the loss's gradient G, whose multipliers also bound the polar at -G. `coordinates` = None takes the
    multipliers from which a fit starts.
    """
    if not at.bound.exists:
        return old
    m = len(at.Y64)  # a proof knows no padding
    U64 = at.G if U is None else np.asarray(U, np.float64)[:m]
    multipliers = rigorous.empty_multipliers()
    if at.bound.has_multipliers:
        near = at.padded(U64)
        start = relaxation.initial(near, at.groups) if coordinates is None else coordinates
        mu, Vz, Vn, N = relaxation.multipliers(near, tuple(at.description["slopes"]), start)
        multipliers = Multipliers(mu[:m], Vz[:m], Vn[:m], N)
    if U is None:
        old = _with_polar(at, old, multipliers)
    proved = evaluate(at, U64, multipliers)
    if proved is None or not proved.bound > float(old.lower_bound):
        return old
    bound = within(
        proved.bound, at.objective, at.error
    )  # at a global minimum bound and objective may cross by rounding
    return old._replace(
        lower_bound=_number(bound),
        lower_bound_estimate=_number(max(bound, float(old.lower_bound_estimate))),
        rigorous=np.asarray(bound > at.minimum),
        dual_point=proved.V,
        multipliers=proved.multipliers,
    )


def evaluate(at: Subject, U: np.ndarray, multipliers: Multipliers) -> Proved | None:
    """Return the lower bound that the best feasible multiple of U proves; None where rounding forbids every one."""
    for V, s in _feasible_multiples(at, U, multipliers):
        shrunk = multipliers._replace(mu=multipliers.mu * s**2, N=multipliers.N * s**2)
        bound, _ = rigorous.lower_bound(at.description, V, shrunk, at.X64, at.Y64, caution=2)
        if np.isfinite(bound):
            return Proved(bound, V, shrunk)
    return None


def _feasible_multiples(at: Subject, U: np.ndarray, multipliers: Multipliers) -> Iterator[tuple[np.ndarray, float]]:
    """Yield (s U, s) with the best s for which s U is feasible, then with smaller s in case rounding forbids it."""
    polar = at.bound.upper(at.description, U, at.X64, multipliers)
    if not np.isfinite(polar) or not np.any(U):
        return
    loss, lam = at.problem.loss, at.description["lam"]
    limit = float(loss.dual_limit(at.padded(U), at.Y)) * (1 - 1e-12)
    for reserve in RESERVES:
        top = min(lam / polar * (1 - reserve) if polar > 0 else np.inf, limit)
        s = _best_multiple(loss, U, at.Y64, top if np.isfinite(top) else 1.0)
        if s > 0:
            yield loss.into_domain(s * U, at.Y64), s


def _best_multiple(loss: Loss, U: np.ndarray, Y: np.ndarray, top: float) -> float:
    """Return the s in [0, top] that maximizes ``-loss*(s U)``."""
    from scipy.optimize import minimize_scalar  # imported late: `import globopt_jax` loads no optimizer

    if loss.name == "squared":
        return float(np.clip(-np.sum(U * Y) / np.sum(U * U), 0, top))

    def cost(s: float) -> float:
        value, _ = rigorous.dual_value(loss.name, loss.into_domain(s * U, Y), Y)
        return -value if np.isfinite(value) else np.finfo(np.float64).max

    inside = minimize_scalar(cost, bounds=(0.0, top), method="bounded", options={"xatol": 1e-9 * top, "maxiter": 100})
    return float(min((inside.x, top), key=cost))


def _with_polar(at: Subject, old: Certificate, multipliers: Multipliers) -> Certificate:
    """Return the certificate with the bound of the polar at -G that these multipliers prove, if it is smaller."""
    proved = rigorous.polar_at(at.description, at.weights, multipliers, at.X64, at.Y64)
    upper = proved * (1 + rigorous.RESERVE)
    if not upper < float(old.polar_upper):
        return old
    # A search result above the bound can only be rounding; it is clipped.
    lower = within(float(old.polar_lower), upper, float(old.resolution) * upper)
    return old._replace(polar_upper=_number(upper), polar_lower=_number(lower), polar_multipliers=multipliers)


def within(lower: float, upper: float, tolerance: float) -> float:
    """Return `lower`, clipped at `upper` if it exceeds it by at most the tolerance; a larger excess stays visible."""
    return min(lower, upper) if lower <= upper + tolerance else lower


def _number(value: float) -> np.ndarray:
    return np.asarray(value, np.float64)


_scaled = jax.jit(scaled, static_argnums=0)


@jax.jit
def _first_order(problem: Problem, params: Params, X: Inputs, G: Targets) -> tuple[Array, Array]:
    """Return ``<-G, phi_i> / lam - theta_i`` and ``theta_i`` of every subnetwork (K18 (A.10))."""
    theta = penalty(problem, params)
    inner = jax.vmap(lambda w: problem.phi.inner(w, -G, X))(params)
    return inner / jnp.asarray(problem.lam, G.dtype) - theta, theta
