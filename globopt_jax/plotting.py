"""Pictures of a run: functions that take a matplotlib Axes, draw on it and return it.

Colours are those of Okabe and Ito, which most colour-blind readers tell apart; what is proved is drawn solid,
what a search suggests is dashed.
"""

from typing import TYPE_CHECKING

import numpy as np

from globopt_jax.deep_linear import History
from globopt_jax.homogeneous import Certificate
from globopt_jax.local_minima import Decomposition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    Axes = object  # matplotlib is the caller's to import

__all__ = ["certificate", "certified_gap", "gap", "growth", "progress", "staircase", "subnetworks", "tangent_trace"]
__all__ += ["unit_shares"]

BLUE, ORANGE, GREEN, GRAY, INK = "#0072B2", "#E69F00", "#009E73", "#BBBBBB", "#333333"


def progress(ax: Axes, seconds: np.ndarray, objective: np.ndarray, lower_bound: np.ndarray, proved: np.ndarray) -> Axes:
    """Draw the objective and its lower bound over time.

    Args:
        ax: to draw on.
        seconds: (n,) since the start, increasing.
        objective: (n,) at those times.
        lower_bound: (n,), nan where there is none.
        proved: (n,) bool; the others are estimates from a search.

    Returns:
        The same Axes.

    Example:
        >>> from matplotlib.figure import Figure
        >>> t = np.arange(3.0)
        >>> ax = progress(Figure().subplots(), t, 3 - t, t - 1, t > 0)
        >>> ax.get_xlabel()
        'time (s)'
    """
    proved = np.asarray(proved, bool)
    _ = ax.plot(seconds, objective, color=BLUE, lw=4, alpha=0.6, marker="o", ms=6, label="objective")
    best = np.where(proved, lower_bound, -np.inf)
    if proved.any():
        best = np.maximum.accumulate(best)[proved]
        _ = ax.step(
            seconds[proved],
            best,
            where="post",
            color=GREEN,
            lw=2,
            marker="o",
            ms=4,
            label="lower bound, proved",
        )
    guess = ~proved & np.isfinite(lower_bound)
    if guess.any():
        _ = ax.plot(
            seconds[guess],
            lower_bound[guess],
            color=GREEN,
            ls="--",
            marker="o",
            ms=4,
            mfc="none",
            lw=1.2,
            label="lower bound, estimate",
        )
    shown = np.concatenate([objective, best[np.isfinite(best)] if proved.any() else []])
    if len(shown) and shown.min() > 0 and shown.max() > 10 * shown.min():
        _ = ax.set_yscale("log")
    _ = ax.set(xlabel="time (s)", ylabel="objective", title="objective and lower bound")
    _ = ax.legend(frameon=False, fontsize="small")
    return _plain(ax)


def gap(ax: Axes, seconds: np.ndarray, relative: np.ndarray, proved: np.ndarray) -> Axes:
    """Draw the relative gap over time, on a logarithmic axis; gaps that are not positive are left out.

    Args:
        ax: to draw on.
        seconds: (n,) since the start, increasing.
        relative: (n,) the gap over the objective, inf or nan where there is none.
        proved: (n,) bool; the others are estimates from a search.

    Returns:
        The same Axes.

    Example:
        >>> from matplotlib.figure import Figure
        >>> t = np.arange(3.0)
        >>> gap(Figure().subplots(), t, 0.1**t, t > 1).get_yscale()
        'log'
    """
    proved, relative = np.asarray(proved, bool), np.asarray(relative)
    drawn = np.isfinite(relative) & (relative > 0)
    for chosen, style, label in (
        (drawn & ~proved, {"ls": "--", "lw": 1.2, "mfc": "none"}, "estimate of a search"),
        (drawn & proved, {"ls": "-", "lw": 2}, "proved"),
    ):
        if chosen.any():
            _ = ax.plot(
                seconds[chosen],
                100 * relative[chosen],
                color=ORANGE,
                marker="o",
                ms=4,
                label=label,
                **style,
            )
    _ = ax.set_yscale("log")
    _ = ax.set(xlabel="time (s)", ylabel="gap (% of the objective)", title="the gap")
    if drawn.any():
        _ = ax.legend(frameon=False, fontsize="small")
    return _plain(ax)


def subnetworks(ax: Axes, sizes: np.ndarray) -> Axes:
    """Draw the penalty of every subnetwork, largest first; those that are zero are counted, not drawn.

    Args:
        ax: to draw on.
        sizes: (r,), theta of each subnetwork, >= 0.

    Returns:
        The same Axes.

    Example:
        >>> from matplotlib.figure import Figure
        >>> subnetworks(Figure().subplots(), np.array([0.0, 2.0, 1.0])).get_title()
        'subnetworks: 2, and 1 zero'
    """
    sizes = np.sort(np.asarray(sizes))[::-1]
    living = sizes[sizes > 0]
    zero = len(sizes) - len(living)
    _ = ax.bar(np.arange(1, len(living) + 1), living, width=0.8, color=BLUE)
    _ = ax.set(
        xlabel="subnetwork, largest first",
        ylabel="penalty $\\theta(W_i)$",
        title=f"subnetworks: {len(living)}" + (f", and {zero} zero" if zero else ""),
    )
    _ = ax.set_xlim(0.4, max(len(living), 1) + 0.6)
    ax.locator_params(axis="x", integer=True)
    return _plain(ax)


