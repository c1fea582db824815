"""The record of the meta-algorithm: what was done, a row a step, for a reader; no step needs it."""

from typing import NamedTuple

import numpy as np

from globopt_jax.shapes import Array

__all__ = ["EVENTS", "Trace"]

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
START, DESCENT, TIDY, POLISH, SMOOTH, REFIT, REDUCE, ESCAPE, APPEND, OPTIMAL, STALLED, EXHAUSTED = range(len(EVENTS))
#: The events after which nothing comes.
ENDS = (OPTIMAL, STALLED, EXHAUSTED)


class Trace(NamedTuple):
    """The record of a training: columns of equal length, with one row for each step."""

    event: Array
    """The index of the event in `EVENTS`; ``.events`` are the events in words."""
    outer: Array
    """The round, from 0."""
    width: Array
    """How many subnetworks are not zero after the step."""
    objective: Array
    """The objective after the step."""
    polar: Array
    """The best value of ``<-G, phi>`` over theta that the last search found, divided by lam. It is a lower bound of the
    polar over lam, and 0 before the first search."""
    gap_estimate: Array
    """The relative gap to the lower bound that would hold if the last search had found the polar: an estimate, inf
    before the first search."""
    seconds: Array
    """The time since the training began."""

    @classmethod
    def empty(cls) -> "Trace":
        """No rows."""
        return cls(*(np.zeros(0, np.int64) for _ in range(3)), *(np.zeros(0) for _ in range(4)))

    def and_then(self, *row: int | float | Array) -> "Trace":
        """The trace with one row more, an entry a column."""
        return Trace(*(np.append(column, entry) for column, entry in zip(self, row, strict=True)))

    @property
    def events(self) -> list[str]:
        """The event of every row in words."""
        return [EVENTS[int(code)] for code in np.atleast_1d(np.asarray(self.event))]

    @property
    def reason(self) -> str:
        """Why the training ended, and how much the last search for a direction left open."""
        last = self.events[-1]
        polar, gap = (float(np.atleast_1d(np.asarray(a))[-1]) for a in (self.polar, self.gap_estimate))
        if not last.startswith("stop") or not np.isfinite(gap):
            return last
        return (
            f"{last}. The best direction that the last search found has a polar of {polar:.9g} lam; if there is no "
            f"better one, at most {max(gap, 0.0):.2g} of the objective can be gained"
        )
