"""Builds a federation from a configuration: the pure pieces, ready to be called.

The command line and notebooks share this. Nothing here writes files or prints.
"""

import copy
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl import (
    bar,
    engines,
    from_config,
    numerics,
    paths,
    pieces,
    sharding,
    stores,
)
from fedjax_mrl.config import RunConfig
from fedjax_mrl.data import own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.history import History
from fedjax_mrl.partitions import Partition
from fedjax_mrl.protocol import Algorithm, Examples, Setup
from fedjax_mrl.results import Result
from fedjax_mrl.runs import saving
from fedjax_mrl.simulation import (
    divergence,
    evaluation,
    initialization,
    prediction,
    rounds,
)
from fedjax_mrl.simulation.cohorts import Sampler, Trial
from fedjax_mrl.simulation.digest import Digester
from fedjax_mrl.simulation.phases import Pieces
from fedjax_mrl.simulation.population import Group, Population
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.state import Played, State, read_clients, require_live
from fedjax_mrl.simulation.strategies import Strategy
from fedjax_mrl.values import Values, take


class Federation:
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
        dataset: a name, the path of an npz file, or data as `fm.arrays` makes them,
            whose name the configuration takes over.
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

    @numerics.fixed()
    def __init__(
        self,
        config: RunConfig | None = None,
        *,
        client_folder: str | os.PathLike | None = None,
        values: Values | None = None,
        **options: Any,
    ) -> None:
        named, given = take(options)
        self.values = given if values is None else values.under(given)
        self.config = config = _config(config, named)
        if client_folder is not None:
            client_folder = paths.local(client_folder, "client_folder")
        self._client_folder = client_folder
        self.pieces = pieces.resolve(config, self.values)
        self.trial = Trial(config.seed, config.learning_rate)
        self.mesh = sharding.mesh(config.devices)
        self.store = stores.make(config.client_store, self.mesh, client_folder)
        data = self.dataset
        self.examples = jax.device_put(
            _examples(data.x_train, data.y_train), sharding.everywhere(self.mesh)
        )
        evaluate = evaluation.make(
            self.algorithm,
            self.groups,
            evaluation.EvaluationSet(
                _examples(data.x_test, data.y_test),
                self.partition.test,
                self.setup.prepare.test,
            ),
            chunks=self.round_config.chunks,
            store=self.store,
        )
        init = initialization.make_init(
            self.algorithm, self.groups, self.round_config, self.store
        )
        self._compiled: dict[int | str, Any] = {"init": init, "evaluate": evaluate}
        self.state: State | None = None
        self.history = self._no_history()
        self.keeps: object = None  # something that lasts as long as this, as a folder
        self._player(1)

    @property
    def dataset(self) -> Dataset:
        """The data."""
        return self.pieces.dataset

    @property
    def partition(self) -> Partition:
        """Positions of every client's examples."""
        return self.pieces.partition

    @property
    def train(self) -> list[np.ndarray]:
        """Positions of the examples that each client trains on."""
        return self.pieces.train

    @property
    def holdout(self) -> list[np.ndarray]:
        """Positions of those that it keeps out of training."""
        return self.pieces.holdout

    @property
    def groups(self) -> list[Group]:
        """The clients by architecture."""
        return self.pieces.groups

    @property
    def algorithm(self) -> Algorithm:
        """The method, built."""
        return self.pieces.algorithm

    @property
    def setup(self) -> Setup:
        """What the method was built from."""
        return self.pieces.setup

    @property
    def strategies(self) -> Mapping[str, Strategy]:
        """How each group is computed."""
        return self.pieces.strategies

    @property
    def round_config(self) -> RoundConfig:
        """How rounds are played."""
        return self.pieces.round_config._replace(seed=self.config.seed)

    def with_settings(self, **changes: Any) -> "Federation":
        """The same values, data and split under other settings; compiled anew."""
        values = self.values._replace(dataset=self.dataset, partition=self.partition)
        config = dataclasses.replace(self.config, **changes)
        return Federation(config, values=values, client_folder=self._client_folder)

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

    def init(self) -> State:
        """The state before the first round."""
        seed = self.config.init_seed
        with numerics.fixed(self.config.precision):
            return self._compiled["init"](self.config.seed if seed is None else seed)

    def play(self, state: State) -> tuple[State, Played]:
        """Plays one round; consumes the state."""
        (result,) = self.play_together([self.trial], [state])
        assert result is not None
        return result

    def play_together(
        self, trials: Sequence[Trial], states: Sequence[State | None]
    ) -> list[tuple[State, Played] | None]:
        """Plays one round of each trial of this federation, in the same programs.

        Args:
            trials: J, the `trial` of this federation under other seeds or rates.
            states: theirs, which are consumed; None leaves a trial out.

        Returns:
            What `play` would return for each by itself; None for those left out.
        """
        play = self._player(len(trials))
        trials = [
            trial if state is None else self.trial_in_round(trial, state.round + 1)
            for trial, state in zip(trials, states, strict=True)
        ]
        with numerics.fixed(self.config.precision):
            return play(trials, states)

    @property
    def population(self) -> Population:
        """All clients and the examples they train on."""
        return Population(self.groups, self.examples, self.train, self.holdout)

    def trial_in_round(self, trial: Trial, round: int) -> Trial:
        """The trial with its learning rate of a round, which the programs are given."""
        if trial.learning_rate is None:
            return trial
        return trial._replace(
            learning_rate=trial.learning_rate * self.pieces.decay(round)
        )

    def _player(self, trials: int) -> Callable:
        """The programs for so many trials, made once."""
        if trials not in self._compiled:
            self._compiled[trials] = rounds.player_of(self._assembled(trials))
        return self._compiled[trials]

    def _assembled(self, trials: int) -> Pieces:
        """The pieces that so many trials are played with, made once."""
        key = f"pieces for {trials}"
        if key not in self._compiled:
            sampler = Sampler(self.train, self.round_config)
            self._compiled[key] = rounds.assemble(
                self.algorithm,
                self.population,
                self.round_config,
                self.store,
                sampler,
                trials,
            )
        return self._compiled[key]

    def client(self, number: int) -> engines.ClientEngine:
        """One client by itself, for an engine that carries messages.

        Args:
            number: of the client.

        Raises:
            ValueError: if there is no such client.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5,
            ...     participation=0.4, rounds=1,
            ... )
            >>> server, clients = federation.server(), {}
            >>> state = server.init()
            >>> reports = {}
            >>> for number in server.sample(round=1):
            ...     client = federation.client(number)
            ...     clients[number], reports[number] = client.update(
            ...         server.broadcast(state), client.init(), round=1
            ...     )
            >>> state = server.update(state, reports, round=1)
            >>> len(clients), sorted(fm.pack(state))[:2]
            (2, ['extractor/fc1/bias', 'extractor/fc1/kernel'])
        """
        number = prediction.require_client(number, self.config.num_clients)
        return engines.ClientEngine(self, self._assembled(1), number)

    def server(self) -> engines.ServerEngine:
        """The server by itself; see `client`."""
        return engines.ServerEngine(self, self._assembled(1))

    def ask(
        self, group: Group, networks: tuple[Any, Any], x: ArrayLike, head: str | None
    ) -> np.ndarray:
        """Logits of new examples from networks that are given.

        Args:
            group: of the client.
            networks: its private state, and a shared part.
            x: as of `predict`.
            head: likewise.
        """
        head = self.algorithm.heads[0] if head is None else head
        prediction.require_known("head", head, self.algorithm.heads)
        x, single = own.like(
            self.dataset, x, from_config.augmentation(self.config, self.dataset)
        )
        key = f"ask {group.name}"
        if key not in self._compiled:
            self._compiled[key] = prediction.program(
                self.algorithm, group, self.setup.prepare.test
            )
        private, shared = networks
        ask = functools.partial(self._compiled[key], shared, private, head=head)
        with numerics.fixed(self.config.precision):
            logits = prediction.in_blocks(ask, x)
        return logits[0] if single else logits

    def evaluate(self, state: State | None = None) -> evaluation.Scores:
        """Scores of all clients, all heads, both points.

        Args:
            state: of which; by default the newest one (`self.state`).
        """
        state = self._given(state)
        with numerics.fixed(self.config.precision):
            return self._compiled["evaluate"](state)

    def predict(
        self,
        x: ArrayLike,
        client: int | None = None,
        *,
        head: str | None = None,
        state: State | None = None,
        point: str = "local",
    ) -> np.ndarray:
        """What a trained client says of new images.

        Args:
            x: images like the training images, as they are stored and not normalised:
                [B, H, W, C], or one [H, W, C]. Grey ones may lack C.
            client: its number; None asks all clients.
            head: the inference mode; by default the headline's, the first of
                `algorithm.heads`.
            state: of which round; by default the newest one (`self.state`).
            point: "local", with the shared part as the client last held it, or
                "global", with the newest aggregate.

        Returns:
            Logits [B, L], for all clients [N, B, L]; without B for one image. The
            class is the `argmax` over the last axis, and `jax.nn.softmax` makes
            probabilities.

        Raises:
            ValueError: for images of another shape or type, and for a client, head or
                point that there is not.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=1
            ... )
            >>> results = list(federation.rounds())
            >>> federation.predict(federation.dataset.x_test[:7], client=3).shape
            (7, 10)
            >>> federation.predict(federation.dataset.x_test[0]).shape
            (5, 10)
        """
        state = self._given(state)
        x, single = own.like(
            self.dataset, x, from_config.augmentation(self.config, self.dataset)
        )
        if "predict" not in self._compiled:
            self._compiled["predict"] = prediction.make(
                self.algorithm, self.groups, self.setup.prepare.test, self.store
            )
        with numerics.fixed(self.config.precision):
            found = self._compiled["predict"](state, x, client, head, point)
        return found[..., 0, :] if single else found

    def _given(self, state: State | None) -> State:
        """The state, or the newest one."""
        state = self.state if state is None else state
        if state is None:
            raise ValueError(
                "There is no state yet that a round was played to: loop over rounds(), "
                "or give one, as state=federation.init()."
            )
        return state

    def networks(self, client: int, *, state: State | None = None) -> dict[str, Any]:
        """The parameters that a client holds, as pytrees on the host.

        Args:
            client: its number.
            state: of which round; by default the newest one (`self.state`).

        Returns:
            "shared": what travels, as the client last held it; and every part of its
            private state by name, such as "private" and "projector".

        Raises:
            ValueError: for a client that there is not.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=1
            ... )
            >>> _ = federation.fit()
            >>> networks = federation.networks(client=3)
            >>> sorted(networks)
            ['private', 'projector', 'shared']
            >>> networks["projector"]["kernel"].shape
            (600, 500)
        """
        state = self._given(state)
        require_live(state)
        number = prediction.require_client(client, self.config.num_clients)
        some = np.array([number])
        read = read_clients(state, self.groups, some, self.store)
        private, shared = read[number]
        named = private._asdict() if hasattr(private, "_asdict") else {"state": private}
        return {"shared": shared, **named}

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

    def digester(self) -> Digester:
        """A digester of this federation's states."""
        return Digester(self.groups, self.store, alike=self.config.same_start)

    def arrays(self, state: State) -> dict[str, Any]:
        """The state on the host, the same whatever devices and store: a checkpoint's.

        (Of a store on the disk, the versions of its files.) Nothing in it is shared
        with the state, which may be consumed meanwhile.
        """
        require_live(state)
        # Apart, as in every checkpoint that was ever written.
        apart = {
            name: {
                group.name: self.store.save(
                    state.clients[group.name][place], group.clients.size, state.round
                )
                for group in self.groups
            }
            for place, name in enumerate(("clients", "copies"))
        }
        return {"server": jax.tree.map(np.array, jax.device_get(state.server)), **apart}

    @numerics.fixed()
    def place(self, round: int, arrays: dict[str, Any]) -> State:
        """The state that `arrays` was made of."""
        clients = {
            name: self.store.restore(
                (arrays["clients"][name], arrays["copies"][name]), created
            )
            for name, created in self.init().clients.items()
        }
        server = jax.device_put(arrays["server"], sharding.everywhere(self.mesh))
        return State(round, server, clients)

    def forget(self, state: State, saved: list[int]) -> None:
        """Says of which rounds there are checkpoints; files of others may go."""
        for group in self.groups:
            self.store.prune(state.clients[group.name], saved)

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
            started = time.perf_counter()
            state, played = self.play(state)
            yield self.accept(state, played, until, started)

    def accept(
        self, state: State, played: Played, until: int, started: float
    ) -> Result:
        """Takes a played round for the newest one: evaluates if due, notes it.

        Args:
            state: after the round.
            played: what it reports.
            until: the last round that will be played.
            started: when it began, by `time.perf_counter`.

        Raises:
            Diverged: if a network or a loss became non-finite.
        """
        played = played.fetch()
        problem = divergence.describe(played, state.round, self.config)
        if problem is not None:
            self.state = None
            raise divergence.Diverged(
                f"{problem} Give a lower learning_rate or clip_norm, or leave such "
                'clients out with set={"server.reject_nonfinite": True}; '
                f"rounds(until={state.round - 1}) plays up to the last good state."
            )
        self.state = state
        result = self.result(state, played, until)
        self.history.append(result, time.perf_counter() - started)
        return result

    def fit(
        self, rounds: int | None = None, *, progress: bool | None = None
    ) -> History:
        """Trains: plays rounds from the newest state on.

        Args:
            rounds: how many; by default those that the configuration's are still
                ahead. With a number training goes on past them.
            progress: whether to show a progress bar; by default on a terminal and in a
                notebook.

        Returns:
            `history`, with all rounds up to now.

        Raises:
            Diverged: as `rounds`.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=3
            ... )
            >>> len(federation.fit(rounds=1)), len(federation.fit())
            (1, 3)
        """
        start = 0 if self.state is None else self.state.round
        until = self.config.rounds if rounds is None else start + rounds
        with bar.Bar(until - start, progress) as shown:
            for result in self.rounds(until=until):
                shown.show(result)
        return self.history

    def _no_history(self) -> History:
        sizes = [part.size for part in self.train]
        return History(self.groups, self.algorithm.heads, sizes, self.flops)

    def result(self, state: State, played: Played, until: int | None = None) -> Result:
        """What `rounds` yields of a round that was played; evaluates if it is due."""
        until = self.config.rounds if until is None else until
        due = state.round % self.config.eval_every == 0 or state.round == until
        scores = self.evaluate(state) if due else None
        return Result(state, played.fetch(), scores)

    def __repr__(self) -> str:
        config, played = self.config, 0 if self.state is None else self.state.round
        models = ", ".join(
            f"{group.clients.size} x {group.name}" for group in self.groups
        )
        return (
            f"Federation({config.title}: {config.num_clients} clients ({models}), "
            f"{config.cohort_size} a round; {played} of {config.rounds} rounds played)"
        )

    @numerics.fixed()
    def flops(self) -> np.ndarray:
        """FLOPs of every client's visit [N], see `from_config.visit_flops`."""
        return from_config.visit_flops(
            self.dataset, *self.pieces.lowered("im2col"), self.train, self.round_config
        )


def _config(config: RunConfig | None, options: dict[str, Any]) -> RunConfig:
    from fedjax_mrl import config as configs

    known = {} if config is None else vars(config)
    return configs.build(known, options)


def _examples(x: np.ndarray, y: np.ndarray) -> Examples:
    return Examples(np.asarray(x), np.asarray(y, np.int32))
