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

from typing import NamedTuple

import optax

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, pairs, prototypes, requirements
from fedjax_mrl.protocol import (
    Algorithm,
    Batches,
    Client,
    ClientUpdate,
    Cohort,
    Key,
    Model,
    Network,
    Params,
    Server,
    Setup,
)

__all__ = ["fedgh"]


class ClientState(NamedTuple):
    """The part of a client that never leaves it."""

    extractor: Params


def train_header(
    model: Model,
    header: Params,
    examples: pairs.Pairs,
    order: Batches,
    learning_rate: float,
    key: Key,
):
    """Takes SGD steps on pairs of representation and label, in a given order.

    Args:
        model: any model that has headers like this one.
        header: where to start.
        examples: the participants' uploads.
        order: minibatches as positions in `examples`.
        learning_rate: of plain SGD.
        key: of the steps, by which a header with random parts draws them.

    Returns:
        The header, and its loss before each step, [S].
    """

    def loss(header, x, y, mask, key):
        logits = model.training(key).head(header, x)
        return losses.cross_entropy(logits, y, mask)

    return pairs.fit(loss, header, examples, order, optax.sgd(learning_rate), key)


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
            model of another width or number of classes.
    """
    requirements.require_at_least(
        server_lr=(server_lr, 0),
        server_epochs=(server_epochs, 1),
        server_batch_size=(server_batch_size, 1),
    )
    shared = setup.shared(setup.feature_dim)

    def server_update(header, uploads, cohort: Cohort):
        examples = pairs.of_uploads(uploads, cohort)
        order = pairs.shuffled(cohort.key, examples, server_epochs, server_batch_size)
        key = rng.named(cohort.key, "header")
        return train_header(shared, header, examples, order, server_lr, key)[0]

    server = Server(
        init=lambda key: shared.init(rng.named(key, "shared")).header,
        broadcast=lambda header: header,
        update=server_update,
        release=prototypes.CLASS_SUMS,
    )

    def client(model: Model) -> Client:
        requirements.require_width(model, setup)

        def loss(networks, batch, key):
            network = model.training(rng.named(key, "private"))
            (private,) = networks
            logits = network.logits(private, batch.x)
            total = losses.cross_entropy(logits, batch.y, batch.mask)
            return losses.Terms(total, {"total": total})

        def update(broadcast, state, visit, key):
            start = (Network(state.extractor, broadcast),)
            networks, metrics, _ = local.train(loss, start, setup, visit, key)
            ((extractor, header),) = networks
            upload = prototypes.of_features(model, extractor, setup, visit)
            return ClientUpdate(
                state=ClientState(extractor),
                shared=header,
                upload=upload,
                metrics=metrics,
                upload_bytes=prototypes.num_bytes(upload.count > 0, upload.mean),
            )

        def predict(header, state, x):
            return {"global": model.logits(Network(state.extractor, header), x)}

        def init(key):
            return ClientState(model.init(rng.named(key, "private")).extractor)

        return Client(init, update, predict)

    return Algorithm(server, client, heads=("global",))
