"""FedProto: federated prototype learning across heterogeneous clients.

A prototype is the mean representation of a class. Every client k trains a private
model of any architecture, an extractor f_k with a header g_k, and uploads the
prototypes of its classes; the server aggregates them class by class, and the global
prototypes regularise the next local training: the representation of an example is
pulled towards the prototype of its class.

    C_k,c = mean of f_k(x) over client k's examples of class c
    C_c   = mean of C_k,c over the participants that hold class c    on the server
    L_k   = CE(g_k(f_k(x)), y) + lambda MSE(f_k(x), C_y)

Inference looks for the nearest global prototype, argmin_c ||f_k(x) - C_c||.

Reference:
    Tan et al., FedProto: Federated Prototype Learning across Heterogeneous
    Clients, AAAI 2022. https://arxiv.org/abs/2105.00243

Differences:
    - Local prototypes come from a pass over the training examples with the final
      weights, without augmentation.
    - The aggregate of a class is the unweighted mean over the participants that
      hold it, as in the authors' code; the paper weights by examples.
    - The pull is a mean over examples and coordinates, as in the authors' code. A
      class without prototype adds 0 but stays in the denominator.
    - The prototypes are those of the last round's participants; a class that none
      of them holds is without prototype in the next round.
"""

from typing import NamedTuple

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, prototypes, requirements
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Network, Setup

__all__ = ["fedproto"]


class Trained(NamedTuple):
    """The network that a client's optimizer moves; also its private state."""

    private: Network


def fedproto(setup: Setup, *, weight: float = 1.0) -> Algorithm:
    """Builds FedProto.

    The head `prototype` has minus the mean squared difference to each prototype
    for logits, and -1e9 for a class without, whose examples have no loss; where
    there is no prototype at all, as in the first round, all logits are equal.
    `local` is the client's own header.

    Args:
        setup: `setup.feature_dim` is the width of the prototypes.
        weight: lambda, of the pull towards the prototypes; 0 is standalone
            training.

    Raises:
        ValueError: for a negative weight, or, when a client is built, for a model
            of another width or number of classes.
    """
    requirements.require_at_least(weight=(weight, 0))

    def client(model: Model) -> Client:
        requirements.require_width(model, setup)

        def update(broadcast, state, visit, key):
            def loss(networks, batch, key):
                f, g = networks.private
                network = model.training(rng.named(key, "private"))
                features = network.features(f, batch.x)
                logits = network.head(g, features)
                ce = losses.cross_entropy(logits, batch.y, batch.mask)
                pull = prototypes.pull(broadcast, features, batch)
                total = ce + weight * pull
                return losses.Terms(
                    total, {"total": total, "ce": ce, "prototype": pull}
                )

            networks, metrics, _ = local.train(loss, state, setup, visit, key)
            upload = prototypes.of_features(
                model, networks.private.extractor, setup, visit
            )
            return ClientUpdate(
                state=networks,
                shared=broadcast,
                upload=upload,
                metrics=metrics,
                upload_bytes=prototypes.num_bytes(upload.count > 0, upload.mean),
            )

        def predict(shared, state, x):
            features = model.features(state.private.extractor, x)
            return {
                "prototype": prototypes.nearness(shared, features),
                "local": model.head(state.private.header, features),
            }

        def init(key):
            return Trained(model.init(rng.named(key, "private")))

        return Client(init, update, predict)

    server = prototypes.merging(setup.num_classes, setup.feature_dim)
    return Algorithm(server, client, heads=("prototype", "local"))
