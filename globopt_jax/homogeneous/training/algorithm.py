"""HV17's meta-algorithm (Theorem 2) as an iterator: descend, tidy, polish, refit, reduce, escape, and again.

No phase increases the objective. The loop stops when no direction has a polar above lam (HV17 Corollary 1), when
appending gains nothing more in floating point, or when its rounds are used up. It does not stop while the descent is
still falling.

For one neuron with l2 norms the loop also solves for all output weights exactly (`output_weights`). A descent judges
weights by the objective, so it finds them only to the square root of the objective's precision. The polar's excess over
lam, which decides whether the loop stops, would then be known no better.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from globopt_jax import linalg
from globopt_jax.homogeneous.capacity import alive, pad, pad_to_power_of_two
from globopt_jax.homogeneous.duality import bound_if
from globopt_jax.homogeneous.effort import Effort
from globopt_jax.homogeneous.polar import PolarBound, bound_of, look
from globopt_jax.homogeneous.problem import Problem, objective, predict
from globopt_jax.homogeneous.samples import pad_samples
from globopt_jax.homogeneous.span import Span, span_of
from globopt_jax.homogeneous.training import active_set, output_weights, steps
from globopt_jax.homogeneous.training import trace as log
from globopt_jax.homogeneous.training.descent import Descent, default_optimizer, descend
from globopt_jax.homogeneous.training.projected import projected_gradient
from globopt_jax.homogeneous.training.trace import Trace
from globopt_jax.shapes import Array, Inputs, Params, Scalar, Targets

__all__ = ["Progress", "State", "iterate"]

#: The largest r m (dx + dy) at which `active_set.polish` runs after each descent.
NEWTON_LIMIT = 3e5


class State(NamedTuple):
    """What the next phase needs, and what a checkpoint stores."""

    params: Params
    """The subnetworks, padded; in coordinates of the samples' span where `span_of` has one."""
    value: Scalar
    """Their objective."""
    G: Targets
    """The loss's gradient in their prediction, with rows of zeros for padding."""
    lowest: float
    """The smallest objective so far."""
    polar: float = 0.0
    """The value that the last search found, over lam."""
    bound: float = float("-inf")
    """The lower bound that would hold if that search had found the polar."""
    least: float = float("inf")
    """The smallest excess of the polar over lam at which subnetworks were appended."""
    outer: int = 0
    """The round."""
    converged: bool = False
    """Whether the round's descent ended at a stationary point."""
    falling: bool = True
    """Whether the round's descent was still going down when its steps were used up."""


class Progress(NamedTuple):
    """Where the algorithm stands after a step."""

    params: Params
    """The subnetworks, padded with zeros."""
    trace: Trace
    """The record so far."""
    done: bool
    """Whether the algorithm has ended."""
    whole: bool
    """Whether a round ends here. A run that is resumed from here takes exactly the steps of an uninterrupted run; a run
    that is resumed from elsewhere repeats a part of a round."""
    state: State
    """What the next step needs."""


class _Setting(NamedTuple):
    """The arguments, which no round changes."""

    problem: Problem
    X: Inputs
    Y: Targets
    key: Array
    effort: Effort
    optimizer: optax.GradientTransformation
    inner: int
    tolerance: float
    bound: PolarBound

    @property
    def eps(self) -> float:
        return linalg.machine_epsilon(self.Y.dtype)

    @property
    def data(self) -> tuple[Inputs, Targets]:
        return self.X, self.Y


