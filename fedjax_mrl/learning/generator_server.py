"""A server that averages headers and trains a generator of representations on them.

FedGen's server: the generator makes representations of drawn labels, the uploaded
headers classify them together, and a loss of the method's own says how well. See
`generators` for the generator itself.

Shape letters: L classes, G representations of a step, D width, K cohort.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_mrl import rng
from fedjax_mrl.learning import generators, optimizers, requirements, servers
from fedjax_mrl.learning.generators import Generator, Sample
from fedjax_mrl.protocol import Params, Server, Setup, State

GeneratorLoss = Callable[[Sample, jax.Array], jax.Array]  # sample, logits [G, L] -> []


class Shared(NamedTuple):
    """The broadcast."""

    header: Params
    generator: Generator
    label_counts: jax.Array  # [L] float, the last cohort's; 0 before the first


class ServerState(NamedTuple):
    """The broadcast, and the optimizer that trains its generator."""

    shared: Shared
    optimizer: State  # of the generator, carried from round to round


class Upload(NamedTuple):
    """The part of a client that it sends."""

    header: Params
    label_counts: jax.Array  # [L] int32


class Settings(NamedTuple):
    """A generator's widths, and how the server trains it; options of the method."""

    noise_dim: int
    hidden_dim: int
    server_lr: float  # of Adam; 0 leaves the generator as it began
    server_steps: int  # of the generator in a round
    server_batch_size: int  # representations in each of them


def build(loss: GeneratorLoss, setup: Setup, settings: Settings) -> Server:
    """Builds the server.

    Args:
        loss: of representations and the logits that the ensemble of headers gives them.
        setup: `setup.shared` makes the header, at width `setup.feature_dim`.
        settings: widths, rate, steps.

    Raises:
        ValueError: for a setting out of its range.
    """
    noise_dim, hidden_dim, rate, steps, batch_size = settings
    requirements.require_at_least(
        noise_dim=(noise_dim, 1),
        hidden_dim=(hidden_dim, 1),
        server_lr=(rate, 0),
        server_steps=(steps, 1),
        server_batch_size=(batch_size, 1),
    )
    num_classes, width = setup.num_classes, setup.feature_dim
    model = setup.shared(width)
    optimizer = optimizers.adam(rate)

    def init(key):
        generator = generators.init(key, noise_dim, num_classes, hidden_dim, width)
        header = model.init(rng.named(key, "shared")).header
        counts = jnp.zeros((num_classes,), jnp.float32)
        shared = Shared(header, generator, counts)
        return ServerState(shared, optimizer.init(generator))

    def update(state, uploads, cohort):
        headers, generator = uploads.header, state.shared.generator
        counts = uploads.label_counts.astype(state.shared.label_counts.dtype)  # [K, L]
        total = counts.sum(axis=0)

        def step_loss(generator, key):
            sample = generators.sample(generator, key, total, batch_size)
            heads = jax.vmap(model.head, in_axes=(0, None))
            logits = heads(headers, sample.features)  # [K, G, L]
            return loss(sample, generators.ensemble(logits, counts[:, sample.label]))

        generator, optimizer_state = generators.train(
            step_loss, generator, optimizer, state.optimizer, cohort.key, steps
        )
        header = servers.aggregate(headers, cohort, "mean")
        return ServerState(Shared(header, generator, total), optimizer_state)

    return Server(init, lambda state: state.shared, update)
