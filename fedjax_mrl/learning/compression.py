"""Low-rank compression of an update, matrix by matrix.

A matrix is replaced by its truncated singular value decomposition, with the fewest
singular values that keep a given share of the sum of their squares (its energy).
Shapes stay fixed: the result is the product of the factors, and the rank, which is
data, says what the factors would weigh on a network.

The decomposition is taken from the eigenvectors of the smaller Gram matrix: with V
those of A^T A, A V_r V_r^T is the truncated decomposition of A. It is faster than an
SVD, and what it loses, the accuracy of the smallest singular values, is cut off.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_mrl.learning import schedules, servers
from fedjax_mrl.ops import matmul
from fedjax_mrl.protocol import Key, Params, Server


def require_energy(**energies: float) -> None:
    """Checks energies by name.

    Raises:
        ValueError: for the first one outside of (0, 1].
    """
    for name, energy in energies.items():
        if not 0 < energy <= 1:
            raise ValueError(
                f"{name} must be above 0 and at most 1; got {energy}. Set 1 to send "
                "updates as they are."
            )


class Compressed(NamedTuple):
    """A compressed pytree."""

    values: Params  # as given, every matrix replaced by one of lower rank
    ranks: Params  # [] int32 for each leaf; 0 for a vector, which is left alone


def compress(tree: Params, energy: jax.Array) -> Compressed:
    """Truncates every leaf with two or more axes, seen as a matrix [-1, last axis].

    Args:
        tree: arrays. A matrix of zeros stays one.
        energy: share of the squared singular values to keep, in (0, 1]; with 1 all
            matrices stay as they are, to the last bit, and have full rank.
    """
    leaves, structure = jax.tree.flatten(tree)
    pairs = [_truncate(leaf, energy) for leaf in leaves]
    values, ranks = zip(*pairs, strict=True)
    return Compressed(structure.unflatten(values), structure.unflatten(ranks))


def full_ranks(tree: Params) -> Params:
    """The ranks of a pytree that is sent as it is."""
    return jax.tree.map(lambda leaf: jnp.int32(min(_sides(leaf))), tree)


def num_bytes(tree: Params, ranks: Params) -> jax.Array:
    """Bytes on the network: [] float32.

    A matrix of rank r counts r (rows + 1 + columns) numbers, or all of its entries
    where those are fewer; a vector counts as it is.

    Args:
        tree: what was compressed; shapes suffice.
        ranks: of its leaves.
    """

    def cost(leaf, rank):
        rows, columns = _sides(leaf)
        dense = float(math.prod(leaf.shape) * leaf.dtype.itemsize)
        if not rows:
            return jnp.float32(dense)
        factor = float((rows + 1 + columns) * leaf.dtype.itemsize)
        return jnp.minimum(rank.astype(jnp.float32) * factor, dense)

    costs = jax.tree.leaves(jax.tree.map(cost, tree, ranks))
    return functools.reduce(jnp.add, costs, jnp.float32(0))


def at_energy(
    start: float, end: float, num_rounds: int
) -> Callable[[Params, jax.Array], Compressed]:
    """Update, round -> update compressed at that round's energy.

    The energy is `start` + t / `num_rounds` (`end` - `start`) in round t.
    """
    require_energy(energy_start=start, energy_end=end)

    def compress_in(update: Params, round: jax.Array) -> Compressed:
        return compress(update, schedules.growing(start, end, round, num_rounds))

    return compress_in


class ServerState(NamedTuple):
    """The shared model, and how far its last update was compressed."""

    shared: Params
    ranks: Params  # of its last update, [] int32 for each parameter tensor


def server(
    init: Callable[[Key], Params],
    compress_in: Callable[[Params, jax.Array], Compressed],
    aggregation: str,
) -> Server:
    """A server that adds the compressed average of the participants' updates.

    A broadcast counts the bytes of the last compressed update; before there is one,
    those of the whole model.

    Args:
        init: key -> the shared model's parameters.
        compress_in: update, round -> compressed update.
        aggregation: see `servers.averaging`.

    Raises:
        ValueError: for another aggregation.
    """
    servers.require_known(aggregation)

    def init_state(key):
        shared = init(key)
        return ServerState(shared, full_ranks(shared))

    def update(state, uploads, cohort):
        mean = servers.aggregate(uploads, cohort, aggregation)
        moved = compress_in(mean, cohort.round)
        shared = jax.tree.map(jnp.add, state.shared, moved.values)
        return ServerState(shared, moved.ranks)

    return Server(
        init=init_state,
        broadcast=lambda state: state.shared,
        update=update,
        broadcast_bytes=lambda state: num_bytes(*state),
        release=None if aggregation == "last_client" else servers.MEAN_OF_UPLOADS,
    )


def _sides(leaf: jax.Array) -> tuple[int, int]:
    """Rows and columns of a leaf as a matrix; no rows if it is none."""
    if leaf.ndim < 2:
        return 0, leaf.size
    return math.prod(leaf.shape[:-1]), leaf.shape[-1]


def _truncate(leaf: jax.Array, energy: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, columns = _sides(leaf)
    if not rows:
        return leaf, jnp.int32(0)
    matrix = leaf.reshape(rows, columns)
    turned = matmul.whole(matrix.T)
    # [m, n] and [n, m], m >= n
    tall, wide = (matrix, turned) if rows >= columns else (turned, matrix)
    squares, vectors = jnp.linalg.eigh(wide @ tall)  # ascending
    # Descending; rounding may leave a zero below zero.
    squares, vectors = jnp.maximum(squares[::-1], 0), vectors[:, ::-1]
    kept = jnp.cumsum(squares)
    short = kept < energy.astype(kept.dtype) * kept[-1]
    rank = 1 + short.sum(dtype=jnp.int32)
    chosen = jnp.arange(vectors.shape[1], dtype=rank.dtype) < rank
    basis = jnp.where(chosen[None, :], vectors, jnp.zeros((), vectors.dtype))
    low = matmul.whole((tall @ basis) @ basis.T)
    low = (low if rows >= columns else low.T).reshape(leaf.shape)
    # The smallest singular values are below the rounding of the sum of all.
    everything = energy >= 1
    full = jnp.asarray(min(rows, columns), rank.dtype)
    return jnp.where(everything, leaf, low), jnp.where(everything, full, rank)