#: A phase yields every state that it reaches, with the event to record, or None if the step is not recorded.
_Steps = Iterator[tuple[int | None, State]]


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
    resume: Progress | None = None,
) -> Iterator[Progress]:
    """Run the meta-algorithm; yields after every recorded step, with weights whose objective never increased.

    Args:
        problem: map, regularizer, loss and lam.
        params: r subnetworks to start from.
        X: inputs (m, dx), in the dtype of params.
        Y: targets (m, dy), in the same dtype.
        key: the random key of the searches.
        effort: the effort of the searches.
        optimizer: any optax transformation; None is L-BFGS, or the projected gradient method in a cone.
        outer: the most rounds.
        inner: the most optimizer steps of one descent.
        tolerance: the relative excess of the polar over lam that counts as none. None is 1e-7 where the polar is known
            exactly and 1e-5 where it is searched for (more in float32).
        resume: the last progress of an earlier run with the same arguments; the run goes on from there.

    Yields:
        A `Progress` after every recorded step; the last one is ``done``.
    """
    problem, X, Y = pad_samples(problem, X, Y)
    span = span_of(problem, params, X)  # where there is one, all that follows works in its coordinates
    if span is not None:
        params, X = span.project(params), span.X
    setting = _setting(problem, X, Y, key, effort, optimizer, inner, tolerance)
    trace = Trace.empty() if resume is None else resume.trace
    began = time.monotonic() - (float(trace.seconds[-1]) if len(trace.seconds) else 0.0)

    def recorded(event: int, k: int, state: State) -> Progress:
        nonlocal trace
        value, width = float(state.value), int(alive(state.params).sum())
        gap = max(value - state.bound, 0.0) / max(abs(value), linalg.smallest_normal(np.float64))
        trace = trace.and_then(event, k, width, value, state.polar, gap, time.monotonic() - began)
        return _progress(event, state, trace, span)

    if resume is None:
        state = _started(setting, pad_to_power_of_two(params))
        yield recorded(log.START, 0, state)
    else:
        state = resume.state
    for k in range(int(state.outer), outer):
        state = state._replace(outer=k)
        for phase in (_descend, _tidy, _polish, _refit, _reduce, _escape):
            for event, reached in phase(setting, state):
                state = reached
                if event is not None:
                    yield recorded(event, k, state)
                if event in log.ENDS:
                    return
    yield recorded(log.EXHAUSTED, outer, state)


def _setting(
    problem: Problem,
    X: Inputs,
    Y: Targets,
    key: Array,
    effort: Effort,
    optimizer: optax.GradientTransformation | None,
    inner: int,
    tolerance: float | None,
) -> _Setting:
    bound = bound_of(problem, X.shape[1])
    if tolerance is None:
        eps = linalg.machine_epsilon(Y.dtype)
        tolerance = max(1e-7 if bound.is_exact else 1e-5, 4 * eps**0.5 * (eps > 1e-10))
    if optimizer is None:
        optimizer = projected_gradient(problem.theta) if problem.theta.is_cone else default_optimizer()
    return _Setting(problem, X, Y, key, effort, optimizer, inner, tolerance, bound)


def _started(at: _Setting, params: Params) -> State:
    value, G = _value_and_gradient(at.problem, params, *at.data)
    return State(params, value, G, lowest=float(value))


def _progress(event: int, state: State, trace: Trace, span: Span | None) -> Progress:
    params = state.params if span is None else span.lift(state.params)
    done = event in log.ENDS
    return Progress(params, trace, done, done or event in (log.START, log.APPEND), state)


def _accepted(at: _Setting, state: State, params: Params) -> State:
    """The state with these weights, or the very same state if they are worse."""
    value, G = _value_and_gradient(at.problem, params, *at.data)
    if not float(value) <= state.lowest + 4 * at.eps * abs(state.lowest):
        return state
    return state._replace(params=params, value=value, G=G, lowest=min(state.lowest, float(value)))


# -- the phases ------------------------------------------------------------------------------------------


def _descent(at: _Setting, params: Params, width: Scalar | None = None) -> Descent:
    tolerance = jnp.asarray(at.eps**0.75, at.Y.dtype)
    options = {"optimizer": at.optimizer, "steps": at.inner, "tolerance": tolerance}
    return descend(at.problem, params, *at.data, **options, width=width)


def _descend(at: _Setting, state: State) -> _Steps:
    """Local descent; once more where it was still falling when its steps were used up."""
    for _ in range(2):
        before = float(state.value)
        result = _descent(at, state.params)
        after = _accepted(at, state, result.params)
        falling = int(result.steps) == at.inner and before - float(after.value) > 1e-6 * abs(before)
        event = None if after is state else log.DESCENT
        state = after._replace(converged=bool(result.converged), falling=falling)
        yield event, state
        if not falling:
            return


def _tidy(at: _Setting, state: State) -> _Steps:
    """Balance layers, and zero subnetworks without effect."""
    after = _accepted(at, state, steps.tidy(at.problem, state.params, *at.data))
    yield None if after is state else log.TIDY, after


