"""HV17's meta-algorithm (Theorem 2) as an iterator: descend, tidy, reduce, look for an escape, append, again.

Every step is recorded with its reason; none increases the objective. The loop stops when no direction has a polar above
lam (HV17 Corollary 1), when appending gains nothing more in floating point, or when its steps are used up. It does not
stop while the descent is still falling. For one neuron with l2 norms the output weights, appended ones included, are
solved for exactly (`lasso`): a descent alone knows them to the root of what the objective resolves, and the polar's
excess, by which the loop stops, to no more than that.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from globopt_jax.homogeneous import descent, faces, lasso, steps
from globopt_jax.homogeneous.dual import Effort, scaled
from globopt_jax.homogeneous.polar import ascent, bound_kind, exact
from globopt_jax.homogeneous.problem import Problem, objective, predict
from globopt_jax.homogeneous.regularizers import Layered
from globopt_jax.homogeneous.span import span_of
from globopt_jax.shapes import Array, Inputs, Params, Targets

__all__ = ["EVENTS", "Directions", "Progress", "Trace", "directions", "iterate"]

#: What a row of the trace can say; the event code is the index.
EVENTS = (
    "start: the weights as they came",
    "descent: local descent by the optimizer",
    "tidy: layers balanced, subnetworks without effect zeroed",
    "polish: Newton steps within the activation cells",
    "smooth: descent with the kinks rounded, less and less",
    "refit: the best scales, or output weights, of all subnetworks",
    "reduce: subnetworks zeroed along a linear dependence of their outputs",
    "escape: a direction with polar above lam was found",
    "append: subnetworks added along the polar's best directions",
    "stop: no polar above lam was found",
    "stop: appending gains nothing that this precision can resolve",
    "stop: the number of steps is used up",
)
#: The largest r m (dx + dy) at which `faces.polish` runs after each descent.
NEWTON_LIMIT = 3e5
#: Searches that have to find nothing before the algorithm ends, where the polar is not known exactly.
LOOKS = 3

START, DESCENT, TIDY, POLISH, SMOOTH, REFIT, REDUCE, ESCAPE, APPEND, OPTIMAL, STALLED, EXHAUSTED = range(len(EVENTS))


class Trace(NamedTuple):
    """What happened, a row a step: event codes, outer steps, widths, objectives, polars over lam, gaps, seconds.

    ``polar`` is the best value of <-G, phi> over theta found so far at the outer step, divided by lam: a search
    result (a lower bound), 0 before the first search. ``gap_estimate`` is relative: the objective of the row against
    the lower bound that would hold if the last search had found the polar; inf before the first search.
    """

    event: Array
    outer: Array
    width: Array
    objective: Array
    polar: Array
    gap_estimate: Array
    seconds: Array

    @property
    def events(self) -> list[str]:
        """The event of every row in words."""
        return [EVENTS[int(code)] for code in np.atleast_1d(np.asarray(self.event))]

    @property
    def reason(self) -> str:
        """Why it ended where it did, and what the last search for a direction left open."""
        last = self.events[-1]
        polar, gap = (float(np.atleast_1d(np.asarray(a))[-1]) for a in (self.polar, self.gap_estimate))
        if not last.startswith("stop") or not np.isfinite(gap):
            return last
        return (
            f"{last}. The best direction that the last search found has a polar of {polar:.9g} lam; if there is no "
            f"better one, at most {max(gap, 0.0):.2g} of the objective can be gained"
        )


class Directions(NamedTuple):
    """``polar``: the largest <U, phi(w)> found with theta(w) = 1; ``candidates``: subnetworks above the floor.

    ``exact``: whether the polar is known exactly there; otherwise a search found it, and may have missed some.
    """

    polar: float
    candidates: Params | None
    exact: bool


class Progress(NamedTuple):
    """Where the algorithm stands after a step; ``done``: whether it has ended.

    ``whole``: whether an outer step ends here. Going on from here, with these weights and this trace, takes exactly
    the steps that an uninterrupted run takes; going on from elsewhere repeats a part of an outer step.
    """

    params: Params
    trace: Trace
    done: bool
    whole: bool


def directions(
    problem: Problem,
    params: Params,
    U: Targets,
    X: Inputs,
    key: Array,
    effort: Effort,
    *,
    floor: float,
    most: int = 16,
) -> Directions:
    """The polar's best directions at U: exact ones where they are known, else a multi-start ascent."""
    kind = bound_kind(problem, X.shape[1])
    known, settled = None, False
    if kind in ("linear", "arcs"):
        known = exact.directions(problem.phi, problem.theta, kind, np.asarray(U), np.asarray(X), params, 0.0)
        norms = problem.theta.layer_norms(params)  # pyright: ignore[reportAttributeAccessIssue]
        settled = set(norms) == {"l2"} or (kind == "linear" and "l1" in norms and len(norms) == 2)
    count = 0 if known is not None and settled else effort.starts
    pools = [params]
    if known is not None:
        pools.append(steps.roomy(known))
    if count:
        pools.append(_starts(problem.phi, params, X, key, count))
    initial = jax.tree.map(lambda *ws: jnp.asarray(np.concatenate([np.asarray(w, U.dtype) for w in ws])), *pools)
    found = _search(problem, U, X, initial, climbs=effort.climbs if count else 2)
    values = np.asarray(found.values)
    above = np.flatnonzero(values > floor)[: 4 * most if count else None]
    if not len(above):
        return Directions(float(found.value), None, not count)
    candidates = jax.tree.map(lambda w: np.asarray(w)[above], found.params)
    chosen = _distinct(problem, candidates, X, most) if count else np.arange(len(above))
    return Directions(float(found.value), jax.tree.map(lambda w: w[chosen], candidates), not count)


