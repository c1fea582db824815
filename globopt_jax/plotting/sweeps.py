"""Pictures of sweeps: J over depth and width, before and after training."""

import textwrap
from typing import Any

import numpy as np

from globopt_jax.plotting.shared import GRAY, Axes
from globopt_jax.sweeps.trends import averaged, trends

__all__ = ["landscape"]

#: The sizes of the letters in the cells, in points; the largest that fits is taken, or no number is written.
LETTERS = (10, 9, 8, 7, 6)


def landscape(axes: Any, found: Any) -> tuple[Axes, Axes]:
    """Draw J over depth and width as two heat maps of one colour scale, as in KHK19's Figure 1.

    The left map shows J at the initial weights, and the right map shows J after training; both are means over the
    seeds. The number in a cell is J, where there is room for it. A gray cell has no J: it is not finished, or all of
    its networks diverged. The title of the figure says in how many cases J falls.

    Args:
        axes: the two Axes to draw on, a pair or an array, of one figure or subfigure.
        found: the result of `sweeps.landscape`, or a Dataset with the dimensions depth, width and stage, and perhaps
            seed.

    Returns:
        The same two Axes.

    Raises:
        ValueError: the dataset has no J, lacks a dimension, or has another one; or there are not two Axes.

    Example:
        >>> from globopt_jax import plotting, sweeps
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
        >>> found = sweeps.landscape(X, Y, depths=[1, 2], widths=[2, 3], seeds=2, epochs=0)
        >>> left, right = plotting.landscape(plotting.figure((8, 3)).subplots(1, 2), found)
        >>> left.get_title(), right.get_title(), left.get_xlabel()
        ('initial', 'trained', 'width')
    """
    number = np.size(axes)
    if number != 2:
        raise ValueError(f"axes: Expected: two Axes. Received: {number}.")
    axes = np.ravel(axes)
    mean, _ = averaged(found)
    others = [str(dim) for dim in mean.dims if dim not in ("depth", "width", "stage")]
    if others:
        raise ValueError(
            f"found: Expected: the dimensions depth, width, seed and stage. Received: {others[0]} too; choose a value "
            f"with found.sel({others[0]}=...)."
        )
    maps = [mean.sel(stage=stage).transpose("depth", "width") for stage in ("initial", "trained")]
    known = np.concatenate([np.ravel(J) for J in maps])
    top = float(np.max(known, initial=0.0, where=np.isfinite(known))) or 1.0
    left, right = axes[0], axes[1]
    image = None
    for ax, J, stage in zip((left, right), maps, ("initial", "trained"), strict=True):
        image = _map(ax, J, top)
        _ = ax.set_title(stage, fontsize="medium")
    _ = left.set_ylabel("depth (hidden layers)")
    figure: Any = left.figure
    if figure is not None and image is not None:
        _ = figure.colorbar(image, ax=[left, right], label="J, mean over seeds", pad=0.02)
        letters = int(figure.bbox.width / figure.get_figure(root=True).dpi * 72 / 5.5)  # of a medium size, in a line
        _ = figure.suptitle(textwrap.fill(_finding(found), max(letters, 20)), fontsize="medium")
    return left, right


def _map(ax: Axes, J: Any, top: float) -> Any:
    """Draw one heat map, with the values in its cells, and return the image."""
    values = J.to_numpy()
    ax.set_facecolor(GRAY)  # missing cells are transparent
    image = ax.imshow(values, aspect="auto", origin="lower", cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    _ = ax.set_xticks(range(values.shape[1]), [str(int(w)) for w in J["width"]])
    _ = ax.set_yticks(range(values.shape[0]), [str(int(d)) for d in J["depth"]])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    _ = ax.set_xlabel("width")
    written = [[_written(value, top) for value in row] for row in values]
    size = _letters(ax, written)
    if size is not None:
        for y, row in enumerate(written):
            for x, text in enumerate(row):
                color = _readable(image.to_rgba(values[y, x])) if np.isfinite(values[y, x]) else "black"
                _ = ax.text(x, y, text, ha="center", va="center", color=color, fontsize=size)
    return image


def _readable(ground: Any) -> str:
    """Return the colour of letters, white or black, that has the larger contrast with a ground (WCAG 2)."""
    channels = np.asarray(ground[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "white" if luminance < 0.179 else "black"


def _written(value: float, top: float) -> str:
    """Return J with as many decimals as give the largest J three digits, so that one can compare the cells."""
    if not np.isfinite(value):
        return "none"
    decimals = int(np.clip(2 - np.floor(np.log10(top)), 0, 12))
    return f"{value:.{decimals}f}" if decimals <= 4 else f"{value:.2g}"


def _letters(ax: Axes, written: list[list[str]]) -> int | None:
    """Return the largest size of letters with which all numbers fit into their cells; None if there is none.

    The layout is not computed before the figure is drawn, so the size of the Axes is estimated from that of the figure.
    """
    figure: Any = ax.figure
    if figure is None:
        return None
    box, dpi = figure.bbox, figure.get_figure(root=True).dpi
    width = 72 * 0.38 * box.width / dpi / len(written[0])
    height = 72 * 0.62 * box.height / dpi / len(written)
    longest = max(len(text) for row in written for text in row)
    fitting = [size for size in LETTERS if 0.6 * size * (longest + 1) <= width and 1.6 * size <= height]
    return max(fitting, default=None)


def _finding(found: Any) -> str:
    """Return the counts of `trends` in a sentence."""
    counts = trends(found)

    def of(row: Any) -> str:
        return f"{int(row[0])} of {int(np.sum(row))}"

    axes = [(name, pairs) for name, pairs in (("width", counts.width), ("depth", counts.depth)) if np.sum(pairs)]
    steps = [
        f"from {name} to {name} in {of(pairs[0])} cases before training and in {of(pairs[1])} after it"
        for name, pairs in axes
    ]
    parts = ["J falls " + ", ".join(steps)] if steps else []
    if np.sum(counts.training) > int(counts.training[1]):  # otherwise nothing was trained
        parts.append(f"training lowers J in {of(counts.training)} cases")
    return "; ".join(parts) or "J"
