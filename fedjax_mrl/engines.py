"""One client and the server by themselves, for engines that carry messages.

Arrays of the host go in and come out. What they compute are the programs of the
simulation, so that a loop over them gives its bits: the same digests.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl import numerics, packing, sharding
from fedjax_mrl.protocol import Examples, Tree
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation import faults, phases, prediction
from fedjax_mrl.simulation.cohorts import RoundPlan
from fedjax_mrl.simulation.group_program import TrialInputs
from fedjax_mrl.simulation.phases import Pieces
from fedjax_mrl.simulation.state import named, read_clients
from fedjax_mrl.simulation.visit import Report

if TYPE_CHECKING:
    from fedjax_mrl.trained import Trained


class ClientData(NamedTuple):
    """The examples of one client, as they are stored, in the classes of its task."""

    x_train: np.ndarray  # [n, ...]
    y_train: np.ndarray  # [n] int32
    x_test: np.ndarray  # [m, ...]
    y_test: np.ndarray  # [m] int32


class ClientEngine:
    """One client of a federation; `Federation.client` makes it.

    Its state is a pair: private networks, and the shared part as it last held it.
    Nothing is kept here: states go in and come out, as pytrees of NumPy arrays, which
    `fm.pack` names for storing. What travels are broadcasts and reports.

    Attributes:
        id: its number.
        architecture: the name of its model.
        num_train: how many examples it trains on.
    """

    def __init__(self, federation: "Trained", pieces: Pieces, client: int) -> None:
        self.id = client
        self._federation, self._pieces = federation, pieces
        self._program = next(p for p in pieces.programs if client in p.group.clients)
        self.architecture = self._program.group.name
        self.num_train = int(pieces.weights[client])

    def init(self) -> tuple[Tree, Tree]:
        """Returns the state before the first round: private networks, shared part."""
        built = self._federation
        some = np.array([self.id])
        return read_clients(built.init(), built.groups, some, built.store)[self.id]

    def from_networks(self, networks: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        """Returns the state that holds some networks, such as PyTorch's.

        Args:
            networks: by name, as `Federation.networks` returns a client's.

        Raises:
            ValueError: for networks of another structure or other shapes.
        """
        private, shared = self.init()
        like = named(private, shared)
        held = packing.unpack(packing.pack(dict(networks)), like)
        shared = held.pop("shared")
        if hasattr(private, "_asdict"):
            return type(private)(**held), shared
        return held["state"], shared

    def update(self, broadcast: Tree, state: Tree, round: int) -> tuple[Tree, Report]:
        """Trains in one round.

        Args:
            broadcast: what the server sends.
            state: the client's; stays as it is.
            round: counted from 1.

        Returns:
            The new state, and the report, whose `upload` is for the server.
        """
        plan = self._plan(round)
        wave, inputs = self._wave(plan), self._inputs(plan, broadcast)
        with numerics.fixed(self._federation.config.precision):
            after, reports = self._program.train(
                self._stack(state, wave), inputs, wave.members
            )
            place = int(wave.places[0])
            row = lambda leaf: np.array(leaf[place])
            return jax.tree.map(row, jax.device_get((after, reports)))

    def finish(
        self, broadcast: Tree, state: Tree, round: int, *, sound: bool = True
    ) -> Tree:
        """Does what a method asks of participants after the server's update.

        Args:
            broadcast: of the server's new state.
            state: as `update` returned it.
            round: the same.
            sound: whether the report was accepted (`Report.sound`).

        Returns:
            The new state; the same one where the method asks nothing.
        """
        if not self._program.finishes:
            return state
        plan = self._plan(round)
        wave = self._wave(plan)
        inputs = self._inputs(plan, broadcast, Purpose.CLIENT_FINISH)
        private, shared = state
        with numerics.fixed(self._federation.config.precision):
            done = self._program.finish(
                self._stack(private, wave),
                inputs,
                wave.members,
                self._stack(np.bool_(sound), wave),
            )
            place = int(wave.places[0])
            held = jax.device_get(done)
            return jax.tree.map(lambda leaf: np.array(leaf[place]), held), shared

    def predict(
        self, state: Tree, x: ArrayLike, *, head: str | None = None, shared: Tree = None
    ) -> np.ndarray:
        """Returns logits [B, L] of examples [B, ...] as they are stored.

        Args:
            state: the client's.
            x: examples, at least one.
            head: the inference mode; by default the headline's.
            shared: a broadcast to use instead of the shared part that it holds.

        Raises:
            ValueError: for examples or a head that do not fit.
        """
        private, held = state
        networks = private, held if shared is None else shared
        return self._federation.ask(self._program.group, networks, x, head)

    @property
    def data(self) -> ClientData:
        """The client's examples."""
        built, group = self._federation, self._program.group
        train = np.concatenate([built.train[self.id], built.holdout[self.id]])
        test = built.partition.test[self.id]
        data = built.dataset

        def labels(y: np.ndarray) -> np.ndarray:
            return np.asarray(group.relabel(Examples(x=y, y=y)).y)

        return ClientData(
            data.x_train[train],
            labels(data.y_train[train]),
            data.x_test[test],
            labels(data.y_test[test]),
        )

    def _plan(self, round: int) -> RoundPlan:
        """The round as if this client alone took part, with its own faults."""
        built, config = self._federation, self._federation.round_config
        trial = built.trial_in_round(built.trial, round)
        ids = np.array([self.id])
        share = faults.completed(
            trial.seed, round, ids, dropout=0.0, straggler=config.straggler
        )
        return RoundPlan(trial, round, ids, ids, share)

    def _wave(self, plan: RoundPlan) -> Tree:
        """The client in the first place that there is."""
        schedule = lambda trial, client: self._pieces.sampler.minibatches(plan, client)
        devices = np.zeros(self._pieces.store.mesh.size)
        (wave,), _ = self._program.waves([(0, self.id)], schedule, devices)
        return wave

    def _inputs(
        self, plan: RoundPlan, broadcast: Tree, purpose: Purpose = Purpose.CLIENT_UPDATE
    ) -> TrialInputs:
        one = jax.tree.map(lambda leaf: np.asarray(leaf)[None], broadcast)
        whole = sharding.everywhere(self._pieces.store.mesh)
        return phases.inputs_of(jax.device_put(one, whole), [plan], purpose)

    def _stack(self, value: Tree, wave: Tree) -> Tree:
        """Rows for all places of the program, with the client's at its own."""
        place, number = int(wave.places[0]), self._program.places

        def rows(leaf: ArrayLike) -> np.ndarray:
            leaf = np.asarray(leaf)
            padded = np.zeros((number, *leaf.shape), leaf.dtype)
            padded[place] = leaf
            return padded

        split = sharding.over_clients(self._pieces.store.mesh)
        return jax.device_put(jax.tree.map(rows, value), split)


