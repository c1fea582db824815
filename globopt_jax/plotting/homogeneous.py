"""Pictures of a training run and of its certificate: the objective, the gap, the subnetworks and the polar.

The polar is the largest inner product that one subnetwork of penalty 1 can have with the residual -G, where G is the
gradient of the loss in the prediction. If the polar exceeds lam, the subnetwork with the largest inner product lowers
the objective when it is added. If the polar is at most lam, stationary weights are globally optimal.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import rigorous
from globopt_jax.homogeneous import Certificate, Problem, bound_of, describe, predict
from globopt_jax.plotting.shared import BLUE, GREEN, INK, ORANGE, Axes, legend, percent, plain
from globopt_jax.rigorous import at_least, at_most
from globopt_jax.shapes import Inputs, Params, Targets

__all__ = ["PolarCurve", "bound_history", "gap", "polar", "polar_curve", "progress", "subnetworks", "unit_ball"]

#: The smallest relative gap that is drawn, since float64 resolves no smaller ones.
FINEST = 1e-14
#: The lower edge of the axis of the gap, as a factor of the smallest proved gap.
BELOW = 1e-3


class PolarCurve(NamedTuple):
    """The polar along a circle of hidden directions, divided by lam; a NamedTuple of NumPy arrays."""

    angle: np.ndarray
    """(n,): the angles in degrees from -180 to 180, increasing."""
    value: np.ndarray
    """(n,): the largest ``<-G, phi(w)> / lam`` over neurons w of penalty 1 with this hidden direction."""
    neuron_angle: np.ndarray
    """(k,): the angles of the network's neurons in degrees."""
    neuron_value: np.ndarray
    """(k,): the value at these angles; 1 at stationary weights."""
    whole: np.ndarray
    """A 0-d bool: whether the circle contains every direction, as it does for inputs of two dimensions."""


def progress(ax: Axes, seconds: np.ndarray, objective: np.ndarray, lower_bound: np.ndarray, proved: np.ndarray) -> Axes:
    """Draw the end of a training run: how the objective falls and the proved lower bound rises.

    The axis shows the difference to the final objective in percent of the final objective. Its range is about ten times
    the last gap, since the much larger values at the start of a run would hide the end.

    Args:
        ax: the Axes to draw on.
        seconds: (n,), the times since the start, increasing.
        objective: (n,), the objective at these times.
        lower_bound: (n,), the lower bound; nan where there is none.
        proved: (n,) bool, whether the bound is proved. Other bounds are estimates from a search and are not drawn.

    Returns:
        The same Axes.

    Example:
        >>> from globopt_jax import plotting
        >>> t = np.arange(3.0)
        >>> progress(plotting.figure((4, 3)).subplots(), t, 3 - t, t - 1.5, t > 0).get_title()
        'objective 1, at least 0.5 (proved)'
    """
    seconds, objective, proved = np.asarray(seconds), np.asarray(objective), np.asarray(proved, bool)
    end = float(objective[-1])
    size = abs(end) or 1.0
    above = 100 * (objective - end) / size
    _ = ax.plot(seconds, above, color=BLUE, lw=2.5, marker="o", ms=4, label="objective")
    title = f"objective {end:.6g}, no lower bound proved"
    shown, floor = above, -1.0
    if proved.any():
        best = np.maximum.accumulate(np.asarray(lower_bound)[proved])
        below = 100 * (best - end) / size
        _ = ax.step(
            seconds[proved], below, where="post", color=GREEN, lw=2.5, marker="o", ms=5, label="lower bound, proved"
        )
        # The title has enough digits to show the difference of the two numbers.
        digits = int(np.clip(3 - np.log10(max((end - best[-1]) / size, FINEST)), 6, 15))
        title = f"objective {end:.{digits}g}, at least {at_least(float(best[-1]), digits)} (proved)"
        floor = min(float(below[-1]), -100 * FINEST)
        shown = np.concatenate([above, below])
    low = min(shown[shown >= 10 * floor].min(), floor)
    high = max(above[above <= -2 * floor].max(), -0.3 * floor)
    _ = ax.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    ax.ticklabel_format(axis="y", scilimits=(-3, 4))
    _ = ax.set(xlabel="time (s)", ylabel="difference to the final objective (%)", title=title)
    legend(ax)
    return plain(ax)


