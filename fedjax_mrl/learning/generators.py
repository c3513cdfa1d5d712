"""A conditional generator of representations, from noise and a label.

FedGen's server trains it and its clients use it; see `algorithms/fedgen.py`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from fedjax_mrl import rng
from fedjax_mrl.learning import optimizers
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import Key, Params, State


class Generator(NamedTuple):
    """(noise, label) -> representation."""

    hidden: Params  # kernel [noise + L, hidden]
    out: Params  # kernel [hidden, D]


class Draw(NamedTuple):
    """Labels and noise, from which a generator makes representations."""

    label: jax.Array  # [G] int32
    noise: jax.Array  # [G, noise]


class Sample(NamedTuple):
    """Representations that a generator made, and what it made them of."""

    label: jax.Array  # [G] int32
    noise: jax.Array  # [G, noise]
    features: jax.Array  # [G, D]


def init(
    key: Key, noise_dim: int, num_classes: int, hidden_dim: int, width: int
) -> Generator:
    """A generator with one hidden layer, initialised as PyTorch would."""
    part = lambda name: rng.named(key, f"generator {name}")
    return Generator(
        layers.init_linear(part("hidden"), noise_dim + num_classes, hidden_dim),
        layers.init_linear(part("out"), hidden_dim, width),
    )


def draw(key: Key, label_counts: jax.Array, number: int, noise_dim: int) -> Draw:
    """Draws labels in proportion to their counts, and standard normal noise."""
    label_key, noise_key = jax.random.split(key)
    label = jax.random.categorical(label_key, jnp.log(label_counts), shape=(number,))
    noise = jax.random.normal(noise_key, (number, noise_dim), label_counts.dtype)
    return Draw(label.astype(jnp.int32), noise)


def generate(generator: Generator, drawn: Draw, num_classes: int) -> jax.Array:
    """Representations [G, D]."""
    label = jax.nn.one_hot(drawn.label, num_classes, dtype=drawn.noise.dtype)
    given = jnp.concatenate([drawn.noise, label], axis=-1)
    return layers.linear(
        generator.out, jax.nn.relu(layers.linear(generator.hidden, given))
    )


def sample(
    generator: Generator, key: Key, label_counts: jax.Array, number: int
) -> Sample:
    """Draws labels in proportion to their counts [L], and generates for them."""
    num_classes = label_counts.size
    noise_dim = generator.hidden["kernel"].shape[0] - num_classes
    drawn = draw(key, label_counts, number, noise_dim)
    return Sample(*drawn, generate(generator, drawn, num_classes))


def ensemble(logits: jax.Array, counts: jax.Array) -> jax.Array:
    """Mean of the clients' logits, weighted by counts.

    Args:
        logits: [K, G, L].
        counts: of each client's examples of the label, [K, G].

    Returns:
        Logits [G, L]; zeros where no client has an example.
    """
    share = counts / jnp.maximum(counts.sum(axis=0), 1)[None, :]
    return (share[:, :, None] * logits).sum(axis=0)


def train(
    loss: Callable[[Generator, Key], jax.Array],
    generator: Generator,
    optimizer: optax.GradientTransformation,
    state: State,
    key: Key,
    steps: int,
) -> tuple[Generator, State]:
    """Trains a generator on what it is asked for anew in each step.

    Args:
        loss: generator, key of the step -> [].
        generator: where to start.
        optimizer: optax transformation.
        state: of the optimizer.
        key: folded with the step.
        steps: how many.

    Returns:
        The generator and the optimizer's state.
    """

    def step(i, carry):
        generator, state = carry
        gradient = jax.grad(loss)(generator, jax.random.fold_in(key, i))
        return optimizers.step(optimizer.update, gradient, state, generator)

    return lax.fori_loop(0, steps, step, (generator, state))


def diversity(noise: jax.Array, features: jax.Array) -> jax.Array:
    """exp(-mean over pairs of d(noise) d(features)): small if noise makes a difference.

    d is the mean over coordinates of squared differences of noise, and of absolute
    differences of features.
    """
    apart = lambda values: values[:, None, :] - values[None, :, :]
    noise_gap = jnp.square(apart(noise)).mean(axis=-1)
    feature_gap = jnp.abs(apart(features)).mean(axis=-1)
    return jnp.exp(-(noise_gap * feature_gap).mean())
