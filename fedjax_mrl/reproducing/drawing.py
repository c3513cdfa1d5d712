"""The picture of a preset: a table as points, curves, clients, or a sweep."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedjax_mrl.reproducing import ahead
from fedjax_mrl.reproducing.preset import Preset
from fedjax_mrl.reproducing.table import Cell
from fedjax_mrl.runs import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACCURACY = "mean test accuracy of clients, %"


def draw(preset: Preset, found: Sequence[Cell]) -> "Figure | None":
    """Draws what is done, a panel for each setting; None where nothing is."""
    settings = list(dict.fromkeys(cell.setting for cell in found if cell.results))
    if not settings:
        return None
    across = min(3, len(settings))
    down = -(-len(settings) // across)
    figure = pictures.empty(max(6.0, 4.6 * across), 4.4 * down)
    figure.suptitle(preset.title, fontsize="medium")
    panels = figure.subplots(down, across, squeeze=False).flat
    for panel in panels[len(settings) :]:
        panel.set_axis_off()
    for panel, setting in zip(panels, settings, strict=False):
        panel.set_title(setting, fontsize="small")
        panel.grid(alpha=0.3)
        own = [cell for cell in found if cell.setting == setting]
        _PANELS[preset.picture](panel, preset, own)
    return figure


def _points(axes: "Axes", preset: Preset, found: Sequence[Cell]) -> None:
    """Best accuracy of each cell, mean and deviation, beside the paper's figure."""
    for place, cell in enumerate(reversed(found)):
        values = [100 * result.best for result in cell.results]
        if values:
            sd = np.std(values, ddof=1) if len(values) > 1 else 0
            axes.errorbar(np.mean(values), place, xerr=sd, fmt="o", color="tab:blue")
        paper = preset.paper.get(cell.setting, {}).get(cell.algorithm)
        if paper is not None:
            face = "tab:red" if paper.verified else "none"
            axes.scatter(
                paper.value, place, marker="D", facecolors=face, edgecolors="tab:red"
            )
    axes.set_yticks(range(len(found)), [cell.label for cell in reversed(found)])
    axes.tick_params(labelsize="small")
    axes.set_xlabel(
        "best mean test accuracy of clients, %\n"
        "circle: here, diamond: paper (hollow: unverified)",
        fontsize="small",
    )


def _curves(axes: "Axes", preset: Preset, found: Sequence[Cell]) -> None:
    """Accuracy over rounds, mean and range over repeats."""
    del preset
    for cell in found:
        if not cell.results:
            continue
        length = min(len(result.curve) for result in cell.results)
        rounds = [number for number, _ in cell.results[0].curve[:length]]
        values = 100 * np.array(
            [[a for _, a in result.curve[:length]] for result in cell.results]
        )
        (line,) = axes.plot(rounds, values.mean(axis=0), label=cell.label)
        axes.fill_between(
            rounds,
            values.min(axis=0),
            values.max(axis=0),
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )
    axes.set_xlabel("round")
    axes.set_ylabel(_ACCURACY)
    axes.legend(fontsize="x-small")


def _clients(axes: "Axes", preset: Preset, found: Sequence[Cell]) -> None:
    """Difference of every client to another method, in ascending order."""
    for cell in found:
        gains = ahead.differences(preset, cell, found)
        if gains:
            axes.plot(100 * np.sort(gains), marker=".", label=cell.label)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set_xlabel("clients, in ascending order of the difference")
    axes.set_ylabel(f"accuracy minus that under {preset.versus}, points")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="x-small")


def _sweep(axes: "Axes", preset: Preset, found: Sequence[Cell]) -> None:
    """Accuracy over the values of what is swept; a line for each method and mode."""
    lines: dict[str, dict[str, list[float]]] = {}
    for cell in found:
        shown = [str(value) for _, value in cell.options if value != ""]
        name = f"{cell.algorithm}, {cell.head}" if preset.heads else cell.algorithm
        values = [100 * result.last10 for result in cell.results]
        if values:
            lines.setdefault(name, {})[", ".join(shown)] = values
    ticks = list(dict.fromkeys(value for line in lines.values() for value in line))
    for name, line in lines.items():
        _swept_line(axes, ticks, name, line)
    axes.set_xticks(range(len(ticks)), ticks, fontsize="x-small", rotation=30)
    axes.set_xlabel(", ".join(dict.fromkeys(c for f in found for c, _ in f.options)))
    axes.set_ylabel("mean test accuracy, last ten rounds, %")
    axes.legend(fontsize="x-small")


def _swept_line(
    axes: "Axes", ticks: Sequence[str], name: str, line: Mapping[str, list[float]]
) -> None:
    """One line of a sweep; a method without the option is a level."""
    if list(line) == [""]:
        axes.axhline(float(np.mean(line[""])), label=name, color="0.4", linestyle="--")
        return
    places = [ticks.index(value) for value in line]
    means = [float(np.mean(values)) for values in line.values()]
    spread = [float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for v in line.values()]
    axes.errorbar(places, means, yerr=spread, marker="o", label=name, capsize=2)


_PANELS: dict[str, Callable[["Axes", Preset, Sequence[Cell]], None]] = {
    "table": _points,
    "curves": _curves,
    "clients": _clients,
    "sweep": _sweep,
}
