"""Losses, as means over the examples of a minibatch that exist."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_mrl.protocol import Tree


class Terms(NamedTuple):
    """The value of a local loss, and its parts."""

    total: jax.Array  # [], is differentiated
    metrics: dict[str, jax.Array]  # [] each, recorded at every step
    sums: Tree = ()  # a pytree to be summed over the steps of the visit


def mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of `values` [B] where `mask` [B]; 0 if nothing exists."""
    count = jnp.maximum(mask.sum(), 1).astype(values.dtype)
    return jnp.where(mask, values, jnp.zeros((), values.dtype)).sum() / count


def cross_entropy_per_example(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label]: logits [B, L], labels [B] -> [B].

    `optax.losses.softmax_cross_entropy_with_integer_labels` differs in the last bits.
    """
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]


def cross_entropy(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy; labels [B] int or target probabilities [B, L]."""
    if labels.ndim == 1:
        return mean(cross_entropy_per_example(logits, labels), mask)
    return mean(optax.losses.softmax_cross_entropy(logits, labels), mask)


def kl(teacher: jax.Array, student: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean KL(softmax(teacher) || softmax(student)) of logits [B, L].

    Per-sample mean at temperature 1 (`batchmean` in PyTorch's words). Neither
    side is detached here.
    """
    log_t = jax.nn.log_softmax(teacher, axis=-1)
    log_s = jax.nn.log_softmax(student, axis=-1)
    return mean(optax.losses.kl_divergence_with_log_targets(log_s, log_t), mask)


def squared_error(a: jax.Array, b: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over examples and coordinates of (a - b)^2, both [B, D]."""
    return mean(optax.losses.squared_error(a, b).mean(axis=-1), mask)


def positive(divisor: jax.Array) -> jax.Array:
    """The divisor, at least the precision of its type, so that it is never zero."""
    return jnp.maximum(divisor, jnp.finfo(divisor.dtype).eps)
