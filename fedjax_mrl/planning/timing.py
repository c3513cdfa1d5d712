"""Times a few local steps of a group's training program."""

import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_mrl import numerics, rng, sharding
from fedjax_mrl.federation import Federation
from fedjax_mrl.simulation import batches
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


def program_of(
    federation: Federation, group: Group, config: RoundConfig
) -> GroupProgram:
    """A group's programs, as a round under `config` would make them."""
    batch_size = batches.fitting(config.batch_size, federation.train)
    settings = settings_of(
        config, federation.mesh, batch_size, len(federation.train), group.name
    )
    return GroupProgram(federation.algorithm, group, federation.population, settings)


def trial_inputs(broadcasts: Any) -> TrialInputs:
    """The inputs of a round of one trial, with broadcasts [1, ...]."""
    key = rng.data(rng.key(0, rng.Purpose.CLIENT_UPDATE, 1))
    rate = jax.dtypes.canonicalize_dtype(float).type(0)
    return TrialInputs(broadcasts, np.ones(1, np.int32), key[None], np.array([rate]))


def measure(
    federation: Federation,
    part: GroupProgram,
    held: Any,
    broadcast: Any,
    bound: float = math.inf,
) -> Pace:
    """Times visits of some of a group's clients.

    All devices work at the same time, as in a round. Weights are random numbers.

    Args:
        federation: what the clients are of.
        part: their programs, compiled here if they are not yet.
        held: shapes of one member's state and copy.
        broadcast: its shapes.
        bound: seconds of a step of one member; what turns out to be slower is timed
            only once.
    """
    mesh, chunk = federation.mesh, part.chunk
    batch = part.batch_size
    on_each = min(chunk, part.places // mesh.size)
    clients = np.resize(part.group.clients, on_each * mesh.size)
    draw = np.random.default_rng(0)

    def some(shape, lead=()):
        values = draw.normal(0, 0.05, shape.shape).astype(shape.dtype)
        return np.array(np.broadcast_to(values, (*lead, *shape.shape)))

    state = jax.device_put(
        jax.tree.map(lambda shape: some(shape, (part.places,)), held),
        sharding.over_clients(mesh),
    )
    broadcasts = jax.tree.map(lambda shape: some(shape, (1,)), broadcast)
    inputs = trial_inputs(jax.device_put(broadcasts, sharding.everywhere(mesh)))

    def seconds(steps):
        nonlocal state
        # Steps beyond a client's last minibatch take that one again.
        plan = lambda trial, client: _minibatch(federation.train[client], batch)
        present = [(0, int(client)) for client in clients]
        waves, _ = part.waves(present, plan, np.zeros(mesh.size))
        members = waves[0].members
        number = np.full(part.places, steps, np.int32)
        number = jax.device_put(number, sharding.over_clients(mesh))
        members = members._replace(train=members.train._replace(steps=number))
        jax.block_until_ready((state, members))
        start = time.perf_counter()
        state, _ = jax.block_until_ready(part.train(state, inputs, members))
        return time.perf_counter() - start

    with numerics.fixed(federation.config.precision):
        seconds(0)  # compiled
        first = seconds(_SHORT)  # pages are touched, caches filled
        if first / _SHORT / on_each > bound:
            return Pace(0.0, first / _SHORT, on_each)
        repeats = range(3 if first < 2 else 1)
        short = min(seconds(_SHORT) for _ in repeats)
        long = min(seconds(_LONG) for _ in repeats)
    step = max(0.0, long - short) / (_LONG - _SHORT)
    return Pace(max(0.0, short - _SHORT * step), step, on_each)


def _minibatch(examples: np.ndarray, batch: int) -> np.ndarray:
    """One minibatch [1, B] of a client's first examples; -1 for none."""
    index = np.full((1, batch), -1, np.int32)
    index[0, : examples.size] = examples[:batch]
    return index
