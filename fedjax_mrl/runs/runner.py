"""Runs a federation and writes its run directory. Files and clocks live here."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fedjax_mrl import partitions
from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import environment, events, pictures, tables, writers
from fedjax_mrl.runs.checkpoint import Checkpoints
from fedjax_mrl.runs.directory import Follower, RunDirectory
from fedjax_mrl.runs.recorder import Recorder, RoundReport
from fedjax_mrl.runs.summary import Summary
from fedjax_mrl.simulation.divergence import Diverged, describe
from fedjax_mrl.simulation.evaluation import Scores
from fedjax_mrl.simulation.state import Played, State

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation


class Interrupted(RuntimeError):
    """The run was asked to stop, and did, with a complete checkpoint."""

    def __init__(self, signal: int, round: int) -> None:
        super().__init__(f"Stopped after round {round}, which is saved.")
        self.signal = signal


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The summary of a finished run, and its last scores if it was evaluated."""

    summary: Summary
    scores: Scores | None


def prepare(federation: "Federation", run: RunDirectory, first: int = 1) -> None:
    """Writes everything that is known before the round `first`."""
    run.write_text("config.json", federation.config.to_json())
    sums = {
        "data_sha256": federation.dataset.sha256(),
        "code_sha256": federation.code_sha256,
    }
    environment.record(run, first, sums)
    if federation.values.tasks is not None:
        tasks = {
            str(name): [int(label) for label in labels]
            for name, labels in federation.values.tasks.items()
        }
        run.write_json("tasks.json", tasks)
    if isinstance(run, Follower):
        return
    partitions.save(
        run.path / "partition.npz", federation.partition, federation.client_names
    )
    if federation.client_names:
        names = (n.encode("utf-8", "replace") for n in federation.client_names)
        rows = enumerate(name.decode() for name in names)
        run.write_text("client_names.csv", tables.quoted(("client", "name"), rows))
    pictures.partition(
        run.path / "partition.png",
        federation.partition,
        federation.dataset.y_train,
        federation.dataset.label_names,
    )


def run(
    federation: "Federation",
    directory: RunDirectory,
    report: Callable[[RoundReport], None] = lambda row: None,
    *,
    stop: Callable[[], int | None] = lambda: None,
    state: State | None = None,
    told: writers.Writers | None = None,
) -> Outcome:
    """Plays all rounds and records each.

    Args:
        federation: what to run.
        directory: a run directory; `prepare` is called here.
        report: called after each round with its number, how many there will be, loss,
            accuracy (None if not evaluated) and seconds.
        stop: asked after each round; the number of a signal stops the run.
        state: where to go on from (`restore`); the tables end with its round.
        told: writers that are told of it too, beside that of TensorBoard.

    Raises:
        Diverged: after the last good state is saved.
        Interrupted: if asked to stop, after the state is saved.
        SaveError: if a checkpoint cannot be written; earlier ones are intact.
        OSError: if another file cannot be.
    """
    (end,) = run_together([Entry(federation, directory, report, state, told)], stop)
    if isinstance(end, Exception):
        raise end
    return end


class Entry(NamedTuple):
    """One of several runs that are played together; arguments as of `run`."""

    federation: "Federation"
    directory: RunDirectory
    report: Callable[[RoundReport], None] = lambda row: None
    state: State | None = None
    told: writers.Writers | None = None


class _Sent(NamedTuple):
    """A round of one run, and how many runs shared the time that it took."""

    state: State
    played: Played
    sharing: int


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
        For each run its outcome, or the error that `run` would have raised
        (`Diverged`, `Interrupted`, `OSError`). One that fails does not stop the others.
    """
    trials = [entry.federation.trial for entry in entries]
    ended: dict[int, Outcome | Exception] = {}
    states: list[State | None] = [None] * len(entries)
    with contextlib.ExitStack() as stack:
        courses = []
        for entry in entries:
            going = _course(entry, stop)
            courses.append(stack.enter_context(contextlib.closing(going)))
        outcomes: list[_Sent | None] = [None] * len(entries)
        while len(ended) < len(entries):
            for number, going in enumerate(courses):
                if number in ended:
                    continue
                try:
                    states[number] = going.send(outcomes[number])
                    continue
                except StopIteration as end:
                    ended[number] = end.value
                except (Diverged, Interrupted, OSError) as error:
                    ended[number] = error
                states[number] = None
            results = entries[0].federation.play_together(trials, states, timed=True)
            sharing = sum(state is not None for state in states)
            outcomes = [
                None if result is None else _Sent(*result, sharing)
                for result in results
            ]
    return [ended[number] for number in range(len(entries))]


def _course(
    entry: Entry, stop: Callable[[], int | None]
) -> Generator[State, _Sent | None, Outcome]:
    """Records one run while somebody else plays its rounds.

    A generator: it yields the state that the next round begins with, and is sent the
    round that was played from it. So whoever plays may play other runs at the same
    time.
    """
    federation, directory, report, state, _ = entry
    config = federation.config
    prepare(federation, directory, 1 if state is None else state.round + 1)
    if state is None:
        state = federation.init()
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(
            Checkpoints(directory.checkpoints, config.keep_checkpoints)
        )
        told = stack.enter_context(_writers(entry))
        if told:
            picture = (directory.path / "partition.png").read_bytes()
            name = directory.path.resolve().name
            told.begin(writers.start(federation, state.round, name, picture))
        recorder = Recorder(federation, directory, kept, told)
        recorder.start(state)
        started = federation.stopwatch.lap()
        while state.round < config.rounds:
            sent = yield state
            assert sent is not None, "only the first state is asked for"
            result = federation.result(sent.state, sent.played)
            state = result.state
            problem = divergence(result.played, state.round, config)
            if problem is not None:
                recorder.save_last_good(state.round - 1)
                raise Diverged(problem)
            asked = stop()
            row = recorder.record(result, started, sent.sharing)
            started = federation.stopwatch.lap()
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
        summary = recorder.summarise()
        told.end(summary)
    return Outcome(summary, recorder.scores)


def _writers(entry: Entry) -> writers.Writers:
    """The writers of a run: those given, and TensorBoard's if it is installed.

    A process that leaves writing to another one has none.
    """
    if isinstance(entry.directory, Follower):
        return writers.Writers()
    told = writers.Writers() if entry.told is None else entry.told
    if not events.available():
        return told
    return told.beside(events.TensorBoard(entry.directory.events))


def divergence(
    played: Played, round: int, config: RunConfig | None = None
) -> str | None:
    """Says which client's which network is no longer finite, and what to do, or None.

    Args:
        played: what the round reports, fetched.
        round: its number.
        config: of the run; None rejects nobody.
    """
    problem = describe(played, round, config)
    return problem and (
        f"{problem} The state after round {round - 1} is saved; lower --learning-rate "
        "or --clip-norm, or leave such clients out with --set "
        "server.reject_nonfinite=true."
    )
