"""Runs a federation and writes its run directory. Files and clocks live here."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl import environment, evaluation, partitions, pictures, summary
from fedjax_mrl.checkpoint import CheckpointError, Checkpoints
from fedjax_mrl.config import RunConfig
from fedjax_mrl.digest import Digester
from fedjax_mrl.evaluation import POINTS, Scores
from fedjax_mrl.federation import Federation, Result
from fedjax_mrl.rounds import Played, State
from fedjax_mrl.rundir import Follower, RunDirectory


class Diverged(RuntimeError):
    """A network became non-finite; says which client, round and network."""


class Interrupted(RuntimeError):
    """The run was asked to stop, and did, with a complete checkpoint."""

    def __init__(self, signal: int, round: int) -> None:
        super().__init__(f"Stopped after round {round}, which is saved.")
        self.signal = signal


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished run is reported by."""

    summary: dict[str, Any]
    scores: Scores | None


def prepare(federation: Federation, run: RunDirectory) -> None:
    """Writes everything that is known before the first round."""
    run.write_text("config.json", federation.config.to_json())
    found = environment.describe()
    run.write_json(
        "environment.json", found | {"data_sha256": federation.dataset.sha256()}
    )
    if isinstance(run, Follower):
        return
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
    *,
    stop: Callable[[], int | None] = lambda: None,
    state: State | None = None,
) -> Outcome:
    """Plays all rounds and records each.

    Args:
        federation: what to run.
        directory: a run directory; `prepare` is called here.
        report: called after each round with its number, how many there will be, loss,
            accuracy (None if not evaluated) and seconds.
        stop: asked after each round; the number of a signal stops the run.
        state: where to go on from (`restore`); the tables end with its round.

    Raises:
        Diverged: after the last good state is saved.
        Interrupted: if asked to stop, after the state is saved.
        SaveError: if a checkpoint cannot be written; earlier ones are intact.
        OSError: if another file cannot be.
    """
    (end,) = run_together([Entry(federation, directory, report, state)], stop)
    if isinstance(end, Exception):
        raise end
    return end


class Entry(NamedTuple):
    """One of several runs that are played together; arguments as of `run`."""

    federation: Federation
    directory: RunDirectory
    report: Callable[[dict[str, Any]], None] = lambda row: None
    state: State | None = None


def run_together(
    entries: Sequence[Entry],
    stop: Callable[[], int | None] = lambda: None,
) -> list[Outcome | Exception]:
    """Runs several trials of one federation in the same programs, and records each.

    Each run's files are those of its run alone, save for the seconds: those of a round
    are divided among the runs that were in it.

    Args:
        entries: what to run; `federation` is the same under other seeds and rates.
        stop: as of `run`, for all of them.

    Returns:
        What became of each: its outcome, or what `run` would have raised
        (`Diverged`, `Interrupted`, `OSError`). One that fails does not stop the others.
    """
    trials = [entry.federation.trial for entry in entries]
    ended: dict[int, Outcome | Exception] = {}
    states: list[State | None] = [None] * len(entries)
    with contextlib.ExitStack() as stack:
        courses = []
        for entry in entries:
            going = _course(
                entry.federation, entry.directory, entry.report, stop, entry.state
            )
            courses.append(stack.enter_context(contextlib.closing(going)))
        played: list[Any] = [None] * len(entries)
        while len(ended) < len(entries):
            for number, going in enumerate(courses):
                if number in ended:
                    continue
                try:
                    states[number] = going.send(played[number])
                    continue
                except StopIteration as end:
                    ended[number] = end.value
                except (Diverged, Interrupted, OSError) as error:
                    ended[number] = error
                states[number] = None
            found = entries[0].federation.play_together(trials, states)
            number = sum(state is not None for state in states)
            played = [(result, number) for result in found]
    return [ended[number] for number in range(len(entries))]


