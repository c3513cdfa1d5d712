"""Plays the runs of a comparison, those that differ in seed and rate together."""

import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedjax_mrl.cli import defects, signals, stored, telling

if TYPE_CHECKING:
    from fedjax_mrl.data.dataset import Dataset
    from fedjax_mrl.federation import Federation
    from fedjax_mrl.runs.comparison import Run
    from fedjax_mrl.runs.comparison_folder import Place
    from fedjax_mrl.runs.directory import RunDirectory
    from fedjax_mrl.simulation.state import State


class Trials:
    """Plays the runs of a comparison, an algorithm's trials together.

    Args:
        place: the runs and their folders.
        dataset: their images.
        together: how many trials are played at once; 0 is as many as fit.
        stop: says the number of the signal that asked to stop, or None.
        told: where rounds are told of.

    Attributes:
        ends: what became of each run, by path: "done" or a message.
        status: the greatest exit status of those that were played.
        noted: what the user was told of data and splits already.
    """

    def __init__(
        self,
        place: "Place",
        dataset: "Dataset",
        together: int,
        stop: signals.Stop,
        told: telling.Telling,
    ) -> None:
        self._place, self._dataset = place, dataset
        self._together, self._stop, self._told = together, stop, told
        self.ends: dict[pathlib.Path, str] = {}
        self.status = 0
        self.noted: set[str] = set()

    def play(self, runs: "list[Run]") -> None:
        """Plays all trials of one program that are not done; stops at a signal."""
        from fedjax_mrl.federation import Federation
        from fedjax_mrl.planning import plan
        from fedjax_mrl.runs import course

        waiting = []
        for run in runs:
            if course.finished(run):
                self._say(f"{self._label(run)}: already done")
                self.ends[run.path] = "done"
            else:
                waiting.append(run)
        federation = None  # compiled once for all trials
        while waiting and not self._stopped():
            batch = waiting
            try:
                if federation is None:
                    federation = Federation(batch[0].config, dataset=self._dataset)
                    self._note(federation.pieces.notes)
                size = self._together or plan.trials_that_fit(federation)
                batch = waiting[:size]
                if self._stopped():
                    return
                self._play_together(batch, federation)
            except ValueError as error:
                if not defects.foreseen(error):
                    raise
                self._end(batch, str(error), 2)
            waiting = waiting[len(batch) :]

    def _stopped(self) -> bool:
        """Whether a signal asked to stop; says so if no run was told to."""
        asked = self._stop()
        if asked is not None and self.status <= 128:
            self.status = 128 + asked
            print(
                "fedjax-mrl: Stopped between two runs; the same command goes on.",
                file=sys.stderr,
            )
        return self.status > 128

    def _play_together(self, runs: "list[Run]", federation: "Federation") -> None:
        """Plays trials of one federation at once."""
        from fedjax_mrl.cli import training
        from fedjax_mrl.runs.runner import Entry

        entries, opened = [], []
        for run in runs:
            trial = federation.with_trial(run.config.seed, run.config.learning_rate)
            try:
                directory, state = _open(
                    run, trial, overwrite=run.path in self._place.replaced
                )
            except ValueError as error:
                if not defects.foreseen(error):
                    raise
                self._end([run], str(error), 2)
            else:
                if state is not None:
                    text = f"going on after round {state.round} of {run.config.rounds}"
                    self._say(f"{self._label(run)}: {text}")
                opened.append(run)
                entries.append(Entry(trial, directory, state=state))
        if not entries:
            return
        last = f" to {runs[-1].path.name}" if len(runs) > 1 else ""
        ended = training.play_together(
            entries, f"{self._label(runs[0])}{last}", self._stop, self._told
        )
        for run, (status, message, outcome) in zip(opened, ended, strict=True):
            headline = outcome and outcome.summary["headline"]
            if headline:
                accuracy = f"{headline['head']} {headline['last']:.4f}"
                self._say(f"{self._label(run)}: {accuracy}")
            self._end([run], message or "done", status)

    def _end(self, runs: "list[Run]", text: str, status: int) -> None:
        """Notes what became of some runs, and says so if they are not done."""
        self.ends |= {run.path: text for run in runs}
        self.status = max(self.status, status)
        if text != "done":
            more = f" (and {len(runs) - 1} more)" if len(runs) > 1 else ""
            print(f"fedjax-mrl: {runs[0].path.name}{more}: {text}", file=sys.stderr)

    def _note(self, sentences: Sequence[str]) -> None:
        """Tells the user what was decided, each sentence once."""
        new = [text for text in sentences if text not in self.noted]
        self.noted.update(new)
        if not self._told.quiet:
            for text in new:
                print(f"fedjax-mrl: {text}", file=sys.stderr)

    def _label(self, run: "Run") -> str:
        runs = self._place.runs
        return f"[{runs.index(run) + 1}/{len(runs)}] {run.path.name}"

    def _say(self, text: str) -> None:
        if not self._told.quiet:
            print(text, flush=True)


def _open(
    run: "Run", federation: "Federation", *, overwrite: bool
) -> "tuple[RunDirectory, State | None]":
    """The run's directory, and the state to go on from if it was interrupted."""
    from fedjax_mrl.runs import course, resuming
    from fedjax_mrl.runs.directory import RunDirectory

    text = run.config.to_json()
    if not course.begun(run):
        return RunDirectory.create(run.path, config=text, overwrite=overwrite), None
    directory = RunDirectory(run.path)
    directory.lock()
    try:
        warn = lambda text: print(f"fedjax-mrl: {text}", file=sys.stderr)
        state = resuming.restore(federation, directory, warn)
        round = 0 if state is None else state.round
        if state is None and directory.rows("rounds.csv"):
            warn(f"{run.path.name}: {stored.NOTHING_SAVED}")
        elsewhere = stored.moved(directory, round)
        if elsewhere:
            warn(elsewhere)
        directory.cut(round, run.config.eval_every)
    except BaseException:
        directory.unlock()
        raise
    return directory, state
