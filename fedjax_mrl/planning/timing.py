"""Times a few local steps of a group's training program."""

import math
import time
from typing import NamedTuple

import jax
import numpy as np

from fedjax_mrl import numerics, rng, sharding
from fedjax_mrl.planning.subject import Subject
from fedjax_mrl.protocol import Tree
from fedjax_mrl.simulation import batches
from fedjax_mrl.simulation.dealing import Members
from fedjax_mrl.simulation.group_program import GroupProgram, TrialInputs
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig, settings_of

_SHORT, _LONG = 2, 6  # local steps of the two visits that are timed


class Pace(NamedTuple):
    """How fast a group is computed.

    Attributes:
        once: seconds of a visit without its local steps.
        step: seconds of a local step of all members that are computed at once.
        together: how many these are.
    """

    once: float
    step: float
    together: int


def program_of(federation: Subject, group: Group, config: RoundConfig) -> GroupProgram:
    """A group's programs, as a round under `config` would make them."""
    batch_size = batches.fitting(config.batch_size, federation.train)
    settings = settings_of(
        config, federation.mesh, batch_size, len(federation.train), group.name
    )
    return GroupProgram(federation.algorithm, group, federation.population, settings)


def trial_inputs(broadcasts: Tree) -> TrialInputs:
    """The inputs of a round of one trial, with broadcasts [1, ...]."""
    key = rng.data(rng.key(0, rng.Purpose.CLIENT_UPDATE, 1))
    rate = jax.dtypes.canonicalize_dtype(float).type(0)
    return TrialInputs(broadcasts, np.ones(1, np.int32), key[None], np.array([rate]))


def measure(
    federation: Subject,
    program: GroupProgram,
    pair: Tree,
    broadcast: Tree,
    bound: float = math.inf,
) -> Pace:
    """Times visits of some of a group's clients.

    All devices work at the same time, as in a round. Weights are random numbers.

    Args:
        federation: whose clients they are.
        program: theirs, compiled here if it is not yet.
        pair: shapes of one member's private state and shared copy.
        broadcast: its shapes.
        bound: seconds of a step of one member; a program that turns out to be slower is
            timed only once.
    """
    with numerics.fixed(federation.config.precision):
        visits = _Visits(federation, program, pair, broadcast)
        together = visits.on_each
        visits.seconds(0)  # compiled
        first = visits.seconds(_SHORT)  # pages are touched, caches filled
        if first / _SHORT / together > bound:
            return Pace(0.0, first / _SHORT, together)
        repeats = range(3 if first < 2 else 1)
        short = min(visits.seconds(_SHORT) for _ in repeats)
        long = min(visits.seconds(_LONG) for _ in repeats)
    step = max(0.0, long - short) / (_LONG - _SHORT)
    return Pace(max(0.0, short - _SHORT * step), step, together)


class _Visits:
    """Visits of some of a group's clients, as many as a device computes at once.

    Args: as of `measure`.

    Attributes:
        on_each: clients on each device.
    """

    def __init__(
        self, federation: Subject, program: GroupProgram, pair: Tree, broadcast: Tree
    ) -> None:
        mesh = federation.mesh
        self._federation, self._program = federation, program
        self._split = sharding.over_clients(mesh)
        self.on_each = min(program.chunk, program.places // mesh.size)
        self._clients = np.resize(program.group.clients, self.on_each * mesh.size)
        draw = np.random.default_rng(0)

        def stack(shape, number):
            values = draw.normal(0, 0.05, shape.shape).astype(shape.dtype)
            return np.array(np.broadcast_to(values, (number, *shape.shape)))

        self._pairs = jax.device_put(
            jax.tree.map(lambda shape: stack(shape, program.places), pair), self._split
        )
        broadcasts = jax.tree.map(lambda shape: stack(shape, 1), broadcast)
        whole = sharding.everywhere(mesh)
        self._inputs = trial_inputs(jax.device_put(broadcasts, whole))

    def seconds(self, steps: int) -> float:
        """Lets all of them visit for so many local steps, and times it."""
        members = self._members(steps)
        jax.block_until_ready((self._pairs, members))
        start = time.perf_counter()
        trained = self._program.train(self._pairs, self._inputs, members)
        self._pairs, _ = jax.block_until_ready(trained)
        return time.perf_counter() - start

    def _members(self, steps: int) -> Members:
        program, train = self._program, self._federation.train
        # Steps beyond a client's last minibatch take that one again.
        schedule = lambda trial, client: _minibatch(train[client], program.batch_size)
        present = [(0, int(client)) for client in self._clients]
        idle = np.zeros(self._federation.mesh.size)
        waves, _ = program.waves(present, schedule, idle)
        members = waves[0].members
        number = np.full(program.places, steps, np.int32)
        number = jax.device_put(number, self._split)
        return members._replace(train=members.train._replace(steps=number))


def _minibatch(examples: np.ndarray, batch: int) -> np.ndarray:
    """One minibatch [1, B] of a client's first examples; -1 for none."""
    index = np.full((1, batch), -1, np.int32)
    index[0, : examples.size] = examples[:batch]
    return index