class ServerEngine:
    """The server of a federation; `Federation.server` makes it.

    Its state goes in and comes out as a pytree of NumPy arrays.
    """

    def __init__(self, federation: "Trained", pieces: Pieces) -> None:
        self._federation, self._pieces = federation, pieces
        whole = sharding.everywhere(pieces.store.mesh)
        self._whole = whole
        self._broadcast = jax.jit(
            federation.algorithm.server.broadcast, out_shardings=whole
        )

    def init(self) -> Tree:
        """Returns the state before the first round."""
        return jax.tree.map(np.array, jax.device_get(self._federation.init().server))

    def sample(self, round: int) -> list[int]:
        """Returns the clients that report in a round, as the simulation draws them."""
        built = self._federation
        return self._pieces.sampler.plan(built.trial, round).reported.tolist()

    def broadcast(self, state: Tree) -> Tree:
        """Returns what every participant is sent."""
        with numerics.fixed(self._federation.config.precision):
            sent = self._broadcast(jax.device_put(state, self._whole))
            return jax.tree.map(np.array, jax.device_get(sent))

    def broadcast_bytes(self, state: Tree) -> int:
        """Returns how many bytes one broadcast is, as rounds.csv counts it."""
        with numerics.fixed(self._federation.config.precision):
            placed = jax.device_put(state, self._whole)
            return int(self._pieces.server.broadcast_bytes(placed))

    def update(self, state: Tree, reports: Mapping[int, Report], round: int) -> Tree:
        """Aggregates the reports of a round.

        Args:
            state: the server's; stays as it is.
            reports: by client, in any order, as `ClientEngine.update` returns them.
            round: counted from 1.

        Returns:
            The new state; the same one if nobody reports, save with differential
            privacy, where there is noise all the same.

        Raises:
            ValueError: for more reports than a cohort has, or one of a client that
                there is not.
        """
        size = self._pieces.cohort_size
        if len(reports) > size:
            raise ValueError(
                f"A round has at most {size} participants, participation of the "
                f"clients; got {len(reports)} reports. Raise participation."
            )
        if not reports and not self._pieces.server.always:
            return state
        number = len(self._pieces.weights)
        ids = sorted(prediction.require_client(client, number) for client in reports)
        weights = np.zeros(size, np.float32)
        weights[: len(ids)] = self._pieces.weights[ids]
        plan = self._pieces.sampler.plan(self._federation.trial, round)
        if ids:
            stack = lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves])
            stacked = jax.tree.map(stack, *(reports[client] for client in ids))
            gathered = self._gathered(stacked, weights[: len(ids)] > 0)
        else:
            gathered = self._no_reports(plan)
        with numerics.fixed(self._federation.config.precision):
            new, _, _ = self._pieces.server.step(
                jax.device_put(state, self._whole),
                gathered,
                weights,
                np.int32(round),
                *[plan.key(purpose) for purpose in self._pieces.server.purposes],
            )
            return jax.tree.map(np.array, jax.device_get(new))

    def _gathered(self, stacked: Report, counts: np.ndarray) -> Report:
        """The reports [K, ...], of those of as many as there are."""
        gatherer, places = self._pieces.server.gatherer, np.arange(counts.size)
        with numerics.fixed(self._federation.config.precision):
            return gatherer.done(gatherer.add(None, places, counts, stacked))

    def _no_reports(self, plan: RoundPlan) -> Report:
        """What is gathered in a round in which nobody reports: zeros [K, ...]."""
        nobody = plan._replace(reported=plan.reported[:0], share=plan.share[:0])
        state = self._federation.init()
        with numerics.fixed(self._federation.config.precision):
            return phases.train(self._pieces, [nobody], [state])[1][0]