def _polish(at: _Setting, state: State) -> _Steps:
    """If kinks kept the descent from converging: Newton steps within the cells, or descents with rounded kinks."""
    if not (at.bound.exists and at.problem.phi.has_kinks) or state.converged:
        return
    # Some thousand Hessian products: worth it while each is far below a millisecond's work.
    small = len(alive(state.params)) * at.X.shape[0] * (at.X.shape[1] + at.Y.shape[1]) <= NEWTON_LIMIT
    newton = small and active_set.applies(at.problem)
    for level in (1e-3, 1e-6) if newton else (1e-2, 1e-3, 1e-4):
        amount = jnp.asarray(level, at.Y.dtype)
        if newton:
            new, _ = active_set.polish(at.problem, state.params, *at.data, snap=amount, steps=60)
        else:
            new = _descent(at, state.params, amount * _activity(at.problem, state.params, at.X)).params
        after = _accepted(at, state, new)
        lower, state = float(after.value) < float(state.value), after
        yield (log.POLISH if newton else log.SMOOTH) if lower else None, state


def _refit(at: _Setting, state: State) -> _Steps:
    """The best output weights; or the best scales, where the norms of theta have kinks."""
    fits = output_weights.applies(at.problem, state.params, at.X)
    if (fits and not state.converged) or not at.problem.theta.is_l2:
        best = output_weights.fit if fits else steps.refit
        after = _accepted(at, state, best(at.problem, state.params, *at.data))
        yield log.REFIT if float(after.value) < float(state.value) else None, after


def _reduce(at: _Setting, state: State) -> _Steps:
    """Zero subnetworks along linear dependences, and move the others to the front."""
    after = _accepted(at, state, steps.reduce(at.problem, state.params, at.X))
    fewer = alive(after.params).sum() < alive(state.params).sum()
    yield log.REDUCE if fewer else None, after
    yield None, after._replace(params=pad(after.params, len(alive(after.params))))


def _escape(at: _Setting, state: State) -> _Steps:
    """Append directions with a polar above lam; the algorithm ends if a search finds none."""
    problem, lam, k = at.problem, float(at.problem.lam), state.outer
    floor = lam * (1 + at.tolerance)
    found = look(problem, state.params, -state.G, at.X, jax.random.fold_in(at.key, k), at.effort, floor=floor)
    numbers = (jnp.asarray(a, at.Y.dtype) for a in (found.polar, lam))
    bound = float(bound_if(problem.loss, state.G, at.Y, *numbers))
    state = state._replace(polar=found.polar / lam, bound=bound)
    if found.candidates is None:
        # While the weights are on their way, a search that finds nothing says nothing about where they go.
        yield None if state.falling else log.OPTIMAL, state
        return
    yield log.ESCAPE, state
    new, _ = steps.append(problem, state.params, found.candidates, *at.data)
    fits = output_weights.applies(problem, new, at.X)
    after = _accepted(at, state, output_weights.fit(problem, new, *at.data)) if fits else state
    after = _accepted(at, state, new) if after is state else after
    before, excess = float(state.value), state.polar - 1
    gained = before - float(after.value) > 8 * at.eps * abs(before)
    # Exact weights let the polar fall on where rounding hides the gain, which goes with the square of its excess.
    if after is state or not (gained or (fits and excess < 0.5 * state.least)):
        yield log.STALLED, after
    else:
        yield log.APPEND, after._replace(least=min(state.least, excess), outer=k + 1)


@jax.jit
def _value_and_gradient(problem: Problem, params: Params, X: Inputs, Y: Targets) -> tuple[Array, Array]:
    """The objective and the loss's gradient in the prediction."""
    return objective(problem, params, X, Y), problem.loss.gradient(predict(problem, params, X), Y)


@jax.jit
def _activity(problem: Problem, params: Params, X: Inputs) -> Array:
    """The root mean square of the first layer's pre-activations over samples that are not zero and living units."""
    first = jax.tree.leaves(params)[0]
    first = first.reshape(first.shape[0], first.shape[1], -1)
    a = jnp.einsum("md,rdn->mrn", X, first, precision="highest")
    living = jnp.sum(jnp.any(first != 0, axis=1), dtype=a.dtype)
    count = jnp.sum(jnp.any(X != 0, axis=1), dtype=a.dtype)
    return jnp.sqrt(jnp.sum(a * a) / (jnp.maximum(count, 1) * jnp.maximum(living, 1)))
