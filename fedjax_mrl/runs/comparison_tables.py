"""The texts of comparison.csv and comparison.md."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_mrl.runs import cells, comparison_notes, comparison_rows, measures
from fedjax_mrl.runs.cells import Cell, Lines


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
    lines_of: dict[Cell, list[dict[str, Any]]] = {}
    for line in done:
        lines_of.setdefault(cells.of(line, columns), []).append(line)
    top = _tops(lines_of, columns)
    titles = ["algorithm", *["learning rate"] * several, *columns, "head", "last"]
    titles += ["last 10", "best", "worst client", "10th percentile"]
    titles += ["difference to Standalone", "clients that gain"]
    titles += ["MB a client and round", "TFLOP", "s", "seeds"]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for cell, trials in lines_of.items():
        words = [cell.algorithm, *[f"{cell.rate:g}"] * several]
        words += [cells.shown(value) for value in cell.swept]
        words.append(str(trials[0]["head"]))
        for key in measures.MEASURES:
            text = measures.spread([line[key] for line in trials])
            best = measures.mean(trials, key) >= top[cells.split(cell, columns), key]
            words.append(f"**{text}**" if best else text)
        words += [_optional(trials, key) for key in ("worst", "p10")]
        words.append(measures.difference(trials, cells.alone(cell, lines_of)))
        words.append(_optional(trials, "clients_gaining"))
        words += _costs(trials, participants[id(trials[0])])
        lines.append("| " + " | ".join(words) + " |")
    notes = [
        *comparison_notes.bests(lines_of, columns, several=several),
        *comparison_notes.differences(lines_of, columns, several=several),
        *comparison_notes.unfinished(rows, columns, several=several),
    ]
    lines += [f"\n{note}" for note in notes]
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
        for key in measures.MEASURES:
            place = cells.split(cell, columns), key
            top[place] = max(top.get(place, 0.0), measures.mean(trials, key))
    return top
