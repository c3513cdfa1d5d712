"""The csv tables of a run: their columns, and how their lines are written and read."""

import csv
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence

# A value of a table; None is an empty cell.
Cell = int | float | str | None
Row = Mapping[str, Cell]

COLUMNS = {
    "rounds.csv": (
        "round",
        "seconds",
        "participants",
        "train_loss",
        "bytes_down",
        "bytes_up",
        "flops",
        "digest",
        "dropped",
        "stragglers",
        "rejected",
        "seconds_local",
        "seconds_server",
        "seconds_evaluation",
        "seconds_writing",
    ),
    "metrics.csv": (
        "round",
        "point",
        "head",
        "clients",
        "mean_accuracy",
        "std_accuracy",
        "weighted_accuracy",
        "mean_loss",
        "worst_accuracy",
        "p10_accuracy",
    ),
    "clients.csv": (
        "round",
        "client",
        "architecture",
        "point",
        "head",
        "num_train",
        "num_test",
        "correct",
        "accuracy",
        "loss",
    ),
    "digests.csv": ("round", "owner", "leaf", "sha256"),
}


def header(name: str) -> str:
    """The first line of a table: its columns."""
    return _text([COLUMNS[name]])


def quoted(columns: Sequence[str], rows: Iterable[Iterable[Cell]]) -> str:
    """The text of a table whose cells may be any text; some are quoted then."""
    return _text([columns, *rows])


def parse(name: str, text: str) -> list[dict[str, str]]:
    """The whole lines of a table; half a line, as of a killed process, is none.

    Nor is a line that was damaged so much that it has no round. What an earlier version
    had no column for is an empty cell.
    """
    columns = COLUMNS[name]
    first, *lines = text[: text.rfind("\n") + 1].split("\n")
    width = len(columns)
    if columns[: first.count(",") + 1] == tuple(first.split(",")):
        width = first.count(",") + 1  # new columns come last
    missing = [""] * (len(columns) - width)
    cells = [line.split(",") for line in lines]  # no cell needs quotes
    return [
        dict(zip(columns, line + missing, strict=True))
        for line in cells
        if len(line) == width and line[0].isdecimal()
    ]


def append(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Adds lines to a table, flushed at once; floats keep six significant digits.

    Args:
        path: of the table, whose name is one of `COLUMNS`.
        rows: with a value for each column.
    """
    columns = COLUMNS[path.name]
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(_text([_cell(row[column]) for column in columns] for row in rows))


def up_to(name: str, rows: Sequence[Mapping[str, str]], round: int, every: int) -> str:
    """The text of a table as it was after a round.

    Args:
        name: of the table.
        rows: its lines, as `parse` gives them.
        round: the last one that stays; 0 leaves nothing.
        every: rounds between evaluations; what the end of a run evaluated besides
            goes too.
    """
    scores = name in ("metrics.csv", "clients.csv")
    kept = [
        row
        for row in rows
        if round
        and int(row["round"]) <= round
        and not (scores and int(row["round"]) % every)
    ]
    return header(name) + _text(row.values() for row in kept)


def _text(lines: Iterable[Iterable[Cell]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _cell(value: Cell) -> Cell:
    return f"{value:.6g}" if isinstance(value, float) else value