def gap(
    ax: Axes,
    seconds: np.ndarray,
    relative: np.ndarray,
    proved: np.ndarray,
    *,
    hindsight: np.ndarray | None = None,
) -> Axes:
    """Draw the relative gap against time on a logarithmic axis.

    A solid step line shows the smallest gap that is proved so far, a dashed one the latest estimate of a search. Gaps
    far below the smallest proved gap are drawn at the lower edge.

    Args:
        ax: the Axes to draw on.
        seconds: (n,), the times since the start, increasing.
        relative: (n,), the gap over the objective; inf or nan where there is none.
        proved: (n,) bool, whether the gap is proved. Other gaps are estimates from a search.
        hindsight: (n,), the objective at these times minus the final lower bound, over the objective; None is not
            drawn.

    Returns:
        The same Axes.

    Example:
        >>> from globopt_jax import plotting
        >>> t = np.arange(3.0)
        >>> ax = gap(plotting.figure((4, 3)).subplots(), t, 0.5**t, t > 1)
        >>> ax.get_yscale(), ax.get_title()
        ('log', 'gap: at most 25 % of the objective (proved)')
    """
    seconds, relative, proved = np.asarray(seconds), np.asarray(relative), np.asarray(proved, bool)
    known, guessed = proved & np.isfinite(relative), ~proved & np.isfinite(relative)
    smallest = np.minimum.accumulate(relative[known])
    title = "gap: none proved"
    if known.any():
        title = f"gap: at most {percent(float(smallest[-1]))} of the objective (proved)"
    elif guessed.any():
        title = "gap: none proved, estimated by a search"
    positive = [np.asarray(a)[np.asarray(a) > 0] for a in (smallest, [] if known.any() else relative[guessed])]
    edge = 100 * max(BELOW * min((a.min() for a in positive if len(a)), default=1.0), FINEST)
    if hindsight is not None:
        over = np.maximum(100 * np.asarray(hindsight), edge)
        _ = ax.plot(seconds, over, color=BLUE, lw=2.5, alpha=0.7, label="objective above the final bound")
    for times, values, line, label in (
        (seconds[guessed], relative[guessed], "--", "gap, estimated by a search"),
        (seconds[known], smallest, "-", "gap, proved"),
    ):
        if len(times):
            values = np.maximum(100 * values, edge)
            style: dict[str, Any] = {"color": ORANGE, "ls": line, "marker": "o", "ms": 4, "where": "post"}
            style |= {"lw": 2.5} if line == "-" else {"lw": 1.5, "mfc": "none"}
            _ = ax.step(np.append(times, seconds[-1]), np.append(values, values[-1]), label=label, **style)
            if line == "--" and values[-1] == edge:
                note = f"estimate at the end: {100 * relative[guessed][-1]:.1g} %"
                _ = ax.annotate(
                    note, (seconds[-1], edge), (0, 5), textcoords="offset points", ha="right", size="small", color=INK
                )
    _ = ax.set_yscale("log")
    _ = ax.set(xlabel="time (s)", ylabel="relative gap (% of the objective)", title=title)
    if ax.lines:
        drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
        low, high = min(drawn.min(), drawn.max() / 100), drawn.max()
        _ = ax.set_ylim(low / 2, high * (high / low) ** 0.25)  # room for the legend above the curves
        legend(ax)
    return plain(ax)


