"""The section on accuracy at every width of the nested representation."""

from collections.abc import Sequence

import numpy as np

from fedjax_mrl.reporting import drawing, intervals, nested
from fedjax_mrl.reporting.asked import Asked, by_method
from fedjax_mrl.reporting.content import (
    Cell,
    Column,
    Note,
    Picture,
    Reading,
    Section,
    Table,
)
from fedjax_mrl.reporting.grouping import Setting

TITLE = "Accuracy at every width"
HEADERS = ("coarse", "fine")
_STYLES = {"coarse": "--", "fine": "-"}
_COLUMNS = (
    Column("method", "method"),
    Column("header", "header"),
    Column("width", "width", "whole"),
    Column("seeds", "seeds", "whole"),
    Column("accuracy", "accuracy, %", "spread"),
)
_READING = Reading(
    "The mean test accuracy of the clients if a header reads only the first w numbers "
    "of the fused representation and zeros for the rest. Coarse is the header of the "
    "small shared network, which reads at most the first d1 numbers; fine is the "
    "client's own, which reads all d2. All widths come from one pass through the "
    "networks of the newest checkpoint; ± and bands are over seeds.",
    "At its full width a header is the method's own way to answer: coarse is "
    "“mix_small”, fine “mix_large” at point “local”. Where a line is flat, the numbers "
    "further right add nothing to what this header answers.",
    "The headers were trained at their full widths only, d1 and d2, so a low value in "
    "between does not say that a shorter representation could not do better if it were "
    "trained for. Bias is always added, so width 1 is no guess at random.",
)


def section(setting: Setting, asked: Sequence[Asked], notes: Sequence[Note]) -> Section:
    """Accuracy at every width, as a figure and a table."""
    curves = {
        (name, header): np.array(values)
        for name, runs in by_method(asked).items()
        for header in HEADERS
        if (values := _curves(runs, header))
    }
    blocks: list[Note | Table | Picture] = [_draw(setting, curves), *notes]
    some = next((each for each in asked if len(each.answers) < each.clients), None)
    if some is not None:
        blocks.append(
            Note(
                f"{len(some.answers)} of {some.clients} clients were asked, so full "
                "widths are not exactly those of `fedjax-mrl evaluate`."
            )
        )
    blocks.append(
        Note(
            "From the checkpoints of "
            + ", ".join(f"{each.run.path} (round {each.round})" for each in asked)
            + "."
        )
    )
    rows: list[tuple[Cell, ...]] = [
        (name, header, width + 1, len(values), _cell(values[:, width]))
        for (name, header), values in curves.items()
        for width in _some(values.shape[1])
    ]
    caption = "Accuracy at some widths"
    blocks.append(Table("widths", caption, _COLUMNS, rows, _READING))
    return Section(TITLE, blocks, [every_width(asked)])


def every_width(asked: Sequence[Asked]) -> Table:
    """The same table with every width."""
    rows: list[tuple[Cell, ...]] = []
    for name, runs in by_method(asked).items():
        for header in HEADERS:
            curves = _curves(runs, header)
            for width, column in enumerate(np.array(curves).T if curves else ()):
                rows.append((name, header, width + 1, len(column), _cell(column)))
    return Table("widths-all", "Accuracy at every width", _COLUMNS, rows, _READING)


def _curves(runs: Sequence[Asked], header: str) -> list[np.ndarray]:
    """Mean accuracy at each width, of each run, as far as all of them go."""
    found = [nested.accuracies(each.answers, header) for each in runs]
    least = min(curve.size for curve in found)
    return [curve[:least] for curve in found] if least else []


def _cell(values: np.ndarray) -> tuple[float, float | None]:
    return float(values.mean()), intervals.spread(values)


def _some(width: int) -> list[int]:
    """Places of a few widths: powers of two, and the full one."""
    powers = [2**power - 1 for power in range(20) if 2**power < width]
    return [*powers, width - 1]


def _draw(setting: Setting, curves: dict[tuple[str, str], np.ndarray]) -> Picture:
    figure = drawing.figure(4.0)
    axes = figure.subplots()
    places = {method.name: place for place, method in enumerate(setting.methods)}
    said = []
    for (name, header), values in curves.items():
        x, mean = np.arange(1, values.shape[1] + 1), values.mean(axis=0)
        colour = drawing.colour(places[name])
        axes.plot(
            x, mean, _STYLES[header], color=colour, label=f"{name}, {header} header"
        )
        axes.fill_between(
            x, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0
        )
        axes.plot(x[-1:], mean[-1:], "o", color=colour, markersize=5)
        said.append(f"{name} {header} {100 * mean[-1]:.1f} % at width {x[-1]}")
    axes.set_xlabel("numbers of the representation that are read, w")
    axes.set_ylabel("mean test accuracy of clients")
    axes.set_xlim(left=1)
    drawing.per_cent(axes, "y")
    drawing.tidy(axes)
    drawing.name_lines(axes)
    caption = "Accuracy at every width"
    alt = f"Line chart of accuracy by width. {'; '.join(said)}."
    return Picture("widths-curves", caption, alt, figure, _READING)
