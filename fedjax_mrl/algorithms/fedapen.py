"""FedAPEN: personalized cross-silo federated learning with adaptability to
statistical heterogeneity.

Every client trains a private model of any architecture beside the shared model that
travels. Both learn from the labels, from each other (mutual learning), and through
their ensemble. With logits z_p of the private and z_s of the shared model and p_p, p_s
their softmax:

    e(lambda) = lambda z_p + (1 - lambda) z_s                           ensemble
    L_p       = CE(z_p, y) + KL(p_s || p_p) + CE(e(lambda), y)          z_s constant
    L_s       = CE(z_s, y) + KL(p_p || p_s) + CE(e(lambda), y)          z_p constant
    theta_s   = 1/K sum_k theta_s,k                                     on the server
    lambda   <- clip(lambda - eta d/dlambda CE(e(lambda), y), 0, 1)     afterwards

The last line uses held out examples and the averaged model. Inference is the ensemble.

Reference:
    Qin et al., FedAPEN: Personalized Cross-silo Federated Learning with Adaptability
    to Statistical Heterogeneity, KDD 2023. https://doi.org/10.1145/3580305.3599344

Differences:
    - Lambda takes one step a pass over the held out examples, not one a minibatch.
      A client that does not take part keeps it, and its private model.
    - The authors decay the learning rate and use neither momentum nor weight decay;
      here `setup.optimizer` decides.
"""

import functools
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


def ensemble(weight: jax.Array, z_p: jax.Array, z_s: jax.Array) -> jax.Array:
    """e(lambda), [B, L]."""
    return weight * z_p + (1 - weight) * z_s


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
        ValueError: for a value out of its range or an unknown aggregation.
    """
    requirements.require_at_least("Set 0 to keep lambda.", adapt_rate=(adapt_rate, 0))
    requirements.require_whole("Set 0 to keep lambda.", adapt_steps=adapt_steps)
    shared_model = setup.shared(setup.feature_dim)

    def client(private_model: Model) -> Client:
        def update(broadcast, state, visit, key):
            def loss(networks, batch, key):
                private, shared = mutual.training(private_model, shared_model, key)
                z_p = private.logits(networks.private, batch.x)
                z_s = shared.logits(networks.shared, batch.x)
                parts = mutual.losses_of(z_p, z_s, batch)
                ce = lambda z: losses.cross_entropy(z, batch.y, batch.mask)
                # Equal values; each moves one of the two models.
                fixed_p, fixed_s = lax.stop_gradient((z_p, z_s))
                ce_e_p = ce(ensemble(state.weight, z_p, fixed_s))
                ce_e_s = ce(ensemble(state.weight, fixed_p, z_s))
                L_p = parts.ce_private + parts.kl_private + ce_e_p
                L_s = parts.ce_shared + parts.kl_shared + ce_e_s
                metrics = {"total": L_p + L_s, "private": L_p, "shared": L_s}
                metrics |= {"ce_ensemble": ce_e_p, **parts._asdict()}
                return losses.Terms(metrics["total"], metrics)

            start = mutual.Trained(broadcast, state.private)
            networks, metrics, _ = local.train(loss, start, setup, visit, key)
            state = ClientState(networks.private, state.weight)
            return ClientUpdate(state, networks.shared, networks.shared, metrics)

        def logits(shared, state, x):
            z_p = private_model.logits(state.private, x)
            return z_p, shared_model.logits(shared, x)

        def finish(broadcast, state, visit, _):
            both = functools.partial(logits, broadcast, state)
            (z_p, z_s), y, mask = local.outputs(both, visit.holdout, setup, visit)
            e = lambda weight: ensemble(weight, z_p, z_s)
            ce = lambda weight: losses.cross_entropy(e(weight), y, mask)

            def step(_, weight):  # 0 without examples: then lambda stays
                return jnp.clip(weight - adapt_rate * jax.grad(ce)(weight), 0, 1)

            weight = lax.fori_loop(0, int(adapt_steps), step, state.weight)
            return ClientState(state.private, weight)

        def predict(shared, state, x):
            z_p, z_s = logits(shared, state, x)
            e = ensemble(state.weight, z_p, z_s)
            return {"ensemble": e, "personal": z_p, "global": z_s}

        def init(key):
            private = private_model.init(rng.named(key, "private"))
            dtype = jax.tree.leaves(private)[0].dtype
            return ClientState(private, jnp.full((), 0.5, dtype))

        return Client(init, update, predict, finish)

    init = lambda key: shared_model.init(rng.named(key, "shared"))
    server = servers.averaging(init, aggregation)
    return Algorithm(server, client, ("ensemble", "personal", "global"), holdout=0.05)
