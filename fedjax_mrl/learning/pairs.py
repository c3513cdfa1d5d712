"""Training on the server, on pairs of a class mean and its class.

The uploads of a round are one data set: every participant's mean of every class that it
holds. FedGH trains a header on it and FedTGP prototypes.

Shape letters: L classes, D width, P = K L places for pairs, B batch, S steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from fedjax_mrl import rng
from fedjax_mrl.learning import optimizers, requirements
from fedjax_mrl.learning.prototypes import ClassMeans
from fedjax_mrl.protocol import Batches, Cohort, Key, Tree

# params, x [B, D], y [B], mask [B], key of the step -> loss []
PairLoss = Callable[[Tree, jax.Array, jax.Array, jax.Array, Key], jax.Array]


class Pairs(NamedTuple):
    """All uploads as examples of one data set."""

    x: jax.Array  # [P, D]
    y: jax.Array  # [P] int32
    exists: jax.Array  # [P] bool


class Passes(NamedTuple):
    """How a server trains on the pairs of a round: plain SGD in minibatches."""

    learning_rate: float
    epochs: int  # passes over the pairs that exist
    batch_size: int  # pairs in a step


def passes(*, server_lr: float, server_epochs: int, server_batch_size: int) -> Passes:
    """Checks a method's options for the server's training.

    Raises:
        ValueError: for a rate below 0, or no epoch or no pair in a step.
    """
    requirements.require_at_least(
        server_lr=(server_lr, 0),
        server_epochs=(server_epochs, 1),
        server_batch_size=(server_batch_size, 1),
    )
    return Passes(server_lr, server_epochs, server_batch_size)


def train(
    loss: PairLoss,
    params: Tree,
    uploads: ClassMeans,
    cohort: Cohort,
    how: Passes,
    name: str,
) -> Tree:
    """Trains parameters of the server on what a round's participants uploaded.

    Args:
        loss: as `fit` takes it.
        params: a pytree.
        uploads: class means of the participants, [K, ...].
        cohort: who counts, and the round's key.
        how: learning rate, epochs and minibatches.
        name: of the parameters, by which the keys of their steps are told apart.
    """
    examples = of_uploads(uploads, cohort)
    order = shuffled(cohort.key, examples, how.epochs, how.batch_size)
    key = rng.named(cohort.key, name)
    return fit(loss, params, examples, order, optax.sgd(how.learning_rate), key)[0]


def of_uploads(uploads: ClassMeans, cohort: Cohort) -> Pairs:
    """Every mean that counts, with its class, participants in cohort order."""
    size, num_classes, width = uploads.mean.shape
    exists = ((uploads.count > 0) & (cohort.weights > 0)[:, None]).reshape(-1)
    x = jnp.where(exists[:, None], uploads.mean.reshape(-1, width), 0)
    y = jnp.tile(jnp.arange(num_classes, dtype=jnp.int32), size)
    return Pairs(x, y, exists)


def shuffled(key: Key, examples: Pairs, epochs: int, batch_size: int) -> Batches:
    """Minibatches of the pairs that exist, shuffled anew for each epoch.

    The last batch of an epoch may be partial. Only batches with a pair are counted
    as steps, so the cost follows what was uploaded.
    """
    places = examples.exists.shape[0]
    real = examples.exists.sum()
    there = jnp.argsort(~examples.exists, stable=True)  # those that exist come first
    there = there.astype(jnp.int32)
    per_epoch = -(-places // batch_size)
    fill = per_epoch * batch_size - places

    def epoch(key):
        order = jax.random.permutation(key, places)
        order = order[jnp.argsort(order >= real, stable=True)]
        order = jnp.where(order < real, there[order], -1)
        return jnp.pad(order, (0, fill), constant_values=-1)

    table = jax.vmap(epoch)(jax.random.split(key, epochs))
    table = table.reshape(epochs, per_epoch, batch_size)
    used = (-(-real // batch_size)).astype(jnp.int32)
    step = jnp.arange(epochs * per_epoch, dtype=jnp.int32)
    row, column = jnp.divmod(step, jnp.maximum(used, 1))
    return Batches(table[jnp.minimum(row, epochs - 1), column], epochs * used)


def fit(
    loss: PairLoss,
    params: Tree,
    examples: Pairs,
    order: Batches,
    optimizer: optax.GradientTransformation,
    key: Key,
) -> tuple[Tree, jax.Array]:
    """Trains parameters of the server on pairs.

    Args:
        loss: params, x [B, D], y [B], mask [B], key of the step -> loss.
        params: a pytree.
        examples: the uploads.
        order: minibatches as positions in `examples`.
        optimizer: optax transformation; its state is fresh.
        key: folded with the step.

    Returns:
        The trained parameters, and the loss before each step, [S].
    """

    def step(i, carry):
        params, state, trace = carry
        index = order.index[i]
        rows = jnp.maximum(index, 0)
        value, gradient = jax.value_and_grad(loss)(
            params,
            examples.x[rows],
            examples.y[rows],
            index >= 0,
            jax.random.fold_in(key, i),
        )
        params, state = optimizers.step(optimizer.update, gradient, state, params)
        return params, state, trace.at[i].set(value)

    trace = jnp.zeros((order.index.shape[0],), examples.x.dtype)
    carry = (params, optimizer.init(params), trace)
    params, _, trace = lax.fori_loop(0, order.steps, step, carry)
    return params, trace