def subnetworks(ax: Axes, sizes: np.ndarray) -> Axes:
    """Draw the penalty of every subnetwork, largest first. The title counts subnetworks that are zero.

    Args:
        ax: the Axes to draw on.
        sizes: (r,), the penalty theta of each subnetwork, >= 0.

    Returns:
        The same Axes.

    Example:
        >>> from globopt_jax import plotting
        >>> subnetworks(plotting.figure((4, 3)).subplots(), np.array([0.0, 2.0, 1.0])).get_title()
        '2 subnetworks and 1 zero; 1 carries half of the penalty'
    """
    sizes = np.sort(np.asarray(sizes))[::-1]
    living = sizes[sizes > 0]
    zero = len(sizes) - len(living)
    title = f"{len(living)} subnetwork{'s' * (len(living) != 1)}" + f" and {zero} zero" * bool(zero)
    if len(living) > 1:
        half = int(np.searchsorted(np.cumsum(living), 0.5 * living.sum())) + 1
        title += f"; {half} carr{'y' if half > 1 else 'ies'} half of the penalty"
    _ = ax.bar(np.arange(1, len(living) + 1), living, width=0.8, color=BLUE)
    _ = ax.set(xlabel="subnetwork, largest first", ylabel="penalty $\\theta(W_i)$", title=title)
    _ = ax.set_xlim(0.4, max(len(living), 1) + 0.6)
    ax.locator_params(axis="x", integer=True)
    return plain(ax)


def polar_curve(problem: Problem, params: Params, X: Inputs, Y: Targets, *, points: int = 721) -> PolarCurve | None:
    """Evaluate the polar along the circle of hidden directions that the two largest neurons span.

    For inputs of two dimensions the circle contains every direction. In higher dimensions the curve is a cut through
    the sphere of directions: angle 0 is the direction of the neuron with the largest penalty, and the neuron with the
    next largest penalty in another direction lies at a positive angle. A host function.

    Args:
        problem: the map phi, the regularizer theta, the loss and lam.
        params: the neurons (w1 (r, dx), w2 (r, dy)).
        X: inputs (m, dx).
        Y: targets (m, dy).
        points: the number of angles.

    Returns:
        The curve, or None if it does not exist: phi is no single hidden unit, theta does not consist of l2 norms, the
        inputs have one dimension, or, in more than two dimensions, no two neurons point in different directions.
    """
    if not (problem.phi.is_neuron and problem.theta.is_l2) or np.shape(X)[1] < 2:
        return None
    first = np.asarray(params[0], np.float64)
    sizes = np.asarray(jax.vmap(problem.theta)(params), np.float64)
    lengths = np.linalg.norm(first, axis=1)
    order = [i for i in np.argsort(-sizes) if lengths[i] > 0 and sizes[i] > 0]
    directions = first[order] / lengths[order, None]
    whole = first.shape[1] == 2
    basis = np.eye(2) if whole else _plane(directions)
    if basis is None:
        return None
    # Only neurons that lie in the plane have a place on the circle.
    at = directions @ basis.T
    at = at[np.linalg.norm(at, axis=1) > 1 - 1e-9]
    neuron_angle = np.arctan2(at[:, 1], at[:, 0])
    angle = np.linspace(-np.pi, np.pi, points)
    residual = -problem.loss.gradient(predict(problem, params, X), jnp.asarray(Y))
    values = [
        np.asarray(_polar_at(problem, jnp.asarray(_circle(a) @ basis, residual.dtype), jnp.asarray(X), residual))
        for a in (angle, neuron_angle)
    ]
    lam = float(problem.lam)
    return PolarCurve(np.degrees(angle), values[0] / lam, np.degrees(neuron_angle), values[1] / lam, np.asarray(whole))


