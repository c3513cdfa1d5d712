"""Numbers of a whole run from its rounds: headline, targets, traffic."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

# Accuracies whose first reaching is recorded, as the paper does for 90% and 50%.
TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Headline(TypedDict):
    """The accuracies that a run is compared by, each a mean over clients."""

    point: str
    head: str
    last: float
    last10: float
    best: float
    best_round: int


class Reached(TypedDict):
    """Rounds, bytes and FLOPs until an accuracy is reached first."""

    rounds: int
    bytes: int
    flops: int


class Summary(TypedDict):
    """The content of summary.json; `targets` by accuracy, None if not reached."""

    algorithm: str
    dataset: str
    rounds: int
    seconds: float
    digest: str | None
    bytes_down: int
    bytes_up: int
    flops: int
    headline: Headline | None
    targets: dict[str, Reached | None]


def summarise(
    *,
    algorithm: str,
    dataset: str,
    rounds: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]],
    head: str,
) -> Summary:
    """Builds summary.json from the rows of rounds.csv and metrics.csv.

    The headline is the mean over clients of the local test accuracy at point
    `local` in the algorithm's first inference mode. Its `last10` is the mean over the
    evaluations in the ten rounds up to the last evaluation, however many these are.

    Args:
        algorithm: its name.
        dataset: its name.
        rounds: rows of rounds.csv, in order.
        metrics: rows of metrics.csv, in order.
        head: the headline's inference mode.
    """
    curve = [
        (int(row["round"]), float(row["mean_accuracy"]))
        for row in metrics
        if row["point"] == "local" and row["head"] == head
    ]
    total = {
        name: sum(float(row[name]) for row in rounds)
        for name in ("seconds", "bytes_down", "bytes_up", "flops")
    }
    digests = [row["digest"] for row in rounds if row["digest"]]
    return {
        "algorithm": algorithm,
        "dataset": dataset,
        "rounds": len(rounds),
        "seconds": round(total["seconds"], 3),
        "digest": digests[-1] if digests else None,
        "bytes_down": int(total["bytes_down"]),
        "bytes_up": int(total["bytes_up"]),
        "flops": int(total["flops"]),
        "headline": _headline(curve, head),
        "targets": {
            f"{target:g}": _reached(curve, rounds, target) for target in TARGETS
        },
    }


def _headline(curve: list[tuple[int, float]], head: str) -> Headline | None:
    if not curve:
        return None
    best_round, best = max(curve, key=lambda point: (point[1], -point[0]))
    last10 = [accuracy for number, accuracy in curve if number > curve[-1][0] - 10]
    return {
        "point": "local",
        "head": head,
        "last": curve[-1][1],
        "last10": sum(last10) / len(last10),
        "best": best,
        "best_round": best_round,
    }


def _reached(
    curve: list[tuple[int, float]], rounds: Sequence[Mapping[str, Any]], target: float
) -> Reached | None:
    """Rounds, bytes and FLOPs until the curve first reaches `target`, or None."""
    first = next((number for number, accuracy in curve if accuracy >= target), None)
    if first is None:
        return None
    until = [row for row in rounds if int(row["round"]) <= first]
    return {
        "rounds": first,
        "bytes": int(
            sum(float(row["bytes_down"]) + float(row["bytes_up"]) for row in until)
        ),
        "flops": int(sum(float(row["flops"]) for row in until)),
    }
