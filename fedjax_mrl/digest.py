"""SHA-256 over the bytes of a state: equal runs have equal digests.

Every leaf is hashed by itself, so that two runs can be compared leaf by leaf, and
every client by itself, so that a round hashes anew only what it changed. Neither
groups, nor devices, nor the store enter: a digest is one of the server and of each
client by id.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_mrl import rounds
from fedjax_mrl.population import Group
from fedjax_mrl.rounds import State
from fedjax_mrl.stores import Store

SERVER = "server"


class Leaf(NamedTuple):
    """One hashed array of one owner."""

    owner: str  # "server" or "client K"
    leaf: str  # its path
    sha256: str


def leaves(owner: str, held: Any) -> list[Leaf]:
    """Hashes every leaf with its path, type and shape."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(held):
        array = np.ascontiguousarray(jax.device_get(leaf))
        sha = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
        sha.update(array.data)
        found.append(Leaf(owner, jax.tree_util.keystr(path), sha.hexdigest()))
    return found


def combine(found: Sequence[Leaf]) -> str:
    """One digest of several leaves."""
    sha = hashlib.sha256()
    for leaf in found:
        sha.update(f"{leaf.owner} {leaf.leaf} {leaf.sha256}\n".encode())
    return sha.hexdigest()


class Digester:
    """Digests the states of one run, hashing again only clients that took part.

    Args:
        groups: all clients.
        store: where their states lie.
    """

    def __init__(self, groups: Sequence[Group], store: Store) -> None:
        self._groups, self._store = groups, store
        self._clients: dict[int, str] = {}
        self._stale = {int(c) for group in groups for c in group.clients}

    def touch(self, clients: np.ndarray) -> None:
        """Says that these clients' states may have changed."""
        self._stale.update(np.asarray(clients).tolist())

    def __call__(self, state: State) -> tuple[str, list[Leaf]]:
        """The digest, and the hashes of all leaves that may have changed."""
        found = leaves(SERVER, state.server)
        sha = hashlib.sha256(combine(found).encode())
        stale = sorted(self._stale)
        for start in range(0, len(stale), 16):  # few at a time: they come to the host
            some = np.array(stale[start : start + 16])
            read = rounds.read_clients(state, self._groups, some, self._store)
            for client in some.tolist():
                mine = leaves(f"client {client}", read[client])
                self._clients[client] = combine(mine)
                found.extend(mine)
        self._stale.clear()
        for client in sorted(self._clients):
            sha.update(f"{client} {self._clients[client]}\n".encode())
        return sha.hexdigest(), found