def certificate(ax: Axes, found: Certificate) -> Axes:
    """Draw a certificate: what is proved impossible, the gap that is left, and the polar against lam.

    Args:
        ax: to draw on.
        found: from `homogeneous.certify`.

    Returns:
        The same Axes; its x axis is relative, to the objective above and to lam below.
    """
    value, lam = float(found.objective), float(found.lam)
    size = abs(value) if value else 1.0
    lower, gap = float(found.lower_bound) / size, float(found.relative_gap)
    inside, outside = float(found.polar_lower) / lam, float(found.polar_upper) / lam
    right = max(1.0, min(outside, max(2.0, 1.5 * inside)))
    top, bottom, height = 1.0, 0.0, 0.34
    _ = ax.barh(top, lower, height=height, color=GREEN)
    _ = ax.barh(top, gap, left=lower, height=height, color=ORANGE)
    _ = ax.barh(bottom, inside, height=height, color=BLUE)
    between = {"left": inside, "color": "white", "edgecolor": BLUE, "hatch": "////", "lw": 0.8}
    _ = ax.barh(bottom, max(right - inside, 0), height=height, **between)
    for y in (top, bottom):
        _ = ax.plot([1, 1], [y - 0.24, y + 0.24], color=INK, lw=2.5, solid_capstyle="butt")
    kind = "proved" if bool(found.rigorous) else "trivial"
    known = f"at most {outside:.6g}" if np.isfinite(outside) else "no bound known"
    sentences = {
        top + 0.36: f"objective {value:.6g}, lower bound {float(found.lower_bound):.6g} ({kind})",
        top - 0.34: f"gap: at most {100 * gap:.2g} % of the objective",
        bottom + 0.36: f"polar / lam: {inside:.6g} found, {known}",
        bottom - 0.34: "above 1, some subnetwork would lower the objective",
    }
    for y, words in sentences.items():
        bold = "bold" if words.startswith("gap") else "normal"
        _ = ax.text(0, y, words, color=INK, va="center", size="small", weight=bold)
    _ = ax.set(
        xlim=(min(0.0, lower), 1.04 * right),
        ylim=(-0.55, 1.55),
        xlabel="fraction of the objective (above), of lam (below)",
        title="the certificate",
    )
    _ = ax.set_yticks([])
    _plain(ax).spines["left"].set_visible(False)
    return ax


def staircase(ax: Axes, seen: History, levels: np.ndarray) -> Axes:
    """Draw the loss of a deep linear network while it trains, and thin lines at the losses of critical points.

    Args:
        ax: to draw on.
        seen: from `deep_linear.history`.
        levels: losses to mark, such as those of the critical points that keep the top 0, 1, 2, ... directions.

    Returns:
        The same Axes.

    Example:
        >>> from matplotlib.figure import Figure
        >>> rows = np.ones(3)
        >>> seen = History(np.arange(3), rows, rows, 2 * rows, rows, rows, rows, rows[:, None], rows[:, None])
        >>> staircase(Figure().subplots(), seen, np.ones(1)).get_ylabel()
        'loss'
    """
    for level in levels:
        _ = ax.axhline(level, color=GRAY, lw=0.8)
    _ = ax.plot(seen.step, seen.loss, color=BLUE, lw=2.5)
    _ = ax.set(xlabel="step", ylabel="loss", title="loss, and critical points (gray)")
    return _plain(ax)


def certified_gap(ax: Axes, seen: History) -> Axes:
    """Draw the gap of a deep linear network while it trains, and what its gradients prove of it.

    Args:
        ax: to draw on.
        seen: from `deep_linear.history`.

    Returns:
        The same Axes, with a logarithmic scale; gaps far below what rounding lets be proved are cut off.

    Example:
        >>> from matplotlib.figure import Figure
        >>> rows = np.ones(3)
        >>> seen = History(np.arange(3), rows, rows, 2 * rows, rows, rows, rows, rows[:, None], rows[:, None])
        >>> certified_gap(Figure().subplots(), seen).get_yscale()
        'log'
    """
    bound = np.where(np.isfinite(seen.gap_bound), seen.gap_bound, np.nan)
    _ = ax.plot(seen.step, bound, color=GREEN, lw=2, label="proved by the gradients")
    _ = ax.plot(seen.step, np.where(seen.gap > 0, seen.gap, np.nan), color=BLUE, lw=2.5, label="loss $-$ optimum")
    _ = ax.set_yscale("log")
    if np.any(np.isfinite(bound)) and seen.gap[0] > 0:
        _ = ax.set_ylim(0.03 * np.nanmin(bound), max(1e6 * seen.gap[0], 2 * np.nanmin(bound)))
    _ = ax.set(xlabel="step", ylabel="gap", title="how far from the global minimum")
    _ = ax.legend(frameon=False, fontsize="small")
    return _plain(ax)


