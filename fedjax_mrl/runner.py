"""Runs a federation and writes its run directory. Files and clocks live here."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fedjax_mrl import (
    checkpoint,
    environment,
    evaluation,
    partitions,
    pictures,
    summary,
)
from fedjax_mrl.digest import digest
from fedjax_mrl.evaluation import POINTS, Scores
from fedjax_mrl.federation import Federation
from fedjax_mrl.rounds import Played, State
from fedjax_mrl.rundir import RunDirectory


class Diverged(RuntimeError):
    """A network became non-finite; says which client, round and network."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished run is reported by."""

    summary: dict[str, Any]
    scores: Scores | None


def prepare(federation: Federation, run: RunDirectory) -> None:
    """Writes everything that is known before the first round."""
    run.write_text("config.json", federation.config.to_json())
    run.write_json("environment.json", environment.describe())
    partitions.save(run.path / "partition.npz", federation.partition)
    pictures.partition(
        run.path / "partition.png",
        federation.partition,
        federation.dataset.y_train,
        federation.dataset.label_names,
    )


def run(
    federation: Federation,
    directory: RunDirectory,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Outcome:
    """Plays all rounds and records each.

    Args:
        federation: what to run.
        directory: a new run directory; `prepare` is called here.
        report: called after each round with its number, loss, accuracy (None if
            not evaluated) and seconds.

    Raises:
        Diverged: after everything up to then is saved.
    """
    config = federation.config
    prepare(federation, directory)
    flops = federation.flops()
    rounds: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    scores = None
    state = federation.init()
    started = time.perf_counter()
    for result in federation.rounds(state):
        state, played = result.state, result.played
        problem = divergence(played, state.round)
        due = state.round % config.digest_every == 0 or state.round == config.rounds
        sha = digest(state) if due else ""
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        row = round_row(state, played, flops, seconds, sha)
        rounds.append(row)
        directory.append("rounds.csv", [row])
        accuracy = None
        if result.scores is not None:
            scores = result.scores
            found = evaluation.summarise(scores, federation.algorithm.heads)
            found = [{"round": state.round, **values} for values in found]
            metrics.extend(found)
            directory.append("metrics.csv", found)
            directory.append("clients.csv", client_rows(federation, state, scores))
            accuracy = found[0]["mean_accuracy"]
        if problem is not None:
            _finish(federation, directory, rounds, metrics)
            raise Diverged(problem)
        last = state.round == config.rounds
        if last or state.round % config.checkpoint_every == 0:
            checkpoint.save(directory.checkpoints, state)
        report(
            {
                "round": state.round,
                "train_loss": row["train_loss"],
                "accuracy": accuracy,
                "seconds": seconds,
            }
        )
    if config.rounds == 0:
        checkpoint.save(directory.checkpoints, state)
    return Outcome(_finish(federation, directory, rounds, metrics), scores)


def _finish(federation, directory, rounds, metrics) -> dict[str, Any]:
    values = summary.summarise(
        algorithm=federation.config.algorithm,
        dataset=federation.dataset.name,
        rounds=rounds,
        metrics=metrics,
        head=federation.algorithm.heads[0],
    )
    directory.write_json("summary.json", values)
    return values


def round_row(
    state: State, played: Played, flops: np.ndarray, seconds: float, sha: str
) -> dict[str, Any]:
    """The line of rounds.csv; the loss is the mean over participants and steps."""
    return {
        "round": state.round,
        "seconds": round(seconds, 4),
        "participants": played.cohort.size,
        "train_loss": float(played.metrics["total"].mean()),
        "bytes_down": int(played.bytes_down) * played.cohort.size,
        "bytes_up": int(played.bytes_up.astype(np.float64).sum()),
        "flops": int(flops[played.cohort].sum()),
        "digest": sha,
    }


def client_rows(
    federation: Federation, state: State, scores: Scores
) -> list[dict[str, Any]]:
    """The lines of clients.csv for one round; clients without tests have none."""
    architecture = {
        int(client): group.name
        for group in federation.groups
        for client in group.clients
    }
    return [
        {
            "round": state.round,
            "client": client,
            "architecture": architecture[client],
            "point": point,
            "head": head,
            "num_train": federation.train[client].size,
            "num_test": int(scores.num_test[client]),
            "correct": int(scores.correct[p, h, client]),
            "accuracy": float(scores.accuracy[p, h, client]),
            "loss": float(scores.loss[p, h, client]),
        }
        for client in range(scores.num_test.size)
        if scores.num_test[client]
        for p, point in enumerate(POINTS)
        for h, head in enumerate(federation.algorithm.heads)
    ]


def divergence(played: Played, round: int) -> str | None:
    """Says which client's which network is no longer finite, or None."""
    bad = [
        (int(client), name)
        for name, finite in played.finite.items()
        for client in played.cohort[~finite]
    ]
    if not bad:
        losses = played.metrics["total"]
        bad = [(int(c), "loss") for c in played.cohort[~np.isfinite(losses)]]
    if not bad:
        return None
    listed = "; ".join(f"client {client}: {name}" for client, name in sorted(bad)[:10])
    more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
    return (
        f"Training diverged in round {round}: no longer finite are {listed}{more}. "
        "Everything up to then is saved; lower --learning-rate or --clip-norm."
    )
