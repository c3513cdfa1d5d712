"""Deals participants to devices, and lays out what a program is called with."""

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import sharding
from fedjax_mrl.protocol import Array, Batches
from fedjax_mrl.stores import PADDING_ROW


class Members(NamedTuple):
    """Some members of a group in one cohort, R places split over the devices."""

    ids: np.ndarray  # [R] uint32
    trial: np.ndarray  # [R] int32, whose member it is, below J
    train: Batches  # index [R, S, B], steps [R]
    sweep: Batches
    holdout: Batches
    sound: Array  # [R] bool; one that is not keeps its state when they finish
    count: np.ndarray  # [D] int32, members on each device; they come first


class Wave(NamedTuple):
    """Members that are computed by one call of a program."""

    present: list[tuple[int, int]]  # trial and client of each
    places: np.ndarray  # of each in [0, R)
    trial: np.ndarray  # [R] int32
    rows: np.ndarray  # [R] int32, of the trial's stacks; PADDING_ROW for nobody
    members: Members


class Dealer(NamedTuple):
    """Deals the participants of one group to the places of its programs.

    Attributes:
        clients: ids of the group's clients [N_g], ascending.
        mesh: devices.
        capacity: places on each device.
        max_steps: S, local steps of the client that has most.
        batch_size: B.
        sweep: of each client of the group, every training example once.
        holdout: of each, the examples kept out of training.
    """

    clients: np.ndarray
    mesh: Mesh
    capacity: int
    max_steps: int
    batch_size: int
    sweep: Batches
    holdout: Batches

    @property
    def places(self) -> int:
        """R, places on all devices together."""
        return self.capacity * self.mesh.size

    def waves(
        self,
        present: Sequence[tuple[int, int]],
        schedule: Callable[[int, int], np.ndarray],
        busy: np.ndarray,
    ) -> tuple[list[Wave], np.ndarray]:
        """Deals participants to devices, in as many waves as they need.

        Args:
            present: trial and id of those of this group, in any order.
            schedule: trial, client -> its minibatches [S, B].
            busy: [D], local steps that each device has to do for other groups.

        Returns:
            Waves, at least one, and how busy devices are then.
        """
        plans = [schedule(trial, client) for trial, client in present]
        number = max(1, -(-len(present) // self.places))
        dealt, busy = assign(
            np.array([len(plan) for plan in plans]), busy, number * self.capacity
        )
        starts = range(0, number * self.capacity, self.capacity)
        waves = [
            [on_device[start : start + self.capacity] for on_device in dealt]
            for start in starts
        ]
        return [self._wave(present, plans, wave) for wave in waves], busy

    def shapes(self) -> Members:
        """Shapes of the members of any wave, on the devices."""
        nobody = [np.zeros(0, int)] * self.mesh.size
        return sharding.shapes(
            self._laid_out([], [], nobody).members, sharding.over_clients(self.mesh)
        )

    def _wave(
        self,
        present: Sequence[tuple[int, int]],
        plans: list[np.ndarray],
        dealt: list[np.ndarray],
    ) -> Wave:
        """The wave of those of `present` that `dealt` names by device, put there."""
        wave = self._laid_out(present, plans, dealt)
        split = sharding.over_clients(self.mesh)
        return wave._replace(members=jax.device_put(wave.members, split))

    def _laid_out(
        self,
        present: Sequence[tuple[int, int]],
        plans: list[np.ndarray],
        dealt: list[np.ndarray],
    ) -> Wave:
        """The same on the host."""
        chosen = np.concatenate(dealt).astype(int).tolist()
        present = [present[i] for i in chosen]
        trials, ids = np.array(present, np.int32).reshape(-1, 2).T
        places = np.concatenate(
            [
                device * self.capacity + np.arange(members.size, dtype=np.int32)
                for device, members in enumerate(dealt)
            ]
        )
        rows = np.searchsorted(self.clients, ids).astype(np.int32)
        at = self._in_places(places, rows)
        trial = self._in_places(places, trials)
        members = Members(
            ids=self._in_places(places, ids).astype(np.uint32),
            trial=trial,
            train=self._train_batches(places, [plans[i] for i in chosen]),
            sweep=Batches(self.sweep.index[at], self.sweep.steps[at]),
            holdout=Batches(self.holdout.index[at], self.holdout.steps[at]),
            sound=np.ones(self.places, bool),
            count=np.array([members.size for members in dealt], np.int32),
        )
        rows = self._in_places(places, rows, padding=PADDING_ROW)
        return Wave(present, places, trial, rows, members)

    def _in_places(
        self, places: np.ndarray, values: np.ndarray, padding: int = 0
    ) -> np.ndarray:
        """[R] int32: the values at their places, padding elsewhere."""
        padded = np.full(self.places, padding, np.int32)
        padded[places] = values
        return padded

    def _train_batches(self, places: np.ndarray, plans: list[np.ndarray]) -> Batches:
        """Every member's minibatches at its place, -1 for no example."""
        shape = (self.places, self.max_steps, self.batch_size)
        index, steps = np.full(shape, -1, np.int32), np.zeros(self.places, np.int32)
        for place, plan in zip(places, plans, strict=True):
            index[place, : len(plan)], steps[place] = plan, len(plan)
        return Batches(index, steps)


def assign(
    costs: np.ndarray, busy: np.ndarray, capacity: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Deals members to devices so that none waits long for another.

    The longest member goes to the least busy device that has room, and so on. Within
    a device, members with similar work stand together.

    Args:
        costs: of each member, any unit.
        busy: [D], what each device has to do already, in the same unit.
        capacity: members a device can take; D times it must be enough.

    Returns:
        For each device the places of its members in `costs`, and how busy it is then.
    """
    after = np.array(busy, float)
    free = [(float(load), device) for device, load in enumerate(after)]
    heapq.heapify(free)
    dealt: list[list[int]] = [[] for _ in free]
    for place in np.argsort(-np.asarray(costs), kind="stable"):
        load, device = heapq.heappop(free)
        dealt[device].append(int(place))
        after[device] = load + float(costs[place])
        if len(dealt[device]) < capacity:
            heapq.heappush(free, (after[device], device))
    return [np.array(places, np.int32) for places in dealt], after
