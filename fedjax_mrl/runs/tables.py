"""The csv tables of a run: their columns, and how their lines are written and read."""

import csv
import io
import math
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

# The numbers without which a line says nothing, and the largest that each can be.
_NEEDED = {
    "rounds.csv": dict.fromkeys(
        ("seconds", "participants", "bytes_down", "bytes_up", "flops"), math.inf
    ),
    "metrics.csv": {"clients": math.inf, "mean_accuracy": 1.0},
    "clients.csv": {"client": math.inf, "accuracy": 1.0},
    "digests.csv": {},
}
_OPTIONAL = {"worst_accuracy": 1.0, "p10_accuracy": 1.0}  # new in version 0.2
_WHOLE = ("client", "clients")
_DIGITS = 9  # that such a number has at most


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
        if len(line) == width and _is_number(line[0])
    ]


def sound(name: str, text: str) -> tuple[list[dict[str, str]], int]:
    """The lines of a table whose numbers are numbers, and how many others it has.

    Half a line at the end is not counted: a run that was killed leaves it.
    """
    found = [row for row in parse(name, text) if _is_sound(name, row)]
    lines = text[: text.rfind("\n") + 1].split("\n")[1:]
    return found, sum(bool(line) for line in lines) - len(found)


def _is_sound(name: str, row: Mapping[str, str]) -> bool:
    if not all(_is_number(row[column]) for column in _WHOLE if column in row):
        return False
    told = {key: most for key, most in _OPTIONAL.items() if row.get(key)}
    try:
        return all(
            0 <= float(row[column]) <= most and math.isfinite(float(row[column]))
            for column, most in (_NEEDED[name] | told).items()
        )
    except ValueError:
        return False


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _DIGITS


def left_out(name: str, number: int) -> str | None:
    """Says of a table that lines of it are left out; None if there are none.

    Args:
        name: as it is shown.
        number: of these lines.
    """
    if not number:
        return None
    some = "1 line of it is" if number == 1 else f"{number} lines of it are"
    return f"{name} is damaged: {some} unreadable and left out"


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
