"""The common tables of a comparison and its picture."""

import csv
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl.runs import (
    comparison,
    comparison_rows,
    course,
    grid_columns,
    pictures,
    private_runs,
    student,
)
from fedjax_mrl.runs.directory import RunDirectory


class Cell(NamedTuple):
    """Runs that differ in their seed alone share a row of comparison.md.

    Attributes:
        algorithm: its short name.
        rate: the learning rate.
        swept: values of the swept options, "" for one that the algorithm lacks.
    """

    algorithm: str
    rate: float
    swept: tuple[object, ...] = ()


Lines = Mapping[Cell, list[dict[str, Any]]]  # rows of comparison.csv by cell
MEASURES = ("last", "last10", "best")


def to_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """The text of comparison.csv.

    Args:
        rows: with the cells of `comparison_rows.row`.
        columns: of swept options.
    """
    text = io.StringIO()
    names = comparison_rows.with_columns(columns)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(
    rows: Sequence[dict[str, Any]],
    clients: int | Sequence[int],
    columns: Sequence[str] = (),
) -> str:
    """The text of comparison.md: means and deviations over seeds, the best in bold.

    One column is the difference to Standalone, paired by seed, with Student's 95%
    confidence interval. The best are those of one data split.

    Args:
        rows: of comparison.csv.
        clients: participants a round, to state the traffic of one; one number for all
            rows, or one for each.
        columns: of swept options.
    """
    done = [line for line in rows if line["status"] == "done" and line["last"] != ""]
    several = len({line["learning_rate"] for line in rows}) > 1
    counts = [clients] * len(rows) if isinstance(clients, int) else clients
    participants = {id(line): n for line, n in zip(rows, counts, strict=True)}
    cells = list(dict.fromkeys(cell_of(line, columns) for line in done))
    lines_of = {
        cell: [line for line in done if cell_of(line, columns) == cell]
        for cell in cells
    }
    top = _tops(lines_of, columns)
    titles = ["algorithm", *["learning rate"] * several, *columns, "head", "last"]
    titles += ["last 10", "best", "worst client", "10th percentile"]
    titles += ["difference to Standalone", "clients that gain"]
    titles += ["MB a client and round", "TFLOP", "s", "seeds"]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for cell in cells:
        trials = lines_of[cell]
        words = [cell.algorithm, *[f"{cell.rate:g}"] * several]
        words += [_shown(value) for value in cell.swept]
        words.append(str(trials[0]["head"]))
        for key in MEASURES:
            text = spread([line[key] for line in trials])
            best = _mean(trials, key) >= top[_split(cell, columns), key]
            words.append(f"**{text}**" if best else text)
        words += [_optional(trials, key) for key in ("worst", "p10")]
        words.append(difference(trials, _alone(cell, lines_of)))
        words.append(_optional(trials, "clients_gaining"))
        words += _costs(trials, participants[id(trials[0])])
        lines.append("| " + " | ".join(words) + " |")
    lines += [f"\n{note}" for note in _bests(lines_of, columns, several=several)]
    lines += [f"\n{note}" for note in _notes(lines_of, columns, several=several)]
    for line in rows:
        if line["status"] != "done":
            which = _words(cell_of(line, columns), columns, several=several)
            algorithm, *others = which.split(", ")
            which = ", ".join([f"{algorithm}, seed {line['seed']}", *others])
            lines.append(f"\n{which}: {line['status']}")
    return "\n".join(lines) + "\n"


def _optional(trials: Sequence[dict[str, Any]], key: str) -> str:
    """The mean over seeds, in per cent, of a measure that some runs may lack."""
    found = [line[key] for line in trials if line.get(key) not in (None, "")]
    return f"{100 * np.mean(found):.1f}" if found else "-"


def _costs(trials: Sequence[dict[str, Any]], participants: int) -> list[str]:
    """Traffic, arithmetic, time and number of the runs of a cell."""
    traffic = np.mean(
        [
            (line["bytes_down"] + line["bytes_up"])
            / max(1, line["rounds"])
            / participants
            for line in trials
        ]
    )
    return [
        f"{traffic / 1e6:.3f}",
        f"{np.mean([line['flops'] for line in trials]) / 1e12:.2f}",
        f"{np.median([line['seconds'] for line in trials]):.0f}",
        str(len(trials)),
    ]


