"""SHA-256 over the bytes of a state: equal runs have equal digests."""

import hashlib

import jax
import numpy as np

from fedjax_mrl.rounds import State


def digest(state: State) -> str:
    """Digests the server's and every client's state, with names and shapes.

    Leaves are taken in the order of their path, so that the digest depends on
    values and structure alone.
    """
    sha = hashlib.sha256()
    held = (state.server, state.clients, state.copies)
    for path, leaf in jax.tree_util.tree_leaves_with_path(held):
        array = np.ascontiguousarray(jax.device_get(leaf))
        name = jax.tree_util.keystr(path)
        sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha.update(array.data)
    return sha.hexdigest()
