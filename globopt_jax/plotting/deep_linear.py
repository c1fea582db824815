"""Pictures of the training of a deep linear network: the loss among critical points, the gap, the singular values."""

import numpy as np

from globopt_jax import rigorous
from globopt_jax.deep_linear import History
from globopt_jax.plotting.shared import BLUE, GRAY, GREEN, ORANGE, Axes, legend, plain

__all__ = ["certified_gap", "growth", "staircase"]


def staircase(ax: Axes, seen: History, levels: np.ndarray) -> Axes:
    """Draw the loss of a deep linear network during training, and thin lines at the losses of critical points.

    Args:
        ax: the Axes to draw on.
        seen: the records from `deep_linear.history`.
        levels: losses to mark, such as those of the critical points that keep the top 0, 1, 2, ... directions.

    Returns:
        The same Axes.

    Example:
        >>> from globopt_jax import plotting
        >>> rows = np.ones(3)
        >>> seen = History(np.arange(3), rows, rows, 2 * rows, rows, rows, rows, rows[:, None], rows[:, None])
        >>> staircase(plotting.figure((4, 3)).subplots(), seen, np.ones(1)).get_ylabel()
        'loss'
    """
    for number, level in enumerate(levels):
        _ = ax.axhline(level, color=GRAY, lw=0.8, label="" if number else "losses of critical points")
    _ = ax.plot(seen.step, seen.loss, color=BLUE, lw=2.5, label="loss of the network")
    title = f"the loss goes from {float(seen.loss[0]):.4g} to {float(seen.loss[-1]):.4g}"
    _ = ax.set(xlabel="step", ylabel="loss", title=title)
    legend(ax, "lower left")
    return plain(ax)


def certified_gap(ax: Axes, seen: History) -> Axes:
    """Draw the gap of a deep linear network during training, and the bound of the gap that its gradients prove.

    Args:
        ax: the Axes to draw on.
        seen: the records from `deep_linear.history`.

    Returns:
        The same Axes, with a logarithmic scale. Gaps far below the smallest proved bound are cut off.

    Example:
        >>> from globopt_jax import plotting
        >>> rows = np.ones(3)
        >>> seen = History(np.arange(3), rows, rows, 2 * rows, rows, rows, rows, rows[:, None], rows[:, None])
        >>> certified_gap(plotting.figure((4, 3)).subplots(), seen).get_yscale()
        'log'
    """
    bound = np.where(np.isfinite(seen.gap_bound), seen.gap_bound, np.nan)
    _ = ax.plot(seen.step, bound, color=GREEN, lw=2, label="bound proved by the gradients")
    _ = ax.plot(seen.step, np.where(seen.gap > 0, seen.gap, np.nan), color=BLUE, lw=2.5, label="gap: loss $-$ optimum")
    _ = ax.set_yscale("log")
    if np.any(np.isfinite(bound)) and seen.gap[0] > 0:
        _ = ax.set_ylim(0.03 * np.nanmin(bound), max(1e6 * seen.gap[0], 2 * np.nanmin(bound)))
    last = float(seen.gap_bound[-1])
    title = f"the end is proved within {rigorous.at_most(last, 2)} of the optimum"
    if not np.isfinite(last):
        title = "the gradients at the end prove no bound of the gap"
    _ = ax.set(xlabel="step", ylabel="gap, in units of the loss", title=title)
    legend(ax)
    return plain(ax)


def growth(ax: Axes, seen: History, targets: np.ndarray) -> Axes:
    """Draw the singular values of a deep linear network's prediction during training, and the fit's as thin lines.

    Args:
        ax: the Axes to draw on.
        seen: the records from `deep_linear.history`.
        targets: (n,), the singular values of the least-squares fit.

    Returns:
        The same Axes.

    Example:
        >>> from globopt_jax import plotting
        >>> rows = np.ones(3)
        >>> seen = History(np.arange(3), rows, rows, 2 * rows, rows, rows, rows, rows[:, None], rows[:, None])
        >>> growth(plotting.figure((4, 3)).subplots(), seen, np.ones(1)).get_xlabel()
        'step'
    """
    targets, last = np.asarray(targets), np.asarray(seen.singular_values)[-1]
    for number, goal in enumerate(targets):
        _ = ax.axhline(goal, color=GRAY, lw=0.8, label="" if number else "least-squares fit")
    for number, values in enumerate(np.asarray(seen.singular_values).T):
        _ = ax.plot(seen.step, values, color=ORANGE, lw=1.8, label="" if number else "network's prediction")
    real = targets > 1e-6 * targets.max(initial=0.0)
    learned = int(np.sum(np.abs(last - targets[: len(last)])[real[: len(last)]] <= 0.05 * targets[: len(last)][real]))
    title = f"{learned} of {int(real.sum())} directions of the fit are learned to 5 %"
    _ = ax.set(xlabel="step", ylabel="singular value of $XR$", title=title)
    legend(ax, "lower right", raised=0.1)  # above the curves near zero
    return plain(ax)
