"""Builds a federation from a configuration: the pure pieces, ready to be called.

The command line and notebooks share this. Nothing here writes files or prints.
"""

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl import (
    datasets,
    discovery,
    from_config,
    models,
    numerics,
    paths,
    sharding,
    stores,
)
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data import own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.learning import schedules
from fedjax_mrl.ops import conv
from fedjax_mrl.protocol import Examples
from fedjax_mrl.simulation import (
    divergence,
    evaluation,
    initialization,
    population,
    prediction,
    rounds,
    strategies,
)
from fedjax_mrl.simulation.cohorts import Trial
from fedjax_mrl.simulation.digest import Digester
from fedjax_mrl.simulation.population import Population
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.state import Played, State, require_live

# Of matrix products, as of `jax.default_matmul_precision`.
PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32")


class Result(NamedTuple):
    """One round as `Federation.rounds` yields it."""

    state: State
    played: Played
    scores: evaluation.Scores | None  # None in rounds without evaluation


class Federation:
    """A federation, built: data, split, groups, algorithm and compiled functions.

    Args:
        config: what to run; keyword arguments make or change it.
        dataset: a name, or images to use instead of loading any (`arrays`), whose
            name the configuration takes over.
        partition: a text such as "class:2", or a split to use instead of making one:
            a pair (train, test), each a list or dict with the positions of every
            client's images; one array as test is for all clients, and without test
            parts all have all test images.
        client_folder: where `client_store="disk"` keeps its files.

    Attributes:
        config: `RunConfig`.
        strategies: how each architecture is computed.
        dataset: images and labels.
        examples: the training images, on the devices.
        partition: positions of every client's images.
        groups: clients by architecture.
        algorithm: the built `protocol.Algorithm`.
        state: the newest state that `rounds` played or `load` read; None before.

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
        dataset: Dataset | str | None = None,
        partition: Any = None,
        client_folder: str | os.PathLike | None = None,
        **options: Any,
    ) -> None:
        # Names are options like any other; values are used as they are.
        if isinstance(dataset, str):
            options["dataset"], dataset = dataset, None
        elif isinstance(dataset, Dataset):
            options["dataset"] = dataset.name
        if isinstance(partition, str):
            options["partition"], partition = partition, None
        self.config = config = _config(config, options)
        folder = client_folder
        if folder is not None:
            folder = paths.local(folder, "client_folder")
        conv.resolve(config.lowering)
        if config.precision not in PRECISIONS:
            raise ConfigError(
                discovery.unknown("precision", config.precision, PRECISIONS)
            )
        if config.cohort_size < 1:
            raise ConfigError(
                f"--participation {config.participation:g} of {config.num_clients} "
                "clients selects nobody; it must select at least one: raise it to "
                f"{1 / config.num_clients:g} or more."
            )
        names = list(dict.fromkeys((*config.models, config.shared_model)))
        for name in names:
            models.get(name)
        chosen = from_config.algorithm_options(config)
        server = from_config.server_options(config)
        if dataset is None:
            dataset = datasets.load(config.dataset, config.data_dir)
        self.dataset = from_config.data(config, dataset)
        self.partition = from_config.split(config, self.dataset, partition)
        found = strategies.parse(config.strategies, config.models)
        fallback = strategies.default(
            config.lowering, config.chunk, jax.default_backend()
        )
        self.strategies = {name: found.get(name, fallback) for name in config.models}
        self.setup = from_config.setup(config, self.dataset)
        self.algorithm = from_config.algorithm(
            config, self.dataset, self.strategies, chosen
        )
        self.groups = population.assign(
            config.num_clients,
            [
                from_config.model(
                    dataclasses.replace(config, lowering=self.strategies[n].lowering),
                    self.dataset,
                    n,
                    config.feature_dim,
                )
                for n in config.models
            ],
        )
        for group in self.groups:
            self.algorithm.client(group.model)  # refuses what cannot work
        self.train, self.holdout = from_config.hold_out(
            self.partition.train, self.algorithm.holdout, config.data_seed
        )
        self.trial = Trial(config.seed, config.learning_rate)
        self._decay = schedules.decay(config.learning_rate_decay, self.setup.num_rounds)
        chunks = {name: of.chunk for name, of in self.strategies.items()}
        self.mesh = sharding.mesh(config.devices)
        self.round_config = RoundConfig(
            seed=config.seed,
            init_seed=config.init_seed,
            cohort_size=config.cohort_size,
            epochs=config.epochs,
            batch_size=config.batch_size,
            chunk=fallback.chunk,
            chunks=chunks,
            same_start=config.same_start,
            client_store=config.client_store,
            dropout=config.dropout,
            straggler=config.straggler,
            **server,
        )
        self.store = stores.make(config.client_store, self.mesh, folder)
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
            chunks=chunks,
            store=self.store,
        )
        init = initialization.make_init(
            self.algorithm, self.groups, self.round_config, self.store
        )
        self._compiled = {"init": init, "evaluate": evaluate}
        self.state: State | None = None
        self.keeps: object = None  # something that lasts as long as this, as a folder
        self._player(1)

    def with_trial(
        self, seed: int | None = None, learning_rate: float | None = None
    ) -> "Federation":
        """The same under another training seed or learning rate; nothing is recompiled.

        Split and hold-out stay: they follow from the data seed.
        """
        other = copy.copy(self)
        other.state = None
        given = {"seed": seed, "learning_rate": learning_rate}
        given = {name: value for name, value in given.items() if value is not None}
        other.config = config = dataclasses.replace(self.config, **given)
        other.round_config = self.round_config._replace(seed=config.seed)
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
            trial if state is None else self._in_round(trial, state.round + 1)
            for trial, state in zip(trials, states, strict=True)
        ]
        with numerics.fixed(self.config.precision):
            return play(trials, states)

    @property
    def population(self) -> Population:
        """All clients and the examples they train on."""
        return Population(self.groups, self.examples, self.train, self.holdout)

    def _in_round(self, trial: Trial, round: int) -> Trial:
        """The trial with its learning rate of a round, which the programs are given."""
        if trial.learning_rate is None:
            return trial
        return trial._replace(learning_rate=trial.learning_rate * self._decay(round))

    def _player(self, trials: int) -> Callable:
        """The programs for so many trials, made once."""
        if trials not in self._compiled:
            self._compiled[trials] = rounds.player(
                self.algorithm,
                self.population,
                self.round_config,
                store=self.store,
                num_trials=trials,
            )
        return self._compiled[trials]

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
            state, played = self.play(state)
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
            yield self.result(state, played, until)

    def result(self, state: State, played: Played, until: int | None = None) -> Result:
        """What `rounds` yields of a round that was played; evaluates if it is due."""
        until = self.config.rounds if until is None else until
        due = state.round % self.config.eval_every == 0 or state.round == until
        scores = self.evaluate(state) if due else None
        return Result(state, played.fetch(), scores)

    @numerics.fixed()
    def flops(self) -> np.ndarray:
        """FLOPs of every client's visit [N], see `from_config.visit_flops`."""
        return from_config.visit_flops(
            self.config, self.dataset, self.groups, self.train, self.round_config
        )


def _config(config: RunConfig | None, options: dict[str, Any]) -> RunConfig:
    from fedjax_mrl import config as configs

    known = {} if config is None else vars(config)
    return configs.build(known, options)


def _examples(x: np.ndarray, y: np.ndarray) -> Examples:
    return Examples(np.asarray(x), np.asarray(y, np.int32))
