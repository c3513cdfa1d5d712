"""One vector for each class: clients upload means, and the server merges them.

A mean is uploaded only for classes that the client holds, and a vector is sent only
for classes that the server knows; zeros fill the other rows and never count.

Shape letters: L classes, D width, K cohort.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_mrl.learning import local, losses
from fedjax_mrl.protocol import (
    UNKNOWN,
    Batch,
    Cohort,
    Mechanism,
    Model,
    Params,
    Release,
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
        release=CLASS_SUMS,
    )


def merge(uploads: ClassMeans, cohort: Cohort) -> Prototypes:
    """Unweighted mean of each class over the participants [K] that hold it."""
    holds = (uploads.count > 0) & (cohort.weights > 0)[:, None]  # [K, L]
    means = jnp.where(holds[..., None], uploads.mean, 0)
    known = holds.any(axis=0)
    holders = jnp.maximum(holds.sum(axis=0), 1).astype(means.dtype)
    return Prototypes(means.sum(axis=0) / holders[:, None], known)


class Sums(NamedTuple):
    """Sums over clients, of which each adds its means and the classes it has.

    Which these are is private as well, so one norm is taken of both together.
    """

    mean: jax.Array  # [L, D]
    presence: jax.Array  # [L]


def _part(upload: ClassMeans, broadcast: Any, mechanism: Mechanism) -> Sums:
    holds = upload.count > 0
    presence = mechanism.presence * holds.astype(upload.mean.dtype)
    return Sums(jnp.where(holds[:, None], upload.mean, 0), presence)


def _of_noisy(sums: Sums, broadcast: Any, mechanism: Mechanism) -> ClassMeans:
    """The means of those classes whose presence stands out from the noise.

    Clipping shortens a client's means and presence alike, so that their ratio is a
    weighted mean over clients.
    """
    least = max(_STANDS_OUT * mechanism.std, _SMALLEST * mechanism.presence)
    count = jnp.maximum(sums.presence, least) / mechanism.presence
    known = sums.presence > least
    mean = jnp.where(known[:, None], sums.mean / count[:, None], 0)
    return ClassMeans(mean, known.astype(jnp.int32))


_STANDS_OUT = 2.0  # standard deviations of the noise
_SMALLEST = 1e-6  # clients, where there is hardly any noise
# Of servers that work with class means alone.
CLASS_SUMS = Release(_part, _of_noisy)


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


def distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Euclidean distances between rows, [P, D] and [Q, D] -> [P, Q].

    They are taken from differences, so that they cannot be NaN, and a distance of 0
    has the gradient 0.
    """
    square = jnp.square(a[:, None, :] - b[None, :, :]).sum(axis=-1)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def num_bytes(present: jax.Array, vectors: jax.Array) -> jax.Array:
    """Bytes of those rows of `vectors` [L, D] that travel, and of saying which."""
    row = vectors.shape[-1] * vectors.dtype.itemsize
    return present.sum().astype(jnp.float32) * row + present.shape[0]
