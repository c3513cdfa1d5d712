"""FedMRL: model-heterogeneous federated Matryoshka representation learning.

Every client trains a private heterogeneous local model beside a small
homogeneous model that all share. A private representation projector fuses both
representations; the global header reads the leading coordinates of the fused
vector (coarse), the local header reads all of it (fine). Only the homogeneous
small model travels.

Reference:
    Yi et al., Federated Model Heterogeneous Matryoshka Representation Learning,
    NeurIPS 2024. https://arxiv.org/abs/2406.00488

Differences:
    - The server averages. In the authors' code the uploads are references to one
      network, so the last participant of the round's random order wins; with
      `aggregation="last_client"` a participant drawn at random does.
    - Aggregation weights count training samples, not test samples.
    - Momentum starts at zero at each visit instead of leaking between clients.
"""

from typing import NamedTuple

import jax.numpy as jnp

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, servers
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import (
    Algorithm,
    Client,
    ClientUpdate,
    Model,
    Network,
    Params,
    Setup,
)

__all__ = ["fedmrl"]

_HEADS = {
    "nested": ("mix_large", "mix_small", "single_small", "single_large"),
    "full": ("mix_large", "mix_small", "single_large"),
    "local": ("mix_large", "single_large"),
}


class ClientState(NamedTuple):
    """What never leaves a client."""

    private: Network  # heterogeneous local model F_k
    projector: Params  # P_k: kernel [d + D, D], bias [D]


class Trained(NamedTuple):
    """What a client's optimizer moves, each part clipped by itself."""

    shared: Network  # homogeneous small model G
    private: Network
    projector: Params


def fedmrl(
    setup: Setup,
    *,
    shared_dim: int = 100,
    coarse_weight: float = 1.0,
    fine_weight: float = 1.0,
    aggregation: str = "mean",
    readout: str = "nested",
) -> Algorithm:
    """Builds FedMRL.

    Args:
        setup: `setup.shared` makes the homogeneous small model.
        shared_dim: d1, width of its representation; at most that of any client.
        coarse_weight: weight of the global header's loss; 0 leaves that header
            to weight decay.
        fine_weight: weight of the local header's loss.
        aggregation: `mean`, `uniform` or `last_client`, see `servers.averaging`.
        readout: `nested` is the method. Two ablations without Matryoshka
            learning: with `full` both headers read the whole fused vector; with
            `local` there is no global header, and only the extractor travels.

    Raises:
        ValueError: for an unknown readout or aggregation, or, when a client is
            built, for a model narrower than `shared_dim`.
    """
    if readout not in _HEADS:
        raise ValueError(
            f"readout must be one of {', '.join(_HEADS)}; got {readout!r}."
        )
    if shared_dim < 1:
        raise ValueError(f"shared_dim must be at least 1; got {shared_dim}.")
    shared = setup.shared(shared_dim)
    reads = setup.feature_dim if readout == "full" else shared_dim

    def init_shared(key):
        network = shared.init(rng.named(key, "shared"))
        if readout == "full":
            header_key = rng.named(key, "full header")
            header = layers.init_linear(header_key, reads, setup.num_classes)
            network = network._replace(header=header)
        return network if readout != "local" else network._replace(header=())

    def client(model: Model) -> Client:
        if shared_dim > model.feature_dim:
            raise ValueError(
                "FedMRL nests the shared representation in the private one, so "
                f"shared_dim must be at most {model.feature_dim}, the width of "
                f"{model.name}; got {shared_dim}. Lower --shared-dim or raise "
                "--feature-dim."
            )
        if readout == "full" and model.feature_dim != reads:
            raise ValueError(
                "With readout=full the global header reads every client's whole "
                f"vector, so all models need feature_dim {reads}; {model.name} has "
                f"{model.feature_dim}."
            )

        def logits(networks, x):
            small = shared.features(networks.shared.extractor, x)  # [B, d]
            large = model.features(networks.private.extractor, x)  # [B, D]
            fused = layers.linear(
                networks.projector, jnp.concatenate([small, large], axis=-1)
            )  # [B, D]
            header = networks.private.header
            heads = {"mix_large": model.head(header, fused)}
            if readout != "local":
                coarse = fused[:, :reads]
                heads["mix_small"] = shared.head(networks.shared.header, coarse)
            if readout == "nested":
                heads["single_small"] = shared.head(networks.shared.header, small)
            heads["single_large"] = model.head(header, large)
            return heads

        def loss(networks, batch, key):
            del key  # not stochastic
            heads = logits(networks, batch.x)
            fine = losses.cross_entropy(heads["mix_large"], batch.y, batch.mask)
            total = fine_weight * fine
            metrics = {"fine": fine}
            if readout != "local":
                coarse = losses.cross_entropy(heads["mix_small"], batch.y, batch.mask)
                total = total + coarse_weight * coarse
                metrics["coarse"] = coarse
            return losses.Terms(total, {"total": total, **metrics})

        def init(key):
            fused_dim = shared_dim + model.feature_dim
            return ClientState(
                model.init(rng.named(key, "private")),
                layers.init_linear(
                    rng.named(key, "projector"), fused_dim, model.feature_dim
                ),
            )

        def update(broadcast, state, visit, key):
            networks, metrics, _ = local.train(
                loss, Trained(broadcast, *state), setup, visit, key
            )
            return ClientUpdate(
                state=ClientState(networks.private, networks.projector),
                shared=networks.shared,
                upload=networks.shared,
                metrics=metrics,
            )

        def predict(shared_network, state, x):
            return logits(Trained(shared_network, *state), x)

        return Client(init, update, predict)

    return Algorithm(
        servers.averaging(init_shared, aggregation), client, heads=_HEADS[readout]
    )
