"""Where the states of a group's clients lie between rounds.

All stores hold a pytree with a leading client axis and differ in what `take` and
`put` do. The round knows no more about them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import layout, tree

KINDS = ("device", "host")
NOWHERE = 2**30  # a row past the end of every store


class Store(NamedTuple):
    """One kind of store, on some devices.

    Attributes:
        place: stack [N, ...] on the host -> held.
        take: held, rows [R] -> [R, ...], split over the devices; rows past the end
            read anything.
        put: held, rows [R], values [R, ...] -> held; consumes `held`; rows past the
            end write nothing.
        read: held, rows [R] -> [R, ...] on the host.
        block: held, rows [R] -> [R, ...] to look at, for rows in a row that start at
            a multiple of their number; may be the store's own arrays.
        block_size: number of clients -> R of `block`.
    """

    place: Callable[[Any], Any]
    take: Callable[[Any, np.ndarray], Any]
    put: Callable[[Any, np.ndarray, Any], Any]
    read: Callable[[Any, np.ndarray], Any]
    block: Callable[[Any, np.ndarray], Any]
    block_size: Callable[[int], int]


def make(kind: str, mesh: Mesh) -> Store:
    """The store of a kind.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"--client-store must be one of {KINDS}; got {kind!r}.")
    return _device(mesh) if kind == "device" else _host(mesh)


def _device(mesh: Mesh) -> Store:
    split, whole = layout.over_clients(mesh), layout.everywhere(mesh)
    take = jax.jit(tree.take, out_shardings=split)
    put = jax.jit(tree.put, donate_argnums=0, out_shardings=split)
    fetch = jax.jit(tree.take, out_shardings=whole)

    def place(stack):
        # A sharded axis is a multiple of the number of devices.
        def pad(leaf):
            more = -leaf.shape[0] % mesh.size
            return np.concatenate([leaf, np.zeros((more, *leaf.shape[1:]), leaf.dtype)])

        return jax.device_put(jax.tree.map(pad, stack), split)

    return Store(
        place,
        take,
        put,
        read=lambda held, rows: jax.device_get(fetch(held, rows)),
        block=lambda held, rows: held,  # all there is
        block_size=lambda number: number + -number % mesh.size,
    )


def _host(mesh: Mesh) -> Store:
    split = layout.over_clients(mesh)

    def read(held, rows):
        return jax.tree.map(lambda leaf: leaf.take(rows, axis=0, mode="clip"), held)

    def put(held, rows, values):
        values = on_host(values, mesh)

        def write(leaf, new):
            inside = rows < leaf.shape[0]
            leaf[rows[inside]] = new[inside]
            return leaf

        return jax.tree.map(write, held, values)

    def take(held, rows):
        return jax.device_put(read(held, rows), split)

    return Store(
        place=lambda stack: jax.tree.map(lambda leaf: np.array(leaf), stack),
        take=take,
        put=put,
        read=read,
        block=take,
        block_size=lambda number: mesh.size * min(8, -(-number // mesh.size)),
    )


def on_host(values: Any, mesh: Mesh) -> Any:
    """Arrays on the host, also of what other processes hold."""
    if jax.process_count() > 1:
        gather = jax.jit(lambda leaves: leaves, out_shardings=layout.everywhere(mesh))
        values = gather(values)
    return jax.device_get(values)
