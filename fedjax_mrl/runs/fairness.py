"""Gain of every client over training alone, from the tables of two runs."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import effective, resuming

# Settings that a method's run and its Standalone run may have otherwise.
_OF_METHODS = ("algorithm", "shared_model", *effective.SETTINGS, "init_seed")


class Gains(NamedTuple):
    """Accuracy of a method's clients beside that of the same clients alone.

    Attributes:
        clients: ids, ascending [N'], of those that both runs have tested.
        accuracy: of the method, [N'].
        alone: of Standalone, [N'].
        round: of both.
    """

    clients: np.ndarray
    accuracy: np.ndarray
    alone: np.ndarray
    round: int

    @property
    def gain(self) -> np.ndarray:
        """Accuracy minus that alone, [N']."""
        return self.accuracy - self.alone

    def __str__(self) -> str:
        gain = 100 * self.gain
        return (
            f"Gain over Standalone in round {self.round}: mean {gain.mean():+.2f} "
            f"points, worst {gain.min():+.2f}, best {gain.max():+.2f}; "
            f"{(gain > 0).sum()} of {gain.size} clients gain, "
            f"{(gain < 0).sum()} lose."
        )


def gains(
    rows: Iterable[Mapping[str, Any]], alone: Iterable[Mapping[str, Any]]
) -> Gains | None:
    """Compares clients in the last round that both runs evaluated.

    Each client is taken at point `local` in the first head that its table lists, which
    is the headline's.

    Args:
        rows: of clients.csv, of a method.
        alone: of clients.csv, of Standalone.

    Returns:
        None if they have no evaluated round, or no client, in common.
    """
    theirs, ours = _by_round(rows), _by_round(alone)
    for round in sorted(theirs.keys() & ours.keys(), reverse=True):
        both = sorted(theirs[round].keys() & ours[round].keys())
        if both:
            take = lambda found, both=both: np.array([found[client] for client in both])
            return Gains(np.array(both), take(theirs[round]), take(ours[round]), round)
    return None


def beside(path: pathlib.Path, config: RunConfig) -> pathlib.Path | None:
    """The folder of a Standalone run beside another run, on the same split and seed.

    Args:
        path: folder of the other run.
        config: its configuration.
    """
    if config.algorithm == "standalone":
        return None
    for found in sorted(path.absolute().parent.glob("*/config.json")):
        try:
            theirs = RunConfig.from_json(found.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not differing(theirs, config):
            return found.parent
    return None


def differing(alone: RunConfig, other: RunConfig) -> list[str]:
    """Settings in which a run of Standalone differs from another run, or has to not.

    Empty if they have the same clients, data and training.
    """
    ours, theirs = (json.loads(config.to_json()) for config in (other, alone))
    return [
        key
        for key in ours
        if key not in _OF_METHODS
        and not resuming.may_differ(key, theirs[key], ours[key])
    ] + ["algorithm"] * (alone.algorithm != "standalone")


def _by_round(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[int, float]]:
    """Accuracy by round and client, local, in the headline's head."""
    found: dict[int, dict[int, float]] = {}
    first = None
    for row in rows:
        first = row["head"] if first is None else first
        if (row["point"], row["head"]) == ("local", first):
            of_round = found.setdefault(int(row["round"]), {})
            of_round[int(row["client"])] = float(row["accuracy"])
    return found
