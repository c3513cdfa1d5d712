"""What the tables of a comparison said before a command writes them anew."""

import csv
import pathlib
from collections.abc import Sequence

from fedjax_mrl.runs import comparison_rows, course, grid_columns
from fedjax_mrl.runs.comparison import Run

_IDENTITY = {"algorithm", "seed", "learning_rate"}


def rows(out: pathlib.Path) -> list[dict[str, str]]:
    """Rows of the comparison.csv that is there."""
    try:
        with (out / "comparison.csv").open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []
    return [row for row in found if row.keys() >= _IDENTITY]


def target(before: Sequence[dict[str, str]]) -> float | None:
    """The accuracy that an earlier command of the folder asked to be reached."""
    try:
        targets = {row["target"] for row in before if row["target"]}
        return float(targets.pop()) if len(targets) == 1 else None
    except (KeyError, ValueError):
        return None


def status(run: Run, before: Sequence[dict[str, str]]) -> str:
    """The status of a run that a command does not name: "done", or a sentence."""
    if course.finished(run):
        return "done"
    known = next((row for row in before if _is_of(run, row)), {}).get("status", "")
    if known not in ("", None, "done"):
        return known
    played = course.rounds_played(run.path)
    if played is None:
        return f"not finished; `fedjax-mrl resume {run.path}` goes on"
    return f"ended after round {played} of {run.config.rounds}"


def _is_of(run: Run, row: dict[str, str]) -> bool:
    """Whether a row of comparison.csv is that of a run."""
    columns = [
        column for column in grid_columns.said_in(run.path.name) if column in row
    ]
    own = comparison_rows.identity(run.config, columns)
    return all(row[name] == str(value) for name, value in own.items())
