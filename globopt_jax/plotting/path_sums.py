"""A picture of the active paths of a ReLU network, layer by layer."""

import numpy as np

from globopt_jax.path_sums import PathActivity
from globopt_jax.plotting.shared import BLUE, GRAY, INK, ORANGE, Axes, legend, percent, plain

__all__ = ["active_paths"]


def active_paths(ax: Axes, found: PathActivity) -> Axes:
    """Draw the share of active units in each layer, and the shares of active paths of all samples.

    Theorem 2.6 of K18 assumes that every path is active with one probability, on every sample. Then all samples would
    have the same share of active paths, and the last column would be a single line.

    Args:
        ax: the Axes to draw on.
        found: the result of `path_sums.path_activity`.

    Returns:
        The same Axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from globopt_jax import path_sums, plotting
        >>> W = [jnp.array([[1.0, -1.0]]), jnp.ones((2, 1))]
        >>> found = path_sums.path_activity(W, jnp.array([[1.0], [-1.0]]))
        >>> active_paths(plotting.figure((4, 3)).subplots(), found).get_title()
        'a multiple of the linear network misses the output by 100 %'
    """
    layers, shares = np.asarray(found.layers), np.asarray(found.by_sample)
    places = np.arange(1, len(layers) + 1)
    _ = ax.bar(places, layers, width=0.6, color=BLUE, label="units, mean over samples")
    last = len(layers) + 1
    spread = np.linspace(-0.25, 0.25, len(shares)) if len(shares) > 1 else np.zeros(1)
    _ = ax.scatter(last + spread, np.sort(shares), s=6, color=ORANGE, label="paths, each sample")
    _ = ax.hlines(float(found.rate), last - 0.35, last + 0.35, color=INK, lw=1.5, label="paths, mean")
    _ = ax.axvline(last - 0.5, color=GRAY, lw=0.8)
    _ = ax.set_xticks(np.append(places, last), [*(f"layer {k}" for k in places), "paths"])
    title = f"a multiple of the linear network misses the output by {percent(float(found.error))}"
    _ = ax.set(ylabel="active share", ylim=(0, 1.02), title=title)
    legend(ax)
    return plain(ax)
