"""A picture of a wide network's training: the loss, and what the gradients prove about it."""

from typing import Any

import numpy as np

from globopt_jax import rigorous
from globopt_jax.plotting.shared import BLUE, GRAY, GREEN, ORANGE, Axes, legend, plain

__all__ = ["loss_bounds"]


def loss_bounds(ax: Axes, step: np.ndarray, loss: np.ndarray, bounds: dict[str, Any]) -> Axes:
    """Draw the loss during training, and upper bounds of it such as the forms of `wide.loss_bounds`.

    Args:
        ax: the Axes to draw on.
        step: (n,), the steps.
        loss: (n,), the loss at these steps.
        bounds: (n,) bounds by their names, the tightest last; inf where there is none. The last three
            are drawn.

    Returns:
        The same Axes, with a logarithmic scale.

    Example:
        >>> from globopt_jax import plotting
        >>> ax = plotting.figure((4, 3)).subplots()
        >>> loss_bounds(ax, np.arange(2), np.array([1.0, 0.1]), {"kernel": np.array([9.0, 2.0])}).get_title()
        'the loss is 0.1, and the bound "kernel" proves at most 2'
    """
    step, loss = np.asarray(step), np.asarray(loss, np.float64)
    curves = {name: np.asarray(values, np.float64) for name, values in [*bounds.items()][-3:]}
    for color, (name, values) in zip((GRAY, ORANGE, GREEN)[-len(curves) :], curves.items(), strict=True):
        _ = ax.plot(step, np.where(np.isfinite(values), values, np.nan), color=color, lw=2, label=f"bound: {name}")
    _ = ax.plot(step, np.where(loss > 0, loss, np.nan), color=BLUE, lw=2.5, label="loss")
    last, end = next(reversed(curves.items()))
    title = f'the loss is {loss[-1]:.2g}, and the bound "{last}" '
    title += f"proves at most {rigorous.at_most(float(end[-1]), 2)}" if np.isfinite(end[-1]) else "proves nothing"
    _ = ax.set(xlabel="step", ylabel="loss", yscale="log", title=title)
    legend(ax)
    return plain(ax)
