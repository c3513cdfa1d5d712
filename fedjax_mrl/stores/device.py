"""States of all clients on the devices, in stacks."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import sharding, tree
from fedjax_mrl.protocol import Tree
from fedjax_mrl.stores.base import PADDING_ROW, Handle, Store, block_size


class DeviceStore(Store):
    """A handle is a stack [N, ...], split over the devices."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._split = split = sharding.over_clients(mesh)
        self._take = jax.jit(_take, out_shardings=split)
        self._put = jax.jit(_put, donate_argnums=0, out_shardings=split)
        self._read = jax.jit(tree.take, out_shardings=sharding.everywhere(mesh))

    def create(self, name: str, number: int, fresh: Callable) -> Handle:
        """Puts the first states of all rows on the devices."""
        del name
        return self._on_devices(fresh(np.arange(number)))

    def save(self, handle: Handle, number: int, round: int) -> Tree:
        """All states [N, ...]."""
        del round
        return self.read(handle, np.arange(number, dtype=np.int32))

    def restore(self, saved: Tree, created: Handle) -> Handle:
        """Puts saved states on the devices."""
        del created
        return self._on_devices(saved)

    def take(
        self, handles: Sequence[Handle], which: np.ndarray, rows: np.ndarray
    ) -> Tree:
        """States [R, ...], split over the devices."""
        return self._take(handles, which, rows)

    def put(
        self,
        handles: Sequence[Handle],
        which: np.ndarray,
        rows: np.ndarray,
        values: Tree,
    ) -> list[Handle]:
        """Writes states into the stacks, which are donated."""
        return self._put(handles, which, rows, values)

    def read(self, handle: Handle, rows: np.ndarray) -> Tree:
        """States [R, ...] on the host."""
        return jax.device_get(self._read(handle, rows))

    def block(self, handle: Handle, rows: np.ndarray) -> Tree:
        """The stacks themselves: the only block is all there is."""
        del rows
        return handle

    def block_size(self, number: int) -> int:
        """All rows, rounded up to a multiple of the number of devices."""
        return block_size("device", self.mesh, number)

    def written(self, handle: Handle, rows: np.ndarray) -> np.ndarray:
        """True everywhere: a stack does not know which rows are still the first."""
        del handle
        return np.ones(rows.size, bool)

    def _on_devices(self, stack: Tree) -> Tree:
        # A sharded axis is a multiple of the number of devices.
        def pad(leaf):
            more = -leaf.shape[0] % self.mesh.size
            return np.concatenate([leaf, np.zeros((more, *leaf.shape[1:]), leaf.dtype)])

        return jax.device_put(jax.tree.map(pad, jax.device_get(stack)), self._split)


def _take(stacks, which, rows):
    """Rows [R, ...] of several stacks: each row is read of all, and one is chosen."""
    chosen = tree.take(stacks[0], rows)
    for number, stack in enumerate(stacks[1:], start=1):
        chosen = jax.tree.map(
            lambda old, new, number=number: jnp.where(
                (which == number).reshape(-1, *[1] * (new.ndim - 1)), new, old
            ),
            chosen,
            tree.take(stack, rows),
        )
    return chosen


def _put(stacks, which, rows, values):
    """The stacks with rows [R, ...] written; each drops the rows of the others."""
    return [
        tree.put(stack, jnp.where(which == number, rows, PADDING_ROW), values)
        for number, stack in enumerate(stacks)
    ]
