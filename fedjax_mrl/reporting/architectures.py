"""The section on networks: accuracy by architecture."""

import numpy as np

from fedjax_mrl.reporting import drawing, intervals
from fedjax_mrl.reporting.content import (
    Cell,
    Column,
    Note,
    Picture,
    Reading,
    Section,
    Table,
)
from fedjax_mrl.reporting.grouping import Method, Setting

_COLUMNS = (
    Column("method", "method"),
    Column("architecture", "network"),
    Column("clients", "clients", "whole"),
    Column("accuracy", "last, %", "spread"),
)
_READING = Reading(
    "The mean test accuracy of the clients of each network, in the method's last "
    "common round; ± and bars are the standard deviation between seeds.",
    "Compare methods within one network: each has the same clients in all of them. "
    "It shows whether a method helps some networks more than others.",
    "Clients of different networks have different data. Unless there are many of "
    "each, a difference between networks may be one between their data.",
)


def section(setting: Setting) -> Section:
    """Accuracy by architecture, as a table and a figure."""
    title = "Accuracy by network"
    found = {
        (method.name, kind): values
        for method in setting.methods
        for kind, values in by_architecture(method).items()
    }
    kinds = list(dict.fromkeys(kind for _, kind in found))
    if not kinds:
        return Section(title, [Note("These runs have no table of single clients.")])
    if len(kinds) == 1:
        return Section(title, [Note(f"All clients have the same network, {kinds[0]}.")])
    rows: list[tuple[Cell, ...]] = [
        (name, kind, number, (float(np.mean(means)), intervals.spread(means)))
        for (name, kind), (number, means) in found.items()
    ]
    table = Table("architectures", "Accuracy by network", _COLUMNS, rows, _READING)
    return Section(title, [_draw(setting, kinds, found), table])


def by_architecture(method: Method) -> dict[str, tuple[int, list[float]]]:
    """By architecture, its number of clients and their mean accuracy in each run."""
    found: dict[str, tuple[int, list[float]]] = {}
    for run in method.runs if method.common_round else ():
        scores = run.at(method.common_round or 0)
        names = dict(zip(run.clients.tolist(), run.architectures, strict=True))
        of: dict[str, list[float]] = {}
        for client, value in scores.items():
            of.setdefault(names[client], []).append(value)
        for kind in sorted(of):
            means = found.get(kind, (0, []))[1]
            found[kind] = len(of[kind]), [*means, float(np.mean(of[kind]))]
    return found


def _draw(
    setting: Setting,
    kinds: list[str],
    found: dict[tuple[str, str], tuple[int, list[float]]],
) -> Picture:
    names = [method.name for method in setting.methods]
    figure = drawing.figure(1.4 + 0.22 * len(kinds) * (len(names) + 1))
    axes = figure.subplots()
    step = 1 / (len(names) + 1)
    said = []
    for place, name in enumerate(names):
        here = [
            (i, found[name, k][1]) for i, k in enumerate(kinds) if (name, k) in found
        ]
        heights = [i + (place - (len(names) - 1) / 2) * step for i, _ in here]
        means = [float(np.mean(values)) for _, values in here]
        axes.errorbar(
            means,
            heights,
            xerr=[intervals.spread(values) or 0.0 for _, values in here],
            fmt=drawing.marker(place),
            color=drawing.colour(place),
            markersize=5,
            capsize=2,
            linewidth=1,
            label=name,
        )
        words = [
            f"{kinds[i]} {100 * m:.1f} %" for (i, _), m in zip(here, means, strict=True)
        ]
        said.append(f"{name}: {', '.join(words)}")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_xlabel("mean test accuracy of its clients")
    drawing.end_at_accuracies(axes)
    drawing.per_cent(axes, "x")
    drawing.tidy(axes)
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    alt = f"Dots for each network and method. {'; '.join(said)}."
    return Picture("architectures-dots", "Accuracy by network", alt, figure, _READING)
