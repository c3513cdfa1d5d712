"""Finds tables of a run that are damaged, or end before the run does."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence

from fedjax_mrl.config import RunConfig
from fedjax_mrl.reporting.error import ReportError
from fedjax_mrl.runs import tables
from fedjax_mrl.runs.directory import RunDirectory

Rows = Sequence[Mapping[str, str]]


def rows(directory: RunDirectory, name: str) -> tuple[Rows, str | None]:
    """The lines of a table that can be read, and a sentence if some cannot.

    A last line without its end is no damage: a run that was killed leaves it.

    Args:
        directory: of the run.
        name: of the table.

    Raises:
        ReportError: if the file is no such table.
    """
    try:
        text = (directory.path / name).read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return [], None
    except OSError as error:
        raise ReportError(f"its {name} cannot be read ({error.strerror})") from None
    columns = text.partition("\n")[0].split(",")
    if text and columns != [*tables.COLUMNS[name]][: len(columns)]:
        raise ReportError(
            f"its {name} is unreadable: it does not begin with the names of the "
            "columns, so the file was damaged or replaced"
        )
    whole, gone = tables.sound(name, text)
    return whole, tables.left_out(f"its {name}", gone)


def without_strangers(clients: Rows, number: int | None) -> tuple[Rows, str | None]:
    """The lines of clients.csv of the run's clients, and a sentence on any others.

    Args:
        clients: its lines.
        number: of the run's clients; None if that is not known.
    """
    if number is None:
        return clients, None
    known = [row for row in clients if int(row["client"]) < number]
    return known, tables.left_out("its clients.csv", len(clients) - len(known))


def early_ends(
    directory: RunDirectory, config: RunConfig, metrics: Rows, played: Rows
) -> list[str]:
    """Sentences on metrics.csv and rounds.csv if they end before the run does.

    The run's end is taken from summary.json, the checkpoints and the other table.
    """
    said = []
    evaluated, last = _last(metrics), _last(played)
    ended = _summary_rounds(directory)
    kept = _checkpoint(directory)
    # A round is written to rounds.csv just before it is to metrics.csv.
    until = max(kept, last - 1, ended or 0)
    due = until - until % config.eval_every
    if ended == config.rounds or kept == config.rounds:
        due = config.rounds  # the last round is always evaluated
    if evaluated < due:
        said.append(
            f"its metrics.csv is damaged or was cut: it ends in round {evaluated}, but "
            f"the run has played {until} rounds; what follows is of what is left"
        )
    known = max(evaluated, kept, ended or 0)
    if played and last < known:
        said.append(
            f"its rounds.csv is damaged or was cut: it ends in round {last}, but the "
            f"run has played {known} rounds, so costs after that are missing"
        )
    return said


def missing_clients(metrics: Rows, clients: Rows, head: str) -> str | None:
    """A sentence on clients.csv if it has not every client of the last round."""
    of = lambda found: [r for r in found if (r["point"], r["head"]) == ("local", head)]
    evaluated = of(metrics)
    if not evaluated:
        return None
    last = evaluated[-1]
    there = sum(row["round"] == last["round"] for row in of(clients))
    number = int(last["clients"] or 0)
    if there >= number:
        return None
    return (
        f"its clients.csv is damaged or was cut: in round {last['round']} it has "
        f"{there} of {number} clients, so what is told of single clients is of these, "
        "of earlier rounds or missing; the worst client and the tenth percentile are "
        "taken from metrics.csv"
    )


def _last(found: Iterable[Mapping[str, str]]) -> int:
    return max((int(row["round"]) for row in found), default=0)


def _summary_rounds(directory: RunDirectory) -> int | None:
    """The rounds of a run that has ended; None of any other."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, OverflowError):
        return int(json.loads(directory.read_text("summary.json"))["rounds"])
    return None


def _checkpoint(directory: RunDirectory) -> int:
    """The round of the newest checkpoint; 0 without one."""
    found = directory.checkpoints.glob("*")
    return max((int(path.name) for path in found if path.name.isdecimal()), default=0)
