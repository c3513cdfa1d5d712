"""Prototypes that a server trains: FedTGP's embeddings and the network behind them.

Shape letters: L classes, D width of a prototype and inside the network.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_mrl import rng
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import Key, Params


class Trainable(NamedTuple):
    """An embedding of each class, and the network that turns it into a prototype."""

    embedding: jax.Array  # [L, D]
    hidden: Params  # kernel [D, D], bias [D]
    out: Params  # kernel [D, D], bias [D]


def init(key: Key, num_classes: int, width: int) -> Trainable:
    """Standard normal embeddings, and layers as PyTorch initialises them."""
    part = lambda name: rng.named(key, f"prototypes {name}")
    return Trainable(
        jax.random.normal(part("embedding"), (num_classes, width), jnp.float32),
        layers.init_linear(part("hidden"), width, width),
        layers.init_linear(part("out"), width, width),
    )


def vectors(trainable: Trainable) -> jax.Array:
    """The prototypes, [L, D]."""
    hidden = jax.nn.relu(layers.linear(trainable.hidden, trainable.embedding))
    return layers.linear(trainable.out, hidden)