def growth(ax: Axes, seen: History, targets: np.ndarray) -> Axes:
    """Draw the singular values of a deep linear network's prediction over time, and those of the fit as goals.

    Args:
        ax: to draw on.
        seen: from `deep_linear.history`. targets: (n,), the singular values of the least-squares fit.

    Returns:
        The same Axes.

    Example:
        >>> from matplotlib.figure import Figure
        >>> rows = np.ones(3)
        >>> seen = History(np.arange(3), rows, rows, 2 * rows, rows, rows, rows, rows[:, None], rows[:, None])
        >>> growth(Figure().subplots(), seen, np.ones(1)).get_xlabel()
        'step'
    """
    for goal in targets:
        _ = ax.axhline(goal, color=GRAY, lw=0.8)
    for values in np.asarray(seen.singular_values).T:
        _ = ax.plot(seen.step, values, color=ORANGE, lw=1.8)
    _ = ax.set(xlabel="step", ylabel="singular value of $XR$", title="one direction of the fit after the other")
    return _plain(ax)


def unit_shares(ax: Axes, found: Decomposition) -> Axes:
    """Draw what every unit explains of the targets, in percent of ``1/2 ||Y||^2``: a row a layer, the output last.

    Units are drawn in their order; a share is what a unit adds to those before it. Layers add up to the number at the
    right of their row.

    Args:
        ax: to draw on. found: from `local_minima.decompose`.

    Returns:
        The same Axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from matplotlib.figure import Figure
        >>> from globopt_jax import local_minima
        >>> W = [jnp.eye(2), jnp.ones((2, 1))]
        >>> ax = unit_shares(Figure().subplots(), local_minima.decompose(W, jnp.eye(2), jnp.ones((2, 1))))
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['layer 1', 'output']
    """
    target = float(found.target) or 1.0
    rows = [100 * np.asarray(share) / target for share in found.shares]
    width = max(len(row) for row in rows)
    table = np.array([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows])
    image = ax.imshow(table, aspect="auto", cmap="viridis", vmin=0, interpolation="nearest")
    for y, row in enumerate(rows):
        _ = ax.text(width - 0.4, y, f" {np.sum(row):.3g} %", va="center", color=INK)
    _ = ax.set_yticks(range(len(rows)), [f"layer {l}" for l in range(1, len(rows))] + ["output"])
    ax.locator_params(axis="x", integer=True)
    order = ", ".join(str(l) for l in found.order)
    _ = ax.set_xlabel(f"unit, from 0; layers in the order {order}")
    if ax.figure is not None:
        _ = ax.figure.colorbar(image, ax=ax, label="share of the targets (%)", pad=0.12)
    return ax


def tangent_trace(ax: Axes, steps: np.ndarray, value: np.ndarray, loss: np.ndarray) -> Axes:
    """Draw J and the loss during training; what lies between is the tangent gap, zero at stationary points.

    Args:
        ax: to draw on. steps: (n,). value, loss: (n,), J and the loss there; what is below 1e-12 of the largest loss is
            drawn there.

    Returns:
        The same Axes.

    Raises:
        ValueError: arrays of different lengths.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = tangent_trace(Figure().subplots(), np.arange(1.0, 4), np.array([2.0, 1, 1]), np.array([9.0, 2, 1]))
        >>> ax.get_ylabel()
        'loss'
    """
    if not np.shape(steps) == np.shape(value) == np.shape(loss) or np.ndim(steps) != 1 or not len(steps):
        shapes = ", ".join(str(np.shape(a)) for a in (steps, value, loss))
        raise ValueError(f"steps, value, loss: Expected: shapes (n,), n at least 1. Received: {shapes}.")
    # A J that is rounding would leave the loss a line at the top.
    floor = 1e-12 * float(np.max(loss))
    value, loss = np.maximum(value, floor), np.maximum(loss, floor)
    _ = ax.fill_between(steps, value, loss, color=GRAY, alpha=0.4, lw=0, label="tangent gap")
    _ = ax.plot(steps, loss, color=BLUE, lw=2, label="loss")
    _ = ax.plot(steps, value, color=GREEN, lw=2, label="J: the loss of local minima like this point")
    ax.set_yscale("log")
    _ = ax.set_xlabel("step")
    _ = ax.set_ylabel("loss")
    _ = ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)  # above, off the curves
    return _plain(ax)


def _plain(ax: Axes) -> Axes:
    """No box, a quiet grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=GRAY, alpha=0.35, lw=0.6)
    ax.set_axisbelow(True)
    return ax
