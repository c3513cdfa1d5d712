"""Operations on pytrees whose leaves have a leading client axis."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_mrl.protocol import Tree


def take(stack: Tree, rows: jax.Array | int) -> Tree:
    """Rows of every leaf: [N, ...] -> [K, ...]; rows past the end read the last."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip"), stack)


def put(stack: Tree, rows: jax.Array, values: Tree) -> Tree:
    """Writes `values` [K, ...] to `rows` of `stack`; rows past the end are dropped."""
    return jax.tree.map(
        lambda leaf, value: leaf.at[rows].set(value, mode="drop"), stack, values
    )


def where(condition: jax.Array, a: Tree, b: Tree) -> Tree:
    """`a` if the scalar `condition` holds, else `b`, leaf by leaf."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def weighted_mean(stack: Tree, weights: jax.Array) -> Tree:
    """Sum_k w_k leaf_k / sum_k w_k over the leading axis, in its order.

    Args:
        stack: leaves [K, ...].
        weights: [K], at least 0; if all are 0, so is the result.
    """

    # One upload after another: a sum over the leading axis is a hundred times slower on
    # a CPU, and its order would be the compiler's.
    def add(k, sums):
        def with_next(total, leaf):
            # Counts are exact from float32 on; their ratio is taken in the leaf's type.
            short = leaf.dtype.itemsize < 4
            exact = weights.astype(jnp.float32 if short else leaf.dtype)
            whole = exact.sum()
            whole = jnp.where(whole > 0, whole, jnp.ones_like(whole))
            return total + leaf[k] * (exact[k] / whole).astype(leaf.dtype)

        return jax.tree.map(with_next, sums, stack)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), stack)
    return lax.fori_loop(0, weights.shape[0], add, zeros)


def squared_norm(tree: Tree) -> jax.Array:
    """Sum of squares over all leaves."""
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
    return sum(squares, jnp.float32(0) if not squares else jnp.zeros_like(squares[0]))


def all_finite(tree: Tree) -> jax.Array:
    """Whether all numbers of all leaves are finite: [] bool."""
    finite = [
        jnp.isfinite(leaf).all()
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return jnp.stack([jnp.bool_(True), *finite]).all()


def num_bytes(tree: Tree) -> int:
    """Bytes of all leaves; shapes (`jax.eval_shape`) suffice."""
    return sum(
        int(np.prod(leaf.shape, dtype=np.int64)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def num_parameters(tree: Tree) -> int:
    """Numbers in all leaves; shapes suffice."""
    return sum(
        int(np.prod(leaf.shape, dtype=np.int64)) for leaf in jax.tree.leaves(tree)
    )
