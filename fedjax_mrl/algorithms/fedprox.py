"""FedProx: federated averaging with a proximal term.

As FedAvg, but a participant minimises its loss plus mu / 2 times the squared
distance to the global model w that it was sent, which keeps the clients of a
heterogeneous federation from drifting apart.

    h_k(w_k; w) = CE(f(x; w_k), y) + mu / 2 ||w_k - w||^2     minimised by client k
    w           = sum_k n_k / n  w_k                          on the server

Reference:
    Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020.
    https://arxiv.org/abs/1812.06127

Differences:
    - Stragglers, which the paper lets do fewer epochs, complete a part of their local
      steps, and only if the run's option `straggler` says so.
    - The paper samples clients in proportion to their data and averages equally;
      here they are sampled equally and averaged in proportion to their data.
    - The authors' clients take plain gradient steps; here they take those of
      `setup.optimizer`, and the proximal term is part of the clipped gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, requirements, servers
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Network, Setup

__all__ = ["fedprox"]


class ClientState(NamedTuple):
    """The part of a client that never leaves it: nothing."""


class Trained(NamedTuple):
    """The network that a client's optimizer moves."""

    shared: Network  # the client's copy of the global model


def fedprox(setup: Setup, *, mu: float = 0.01) -> Algorithm:
    """Builds FedProx.

    Args:
        setup: `setup.shared` makes the global model, at width `setup.feature_dim`.
        mu: weight of the proximal term, at least 0; 0 is FedAvg.

    Raises:
        ValueError: for a negative `mu`, or, when a client is built, for another
            architecture than that of the global model.
    """
    requirements.require_at_least("Set 0 for FedAvg.", mu=(mu, 0))
    shared = setup.shared(setup.feature_dim)

    def client(model: Model) -> Client:
        requirements.require_equal("FedProx", model, shared)

        def update(broadcast, state, visit, key):
            def loss(networks, batch, key):
                network = model.training(rng.named(key, "shared"))
                logits = network.logits(networks.shared, batch.x)
                ce = losses.cross_entropy(logits, batch.y, batch.mask)
                moved = jax.tree.map(jnp.subtract, networks.shared, broadcast)
                proximal = mu / 2 * optax.tree.norm(moved, squared=True)
                total = ce + proximal
                metrics = {"total": total, "ce": ce, "proximal": proximal}
                return losses.Terms(total, metrics)

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