def polar(ax: Axes, curve: PolarCurve, found: Certificate) -> Axes:
    """Draw the polar over lam along a circle of directions, with lam and the proved upper bound over all directions.

    Args:
        ax: the Axes to draw on.
        curve: the curve from `polar_curve` at the certified weights.
        found: the certificate from `homogeneous.certify`.

    Returns:
        The same Axes. If the upper bound is far above the curve, only the legend shows it.
    """
    lam = float(found.lam)
    inside, outside = float(found.polar_lower) / lam, float(found.polar_upper) / lam
    above = inside > 1 + max(1e-6, float(found.resolution))  # in float32 an excess of 1e-6 is rounding
    top = max(float(curve.value.max()), float(curve.neuron_value.max(initial=0.0)), inside, 1.0)
    _ = ax.fill_between(curve.angle, curve.value, color=BLUE, alpha=0.15, lw=0)
    _ = ax.plot(curve.angle, curve.value, color=BLUE, lw=2, label="polar")
    drawn = outside <= 1.6 * top
    known = f"{at_most(outside, 5)} lam" if np.isfinite(outside) else "none"
    ends, heights = ([-180, 180], [outside, outside]) if drawn else ([], [])
    _ = ax.plot(ends, heights, color=GREEN, lw=3, label=f"proved ceiling: {known}")
    _ = ax.axhline(1, color=INK, lw=1.2, label="lam")
    if above:
        _ = ax.axhline(inside, color=ORANGE, lw=2, ls="--", label=f"found by a search: {inside:.4g} lam")
    neurons = "neurons" if curve.whole else "the two largest neurons"
    _ = ax.plot(curve.neuron_angle, curve.neuron_value, "o", color=ORANGE, ms=7, mec=INK, mew=0.6, label=neurons)
    if above:
        title = f"a neuron with polar {inside:.4g} lam lowers the objective"
    elif np.isfinite(outside):
        title = f"no neuron exceeds lam by more than {percent(max(outside - 1, 0.0))} (proved)"
    else:
        title = "a search found no neuron above lam"
    where = "hidden direction" if curve.whole else "angle in the plane of the two largest neurons"
    _ = ax.set(xlabel=f"{where} (degrees)", ylabel="polar / lam", title=title, xlim=(-180, 180))
    _ = ax.set_ylim(0, 1.45 * max(top, outside if drawn else 0.0))  # the legend stands above the curve
    _ = ax.set_xticks(range(-180, 181, 60))
    legend(ax, "upper center", columns=2)
    return plain(ax)


def bound_history(
    ax: Axes, seconds: np.ndarray, objective: np.ndarray, lower_bound: np.ndarray, proved: np.ndarray
) -> Axes:
    """Draw the best proved lower bound over time, in percent of the final objective.

    Args:
        ax: the Axes to draw on.
        seconds: (n,), the times since the start, increasing.
        objective: (n,), the objective at these times.
        lower_bound: (n,), the lower bound; nan where there is none.
        proved: (n,) bool, whether the bound is proved. Other bounds are estimates from a search and are not drawn.

    Returns:
        The same Axes.

    Example:
        >>> from globopt_jax import plotting
        >>> t = np.arange(3.0)
        >>> bound_history(plotting.figure((4, 3)).subplots(), t, 3 - t, t - 1.5, t > 0).get_title()
        'proved: no network is below 50 % of the objective'
    """
    seconds, proved = np.asarray(seconds), np.asarray(proved, bool)
    end = float(np.asarray(objective)[-1])
    size = abs(end) or 1.0
    _ = ax.axhline(100 * np.sign(end), color=BLUE, lw=2.5, label="final objective")
    title = "no lower bound is proved"
    if proved.any():
        share = 100 * np.maximum.accumulate(np.asarray(lower_bound)[proved]) / size
        times = np.append(seconds[proved], seconds[-1])
        share = np.append(share, share[-1])
        _ = ax.fill_between(times, share, min(0.0, share.min()), step="post", color=GREEN, alpha=0.15, lw=0)
        _ = ax.step(times, share, where="post", color=GREEN, lw=2.5, marker="o", ms=5, label="best lower bound")
        title = f"proved: no network is below {at_least(float(share[-1]), 4)} % of the objective"
    _ = ax.set(xlabel="time (s)", ylabel="lower bound (% of the objective)", title=title)
    _ = ax.set_xlim(0, 1.03 * float(seconds[-1]) or 1.0)
    legend(ax, "lower right")
    return plain(ax)


