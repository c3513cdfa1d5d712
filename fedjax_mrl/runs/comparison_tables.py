"""The common tables of a comparison and its picture."""

import csv
import io
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import stats

from fedjax_mrl import references
from fedjax_mrl.runs import comparison, pictures
from fedjax_mrl.runs.directory import RunDirectory


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The text of comparison.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, comparison.COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(rows: Sequence[dict[str, Any]], clients: int) -> str:
    """The text of comparison.md: means and deviations over seeds, the best in bold.

    One column is the difference to Standalone, paired by seed, with Student's 95%
    confidence interval.

    Args:
        rows: of comparison.csv.
        clients: participants a round, to state the traffic of one.
    """
    done = [line for line in rows if line["status"] == "done" and line["last"] != ""]
    several = len({line["learning_rate"] for line in rows}) > 1
    names = list(dict.fromkeys(_trialled(line) for line in done))
    lines_of = {
        name: [line for line in done if _trialled(line) == name] for name in names
    }
    measures = ("last", "last10", "best")
    means = {
        (name, key): float(np.mean([line[key] for line in lines_of[name]]))
        for name in names
        for key in measures
    }
    top = {key: max((means[n, key] for n in names), default=0.0) for key in measures}
    lines = [
        f"| algorithm | {'learning rate | ' * several}head | last | last 10 | best | "
        "difference to Standalone | MB a client and round | TFLOP | s | seeds |",
        "| --- |" + " --- |" * (9 + several),
    ]
    for name in names:
        trials = lines_of[name]
        algorithm, rate = name
        cells = [algorithm, *[f"{rate:g}"] * several, str(trials[0]["head"])]
        for key in measures:
            text = spread([line[key] for line in trials])
            best = means[name, key] >= top[key]
            cells.append(f"**{text}**" if best else text)
        cells.append(difference(trials, lines_of.get(("standalone", rate), [])))
        traffic = np.mean(
            [
                (line["bytes_down"] + line["bytes_up"])
                / max(1, line["rounds"])
                / clients
                for line in trials
            ]
        )
        cells += [
            f"{traffic / 1e6:.3f}",
            f"{np.mean([line['flops'] for line in trials]) / 1e12:.2f}",
            f"{np.median([line['seconds'] for line in trials]):.0f}",
            str(len(trials)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"\n{note}" for note in _notes(lines_of, several=several)]
    failed = [line for line in rows if line["status"] != "done"]
    for line in failed:
        which = f"seed {line['seed']}"
        which += f", learning rate {line['learning_rate']:g}" if several else ""
        lines.append(f"\n{line['algorithm']}, {which}: {line['status']}")
    return "\n".join(lines) + "\n"


def draw(path: pathlib.Path, runs: Sequence[comparison.Run]) -> None:
    """curves.png: headline accuracy over rounds, mean and range over seeds."""
    pictures.curves(_curves(runs)).savefig(path)


def _curves(
    runs: Sequence[comparison.Run],
) -> Iterator[tuple[str, list[list[tuple[int, float]]]]]:
    done = [run for run in runs if comparison.finished(run)]
    several = len({run.config.learning_rate for run in done}) > 1
    key = lambda run: (references.short(run.config.algorithm), run.config.learning_rate)
    for algorithm, rate in dict.fromkeys(map(key, done)):
        curves = [
            comparison.read_curve(run) for run in done if key(run) == (algorithm, rate)
        ]
        if all(curves):
            yield algorithm + (f", {rate:g}" if several else ""), curves


def _trialled(line: dict[str, Any]) -> tuple[str, float]:
    """Algorithm and learning rate: runs that differ in their seed alone share a row."""
    return line["algorithm"], line["learning_rate"]


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
        Percentage points, as "+1.25 [-2.47, +4.98]"; "-" without a pair.
    """
    by_seed = {line["seed"]: line["last"] for line in alone}
    paired = {line["seed"]: line["last"] for line in rows if line["seed"] in by_seed}
    if not paired or rows[0]["algorithm"] == "standalone":
        return "-"
    pairs = [(100 * last, 100 * by_seed[seed]) for seed, last in paired.items()]
    text = f"{np.mean([a - b for a, b in pairs]):+.2f}"
    if len(pairs) < 2:
        return text
    with warnings.catch_warnings():  # equal differences: the interval is a point
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = stats.ttest_rel(*zip(*pairs, strict=True)).confidence_interval()
    return f"{text} [{low:+.2f}, {high:+.2f}]"


def _notes(
    of: dict[tuple[str, float], list[dict[str, Any]]], *, several: bool
) -> list[str]:
    """Says what differences to Standalone refer to where the table does not show it.

    Args:
        of: rows of comparison.csv that are done, by algorithm and learning rate.
        several: whether there are several learning rates.
    """
    alone = {rate: found for (name, rate), found in of.items() if name == "standalone"}
    others = {key: found for key, found in of.items() if key[0] != "standalone"}
    if not alone or not others:
        return []
    notes = []
    if several:
        notes.append("Differences are to Standalone at the same learning rate.")
    for (name, rate), found in others.items():
        which = f"{name}, learning rate {rate:g}" if several else name
        seeds, its = (
            {line["seed"] for line in f} for f in (found, alone.get(rate, []))
        )
        common = ", ".join(map(str, sorted(seeds & its)))
        if not its:
            notes.append(f"{which}: Standalone has no run at this learning rate.")
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

    Raises:
        OSError: if they cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)  # every run may have been refused
    folder = RunDirectory(directory)
    config = runs[0].config
    table = to_markdown(rows, config.cohort_size)
    folder.lock(wait=True)  # another comparison of the folder may end at the same time
    try:
        folder.write_text("comparison.csv", to_csv(rows))
        folder.write_text("comparison.md", table)
        draw(directory / "curves.png", runs)
    finally:
        folder.unlock()
    return table
