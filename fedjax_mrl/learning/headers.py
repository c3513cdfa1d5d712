"""Private extractors under one header that all clients share.

FedGen, FedGH and LG-FedAvg have clients of this kind: the extractor, of any
architecture, never leaves; the header comes from the server at the start of each visit.
"""

from typing import NamedTuple

import jax

from fedjax_mrl import rng
from fedjax_mrl.learning import local
from fedjax_mrl.protocol import Key, Model, Network, Params, Setup, Visit


class ClientState(NamedTuple):
    """The part of a client that never leaves it."""

    extractor: Params


def init(model: Model, key: Key) -> ClientState:
    """The client's extractor at first."""
    return ClientState(model.init(rng.named(key, "private")).extractor)


def train(
    loss: local.Loss,
    state: ClientState,
    header: Params,
    setup: Setup,
    visit: Visit,
    key: Key,
) -> tuple[Network, dict[str, jax.Array]]:
    """Trains the extractor under the header, and the header with it.

    Args:
        loss: as `local.train` takes it; its networks are a tuple of one `Network`.
        state: the client's extractor.
        header: as the server sent it.
        setup: optimizer and preparation.
        visit: the client's data in this round.
        key: of the visit.

    Returns:
        The trained network, and the metrics of each step.
    """
    start = (Network(state.extractor, header),)
    networks, metrics, _ = local.train(loss, start, setup, visit, key)
    (network,) = networks
    return network, metrics


def predict(
    model: Model, header: Params, state: ClientState, x: jax.Array
) -> dict[str, jax.Array]:
    """The extractor under the header: head `global`, [B, L]."""
    return {"global": model.logits(Network(state.extractor, header), x)}
