"""FedMRL without Matryoshka learning: two ablations, by the option `readout`.

Networks, fusion and local training are FedMRL's; the headers read other views of the
fused representation R~_k = P_k([G^ex(x) ; F_k^ex(x)]):

    full    l_k = m_lc CE(G^hd(R~_k), y) + m_hf CE(F_k^hd(R~_k), y)
    local   l_k = m_hf CE(F_k^hd(R~_k), y)

With `full` the global header reads all of the vector instead of its prefix, and is as
wide; with `local` there is none, and only the small model's extractor travels.
"""

import functools

import jax.numpy as jnp

from fedjax_mrl import rng
from fedjax_mrl.learning import fusion, losses, servers
from fedjax_mrl.learning.fusion import Trained
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import Algorithm, Client, Model, Setup

_HEADS = {
    "full": ("mix_large", "mix_small", "single_large"),
    "local": ("mix_large", "single_large"),
}


def build(
    readout: str,
    setup: Setup,
    shared_dim: int,
    weights: tuple[float, float],
    aggregation: str,
) -> Algorithm:
    """Builds an ablation of FedMRL.

    Args:
        readout: `full` or `local`.
        setup: `setup.shared` makes the homogeneous small model.
        shared_dim: d1, width of its representation.
        weights: m_lc and m_hf, of the global and of the local header's loss.
        aggregation: `mean`, `uniform` or `last_client`, see `servers.averaging`.

    Raises:
        ValueError: for another readout or aggregation, or, when a client is built,
            for a model narrower than `shared_dim` or, with `full`, of another width
            than `setup.feature_dim`.
    """
    if readout not in _HEADS:
        valid = ", ".join(("nested", *_HEADS))
        raise ValueError(f"readout must be one of {valid}; got {readout!r}.")
    full = readout == "full"
    coarse_weight, fine_weight = weights
    width, num_classes = setup.feature_dim, setup.num_classes
    small_model = setup.shared(shared_dim)

    def init_shared(key):
        network = small_model.init(rng.named(key, "shared"))
        if not full:
            return network._replace(header=())
        header_key = rng.named(key, "full header")
        return network._replace(
            header=layers.init_linear(header_key, width, num_classes)
        )

    def client(local_model: Model) -> Client:
        fusion.require_nesting(local_model, shared_dim)
        if full:
            _require_width(local_model, width)

        def logits(G, F, networks, x):
            theta, omega, phi = networks
            small = G.features(theta.extractor, x)  # G^ex(x): [B, d1]
            large = F.features(omega.extractor, x)  # F_k^ex(x): [B, d2]
            spliced = jnp.concatenate([small, large], axis=-1)  # R_k: [B, d1 + d2]
            fused = layers.linear(phi, spliced)  # R~_k: [B, d2]
            heads = {"mix_large": F.head(omega.header, fused)}
            if full:
                heads["mix_small"] = layers.linear(theta.header, fused)
            heads["single_large"] = F.head(omega.header, large)
            return heads

        def loss(networks, batch, key):
            G = small_model.training(rng.named(key, "shared"))
            F = local_model.training(rng.named(key, "private"))
            heads = logits(G, F, networks, batch.x)
            fine = losses.cross_entropy(heads["mix_large"], batch.y, batch.mask)
            total = fine_weight * fine
            if not full:
                return losses.Terms(total, {"total": total, "fine": fine})
            coarse = losses.cross_entropy(heads["mix_small"], batch.y, batch.mask)
            total = total + coarse_weight * coarse
            return losses.Terms(total, {"total": total, "fine": fine, "coarse": coarse})

        def predict(shared, state, x):
            return logits(small_model, local_model, Trained(shared, *state), x)

        init = lambda key: fusion.init(local_model, shared_dim, key)
        update = functools.partial(fusion.update, loss, setup)
        return Client(init, update, predict)

    server = servers.averaging(init_shared, aggregation)
    return Algorithm(server, client, heads=_HEADS[readout])


def _require_width(model: Model, width: int) -> None:
    if model.feature_dim != width:
        raise ValueError(
            "With readout=full the global header reads every client's whole "
            f"vector, so all models need feature_dim {width}; {model.name} has "
            f"{model.feature_dim}."
        )
