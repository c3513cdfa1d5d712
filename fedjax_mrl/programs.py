"""A federation's compiled programs, which take states in and give states out.

`Federation` is one of these that also remembers its newest state and its rounds.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl import numerics, paths, references, sharding, stores
from fedjax_mrl.building import from_config, pieces, splits, visit_flops
from fedjax_mrl.building.values import Values
from fedjax_mrl.config import RunConfig
from fedjax_mrl.data import images, own
from fedjax_mrl.protocol import Examples, Tree
from fedjax_mrl.simulation import (
    evaluation,
    initialization,
    prediction,
    rounds,
)
from fedjax_mrl.simulation.cohorts import Sampler, Trial
from fedjax_mrl.simulation.digest import Digester
from fedjax_mrl.simulation.phases import Pieces, Watch
from fedjax_mrl.simulation.population import Group, Population
from fedjax_mrl.simulation.state import Played, State, require_live
from fedjax_mrl.stopwatch import Stopwatch


class Programs(pieces.Resolved):
    """The pieces of a federation and the functions that are compiled of them.

    Args:
        config: what to run.
        values: what was given as a value.
        client_folder: where `client_store="disk"` keeps its files.

    Attributes:
        mesh: the devices.
        store: where states lie between rounds.
        stopwatch: how long the parts of rounds took.
        test: what clients are tested on, on the devices.
        trial: seed and learning rate, by which trials of one federation differ.
        client_folder: as given, whole.
        watch: is told of every group that trains, see `simulation.phases.train`; None
            by default, and then nothing is waited for.
        code_sha256: of the user's own code when this was built, by reference.

    The others are described at `Federation`.
    """

    @numerics.fixed()
    def __init__(
        self,
        config: RunConfig,
        values: Values,
        client_folder: str | os.PathLike | None,
    ) -> None:
        self.values = values
        if client_folder is not None:
            client_folder = paths.local(client_folder, "client_folder")
        self.client_folder = client_folder
        self.pieces = pieces.resolve(config, values)
        self.config = config = self.pieces.config
        self.code_sha256 = references.checksums(config.code)  # as it is now
        self.watch: Watch | None = None
        self.trial = Trial(config.seed, config.learning_rate)
        self.stopwatch = Stopwatch()
        self.mesh = sharding.mesh(config.devices)
        self.store = stores.make(config.client_store, self.mesh, client_folder)
        data = self.dataset
        platform = self.mesh.devices.flat[0].platform
        stored = lambda x, y: jax.device_put(
            stored_for(platform, x, y), sharding.everywhere(self.mesh)
        )
        self.examples = stored(data.x_train, data.y_train)
        self.test = evaluation.EvaluationSet(
            stored(data.x_test, data.y_test),
            self.partition.test[: config.num_training_clients],
            self.setup.prepare.test,
        )
        evaluate = evaluation.make(
            self.algorithm,
            self.groups,
            self.test,
            chunks=self.round_config.chunks,
            store=self.store,
        )
        init = initialization.make_init(
            self.algorithm, self.groups, self.round_config, self.store
        )
        self._compiled: dict[int | str, Any] = {"init": init, "evaluate": evaluate}
        self._player(1)

    @property
    def client_names(self) -> tuple[str, ...]:
        """The names of the clients by number, with the partition "natural"."""
        return splits.client_names(self.config, self.dataset)

    def init(self) -> State:
        """The state before the first round."""
        seed = self.config.init_seed
        with numerics.fixed(self.config.precision):
            return self._compiled["init"](self.config.seed if seed is None else seed)

    def play(self, state: State, *, timed: bool = False) -> tuple[State, Played]:
        """Plays one round; consumes the state. `timed` as of `play_together`."""
        (result,) = self.play_together([self.trial], [state], timed=timed)
        assert result is not None
        return result

    def play_together(
        self,
        trials: Sequence[Trial],
        states: Sequence[State | None],
        *,
        timed: bool = False,
    ) -> list[tuple[State, Played] | None]:
        """Plays one round of each trial of this federation, in the same programs.

        Args:
            trials: J, the `trial` of this federation under other seeds or rates.
            states: theirs, which are consumed; None leaves a trial out.
            timed: whether to wait for the parts of the round and to let `stopwatch`
                add them up.

        Returns:
            What `play` would return for each by itself; None for those left out.
        """
        play = self._player(len(trials))
        told = {}
        if timed:
            self.stopwatch.lap()
            told = {"reached": self.stopwatch.reached}
        trials = [
            trial if state is None else self.trial_in_round(trial, state.round + 1)
            for trial, state in zip(trials, states, strict=True)
        ]
        with numerics.fixed(self.config.precision):
            return play(trials, states, watch=self.watch, **told)

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

    def ask(
        self, group: Group, networks: tuple[Tree, Tree], x: ArrayLike, head: str | None
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

    def scores(
        self, state: State, done: Callable[[int], object] = lambda clients: None
    ) -> evaluation.Scores:
        """Tests all clients of a state, in all heads, at both points.

        `done` is told how many clients were tested, group by group.
        """
        with numerics.fixed(self.config.precision):
            return self._compiled["evaluate"](state, done)

    def logits(
        self,
        state: State,
        x: ArrayLike,
        client: int | None = None,
        head: str | None = None,
        point: str = "local",
    ) -> np.ndarray:
        """Logits of new examples by clients of a state; see `Federation.predict`."""
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

    def broadcast(self, state: State) -> Tree:
        """What the server of a state sends, on the host."""
        if "broadcast" not in self._compiled:
            self._compiled["broadcast"] = jax.jit(self.algorithm.server.broadcast)
        with numerics.fixed(self.config.precision):
            return jax.device_get(self._compiled["broadcast"](state.server))

    def digester(self) -> Digester:
        """A digester of this federation's states."""
        return Digester(self.groups, self.store, alike=self.config.same_start)

    def arrays(self, state: State) -> dict[str, Tree]:
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
    def place(self, round: int, arrays: dict[str, Tree]) -> State:
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

    @numerics.fixed()
    def flops(self) -> np.ndarray:
        """FLOPs of every client's visit [N], see `visit_flops`; counted once."""
        if "flops" not in self._compiled:
            lowered = self.pieces.assembler.lowered("im2col")
            self._compiled["flops"] = visit_flops.visit_flops(
                self.dataset, *lowered, self.train, self.round_config
            )
        return self._compiled["flops"]


def stored_for(platform: str, x: np.ndarray, y: np.ndarray) -> Examples:
    """Examples as the devices of a platform store them, still on the host."""
    return Examples(np.asarray(images.pack(x, platform)), np.asarray(y, np.int32))
