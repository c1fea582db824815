"""What all pictures share: the colours, the quiet axes, and a figure that needs no display.

Colours are those of Okabe and Ito, which most colour-blind readers tell apart.
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
    """Make an empty figure that is drawn without a display and shows itself as a picture in a notebook.

    A plain `matplotlib.figure.Figure` appears in a notebook as text unless pyplot's inline backend is loaded. This one
    carries its own PNG representation, so that the last line of a cell shows it whatever backend is named.

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
    """Draw a figure as the bytes of a PNG file, without a date or a version in them.

    Args:
        drawn: any figure; its own canvas is left as it is.

    Returns:
        The bytes of the file.
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
    """Take the box away, draw a quiet grid, and give the title, which is a sentence, the size of the text."""
    ax.title.set_fontsize("medium")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=GRAY, alpha=0.35, lw=0.6)
    ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, where: Any = "best", *, raised: float = 0.0, columns: int = 1) -> None:
    """Name the curves in small letters on a white ground, `raised` by a share of the height."""
    style: dict[str, Any] = {
        "ncols": columns,
        "columnspacing": 1.2,
        "facecolor": "white",
        "edgecolor": "none",
        "framealpha": 0.85,
    }
    _ = ax.legend(fontsize="small", loc=where, bbox_to_anchor=(0, raised, 1, 1), **style)


def percent(fraction: float) -> str:
    """A fraction in percent with two digits, rounded up, since every percentage in a title is an upper bound.

    >>> percent(0.00012301)
    '0.013 %'
    """
    digits = 2 if fraction < 1 else len(f"{100 * fraction:.0f}")  # no exponent at 100 % and above
    return f"{rigorous.at_most(100 * fraction, digits)} %"


@cache
def _figure_class() -> type[Figure]:
    from matplotlib import figure

    class Shown(figure.Figure):
        """A figure that notebooks show as a picture."""

        def _repr_png_(self) -> bytes:
            return png(self)

    return Shown