def _circle(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _plane(directions: np.ndarray) -> np.ndarray | None:
    """Return an orthonormal basis (2, dx) of the plane of the first direction and the next one in another direction."""
    for other in directions[1:]:
        across = other - (other @ directions[0]) * directions[0]
        if (length := np.linalg.norm(across)) > 1e-3:
            return np.stack([directions[0], across / length])
    return None


@jax.jit
def _polar_at(problem: Problem, directions: Any, X: Inputs, residual: Targets) -> jax.Array:
    """Return ``||residual^T phi(w)||`` (n,) for hidden directions w (n, dx) of length 1.

    One direction at a time is evaluated, so that memory holds only m features.
    """

    def value(w: Any) -> jax.Array:
        features = problem.phi((w, jnp.ones(1, w.dtype)), X)
        return jnp.linalg.norm(jnp.matmul(residual.T, features, precision="highest"))

    return jax.lax.map(value, directions)


def unit_ball(ax: Axes, problem: Problem, X: Inputs, params: Params, directions: int = 360) -> Axes:
    """Draw the unit ball of Omega for outputs of two numbers, between outputs of subnetworks and the polar's bound.

    The ball ``{Z: Omega(Z) <= 1}`` is the convex hull of the outputs of subnetworks of penalty 1 (drawn as points). By
    duality it lies in every half plane ``<U, Z> <= polar(U)``; the line is the border of the intersection of these half
    planes for the upper bound of the polar, so that nothing of the ball is outside.

    Args:
        ax: the Axes to draw on.
        problem: map and regularizer; its bound of the polar must be one without multipliers.
        X: inputs (m, dx), with m dy = 2.
        params: many subnetworks (r on a leading axis); they are scaled to penalty 1.
        directions: the number of directions U.

    Returns:
        The same Axes, with equal scales.

    Raises:
        ValueError: the outputs are not two numbers, or no such bound of the polar is known.

    Example:
        >>> from globopt_jax import homogeneous, plotting
        >>> problem = homogeneous.Problem("relu", "product_of_norms", "squared", 1.0)
        >>> params = problem.phi.init(jax.random.key(0), r=50, dx=2, dy=1)
        >>> unit_ball(plotting.figure((3, 3)).subplots(), problem, jnp.eye(2), params).get_xlabel()
        'first output'
    """
    inputs = np.asarray(X, np.float64)
    outputs = np.asarray(jax.vmap(problem.phi, (0, None))(params, jnp.asarray(X)), np.float64)
    kind = bound_of(problem, inputs.shape[1])
    if outputs[0].size != 2 or not kind.exists or kind.has_multipliers:
        raise ValueError(
            "problem: Expected: outputs of two numbers, and a polar bound without multipliers. Received: outputs "
            f"of shape {outputs[0].shape} and the bound {kind.name}."
        )
    costs = np.asarray(jax.vmap(problem.theta)(params), np.float64)
    atoms = (outputs.reshape(-1, 2) / np.where(costs > 0, costs, 1)[:, None])[costs > 0]
    angles = np.linspace(0, 2 * np.pi, directions, endpoint=False)
    U = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    plain_problem = describe(problem, params, inputs.shape[1])
    none = rigorous.empty_multipliers()
    heights = np.array([kind.upper(plain_problem, u.reshape(outputs[0].shape), inputs, none) for u in U])
    # The corners: each line <U, Z> = height meets the next one.
    pairs = np.stack([U, np.roll(U, -1, axis=0)], axis=1)
    corners = np.linalg.solve(pairs, np.stack([heights, np.roll(heights, -1)], axis=1)[:, :, None])[:, :, 0]
    closed = np.concatenate([corners, corners[:1]])
    _ = ax.fill(closed[:, 0], closed[:, 1], color=GREEN, alpha=0.12, lw=0)
    _ = ax.plot(closed[:, 0], closed[:, 1], color=GREEN, lw=2, label="$\\Omega(Z) = 1$, by the polar")
    _ = ax.scatter(atoms[:, 0], atoms[:, 1], s=9, color=ORANGE, label="single subnetworks", zorder=3)
    _ = ax.set(xlabel="first output", ylabel="second output", aspect="equal")
    return plain(ax)
