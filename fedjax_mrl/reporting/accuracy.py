"""The section on accuracy: means and spreads over repetitions, and curves."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fedjax_mrl.reporting import drawing, intervals, private
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
    Column("last", "last, %", "spread"),
    Column("last_interval", "95 % over seeds", "percents"),
    Column("clients_interval", "95 % over clients", "percents"),
    Column("last10", "last 10, %", "spread"),
    Column("best", "best, %", "spread"),
    Column("worst", "worst client, %", "spread"),
    Column("p10", "10th percentile, %", "spread"),
    Column("seeds", "seeds", "whole"),
    Column("round", "round", "whole"),
)
_TABLE = Reading(
    "The mean test accuracy of all clients in the last round that all seeds of a "
    "method have evaluated, each client with its own trained network and its own test "
    "examples. ± is the standard deviation between seeds.",
    "“95 % over seeds” is Student's interval for the mean over seeds. “95 % over "
    "clients” is a bootstrap interval: clients are drawn again 10,000 times, each "
    "taken as its mean over seeds. “Last 10” is the mean of the evaluations in the ten "
    "rounds up to the last one; “worst client” and “10th percentile” are those of each "
    "run, averaged over seeds. Of at most ten clients the tenth percentile lies "
    "between the worst and the second worst, so it says little more than the worst. "
    "“All equal”: values without any spread say nothing of how far others would be "
    "off, so they have no interval.",
    "“Best” was chosen by looking at the test data, so it flatters. The interval over "
    "clients says nothing of other seeds, and that over two or three seeds is wide and "
    "trusts that seeds scatter like a normal distribution. Clients of one run share "
    "what they learned and are not independent.",
)

_CURVES = Reading(
    "The mean test accuracy of all clients after each evaluated round, before "
    "aggregation (point “local”), in each method's own way to answer.",
    "A line is the mean over seeds and its band reaches from the lowest to the "
    "highest seed. With one seed there is no band. Only rounds that all seeds "
    "of a method have are drawn.",
    "A band of two or three seeds is narrower than what further seeds would "
    "fill; bands that do not touch are no test. A round costs different "
    "methods different amounts, see “Costs”.",
)


def section(setting: Setting) -> Section:
    """Accuracy at the end, and round by round."""
    blocks: list[Note | Table | Picture] = []
    rows = [row(method) for method in setting.methods if method.common_round]
    name = "accuracy"
    blocks.append(Table(name, "Accuracy at the end", _COLUMNS, rows, _TABLE))
    blocks += private.notes(setting)
    if any(_beyond(cell) for each in rows for cell in each[2:4]):
        blocks.append(
            Note(
                "An interval of few seeds by Student's t can reach beyond 0 or 100 %, "
                "which no accuracy can: it says that too few seeds were played to "
                "know the mean."
            )
        )
    if all(len(method.runs) == 1 for method in setting.methods):
        blocks.append(
            Note(
                "Every method has one seed, so there is no spread over seeds and no "
                "interval over them: how far a second seed would be off is not known."
            )
        )
    splits = {run.config.data_seed for m in setting.methods for run in m.runs}
    if len(splits) > 1:
        blocks.append(
            Note(
                f"There are {len(splits)} splits of the data (data seeds). What is "
                "called a seed in this chapter is a pair of seeds, of the split and of "
                "the training, and a client of another split is another client."
            )
        )
    ends = {method.common_round for method in setting.methods}
    if len(ends) > 1:
        blocks.append(
            Note(
                "The methods are not equally far (column “round”), so their rows must "
                "not be compared with each other; differences below are taken in "
                "rounds that both have."
            )
        )
    blocks.append(curves(setting))
    return Section("Accuracy", blocks, [by_round(setting)])


def _beyond(cell: Cell) -> bool:
    """Whether an interval has values that are no accuracy."""
    ends = cell if isinstance(cell, tuple) else ()
    return any(end is not None and not 0 <= end <= 1 for end in ends)


def row(method: Method) -> tuple[Cell, ...]:
    """The row of a method, in its last round that all of its runs evaluated."""
    last = method.common_round
    assert last is not None
    runs = [run.cut(last) for run in method.runs]
    ends = [run.curve[last] for run in runs]
    tens = [
        float(np.mean([a for t, a in run.curve.items() if t > last - 10]))
        for run in runs
    ]
    clients = [np.array(list(run.at(last).values())) for run in runs]
    tested = all(values.size for values in clients)
    lowest = [run.lowest.get(last) or _lowest(run.at(last)) for run in runs]
    return (
        method.name,
        _spread(ends),
        _interval(ends, intervals.student),
        _interval(list(by_client(method, last).values()), intervals.bootstrap)
        if tested
        else None,
        _spread(tens),
        _spread([max(run.curve.values()) for run in runs]),
        _spread([pair[0] for pair in lowest if pair]) if all(lowest) else None,
        _spread([pair[1] for pair in lowest if pair]) if all(lowest) else None,
        len(runs),
        last,
    )


def _interval(
    values: Sequence[float],
    of: Callable[[Sequence[float]], intervals.Interval | None],
) -> Cell:
    """An interval for the mean; of equal values the words that there is none."""
    return intervals.ALL_EQUAL if intervals.all_equal(values) else of(values)


def _lowest(accuracies: Mapping[int, float]) -> tuple[float, float] | None:
    """The worst client and the tenth percentile; None without clients."""
    values = list(accuracies.values())
    return (min(values), float(np.percentile(values, 10))) if values else None


def _spread(values: Sequence[float]) -> tuple[float, float | None]:
    return float(np.mean(values)), intervals.spread(values)


def by_client(method: Method, round: int) -> dict[tuple[int, int], float]:
    """Every client's accuracy in a round, a mean over repetitions of one split.

    By data seed and number of the client: another split makes other clients.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for run in method.runs:
        for client, accuracy in run.at(round).items():
            found.setdefault((run.config.data_seed, client), []).append(accuracy)
    return {place: float(np.mean(values)) for place, values in found.items()}


