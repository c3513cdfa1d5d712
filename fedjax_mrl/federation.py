"""The one object that a notebook needs, and of which the command line is a user."""

import copy
import dataclasses
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from fedjax_mrl import bar
from fedjax_mrl import config as configs
from fedjax_mrl.building.values import Values, take
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.history import History
from fedjax_mrl.results import Result
from fedjax_mrl.runs import saving
from fedjax_mrl.runs import writers as runs_writers
from fedjax_mrl.runs.writers import Writer, Writers
from fedjax_mrl.simulation import divergence, prediction
from fedjax_mrl.simulation.cohorts import Trial
from fedjax_mrl.simulation.state import Played, State
from fedjax_mrl.stopwatch import Lap
from fedjax_mrl.trained import Trained

# What the data and their split follow from.
_OF_THE_DATA = {
    "dataset",
    "data_dir",
    "image_size",
    "limit_train",
    "limit_test",
    "test_fraction",
    "partition",
    "num_clients",
    "data_seed",
}


class Federation(Trained):
    """A federation, built: data, split, groups, algorithm and compiled functions.

    Every name may be a value instead.

    Args:
        config: what to run; keyword arguments make or change it.
        algorithm: a name, `FILE.py:NAME` or `package.module:NAME`, or a function of
            `fm.Setup` to an `fm.Algorithm`, whose keyword-only parameters are its
            hyper-parameters.
        models: names, such references, or networks as `fm.model` makes them and
            `models.own.architecture` lists them; client k gets entry k mod length.
        shared_model: the one that all share, likewise.
        dataset: a name, the path of an npz file or a folder (`datasets.FORMS`), or data
            as `fm.arrays` makes them, whose name the configuration takes over.
        partition: a text such as "class:2", or a split to use instead of making one:
            a pair (train, test), each a list or dict with the positions of every
            client's examples; one array as test is for all clients, and without test
            parts all have all test examples.
        tasks: for clients with tasks of their own on the same examples, name of the
            task -> a class of the task for each class of the data; client k has task
            k mod length.
        client_folder: where `client_store="disk"` keeps its files.
        **options: everything else of `RunConfig`.

    Attributes:
        config: `RunConfig`.
        values: what was given as a value.
        pieces: what the configuration was resolved to; `dataset`, `partition`,
            `train`, `holdout`, `groups`, `algorithm`, `setup`, `strategies` and
            `round_config` are its.
        examples: the training examples, on the devices.
        state: the newest state that `rounds` played or `load` read; None before.
        history: the rounds that `fit` or `rounds` played.

    Raises:
        ValueError: for anything in the configuration that cannot be run, before
            any training; also its subclasses `ConfigError`, `DatasetError` and
            `PartitionError`.

    Example:
        >>> import fedjax_mrl as fm
        >>> federation = fm.Federation(models=("mlp",), num_clients=5, rounds=2)
        >>> state = federation.init()
        >>> state, played = federation.play(state)
        >>> federation.evaluate(state).accuracy.shape  # point, head, client
        (2, 4, 5)
    """

    def __init__(
        self,
        config: RunConfig | None = None,
        *,
        client_folder: str | os.PathLike | None = None,
        values: Values | None = None,
        **options: Any,
    ) -> None:
        named, given = take(options)
        super().__init__(
            _config(config, named),
            given if values is None else values.under(given),
            client_folder,
        )
        self.state = None
        self.history = self._no_history()
        self.keeps: object = None  # something that lasts as long as this, as a folder

    def with_settings(self, **changes: Any) -> "Federation":
        """The same values, data and split under other settings; compiled anew.

        Raises:
            ConfigError: also for a setting of the data or their split.
        """
        config = configs.build(vars(self.config), changes)
        for name in _OF_THE_DATA & changes.keys():
            if getattr(config, name) != getattr(self.config, name):
                raise ConfigError(
                    f"with_settings keeps the data and their split, so that {name} "
                    f"cannot be changed; got {name}={changes[name]!r}. Build another "
                    "Federation with it."
                )
        values = self.values._replace(dataset=self.dataset, partition=self.partition)
        other = Federation(config, values=values, client_folder=self.client_folder)
        other.keeps = self.keeps
        return other

    def with_trial(
        self, seed: int | None = None, learning_rate: float | None = None
    ) -> "Federation":
        """The same under another training seed or learning rate; nothing is recompiled.

        Split and hold-out stay: they follow from the data seed.
        """
        other = copy.copy(self)
        other.state = None
        config = self.config
        other.config = config = dataclasses.replace(
            config,
            seed=config.seed if seed is None else seed,
            learning_rate=config.learning_rate
            if learning_rate is None
            else learning_rate,
        )
        other.history = other._no_history()
        other.trial = Trial(config.seed, config.learning_rate)
        return other

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Writes a run directory, as `fedjax-mrl run` does; `fm.load` reads it.

        Args:
            path: the folder.
            overwrite: replace the run that is there.

        Raises:
            ValueError: if no round was played, or the folder holds a run.
            OSError: if it cannot be written.

        Example:
            >>> import tempfile
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=1
            ... )
            >>> _ = federation.fit()
            >>> folder = tempfile.mkdtemp() + "/a"
            >>> federation.save(folder)
            >>> fm.load(folder).state.round
            1
        """
        saving.save(self, path, overwrite=overwrite)

    def rounds(
        self, state: State | None = None, until: int | None = None
    ) -> Iterator[Result]:
        """Plays rounds up to `until` (default: the configuration's).

        Goes on from the newest state (`state` of the federation), so that after a
        `break` the next loop continues; `rounds(federation.init())` begins anew.
        Results may be kept: their scores and reports stay, and of their states the
        newest one. The others are consumed by the next step.

        Args:
            state: where to begin; by default the newest one, or `init()` if no round
                was played.
            until: the number of the last round.

        Yields:
            A `Result` for each round.

        Raises:
            Diverged: instead of yielding a round in which a network or a loss became
                non-finite, unless the server rejects such clients
                (`server.reject_nonfinite`).
            ConsumedError: if another round was played from the state.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=2
            ... )
            >>> for result in federation.rounds():
            ...     print(result.state.round, result.scores.accuracy.shape)
            1 (2, 4, 5)
            2 (2, 4, 5)
            >>> federation.state.round
            2
        """
        if state is None:
            state = self.init() if self.state is None else self.state
        until = self.config.rounds if until is None else until
        while state.round < until:
            started = self.stopwatch.lap()
            state, played = self.play(state, timed=True)
            yield self.accept(state, played, until, started)

    def accept(self, state: State, played: Played, until: int, started: Lap) -> Result:
        """Takes a played round for the newest one: evaluates if due, notes it.

        Args:
            state: after the round.
            played: what it reports.
            until: the last round that will be played.
            started: when it began, by `stopwatch.lap`.

        Raises:
            Diverged: if a network or a loss became non-finite.
        """
        played = played.fetch()
        problem = divergence.describe(played, state.round, self.config)
        if problem is not None:
            self.state = None
            if self.dataset.kind == "tokens":
                most = int(self.dataset.x_train.max())
                problem += (
                    f" Tokens go up to {most}; more than an embedding has give NaN."
                )
            raise divergence.Diverged(
                f"{problem} Give a lower learning_rate or clip_norm, or leave such "
                'clients out with set={"server.reject_nonfinite": True}; '
                f"rounds(until={state.round - 1}) plays up to the last good state."
            )
        self.state = state
        result = self.result(state, played, until)
        self.history.append(result, self.stopwatch.since(started))
        return result

    def fit(
        self,
        rounds: int | None = None,
        *,
        progress: bool | None = None,
        writers: Sequence[Writer] = (),
    ) -> History:
        """Trains: plays rounds from the newest state on.

        Args:
            rounds: how many; by default those that the configuration's are still
                ahead. With a number training goes on past them.
            progress: whether to show a progress bar; by default on a terminal and in a
                notebook.
            writers: are told of every round, see `fm.Writer`; `fm.TensorBoard(folder)`
                is one.

        Returns:
            `history`, with all rounds up to now.

        Raises:
            ValueError: for a number of rounds or a writer that is none.
            Diverged: as `rounds`.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=3
            ... )
            >>> len(federation.fit(rounds=1)), len(federation.fit())
            (1, 3)
        """
        if rounds is not None and not (prediction.is_whole(rounds) and rounds >= 0):
            raise ValueError(f"rounds must be a whole number from 0; got {rounds!r}.")
        start = 0 if self.state is None else self.state.round
        until = self.config.rounds if rounds is None else start + rounds
        told = Writers(writers, lambda text: warnings.warn(text, stacklevel=5))
        with told, bar.Bar(until - start, progress) as shown:
            if told:
                told.begin(runs_writers.start(self, start))
            for result in self.rounds(until=until):
                shown.show(result)
                if told:
                    told.round(
                        result.state.round, runs_writers.values(*self.history.newest())
                    )
            if told:
                told.end(self.summary())
        return self.history

    def result(self, state: State, played: Played, until: int | None = None) -> Result:
        """What `rounds` yields of a round that was played; evaluates if it is due."""
        until = self.config.rounds if until is None else until
        due = state.round % self.config.eval_every == 0 or state.round == until
        self.stopwatch.lap()
        scores = self.evaluate(state) if due else None
        self.stopwatch.reached("evaluation", scores)
        return Result(state, played.fetch(), scores)

    def __repr__(self) -> str:
        config, played = self.config, 0 if self.state is None else self.state.round
        models = ", ".join(
            f"{group.clients.size} x {group.name}" for group in self.groups
        )
        held = config.held_out_clients
        return (
            f"Federation({config.title}: {config.num_training_clients} clients "
            f"({models}), {config.cohort_size} a round"
            + (f", {held} held out" if held else "")
            + f"; {played} of {config.rounds} rounds played)"
        )


def _config(config: RunConfig | None, options: dict[str, Any]) -> RunConfig:
    if not isinstance(config, RunConfig | None):
        raise ValueError(
            "The first argument is a RunConfig; name the others, as "
            f"Federation(algorithm='fedmrl'). Got {config!r}."
        )
    known = {} if config is None else vars(config)
    return configs.build(known, options)
