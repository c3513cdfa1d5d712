"""The section on costs: traffic and arithmetic until accuracies are reached."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fedjax_mrl.reporting import drawing
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
from fedjax_mrl.reporting.record import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TARGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_SHOWN = 4  # of these, the highest that some run reached
_COLUMNS = (
    Column("target", "target, %", "rate"),
    Column("method", "method"),
    Column("reached", "seeds that reach it", "whole"),
    Column("seeds", "of", "whole"),
    Column("rounds", "rounds", "decimal"),
    Column("megabytes", "MB sent and received", "decimal"),
    Column("teraflop", "TFLOP", "decimal"),
)
_READING = Reading(
    "When the mean test accuracy of the clients first reached a target: the round, "
    "what all participants together had sent and received up to then, in millions of "
    "bytes, and what their training had computed, in 10¹² arithmetic operations. Means "
    "over the seeds that reached it.",
    "Within one target, fewer is cheaper. A method that some seeds did not bring to "
    "the target looks cheaper than it is: its mean is over the lucky ones.",
    "Bytes are counted on arrays, without a protocol's overhead; operations on the "
    "mathematics, without testing and without the server. Neither is time. With rare "
    "evaluations a target may have been passed earlier.",
)


class Reached(NamedTuple):
    """What a run needed up to the round in which it first reached a target."""

    rounds: int
    bytes: float | None  # None, as of FLOPs, where the run has no table of rounds
    flops: float | None


def section(setting: Setting, targets: Sequence[float] = ()) -> Section:
    """Costs to targets as a table, and accuracy against costs as a figure."""
    runs = [run for method in setting.methods for run in method.runs]
    targets = list(targets) or _reachable(runs)
    blocks: list[Note | Table | Picture] = []
    rows = [
        row
        for target in targets
        for method in setting.methods
        if (row := _row(method, target)) is not None
    ]
    if rows:
        caption = "Costs until an accuracy is reached"
        blocks.append(Table("targets", caption, _COLUMNS, rows, _READING))
    else:
        blocks.append(Note("No run has reached any of the target accuracies."))
    if any(run.traffic.size for run in runs):
        blocks.append(_draw(setting))
    return Section("Costs", blocks)


def _reachable(runs: Sequence[Run]) -> list[float]:
    best = max(max(run.curve.values()) for run in runs)
    return [target for target in _TARGETS if target <= best][-_SHOWN:]


def reached(run: Run, target: float) -> Reached | None:
    """What a run needed for a target; None if it did not reach it."""
    first = next((t for t, a in run.curve.items() if a >= target), None)
    if first is None:
        return None
    until = run.traffic[run.traffic[:, 0] <= first]
    if not len(until):
        return Reached(first, None, None)
    return Reached(first, *map(float, until[-1, 1:]))


def _row(method: Method, target: float) -> tuple[Cell, ...] | None:
    found = [each for run in method.runs if (each := reached(run, target)) is not None]
    head = (target, method.name, len(found), len(method.runs))
    if not found:
        return (*head, *["not reached"] * 3)
    rounds, moved, computed = zip(*found, strict=True)
    return (*head, float(np.mean(rounds)), _mean(moved, 1e6), _mean(computed, 1e12))


def _mean(values: Sequence[float | None], unit: float) -> float | str:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) / unit if known else "not recorded"


def _draw(setting: Setting) -> Picture:
    figure = drawing.figure(6.2)
    panels = figure.subplots(2, 1, sharey=True)
    silent = []
    for place, method in enumerate(setting.methods):
        moves = _line(panels[0], method, place, 1, 1e6)
        _line(panels[1], method, place, 2, 1e12)
        if not moves and all(run.traffic.size for run in method.runs):
            silent.append(method.name)
    for axes, label in zip(
        panels, ("MB sent and received by all", "TFLOP of all"), strict=True
    ):
        axes.set_xlabel(label)
        axes.set_ylabel("mean accuracy")
        drawing.per_cent(axes, "y")
        drawing.tidy(axes)
    handles, names = panels[1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize="small")
    verb = "sends" if len(silent) == 1 else "send"
    nothing = f" {', '.join(silent)} {verb} nothing." if silent else ""
    return Picture(
        "costs",
        "Accuracy against traffic and arithmetic",
        "Two line charts: mean accuracy against megabytes sent and received, and "
        "against tera-operations computed, for "
        f"{', '.join(m.name for m in setting.methods)}; the numbers are in the table "
        f"of targets.{nothing}",
        figure,
        Reading(
            "The curves of accuracy, with what all participants had sent and received "
            "(above) or computed (below) instead of rounds; means over seeds."
            + nothing,
            "Of two lines the one further left is cheaper at the same accuracy. A "
            "method that sends nothing has no line above.",
            "As with the table: neither bytes nor operations are time.",
        ),
    )


def _line(axes: "Axes", method: Method, place: int, column: int, unit: float) -> bool:
    """Draws accuracy against a column of costs; returns whether there is any."""
    curves = [
        dict(zip(r.traffic[:, 0], r.traffic[:, column], strict=True))
        for r in method.runs
    ]
    shared = set.intersection(
        *(set(r.curve) & set(c) for r, c in zip(method.runs, curves, strict=True))
    )
    rounds = sorted(shared)
    if not rounds:
        return False
    costs = np.mean([[curve[t] for t in rounds] for curve in curves], axis=0) / unit
    means = np.mean([[run.curve[t] for t in rounds] for run in method.runs], axis=0)
    if not costs.any():
        return False
    axes.plot(
        costs,
        means,
        color=drawing.colour(place),
        linestyle=drawing.dashes(place),
        label=method.name,
        marker=drawing.marker(place) if len(rounds) <= 30 else None,
        markersize=3,
    )
    return True