def _course(
    federation: Federation,
    directory: RunDirectory,
    report: Callable[[dict[str, Any]], None],
    stop: Callable[[], int | None],
    state: State | None,
) -> Generator[State, tuple[tuple[State, Played], int], Outcome]:
    """The course of a run: gives a state, is sent what a round makes of it, and so on.

    Who plays the rounds decides whether other runs are played with it, and sends how
    many runs shared the time.
    """
    config = federation.config
    prepare(federation, directory)
    if state is None:
        state = federation.init()
    with Checkpoints(directory.checkpoints, config.keep_checkpoints) as kept:
        recorder = _Recorder(federation, directory, kept)
        recorder.start(state)
        started = time.perf_counter()
        while state.round < config.rounds:
            played, sharing = yield state
            result = federation.result(*played)
            state = result.state
            problem = divergence(result.played, state.round, config)
            if problem is not None:
                recorder.save_last_good(state.round - 1)
                raise Diverged(problem)
            asked = stop()
            row = recorder.record(result, started, sharing)
            started = time.perf_counter()
            last = state.round == config.rounds
            due = last or asked or state.round % config.checkpoint_every == 0
            if due:
                recorder.save(state, row["accuracy"])
            report(row)
            if asked and not last:
                kept.wait()
                raise Interrupted(asked, state.round)
        if config.rounds == 0:
            recorder.save(state, None)
        kept.wait()
    return Outcome(recorder.summarise(), recorder.scores)


def restore(
    federation: Federation, directory: RunDirectory, warn: Callable[[str], None]
) -> State | None:
    """The newest undamaged checkpoint's state; None if there is none.

    Args:
        federation: what was run.
        directory: where.
        warn: is told of every checkpoint that cannot be used.

    Raises:
        CheckpointError: if a checkpoint is of another configuration.
    """
    if not directory.checkpoints.is_dir():
        return None
    like = federation.arrays(federation.init())
    with Checkpoints(directory.checkpoints, federation.config.keep_checkpoints) as kept:
        for round in kept.rounds():
            try:
                found = kept.read(round, like)
            except CheckpointError as error:
                warn(f"{error} The one before it is tried.")
                continue
            # As this version writes it: an earlier one may have had fewer settings.
            theirs = json.loads(RunConfig.from_json(found.notes["config"]).to_json())
            _require_same(theirs, json.loads(federation.config.to_json()), round)
            state = federation.place(round, found.arrays)
            if federation.digester()(state)[0] == found.notes["digest"]:
                return state
            warn(
                f"The checkpoint of round {round} in {directory.checkpoints} is "
                "damaged (its digest differs). The one before it is tried."
            )
    return None


# Settings that change no number of any round, or only how many rounds there are.
FREE = (
    "data_dir",
    "rounds",
    "schedule_rounds",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "digest_every",
    "devices",
    "client_store",
)


def may_differ(key: str, old: Any, new: Any) -> bool:
    """Whether a run may go on with another value of a setting."""
    if key == "client_store" and "disk" in (old, new):
        return old == new  # a checkpoint of files does not suit another store
    return key in FREE or old == new


def _require_same(theirs: dict[str, Any], ours: dict[str, Any], round: int) -> None:
    keys = [
        key
        for key in dict.fromkeys([*theirs, *ours])
        if not may_differ(key, theirs.get(key), ours.get(key))
    ]
    if keys:
        listed = "; ".join(f"{k}: {theirs.get(k)!r} -> {ours.get(k)!r}" for k in keys)
        raise CheckpointError(
            f"The checkpoint of round {round} was made under another configuration "
            f"({listed}). Restore config.json, or begin a new run."
        )


class _Recorder:
    """Writes what a run's rounds yield."""

    def __init__(
        self, federation: Federation, directory: RunDirectory, kept: Checkpoints
    ) -> None:
        self._federation, self._directory, self._kept = federation, directory, kept
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


def divergence(played: Played, round: int, config: Any = None) -> str | None:
    """Says which client's which network is no longer finite, or None.

    Participants that the server rejects (`server.reject_nonfinite`) are no
    divergence: they are counted in rounds.csv.
    """
    rejects = config is not None and config.server_options().get("reject_nonfinite")
    bad: list[tuple[str, str]] = []
    if not rejects:
        clients = played.reported
        bad = [
            (int(client), name)
            for name, finite in played.finite.items()
            for client in clients[~finite]
            if name != "upload"
        ]
        if not bad:
            losses = played.metrics["total"]
            bad = [(int(c), "loss") for c in clients[~np.isfinite(losses)]]
        if not bad:
            bad = [(int(c), "upload") for c in clients[~played.finite["upload"]]]
        bad = [(f"client {client}", name) for client, name in sorted(bad)]
    if not played.server_finite:
        bad.append(("the server", "state"))
    if not bad:
        return None
    listed = "; ".join(f"{owner}: {name}" for owner, name in bad[:10])
    more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
    return (
        f"Training diverged in round {round}: no longer finite are {listed}{more}. "
        f"The state after round {round - 1} is saved; lower --learning-rate or "
        "--clip-norm, or leave such clients out with --set "
        "server.reject_nonfinite=true."
    )
