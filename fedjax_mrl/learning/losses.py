"""Losses, as means over the examples of a minibatch that exist."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Terms(NamedTuple):
    """What a local loss returns."""

    total: jax.Array  # [], what is differentiated
    metrics: dict[str, jax.Array]  # [] each, recorded at every step
    sums: Any = ()  # a pytree to be summed over the steps of the visit


def mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of `values` [B] where `mask` [B]; 0 if nothing exists."""
    count = jnp.maximum(mask.sum(), 1).astype(values.dtype)
    return jnp.where(mask, values, jnp.zeros((), values.dtype)).sum() / count


def cross_entropy_per_example(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label]: logits [B, L], labels [B] -> [B]."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]


def cross_entropy(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy; labels [B] int or target probabilities [B, L]."""
    if labels.ndim == 1:
        return mean(cross_entropy_per_example(logits, labels), mask)
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return mean(-(labels * log_p).sum(axis=-1), mask)


def kl(teacher: jax.Array, student: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean KL(softmax(teacher) || softmax(student)) of logits [B, L].

    Per-sample mean at temperature 1 (`batchmean` in PyTorch's words). Neither
    side is detached here.
    """
    log_t = jax.nn.log_softmax(teacher, axis=-1)
    log_s = jax.nn.log_softmax(student, axis=-1)
    return mean((jnp.exp(log_t) * (log_t - log_s)).sum(axis=-1), mask)


def squared_error(a: jax.Array, b: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over examples and coordinates of (a - b)^2, both [B, D]."""
    return mean(jnp.square(a - b).mean(axis=-1), mask)
