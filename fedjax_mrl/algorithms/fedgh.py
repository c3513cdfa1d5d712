"""FedGH: heterogeneous federated learning with a generalized global header.

Clients k have private extractors F_k of any architecture and replace their header by
the global one, H, at the start of each visit. They upload the mean representation of
each of their classes with its label, never their header; the server trains the global
header on these pairs.

    (F_k, H_k) <- (F_k, H_k) - eta grad CE(H_k(F_k(x)), y)      from H_k = H
    R_k,c       = mean of F_k(x) over client k's examples of class c
    H          <- H - eta_server grad CE(H(R_k,c), c)           on the server

Inference is H(F_k(x)).

Reference:
    Yi et al., FedGH: Heterogeneous Federated Learning with Generalized Global
    Header, ACM MM 2023. https://arxiv.org/abs/2303.13137

Differences:
    - The server's header has an optimizer: plain SGD. The authors' code makes none
      for it, so there the header never moves.
    - All pairs of a round form one data set, shuffled for each of `server_epochs`.
    - Representations are averaged with the client's final weights, without
      augmentation.
"""

import functools

from fedjax_mrl import rng
from fedjax_mrl.learning import headers, losses, pairs, prototypes, requirements
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Server, Setup

__all__ = ["fedgh"]


def server_loss(model: Model, header, R, c, mask, key):
    """CE(H(R), c) of representations R [B, D] of classes c [B]; H are `model`'s."""
    logits = model.training(key).head(header, R)
    return losses.cross_entropy(logits, c, mask)


def fedgh(
    setup: Setup,
    *,
    server_lr: float = 0.05,
    server_epochs: int = 2,
    server_batch_size: int = 8,
) -> Algorithm:
    """Builds FedGH.

    Args:
        setup: `setup.shared` makes the global header, for representations of width
            `setup.feature_dim`.
        server_lr: learning rate of the global header; 0 leaves it as it began.
        server_epochs: passes over a round's pairs, at least 1.
        server_batch_size: pairs in a step, at least 1.

    Raises:
        ValueError: for a value out of its range, or, when a client is built, for a
            model of another width, number of classes or header.
    """
    passes = pairs.passes(
        server_lr=server_lr,
        server_epochs=server_epochs,
        server_batch_size=server_batch_size,
    )
    global_model = setup.shared(setup.feature_dim)

    def server_update(header, uploads, cohort):
        loss = functools.partial(server_loss, global_model)
        return pairs.train(loss, header, uploads, cohort, passes, "header")

    server = Server(
        init=lambda key: global_model.init(rng.named(key, "shared")).header,
        broadcast=lambda header: header,
        update=server_update,
        release=prototypes.CLASS_SUMS,
    )

    def client(model: Model) -> Client:
        requirements.require_header(model, setup)

        def loss(networks, batch, key):
            (private,) = networks
            network = model.training(rng.named(key, "private"))
            logits = network.logits(private, batch.x)  # H_k(F_k(x))
            total = losses.cross_entropy(logits, batch.y, batch.mask)
            return losses.Terms(total, {"total": total})

        def update(header, state, visit, key):
            network, metrics = headers.train(loss, state, header, setup, visit, key)
            means = prototypes.of_features(model, network.extractor, setup, visit)
            return ClientUpdate(
                state=headers.ClientState(network.extractor),
                shared=network.header,
                upload=means,
                metrics=metrics,
                upload_bytes=prototypes.num_bytes(means.count > 0, means.mean),
            )

        init = functools.partial(headers.init, model)
        predict = functools.partial(headers.predict, model)
        return Client(init, update, predict)

    return Algorithm(server, client, heads=("global",))
