"""The numbers of a run: accuracy of each inference mode, costs to a target, clients."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl.runs import summary
from fedjax_mrl.runs.directory import RunDirectory
from fedjax_mrl.runs.summary import Reached

Curve = list[tuple[int, float]]  # rounds and mean accuracies of the clients


class Result(NamedTuple):
    """What a run came to after its rounds.

    Attributes:
        head: inference mode.
        curve: mean local test accuracy before aggregation, by round.
        seconds: of all rounds.
        reached: rounds, bytes and FLOPs to the target; None without one, or if it was
            not reached.
    """

    head: str
    curve: Curve
    seconds: float
    reached: Reached | None

    @property
    def last(self) -> float:
        """Accuracy after the last round that was evaluated."""
        return self.curve[-1][1]

    @property
    def last10(self) -> float:
        """Mean of the evaluations in the ten rounds up to the last one."""
        last = self.curve[-1][0]
        values = [accuracy for round, accuracy in self.curve if round > last - 10]
        return sum(values) / len(values)

    @property
    def best(self) -> float:
        """The greatest accuracy of any round."""
        return max(accuracy for _, accuracy in self.curve)


def read(
    path: pathlib.Path, rounds: int, *, heads: bool, target: float | None
) -> list[Result]:
    """Reads the first rounds of a run, one result for each inference mode.

    Args:
        path: its folder.
        rounds: how many rounds count.
        heads: whether all modes are wanted, or the headline alone.
        target: accuracy whose costs are wanted.
    """
    directory = RunDirectory(path)
    until = lambda rows: [row for row in rows if int(row["round"]) <= rounds]
    metrics = until(directory.rows("metrics.csv"))
    played = until(directory.rows("rounds.csv"))
    first = json.loads(directory.read_text("summary.json"))["headline"]["head"]
    modes = [row["head"] for row in metrics if row["point"] == "local"]
    named = list(dict.fromkeys([first, *modes])) if heads else [first]
    found = []
    for head in named:
        curve = summary.headline_curve(metrics, head)
        reached = None if target is None else summary.reached(curve, played, target)
        found.append(Result(head, curve, _seconds(played), reached))
    return found


def _seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(row["seconds"]) for row in rows)


def clients(path: pathlib.Path, rounds: int, head: str) -> list[dict[str, str]]:
    """The rows of clients.csv of some rounds at point `local` in an inference mode."""
    return [
        row
        for row in RunDirectory(path).rows("clients.csv")
        if (row["point"], row["head"]) == ("local", head)
        and int(row["round"]) <= rounds
        and row["accuracy"] != ""
    ]
