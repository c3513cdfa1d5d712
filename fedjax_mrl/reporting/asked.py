"""What the clients of a run answered, for the sections that look at networks."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fedjax_mrl.reporting.nested import Answers
from fedjax_mrl.reporting.record import Run


class Asked(NamedTuple):
    """The answers of a run's clients, from its newest checkpoint."""

    method: str
    run: Run
    round: int
    labels: Sequence[str]  # names of the classes
    clients: int  # that the run has
    answers: list[Answers]


def by_method(asked: Iterable[Asked]) -> dict[str, list[Asked]]:
    """What was asked, by method."""
    found: dict[str, list[Asked]] = {}
    for each in asked:
        found.setdefault(each.method, []).append(each)
    return found
