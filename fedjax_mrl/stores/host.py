"""States of many clients in the memory of the host, made when they are first needed."""

import copy
from collections.abc import Callable, Sequence
from typing import Self

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import copying, sharding
from fedjax_mrl.protocol import Tree
from fedjax_mrl.stores.base import (
    PADDING_ROW,
    Handle,
    Store,
    block_size,
    within_reach,
)


class Rows:
    """The states of a group's clients, by row: a handle of stores that keep rows.

    Args:
        number: N, of rows.
        fresh: rows [R] -> their first states, [R, ...] on the host. Has to return the
            same whenever it is called.
    """

    def __init__(self, number: int, fresh: Callable[[np.ndarray], Tree]) -> None:
        self.number, self._fresh = number, fresh
        leaves, self._structure = jax.tree.flatten(fresh(np.zeros(1, np.int32)))
        self._shapes = [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        self._kept: dict[int, list[np.ndarray]] = {}
        self._passed_on = False

    def pass_on(self) -> Self:
        """The same rows for the next state; these must not be used any more."""
        new = copy.copy(self)
        self._passed_on = True
        return new

    def is_deleted(self) -> bool:
        """Whether they were passed on; named as that of a JAX array."""
        return self._passed_on

    def take(self, rows: np.ndarray) -> Tree:
        """States [R, ...], copied; zeros for rows past the end."""
        rows = np.asarray(rows)
        stacks = [np.zeros((len(rows), *shape), dtype) for shape, dtype in self._shapes]
        new = self._new(rows)

        def copy(place: int) -> None:
            state = new[place] if place in new else self._get(int(rows[place]))
            for stack, leaf in zip(stacks, state, strict=True):
                stack[place] = leaf

        size = sum(stack.nbytes for stack in stacks)
        inside = [place for place, row in enumerate(rows) if self._has(row)]
        copying.on_all_cores(copy, size, inside)
        return self._structure.unflatten(stacks)

    def each(self, rows: np.ndarray) -> list[Tree]:
        """The state of each of the rows, to look at; what was put is not copied."""
        rows = np.asarray(rows)
        new = self._new(rows)
        return [
            self._structure.unflatten(new[place] if place in new else self._get(row))
            for place, row in enumerate(rows.tolist())
        ]

    def _new(self, rows: np.ndarray) -> dict[int, list[np.ndarray]]:
        """The first states of those rows that none was put to, by their places."""
        inside = np.array([self._has(row) for row in rows], bool)
        places = np.flatnonzero(inside & ~self.written(rows))
        if not places.size:
            return {}
        made = jax.tree.leaves(self._fresh(rows[places]))
        return {
            int(place): [leaf[number] for leaf in made]
            for number, place in enumerate(places)
        }

    def put(self, rows: np.ndarray, values: Tree) -> None:
        """Keeps states [R, ...]; those for rows past the end are dropped."""
        leaves = jax.tree.leaves(values)
        found = [copying.rows(leaf) for leaf in leaves]
        places = [place for place, row in enumerate(rows) if self._has(row)]
        # Copied: what is returned from a device is freed with its stack. Memory is
        # taken here, since the C library keeps some for each thread that takes any.
        copied = [[np.empty_like(leaf[place]) for leaf in found] for place in places]

        def copy(place: int, state: list[np.ndarray]) -> None:
            for leaf, kept in zip(found, state, strict=True):
                np.copyto(kept, leaf[place])

        size = sum(leaf.nbytes for leaf in leaves)
        copying.on_all_cores(copy, size, places, copied)
        for place, state in zip(places, copied, strict=True):
            self._set(int(rows[place]), state)

    def written(self, rows: np.ndarray) -> np.ndarray:
        """[R] bool, whether a state was put there."""
        return np.array([int(row) in self._kept for row in rows], bool)

    def save(self, round: int) -> Tree:
        """All states [N, ...], for a checkpoint."""
        del round  # all of them are in the checkpoint
        return self.take(np.arange(self.number))

    def restore(self, saved: Tree) -> "Rows":
        """These rows with the states that `save` returned."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(saved)]
        self._kept = {row: [leaf[row] for leaf in leaves] for row in range(self.number)}
        return self

    def prefetch(self, rows: np.ndarray) -> None:
        """They are in memory already."""

    def prune(self, rounds: Sequence[int]) -> None:
        """Only the newest states are kept anyway."""

    def _has(self, row: int) -> bool:
        return row < self.number

    def _get(self, row: int) -> list[np.ndarray]:
        return self._kept[row]

    def _set(self, row: int, leaves: list[np.ndarray]) -> None:
        self._kept[row] = leaves


class RowStore(Store):
    """A store whose handles are `Rows`, of whatever kind its `create` makes.

    States travel: those of a cohort are copied to the devices and back.
    """

    through_host = True

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._split = sharding.over_clients(mesh)

    def save(self, handle: Handle, number: int, round: int) -> Tree:
        """Arrays on the host that the round's checkpoint keeps."""
        del number  # rows know how many they are
        return jax.tree.map(lambda rows: rows.save(round), handle)

    def restore(self, saved: Tree, created: Handle) -> Handle:
        """The created rows with the saved states."""
        return jax.tree.map(lambda rows, stack: rows.restore(stack), created, saved)

    def take(
        self, handles: Sequence[Handle], which: np.ndarray, rows: np.ndarray
    ) -> Tree:
        """States [R, ...], gathered on the host and then split over the devices."""
        if len(handles) == 1:
            return jax.device_put(self.read(handles[0], rows), self._split)
        places = [np.flatnonzero(which == number) for number in range(len(handles))]
        stacks = [
            self.read(handle, rows[at])
            for handle, at in zip(handles, places, strict=True)
        ]
        order = np.argsort(np.concatenate(places))
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *stacks)
        return jax.device_put(joined, self._split)

    def put(
        self,
        handles: Sequence[Handle],
        which: np.ndarray,
        rows: np.ndarray,
        values: Tree,
    ) -> list[Handle]:
        """Keeps states, by way of the host."""
        values = within_reach(values, self.mesh)
        # As donation does: the state that they were of is told from the new one. First,
        # so that nobody takes what an interruption left half written for either.
        new = jax.tree.map(lambda kept: kept.pass_on(), list(handles))
        for number, handle in enumerate(new):
            its_rows = np.where(which == number, rows, PADDING_ROW)
            jax.tree.map(
                lambda kept, stack, its_rows=its_rows: kept.put(its_rows, stack),
                handle,
                values,
            )
        return new

    def read(self, handle: Handle, rows: np.ndarray) -> Tree:
        """States [R, ...] on the host."""
        return jax.tree.map(lambda kept: kept.take(rows), handle)

    def each(self, handle: Handle, rows: np.ndarray) -> list[Tree]:
        """The states of each row on the host, to look at."""
        stacks, structure = jax.tree.flatten(handle)
        of_stacks = [stack.each(rows) for stack in stacks]
        return [structure.unflatten(each) for each in zip(*of_stacks, strict=True)]

    def block(self, handle: Handle, rows: np.ndarray) -> Tree:
        """States [R, ...], split over the devices."""
        return jax.device_put(self.read(handle, rows), self._split)

    def block_size(self, number: int) -> int:
        """A few rows for each device."""
        return block_size("host", self.mesh, number)

    def written(self, handle: Handle, rows: np.ndarray) -> np.ndarray:
        """[R] bool, whether a state was put there."""
        kept = jax.tree.leaves(handle)
        return np.any([stack.written(rows) for stack in kept], axis=0)

    def prefetch(self, handle: Handle, rows: np.ndarray) -> None:
        """Begins to read rows that will be taken next."""
        for kept in jax.tree.leaves(handle):
            kept.prefetch(rows)

    def prune(self, handle: Handle, rounds: Sequence[int]) -> None:
        """Removes what only checkpoints of other rounds than these need."""
        for kept in jax.tree.leaves(handle):
            kept.prune(rounds)


class HostStore(RowStore):
    """Rows in memory, of the clients that took part."""

    def create(self, name: str, number: int, fresh: Callable) -> Rows:
        """Makes rows, of which none is kept yet."""
        del name
        return Rows(number, fresh)