@jax.jit
def _outputs(problem: Problem, candidates: Params, X: Inputs) -> Array:
    Phi = jax.vmap(problem.phi, (0, None))(candidates, X).reshape(len(jax.tree.leaves(candidates)[0]), -1)
    Phi = Phi / jnp.linalg.norm(Phi, axis=1, keepdims=True)
    return jnp.matmul(Phi, Phi.T, precision="highest")


def _distinct(problem: Problem, candidates: Params, X: Inputs, most: int) -> np.ndarray:
    """Indices of at most `most` candidates whose outputs are not nearly parallel, best first."""
    count = len(jax.tree.leaves(candidates)[0])
    room = 1 << max(count - 1, 0).bit_length()
    padded = jax.tree.map(lambda w: np.concatenate([w, np.repeat(w[:1], room - count, axis=0)]), candidates)
    cosine = np.asarray(_outputs(problem, padded, X))[:count, :count]
    chosen: list[int] = []
    for i in range(count):
        if len(chosen) < most and (not chosen or cosine[i, chosen].max() < 0.95):
            chosen.append(i)
    return np.asarray(chosen)


def _search(problem: Problem, U: Targets, X: Inputs, initial: Params, *, climbs: int) -> ascent.Search:
    return _jitted_search(problem, U, X, initial, climbs)


def _search_of(problem: Problem, U: Targets, X: Inputs, initial: Params, climbs: int) -> ascent.Search:
    return ascent.search(problem.phi, problem.theta, U, X, initial, climbs)


_jitted_search = jax.jit(_search_of, static_argnums=4)
_starts = jax.jit(ascent.starts, static_argnums=(0, 4))


@jax.jit
def _state(problem: Problem, params: Params, X: Inputs, Y: Targets) -> tuple[Array, Array]:
    """The objective and the loss's gradient in the prediction."""
    return objective(problem, params, X, Y), problem.loss.gradient(predict(problem, params, X), Y)


@jax.jit
def _activity(problem: Problem, params: Params, X: Inputs) -> Array:
    """The root mean square of the first layer's pre-activations over samples and living units."""
    first = jax.tree.leaves(params)[0]
    first = first.reshape(first.shape[0], first.shape[1], -1)
    a = jnp.einsum("md,rdn->mrn", X, first, precision="highest")
    living = jnp.sum(jnp.any(first != 0, axis=1), dtype=a.dtype)
    return jnp.sqrt(jnp.sum(a * a) / (len(X) * jnp.maximum(living, 1)))


@jax.jit
def _bound(problem: Problem, G: Targets, Y: Targets, polar: Array) -> Array:
    """The lower bound of the objective if the polar at -G were `polar`."""
    _, bound = scaled(problem.loss, G, Y, polar, jnp.asarray(problem.lam, G.dtype))
    return jnp.maximum(bound, -problem.loss.conjugate(jnp.zeros_like(Y), Y))


