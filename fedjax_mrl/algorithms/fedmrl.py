"""FedMRL: model-heterogeneous federated Matryoshka representation learning.

Every client k trains a private heterogeneous local model F_k beside a homogeneous
small model G that all share, each an extractor (ex) with a header (hd) on top. A
private representation projector P_k fuses both representations. The global header
reads the leading coordinates of the fused vector (coarse), the local header reads all
of it (fine). Only the small model travels.

With theta, omega_k and phi_k the parameters of G, F_k and P_k, d1 the width of the
small model's representation and d2 >= d1 that of the local model's:

    R_k    = [G^ex(x) ; F_k^ex(x)]                both representations, spliced
    R~_k   = P_k(R_k)                             linear, d1 + d2 -> d2, with bias
    y_G    = G^hd(R~_k[1 : d1])                   coarse, low-dimensional view
    y_F    = F_k^hd(R~_k[1 : d2])                 fine, high-dimensional view
    l_k    = m_lc CE(y_G, y) + m_hf CE(y_F, y)
    (theta_k, omega_k, phi_k) <- one step down the gradient of l_k, for all jointly
    theta  = sum_k n_k / n  theta_k               over the participants, on the server

Inference is y_F (`mix_large`). Three more modes are studied: y_G (`mix_small`), and
each extractor straight into its own header, without projector: G^hd(G^ex(x))
(`single_small`) and F_k^hd(F_k^ex(x)) (`single_large`).

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

import functools

import jax.numpy as jnp

from fedjax_mrl import rng
from fedjax_mrl.algorithms import fedmrl_ablations
from fedjax_mrl.learning import fusion, losses, requirements, servers
from fedjax_mrl.learning.fusion import Trained
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import Algorithm, Client, Model, Setup

__all__ = ["fedmrl"]


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
        coarse_weight: m_lc, weight of the global header's loss; 0 leaves that header
            to weight decay.
        fine_weight: m_hf, weight of the local header's loss.
        aggregation: `mean`, `uniform` or `last_client`, see `servers.averaging`.
        readout: `nested` is the method; `full` and `local` are ablations without
            Matryoshka learning, see `fedmrl_ablations`.

    Raises:
        ValueError: for an unknown readout or aggregation, or, when a client is
            built, for a model narrower than `shared_dim`.
    """
    requirements.require_at_least(shared_dim=(shared_dim, 1))
    weights = (coarse_weight, fine_weight)
    if readout != "nested":
        return fedmrl_ablations.build(readout, setup, shared_dim, weights, aggregation)
    small_model = setup.shared(shared_dim)

    def client(local_model: Model) -> Client:
        fusion.require_nesting(local_model, shared_dim)

        def forward(G, F, networks, x):
            theta, omega, phi = networks
            small = G.features(theta.extractor, x)  # G^ex(x): [B, d1]
            large = F.features(omega.extractor, x)  # F_k^ex(x): [B, d2]
            spliced = jnp.concatenate([small, large], axis=-1)  # R_k: [B, d1 + d2]
            fused = layers.linear(phi, spliced)  # R~_k: [B, d2]
            coarse = G.head(theta.header, fused[:, :shared_dim])  # [B, L]
            fine = F.head(omega.header, fused)  # [B, L]
            return small, large, coarse, fine

        def loss(networks, batch, key):
            G = small_model.training(rng.named(key, "shared"))
            F = local_model.training(rng.named(key, "private"))
            *_, coarse, fine = forward(G, F, networks, batch.x)
            fine = losses.cross_entropy(fine, batch.y, batch.mask)
            coarse = losses.cross_entropy(coarse, batch.y, batch.mask)
            total = fine_weight * fine + coarse_weight * coarse
            return losses.Terms(total, {"total": total, "fine": fine, "coarse": coarse})

        def predict(shared, state, x):
            small, large, coarse, fine = forward(
                small_model, local_model, Trained(shared, *state), x
            )
            return {
                "mix_large": fine,
                "mix_small": coarse,
                "single_small": small_model.head(shared.header, small),
                "single_large": local_model.head(state.private.header, large),
            }

        init = lambda key: fusion.init(local_model, shared_dim, key)
        update = functools.partial(fusion.update, loss, setup)
        return Client(init, update, predict)

    server = servers.averaging(
        lambda key: small_model.init(rng.named(key, "shared")), aggregation
    )
    heads = ("mix_large", "mix_small", "single_small", "single_large")
    return Algorithm(server, client, heads=heads)
