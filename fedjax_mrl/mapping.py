"""Runs a function for every member of a cohort inside one compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl import tree


def over_members(
    one: Callable[[Any, Any], tuple[Any, Any]],
    stack: Any,
    rows: jax.Array,
    members: Any,
    count: jax.Array,
    chunk: int,
) -> tuple[Any, Any]:
    """Calls `one(row of stack, member)` for the first `count` members.

    Members are worked off in chunks: within a chunk `one` is vmapped, chunks
    follow one another. The number of chunks is data, not shape, so a group that
    sends three members this round and seven the next neither recompiles nor pays
    for padding.

    Args:
        one: state, member -> state, output. Written for one member.
        stack: states [N, ...], updated in place where the caller donates it.
        rows: [K] int32, where each member's state lies; N is padding and writes
            nothing.
        members: leaves [K, ...], K a multiple of `chunk`.
        count: [] int32, how many members exist; they come first.
        chunk: members computed at once; 1 adds no axis at all.

    Returns:
        The stack, and the outputs [K, ...]; what stands there for padding is without
        meaning.
    """
    inputs = (rows, members)
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    _, shapes = jax.eval_shape(
        lambda row, member: one(tree.take(stack, row), member), *first
    )
    total = rows.shape[0]
    outputs = jax.tree.map(lambda s: jnp.zeros((total, *s.shape), s.dtype), shapes)

    def single(i, carry):
        stack, outputs = carry
        row, member = jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, i, keepdims=False), inputs
        )
        state, output = one(tree.take(stack, row), member)
        return tree.put(stack, row, state), tree.put(outputs, i, output)

    def several(i, carry):
        stack, outputs = carry
        where = i * chunk + jnp.arange(chunk, dtype=jnp.int32)
        rows, members = tree.take(inputs, where)
        states, output = jax.vmap(one)(tree.take(stack, rows), members)
        return tree.put(stack, rows, states), tree.put(outputs, where, output)

    if chunk == 1:
        return lax.fori_loop(0, count, single, (stack, outputs))
    return lax.fori_loop(0, -(-count // chunk), several, (stack, outputs))
