"""A client's work with its own data: local epochs, and passes without training."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl.learning import freezing, optimizers
from fedjax_mrl.learning.losses import Terms
from fedjax_mrl.ops import matmul
from fedjax_mrl.protocol import Batch, Batches, Key, Setup, Tree, Visit

Loss = Callable[[Tree, Batch, Key], Terms]  # networks, minibatch, key of the step


class Outcome(NamedTuple):
    """The result of local training."""

    networks: Tree  # as given, but trained
    metrics: dict[str, jax.Array]  # [S] each; 0 past the client's last step
    sums: Tree  # `Terms.sums` added up over the steps


def train(
    loss: Loss,
    networks: Tree,
    setup: Setup,
    visit: Visit,
    key: Key,
) -> Outcome:
    """Runs the local epochs of one client.

    All gradients of a step are taken at the same point; then every network is
    updated by itself (own clipping, own momentum). Optimizer state is fresh at
    each visit. What is frozen (`visit.frozen`) has no gradient and no step; neither
    clipping nor decay sees it.

    Args:
        loss: networks, minibatch, key -> `Terms`. The key is the step's own; a model
            with random parts, such as dropout, draws them by it (`Model.training`).
        networks: a tuple or NamedTuple; each field is one network.
        setup: optimizer and image preparation.
        visit: `visit.train.steps` minibatches are taken.
        key: folded with the step for augmentation and loss.

    Returns:
        Trained networks, losses of each step, sums over all steps.
    """
    length = visit.train.index.shape[0]
    update = _update_of(setup, visit)
    minibatch = functools.partial(_prepared, setup, visit, key)

    networks, fixed = freezing.part(networks, visit.frozen)
    gradient = _gradient(loss, fixed)

    @jax.jit  # named, so that `flops` can tell it from the rest of a visit
    def train_step(i, carry):
        networks, states, traces, sums, ready = carry
        gradients, terms = gradient(networks, *ready)
        parts = zip(gradients, states, networks, strict=True)
        moved = [optimizers.step(update, *part) for part in parts]
        traces = jax.tree.map(lambda t, m: t.at[i].set(m), traces, terms.metrics)
        sums = jax.tree.map(jnp.add, sums, terms.sums)
        networks, states = zip(*moved, strict=True)
        return _like(carry[0], networks), [*states], traces, sums, minibatch(i + 1)

    _, shapes = jax.eval_shape(lambda: gradient(networks, *minibatch(0)))
    # The next minibatch is prepared beside this step; XLA would otherwise compute
    # every pixel anew for each window of a convolution that it is in.
    carry = (
        networks,
        [setup.optimizer.init(network) for network in networks],
        jax.tree.map(lambda m: jnp.zeros((length,), m.dtype), shapes.metrics),
        jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes.sums),
        minibatch(0),
    )
    carry = lax.fori_loop(0, visit.train.steps, train_step, carry)
    networks, _, traces, sums, _ = carry
    return Outcome(freezing.join(networks, fixed), traces, sums)


def _gradient(loss: Loss, fixed: Tree) -> Callable[..., tuple[Tree, Terms]]:
    """The gradient of what trains, beside what is fixed, and the terms of the loss.

    Traced once, for the shapes and for the loop, and gone from what is compiled.
    """

    def value(networks, batch, key):
        terms = loss(freezing.join(networks, fixed), batch, key)
        return terms.total, terms

    return jax.jit(jax.grad(value, has_aux=True), inline=True)


def sweep(
    function: Callable[[Batch], Tree], batches: Batches, setup: Setup, visit: Visit
) -> Tree:
    """Adds up a function of the minibatch over a pass without augmentation.

    Args:
        function: minibatch -> a pytree. It takes models as they are, not as they train.
        batches: `visit.sweep` or another pass over examples.
        setup: image preparation.
        visit: where the examples are.
    """

    def minibatch(step):
        index = batches.index[step]
        return _batch(setup.prepare.test(visit.examples.x, index), visit, index)

    shapes = jax.eval_shape(lambda: function(minibatch(0)))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    @jax.jit
    def sweep_step(i, sums):
        return jax.tree.map(jnp.add, sums, function(minibatch(i)))

    return lax.fori_loop(0, batches.steps, sweep_step, zeros)


def outputs(
    function: Callable[[jax.Array], tuple[jax.Array, ...]],
    batches: Batches,
    setup: Setup,
    visit: Visit,
) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
    """Applies a function to all examples of a pass, without augmentation.

    Args:
        function: inputs [B, ...] -> arrays [B, L].
        batches: S minibatches of B.
        setup: image preparation.
        visit: where the examples are.

    Returns:
        The arrays, [S B, L] each; labels [S B] int32; and whether an example exists,
        [S B] bool.
    """

    def of_batch(index):
        return function(setup.prepare.test(visit.examples.x, index))

    index = batches.index
    arrays = tuple(z.reshape(index.size, -1) for z in lax.map(of_batch, index))
    index = index.reshape(-1)
    labels = jnp.asarray(visit.examples.y)[jnp.maximum(index, 0)]
    return arrays, labels, jnp.asarray(index >= 0)


def class_sums(
    values: jax.Array, batch: Batch, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Sums `values` [B, D] by class: sums [L, D] and counts [L]."""
    member = _members(batch, num_classes).astype(values.dtype)
    return matmul.over_examples(member, values), member.sum(axis=0)


def class_counts(setup: Setup, visit: Visit) -> jax.Array:
    """Counts a client's training examples by class: [L] int32."""

    def counts(batch):
        return _members(batch, setup.num_classes).sum(axis=0, dtype=jnp.int32)

    return sweep(counts, visit.sweep, setup, visit)


def _members(batch: Batch, num_classes: int) -> jax.Array:
    """Whether an example exists and is of a class: [B, L] bool."""
    labels = jnp.arange(num_classes, dtype=batch.y.dtype)
    return (batch.y[:, None] == labels[None, :]) & batch.mask[:, None]


def _update_of(setup: Setup, visit: Visit) -> Callable[..., tuple[Tree, Tree]]:
    """The optimizer's step, at the visit's learning rate."""
    if visit.learning_rate is None:
        return setup.optimizer.update
    rate = visit.learning_rate
    return functools.partial(setup.optimizer.update, learning_rate=rate)


def _prepared(
    setup: Setup, visit: Visit, key: Key, step: jax.Array | int
) -> tuple[Batch, Key]:
    """The minibatch of a step of the local epochs, and the step's key for the loss."""
    prepare_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
    last = visit.train.index.shape[0] - 1
    index = visit.train.index[jnp.minimum(step, last)]
    x = setup.prepare.train(prepare_key, visit.examples.x, index)
    return _batch(x, visit, index), loss_key


def _batch(x: jax.Array, visit: Visit, index: jax.Array) -> Batch:
    mask = index >= 0
    return Batch(x, visit.examples.y[jnp.maximum(index, 0)], mask)


def _like(networks, values):
    return type(networks)(*values) if hasattr(networks, "_fields") else tuple(values)
