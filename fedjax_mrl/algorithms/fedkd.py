"""FedKD: communication-efficient federated learning via knowledge distillation.

Every client trains a private mentor (t, teacher) of any architecture beside the mentee
(s, student) that all share. They learn from the labels, from each other's predictions
(adaptive mutual distillation) and from each other's hidden representation H, through a
private matrix W from the mentee's to the mentor's width (adaptive hidden losses):

    c   = CE(p_t, y) + CE(p_s, y)
    L_t = CE(p_t, y) + KL(p_s || p_t) / c + MSE(H_t, H_s W) / c
    L_s = CE(p_s, y) + KL(p_t || p_s) / c + MSE(H_t, H_s W) / c

Distillation counts for more the better the two have become. Only updates of the mentee
travel, both ways, every matrix compressed by a truncated singular value decomposition
that keeps an energy (share of the squared singular values) which grows over the rounds:

    g_k    = svd_e(theta_k - theta),   e = e_start + t/T (e_end - e_start)
    theta <- theta + svd_e(1/K sum_k g_k)

Inference is the mentor.

Reference:
    Wu et al., Communication-efficient federated learning via knowledge distillation,
    Nature Communications 13, 2022. https://doi.org/10.1038/s41467-022-29763-x

Differences:
    - Attention maps, which the paper aligns too, do not exist in our networks.
    - The local epochs of a visit make one update; the paper compresses the gradient
      of every minibatch. The authors' code compresses updates as well.
    - If only all singular values together reach the energy, all are kept; the authors'
      code then keeps none.
    - The authors' experiments train with Adam; here `setup.optimizer` decides.
    - A client that missed rounds is sent the server's model exactly, and what it
      missed is not counted as traffic: a broadcast counts the last compressed
      update, and before there is one, the whole model.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl import rng
from fedjax_mrl.learning import compression, local, losses, mutual, schedules, servers
from fedjax_mrl.models import layers
from fedjax_mrl.ops import matmul
from fedjax_mrl.protocol import (
    Algorithm,
    Client,
    ClientUpdate,
    Model,
    Network,
    Server,
    Setup,
)

__all__ = ["fedkd"]


class ServerState(NamedTuple):
    """The mentee, and how far its last update was compressed."""

    shared: Network  # mentee
    ranks: Any  # of its last update, [] int32 for each parameter tensor


class ClientState(NamedTuple):
    """The part of a client that never leaves it."""

    private: Network  # mentor
    projector: jax.Array  # W [D mentee, D mentor], no bias


class Trained(NamedTuple):
    """The networks that a client's optimizer moves, each clipped by itself."""

    shared: Network
    private: Network
    projector: jax.Array


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
            (0, 1]; 1 sends updates as they are. In round t it is `energy_start` + t /
            `setup.num_rounds` (`energy_end` - `energy_start`).
        energy_end: the same share in the last round.
        detach: whether a model's loss takes the other model's outputs and the divisor
            as constants, so that each follows its own loss alone. In the authors'
            code the gradient of the sum of both losses goes through everything.
        aggregation: `uniform` is the method, `mean` weights updates by training
            samples, see `servers.averaging`.

    Raises:
        ValueError: for an energy outside of (0, 1] or an unknown aggregation.
    """
    compression.require_energy(energy_start=energy_start, energy_end=energy_end)
    mentee_model = setup.shared(setup.feature_dim)
    fixed = lax.stop_gradient if detach else lambda value: value

    def compress(update, round):
        energy = schedules.growing(energy_start, energy_end, round, setup.num_rounds)
        return compression.compress(update, energy)

    def client(mentor_model: Model) -> Client:
        def loss(networks, batch, key):
            mentor, mentee = mutual.training(mentor_model, mentee_model, key)
            h_t = mentor.features(networks.private.extractor, batch.x)
            h_s = mentee.features(networks.shared.extractor, batch.x)
            z_t = mentor.head(networks.private.header, h_t)
            z_s = mentee.head(networks.shared.header, h_s)
            parts = mutual.losses_of(z_t, z_s, batch, teacher=fixed)

            def hidden(h_t, h_s):
                projected = matmul.matmul(h_s, networks.projector)
                return losses.squared_error(h_t, projected, batch.mask)

            # Equal values; with `detach` each moves one of the two models.
            hidden_t, hidden_s = hidden(h_t, fixed(h_s)), hidden(fixed(h_t), h_s)
            c = fixed(losses.positive(parts.ce_private + parts.ce_shared))
            of_mentor = parts.ce_private + parts.kl_private / c + hidden_t / c
            of_mentee = parts.ce_shared + parts.kl_shared / c + hidden_s / c
            total = of_mentor + of_mentee
            metrics = {
                "total": total,
                "mentor": of_mentor,
                "mentee": of_mentee,
                "ce_mentor": parts.ce_private,
                "ce_mentee": parts.ce_shared,
                "kl_mentor": parts.kl_private,
                "kl_mentee": parts.kl_shared,
                "hidden": hidden_t,
            }
            return losses.Terms(total, metrics)

        def update(broadcast, state, visit, key):
            networks, metrics, _ = local.train(
                loss, Trained(broadcast, *state), setup, visit, key
            )
            moved = jax.tree.map(jnp.subtract, networks.shared, broadcast)
            upload = compress(moved, visit.round)
            return ClientUpdate(
                state=ClientState(networks.private, networks.projector),
                shared=networks.shared,
                upload=upload.values,
                metrics=metrics,
                upload_bytes=compression.num_bytes(*upload),
            )

        def predict(mentee, state, x):
            return {
                "mentor": mentor_model.logits(state.private, x),
                "mentee": mentee_model.logits(mentee, x),
            }

        def init(key):
            widths = (mentee_model.feature_dim, mentor_model.feature_dim)
            projector = layers.init_linear(rng.named(key, "projector"), *widths)
            private = mentor_model.init(rng.named(key, "private"))
            return ClientState(private, projector["kernel"])

        return Client(init, update, predict)

    def init(key):
        mentee = mentee_model.init(rng.named(key, "shared"))
        return ServerState(mentee, compression.full_ranks(mentee))

    def update(state, uploads, cohort):
        mean = servers.aggregate(uploads, cohort, aggregation)
        moved = compress(mean, cohort.round)
        mentee = jax.tree.map(jnp.add, state.shared, moved.values)
        return ServerState(mentee, moved.ranks)

    server = Server(
        init=init,
        broadcast=lambda state: state.shared,
        update=update,
        broadcast_bytes=lambda state: compression.num_bytes(*state),
        release=None if aggregation == "last_client" else servers.MEAN_OF_UPLOADS,
    )
    return Algorithm(server, client, heads=("mentor", "mentee"))
