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

Labels y and y' are drawn in proportion to the cohort's counts n_y. Inference is a
client's extractor under the shared header.

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

from fedjax_mrl import rng
from fedjax_mrl.learning import (
    generators,
    local,
    losses,
    optimizers,
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


class ClientState(NamedTuple):
    """The part of a client that never leaves it."""

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
    shared_model = setup.shared(width)
    optimizer = optimizers.adam(server_lr)

    def server_init(key):
        generator = generators.init(key, noise_dim, num_classes, hidden_dim, width)
        header = shared_model.init(rng.named(key, "shared")).header
        counts = jnp.zeros((num_classes,), jnp.float32)
        shared = Shared(header, generator, counts)
        return ServerState(shared, optimizer.init(generator))

    def server_update(state, uploads, cohort):
        headers, generator = uploads.header, state.shared.generator
        counts = uploads.label_counts.astype(state.shared.label_counts.dtype)  # [K, L]
        total = counts.sum(axis=0)

        def loss(generator, key):
            drawn = generators.draw(key, total, server_batch_size, noise_dim)
            features = generators.generate(generator, drawn, num_classes)  # [G, D]
            logits = jax.vmap(shared_model.head, in_axes=(0, None))(headers, features)
            ensemble = generators.ensemble(logits, counts[:, drawn.label])
            ce = losses.cross_entropy_per_example(ensemble, drawn.label).mean()
            return ce + diversity_weight * generators.diversity(drawn.noise, features)

        generator, optimizer_state = generators.train(
            loss, generator, optimizer, state.optimizer, cohort.key, server_steps
        )
        header = servers.aggregate(headers, cohort, "mean")
        return ServerState(Shared(header, generator, total), optimizer_state)

    server = Server(server_init, lambda state: state.shared, server_update)

    def client(model: Model) -> Client:
        requirements.require_width(model, setup)

        def update(broadcast, state, visit, key):
            generator, label_counts = broadcast.generator, broadcast.label_counts
            trained = (label_counts > 0).any()  # the generator, once

            def loss(networks, batch, key):
                (network,) = networks
                on_real = model.training(rng.named(key, "private"))
                on_generated = model.training(rng.named(key, "generated"))
                logits = on_real.logits(network, batch.x)
                ce = losses.cross_entropy(logits, batch.y, batch.mask)
                # The generator is data here: only the header gets a gradient.
                drawn = generators.draw(key, label_counts, batch.y.size, noise_dim)
                features = generators.generate(generator, drawn, num_classes)
                logits = on_generated.head(network.header, features)
                each = losses.cross_entropy_per_example(logits, drawn.label)
                extra = jnp.where(trained, each.mean(), 0)
                total = ce + weight * extra
                metrics = {"total": total, "ce": ce, "generated": extra}
                return losses.Terms(total, metrics)

            start = (Network(state.extractor, broadcast.header),)
            networks, metrics, _ = local.train(loss, start, setup, visit, key)
            ((extractor, header),) = networks
            return ClientUpdate(
                state=ClientState(extractor),
                shared=broadcast._replace(header=header),
                upload=Upload(header, local.class_counts(setup, visit)),
                metrics=metrics,
            )

        def predict(shared, state, x):
            return {"global": model.logits(Network(state.extractor, shared.header), x)}

        def init(key):
            return ClientState(model.init(rng.named(key, "private")).extractor)

        return Client(init, update, predict)

    return Algorithm(server, client, heads=("global",))
