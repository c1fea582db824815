"""How much work searches and bounds may cost."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from globopt_jax.inputs import one_of

__all__ = ["EFFORTS", "Effort", "EffortName", "effort_named"]

#: The names of efforts; any other text is refused with a message that lists them.
EffortName: TypeAlias = Literal["quick", "standard", "high"] | str


@dataclass(frozen=True)
class Effort:
    """How much work a bound may cost.

    Args:
        fixed: Adam steps on the multipliers for a fixed residual.
        joint: Adam steps on multipliers and dual point together; 0 keeps the scaled residual.
        groups: groups of samples for the cut columns (4 dy columns each).
        starts: starts of the multi-start ascent on the polar.
        climbs: steps of each of them.
        target: the relative gap at which the work on the bound ends.
    """

    fixed: int
    joint: int
    groups: int
    starts: int
    climbs: int
    target: float = 0.0


EFFORTS = {
    "quick": Effort(fixed=150, joint=0, groups=1, starts=32, climbs=100),
    "standard": Effort(fixed=600, joint=600, groups=1, starts=64, climbs=200, target=1e-4),
    "high": Effort(fixed=1500, joint=2500, groups=3, starts=256, climbs=300),
}


def effort_named(effort: EffortName | Effort | None) -> Effort:
    """The effort of a name: quick, standard (also for None) or high.

    Raises:
        ValueError: no such name.

    >>> effort_named("quick").joint
    0
    """
    if isinstance(effort, Effort):
        return effort
    return EFFORTS["standard" if effort is None else one_of("effort", effort, EFFORTS, ", or an Effort")]
