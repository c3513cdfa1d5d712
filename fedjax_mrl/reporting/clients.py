"""The section on single clients: against training alone, and from worst to best."""

from typing import NamedTuple

import numpy as np

from fedjax_mrl.reporting import accuracy, drawing
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

_COLUMNS = 2  # panels beside each other

_SCATTER = Reading(
    "Each dot is a client: to the right its accuracy when it trains alone "
    "(Standalone), upwards its accuracy with the method, on the same data, "
    "seeds and rounds; with several seeds the mean of each.",
    "On the line taking part changes nothing; a dot above it gains, one below "
    "it would have done better alone. Colours and shapes are the clients' "
    "networks.",
    "A single client has few test examples, so dots scatter around the line "
    "even if nothing changes. Why a client gains or loses is not shown.",
)


def _one_network(name: str) -> str:
    """How the scatter plot is read where its dots look alike."""
    along = _SCATTER.how.partition("Colours")[0]
    return f"{along}All dots look alike, since all clients have one network, {name}."


class Beside(NamedTuple):
    """A method's clients beside the same clients alone, means over repetitions.

    Attributes:
        method: of which.
        alone: accuracy alone [N'].
        taking_part: accuracy with the method [N'].
        architectures: of each [N'].
        places: data seed and number of each client [N'].
    """

    method: Method
    alone: np.ndarray
    taking_part: np.ndarray
    architectures: tuple[str, ...]
    places: tuple[tuple[int, int], ...]


def section(setting: Setting) -> Section:
    """Every client against training alone, and the clients from worst to best."""
    blocks: list[Note | Picture] = []
    title = "Client by client"
    if not any(run.clients.size for m in setting.methods for run in m.runs):
        return Section(title, [Note("These runs have no table of single clients.")])
    found = [each for m in setting.methods if (each := beside(setting, m)) is not None]
    if found:
        blocks.append(scatter(found))
    else:
        blocks.append(
            Note(
                "There is no run of Standalone with the same clients, data and "
                "training settings, so clients cannot be set against training alone. "
                "`fedjax-mrl compare --algorithms ...,standalone` makes one."
            )
        )
    blocks.append(ranked(setting))
    return Section(title, blocks, [table(setting, found)])


def table(setting: Setting, found: list[Beside]) -> Table:
    """Every client of every method, in its last common round."""
    alone = {
        (each.method.name, place): float(value)
        for each in found
        for place, value in zip(each.places, each.alone, strict=True)
    }
    rows: list[tuple[Cell, ...]] = []
    for method in setting.methods:
        last = method.common_round
        for place, value in accuracy.by_client(method, last).items() if last else ():
            other = alone.get((method.name, place))
            rows.append((method.name, *place, last, float(value), other))
    columns = (
        Column("method", "method"),
        Column("data_seed", "data seed", "whole"),
        Column("client", "client", "whole"),
        Column("round", "round", "whole"),
        Column("accuracy", "accuracy, %", "percent"),
        Column("alone", "alone, %", "percent"),
    )
    return Table("clients", "Accuracy of every client", columns, rows, _SCATTER)


def beside(setting: Setting, method: Method) -> Beside | None:
    """A method beside Standalone; None where there is no run of it to pair with."""
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    names: dict[tuple[int, int], str] = {}
    for run in method.runs if method.algorithm != "standalone" else ():
        alone = setting.alone(run)
        common = set(run.rounds) & set(alone.rounds) if alone is not None else set()
        if alone is None or not common:
            continue
        ours, theirs = run.at(max(common)), alone.at(max(common))
        architectures = dict(zip(run.clients.tolist(), run.architectures, strict=True))
        for client in sorted(ours.keys() & theirs.keys()):
            place = run.config.data_seed, client
            found.setdefault(place, []).append((theirs[client], ours[client]))
            names[place] = architectures[client]
    if not found:
        return None
    means = np.array([np.mean(pairs, axis=0) for pairs in found.values()])
    order = tuple(names[place] for place in found)
    return Beside(method, means[:, 0], means[:, 1], order, tuple(found))


