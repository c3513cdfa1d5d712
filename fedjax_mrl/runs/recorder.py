"""What a run's rounds leave in its directory: tables, digests, checkpoints."""

import time
from typing import Any

import numpy as np

from fedjax_mrl.federation import Federation, Result
from fedjax_mrl.runs import summary
from fedjax_mrl.runs.checkpoint import Checkpoints
from fedjax_mrl.runs.directory import RunDirectory
from fedjax_mrl.runs.events import Events
from fedjax_mrl.runs.resuming import restore
from fedjax_mrl.simulation import evaluation
from fedjax_mrl.simulation.digest import Digester
from fedjax_mrl.simulation.evaluation import POINTS, Scores
from fedjax_mrl.simulation.state import Played, State

# Columns of rounds.csv that are also events of TensorBoard.
EVENTS = ("train_loss", "seconds", "bytes_down", "bytes_up", "flops", "rejected")


class Recorder:
    """Writes what a run's rounds yield."""

    def __init__(
        self,
        federation: Federation,
        directory: RunDirectory,
        kept: Checkpoints,
        events: Events | None = None,
    ) -> None:
        self._federation, self._directory, self._kept = federation, directory, kept
        self._events = events  # None in a process that leaves writing to another one
        self._flops = federation.flops()
        self._digester: Digester = federation.digester()
        self._saved: tuple[int, str] | None = None  # round and digest, newest
        self.scores: Scores | None = None

    def start(self, state: State) -> None:
        """Notes the state that the first round begins with."""
        sha, _ = self._digester(state)
        if state.round == 0:
            self._digests(0, [("all", "", sha)])
        self._newest = state.round, sha

    def record(self, result: Result, started: float, sharing: int) -> dict[str, Any]:
        """Adds a round to the tables; returns what is reported of it."""
        state, played, config = result.state, result.played, self._federation.config
        self._digester.touch(played.cohort)
        last = state.round == config.rounds
        sha = ""
        if last or state.round % config.digest_every == 0:
            sha, found = self._digester(state)
            self._digests(state.round, found)
            self._newest = state.round, sha
        seconds = (time.perf_counter() - started) / sharing
        row = round_row(state, played, self._flops, seconds, sha)
        self._directory.append("rounds.csv", [row])
        accuracy = None
        if result.scores is not None:
            self.scores = result.scores
            heads = self._federation.algorithm.heads
            found = evaluation.summarise(result.scores, heads)
            found = [{"round": state.round, **values} for values in found]
            self._directory.append("metrics.csv", found)
            rows = client_rows(self._federation, state, result.scores)
            self._directory.append("clients.csv", rows)
            accuracy = found[0]["mean_accuracy"]
        if self._events is not None:
            self._events.write(
                state.round, event_values(row, [] if accuracy is None else found)
            )
        return {
            "round": state.round,
            "rounds": config.rounds,
            "train_loss": row["train_loss"],
            "accuracy": accuracy,
            "seconds": seconds,
        }

    def save(self, state: State, accuracy: float | None) -> None:
        """Begins to write a checkpoint."""
        if self._newest[0] != state.round:
            self._newest = state.round, self._digester(state)[0]
        notes = {"digest": self._newest[1], "config": self._federation.config.to_json()}
        arrays = self._federation.arrays(state)
        self._kept.save(state.round, arrays, notes, accuracy)
        self._federation.forget(state, [*self._kept.rounds(), state.round])

    def save_last_good(self, round: int) -> None:
        """Saves the state after a round that is gone, by playing up to it again.

        Rounds repeat bit for bit, so that no run pays for a second copy of its state.
        """
        self._kept.wait()
        federation = self._federation
        state = restore(federation, self._directory, warn=lambda text: None)
        state = federation.init() if state is None else state
        while state.round < round:
            state, _ = federation.play(state)
        self._digester = federation.digester()
        self._newest = round, self._digester(state)[0]
        self.save(state, None)
        self._kept.wait()
        self.summarise()

    def summarise(self) -> dict[str, Any]:
        """Writes summary.json from the tables."""
        federation = self._federation
        try:
            values = summary.summarise(
                algorithm=federation.config.algorithm,
                dataset=federation.dataset.name,
                rounds=self._directory.rows("rounds.csv"),
                metrics=self._directory.rows("metrics.csv"),
                head=federation.algorithm.heads[0],
            )
        except ValueError as error:
            raise OSError(
                f"summary.json is not written: a table in {self._directory.path} was "
                f"damaged ({error}). The checkpoints are complete."
            ) from None
        self._directory.write_json("summary.json", values)
        return values

    def _digests(self, round: int, found: list) -> None:
        rows = [
            {"round": round, "owner": owner, "leaf": leaf, "sha256": sha}
            for owner, leaf, sha in found
        ]
        self._directory.append("digests.csv", rows)


def round_row(
    state: State, played: Played, flops: np.ndarray, seconds: float, sha: str
) -> dict[str, Any]:
    """The line of rounds.csv; the loss is the mean over participants and steps."""
    losses = played.metrics["total"]
    sound = losses[played.sound]
    return {
        "round": state.round,
        "seconds": round(seconds, 4),
        "participants": played.cohort.size,
        "train_loss": float(sound.mean()) if sound.size else float("nan"),
        "bytes_down": int(played.bytes_down) * played.cohort.size,
        "bytes_up": int(played.bytes_up.astype(np.float64).sum()),
        "flops": int(flops[played.reported].sum()),
        "digest": sha,
        "dropped": played.cohort.size - played.reported.size,
        "stragglers": played.stragglers,
        "rejected": played.rejected,
    }


def event_values(
    row: dict[str, Any], metrics: list[dict[str, Any]]
) -> dict[str, float]:
    """The names and numbers of a round in TensorBoard.

    Args:
        row: of rounds.csv.
        metrics: the round's rows of metrics.csv; none without an evaluation.
    """
    values = {f"round/{name}": row[name] for name in EVENTS}
    for line in metrics:
        for measure in ("mean_accuracy", "mean_loss"):
            values[f"{measure}/{line['point']}/{line['head']}"] = line[measure]
    return values


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
            "loss": _loss(scores, p, h, client),
        }
        for client in range(scores.num_test.size)
        if scores.num_test[client]
        for p, point in enumerate(POINTS)
        for h, head in enumerate(federation.algorithm.heads)
    ]


def _loss(scores: Scores, point: int, head: int, client: int) -> float | None:
    """A client's mean loss; None where no test example has one."""
    has = scores.num_loss[point, head, client] > 0
    return float(scores.loss[point, head, client]) if has else None
