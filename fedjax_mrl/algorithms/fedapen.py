"""FedAPEN: personalized cross-silo federated learning with adaptability to
statistical heterogeneity.

Every client trains a private model of any architecture beside the shared model that
travels. Both learn from the labels, from each other (mutual learning), and from the
labels through their ensemble, lambda times the private plus 1 - lambda times the
shared logits (learning for ensemble). After the server has averaged the shared
models, each participant learns its lambda on examples kept out of training
(learning for adaptability). Clients predict with the ensemble.

Reference:
    Qin et al., FedAPEN: Personalized Cross-silo Federated Learning with Adaptability
    to Statistical Heterogeneity, KDD 2023. https://doi.org/10.1145/3580305.3599344

Differences:
    - Lambda takes one step a pass, on the mean over all held out examples; the
      authors' code takes one a minibatch.
    - The authors decay the learning rate over the rounds and use neither momentum
      nor weight decay; here `setup.optimizer` decides.
    - A client that does not take part keeps its private model and its lambda.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, servers
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Network, Setup

__all__ = ["fedapen"]


class ClientState(NamedTuple):
    """What never leaves a client."""

    private: Network
    weight: jax.Array  # [], lambda, of the private model in the ensemble


class Trained(NamedTuple):
    """What a client's optimizer moves, each part clipped by itself."""

    shared: Network
    private: Network


def fedapen(
    setup: Setup,
    *,
    adapt_rate: float = 1e-3,
    adapt_steps: int = 10,
    aggregation: str = "uniform",
) -> Algorithm:
    """Builds FedAPEN, which keeps 5% of every client's training part out of training.

    Args:
        setup: `setup.shared` makes the shared model, at width `setup.feature_dim`.
        adapt_rate: step size of lambda; 0 keeps it at 0.5.
        adapt_steps: passes over the held out examples, one step of SGD each.
        aggregation: `uniform` is the method, `mean` weights shared models by training
            samples, see `servers.averaging`.

    Raises:
        ValueError: for a rate or number of steps out of range, or an unknown
            aggregation.
    """
    if not adapt_rate >= 0:
        raise ValueError(
            f"adapt_rate must be at least 0; got {adapt_rate}. Set 0 to keep lambda."
        )
    if adapt_steps < 0 or adapt_steps != int(adapt_steps):
        raise ValueError(
            "adapt_steps must be a whole number, at least 0; got "
            f"{adapt_steps}. Set 0 to keep lambda."
        )
    shared = setup.shared(setup.feature_dim)

    def client(model: Model) -> Client:
        def update(broadcast, state, visit, key):
            def loss(networks, batch, key):
                del key  # not stochastic
                own = model.logits(networks.private, batch.x)
                other = shared.logits(networks.shared, batch.x)
                fixed_own, fixed_other = lax.stop_gradient((own, other))
                ce = lambda z: losses.cross_entropy(z, batch.y, batch.mask)
                ce_private, ce_shared = ce(own), ce(other)
                kl_private = losses.kl(fixed_other, own, batch.mask)
                kl_shared = losses.kl(fixed_own, other, batch.mask)
                # Equal values; each moves one of the two models.
                with_private = ce(_ensemble(state.weight, own, fixed_other))
                with_shared = ce(_ensemble(state.weight, fixed_own, other))
                of_private = ce_private + kl_private + with_private
                of_shared = ce_shared + kl_shared + with_shared
                total = of_private + of_shared
                metrics = {
                    "total": total,
                    "private": of_private,
                    "shared": of_shared,
                    "ce_private": ce_private,
                    "ce_shared": ce_shared,
                    "ce_ensemble": with_private,
                    "kl_private": kl_private,
                    "kl_shared": kl_shared,
                }
                return losses.Terms(total, metrics)

            networks, metrics, _ = local.train(
                loss, Trained(broadcast, state.private), setup, visit, key
            )
            return ClientUpdate(
                ClientState(networks.private, state.weight),
                networks.shared,
                networks.shared,
                metrics,
            )

        def finish(broadcast, state, visit, key):
            del key  # not stochastic

            def logits(index):
                x = setup.prepare.test(visit.examples.x, index)
                return model.logits(state.private, x), shared.logits(broadcast, x)

            index = visit.holdout.index  # [S, B]
            own, other = (  # [S * B, L]
                z.reshape(index.size, -1) for z in lax.map(logits, index)
            )
            index = index.reshape(-1)
            y = visit.examples.y[jnp.maximum(index, 0)]

            @jax.grad
            def gradient(weight):  # 0 without examples: then lambda stays
                both = _ensemble(weight, own, other)
                return losses.cross_entropy(both, y, index >= 0)

            def step(_, weight):
                return jnp.clip(weight - adapt_rate * gradient(weight), 0, 1)

            weight = lax.fori_loop(0, int(adapt_steps), step, state.weight)
            return ClientState(state.private, weight)

        def predict(network, state, x):
            own = model.logits(state.private, x)
            other = shared.logits(network, x)
            return {
                "ensemble": _ensemble(state.weight, own, other),
                "personal": own,
                "global": other,
            }

        def init(key):
            private = model.init(rng.named(key, "private"))
            dtype = jax.tree.leaves(private)[0].dtype
            return ClientState(private, jnp.full((), 0.5, dtype))

        return Client(init, update, predict, finish)

    server = servers.averaging(
        lambda key: shared.init(rng.named(key, "shared")), aggregation
    )
    heads = ("ensemble", "personal", "global")
    return Algorithm(server, client, heads=heads, holdout=0.05)


def _ensemble(weight: jax.Array, own: jax.Array, other: jax.Array) -> jax.Array:
    return weight * own + (1 - weight) * other
