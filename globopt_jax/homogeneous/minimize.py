"""`minimize`: train a regularized parallel network and prove how far it is from the global minimum."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from globopt_jax import results
from globopt_jax.homogeneous.capacity import pad
from globopt_jax.homogeneous.effort import Effort, EffortName, effort_named
from globopt_jax.homogeneous.grading import Certificate, refine
from globopt_jax.homogeneous.inputs import check, targets_moved
from globopt_jax.homogeneous.problem import Problem, check_lam
from globopt_jax.homogeneous.training import Trace, iterate
from globopt_jax.inputs import check_key
from globopt_jax.shapes import Array, Params

__all__ = ["Solution", "minimize", "path"]


class Solution(NamedTuple):
    """What `minimize` hands back."""

    params: Params
    """The trained subnetworks on a leading axis. Zero ones are removed, but at least one is kept."""
    certificate: Certificate
    """How far they are at most from the global minimum over all widths."""
    trace: Trace
    """The record of the training, a row a step."""

    @property
    def reason(self) -> str:
        """The certificate in a sentence, and why the training ended."""
        return f"{self.certificate} {self.trace.reason}"

    __str__ = results.words


def minimize(
    problem: Problem,
    params: Params,
    X: Any,
    Y: Any,
    *,
    key: Array,
    optimizer: optax.GradientTransformation | None = None,
    effort: EffortName | Effort | None = None,
    outer: int = 30,
    inner: int = 1000,
    tolerance: float | None = None,
) -> Solution:
    """Train to a global minimum over all widths and certify it: HV17 Theorem 2 (host function, jitted inside).

    The polar is the largest inner product that one subnetwork of penalty 1 can have with minus the loss's gradient.
    Each round runs a local descent, balances the layers, zeroes subnetworks that do nothing, takes Newton steps within
    the activation cells, reduces subnetworks along linear dependences of their outputs, and appends the polar's best
    directions with an exact line search. The rounds end when no direction has a polar above lam, which proves a global
    minimum (HV17 Corollary 1). For neurons with l2 norms every round also solves for all output weights together,
    exactly. The objective never increases. ``.trace.reason`` says why the rounds ended and what the last search left
    open.

    Args:
        problem: map, regularizer, loss and lam; map and regularizer have equal degrees.
        params: r >= 1 subnetworks to start from, any values, from ``problem.phi.init`` or elsewhere.
        X: inputs (m, dx).
        Y: targets (m, dy).
        key: the random key of the searches.
        optimizer: any optax transformation for the descent; None is L-BFGS.
        effort: the effort of searches and bound: quick, standard (None), high, or an `Effort`.
        outer: the most rounds.
        inner: the most optimizer steps in one round.
        tolerance: the relative excess of the polar over lam that counts as none. None is 1e-7 where the polar is known
            exactly and 1e-5 where it is searched for (more in float32).

    Returns:
        A `Solution` with ``.params``, ``.certificate`` and ``.trace``.

    Raises:
        ValueError: the same errors as `certify`.
        TypeError: the optimizer is no optax transformation.

    >>> import jax, jax.numpy as jnp
    >>> from globopt_jax import homogeneous, losses
    >>> problem = homogeneous.Problem(homogeneous.rank_one(), homogeneous.sum_of_powers(), losses.squared, 1.0)
    >>> start = problem.phi.init(jax.random.key(0), r=1, dx=2, dy=2)
    >>> Y = jnp.diag(jnp.array([3.0, 2.0]))  # nuclear norm: the singular values shrink by lam
    >>> found = homogeneous.minimize(problem, start, jnp.eye(2), Y, key=jax.random.key(1))
    >>> print(f"{found.certificate.objective:.6f}")  # 1/2 (1 + 1) + 1 (2 + 1)
    4.000000
    """
    given = Y
    params, X, Y = check(problem, params, X, Y)
    key, work, moved = check_key(key), effort_named(effort), targets_moved(given, Y)
    options = _Options(_checked_optimizer(optimizer), outer, inner, tolerance)
    *_, last = iterate(problem, params, X, Y, key=key, effort=work, **options._asdict())
    # Certifying at the padded capacity would be the same; the zeros carry no information.
    params = pad(last.params, 1)
    *_, graded = refine(problem, params, X, Y, key=jax.random.fold_in(key, 1), effort=work, targets_moved=moved)
    return Solution(params, graded.certificate, last.trace)


class _Options(NamedTuple):
    """What `minimize` and `path` hand on to the algorithm."""

    optimizer: optax.GradientTransformation | None
    outer: int
    inner: int
    tolerance: float | None


def _checked_optimizer(optimizer: Any) -> optax.GradientTransformation | None:
    if optimizer is not None and not hasattr(optimizer, "init"):
        raise TypeError(f"optimizer: Expected: an optax transformation, or None. Received: {optimizer!r}.")
    return optimizer


def path(
    problem: Problem,
    params: Params,
    X: Any,
    Y: Any,
    *,
    key: Array,
    capacity: int = 64,
    optimizer: optax.GradientTransformation | None = None,
    effort: EffortName | Effort | None = None,
    outer: int = 30,
    inner: int = 1000,
    tolerance: float | None = None,
) -> Iterator[Solution]:
    """Solve for every lam of the array ``problem.lam`` in turn, each time from the solution before (host function).

    Order lam from large to small: every start then has a few subnetworks too few, and the solution grows. All
    solutions have one padded capacity, so that everything compiles once. A solution that needs more than `capacity`
    subnetworks doubles the capacity.

    Args:
        problem: with ``lam`` of shape (n,).
        params: the subnetworks to start from at the first lam.
        X: inputs (m, dx).
        Y: targets (m, dy).
        key: the random key of the searches.
        capacity: the number of subnetworks to make room for.
        optimizer: any optax transformation for the descent; None is L-BFGS.
        effort: the effort of searches and bound, as for `minimize`.
        outer: the most rounds for one lam.
        inner: the most optimizer steps in one round.
        tolerance: the relative excess of the polar over lam that counts as none, as for `minimize`.

    Yields:
        A `Solution` for each lam, its params padded to the capacity and its certificate valid at that lam.

    Raises:
        ValueError: lam is not one-dimensional, or the same errors as `minimize`.
        TypeError: the optimizer is no optax transformation.

    >>> import jax, jax.numpy as jnp
    >>> from globopt_jax import homogeneous
    >>> problem = homogeneous.Problem("linear", "sum_of_powers", "squared", jnp.array([2.0, 1.0]))
    >>> start = problem.phi.init(jax.random.key(0), r=1, dx=2, dy=2)
    >>> Y = jnp.diag(jnp.array([3.0, 1.5]))  # the singular values shrink by lam, and the second one vanishes at 2
    >>> for found in homogeneous.path(problem, start, jnp.eye(2), Y, key=jax.random.key(1), effort="quick"):
    ...     print(f"{found.certificate.objective:.4f}")  # 2 + 2 + 1.125, then 1/2 + 2 + 1/2 + 1/2
    5.1250
    3.5000
    """
    lams = np.asarray(problem.lam, np.float64)
    if lams.ndim != 1 or not lams.size:
        raise ValueError(f"lam: Expected: an array of shape (n,), n >= 1. Received: shape {lams.shape}.")
    check_lam(lams)
    one = Problem(problem.phi, problem.theta, problem.loss, float(lams[0]))
    given = Y
    params, X, Y = check(one, params, X, Y)
    key, work, moved = check_key(key), effort_named(effort), targets_moved(given, Y)
    options = _Options(_checked_optimizer(optimizer), outer, inner, tolerance)
    params = pad(params, capacity)
    for k, lam in enumerate(lams):
        one = Problem(problem.phi, problem.theta, problem.loss, float(lam))
        step_key = jax.random.fold_in(key, k)
        *_, last = iterate(one, params, X, Y, key=step_key, effort=work, **options._asdict())
        params = last.params
        *_, graded = refine(one, params, X, Y, key=step_key, effort=work, targets_moved=moved)
        yield Solution(params, graded.certificate, last.trace)