def _tops(lines_of: Lines, columns: Sequence[str]) -> dict[tuple[object, str], float]:
    """The largest mean of each measure among the cells of each data split."""
    top: dict[tuple[object, str], float] = {}
    for cell, trials in lines_of.items():
        for key in MEASURES:
            place = _split(cell, columns), key
            top[place] = max(top.get(place, 0.0), _mean(trials, key))
    return top


def _bests(lines_of: Lines, columns: Sequence[str], *, several: bool) -> list[str]:
    """Names the best cell of every algorithm that has several on one data split."""
    found: dict[tuple[str, object], list[Cell]] = {}
    for cell in lines_of:
        place = cell.algorithm, _split(cell, columns)
        found.setdefault(place, []).append(cell)
    notes = []
    for cells in found.values():
        if len(cells) > 1:
            best = max(cells, key=lambda cell: _mean(lines_of[cell], "last"))
            text = spread([line["last"] for line in lines_of[best]])
            which = _words(best, columns, several=several)
            notes.append(f"Best of {len(cells)} cells by last: {which}: {text}.")
    return notes


def draw(
    path: pathlib.Path, runs: Sequence[comparison.Run], columns: Sequence[str] = ()
) -> None:
    """curves.png: headline accuracy over rounds, mean and range over seeds."""
    pictures.curves(_curves(runs, columns)).savefig(path)


def _curves(
    runs: Sequence[comparison.Run], columns: Sequence[str]
) -> Iterator[tuple[str, list[list[tuple[int, float]]]]]:
    done = [run for run in runs if course.finished(run)]
    of = lambda run: cell_of(comparison_rows.identity(run.config, columns), columns)
    several = len({run.config.learning_rate for run in done}) > 1
    for cell in dict.fromkeys(map(of, done)):
        curves = [comparison_rows.read_curve(run) for run in done if of(run) == cell]
        if all(curves):
            yield label(cell, columns, several=several), curves


def label(cell: Cell, columns: Sequence[str], *, several: bool) -> str:
    """A short name of a cell for the legend of a picture."""
    words = [cell.algorithm, *[f"{cell.rate:g}"] * several]
    for column, value in zip(columns, cell.swept, strict=True):
        if value != "":
            words.append(f"{column.rpartition('.')[2]} {_shown(value)}")
    return ", ".join(words)


def cell_of(line: Mapping[str, Any], columns: Sequence[str]) -> Cell:
    """The cell of a row of comparison.csv."""
    swept = tuple(line[column] for column in columns)
    return Cell(line["algorithm"], line["learning_rate"], swept)


def _words(cell: Cell, columns: Sequence[str], *, several: bool) -> str:
    """Names a cell in a sentence."""
    words = [cell.algorithm]
    if several:
        words.append(f"learning rate {cell.rate:g}")
    for column, value in zip(columns, cell.swept, strict=True):
        if value != "":
            words.append(f"{column} {_shown(value)}")
    return ", ".join(words)


def _shown(value: object) -> str:
    return "-" if value == "" else grid_columns.text(value)


def _split(cell: Cell, columns: Sequence[str]) -> tuple[object, ...]:
    """What a cell says of the data split."""
    pairs = zip(columns, cell.swept, strict=True)
    return tuple(value for column, value in pairs if column in grid_columns.SPLIT)


def _mean(trials: Sequence[dict[str, Any]], key: str) -> float:
    return float(np.mean([line[key] for line in trials]))


def _alone(cell: Cell, lines_of: Lines) -> list[dict[str, Any]]:
    """Standalone's rows at the same options, as far as it has them."""
    for other, found in lines_of.items():
        if other.algorithm == "standalone" and alike(cell, other):
            return found
    return []


