"""FedGen: data-free knowledge distillation for heterogeneous federated learning.

Clients have private extractors of any architecture and share a header. The server
averages the headers, and trains a generator that, given a label and noise, yields
representations which the ensemble of the uploaded headers assigns to that label.
Broadcast to the clients, the generator stands for what the others know: the header
must also classify generated representations.

Reference:
    Zhu et al., Data-Free Knowledge Distillation for Heterogeneous Federated
    Learning, ICML 2021. https://arxiv.org/abs/2105.10056

Differences:
    - Extractors differ and never travel; the paper's main variant averages all
      weights, its variant with partly shared models only the header.
    - Clients use the generator from the second round on: before that it is noise.
      (They have no cohort's label counts before that either.)
    - The ensemble is the mean of the logits, for each label weighted by the clients'
      counts of that label; the authors' code averages the losses instead.
    - Headers are averaged by training samples, as in the authors' code; a plain mean
      is another reading of the method.
    - Labels are drawn in proportion to the cohort's counts, noise is Gaussian.
    - No batch normalisation, weight decay or learning-rate decay in the generator.
    - Clients lack the authors' second regulariser, from predictions on generated
      representations to predictions on real ones, and its decay over the rounds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from fedjax_mrl import rng
from fedjax_mrl.learning import (
    generators,
    local,
    losses,
    requirements,
    servers,
)
from fedjax_mrl.learning.generators import Generator
from fedjax_mrl.protocol import (
    Algorithm,
    Client,
    ClientUpdate,
    Model,
    Network,
    Params,
    Server,
    Setup,
    State,
)

__all__ = ["fedgen"]


class Shared(NamedTuple):
    """What the server sends."""

    header: Params
    generator: Generator
    label_counts: jax.Array  # [L] float, the last cohort's; 0 before the first


class ServerState(NamedTuple):
    """What the server holds."""

    shared: Shared
    optimizer: State  # of the generator, carried from round to round


class Upload(NamedTuple):
    """What a client sends."""

    header: Params
    label_counts: jax.Array  # [L] int32


class ClientState(NamedTuple):
    """What never leaves a client."""

    extractor: Params


def fedgen(
    setup: Setup,
    *,
    weight: float = 1.0,
    diversity_weight: float = 1.0,
    noise_dim: int = 64,
    hidden_dim: int = 512,
    server_lr: float = 3e-4,
    server_steps: int = 50,
    server_batch_size: int = 32,
) -> Algorithm:
    """Builds FedGen.

    Args:
        setup: `setup.shared` makes the header, for representations of width
            `setup.feature_dim`.
        weight: of the loss on generated representations; 0 shares the header only.
        diversity_weight: of the loss that keeps the generator from ignoring noise.
        noise_dim: width of the noise, at least 1.
        hidden_dim: width inside the generator, at least 1.
        server_lr: learning rate of Adam; 0 leaves the generator as it began.
        server_steps: of the generator in a round, at least 1.
        server_batch_size: representations in each of them, at least 1. Clients
            generate as many as their minibatch has places.

    Raises:
        ValueError: for a value out of its range, or, when a client is built, for a
            model of another width or number of classes.
    """
    requirements.require_at_least(
        weight=(weight, 0),
        diversity_weight=(diversity_weight, 0),
        noise_dim=(noise_dim, 1),
        hidden_dim=(hidden_dim, 1),
        server_lr=(server_lr, 0),
        server_steps=(server_steps, 1),
        server_batch_size=(server_batch_size, 1),
    )
    num_classes, width = setup.num_classes, setup.feature_dim
    shared = setup.shared(width)
    optimizer = optax.adam(server_lr)

    def server_init(key):
        made = generators.init(key, noise_dim, num_classes, hidden_dim, width)
        header = shared.init(rng.named(key, "shared")).header
        counts = jnp.zeros((num_classes,), jnp.float32)
        return ServerState(Shared(header, made, counts), optimizer.init(made))

    def ensemble_loss(generator, headers, counts, drawn):
        features = generators.generate(generator, drawn, num_classes)
        logits = jax.vmap(shared.head, in_axes=(0, None))(headers, features)
        share = counts[:, drawn.label]  # [K, G]
        share = share / jnp.maximum(share.sum(axis=0), 1)[None, :]
        ensemble = (share[:, :, None] * logits).sum(axis=0)  # [G, L]
        fit = losses.cross_entropy_per_example(ensemble, drawn.label).mean()
        return fit + diversity_weight * generators.diversity(drawn.noise, features)

    def server_update(state, uploads, cohort):
        headers, counts = uploads
        counts = counts.astype(state.shared.label_counts.dtype)
        total = counts.sum(axis=0)

        def step(i, carry):
            generator, optimizer_state = carry
            key = jax.random.fold_in(cohort.key, i)
            drawn = generators.draw(key, total, server_batch_size, noise_dim)
            gradient = jax.grad(ensemble_loss)(generator, headers, counts, drawn)
            # Adam raises a float to the number of steps, an integer.
            with jax.numpy_dtype_promotion("standard"):
                updates, optimizer_state = optimizer.update(gradient, optimizer_state)
            return jax.tree.map(jnp.add, generator, updates), optimizer_state

        carry = (state.shared.generator, state.optimizer)
        generator, optimizer_state = lax.fori_loop(0, server_steps, step, carry)
        header = servers.aggregate(headers, cohort, "mean")
        return ServerState(Shared(header, generator, total), optimizer_state)

    server = Server(server_init, lambda state: state.shared, server_update)

    def client(model: Model) -> Client:
        requirements.require_width(model, setup)

        def update(broadcast, state, visit, key):
            trained = (broadcast.label_counts > 0).any()  # the generator, once

            def loss(networks, batch, key):
                (network,) = networks
                logits = model.logits(network, batch.x)
                ce = losses.cross_entropy(logits, batch.y, batch.mask)
                # The generator is data here: only the header gets a gradient.
                places = batch.y.shape[0]
                drawn = generators.draw(key, broadcast.label_counts, places, noise_dim)
                features = generators.generate(broadcast.generator, drawn, num_classes)
                logits = model.head(network.header, features)
                each = losses.cross_entropy_per_example(logits, drawn.label)
                generated = jnp.where(trained, each.mean(), 0)
                total = ce + weight * generated
                return losses.Terms(
                    total, {"total": total, "ce": ce, "generated": generated}
                )

            def counts(batch):
                ones = jnp.ones((batch.y.shape[0], 1), broadcast.label_counts.dtype)
                return local.class_sums(ones, batch, num_classes)[1]

            start = (Network(state.extractor, broadcast.header),)
            networks, metrics, _ = local.train(loss, start, setup, visit, key)
            ((extractor, header),) = networks
            held = local.sweep(counts, visit.sweep, setup, visit)
            return ClientUpdate(
                state=ClientState(extractor),
                shared=broadcast._replace(header=header),
                upload=Upload(header, held.astype(jnp.int32)),
                metrics=metrics,
            )

        def predict(shared, state, x):
            return {"global": model.logits(Network(state.extractor, shared.header), x)}

        def init(key):
            return ClientState(model.init(rng.named(key, "private")).extractor)

        return Client(init, update, predict)

    return Algorithm(server, client, heads=("global",))
