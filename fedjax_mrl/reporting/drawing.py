"""Empty figures for a report, and their bytes, which are the same when made again."""

import io
from typing import TYPE_CHECKING

from fedjax_mrl.runs import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

WIDTH = 6.0  # inches: letters stay legible on a phone
MARKERS = "osD^vPX*<"  # nine, so that with the ten colours 90 methods differ
DASHES = ("-", "--", ":", "-.")
_DPI = 160
_INSIDE = 5  # lines up to which the legend has room among them


def figure(height: float) -> "Figure":
    """An empty figure of a report's width."""
    return pictures.empty(WIDTH, height)


def colour(place: int) -> str:
    """The colour of the method at a place, the same in all figures of a setting."""
    return f"C{place % 10}"


def marker(place: int) -> str:
    """Its marker, likewise."""
    return MARKERS[place % len(MARKERS)]


def dashes(place: int) -> str:
    """Its line, likewise; another one where colours begin anew."""
    return DASHES[place // 10 % len(DASHES)]


def tidy(axes: "Axes") -> None:
    """A light grid, and no frame where it says nothing."""
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def whole_numbers() -> "Locator":
    """Where ticks are put at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)


def name_lines(axes: "Axes") -> None:
    """A legend, if anything was drawn."""
    handles, names = axes.get_legend_handles_labels()
    whole = axes.get_figure(root=True)
    if whole is not None and len(handles) > _INSIDE:
        where = "outside upper center"
        whole.legend(handles, names, loc=where, ncols=3, fontsize="small")
    elif handles:
        axes.legend(fontsize="small")


def per_cent(axes: "Axes", *names: str) -> None:
    """Shows accuracies, which are fractions, in per cent; names are "x", "y"."""
    from matplotlib.ticker import FuncFormatter

    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        shown = lambda value, _: f"{round(100 * value, 6):g} %"
        axis.set_major_formatter(FuncFormatter(shown))


def end_at_accuracies(axes: "Axes") -> None:
    """Cuts an axis of accuracies to the right of 100 % and to the left of 0."""
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0.0), min(high, 1.0))


def png(drawn: "Figure") -> bytes:
    """The figure in pixels."""
    stream = io.BytesIO()
    drawn.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def svg(drawn: "Figure") -> bytes:
    """The figure in lines, without a date or random names in it."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fedjax_mrl"}):
        drawn.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()
