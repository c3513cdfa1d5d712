"""A small shared model beside a private one, and the projector that fuses the two.

Types and checks that FedMRL and its ablations have in common. Shape letters: d width
of the shared representation, D width of the private one and of the fused one.
"""

from collections.abc import Callable
from typing import NamedTuple

from fedjax_mrl import rng
from fedjax_mrl.learning import local
from fedjax_mrl.learning.losses import Terms
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import (
    Batch,
    ClientUpdate,
    Key,
    Model,
    Network,
    Params,
    Setup,
    Visit,
)


class ClientState(NamedTuple):
    """The part of a client that never leaves it."""

    private: Network  # heterogeneous local model F_k
    projector: Params  # P_k: kernel [d + D, D], bias [D]


class Trained(NamedTuple):
    """The networks that a client's optimizer moves, each clipped by itself."""

    shared: Network  # homogeneous small model G
    private: Network
    projector: Params


def init(model: Model, shared_dim: int, key: Key) -> ClientState:
    """Initialises a client's private model and its projector.

    Args:
        model: the client's.
        shared_dim: d.
        key: split between the two by name.
    """
    widths = (shared_dim + model.feature_dim, model.feature_dim)
    return ClientState(
        model.init(rng.named(key, "private")),
        layers.init_linear(rng.named(key, "projector"), *widths),
    )


def update(
    loss: Callable[[Trained, Batch, Key], Terms],
    setup: Setup,
    broadcast: Network,
    state: ClientState,
    visit: Visit,
    key: Key,
) -> ClientUpdate:
    """Trains all three jointly; the small model travels, the rest stays.

    Args:
        loss: networks, minibatch, key -> `Terms`.
        setup: optimizer and image preparation.
        broadcast: the small model as it is received.
        state: the client's.
        visit: its data of the round.
        key: of the visit.
    """
    start = Trained(broadcast, *state)
    networks, metrics, _ = local.train(loss, start, setup, visit, key)
    state = ClientState(networks.private, networks.projector)
    return ClientUpdate(state, networks.shared, networks.shared, metrics)


def require_nesting(model: Model, shared_dim: int) -> None:
    """Checks that the fused representation has room for the shared one.

    Raises:
        ValueError: if the client's model is narrower than `shared_dim`.
    """
    if shared_dim > model.feature_dim:
        raise ValueError(
            "FedMRL nests the shared representation in the private one, so "
            f"shared_dim must be at most {model.feature_dim}, the width of "
            f"{model.name}; got {shared_dim}. Lower --shared-dim, or widen the model "
            "(--feature-dim; a model of your own in its code)."
        )
