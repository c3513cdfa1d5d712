"""FedKD: communication-efficient federated learning via knowledge distillation.

Every client trains a private mentor of any architecture beside the mentee that all
share. They learn from the labels, from each other's predictions (adaptive mutual
distillation) and from each other's hidden representation, through a private matrix
W from the mentee's to the mentor's width (adaptive hidden losses). Distillation is
divided by the sum of both task losses: it counts for more the better the two have
become. Only updates of the mentee travel, both ways, compressed by a truncated
singular value decomposition whose energy grows over the rounds.

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
from fedjax_mrl.learning import compression, local, losses, servers
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
    """What the server holds."""

    shared: Network  # mentee
    ranks: Any  # of its last update, [] int32 for each parameter tensor


class ClientState(NamedTuple):
    """What never leaves a client."""

    private: Network  # mentor
    projector: jax.Array  # W [D mentee, D mentor], no bias


class Trained(NamedTuple):
    """What a client's optimizer moves, each part clipped by itself."""

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
        energy_end: what it is in the last round.
        detach: whether a model's loss takes the other model's outputs and the divisor
            as constants, so that each follows its own loss alone. In the authors'
            code the gradient of the sum of both losses goes through everything.
        aggregation: `uniform` is the method, `mean` weights updates by training
            samples, see `servers.averaging`.

    Raises:
        ValueError: for an energy outside of (0, 1] or an unknown aggregation.
    """
    for name, energy in (("energy_start", energy_start), ("energy_end", energy_end)):
        if not 0 < energy <= 1:
            raise ValueError(
                f"{name} must be above 0 and at most 1; got {energy}. Set 1 to send "
                "updates as they are."
            )
    shared = setup.shared(setup.feature_dim)
    fixed = lax.stop_gradient if detach else lambda value: value

    def compress(update, round):
        dtype = jax.tree.leaves(update)[0].dtype
        progress = round.astype(dtype) / max(setup.num_rounds, 1)
        energy = _energy(jnp.minimum(progress, 1), energy_start, energy_end)
        return compression.compress(update, energy)

    def client(model: Model) -> Client:
        def loss(networks, batch, key):
            del key  # not stochastic
            large = model.features(networks.private.extractor, batch.x)
            small = shared.features(networks.shared.extractor, batch.x)
            mentor = model.head(networks.private.header, large)
            mentee = shared.head(networks.shared.header, small)
            ce_mentor = losses.cross_entropy(mentor, batch.y, batch.mask)
            ce_mentee = losses.cross_entropy(mentee, batch.y, batch.mask)
            kl_mentor = losses.kl(fixed(mentee), mentor, batch.mask)
            kl_mentee = losses.kl(fixed(mentor), mentee, batch.mask)

            def hidden(large, small):
                projected = matmul.matmul(small, networks.projector)
                return losses.squared_error(large, projected, batch.mask)

            # Equal values; with `detach` each moves one of the two models.
            hidden_mentor = hidden(large, fixed(small))
            hidden_mentee = hidden(fixed(large), small)
            # Where both fit the batch to the last bit, nothing is divided by zero.
            smallest = jnp.finfo(ce_mentor.dtype).eps
            divisor = fixed(jnp.maximum(ce_mentor + ce_mentee, smallest))
            of_mentor = ce_mentor + kl_mentor / divisor + hidden_mentor / divisor
            of_mentee = ce_mentee + kl_mentee / divisor + hidden_mentee / divisor
            total = of_mentor + of_mentee
            metrics = {
                "total": total,
                "mentor": of_mentor,
                "mentee": of_mentee,
                "ce_mentor": ce_mentor,
                "ce_mentee": ce_mentee,
                "kl_mentor": kl_mentor,
                "kl_mentee": kl_mentee,
                "hidden": hidden_mentor,
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

        def predict(network, state, x):
            return {
                "mentor": model.logits(state.private, x),
                "mentee": shared.logits(network, x),
            }

        def init(key):
            widths = (shared.feature_dim, model.feature_dim)
            projector = layers.init_linear(rng.named(key, "projector"), *widths)
            private = model.init(rng.named(key, "private"))
            return ClientState(private, projector["kernel"])

        return Client(init, update, predict)

    def init(key):
        network = shared.init(rng.named(key, "shared"))
        return ServerState(network, compression.full_ranks(network))

    def update(state, uploads, cohort):
        mean = servers.aggregate(uploads, cohort, aggregation)
        moved = compress(mean, cohort.round)
        network = jax.tree.map(jnp.add, state.shared, moved.values)
        return ServerState(network, moved.ranks)

    server = Server(
        init=init,
        broadcast=lambda state: state.shared,
        update=update,
        broadcast_bytes=lambda state: compression.num_bytes(*state),
    )
    return Algorithm(server, client, heads=("mentor", "mentee"))


def _energy(progress: jax.Array, start: float, end: float) -> jax.Array:
    return start + progress * (end - start)
