"""FedKD: communication-efficient federated learning via knowledge distillation.

Every client trains a private mentor (t, teacher) of any architecture beside the mentee
(s, student) that all share. They learn from the labels, from each other's predictions
and from each other's hidden representation H, through a private matrix W:

    c   = CE(p_t, y) + CE(p_s, y)
    L_t = CE(p_t, y) + KL(p_s || p_t) / c + MSE(H_t, H_s W) / c
    L_s = CE(p_s, y) + KL(p_t || p_s) / c + MSE(H_t, H_s W) / c

Only updates of the mentee travel, both ways, every matrix compressed by a truncated
singular value decomposition (svd) that keeps an energy, a share e of the squared
singular values, in round t of T:

    g_k    = svd_e(theta_k - theta),   e = e_start + t/T (e_end - e_start)
    theta <- theta + svd_e(1/K sum_k g_k)

Inference is the mentor.

Reference:
    Wu et al., Communication-efficient federated learning via knowledge distillation,
    Nature Communications 13, 2022. https://doi.org/10.1038/s41467-022-29763-x

Differences:
    - Attention maps, which the paper aligns too, do not exist in our networks.
    - Updates of whole visits are compressed, as in the authors' code; the paper
      compresses the gradient of every minibatch.
    - If only all singular values reach the energy, all are kept; the authors' code
      then keeps none. They train with Adam; here `setup.optimizer` decides.
    - A client that missed rounds gets the exact model; what it missed is no traffic.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl import rng
from fedjax_mrl.learning import compression, local, losses, mutual
from fedjax_mrl.learning.fusion import Trained
from fedjax_mrl.models import layers
from fedjax_mrl.ops import matmul
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Network, Setup

__all__ = ["fedkd"]


class ClientState(NamedTuple):
    """The part of a client that never leaves it."""

    private: Network  # mentor
    projector: jax.Array  # W [D mentee, D mentor], no bias


def fedkd(
    setup: Setup,
    *,
    energy_start: float = 0.95,
    energy_end: float = 0.98,
    detach: bool = False,
    aggregation: str = "uniform",
) -> Algorithm:
    """Builds FedKD.

    Args:
        setup: `setup.shared` makes the mentee, at width `setup.feature_dim`.
        energy_start: share of the squared singular values that an update keeps, in
            (0, 1]; 1 sends updates as they are.
        energy_end: the same in round T, `setup.num_rounds`.
        detach: whether a model's loss takes the other model's outputs and c as
            constants, so that each follows its own loss alone; the authors' code
            lets the gradient of the sum go through everything.
        aggregation: `uniform` is the method, `mean` weights updates by training
            samples, see `servers.averaging`.

    Raises:
        ValueError: for an energy outside of (0, 1] or an unknown aggregation.
    """
    svd = compression.at_energy(energy_start, energy_end, setup.num_rounds)
    mentee_model = setup.shared(setup.feature_dim)
    fixed = lax.stop_gradient if detach else lambda value: value

    def client(mentor_model: Model) -> Client:
        def loss(networks, batch, key):
            mentor, mentee = mutual.training(mentor_model, mentee_model, key)
            H_t = mentor.features(networks.private.extractor, batch.x)
            H_s = mentee.features(networks.shared.extractor, batch.x)
            z_t = mentor.head(networks.private.header, H_t)
            z_s = mentee.head(networks.shared.header, H_s)
            ce_t, ce_s, kl_t, kl_s = mutual.losses_of(z_t, z_s, batch, teacher=fixed)

            def hidden(H_t, H_s):
                projected = matmul.matmul(H_s, networks.projector)
                return losses.squared_error(H_t, projected, batch.mask)

            # Equal values; with `detach` each moves one of the two models.
            hidden_t, hidden_s = hidden(H_t, fixed(H_s)), hidden(fixed(H_t), H_s)
            c = fixed(losses.positive(ce_t + ce_s))
            L_t = ce_t + kl_t / c + hidden_t / c
            L_s = ce_s + kl_s / c + hidden_s / c
            metrics = {"total": L_t + L_s, "mentor": L_t, "mentee": L_s}
            metrics |= {"ce_mentor": ce_t, "ce_mentee": ce_s}
            metrics |= {"kl_mentor": kl_t, "kl_mentee": kl_s, "hidden": hidden_t}
            return losses.Terms(metrics["total"], metrics)

        def update(broadcast, state, visit, key):
            start = Trained(broadcast, *state)
            networks, metrics, _ = local.train(loss, start, setup, visit, key)
            theta, *kept = networks
            moved = jax.tree.map(jnp.subtract, theta, broadcast)
            g = svd(moved, visit.round)
            size = compression.num_bytes(*g)
            return ClientUpdate(ClientState(*kept), theta, g.values, metrics, size)

        def predict(mentee, state, x):
            z_t = mentor_model.logits(state.private, x)
            return {"mentor": z_t, "mentee": mentee_model.logits(mentee, x)}

        def init(key):
            widths = (mentee_model.feature_dim, mentor_model.feature_dim)
            projector = layers.init_linear(rng.named(key, "projector"), *widths)
            private = mentor_model.init(rng.named(key, "private"))
            return ClientState(private, projector["kernel"])

        return Client(init, update, predict)

    init = lambda key: mentee_model.init(rng.named(key, "shared"))
    server = compression.server(init, svd, aggregation)
    return Algorithm(server, client, heads=("mentor", "mentee"))
