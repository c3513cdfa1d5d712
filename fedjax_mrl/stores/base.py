"""The interface of all stores of client states."""

import abc
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import sharding
from fedjax_mrl.protocol import Tree

KINDS = ("auto", "device", "host", "disk")
PADDING_ROW = 2**30  # a row past the end of every store: reads anything, writes nothing


# States of one group as a store keeps them: stacks, or `host.Rows`.
Handle = Tree


class Store(abc.ABC):
    """Keeps one row of states for each client of a group between rounds.

    A store holds no states itself. `create` makes a *handle* to the rows of one stack
    of states, and the other methods take handles; only the store knows what a handle
    is. They also take a pytree of several handles, as of private states and shared
    copies, and then work on all of them.

    Attributes:
        mesh: the devices that states are split over while they are computed with.
        through_host: whether states that are put go through the memory of the host.
    """

    mesh: Mesh
    through_host: bool = False

    @abc.abstractmethod
    def create(self, name: str, number: int, fresh: Callable) -> Handle:
        """Makes the handle of N rows.

        Args:
            name: of the stack, different for each of a federation.
            number: N.
            fresh: rows [R] -> their first states [R, ...], on the host. It returns the
                same whenever it is called.
        """

    @abc.abstractmethod
    def save(self, handle: Handle, number: int, round: int) -> Tree:
        """Arrays on the host that a round's checkpoint keeps of all N rows."""

    @abc.abstractmethod
    def restore(self, saved: Tree, created: Handle) -> Handle:
        """The handle of the rows that `save` returned, from one of `create`."""

    @abc.abstractmethod
    def take(
        self, handles: Sequence[Handle], which: np.ndarray, rows: np.ndarray
    ) -> Tree:
        """States [R, ...], split over the devices.

        Args:
            handles: of J trials of one group.
            which: [R] whose of them each row is.
            rows: [R]; rows past the end read anything.
        """

    @abc.abstractmethod
    def put(
        self,
        handles: Sequence[Handle],
        which: np.ndarray,
        rows: np.ndarray,
        values: Tree,
    ) -> list[Handle]:
        """Writes states [R, ...] and returns J new handles; the old ones are consumed.

        Rows past the end write nothing; the other arguments are those of `take`.
        """

    @abc.abstractmethod
    def read(self, handle: Handle, rows: np.ndarray) -> Tree:
        """States [R, ...] on the host."""

    def each(self, handle: Handle, rows: np.ndarray) -> list[Tree]:
        """The states of each of R rows on the host, to look at.

        They may be the store's own arrays, which nobody changes.
        """
        stacks = self.read(handle, rows)
        return [
            jax.tree.map(lambda leaf, place=place: leaf[place], stacks)
            for place in range(len(rows))
        ]

    @abc.abstractmethod
    def block(self, handle: Handle, rows: np.ndarray) -> Tree:
        """States [R, ...] on the devices, to look at; may be the store's own arrays.

        The rows follow one another, and begin at a multiple of their number.
        """

    @abc.abstractmethod
    def block_size(self, number: int) -> int:
        """R of `block`, for a store of N rows."""

    @abc.abstractmethod
    def written(self, handle: Handle, rows: np.ndarray) -> np.ndarray:
        """[R] bool, whether a state may have been put there."""

    def prefetch(self, handle: Handle, rows: np.ndarray) -> None:
        """Begins to read rows that will be taken next, where that takes time."""
        del handle, rows

    def prune(self, handle: Handle, rounds: Sequence[int]) -> None:
        """Removes what only checkpoints of other rounds than these need."""
        del handle, rounds


def block_size(kind: str, mesh: Mesh, number: int) -> int:
    """How many of N rows a store of some kind shows at once: all, or a few a device."""
    on_each = -(-number // mesh.size)
    return mesh.size * (on_each if kind == "device" else min(8, on_each))


def within_reach(values: Tree, mesh: Mesh) -> Tree:
    """Arrays that this process can read, also of what other processes hold."""
    if jax.process_count() > 1:
        gather = jax.jit(lambda leaves: leaves, out_shardings=sharding.everywhere(mesh))
        values = gather(values)
    return values


def on_host(values: Tree, mesh: Mesh) -> Tree:
    """Arrays on the host, also of what other processes hold."""
    return jax.device_get(within_reach(values, mesh))
