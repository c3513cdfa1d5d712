"""FedAPEN: personalized cross-silo federated learning with adaptability to
statistical heterogeneity.

Every client trains a private model of any architecture beside the shared model that
travels. Both learn from the labels, from each other (mutual learning), and from the
labels through their ensemble (learning for ensemble). With logits z_p of the private
and z_s of the shared model and p_p, p_s their softmax:

    e(lambda) = lambda z_p + (1 - lambda) z_s                           ensemble
    L_p       = CE(z_p, y) + KL(p_s || p_p) + CE(e(lambda), y)          z_s constant
    L_s       = CE(z_s, y) + KL(p_p || p_s) + CE(e(lambda), y)          z_p constant
    theta_s   = 1/K sum_k theta_s,k                                     on the server
    lambda   <- clip(lambda - eta d/dlambda CE(e(lambda), y), 0, 1)     afterwards

The last line (learning for adaptability) is on examples kept out of training, with the
averaged shared model. Inference is the ensemble.

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
from fedjax_mrl.learning import local, losses, mutual, requirements, servers
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Network, Setup

__all__ = ["fedapen"]


class ClientState(NamedTuple):
    """The part of a client that never leaves it."""

    private: Network
    weight: jax.Array  # [], lambda, of the private model in the ensemble


class Trained(NamedTuple):
    """The networks that a client's optimizer moves, each clipped by itself."""

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
        adapt_rate: eta, step size of lambda; 0 keeps it at 0.5.
        adapt_steps: passes over the held out examples, one step of SGD each.
        aggregation: `uniform` is the method, `mean` weights shared models by training
            samples, see `servers.averaging`.

    Raises:
        ValueError: for a rate or number of steps out of range, or an unknown
            aggregation.
    """
    advice = "Set 0 to keep lambda."
    requirements.require_at_least(advice, adapt_rate=(adapt_rate, 0))
    requirements.require_whole(advice, adapt_steps=adapt_steps)
    shared_model = setup.shared(setup.feature_dim)

    def client(private_model: Model) -> Client:
        def update(broadcast, state, visit, key):
            def loss(networks, batch, key):
                private, shared = mutual.training(private_model, shared_model, key)
                z_p = private.logits(networks.private, batch.x)
                z_s = shared.logits(networks.shared, batch.x)
                parts = mutual.losses_of(z_p, z_s, batch)
                fixed_p, fixed_s = lax.stop_gradient((z_p, z_s))
                ce = lambda z: losses.cross_entropy(z, batch.y, batch.mask)
                # Equal values; each moves one of the two models.
                ce_e_p = ce(_ensemble(state.weight, z_p, fixed_s))
                ce_e_s = ce(_ensemble(state.weight, fixed_p, z_s))
                of_private = parts.ce_private + parts.kl_private + ce_e_p
                of_shared = parts.ce_shared + parts.kl_shared + ce_e_s
                total = of_private + of_shared
                metrics = {
                    "total": total,
                    "private": of_private,
                    "shared": of_shared,
                    "ce_ensemble": ce_e_p,
                    **parts._asdict(),
                }
                return losses.Terms(total, metrics)

            start = Trained(broadcast, state.private)
            networks, metrics, _ = local.train(loss, start, setup, visit, key)
            return ClientUpdate(
                state=ClientState(networks.private, state.weight),
                shared=networks.shared,
                upload=networks.shared,
                metrics=metrics,
            )

        def finish(broadcast, state, visit, key):
            del key  # nothing is drawn
            both = lambda x: (
                private_model.logits(state.private, x),
                shared_model.logits(broadcast, x),
            )
            (z_p, z_s), y, mask = local.outputs(both, visit.holdout, setup, visit)

            @jax.grad
            def gradient(weight):  # 0 without examples: then lambda stays
                return losses.cross_entropy(_ensemble(weight, z_p, z_s), y, mask)

            def step(_, weight):
                return jnp.clip(weight - adapt_rate * gradient(weight), 0, 1)

            weight = lax.fori_loop(0, int(adapt_steps), step, state.weight)
            return ClientState(state.private, weight)

        def predict(shared, state, x):
            z_p = private_model.logits(state.private, x)
            z_s = shared_model.logits(shared, x)
            ensemble = _ensemble(state.weight, z_p, z_s)
            return {"ensemble": ensemble, "personal": z_p, "global": z_s}

        def init(key):
            private = private_model.init(rng.named(key, "private"))
            dtype = jax.tree.leaves(private)[0].dtype
            return ClientState(private, jnp.full((), 0.5, dtype))

        return Client(init, update, predict, finish)

    server = servers.averaging(
        lambda key: shared_model.init(rng.named(key, "shared")), aggregation
    )
    heads = ("ensemble", "personal", "global")
    return Algorithm(server, client, heads=heads, holdout=0.05)


def _ensemble(weight: jax.Array, z_p: jax.Array, z_s: jax.Array) -> jax.Array:
    """Returns lambda z_p + (1 - lambda) z_s."""
    return weight * z_p + (1 - weight) * z_s
