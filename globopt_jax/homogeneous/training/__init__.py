"""Training to a global minimum over all widths: HV17's meta-algorithm and the phases that it runs through.

`algorithm` has the loop. Its phases are `descent` (any optax optimizer), `active_set` (Newton's method within the
activation cells), `output_weights` (a group lasso, solved exactly) and the discrete `steps`.
"""

from globopt_jax.homogeneous.training.algorithm import Progress, State, iterate
from globopt_jax.homogeneous.training.trace import EVENTS, Trace

__all__ = ["EVENTS", "Progress", "State", "Trace", "iterate"]
