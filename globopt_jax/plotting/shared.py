"""The parts that all pictures share: colours, plain axes, legends, and a figure that needs no display.

The colours are from the palette of Okabe and Ito, which most colour-blind readers can distinguish.
"""

import io
from functools import cache
from typing import TYPE_CHECKING, Any

from globopt_jax import rigorous

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    Axes = Figure = object  # matplotlib is imported when the first figure is made

__all__ = ["BLUE", "GRAY", "GREEN", "INK", "ORANGE", "Axes", "Figure", "figure", "legend", "percent", "plain", "png"]

BLUE, ORANGE, GREEN, GRAY, INK = "#0072B2", "#E69F00", "#009E73", "#BBBBBB", "#333333"


def figure(size: tuple[int | float, int | float]) -> Figure:
    """Make an empty figure that needs no display and appears as a picture in a notebook.

    A plain `matplotlib.figure.Figure` appears in a notebook as text unless pyplot's inline backend is loaded. This
    figure has a PNG representation, so that a notebook shows it with any backend if it is the last line of a cell.

    Args:
        size: width and height in inches.

    Returns:
        A `matplotlib.figure.Figure` with a constrained layout.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> figure((4, 3))._repr_png_()[1:4]
        b'PNG'
    """
    return _figure_class()(figsize=size, dpi=144, layout="constrained")


def png(drawn: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file, which contain no date and no version.

    Args:
        drawn: any matplotlib figure; its canvas stays the same.

    Returns:
        The bytes of the file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    before = drawn.canvas
    try:
        FigureCanvasAgg(drawn).print_png(file, metadata={"Software": None})
    finally:
        drawn.set_canvas(before)
    return file.getvalue()


def plain(ax: Axes) -> Axes:
    """Remove the upper and right borders, draw a light grid, and make the title as small as text."""
    ax.title.set_fontsize("medium")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=GRAY, alpha=0.35, lw=0.6)
    ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, where: Any = "best", *, raised: float = 0.0, columns: int = 1) -> None:
    """Draw a legend in small letters on a white ground, `raised` by a share of the height of the plot."""
    style: dict[str, Any] = {
        "ncols": columns,
        "columnspacing": 1.2,
        "facecolor": "white",
        "edgecolor": "none",
        "framealpha": 0.85,
    }
    _ = ax.legend(fontsize="small", loc=where, bbox_to_anchor=(0, raised, 1, 1), **style)


def percent(fraction: float) -> str:
    """Format a fraction in percent with two digits, rounded up, since every percentage in a title is an upper bound.

    >>> percent(0.00012301)
    '0.013 %'
    """
    digits = 2 if fraction < 1 else len(f"{100 * fraction:.0f}")  # two digits of 100 % would print an exponent
    return f"{rigorous.at_most(100 * fraction, digits)} %"


@cache
def _figure_class() -> type[Figure]:
    from matplotlib import figure

    class Shown(figure.Figure):
        """A figure that notebooks show as a picture."""

        def _repr_png_(self) -> bytes:
            return png(self)

    return Shown
