"""The one object that a notebook needs, and of which the command line is a user."""

import copy
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl import (
    bar,
    costs,
    engines,
    personalizing,
    references,
)
from fedjax_mrl import config as configs
from fedjax_mrl.building.values import Values, take
from fedjax_mrl.config import RunConfig
from fedjax_mrl.exporting import description, writing
from fedjax_mrl.history import History
from fedjax_mrl.programs import Programs
from fedjax_mrl.results import Result, Row
from fedjax_mrl.runs import pictures, saving, summary
from fedjax_mrl.runs import writers as runs_writers
from fedjax_mrl.runs.writers import Writer, Writers
from fedjax_mrl.simulation import (
    divergence,
    evaluation,
    prediction,
)
from fedjax_mrl.simulation.cohorts import Trial
from fedjax_mrl.simulation.state import Played, State, read_clients, require_live
from fedjax_mrl.stopwatch import Lap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Federation(Programs):
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
        self.state: State | None = None
        self.history = self._no_history()
        self.keeps: object = None  # something that lasts as long as this, as a folder

    def with_settings(self, **changes: Any) -> "Federation":
        """The same values, data and split under other settings; compiled anew."""
        values = self.values._replace(dataset=self.dataset, partition=self.partition)
        config = configs.build(vars(self.config), changes)
        return Federation(config, values=values, client_folder=self.client_folder)

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
        number = prediction.require_client(number, self._taking_part(number))
        return engines.ClientEngine(self, self._assembled(1), number)

    def server(self) -> engines.ServerEngine:
        """The server by itself; see `client`."""
        return engines.ServerEngine(self, self._assembled(1))

    def evaluate(self, state: State | None = None) -> evaluation.Scores:
        """Scores of all clients, all heads, both points.

        Args:
            state: of which; by default the newest one (`self.state`).
        """
        return self.scores(self._given(state))

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
        self._taking_part(client)
        return self.logits(self._given(state), x, client, head, point)

    def _taking_part(self, client: Any) -> int:
        """How many clients take part; refuses one that is held out."""
        number = len(self.train)
        if isinstance(client, (int, np.integer)) and (
            number <= client < self.config.num_clients
        ):
            raise ValueError(
                f"client {client} is held out and takes part in no round; "
                f"personalize([{client}]) brings it in."
            )
        return number

    def _given(self, state: State | None) -> State:
        """The state, or the newest one."""
        state = self.state if state is None else state
        if state is None:
            raise ValueError(
                "There is no state yet that a round was played to: loop over rounds(), "
                "or give one, as state=federation.init()."
            )
        return state

    def personalize(
        self,
        clients: Sequence[int] | None = None,
        *,
        epochs: int = personalizing.EPOCHS,
        shared: str = "fine-tuned",
        learning_rate: float | None = None,
        data: Any = None,
        model: Any = None,
    ) -> personalizing.Personalized:
        """Brings clients in that never took part; changes nothing of the federation.

        Each begins with the newest broadcast and fresh private parts and trains by
        itself.

        Args:
            clients: numbers of clients that were held out (`held_out_clients`); by
                default all of them.
            epochs: passes over its data.
            shared: "fine-tuned", the client trains its copy of the shared part too, or
                "frozen", that stays bit for bit.
            learning_rate: of this training; by default the configuration's, without
                its decay.
            data: of one client from outside instead: four arrays (x, y, x_test,
                y_test), `fm.arrays(...)`, or the path of an npz file, all like the
                federation's. Labels are numbers of its classes; some may be missing.
            model: its architecture, as an entry of `models`; by default the one that
                is its turn.

        Returns:
            Accuracies before and after, and alone; and what the clients became.

        Raises:
            ValueError: if no round was played, for clients that took part, and for
                data or a model that do not fit.
            Diverged: if a network became non-finite.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5,
            ...     held_out_clients=1, rounds=1,
            ... )
            >>> _ = federation.fit()
            >>> come = federation.personalize(epochs=2, shared="frozen")
            >>> come.clients, list(come.rows()[0])[-4:]
            ((4,), ['before', 'after', 'alone', 'gain'])
        """
        asked = personalizing.Asked(clients, epochs, shared, learning_rate, data, model)
        state = self._given(None)
        return personalizing.play(self, state, personalizing.prepare(self, asked))

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
        number = prediction.require_client(client, self._taking_part(client))
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

    def export(
        self,
        path: str | os.PathLike,
        client: int,
        *,
        head: str | None = None,
        point: str = "local",
        formats: str | Iterable[str] | None = None,
        overwrite: bool = False,
    ) -> pathlib.Path:
        """Writes a client's personal model of the newest state; docs/export.md.

        Args:
            path: the folder, new or empty; `fm.load_model` reads it.
            client: its number.
            head: the inference mode, as of `predict`.
            point: likewise.
            formats: some of "jax", "safetensors" and "torch"; by default the first two.
            overwrite: replace the model that is there.

        Returns:
            The folder.

        Raises:
            ValueError: for what there is not, or cannot be exported.
            OSError: if it cannot be written; then nothing is.
        """
        self._given(None)
        choice = description.choose(self, client, head, point)
        return writing.export(self, path, choice, formats=formats, overwrite=overwrite)

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
        if rounds is not None and not (isinstance(rounds, int) and rounds >= 0):
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

    def plot_partition(self) -> "Figure":
        """Draws how many training examples of each class every client has.

        Returns:
            A matplotlib figure, which a notebook shows; `savefig(path)` writes it.
        """
        data = self.dataset
        return pictures.split(self.partition, data.y_train, data.label_names)

    def costs(
        self,
        targets: Sequence[float] = summary.TARGETS,
        *,
        bandwidth: tuple[float, float] | None = None,
        speed: float | Mapping[str, float] = 10.0,
    ) -> list[Row]:
        """Rounds, bytes, FLOPs and seconds until accuracies were first reached.

        Args:
            targets: mean accuracies of all clients, local, in the first head.
            bandwidth: Mbit/s of a client, down and up. With it `simulated_seconds` say
                how long the rounds would have taken on clients' own machines, where a
                round lasts until its slowest participant is done.
            speed: GFLOP/s that a client's device does in training; a dict gives those
                of each architecture.

        Returns:
            A row for each target that was reached: `target`, `rounds`, `bytes` (both
            ways, of all participants), `flops`, `seconds` as measured here, and with a
            bandwidth `simulated_seconds`.

        Raises:
            ValueError: for a bandwidth or speed that is not above zero, or an
                architecture that no client has.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=1
            ... )
            >>> history = federation.fit()
            >>> [row] = federation.costs([0.1], bandwidth=(20, 5), speed={"mlp": 2})
            >>> list(row)
            ['target', 'rounds', 'bytes', 'flops', 'seconds', 'simulated_seconds']
        """
        machines = None
        if bandwidth is not None:
            machines = costs.machines(bandwidth, speed, self.groups)
        rounds, metrics = (self.history.rows(name) for name in ("rounds", "metrics"))
        return costs.to_targets(
            self, rounds, metrics, targets=targets, machines=machines
        )

    def summary(self) -> Mapping[str, Any]:
        """What summary.json would say of the rounds that were played."""
        return summary.summarise(
            algorithm=references.short(self.config.algorithm),
            dataset=self.dataset.name,
            rounds=self.history.rows("rounds"),
            metrics=self.history.rows("metrics"),
            head=self.algorithm.heads[0],
        )

    def _no_history(self) -> History:
        sizes = [part.size for part in self.train]
        return History(self.groups, self.algorithm.heads, sizes, self.flops)

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
