"""The work on a certificate, in stages: each finds better dual points, whose bounds are evaluated; the best is kept.

======== =================================================================================================
stage    dual point
======== =================================================================================================
start    the loss's gradient G at the weights, with the multipliers that a fit would start from
fixed    G, its multipliers fitted (the relaxation only)
descent  the gradient at the end of a descent from the weights (if these are not stationary)
joint    the dual point and the multipliers ascended together (the relaxation only)
======== =================================================================================================
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from globopt_jax import linalg
from globopt_jax.homogeneous.effort import Effort, EffortName, effort_named
from globopt_jax.homogeneous.grading import dual_ascent, evaluate
from globopt_jax.homogeneous.grading.certificate import Certificate
from globopt_jax.homogeneous.grading.subject import Subject, subject
from globopt_jax.homogeneous.polar import relaxation
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.homogeneous.training import iterate
from globopt_jax.shapes import Array, Inputs, Params, Targets

__all__ = ["Refinement", "fit", "refine"]


class Refinement(NamedTuple):
    """The best certificate so far, with the state from which the work goes on; `checkpoint` turns it into arrays."""

    certificate: Certificate
    """The best certificate so far."""
    stage: str
    """The stage that found it: start, fixed, descent or joint."""
    point: Array | None
    """The dual point that the stage started from; None at the start."""
    state: dual_ascent.Ascent | None
    """Where the stage's ascent stands; None if it has none."""

    @property
    def coordinates(self) -> relaxation.Coordinates | None:
        """The best coordinates of the multipliers that the stage has found."""
        return None if self.state is None else self.state.best_coordinates


def refine(
    problem: Problem,
    params: Params,
    X: Inputs,
    Y: Targets,
    *,
    key: Array,
    effort: EffortName | Effort | None = None,
    resume: Refinement | None = None,
    targets_moved: float = 0.0,
) -> Iterator[Refinement]:
    """Yield a rigorous certificate at once and better ones as the work goes on: `certify` as an iterator.

    Args:
        problem: map, regularizer, loss and lam.
        params: r subnetworks.
        X: inputs (m, dx), checked, in the dtype of params.
        Y: targets (m, dy), checked, in the same dtype.
        key: the random key of the searches.
        effort: quick, standard (None) or high, or an `Effort`.
        resume: the last refinement of an earlier run with the same arguments; the work goes on from there.
        targets_moved: what the certificate reports as ``targets_moved``.
    """
    at = subject(problem, params, X, Y, key, effort_named(effort), targets_moved)
    if resume is None:
        now = Refinement(evaluate.first(at), "start", None, None)
        yield now
    else:
        now = resume
    names = ["start", *(stage.name for stage in _STAGES)]
    for stage in _STAGES[max(names.index(now.stage) - 1, 0) :]:
        # A resumed stage that had ended yields nothing more, since its result is in its state.
        for better in stage.run(at, now) if stage.wanted(at, now) else ():
            now = better
            yield now


class _Stage(NamedTuple):
    """A stage of the work, which goes on from a refinement of an earlier stage or, when resumed, of the same one."""

    name: str
    """The name that refinements carry."""
    wanted: Callable[[Subject, Refinement], bool]
    """Whether the stage has anything to do after this refinement."""
    run: Callable[[Subject, Refinement], Iterator[Refinement]]
    """The work: an iterator of better refinements."""


def _fixed(at: Subject, now: Refinement) -> Iterator[Refinement]:
    for fitted in fit(at, at.residual, at.effort.fixed, state=now.state):
        better = evaluate.improved(at, now.certificate, None, fitted.coordinates)
        now = Refinement(better, "fixed", at.residual, fitted.state)
        yield now


def _descent(at: Subject, now: Refinement) -> Iterator[Refinement]:
    if now.stage != "descent":
        U = _descended(at)
        now = Refinement(evaluate.improved(at, now.certificate, U, None), "descent", U, None)
        yield now
    if not at.bound.has_multipliers:
        return
    U = now.point
    assert U is not None  # every refinement of this stage has a dual point
    for fitted in fit(at, U, at.effort.fixed, state=now.state):
        now = Refinement(evaluate.improved(at, now.certificate, U, fitted.coordinates), "descent", U, fitted.state)
        yield now


def _joint(at: Subject, now: Refinement) -> Iterator[Refinement]:
    U = at.residual if now.point is None else now.point
    state = now.state if now.stage == "joint" else None
    start = now.coordinates
    for fitted in fit(at, U, at.effort.joint, state=state, start=start, joint=True):
        better = evaluate.improved(at, now.certificate, fitted.U, fitted.coordinates)
        now = Refinement(better, "joint", U, fitted.state)
        yield now
        if not _wants_joint(at, now):
            return


def _wants_fixed(at: Subject, now: Refinement) -> bool:
    del now
    return at.bound.has_multipliers


def _wants_descent(at: Subject, now: Refinement) -> bool:
    """Whether the weights are so far from stationary that a descent from them gives another dual point."""
    if now.stage == "descent":
        return True
    certificate = now.certificate
    settled = float(np.max(np.abs(certificate.residuals), initial=0.0)) < 1e-5
    stationary = settled and float(certificate.polar_lower) <= (1 + 1e-4) * float(certificate.lam)
    return at.bound.exists and at.effort.joint > 0 and not stationary


def _wants_joint(at: Subject, now: Refinement) -> bool:
    unproved = float(now.certificate.relative_gap) > at.effort.target
    return at.bound.has_multipliers and at.effort.joint > 0 and unproved


_STAGES = (
    _Stage("fixed", _wants_fixed, _fixed),
    _Stage("descent", _wants_descent, _descent),
    _Stage("joint", _wants_joint, _joint),
)


def fit(
    at: Subject,
    U: Targets,
    steps: int,
    *,
    state: dual_ascent.Ascent | None = None,
    start: relaxation.Coordinates | None = None,
    joint: bool = False,
) -> Iterator[dual_ascent.Fitted]:
    """Fit the relaxation's multipliers, and U if joint, from a start or from where an earlier ascent stopped."""
    if not steps or not np.any(np.asarray(U)):
        return
    yield from dual_ascent.ascend(
        at.problem.loss,
        tuple(at.description["slopes"]),
        at.description["lam"],
        U,
        at.inputs,
        at.Y,
        start=relaxation.initial(U, at.groups) if start is None else start,
        joint=joint,
        steps=steps,
        unit=max(abs(at.objective), linalg.smallest_normal(np.float64)),
        state=state,
    )


def _descended(at: Subject) -> Targets:
    """Return the loss's gradient at the end of a descent from the weights."""
    key = jax.random.fold_in(at.key, 1)
    *_, last = iterate(at.problem, at.params, at.X, at.Y, key=key, effort=at.effort, outer=8)
    return last.state.G
