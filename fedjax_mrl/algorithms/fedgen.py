"""FedGen: data-free knowledge distillation for heterogeneous federated learning.

Clients k have private extractors f_k of any architecture and share a header h. The
server averages the headers, and trains a generator G that, given a label and noise z,
yields representations which the ensemble of the uploaded headers assigns to that
label. Broadcast to the clients, the generator stands for what the others know: the
header must also classify generated representations. With n_k,y a client's number of
examples of class y:

    L_k  = CE(h(f_k(x)), y) + weight CE(h(G(z, y')), y')         clients
    h    = sum_k n_k / n  h_k                                    server
    L_G  = CE(sum_k n_k,y / n_y  h_k(G(z, y)), y) + diversity_weight D
    D    = exp(-mean over pairs i, j of d(z_i, z_j) d(G_i, G_j))

Labels are drawn in proportion to the cohort's counts n_y. Inference is h(f_k(x)).

Reference:
    Zhu et al., Data-Free Knowledge Distillation for Heterogeneous Federated
    Learning, ICML 2021. https://arxiv.org/abs/2105.10056

Differences:
    - Extractors differ and never travel; the paper's main variant averages all
      weights, its variant with partly shared models only the header.
    - Clients use the generator from the second round on: before that it is noise.
    - The ensemble is the mean of the logits, for each label weighted by the clients'
      counts of that label; the authors' code averages the losses instead.
    - Headers are averaged by training samples, as in the authors' code; a plain mean
      is another reading of the method.
    - Labels are drawn in proportion to the cohort's counts, noise is Gaussian.
    - No batch normalisation, weight decay or learning-rate decay in the generator.
    - Clients lack the authors' second regulariser, from predictions on generated
      representations to predictions on real ones, and its decay over the rounds.
"""

import functools

import jax.numpy as jnp

from fedjax_mrl import rng
from fedjax_mrl.learning import (
    generator_server,
    generators,
    headers,
    local,
    losses,
    requirements,
)
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Setup

__all__ = ["fedgen"]


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
            model of another width, number of classes or header.
    """
    requirements.require_at_least(
        weight=(weight, 0), diversity_weight=(diversity_weight, 0)
    )
    settings = generator_server.Settings(
        noise_dim, hidden_dim, server_lr, server_steps, server_batch_size
    )

    def server_loss(sample, ensemble):  # L_G
        ce = losses.cross_entropy_per_example(ensemble, sample.label).mean()
        D = generators.diversity(sample.noise, sample.features)
        return ce + diversity_weight * D

    server = generator_server.build(server_loss, setup, settings)

    def client(model: Model) -> Client:
        requirements.require_header(model, setup)

        def update(broadcast, state, visit, key):
            header, generator, counts = broadcast
            trained = (counts > 0).any()  # the generator, once

            def loss(networks, batch, key):  # L_k
                (network,) = networks
                on_real = model.training(rng.named(key, "private"))
                on_generated = model.training(rng.named(key, "generated"))
                logits = on_real.logits(network, batch.x)
                ce = losses.cross_entropy(logits, batch.y, batch.mask)
                # The generator is data here: only the header gets a gradient.
                sample = generators.sample(generator, key, counts, batch.y.size)
                logits = on_generated.head(network.header, sample.features)
                each = losses.cross_entropy_per_example(logits, sample.label)
                extra = jnp.where(trained, each.mean(), 0)
                total = ce + weight * extra
                metrics = {"total": total, "ce": ce, "generated": extra}
                return losses.Terms(total, metrics)

            network, metrics = headers.train(loss, state, header, setup, visit, key)
            extractor, header = network
            shared = broadcast._replace(header=header)
            n_k = local.class_counts(setup, visit)
            upload = generator_server.Upload(header, n_k)
            return ClientUpdate(headers.ClientState(extractor), shared, upload, metrics)

        def predict(shared, state, x):
            return headers.predict(model, shared.header, state, x)

        return Client(functools.partial(headers.init, model), update, predict)

    return Algorithm(server, client, heads=("global",))
