"""Pictures of the tangent space of a network.

J is half the squared distance from the targets to the tangent space, which is the span of the derivatives of the
predictions in the weights. At a differentiable local minimum the loss equals J.
"""

import numpy as np

from globopt_jax.local_minima import Decomposition
from globopt_jax.plotting.shared import BLUE, GRAY, GREEN, INK, Axes, plain

__all__ = ["tangent_trace", "unit_shares"]


def unit_shares(ax: Axes, found: Decomposition) -> Axes:
    """Draw the share of the targets that each unit explains, in percent of ``1/2 ||Y||^2``.

    There is one row for each layer, and the output is the last row. The share of a unit is the part of the targets that
    the tangent space of this unit explains in addition to the units before it. The number at the right of a row is the
    sum of its shares.

    Args:
        ax: the Axes to draw on.
        found: the decomposition from `local_minima.decompose`.

    Returns:
        The same Axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from globopt_jax import local_minima, plotting
        >>> W = [jnp.eye(2), jnp.ones((2, 1))]
        >>> found = local_minima.decompose(W, jnp.eye(2), jnp.ones((2, 1)))
        >>> ax = unit_shares(plotting.figure((4, 3)).subplots(), found)
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
    _ = ax.set_xlabel(f"unit of the layer, counted from 0 (layers explain in the order {order})")
    best = int(np.argmax([np.sum(row) for row in rows]))
    name = f"layer {best + 1}" if best < len(rows) - 1 else "the output layer"
    _ = ax.set_title(f"{name} explains {np.sum(rows[best]):.3g} % of the targets", fontsize="medium")
    if ax.figure is not None:
        _ = ax.figure.colorbar(image, ax=ax, label="share (%)", pad=0.02)
    return ax


def tangent_trace(ax: Axes, steps: np.ndarray, value: np.ndarray, loss: np.ndarray) -> Axes:
    """Draw J and the loss during training. The area between them is the tangent gap, which is 0 at stationary points.

    Values below 1e-12 times the largest loss are drawn at this height.

    Args:
        ax: the Axes to draw on.
        steps: (n,), the steps of the training.
        value: (n,), J at these steps.
        loss: (n,), the loss at these steps.

    Returns:
        The same Axes.

    Raises:
        ValueError: arrays of different lengths.

    Example:
        >>> from globopt_jax import plotting
        >>> steps, J, loss = np.arange(1.0, 4), np.array([2.0, 1, 1]), np.array([9.0, 2, 1])
        >>> ax = tangent_trace(plotting.figure((4, 3)).subplots(), steps, J, loss)
        >>> ax.get_ylabel()
        'loss'
    """
    if not np.shape(steps) == np.shape(value) == np.shape(loss) or np.ndim(steps) != 1 or not len(steps):
        shapes = ", ".join(str(np.shape(a)) for a in (steps, value, loss))
        raise ValueError(f"steps, value, loss: Expected: shapes (n,), n at least 1. Received: {shapes}.")
    # A value of J that is rounding would stretch the axis, so that the loss were a line at the top.
    floor = 1e-12 * float(np.max(loss))
    value, loss = np.maximum(value, floor), np.maximum(loss, floor)
    _ = ax.fill_between(steps, value, loss, color=GRAY, alpha=0.4, lw=0, label="tangent gap")
    _ = ax.plot(steps, loss, color=BLUE, lw=2, label="loss")
    _ = ax.plot(steps, value, color=GREEN, lw=2, label="J: the loss of local minima like this point")
    ax.set_yscale("log")
    _ = ax.set_xlabel("step")
    _ = ax.set_ylabel("loss")
    _ = ax.set_title(f"the loss ends {100 * (loss[-1] / value[-1] - 1):.2g} % above J", pad=24)
    _ = ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=3)  # above the plot
    return plain(ax)
