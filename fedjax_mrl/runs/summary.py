"""Numbers of a whole run from its rounds: headline, targets, traffic."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

# Accuracies whose first reaching is recorded, as the paper does for 90% and 50%.
TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Headline(TypedDict):
    """The accuracies that a run is compared by, each a mean over clients.

    Beside them, after the last round that was evaluated, the lowest accuracy of any
    client (`worst`) and the tenth percentile (`p10`); None in tables of version 0.1.
    """

    point: str
    head: str
    last: float
    last10: float
    best: float
    best_round: int
    worst: float | None
    p10: float | None


class Reached(TypedDict):
    """Rounds, bytes and FLOPs until an accuracy is reached first."""

    rounds: int
    bytes: int
    flops: int


class Summary(TypedDict):
    """The content of summary.json; `targets` by accuracy, None if not reached.

    With differential privacy also its account, as `privacy.account.Account.summary`.
    """

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
    privacy: NotRequired[Mapping[str, Any]]


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
    curve = headline_curve(metrics, head)
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
        "headline": _headline(curve, head, metrics),
        "targets": {
            f"{target:g}": reached(curve, rounds, target) for target in TARGETS
        },
    }


def headline_curve(
    metrics: Sequence[Mapping[str, Any]], head: str
) -> list[tuple[int, float]]:
    """Rounds and mean accuracies at point `local` in a head, from metrics.csv."""
    return [
        (int(row["round"]), float(row["mean_accuracy"]))
        for row in metrics
        if row["point"] == "local" and row["head"] == head
    ]


def _headline(
    curve: list[tuple[int, float]], head: str, metrics: Sequence[Mapping[str, Any]]
) -> Headline | None:
    if not curve:
        return None
    named = ("local", head)
    last = [row for row in metrics if (row["point"], row["head"]) == named][-1]
    best_round, best = max(curve, key=lambda point: (point[1], -point[0]))
    last10 = [accuracy for number, accuracy in curve if number > curve[-1][0] - 10]
    return {
        "point": "local",
        "head": head,
        "last": curve[-1][1],
        "last10": sum(last10) / len(last10),
        "best": best,
        "best_round": best_round,
        "worst": _number(last, "worst_accuracy"),
        "p10": _number(last, "p10_accuracy"),
    }


def _number(row: Mapping[str, Any], name: str) -> float | None:
    """A cell; None where an earlier version wrote none."""
    return float(row[name]) if row.get(name) not in (None, "") else None


def require_targets(targets: Sequence[float]) -> None:
    """Refuses what is no accuracy that could be reached.

    Raises:
        ValueError: then.
    """
    for target in targets:
        if not isinstance(target, numbers.Real) or not 0 < target <= 1:
            raise ValueError(
                "A target is an accuracy above 0 and at most 1, as 0.5 for 50 %; got "
                f"{target!r}."
            )


def reached(
    curve: Sequence[tuple[int, float]],
    rounds: Sequence[Mapping[str, Any]],
    target: float,
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
