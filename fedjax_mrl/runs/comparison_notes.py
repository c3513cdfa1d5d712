"""The notes below the table of comparison.md."""

from collections.abc import Sequence
from typing import Any

from fedjax_mrl.runs import cells, measures, student
from fedjax_mrl.runs.cells import Cell, Lines


def bests(lines_of: Lines, columns: Sequence[str], *, several: bool) -> list[str]:
    """Names the best cell of every algorithm that has several on one data split."""
    found: dict[tuple[str, object], list[Cell]] = {}
    for cell in lines_of:
        place = cell.algorithm, cells.split(cell, columns)
        found.setdefault(place, []).append(cell)
    notes = []
    for alike in found.values():
        if len(alike) > 1:
            best = max(alike, key=lambda cell: measures.mean(lines_of[cell], "last"))
            text = measures.spread([line["last"] for line in lines_of[best]])
            which = cells.words(best, columns, several=several)
            notes.append(f"Best of {len(alike)} cells by last: {which}: {text}.")
    return notes


def differences(lines_of: Lines, columns: Sequence[str], *, several: bool) -> list[str]:
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
        measures.difference(found, cells.alone(cell, lines_of))
        for cell, found in others.items()
    ]
    if any(student.ALL_EQUAL in text for text in every):
        notes.append(
            f"[{student.ALL_EQUAL}]: all seeds differ by the same from Standalone, "
            "which says nothing of how far others would be off, so there is no "
            "interval. The test part is too small, or the task too easy, to tell "
            "seeds apart."
        )
    for cell, found in others.items():
        which = cells.words(cell, columns, several=several)
        alone = cells.alone(cell, lines_of)
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


def unfinished(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], *, several: bool
) -> list[str]:
    """The status of each run that is not done. Arguments as of `differences`."""
    notes = []
    for line in rows:
        if line["status"] != "done":
            which = cells.words(cells.of(line, columns), columns, several=several)
            algorithm, *others = which.split(", ")
            which = ", ".join([f"{algorithm}, seed {line['seed']}", *others])
            notes.append(f"{which}: {line['status']}")
    return notes
