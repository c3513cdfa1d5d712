"""What a client does with its own data: local epochs, and passes without training."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl.learning.losses import Terms
from fedjax_mrl.ops import matmul
from fedjax_mrl.protocol import Batch, Batches, Key, Setup, Visit


class Trained(NamedTuple):
    """What local training yields."""

    networks: Any  # as given, trained
    metrics: dict[str, jax.Array]  # [S] each; 0 past the client's last step
    sums: Any  # `Terms.sums` added up over the steps


def train(
    loss: Callable[[Any, Batch, Key], Terms],
    networks: Any,
    setup: Setup,
    visit: Visit,
    key: Key,
) -> Trained:
    """Runs the local epochs of one client.

    All gradients of a step are taken at the same point; then every network is
    updated by itself (own clipping, own momentum). Optimizer state is fresh at
    each visit.

    Args:
        loss: networks, minibatch, key -> `Terms`.
        networks: a tuple or NamedTuple; each field is one network.
        setup: optimizer and image preparation.
        visit: `visit.train.steps` minibatches are taken.
        key: folded with the step for augmentation and loss.
    """

    length = visit.train.index.shape[0]
    update = setup.optimizer.update
    if visit.learning_rate is not None:
        update = functools.partial(update, learning_rate=visit.learning_rate)

    def minibatch(step):
        prepare_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
        index = visit.train.index[jnp.minimum(step, length - 1)]
        x = setup.prepare.train(prepare_key, visit.examples.x, index)
        return _batch(x, visit, index), loss_key

    def value(networks, batch, loss_key):
        terms = loss(networks, batch, loss_key)
        return terms.total, terms

    @jax.jit  # named, so that `flops` can tell it from the rest of a visit
    def train_step(i, carry):
        networks, states, traces, sums, ready = carry
        gradients, terms = jax.grad(value, has_aux=True)(networks, *ready)
        moved = [
            _apply(update, *parts)
            for parts in zip(gradients, states, networks, strict=True)
        ]
        traces = jax.tree.map(lambda t, m: t.at[i].set(m), traces, terms.metrics)
        sums = jax.tree.map(jnp.add, sums, terms.sums)
        networks = _like(networks, [network for network, _ in moved])
        states = [state for _, state in moved]
        return networks, states, traces, sums, minibatch(i + 1)

    shapes = jax.eval_shape(lambda: loss(networks, *minibatch(0)))
    # The next minibatch is prepared beside this step. Besides, XLA would otherwise
    # compute every pixel anew for each window of a convolution that it is in.
    carry = (
        networks,
        [setup.optimizer.init(network) for network in networks],
        jax.tree.map(lambda m: jnp.zeros((length,), m.dtype), shapes.metrics),
        jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes.sums),
        minibatch(0),
    )
    networks, _, traces, sums, _ = lax.fori_loop(
        0, visit.train.steps, train_step, carry
    )
    return Trained(networks, traces, sums)


def sweep(
    function: Callable[[Batch], Any], batches: Batches, setup: Setup, visit: Visit
) -> Any:
    """Adds up `function(minibatch)`, a pytree, over `batches` without augmentation."""

    def minibatch(step):
        index = batches.index[step]
        return _batch(setup.prepare.test(visit.examples.x, index), visit, index)

    shapes = jax.eval_shape(lambda: function(minibatch(0)))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    @jax.jit
    def sweep_step(i, sums):
        return jax.tree.map(jnp.add, sums, function(minibatch(i)))

    return lax.fori_loop(0, batches.steps, sweep_step, zeros)


def class_sums(
    values: jax.Array, batch: Batch, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Sums `values` [B, D] by class: sums [L, D] and counts [L]."""
    labels = jnp.arange(num_classes, dtype=batch.y.dtype)
    member = (batch.y[:, None] == labels[None, :]) & batch.mask[:, None]
    member = member.astype(values.dtype)
    return matmul.over_examples(member, values), member.sum(axis=0)


def _batch(x: jax.Array, visit: Visit, index: jax.Array) -> Batch:
    mask = index >= 0
    return Batch(x, visit.examples.y[jnp.maximum(index, 0)], mask)


def _apply(update, gradient, state, network):
    updates, state = update(gradient, state, network)
    return jax.tree.map(jnp.add, network, updates), state


def _like(networks, values):
    return type(networks)(*values) if hasattr(networks, "_fields") else tuple(values)