def scatter(found: list[Beside]) -> Picture:
    """One panel for each method: a dot for each client."""
    rows = -(-len(found) // _COLUMNS)
    wide = min(_COLUMNS, len(found))
    figure = drawing.figure(0.8 + (2.8 if wide > 1 else 4.4) * rows)
    panels = figure.subplots(rows, wide, sharex=True, sharey=True, squeeze=False)
    kinds = list(dict.fromkeys(name for each in found for name in each.architectures))
    values = [np.concatenate([each.alone, each.taking_part]) for each in found]
    low = max(0.0, min(v.min() for v in values) - 0.03)
    high = min(1.0, max(v.max() for v in values) + 0.03)
    said = []
    for axes, each in zip(panels.flat, found, strict=False):
        gain = np.round(each.taking_part - each.alone, 9)
        axes.plot([low, high], [low, high], color="0.4", linewidth=1)
        for place, kind in enumerate(kinds):
            chosen = np.array([name == kind for name in each.architectures])
            if chosen.any():
                axes.scatter(
                    each.alone[chosen],
                    each.taking_part[chosen],
                    s=22,
                    color=drawing.colour(place),
                    marker=drawing.marker(place),
                    alpha=0.75,
                    linewidths=0,
                    clip_on=False,  # a dot at 100 % is on the edge
                    label=kind,
                )
        words = f"{(gain > 0).sum()} of {gain.size} clients above the line"
        axes.set_title(f"{each.method.name}\n{words}", fontsize="medium")
        said.append(
            f"{each.method.name}: {words}, mean {100 * gain.mean():+.1f} points"
        )
        axes.set(xlim=(low, high), ylim=(low, high))
        drawing.per_cent(axes, "x", "y")
        drawing.tidy(axes)
    for axes in panels.flat[len(found) :]:
        axes.set_visible(False)
    figure.supxlabel("accuracy alone", fontsize="medium")
    figure.supylabel("accuracy with the method", fontsize="medium")
    if len(kinds) > 1:
        handles = {}
        for axes in panels.flat:
            drawn, labels = axes.get_legend_handles_labels()
            handles |= dict(zip(labels, drawn, strict=True))
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper center",
            ncols=5,
            fontsize="small",
        )
    return Picture(
        "standalone",
        "Each client against training alone",
        f"Scatter plots, a dot for each client. {'; '.join(said)}.",
        figure,
        _SCATTER if len(kinds) > 1 else _SCATTER._replace(how=_one_network(kinds[0])),
    )


def ranked(setting: Setting) -> Picture:
    """The clients' accuracies, sorted, for each method."""
    figure = drawing.figure(4.0)
    axes = figure.subplots()
    said = []
    for place, method in enumerate(setting.methods):
        last = method.common_round
        of = accuracy.by_client(method, last) if last else {}
        values = np.sort(list(of.values()))
        if not values.size:
            continue
        share = (np.arange(values.size) + 0.5) / values.size
        axes.plot(
            share,
            values,
            color=drawing.colour(place),
            linestyle=drawing.dashes(place),
            label=method.name,
            marker=drawing.marker(place) if values.size <= 40 else None,
            markersize=3,
        )
        tenth = np.percentile(values, 10)
        said.append(
            f"{method.name} worst {100 * values[0]:.1f} %, "
            f"10th percentile {100 * tenth:.1f} %"
        )
    axes.axvline(0.1, color="0.4", linewidth=1, linestyle=":")
    axes.set_xlabel("share of the clients, from worst to best")
    axes.set_ylabel("test accuracy of the client")
    axes.set_xlim(0, 1)
    drawing.per_cent(axes, "x", "y")
    drawing.tidy(axes)
    drawing.name_lines(axes)
    return Picture(
        "ranked",
        "Clients from worst to best",
        f"Line chart of the clients' accuracies in ascending order. {'; '.join(said)}.",
        figure,
        Reading(
            "The accuracies of all clients of a method in its last common round, in "
            "ascending order; with several seeds each client is its mean over them.",
            "The left end is the worst client. At the dotted line a tenth of the "
            "clients are below. A flat line treats clients alike; of two lines the "
            "higher one on the left serves the weakest clients better.",
            "The order is each method's own: at one place of two lines there may be "
            "different clients. Means over seeds are closer together than the clients "
            "of a single run, whose worst client and tenth percentile are in the "
            "table “Accuracy at the end”.",
        ),
    )
