"""Gaussian noise that no other noise of the same seed can be used to take away.

Two runs with one seed, or one round played twice with other reports, must not share
their noise: the difference of what they release would have none left. So noise depends
on what it hides, as a deterministic signature's secret number does on its message. The
key is folded with a fingerprint of the numbers and of the noise's size, made by the
secret key itself; whoever has not got the key sees independent noise for every other
sum, and the same for the same one, which tells nothing more.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import random as raw

from fedjax_mrl.protocol import Key, Tree


def add(sums: Tree, key: Key, std: float) -> Tree:
    """Adds Gaussian noise of one standard deviation to every number.

    Args:
        sums: a pytree of floats.
        key: of the run's seed and the round. What it gives is a function of it, the
            bits of `sums` and `std`: another of these gives independent noise.
        std: standard deviation.
    """
    leaves, structure = jax.tree.flatten(sums)
    drawn = _folded(key, [*leaves, jnp.float32(std)])
    noisy = [
        leaf
        + std * jax.random.normal(jax.random.fold_in(drawn, i), leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return structure.unflatten(noisy)


def _folded(key: Key, leaves: Sequence[jax.Array]) -> Key:
    """The key of a message: folded with 64 bits that only the key can make of it.

    Every 32-bit word goes through the cipher with its place, under a key of its leaf;
    the results are added without carry, so that their order does not matter.
    """
    secret = jax.random.fold_in(key, 0)
    total = jnp.zeros(2, jnp.uint32)
    for i, leaf in enumerate(leaves):
        words = _words(leaf)
        if not words.size:
            continue
        places = jnp.arange(words.size, dtype=jnp.uint32)
        of_leaf = jax.random.key_data(jax.random.fold_in(secret, i))
        mixed = raw.threefry_2x32(of_leaf, jnp.concatenate([places, words]))
        pairs = mixed.reshape(2, words.size)
        total ^= lax.reduce(pairs, np.uint32(0), lax.bitwise_xor, (1,))
    folded = jax.random.fold_in(key, 1)
    return jax.random.fold_in(jax.random.fold_in(folded, total[0]), total[1])


def _words(leaf: jax.Array) -> jax.Array:
    """The bits of an array as uint32 [n]."""
    narrow = leaf.dtype.itemsize < 4
    bits = lax.bitcast_convert_type(leaf, jnp.uint16 if narrow else jnp.uint32)
    return bits.reshape(-1).astype(jnp.uint32)
