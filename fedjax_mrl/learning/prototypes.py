"""One vector for each class: clients upload means, the server merges or fits them.

A mean is uploaded only for classes that the client holds, and a vector is sent only
for classes that the server knows; zeros fill the other rows and never count.

Shape letters: L classes, D width, K cohort, P = K L pairs of all uploads.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from fedjax_mrl.learning import local, losses, optimizers
from fedjax_mrl.protocol import (
    UNKNOWN,
    Batch,
    Batches,
    Cohort,
    Key,
    Model,
    Params,
    Server,
    Setup,
    Visit,
)


class ClassMeans(NamedTuple):
    """The means that a client uploads."""

    mean: jax.Array  # [L, D]
    count: jax.Array  # [L] int32, examples behind each mean


class Prototypes(NamedTuple):
    """The vectors that the server sends."""

    vector: jax.Array  # [L, D]
    known: jax.Array  # [L] bool


class Pairs(NamedTuple):
    """All uploads as examples of one data set."""

    x: jax.Array  # [P, D]
    y: jax.Array  # [P] int32
    exists: jax.Array  # [P] bool


def of_sums(sums: jax.Array, count: jax.Array) -> ClassMeans:
    """Class sums [L, D] and counts [L], as `local.class_sums` gives, to means."""
    mean = sums / jnp.maximum(count, 1)[:, None]
    return ClassMeans(mean, count.astype(jnp.int32))


def of_features(
    model: Model, extractor: Params, setup: Setup, visit: Visit
) -> ClassMeans:
    """Mean representation of each class over the training examples, each once."""

    def sums(batch: Batch):
        return local.class_sums(
            model.features(extractor, batch.x), batch, setup.num_classes
        )

    return of_sums(*local.sweep(sums, visit.sweep, setup, visit))


def merging(num_classes: int, width: int) -> Server:
    """A server that holds the merged class means of the last round.

    Every class is the unweighted mean over the participants that hold it; a class
    that none of them holds is unknown.
    """

    def init(key):
        del key  # nothing is known at first
        return Prototypes(
            jnp.zeros((num_classes, width), jnp.float32),
            jnp.zeros((num_classes,), bool),
        )

    return Server(
        init=init,
        broadcast=lambda state: state,
        update=lambda state, uploads, cohort: merge(uploads, cohort),
        broadcast_bytes=lambda state: num_bytes(state.known, state.vector),
    )


def merge(uploads: ClassMeans, cohort: Cohort) -> Prototypes:
    """Unweighted mean of each class over the participants [K] that hold it."""
    holds = (uploads.count > 0) & (cohort.weights > 0)[:, None]  # [K, L]
    means = jnp.where(holds[..., None], uploads.mean, 0)
    known = holds.any(axis=0)
    holders = jnp.maximum(holds.sum(axis=0), 1).astype(means.dtype)
    return Prototypes(means.sum(axis=0) / holders[:, None], known)


def pull(prototypes: Prototypes, features: jax.Array, batch: Batch) -> jax.Array:
    """Mean over examples and coordinates of (feature - prototype of its class)^2.

    An example of an unknown class adds nothing but stays in the denominator.
    """
    towards = jnp.where(
        prototypes.known[batch.y][:, None], prototypes.vector[batch.y], features
    )
    return losses.squared_error(features, towards, batch.mask)


def nearness(prototypes: Prototypes, features: jax.Array) -> jax.Array:
    """Logits [B, L]: minus the mean squared difference to each prototype.

    It is `UNKNOWN` for an unknown class; if none is known, all are equal.
    """
    difference = features[:, None, :] - prototypes.vector[None, :, :]
    distance = jnp.square(difference).mean(axis=-1)
    return jnp.where(prototypes.known[None, :], -distance, UNKNOWN)


def num_bytes(present: jax.Array, vectors: jax.Array) -> jax.Array:
    """Bytes of those rows of `vectors` [L, D] that travel, and of saying which."""
    row = vectors.shape[-1] * vectors.dtype.itemsize
    return present.sum().astype(jnp.float32) * row + present.shape[0]


def pairs(uploads: ClassMeans, cohort: Cohort) -> Pairs:
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
    loss: Callable[[Any, jax.Array, jax.Array, jax.Array, Key], jax.Array],
    params: Any,
    examples: Pairs,
    order: Batches,
    optimizer: optax.GradientTransformation,
    key: Key,
) -> tuple[Any, jax.Array]:
    """Trains something of the server's on pairs.

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
