"""The server's part of a round: one program, the same on every device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_mrl import rng, tree
from fedjax_mrl.protocol import Algorithm, Cohort


def make(algorithm: Algorithm, reject: bool, whole: Any) -> Callable:
    """Returns the server's step.

    Args:
        algorithm: whose server.
        reject: leave out reports that are not sound.
        whole: the sharding of what it returns.

    Returns:
        server state (consumed), reports of the groups [R_g, ...], places [K] of the
        cohort in them, weights [K], round, raw key -> server state, reports [K, ...]
        in cohort order, whether all numbers of the state are finite.
    """

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=whole)
    def step(server, reports, order, weights, round, key):
        reports = tree.take(tree.concatenate(reports), order)
        if reject:
            weights = jnp.where(reports["sound"], weights, 0)
        counts = weights > 0

        def only_who_counts(leaf):  # a weight of zero does not stop a NaN
            rows = counts.reshape((-1,) + (1,) * (leaf.ndim - 1))
            return jnp.where(rows, leaf, jnp.zeros((), leaf.dtype))

        uploads = jax.tree.map(only_who_counts, reports.pop("upload"))
        key = jax.random.wrap_key_data(key, impl=rng.IMPLEMENTATION)
        new = algorithm.server.update(server, uploads, Cohort(weights, round, key))
        new = tree.where(counts.any(), new, server)  # nobody: nothing changes
        finite = [
            jnp.isfinite(leaf).all()
            for leaf in jax.tree.leaves(new)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        return new, reports, jnp.stack([jnp.bool_(True), *finite]).all()

    return step