def common(method: Method) -> tuple[list[int], np.ndarray]:
    """The rounds that all runs evaluated [E], and their accuracies [R, E]."""
    rounds = sorted(set.intersection(*(set(run.curve) for run in method.runs)))
    return rounds, np.array([[run.curve[t] for t in rounds] for run in method.runs])


def by_round(setting: Setting) -> Table:
    """What the curves show."""
    rows: list[tuple[Cell, ...]] = []
    for method in setting.methods:
        for number, column in zip(*_columns(method), strict=True):
            ends = float(column.min()), float(column.max())
            rows.append((method.name, number, len(column), float(column.mean()), ends))
    columns = (
        Column("method", "method"),
        Column("round", "round", "whole"),
        Column("seeds", "seeds", "whole"),
        Column("mean", "mean, %", "percent"),
        Column("range", "lowest and highest seed", "percents"),
    )
    return Table("by-round", "Accuracy by round", columns, rows, _CURVES)


def _columns(method: Method) -> tuple[list[int], np.ndarray]:
    rounds, values = common(method)
    return rounds, values.T


def curves(setting: Setting) -> Picture:
    """Accuracy by round with bands over seeds."""
    figure = drawing.figure(4.0)
    axes = figure.subplots()
    ends = []
    for place, method in enumerate(setting.methods):
        rounds, values = common(method)
        if not rounds:
            continue
        mean, colour = values.mean(axis=0), drawing.colour(place)
        dots = drawing.marker(place) if len(rounds) <= 30 else None
        axes.plot(
            rounds,
            mean,
            color=colour,
            linestyle=drawing.dashes(place),
            label=method.name,
            marker=dots,
            markersize=3,
        )
        axes.fill_between(
            rounds, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0
        )
        ends.append(f"{method.name} {100 * mean[-1]:.1f} % in round {rounds[-1]}")
    axes.set_xlabel("round")
    axes.set_ylabel("mean test accuracy of clients")
    axes.xaxis.set_major_locator(drawing.whole_numbers())
    drawing.per_cent(axes, "y")
    drawing.tidy(axes)
    drawing.name_lines(axes)
    return Picture(
        "curves",
        "Accuracy by round",
        f"Line chart of mean test accuracy by round. At the end: {'; '.join(ends)}.",
        figure,
        _CURVES,
    )