def iterate(
    problem: Problem,
    params: Params,
    X: Inputs,
    Y: Targets,
    *,
    key: Array,
    effort: Effort,
    optimizer: optax.GradientTransformation | None = None,
    outer: int = 30,
    inner: int = 1000,
    tolerance: float | None = None,
    trace: Trace | None = None,
) -> Iterator[Progress]:
    """Run the meta-algorithm; yields after every recorded step, with weights whose objective never increased.

    Args:
        problem, params, X, Y: checked arrays.
        optimizer: any optax transformation; None is L-BFGS.
        outer: the most rounds of descent and append. inner: optimizer steps between two looks.
        tolerance: the relative excess of the polar over lam that counts as none; None is 1e-7 where the polar is known
            exactly and 1e-5 where it is searched for (more in float32).
        trace: of an earlier run that is continued with its weights.
    """
    optimizer = descent.default_optimizer() if optimizer is None else optimizer
    span = span_of(problem, params, X)  # where there is one, all that follows works in its coordinates
    if span is not None:
        params, X = span.project(params), span.X
    params = steps.roomy(params)
    eps = float(jnp.finfo(Y.dtype).eps)
    lam = float(problem.lam)
    rows: list[tuple[Any, ...]] = [] if trace is None else list(zip(*trace, strict=True))
    began = time.monotonic() - (float(rows[-1][-1]) if rows else 0.0)
    value, G = _state(problem, params, X, Y)
    lowest, least = float(value), float("inf")
    polar, bound, first = 0.0, float("-inf"), 0
    if rows:
        last = Trace(*rows[-1])
        polar = float(last.polar)
        if np.isfinite(last.gap_estimate):
            bound = float(last.objective - last.gap_estimate * abs(last.objective))
        first = int(last.outer) + (int(last.event) == APPEND)
        lowest = min(float(row.objective) for row in map(Trace._make, rows))
        least = min((float(row.polar) - 1 for row in map(Trace._make, rows) if row.event == APPEND), default=least)

    def record(event: int, k: int) -> Progress:
        gap = max(float(value) - bound, 0.0) / max(abs(float(value)), np.finfo(np.float64).tiny)
        rows.append((event, k, int(steps.alive(params).sum()), float(value), polar, gap, time.monotonic() - began))
        columns = [np.asarray(c) for c in zip(*rows, strict=True)]
        return Progress(
            params if span is None else span.lift(params),
            Trace(*columns),
            event >= OPTIMAL,
            event >= OPTIMAL or event in (START, APPEND),
        )

    def accept(new: Params) -> bool:
        """Take a step's result unless it is worse."""
        nonlocal params, value, G, lowest
        new_value, new_G = _state(problem, new, X, Y)
        if not float(new_value) <= lowest + 4 * eps * abs(lowest):
            return False
        params, value, G = new, new_value, new_G
        lowest = min(lowest, float(value))
        return True

    if not rows:
        yield record(START, 0)
    kind = bound_kind(problem, X.shape[1])
    sharp, kinked = kind in ("linear", "arcs"), kind not in ("linear", "none")
    tolerance = max(1e-7 if sharp else 1e-5, 4 * eps**0.5 * (eps > 1e-10)) if tolerance is None else tolerance

    def look_around(key: Array) -> Directions:
        """The best directions; a search that found none looks again from other starts."""
        floor = lam * (1 + tolerance)
        looks = (directions(problem, params, -G, X, k, effort, floor=floor) for k in jax.random.split(key, LOOKS))
        first = next(looks)
        return first if first.exact or first.candidates is not None else max([first, *looks], key=lambda d: d.polar)

    for k in range(first, outer):
        arguments = {"optimizer": optimizer, "steps": inner, "tolerance": jnp.asarray(eps**0.75, Y.dtype)}
        converged, falling = False, True
        for _ in range(2):
            before = float(value)
            result = descent.descend(problem, params, X, Y, **arguments)
            if accept(result.params):
                yield record(DESCENT, k)
            converged = bool(result.converged)
            falling = int(result.steps) == inner and before - float(value) > 1e-6 * abs(before)
            if not falling:
                break
        if accept(steps.tidy(problem, params, X, Y)):
            yield record(TIDY, k)
        if kinked and not converged:
            # Some thousand Hessian products: worth it while each is far below a millisecond's work.
            small = len(steps.alive(params)) * X.shape[0] * (X.shape[1] + Y.shape[1]) <= NEWTON_LIMIT
            newton = small and faces.applies(problem)
            for level in (1e-3, 1e-6) if newton else (1e-2, 1e-3, 1e-4):
                before = float(value)
                amount = jnp.asarray(level, Y.dtype)
                if newton:
                    new, _ = faces.polish(problem, params, X, Y, snap=amount, steps=60)
                else:
                    width = amount * _activity(problem, params, X)
                    new = descent.descend(problem, params, X, Y, **arguments, width=width).params
                if accept(new) and float(value) < before:
                    yield record(POLISH if newton else SMOOTH, k)
        fits = lasso.applies(problem, params, X)
        if (fits and not converged) or not (isinstance(problem.theta, Layered) and problem.theta.smooth(params)):
            before = float(value)
            if accept((lasso.fit if fits else steps.refit)(problem, params, X, Y)) and float(value) < before:
                yield record(REFIT, k)
        count = int(steps.alive(params).sum())
        if accept(steps.reduce(problem, params, X)) and int(steps.alive(params).sum()) < count:
            yield record(REDUCE, k)
        params = steps.pad(params, len(steps.alive(params)))
        look = look_around(jax.random.fold_in(key, k))
        polar = look.polar / lam
        bound = float(_bound(problem, G, Y, jnp.asarray(look.polar, Y.dtype)))
        if look.candidates is None and falling:
            continue  # the weights are on their way, and what a search finds there says nothing about where they go
        if look.candidates is None:
            yield record(OPTIMAL, k)
            return
        yield record(ESCAPE, k)
        before = float(value)
        new, _ = steps.append(problem, params, look.candidates, X, Y)
        fits = lasso.applies(problem, new, X)
        accepted = (fits and accept(lasso.fit(problem, new, X, Y))) or accept(new)
        gained = before - float(value) > 8 * eps * abs(before)
        # Exact weights let the polar fall on where rounding hides the gain, which goes with the square of its excess.
        if not accepted or not (gained or (fits and polar - 1 < 0.5 * least)):
            yield record(STALLED, k)
            return
        least = min(least, polar - 1)
        yield record(APPEND, k)
    yield record(EXHAUSTED, outer)
