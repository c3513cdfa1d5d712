"""Deep mutual learning: two models learn from the labels and from each other.

    CE(p, y)      of each model, from the labels
    KL(q || p)    of each model p, from the other model q, its teacher

FML, FedKD and FedAPEN train a private model beside a shared one in this way, and
differ in how they weigh the parts.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax

from fedjax_mrl import rng
from fedjax_mrl.learning import losses
from fedjax_mrl.protocol import Batch, Key, Model, Network


class Trained(NamedTuple):
    """The networks that a client's optimizer moves, each clipped by itself."""

    shared: Network
    private: Network


class Losses(NamedTuple):
    """The parts of both models' losses on a minibatch, [] each."""

    ce_private: jax.Array
    ce_shared: jax.Array
    kl_private: jax.Array  # of the shared model's predictions from the private one's
    kl_shared: jax.Array


def losses_of(
    private: jax.Array,
    shared: jax.Array,
    batch: Batch,
    teacher: Callable[[jax.Array], jax.Array] = lax.stop_gradient,
) -> Losses:
    """Computes what each model learns from the labels and from the other.

    Args:
        private: logits of the private model, [B, L].
        shared: logits of the shared model, [B, L].
        batch: labels and mask.
        teacher: applied to the logits that teach. By default a teacher is a constant;
            with the identity, gradients go through it, too.
    """
    return Losses(
        losses.cross_entropy(private, batch.y, batch.mask),
        losses.cross_entropy(shared, batch.y, batch.mask),
        losses.kl(teacher(shared), private, batch.mask),
        losses.kl(teacher(private), shared, batch.mask),
    )


def training(private: Model, shared: Model, key: Key) -> tuple[Model, Model]:
    """Both models as they train in one step, each with random parts of its own."""
    return (
        private.training(rng.named(key, "private")),
        shared.training(rng.named(key, "shared")),
    )
