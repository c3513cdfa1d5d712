"""Where the states of a group's clients lie between rounds.

All stores hold states by row, one row a client, and differ in what their functions do.
The round knows no more about them.

* `device`: stacks on the devices.
* `host`: in the memory of the host. Only states of clients that took part are kept;
  the others are made when they are needed.
* `disk`: likewise, each in a file (`stores/disk.py`).
"""

import collections
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import sharding, tree
from fedjax_mrl.stores import disk
from fedjax_mrl.stores.host import Rows

KINDS = ("auto", "device", "host", "disk")
NOWHERE = 2**30  # a row past the end of every store


class Store(NamedTuple):
    """One kind of store, on some devices.

    A `held` is what a store made of one stack, or a pytree of several.

    Attributes:
        begin: name, number N of rows, fresh -> held. `fresh` makes the first states:
            rows [R] -> [R, ...] on the host.
        save: held, N -> arrays on the host, which a checkpoint may keep.
        place: what `save` returned, the held of `begin` -> held.
        take: J helds of one group, which of them [R], rows [R] -> [R, ...], split over
            the devices; rows past the end read anything.
        put: J helds, which of them [R], rows [R], values [R, ...] -> J helds; consumes
            them; rows past the end write nothing.
        read: held, rows [R] -> [R, ...] on the host.
        block: held, rows [R] -> [R, ...] to look at, for rows in a row that start at
            a multiple of their number; may be the store's own arrays.
        block_size: N -> R of `block`.
        touched: held, rows [R] -> [R] bool, whether a state was put there.
        ahead: held, rows [R]; says that these will be taken next.
        forget: held, rounds; what only other checkpoints than these need may go.
        through_host: whether what is put goes through the memory of the host.
    """

    begin: Callable[[str, int, Callable[[np.ndarray], Any]], Any]
    save: Callable[[Any, int, int], Any]
    place: Callable[[Any, Any], Any]
    take: Callable[[Sequence[Any], np.ndarray, np.ndarray], Any]
    put: Callable[[Sequence[Any], np.ndarray, np.ndarray, Any], list[Any]]
    read: Callable[[Any, np.ndarray], Any]
    block: Callable[[Any, np.ndarray], Any]
    block_size: Callable[[int], int]
    touched: Callable[[Any, np.ndarray], np.ndarray]
    ahead: Callable[[Any, np.ndarray], None] = lambda held, rows: None
    forget: Callable[[Any, list[int]], None] = lambda held, rounds: None
    through_host: bool = False


def resolve(kind: str, mesh: Mesh) -> str:
    """Replaces `auto`: the host for several devices of one CPU, else the devices.

    Devices of a CPU share its memory, so a copy costs less than an exchange.

    Raises:
        ValueError: for an unknown kind, or files in several processes.
    """
    if kind not in KINDS:
        raise ValueError(f"--client-store must be one of {KINDS}; got {kind!r}.")
    if kind == "disk" and jax.process_count() > 1:
        raise ValueError(
            "--client-store disk works in one process; got "
            f"{jax.process_count()}. Use device, which is split over the processes."
        )
    if kind != "auto":
        return kind
    several = mesh.size > 1 and jax.process_count() == 1
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return "host" if several and on_cpu else "device"


