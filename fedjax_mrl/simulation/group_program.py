"""The compiled programs of one group, which let its members visit a round.

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

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh

from fedjax_mrl import rng, sharding, tree
from fedjax_mrl.ops import backend
from fedjax_mrl.protocol import Algorithm, Examples, Tree, Visit
from fedjax_mrl.simulation import batches, mapping, visit
from fedjax_mrl.simulation.dealing import Dealer, Members, Wave
from fedjax_mrl.simulation.population import Group, Population
from fedjax_mrl.simulation.settings import Settings
from fedjax_mrl.simulation.visit import Report


class TrialInputs(NamedTuple):
    """The inputs that all members of a trial have in common, for J trials."""

    broadcast: Tree  # [J, ...]
    round: np.ndarray  # [J] int32, counted from 1
    key: np.ndarray  # [J, 2] uint32
    learning_rate: np.ndarray | None  # [J]; None is the optimizer's own


def capacity(members: float, devices: int, chunk: int = 1) -> int:
    """Places of a program on each device, for as many members as a usual cohort has.

    Two at least: alone in its array a member is compiled to other sums.
    """
    return max(2, -(-math.ceil(members / devices) // chunk) * chunk)


class GroupProgram:
    """A group's programs, compiled at their first call.

    Args:
        algorithm: what to run.
        group: the clients of one architecture.
        population: the whole federation; its examples are on the host or the devices.
        settings: how its programs are made.

    Attributes:
        group: whose programs they are.
        places: R, members that one call of a program has room for.
        chunk: members that are computed at once on a device.
        batch_size: B.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        group: Group,
        population: Population,
        settings: Settings,
    ) -> None:
        self.group, self.batch_size = group, settings.batch_size
        self._mesh = mesh = settings.mesh
        share = settings.cohort_size * group.clients.size / settings.num_clients
        # As wide as for one trial: the same program, so that each has its own bits.
        most = -(-min(group.clients.size, settings.cohort_size) // mesh.size)
        self.chunk = min(settings.chunk or math.ceil(share / mesh.size), most)
        self._examples = _labelled(group, population.examples, mesh)
        train = [population.train[client] for client in group.clients]
        holdout = [np.zeros(0, np.int32)] * len(train)
        if population.holdout:
            holdout = [population.holdout[client] for client in group.clients]
        largest = max(positions.size for positions in train)
        self._dealer = Dealer(
            clients=group.clients,
            mesh=mesh,
            capacity=capacity(settings.trials * share, mesh.size, self.chunk),
            max_steps=batches.num_steps(largest, self.batch_size, settings.epochs),
            batch_size=self.batch_size,
            sweep=batches.in_order(train, settings.sweep_batch_size),
            holdout=batches.in_order(holdout, settings.sweep_batch_size),
        )
        self.places = self._dealer.places
        client = algorithm.client(group.model)
        self._train: Any = _program(visit.train(client, settings), mesh, self.chunk)
        self._finish: Any = client.finish and _program(
            visit.finish(client), mesh, self.chunk, settings.keep_sound
        )

    @property
    def finishes(self) -> bool:
        """Whether members do something after the server's update."""
        return self._finish is not None

    def lower(self, pair: Tree, inputs: TrialInputs) -> jax.stages.Lowered:
        """The training program before it is compiled, for a plan.

        From shapes alone, so that the devices need not be here. The second of its
        outputs are the reports [R, ...].

        Args:
            pair: shapes of one member's private state and shared copy.
            inputs: as of `train`; shapes suffice.
        """
        mesh = self._mesh
        split, whole = sharding.over_clients(mesh), sharding.everywhere(mesh)
        stack = lambda s: jax.ShapeDtypeStruct((self.places, *s.shape), s.dtype)
        return self._train.lower(
            sharding.shapes(jax.tree.map(stack, pair), split),
            sharding.shapes(inputs, whole),
            sharding.shapes(self._examples, whole),
            self._dealer.shapes(),
        )

    def compile(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        """Compiles what `lower` gave; `train` uses it from then on.

        Raises:
            jax.errors.JaxRuntimeError: if the compiler refuses it, as that of a TPU
                does where the program needs more memory than the chip has.
        """
        self._train = lowered.compile()
        return self._train

    def waves(
        self,
        present: Sequence[tuple[int, int]],
        schedule: Callable[[int, int], np.ndarray],
        busy: np.ndarray,
    ) -> tuple[list[Wave], np.ndarray]:
        """Deals participants to the devices; see `Dealer.waves`."""
        return self._dealer.waves(present, schedule, busy)

    def train(
        self, pairs: Tree, inputs: TrialInputs, members: Members
    ) -> tuple[Tree, Report]:
        """Trains the members.

        Args:
            pairs: private states and shared copies [R, ...]; consumed.
            inputs: of all trials.
            members: who they are, as `waves` laid them out.

        Returns:
            The pairs after it, and the reports [R, ...].
        """
        return self._train(pairs, inputs, self._examples, members)

    def finish(
        self, states: Tree, inputs: TrialInputs, members: Members, sound: jax.Array
    ) -> Tree:
        """Lets the members work with the server's new broadcast: states [R, ...].

        Those whose visit was rejected, as `sound` [R] of the reports says, do nothing.
        """
        members = members._replace(sound=sound)
        return self._finish(states, inputs, self._examples, members)[0]


def _labelled(group: Group, examples: Examples, mesh: Mesh) -> Examples:
    """The examples as the group's task labels them, on every device.

    Shapes stay as they are, which no task changes.
    """
    if isinstance(examples.y, jax.ShapeDtypeStruct):
        return examples
    return jax.device_put(group.relabel(examples), sharding.everywhere(mesh))


def _program(visit_once: Callable, mesh: Mesh, chunk: int, keeps: bool = False):
    """Runs `visit_once` for every member, on the device that has it.

    With `keeps` a member that is not sound keeps its state.
    """

    def on_device(states, inputs, examples, members):
        def visit_of(state, member):
            id_, trial, train, sweep, holdout, sound = member
            broadcast, round, key, rate = jax.tree.map(
                lambda leaf: lax.dynamic_index_in_dim(leaf, trial, keepdims=False),
                inputs,
            )
            inside = Visit(examples, train, sweep, holdout, round, rate)
            key = jax.random.fold_in(rng.wrap(key), id_)
            after, output = visit_once(broadcast, state, inside, key)
            return (tree.where(sound, after, state) if keeps else after), output

        count = members.count[0]
        return mapping.over_members(visit_of, states, members[:-1], count, chunk)

    split, whole = sharding.OVER_CLIENTS, sharding.EVERYWHERE
    mapped = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(split, whole, whole, split),
        out_specs=(split, split),
        check_vma=False,  # nothing is exchanged inside
    )
    options = backend.compiling(mesh.devices.flat[0].platform)
    return jax.jit(mapped, donate_argnums=0, compiler_options=options)
