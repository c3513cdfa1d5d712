"""FedAvg: federated averaging.

The server sends the global model w, every participant k trains it on its own n_k
examples, and the server replaces it by the average of what comes back, weighted by the
number of training samples. All clients have one architecture and keep nothing.

    w_k <- w_k - eta grad CE(f(x; w_k), y)        for each minibatch, from w_k = w
    w    = sum_k n_k / n  w_k                     over the participants, n = sum_k n_k

Reference:
    McMahan et al., Communication-Efficient Learning of Deep Networks from
    Decentralized Data, AISTATS 2017. https://arxiv.org/abs/1602.05629

Differences:
    - The paper's clients take plain SGD steps; here they take those of
      `setup.optimizer` (clipping, weight decay, momentum from zero at each visit).
"""

from typing import NamedTuple

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, requirements, servers
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Network, Setup

__all__ = ["fedavg"]


class ClientState(NamedTuple):
    """The part of a client that never leaves it: nothing."""


class Trained(NamedTuple):
    """The network that a client's optimizer moves."""

    shared: Network  # the client's copy of the global model


def fedavg(setup: Setup) -> Algorithm:
    """Builds FedAvg.

    Args:
        setup: `setup.shared` makes the global model, at width `setup.feature_dim`.

    Raises:
        ValueError: when a client is built, for another architecture than that.
    """
    shared = setup.shared(setup.feature_dim)

    def client(model: Model) -> Client:
        requirements.require_equal("FedAvg", model, shared)

        def loss(networks, batch, key):
            network = model.training(rng.named(key, "shared"))
            logits = network.logits(networks.shared, batch.x)
            total = losses.cross_entropy(logits, batch.y, batch.mask)
            return losses.Terms(total, {"total": total})

        def update(broadcast, state, visit, key):
            networks, metrics, _ = local.train(
                loss, Trained(broadcast), setup, visit, key
            )
            return ClientUpdate(state, networks.shared, networks.shared, metrics)

        def predict(network, state, x):
            del state  # nothing is private
            return {"global": model.logits(network, x)}

        return Client(lambda key: ClientState(), update, predict)

    server = servers.averaging(lambda key: shared.init(rng.named(key, "shared")))
    return Algorithm(server, client, heads=("global",))
