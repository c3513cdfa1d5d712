"""Plays a run again and compares it with its record, round by round, leaf by leaf."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from fedjax_mrl import environment
from fedjax_mrl.federation import Federation
from fedjax_mrl.rundir import RunDirectory


class Verdict(NamedTuple):
    """What a verification found.

    Attributes:
        rounds: compared, equal ones and the first that differs.
        difference: where the first difference lies; None if all is equal.
        environment: what differs between the machine of the run and this one.
    """

    rounds: int
    difference: str | None
    environment: list[str]


def verify(
    federation: Federation,
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
    recorded = {
        int(row["round"]): row["digest"]
        for row in directory.rows("rounds.csv")
        if row["digest"]
    }
    leaves: dict[int, dict[tuple[str, str], str]] = {}
    for row in directory.rows("digests.csv"):
        of_round = leaves.setdefault(int(row["round"]), {})
        of_round[row["owner"], row["leaf"]] = row["sha256"]
    changes = environment_changes(directory)
    digester = federation.digester()
    state = federation.init()
    sha, _ = digester(state)
    started = leaves.get(0, {}).get(("all", ""), sha)
    if started != sha:
        return Verdict(0, "round 0: the initial weights", changes)
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
            return Verdict(compared, f"round {state.round}: {where}", changes)
    return Verdict(compared, None, changes)


def _first(found: list, recorded: dict[tuple[str, str], str]) -> str:
    for leaf in found:
        if recorded.get((leaf.owner, leaf.leaf)) != leaf.sha256:
            return f"{leaf.owner}, leaf {leaf.leaf}"
    return "who took part, or a client that did not"


def environment_changes(directory: RunDirectory) -> list[str]:
    """What differs between the run's environment and this one, one text each."""
    try:
        old = json.loads(directory.read_text("environment.json"))
    except (OSError, ValueError):
        return ["environment.json cannot be read"]
    new = environment.describe()
    ignored = ("git_commit", "data_sha256")
    return [
        f"{key}: {before} -> {after}"
        for key, before, after in _pairs(old, new)
        if before != after and key.split(".")[0] not in ignored
    ]


def _pairs(old: Any, new: Any, prefix: str = ""):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            name = f"{prefix}.{key}" if prefix else str(key)
            yield from _pairs(old.get(key), new.get(key), name)
    else:
        yield prefix, old, new
