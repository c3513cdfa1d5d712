"""Plays a run again and compares it with its record, round by round, leaf by leaf."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fedjax_mrl.runs import environment
from fedjax_mrl.runs.directory import RunDirectory

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation


class Verdict(NamedTuple):
    """The result of a verification.

    Attributes:
        rounds: compared, equal ones and the first that differs.
        difference: where the first difference lies; None if all is equal.
        environment: what differs between here and where the round of the first
            difference, or else the last compared round, was recorded.
        since: the first round of those that were recorded there; above 1 if the run
            went on elsewhere than it began.
        lost: rounds of which rounds.csv should have a line and has none to be read.
    """

    rounds: int
    difference: str | None
    environment: list[str]
    since: int = 1
    lost: tuple[int, ...] = ()


def verify(
    federation: "Federation",
    directory: RunDirectory,
    rounds: int,
    report: Callable[[int, bool], None] = lambda round, equal: None,
) -> Verdict:
    """Plays the first rounds again from the configuration and compares digests.

    Args:
        federation: built from the run's configuration.
        directory: the run; nothing in it is changed.
        rounds: how many to play at most.
        report: called with each compared round and whether it is equal.
    """
    digests = {int(row["round"]): row["digest"] for row in _rows(directory, "rounds")}
    recorded = {round: digest for round, digest in digests.items() if digest}
    leaves: dict[int, dict[tuple[str, str], str]] = {}
    for row in _rows(directory, "digests"):
        of_round = leaves.setdefault(int(row["round"]), {})
        of_round[row["owner"], row["leaf"]] = row["sha256"]
    environments = environment.recorded(directory)
    here = environment.describe()

    def verdict(compared: int, round: int, difference: str | None) -> Verdict:
        there = environment.of_round(environments, max(round, 1))
        last = min(rounds, max([*digests, *leaves], default=0))
        lost = tuple(n for n in range(1, last + 1) if n not in digests)
        if there is None:
            changes, since = ["environment.json cannot be read"], 1
        else:
            changes, since = environment.changes(there, here), there["from_round"]
        return Verdict(compared, difference, changes, since, lost)

    digester = federation.digester()
    state = federation.init()
    sha, _ = digester(state)
    started = leaves.get(0, {}).get(("all", ""), sha)
    if started != sha:
        return verdict(0, 0, "round 0: the initial weights")
    compared = 0
    while state.round < min(rounds, max(recorded, default=0)):
        state, played = federation.play(state)
        digester.touch(played.cohort)
        if state.round not in recorded:
            continue
        sha, found = digester(state)
        compared += 1
        equal = sha == recorded[state.round]
        report(state.round, equal)
        if not equal:
            there = leaves.get(state.round, {})
            where = _first(found, there)
            return verdict(compared, state.round, f"round {state.round}: {where}")
    return verdict(compared, state.round, None)


def _rows(directory: RunDirectory, table: str) -> list[dict[str, str]]:
    """The lines of a table; none if it cannot be read, so that nothing is compared."""
    try:
        return directory.rows(f"{table}.csv")
    except OSError:
        return []


def _first(leaves: list, recorded: dict[tuple[str, str], str]) -> str:
    for leaf in leaves:
        if recorded.get((leaf.owner, leaf.leaf)) != leaf.sha256:
            return f"{leaf.owner}, leaf {leaf.leaf}"
    return "who took part, or a client that did not"
