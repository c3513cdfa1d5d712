"""Gains of every client over training alone, in the tables of a comparison."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fedjax_mrl.runs import cells, fairness
from fedjax_mrl.runs.fairness import Gains

# Returns rows of clients.csv.
Read = Callable[[], Iterable[Mapping[str, Any]]]


def each(
    rows: Sequence[dict[str, Any]], clients: Sequence[Read], columns: Sequence[str] = ()
) -> Iterator[tuple[int, Gains]]:
    """The place of each row that has a run of Standalone beside it, and the gains.

    Beside it is one with the same seed and options, as far as Standalone has these.

    Args:
        rows: of comparison.csv.
        clients: for each, what returns its rows of clients.csv.
        columns: of swept options.
    """
    cell_of = lambda line: cells.of(line, columns)
    alone = [
        (line["seed"], cell_of(line), functools.cache(read))
        for line, read in zip(rows, clients, strict=True)
        if (line["algorithm"], line["status"]) == ("standalone", "done")
    ]
    for place, (line, read) in enumerate(zip(rows, clients, strict=True)):
        if line["algorithm"] == "standalone" or line["status"] != "done":
            continue
        for seed, cell, theirs in alone:
            if seed == line["seed"] and cells.alike(cell_of(line), cell):
                gains = fairness.gains(read(), theirs())
                if gains is not None:
                    yield place, gains
                break


def add(
    rows: Sequence[dict[str, Any]], clients: Sequence[Read], columns: Sequence[str] = ()
) -> None:
    """Says in each row how its clients do beside the same clients alone.

    `clients_gaining` is the share of the clients that are more accurate than alone,
    `worst_gain` the smallest difference of any client. Arguments as of `each`; the rows
    are changed.
    """
    for place, gains in each(rows, clients, columns):
        rows[place]["clients_gaining"] = float((gains.gain > 0).mean())
        rows[place]["worst_gain"] = float(gains.gain.min())