def alike(cell: Cell, alone: Cell) -> bool:
    """Whether a cell of Standalone has the options of another, as far as it has any."""
    pairs = zip(cell.swept, alone.swept, strict=True)
    return cell.rate == alone.rate and all(its in ("", own) for own, its in pairs)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds of accuracies, in per cent."""
    text = f"{100 * np.mean(values):.2f}"
    if len(values) < 2:
        return text
    return f"{text} ± {100 * np.std(values, ddof=1):.2f}"


def difference(rows: Sequence[dict], alone: Sequence[dict]) -> str:
    """Mean difference of last accuracies paired by seed, and its 95% interval.

    Args:
        rows: of comparison.csv, of one algorithm.
        alone: those of Standalone.

    Returns:
        Percentage points, as "+1.25 [-2.47, +4.98]"; "-" without a pair. Of seeds that
        all differ by the same there is no interval, as "+1.25 [all equal]".
    """
    by_seed = {line["seed"]: line["last"] for line in alone}
    paired = {line["seed"]: line["last"] for line in rows if line["seed"] in by_seed}
    if not paired or rows[0]["algorithm"] == "standalone":
        return "-"
    found = [100 * last - 100 * by_seed[seed] for seed, last in paired.items()]
    text = f"{np.mean(found):+.2f}"
    if student.all_equal(found):
        return f"{text} [{student.ALL_EQUAL}]"
    interval = student.interval(found)
    return text if interval is None else "{} [{:+.2f}, {:+.2f}]".format(text, *interval)


def _notes(lines_of: Lines, columns: Sequence[str], *, several: bool) -> list[str]:
    """Says what differences to Standalone refer to where the table does not show it.

    Args:
        lines_of: rows of comparison.csv that are done, by cell.
        columns: of swept options.
        several: whether there are several learning rates.
    """
    others = {
        cell: found
        for cell, found in lines_of.items()
        if cell.algorithm != "standalone"
    }
    if not others or len(others) == len(lines_of):
        return []
    notes = []
    same = [*["learning rate"] * several, *["swept options"] * bool(columns)]
    if same:
        notes.append(f"Differences are to Standalone at the same {' and '.join(same)}.")
    every = [
        difference(found, _alone(cell, lines_of)) for cell, found in others.items()
    ]
    if any(student.ALL_EQUAL in text for text in every):
        notes.append(
            f"[{student.ALL_EQUAL}]: all seeds differ by the same from Standalone, "
            "which says nothing of how far others would be off, so there is no "
            "interval. The test part is too small, or the task too easy, to tell "
            "seeds apart."
        )
    for cell, found in others.items():
        which = _words(cell, columns, several=several)
        alone = _alone(cell, lines_of)
        seeds, its = ({line["seed"] for line in f} for f in (found, alone))
        common = ", ".join(map(str, sorted(seeds & its)))
        if not its:
            where = "at these options" if columns else "at this learning rate"
            notes.append(f"{which}: Standalone has no run {where}.")
        elif not common:
            notes.append(f"{which}: no seed has a run of Standalone too.")
        elif seeds != its:
            notes.append(
                f"{which}: the difference to Standalone is over the seeds that both "
                f"have: {common}."
            )
    return notes


def write(
    directory: pathlib.Path, runs: Sequence[comparison.Run], rows: list[dict]
) -> str:
    """Writes comparison.csv, comparison.md and curves.png; returns the table.

    Args:
        directory: of the comparison.
        runs: all, in the order of the table.
        rows: of comparison.csv, one for each run.

    Raises:
        OSError: if they cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)  # every run may have been refused
    folder = RunDirectory(directory)
    columns = comparison_rows.swept(runs)
    clients = [run.config.cohort_size for run in runs]
    private = [
        (line["algorithm"], private_runs.read(run.path))
        for run, line in zip(runs, rows, strict=True)
        if run.config.privacy is not None
    ]
    table = private_runs.below(
        to_markdown(rows, clients, columns),
        [(name, found) for name, found in private if found],
    )
    folder.lock(wait=True)  # another comparison of the folder may end at the same time
    try:
        folder.write_text("comparison.csv", to_csv(rows, columns))
        folder.write_text("comparison.md", table)
        draw(directory / "curves.png", runs, columns)
    finally:
        folder.unlock()
    return table
