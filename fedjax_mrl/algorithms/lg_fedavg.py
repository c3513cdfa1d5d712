"""LG-FedAvg: local representations, one global header.

Every client k learns its own representation with a private (local) extractor l_k of
any architecture; only the (global) header g on top of it travels and is averaged,
weighted by the number of training samples. A participant trains both together.

    (l_k, g_k) <- (l_k, g_k) - eta grad CE(g_k(l_k(x)), y)      from g_k = g
    g           = sum_k n_k / n  g_k                            on the server

Inference is g(l_k(x)).

Reference:
    Liang et al., Think Locally, Act Globally: Federated Learning with Local and
    Global Representations, 2020. https://arxiv.org/abs/2001.01523

Differences:
    - The global part is the header alone; in the paper it is any number of the last
      layers.
    - The authors' code starts from a model trained with FedAvg and averages equally;
      here training starts from scratch and averages by samples.
    - A client that does not take part keeps the header it last trained until its
      next visit, where the authors' code overwrites everyone's at every round.
    - The ensemble of all local models, which the authors also test, is left out.
"""

import functools

from fedjax_mrl import rng
from fedjax_mrl.learning import headers, losses, requirements, servers
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Setup

__all__ = ["lg_fedavg"]


def lg_fedavg(setup: Setup) -> Algorithm:
    """Builds LG-FedAvg.

    Args:
        setup: the header is that of `setup.shared` at width `setup.feature_dim`.

    Raises:
        ValueError: when a client is built, for a model of another width or header.
    """
    shared = setup.shared(setup.feature_dim)

    def client(model: Model) -> Client:
        requirements.require_header(model, setup)

        def loss(networks, batch, key):
            (private,) = networks
            network = model.training(rng.named(key, "private"))
            logits = network.logits(private, batch.x)
            total = losses.cross_entropy(logits, batch.y, batch.mask)
            return losses.Terms(total, {"total": total})

        def update(header, state, visit, key):
            network, metrics = headers.train(loss, state, header, setup, visit, key)
            extractor, header = network
            state = headers.ClientState(extractor)
            return ClientUpdate(state, header, header, metrics)

        init = functools.partial(headers.init, model)
        predict = functools.partial(headers.predict, model)
        return Client(init, update, predict)

    server = servers.averaging(lambda key: shared.init(rng.named(key, "shared")).header)
    return Algorithm(server, client, heads=("global",))
