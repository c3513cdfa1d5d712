"""SHA-256 over the bytes of a state: equal runs have equal digests.

Every leaf is hashed by itself, so that two runs can be compared leaf by leaf, and
every client by itself, so that a round hashes anew only what it changed. Neither
groups, nor devices, nor the store enter: a digest is one of the server and of each
client by id.
"""

import concurrent.futures
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from fedjax_mrl.protocol import Tree
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import State, look_at_clients, require_live
from fedjax_mrl.stores import Store

SERVER = "server"


class Leaf(NamedTuple):
    """One hashed array of one owner."""

    owner: str  # "server" or "client K"
    leaf: str  # its path
    sha256: str


def leaves(owner: str, value: Tree) -> list[Leaf]:
    """Hashes every leaf with its path, type and shape."""
    hashed = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        array = np.ascontiguousarray(jax.device_get(leaf))
        sha = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
        sha.update(array.data)
        hashed.append(Leaf(owner, jax.tree_util.keystr(path), sha.hexdigest()))
    return hashed


def combine(hashed: Sequence[Leaf]) -> str:
    """One digest of several leaves."""
    sha = hashlib.sha256()
    for leaf in hashed:
        sha.update(f"{leaf.owner} {leaf.leaf} {leaf.sha256}\n".encode())
    return sha.hexdigest()


def of(server: Tree, clients: Mapping[int, tuple[Tree, Tree]]) -> str:
    """The digest of a whole state in pieces.

    Args:
        server: its state.
        clients: of all clients, private state and shared part, by number.
    """
    sha = hashlib.sha256(combine(leaves(SERVER, server)).encode())
    for client in sorted(clients):
        one = combine(leaves(f"client {client}", clients[client]))
        sha.update(f"{client} {one}\n".encode())
    return sha.hexdigest()


class Digester:
    """Digests the states of one run, hashing again only clients that took part.

    Args:
        groups: all clients.
        store: where their states lie.
        alike: whether all clients of a group began with the same state, so that
            those that never took part are hashed once.
    """

    def __init__(
        self, groups: Sequence[Group], store: Store, *, alike: bool = False
    ) -> None:
        self._groups, self._store, self._alike = groups, store, alike
        self._clients: dict[int, str] = {}
        self._stale = {int(c) for group in groups for c in group.clients}

    def touch(self, clients: np.ndarray) -> None:
        """Says that these clients' states may have changed."""
        self._stale.update(np.asarray(clients).tolist())

    def __call__(self, state: State) -> tuple[str, list[Leaf]]:
        """The digest, and the hashes of all leaves that may have changed."""
        require_live(state)
        changed = leaves(SERVER, state.server)
        sha = hashlib.sha256(combine(changed).encode())
        hashed = self._of_unwritten(state) if self._alike else {}
        stale = sorted(self._stale - set(hashed))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
            for start in range(0, len(stale), 16):  # few at a time: they go to the host
                few = np.array(stale[start : start + 16])
                pairs = look_at_clients(state, self._groups, few, self._store)
                owners = [f"client {client}" for client in pairs]
                found = threads.map(leaves, owners, pairs.values())
                hashed.update(zip(pairs, found, strict=True))
        self._stale.clear()
        for client in sorted(hashed):
            self._clients[client] = combine(hashed[client])
            changed.extend(hashed[client])
        for client in sorted(self._clients):
            sha.update(f"{client} {self._clients[client]}\n".encode())
        return sha.hexdigest(), changed

    def _of_unwritten(self, state: State) -> dict[int, list[Leaf]]:
        """The hashes of stale clients whose state is still the first one."""
        hashed = {}
        for group in self._groups:
            handles = state.clients[group.name]
            written = self._store.written(handles, np.arange(group.clients.size))
            new = [c for c in group.clients[~written].tolist() if c in self._stale]
            if new:
                row = np.searchsorted(group.clients, new[:1]).astype(np.int32)
                stacks = self._store.read(handles, row)
                first = leaves("", jax.tree.map(lambda leaf: leaf[0], stacks))
                for client in new:
                    owner = f"client {client}"
                    hashed[client] = [leaf._replace(owner=owner) for leaf in first]
        return hashed
