"""Writes a run's rounds into its directory: tables, digests, checkpoints."""

from typing import TYPE_CHECKING, TypedDict, cast

from fedjax_mrl import references, results
from fedjax_mrl.results import Result
from fedjax_mrl.runs import summary, writers
from fedjax_mrl.runs.checkpoint import Checkpoints
from fedjax_mrl.runs.directory import RunDirectory
from fedjax_mrl.runs.resuming import restore
from fedjax_mrl.runs.summary import Summary
from fedjax_mrl.simulation.digest import Digester
from fedjax_mrl.simulation.evaluation import Scores
from fedjax_mrl.simulation.state import State

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation
    from fedjax_mrl.history import History
    from fedjax_mrl.stopwatch import Lap


class RoundReport(TypedDict):
    """The report of one round while a run is played.

    `accuracy` is the headline's mean over clients, None if it was not evaluated.
    """

    round: int
    rounds: int
    train_loss: float
    accuracy: float | None
    seconds: float


class Recorder:
    """Writes what a run's rounds yield."""

    def __init__(
        self,
        federation: "Federation",
        directory: RunDirectory,
        kept: Checkpoints,
        told: writers.Writers | None = None,
    ) -> None:
        self._federation, self._directory, self._kept = federation, directory, kept
        self._told = writers.Writers() if told is None else told
        self._flops = federation.flops()
        self._heads = federation.algorithm.heads
        self._architectures = results.architectures(federation.groups)
        self._num_train = [part.size for part in federation.train]
        self._digester: Digester = federation.digester()
        self._newest: tuple[int, str] | None = None  # round and digest
        self.scores: Scores | None = None

    def start(self, state: State) -> None:
        """Notes the state that the first round begins with."""
        sha, _ = self._digester(state)
        if state.round == 0:
            self._digests(0, [("all", "", sha)])
        self._newest = state.round, sha

    def record(self, result: Result, started: "Lap", sharing: int) -> RoundReport:
        """Adds a round to the tables; returns what is reported of it."""
        state, config = result.state, self._federation.config
        self._digester.touch(result.played.cohort)
        last = state.round == config.rounds
        sha = ""
        if last or state.round % config.digest_every == 0:
            sha, found = self._digester(state)
            self._digests(state.round, found)
            self._newest = state.round, sha
        seconds = self._federation.stopwatch.since(started, sharing)
        row = results.round_row(result, self._flops, seconds, sha)
        metrics = results.metric_rows(result, self._heads)
        clients = results.client_rows(
            result, self._heads, self._architectures, self._num_train
        )
        self._directory.append("rounds.csv", [row])
        if result.scores is not None:
            self.scores = result.scores
            self._directory.append("metrics.csv", metrics)
            self._directory.append("clients.csv", clients)
        self._told.round(state.round, writers.values(row, metrics))
        accuracy = cast(float, metrics[0]["mean_accuracy"]) if metrics else None
        return {
            "round": state.round,
            "rounds": config.rounds,
            "train_loss": cast(float, row["train_loss"]),
            "accuracy": accuracy,
            "seconds": seconds.total,
        }

    def record_history(self, history: "History", state: State) -> None:
        """Writes rounds that were played before, and a checkpoint of the newest."""
        sha, found = self._digester(state)
        rows = [
            {**row, "digest": sha if row["round"] == state.round else ""}
            for row in history.rows("rounds")
        ]
        self._directory.append("rounds.csv", rows)
        for table in ("metrics", "clients"):
            self._directory.append(f"{table}.csv", history.rows(table))
        self._digests(state.round, found)
        self._newest = state.round, sha
        self.save(state, None)

    def save(self, state: State, accuracy: float | None) -> None:
        """Begins to write a checkpoint."""
        if self._newest is None or self._newest[0] != state.round:
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

    def summarise(self) -> Summary:
        """Writes summary.json from the tables."""
        federation = self._federation
        names = "rounds.csv", "metrics.csv"
        (rounds, metrics), lost = zip(*map(self._directory.sound, names), strict=True)
        damaged = [name for name, gone in zip(names, lost, strict=True) if gone]
        if damaged:
            raise OSError(
                f"summary.json is not written: {' and '.join(damaged)} in "
                f"{self._directory.path} was damaged. The checkpoints are complete."
            )
        values = summary.summarise(
            algorithm=references.short(federation.config.algorithm),
            dataset=federation.dataset.name,
            rounds=rounds,
            metrics=metrics,
            head=federation.algorithm.heads[0],
        )
        if federation.privacy is not None:
            values["privacy"] = federation.privacy.summary(values["rounds"])
        self._directory.write_json("summary.json", values)
        return values

    def _digests(self, round: int, leaves: list) -> None:
        lines = [
            {"round": round, "owner": owner, "leaf": leaf, "sha256": sha}
            for owner, leaf, sha in leaves
        ]
        self._directory.append("digests.csv", lines)