def block_size(kind: str, mesh: Mesh, number: int) -> int:
    """How many of N rows a store of some kind shows at once: all, or a few a device."""
    on_each = -(-number // mesh.size)
    return mesh.size * (on_each if kind == "device" else min(8, on_each))


def make(kind: str, mesh: Mesh, folder: pathlib.Path | None = None) -> Store:
    """The store of a kind.

    Args:
        kind: one of `KINDS`.
        mesh: the devices that work.
        folder: where a store on the disk has its files.

    Raises:
        ValueError: as `resolve`, or if the folder is missing.
    """
    kind = resolve(kind, mesh)
    if kind == "device":
        return _device(mesh)
    if kind == "host":
        return _by_rows(mesh, lambda name, number, fresh: Rows(number, fresh))
    if folder is None:
        raise ValueError(
            "--client-store disk needs a folder for its files; give client_folder."
        )
    versions: dict[str, disk.Versions] = collections.defaultdict(disk.Versions)
    return _by_rows(
        mesh,
        lambda name, number, fresh: disk.FileRows(
            number, fresh, folder / name, versions[name]
        ),
    )


def _device(mesh: Mesh) -> Store:
    split, whole = sharding.over_clients(mesh), sharding.everywhere(mesh)

    @functools.partial(jax.jit, out_shardings=split)
    def take(helds, which, rows):
        found = tree.take(helds[0], rows)
        for number, held in enumerate(helds[1:], start=1):
            found = jax.tree.map(
                lambda old, new, number=number: jnp.where(
                    (which == number).reshape(-1, *[1] * (new.ndim - 1)), new, old
                ),
                found,
                tree.take(held, rows),
            )
        return found

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=split)
    def put(helds, which, rows, values):
        return [
            tree.put(held, jnp.where(which == number, rows, NOWHERE), values)
            for number, held in enumerate(helds)
        ]

    fetch = jax.jit(tree.take, out_shardings=whole)

    def place(stack, begun=None):
        # A sharded axis is a multiple of the number of devices.
        def pad(leaf):
            more = -leaf.shape[0] % mesh.size
            return np.concatenate([leaf, np.zeros((more, *leaf.shape[1:]), leaf.dtype)])

        return jax.device_put(jax.tree.map(pad, jax.device_get(stack)), split)

    def read(held, rows):
        return jax.device_get(fetch(held, rows))

    return Store(
        begin=lambda name, number, fresh: place(fresh(np.arange(number))),
        save=lambda held, number, round: read(held, np.arange(number, dtype=np.int32)),
        place=place,
        take=take,
        put=put,
        read=read,
        block=lambda held, rows: held,  # all there is
        block_size=functools.partial(block_size, "device", mesh),
        touched=lambda held, rows: np.ones(rows.size, bool),
    )


def _by_rows(mesh: Mesh, begin: Callable[[str, int, Callable], Rows]) -> Store:
    split = sharding.over_clients(mesh)

    def each(held):
        return jax.tree.leaves(held)

    def read(held, rows):
        return jax.tree.map(lambda part: part.take(rows), held)

    def take(helds, which, rows):
        if len(helds) == 1:
            return jax.device_put(read(helds[0], rows), split)
        own = [np.flatnonzero(which == number) for number in range(len(helds))]
        parts = [read(held, rows[at]) for held, at in zip(helds, own, strict=True)]
        order = np.argsort(np.concatenate(own))
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *parts)
        return jax.device_put(joined, split)

    def put(helds, which, rows, values):
        values = on_host(values, mesh)
        for number, held in enumerate(helds):
            own = np.where(which == number, rows, NOWHERE)
            jax.tree.map(lambda part, new, own=own: part.put(own, new), held, values)
        # As donation does: the state that they were of is told from the new one.
        return [jax.tree.map(lambda part: part.pass_on(), held) for held in helds]

    def block(held, rows):
        return jax.device_put(read(held, rows), split)

    def touched(held, rows):
        return np.any([part.touched(rows) for part in each(held)], axis=0)

    def ahead(held, rows):
        for part in each(held):
            part.ahead(rows)

    def forget(held, rounds):
        for part in each(held):
            part.forget(rounds)

    return Store(
        begin=begin,
        save=lambda held, number, round: held.save(round),
        place=lambda saved, begun: begun.place(saved),
        take=take,
        put=put,
        read=read,
        block=block,
        block_size=functools.partial(block_size, "host", mesh),
        touched=touched,
        ahead=ahead,
        forget=forget,
        through_host=True,
    )


def on_host(values: Any, mesh: Mesh) -> Any:
    """Arrays on the host, also of what other processes hold."""
    if jax.process_count() > 1:
        gather = jax.jit(lambda leaves: leaves, out_shardings=sharding.everywhere(mesh))
        values = gather(values)
    return jax.device_get(values)
