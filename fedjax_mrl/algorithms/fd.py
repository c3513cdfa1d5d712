"""FD: federated distillation (FedDistill).

Every client k trains a private model f_k of any architecture. It tells the others,
for each class c, the mean of the logits that it gave while training; the server
averages these over the clients and sends them back, and the softmax of the average
is the teacher of the next round's examples of that class.

    z_k,c = mean of f_k(x) over the examples of class c, in all local steps
    z_c   = mean of z_k,c over the participants that hold class c    on the server
    L_k   = CE(f_k(x), y) + weight CE(f_k(x), softmax(z_y))

Reference:
    Jeong et al., Communication-Efficient On-Device Machine Learning: Federated
    Distillation and Augmentation under Non-IID Private Data, 2018.
    https://arxiv.org/abs/1811.11479

Differences:
    - The teacher is the softmax of the averaged logits.
    - The average of a class covers all participants that hold it, the learner
      included; the paper leaves out the learner's own contribution.
    - Classes that no participant held in the last round teach nothing: they add 0
      to loss and gradient. (HtFLlib puts the learner's own logits there, whose
      cross-entropy with themselves has a gradient.)
    - No data augmentation by a generator that the clients train together (FAug).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, prototypes, requirements
from fedjax_mrl.protocol import Algorithm, Client, ClientUpdate, Model, Network, Setup

__all__ = ["fd"]


class Trained(NamedTuple):
    """The network that a client's optimizer moves; also its private state."""

    private: Network


def fd(setup: Setup, *, weight: float = 1.0) -> Algorithm:
    """Builds FD; accepts any architecture.

    Args:
        setup: what every algorithm is built from.
        weight: of the distillation loss; 0 is standalone training.

    Raises:
        ValueError: for a negative weight, or, when a client is built, for a model
            of another number of classes.
    """
    requirements.require_at_least(weight=(weight, 0))

    def client(model: Model) -> Client:
        requirements.require_classes(model, setup)

        def update(broadcast, state, visit, key):
            teacher = jax.nn.softmax(broadcast.vector, axis=-1)  # [L, L]

            def loss(networks, batch, key):
                network = model.training(rng.named(key, "private"))
                logits = network.logits(networks.private, batch.x)
                ce = losses.cross_entropy(logits, batch.y, batch.mask)
                each = optax.losses.softmax_cross_entropy(logits, teacher[batch.y])
                each = jnp.where(broadcast.known[batch.y], each, 0)
                distill = losses.mean(each, batch.mask)
                total = ce + weight * distill
                return losses.Terms(
                    total,
                    {"total": total, "ce": ce, "distill": distill},
                    sums=local.class_sums(logits, batch, setup.num_classes),
                )

            networks, metrics, sums = local.train(loss, state, setup, visit, key)
            upload = prototypes.of_sums(*sums)
            return ClientUpdate(
                state=networks,
                shared=broadcast,
                upload=upload,
                metrics=metrics,
                upload_bytes=prototypes.num_bytes(upload.count > 0, upload.mean),
            )

        def predict(shared, state, x):
            del shared
            return {"local": model.logits(state.private, x)}

        def init(key):
            return Trained(model.init(rng.named(key, "private")))

        return Client(init, update, predict)

    server = prototypes.merging(setup.num_classes, setup.num_classes)
    return Algorithm(server, client, heads=("local",))
