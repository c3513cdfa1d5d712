"""One group's part of a round: its compiled programs and what they are called with.

Members are split over the devices of a mesh; on each device a loop runs over as many
as there are. A program has as many places as a usual cohort needs; a group that has
more members in some round is computed in several waves. Nothing crosses devices before
the uploads. Several trials, which differ in seed and learning rate, can be played at
once: their clients are members like any other, each with its own trial's broadcast,
keys and learning rate.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from fedjax_mrl import rng, sharding, tree
from fedjax_mrl.protocol import Algorithm, Batches, Client, Examples, Visit
from fedjax_mrl.simulation import batches, mapping
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.stores import PADDING_ROW


class Members(NamedTuple):
    """Some members of a group in one cohort, R places split over the devices."""

    ids: np.ndarray  # [R] uint32
    trial: np.ndarray  # [R] int32, whose member it is, below J
    train: Batches  # index [R, S, B], steps [R]
    sweep: Batches
    holdout: Batches
    sound: np.ndarray  # [R] bool; one that is not keeps its state when they finish
    count: np.ndarray  # [D] int32, members on each device; they come first


class Wave(NamedTuple):
    """Members that are computed by one call of a program."""

    present: list[tuple[int, int]]  # trial and client of each
    places: np.ndarray  # of each in [0, R)
    trial: np.ndarray  # [R] int32
    rows: np.ndarray  # [R] int32, of the trial's stacks; PADDING_ROW for nobody
    members: Members


class Common(NamedTuple):
    """What all members of a trial have in common; J trials."""

    broadcast: Any  # [J, ...]
    round: np.ndarray  # [J] int32, counted from 1
    key: np.ndarray  # [J, 2] uint32
    learning_rate: np.ndarray | None  # [J]; None is the optimizer's own


class Settings(NamedTuple):
    """What the programs of all groups have in common.

    Attributes:
        mesh: devices.
        batch_size: B.
        epochs: E.
        sweep_batch_size: of passes that train nothing.
        chunk: members computed at once on a device; 0 is those of a usual cohort.
        cohort_size: K.
        num_clients: N, of the federation.
        keep_sound: a member whose visit is not sound (`sound`) keeps its state.
        max_upload_norm: largest norm of a sound upload; 0 is no limit.
        trials: J, that can be played at once.
    """

    mesh: Mesh
    batch_size: int
    epochs: int
    sweep_batch_size: int
    chunk: int
    cohort_size: int
    num_clients: int
    keep_sound: bool
    max_upload_norm: float
    trials: int = 1


def capacity(members: float, devices: int, chunk: int = 1) -> int:
    """Places of a program on each device, for as many members as a usual cohort has.

    Two at least: alone in its array a member is compiled to other sums.
    """
    return max(2, -(-math.ceil(members / devices) // chunk) * chunk)


class Part:
    """A group's programs, compiled at their first call.

    Args:
        algorithm: what to run.
        group: the clients of one architecture.
        examples: the training images, on the host or on the devices.
        train: for each client of the federation, the positions it trains on.
        holdout: for each client, positions kept out of training.
        settings: see there.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        group: Group,
        examples: Examples,
        train: Sequence[np.ndarray],
        holdout: Sequence[np.ndarray],
        settings: Settings,
    ) -> None:
        self.group = group
        self._settings = settings
        devices = settings.mesh.size
        share = settings.cohort_size * group.clients.size / settings.num_clients
        # As wide as for one trial: the same program, so that each has its own bits.
        most = -(-min(group.clients.size, settings.cohort_size) // devices)
        self._chunk = chunk = min(settings.chunk or math.ceil(share / devices), most)
        self._capacity = capacity(settings.trials * share, devices, chunk)
        self.places = self._capacity * devices
        self._examples = jax.device_put(
            group.relabel(examples), sharding.everywhere(settings.mesh)
        )
        self._max_steps = batches.num_steps(
            max(train[c].size for c in group.clients),
            settings.batch_size,
            settings.epochs,
        )
        in_order = lambda parts: batches.in_order(
            [parts[c] for c in group.clients], settings.sweep_batch_size
        )
        self._tables = in_order(train), in_order(holdout)
        client = algorithm.client(group.model)
        self._step = _program(_train(client, settings), settings.mesh, chunk)
        self._finish = client.finish and _program(
            _finish(client), settings.mesh, chunk, settings.keep_sound
        )

    @property
    def chunk(self) -> int:
        """Members that are computed at once on a device."""
        return self._chunk

    @property
    def batch_size(self) -> int:
        """B, as its programs have it."""
        return self._settings.batch_size

    @property
    def finishes(self) -> bool:
        """Whether members do something after the server's update."""
        return self._finish is not None

    def compile(self, held: Any, common: Common) -> tuple[Any, Any]:
        """Compiles the training program before its first call, for a plan.

        Args:
            held: shapes of one member's state and copy.
            common: as `step`; shapes suffice.

        Returns:
            What the compiler says of its memory on each device, in bytes (None where
            it says nothing), and the shapes of the reports [R, ...].
        """
        mesh = self._settings.mesh
        split, whole = sharding.over_clients(mesh), sharding.everywhere(mesh)
        shape = jax.ShapeDtypeStruct
        stacked = lambda s: shape((self.places, *s.shape), s.dtype, sharding=split)
        waves, _ = self.waves([], lambda trial, client: [], np.zeros(mesh.size))
        (nobody,) = waves
        lowered = self._step.lower(
            jax.tree.map(stacked, held),
            jax.tree.map(lambda s: shape(s.shape, s.dtype, sharding=whole), common),
            self._examples,
            nobody.members,
        )
        self._step = lowered.compile()
        return self._step.memory_analysis(), lowered.out_info[1]

    def step(self, held: Any, common: Common, members: Members) -> tuple[Any, Any]:
        """Trains the members: (states, copies) [R, ...], and their reports [R, ...]."""
        return self._step(held, common, self._examples, members)

    def finish(
        self, held: Any, common: Common, members: Members, sound: jax.Array
    ) -> Any:
        """What members do with the server's new broadcast: states [R, ...].

        Those whose visit was rejected, as `sound` [R] of the reports says, do nothing.
        """
        members = members._replace(sound=sound)
        return self._finish(held, common, self._examples, members)[0]

    def waves(
        self,
        present: Sequence[tuple[int, int]],
        schedule: Callable[[int, int], np.ndarray],
        busy: np.ndarray,
    ) -> tuple[list[Wave], np.ndarray]:
        """Deals participants to devices.

        Args:
            present: trial and id of those of this group, in any order.
            schedule: trial, client -> its minibatches [S, B].
            busy: [D], local steps that each device has to do for other groups.

        Returns:
            Waves, at least one, and how busy devices are then.
        """
        plans = [schedule(trial, client) for trial, client in present]
        number = max(1, -(-len(present) // self.places))
        dealt, busy = sharding.assign(
            np.array([len(plan) for plan in plans]), busy, number * self._capacity
        )
        cut = [
            [own[i * self._capacity : (i + 1) * self._capacity] for own in dealt]
            for i in range(number)
        ]
        return [self._wave(present, plans, some) for some in cut], busy

    def _wave(
        self,
        present: Sequence[tuple[int, int]],
        plans: list[np.ndarray],
        dealt: list[np.ndarray],
    ) -> Wave:
        """The wave of those of `present` that `dealt` names by device."""
        settings, clients = self._settings, self.group.clients
        chosen = np.concatenate(dealt).astype(int).tolist()
        plans = [plans[i] for i in chosen]
        given = [present[i] for i in chosen]
        trials, ids_ = np.array(given, np.int32).reshape(-1, 2).T
        places = np.concatenate(
            [
                device * self._capacity + np.arange(own.size, dtype=np.int32)
                for device, own in enumerate(dealt)
            ]
        )
        rows = np.full(self.places, PADDING_ROW, np.int32)
        own_rows = np.searchsorted(clients, ids_).astype(np.int32)
        rows[places] = own_rows
        ids = np.zeros(self.places, np.uint32)
        ids[places] = ids_
        trial = np.zeros(self.places, np.int32)
        trial[places] = trials
        shape = (self.places, self._max_steps, settings.batch_size)
        index, steps = np.full(shape, -1, np.int32), np.zeros(self.places, np.int32)
        for place, plan in zip(places, plans, strict=True):
            index[place, : len(plan)], steps[place] = plan, len(plan)
        at = np.zeros(self.places, np.int32)
        at[places] = own_rows
        sweep, holdout = (
            Batches(table.index[at], table.steps[at]) for table in self._tables
        )
        count = np.array([own.size for own in dealt], np.int32)
        sound = np.ones(self.places, bool)
        train = Batches(index, steps)
        members = Members(ids, trial, train, sweep, holdout, sound, count)
        members = jax.device_put(members, sharding.over_clients(settings.mesh))
        return Wave(given, places, trial, rows, members)


def _program(one: Callable, mesh: Mesh, chunk: int, keeps: bool = False) -> Callable:
    """Runs `one` for every member, on the device that has it.

    With `keeps` a member that is not sound keeps its state.
    """

    def on_device(held, common, examples, members):
        def of(state, member):
            id_, trial, train, sweep, holdout, sound = member
            broadcast, round, key, rate = jax.tree.map(
                lambda leaf: lax.dynamic_index_in_dim(leaf, trial, keepdims=False),
                common,
            )
            visit = Visit(examples, train, sweep, holdout, round, rate)
            key = jax.random.fold_in(rng.wrap(key), id_)
            after, output = one(broadcast, state, visit, key)
            return (tree.where(sound, after, state) if keeps else after), output

        count = members.count[0]
        return mapping.over_members(of, held, members[:-1], count, chunk)

    split, whole = sharding.OVER_CLIENTS, sharding.EVERYWHERE
    mapped = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(split, whole, whole, split),
        out_specs=(split, split),
        check_vma=False,  # nothing is exchanged inside
    )
    return jax.jit(mapped, donate_argnums=0)


def _train(client: Client, settings: Settings) -> Callable:
    def one(broadcast, held, visit, key):
        state, copy = held
        out = client.update(broadcast, state, visit, key)
        # While tracing: an algorithm whose state changes its shapes is told so here.
        chex.assert_trees_all_equal_shapes_and_dtypes(out.state, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(out.shared, copy)
        steps = jnp.maximum(visit.train.steps, 1)
        finite = _finite({"shared": out.shared, "state": out.state})
        finite["upload"] = sound(out.upload, settings.max_upload_norm)
        good = jnp.stack(list(finite.values())).all()
        after = (out.state, out.shared)
        if settings.keep_sound:
            after = tree.where(good, after, (state, copy))
        sent = out.upload_bytes
        report = {
            "upload": out.upload,
            "metrics": {
                name: trace.sum() / steps.astype(trace.dtype)
                for name, trace in out.metrics.items()
            },
            "finite": finite,
            "sound": good,
            "bytes": jnp.float32(tree.num_bytes(out.upload)) if sent is None else sent,
        }
        return after, report

    return one


def _finish(client: Client) -> Callable:
    def one(broadcast, state, visit, key):
        return client.finish(broadcast, state, visit, key), ()

    return one


def sound(upload: Any, max_norm: float = 0.0) -> jax.Array:
    """Whether an upload is finite, and not absurdly large if there is a limit.

    Counts of examples are integers, of which neither is asked: a client is not odd
    because it has many examples.
    """
    square = tree.squared_norm(_floating(upload))
    good = jnp.isfinite(square)
    return good & (square <= max_norm**2) if max_norm else good


def _floating(value: Any) -> list[jax.Array]:
    return [
        leaf
        for leaf in jax.tree.leaves(value)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]


def _finite(held: dict[str, Any]) -> dict[str, jax.Array]:
    """Whether every number is finite: one flag for each part of each value."""
    flags = {}
    for name, value in held.items():
        named = hasattr(value, "_fields") and name == "state"
        for part, leaves in (value._asdict() if named else {name: value}).items():
            if _floating(leaves):
                # A sum of squares is finite unless a number is not (or is absurd).
                flags[part] = jnp.isfinite(tree.squared_norm(_floating(leaves)))
    return flags
