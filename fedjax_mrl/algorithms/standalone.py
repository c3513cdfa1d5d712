"""Standalone training: every client learns from its own data, nothing travels.

The first comparison of every federated method.

    w_k <- w_k - eta grad CE(f_k(x; w_k), y)        for each minibatch of client k
"""

from typing import NamedTuple

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, servers
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Network, Setup

__all__ = ["standalone"]


class Trained(NamedTuple):
    """The network that a client's optimizer moves; also its private state."""

    private: Network


def standalone(setup: Setup) -> Algorithm:
    """Builds standalone training; accepts any model."""

    def client(model: Model) -> Client:
        def loss(networks, batch, key):
            network = model.training(rng.named(key, "private"))
            logits = network.logits(networks.private, batch.x)
            total = losses.cross_entropy(logits, batch.y, batch.mask)
            return losses.Terms(total, {"total": total})

        def update(broadcast, state, visit, key):
            del broadcast  # nothing travels
            networks, metrics, _ = local.train(loss, state, setup, visit, key)
            return ClientUpdate(networks, (), (), metrics)

        def predict(shared, state, x):
            del shared
            return {"local": model.logits(state.private, x)}

        def init(key):
            return Trained(model.init(rng.named(key, "private")))

        return Client(init, update, predict)

    return Algorithm(servers.constant(), client, heads=("local",))
