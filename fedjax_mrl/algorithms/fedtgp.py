"""FedTGP: trainable global prototypes with adaptive-margin-enhanced contrast.

Clients do as in FedProto. The server, instead of averaging the uploaded prototypes
P_k,c, trains global ones on them: every class c has an embedding e_c, and a small
network F that all classes share turns it into the prototype. Contrastive learning
brings each uploaded prototype near the global one of its class and away from the
others, by a margin delta that grows with the distance between the classes. With phi
the Euclidean distance and Q_c the mean of P_k,c over the participants:

    P_c     = F(e_c)                                       trainable global prototypes
    delta   = min(max_c min_{c' != c} phi(Q_c, Q_c'), tau)            adaptive margin
    L_P     = - log exp(-(phi(P_k,c, P_c) + delta))
              / (exp(-(phi(P_k,c, P_c) + delta)) + sum_{c' != c} exp(-phi(P_k,c, P_c')))

Reference:
    Zhang et al., FedTGP: Trainable Global Prototypes with
    Adaptive-Margin-Enhanced Contrastive Learning for Data and Model Heterogeneity
    in Federated Learning, AAAI 2024. https://arxiv.org/abs/2401.03230

Differences:
    - A class is without prototype until a participant has uploaded one for it; the
      authors' code sends the untrained vector.
    - Distances are computed from differences, so that they cannot be NaN, and a
      distance of 0 has gradient 0.
    - The width inside the network is that of a representation, as in the authors'
      code; their plain SGD starts afresh each round here too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_mrl.algorithms.fedproto import fedproto
from fedjax_mrl.learning import (
    losses,
    pairs,
    prototypes,
    requirements,
    trainable_prototypes,
)
from fedjax_mrl.learning.trainable_prototypes import Trainable, vectors
from fedjax_mrl.protocol import Algorithm, Server, Setup

__all__ = ["fedtgp"]


class ServerState(NamedTuple):
    """Everything that the server holds."""

    trainable: Trainable
    known: jax.Array  # [L] bool, whether a participant ever held the class


def adaptive_margin(merged: prototypes.Prototypes, largest: float) -> jax.Array:
    """The largest distance from a class to the class nearest to it, capped.

    Args:
        merged: class means over the clients.
        largest: the cap, which also holds if there is only one class.
    """
    between = prototypes.distances(merged.vector, merged.vector)  # [L, L]
    others = merged.known[None, :] & ~jnp.eye(merged.known.size, dtype=bool)
    gaps = jnp.where(others, between, jnp.inf).min(axis=1)
    return jnp.minimum(jnp.where(merged.known, gaps, 0).max(), largest)


def contrast(
    trainable: Trainable, x: jax.Array, y: jax.Array, mask: jax.Array, margin: jax.Array
) -> jax.Array:
    """Cross-entropy of minus the distances, the own class held off by the margin."""
    distance = prototypes.distances(x, vectors(trainable))  # [B, L]
    own = jax.nn.one_hot(y, distance.shape[1], dtype=distance.dtype)
    return losses.cross_entropy(-(distance + margin * own), y, mask)


def fedtgp(
    setup: Setup,
    *,
    weight: float = 10.0,
    max_margin: float = 100.0,
    server_lr: float = 0.01,
    server_epochs: int = 100,
    server_batch_size: int = 10,
) -> Algorithm:
    """Builds FedTGP: the clients and heads of FedProto, and a server that learns.

    Args:
        setup: `setup.feature_dim` is the width of the prototypes.
        weight: lambda, of the pull towards the prototypes; 0 is standalone
            training.
        max_margin: tau, the largest margin; 0 is plain contrastive learning.
        server_lr: learning rate of the prototypes.
        server_epochs: passes over a round's uploaded prototypes, at least 1.
        server_batch_size: uploaded prototypes in a step, at least 1.

    Raises:
        ValueError: for a value out of its range, or, when a client is built, for a
            model of another width or number of classes.
    """
    requirements.require_at_least(max_margin=(max_margin, 0))
    passes = pairs.passes(
        server_lr=server_lr,
        server_epochs=server_epochs,
        server_batch_size=server_batch_size,
    )

    def server_init(key):
        trainable = trainable_prototypes.init(key, setup.num_classes, setup.feature_dim)
        return ServerState(trainable, jnp.zeros((setup.num_classes,), bool))

    def server_update(state, uploads, cohort):
        merged = prototypes.merge(uploads, cohort)
        margin = adaptive_margin(merged, max_margin)
        L_P = lambda trainable, P, c, mask, key: contrast(trainable, P, c, mask, margin)
        start = state.trainable
        trained = pairs.train(L_P, start, uploads, cohort, passes, "prototypes")
        return ServerState(trained, state.known | merged.known)

    def broadcast(state):
        vector = jnp.where(state.known[:, None], vectors(state.trainable), 0)
        return prototypes.Prototypes(vector, state.known)

    def broadcast_bytes(state):
        return prototypes.num_bytes(state.known, state.trainable.embedding)

    release = prototypes.CLASS_SUMS
    server = Server(server_init, broadcast, server_update, broadcast_bytes, release)
    return fedproto(setup, weight=weight)._replace(server=server)
