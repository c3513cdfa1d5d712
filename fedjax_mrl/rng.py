"""The one place where randomness is derived.

Every stream is a function of (seed, purpose, round, client) alone. Nothing is
carried from round to round, so nothing random is ever part of a checkpoint, and
a client's numbers depend neither on its group, nor on its place in the cohort,
nor on who else takes part. Arrays are never drawn across the client axis.
"""

import enum
import zlib

import jax
import jax.numpy as jnp
import numpy as np

IMPLEMENTATION = "threefry2x32"  # the same bits on every backend


class Purpose(enum.IntEnum):
    """What a stream is for. Values are part of every result: only append."""

    PARTITION = 0
    SERVER_INIT = 1
    CLIENT_INIT = 2
    COHORT = 3
    SCHEDULE = 4
    CLIENT_UPDATE = 5
    SERVER_UPDATE = 6
    SPLIT = 7
    CLIENT_FINISH = 8
    FAULTS = 9
    SUBSET = 10
    TEST_PART = 11
    PERSONALIZATION = 12
    PRIVACY = 13


def key(seed: int, purpose: Purpose, *path: int | jax.Array) -> jax.Array:
    """Derives a typed JAX key from `(seed, purpose, *path)` by `fold_in`.

    Args:
        seed: the run's seed.
        purpose: what the key is for.
        *path: further coordinates, usually round and client; may be traced.

    Returns:
        One typed threefry key; the same bits on every backend.
    """
    derived = jax.random.key(seed % 2**32, impl=IMPLEMENTATION)
    if seed >> 32:  # JAX would drop these bits
        derived = jax.random.fold_in(derived, seed >> 32)
    derived = jax.random.fold_in(derived, int(purpose))
    for part in path:
        derived = jax.random.fold_in(derived, part)
    return derived


def data(key: jax.Array) -> np.ndarray:
    """A key as numbers on the host, which every process and device may be given."""
    return np.asarray(jax.random.key_data(key))


def wrap(data: np.ndarray | jax.Array) -> jax.Array:
    """The key whose `data` these numbers are, whatever generator JAX is set to."""
    return jax.random.wrap_key_data(jnp.asarray(data), impl=IMPLEMENTATION)


def host(seed: int, purpose: Purpose, *path: int) -> np.random.Generator:
    """Derives a NumPy generator from `(seed, purpose, *path)`."""
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, int(purpose), *path]))
    )


def named(base: jax.Array, name: str) -> jax.Array:
    """Folds a name into a key, so that methods that share a network start it alike.

    The private network is always initialised from "private", the shared one from
    "shared"; a comparison of methods then starts them from the same weights.
    """
    return jax.random.fold_in(base, zlib.crc32(name.encode()))
