"""Runs a function for every member of a cohort inside one compiled program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl import tree
from fedjax_mrl.protocol import Tree


def over_members(
    visit: Callable[[Tree, Tree], tuple[Tree, Tree]],
    states: Tree,
    members: Tree,
    count: jax.Array,
    chunk: int,
) -> tuple[Tree, Tree]:
    """Calls `visit(state, member)` for the first `count` members.

    Members are worked off in chunks: within a chunk `visit` is vmapped, chunks
    follow one another. The number of chunks is data, not shape, so a group that
    sends three members this round and seven the next neither recompiles nor pays
    for padding.

    Args:
        visit: state, member -> state, output. Written for one member.
        states: leaves [R, ...], R a multiple of `chunk`; updated in place where the
            caller donates them.
        members: leaves [R, ...].
        count: [] int32, how many members exist; they come first.
        chunk: members computed at once; 1 adds no axis at all.

    Returns:
        The states, unchanged past the last member, and the outputs [R, ...]; what
        stands there for padding is without meaning.
    """
    # Traced once, for the shapes and for the loop, and gone from what is compiled.
    visit = jax.jit(visit, inline=True)
    total = jax.tree.leaves(members)[0].shape[0]
    _, shapes = jax.eval_shape(visit, *tree.take((states, members), 0))
    outputs = jax.tree.map(lambda s: jnp.zeros((total, *s.shape), s.dtype), shapes)

    def single(i, carry):
        states, outputs = carry
        state, member = jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, i, keepdims=False),
            (states, members),
        )
        state, output = visit(state, member)
        return tree.put(states, i, state), tree.put(outputs, i, output)

    def several(i, carry):
        states, outputs = carry
        where = i * chunk + jnp.arange(chunk, dtype=jnp.int32)
        state, output = jax.vmap(visit)(*tree.take((states, members), where))
        inside = jnp.where(where < count, where, total)  # padding writes nothing
        return tree.put(states, inside, state), tree.put(outputs, where, output)

    if chunk == 1:
        return lax.fori_loop(0, count, single, (states, outputs))
    return lax.fori_loop(0, -(-count // chunk), several, (states, outputs))
