"""The server's part of a round: its programs, the same on every device."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_mrl import rng, tree
from fedjax_mrl.protocol import Algorithm, Cohort, Tree


class ServerPrograms(NamedTuple):
    """The server's functions, compiled.

    Attributes:
        broadcasts: server states of J trials -> their broadcasts, [J, ...].
        broadcast_bytes: server state -> [] bytes of one broadcast.
        gather: see `gatherer`.
        step: see `stepper`.
    """

    broadcasts: Callable[[Sequence[Tree]], Tree]
    broadcast_bytes: Callable[[Tree], jax.Array]
    gather: Callable[[Tree, Tree, Tree], Tree]
    step: Callable[..., tuple[Tree, Tree, jax.Array]]


def make(
    algorithm: Algorithm, cohort_size: int, reject: bool, whole: Tree
) -> ServerPrograms:
    """Builds the server's programs.

    Args:
        algorithm: whose server.
        cohort_size: K.
        reject: leave out reports that are not sound.
        whole: the sharding of what they return.
    """
    server = algorithm.server
    bytes_of = server.broadcast_bytes or (
        lambda state: jnp.float32(tree.num_bytes(server.broadcast(state)))
    )

    @functools.partial(jax.jit, out_shardings=whole)
    def broadcasts(servers):
        sent = [server.broadcast(state) for state in servers]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *sent)

    return ServerPrograms(
        broadcasts,
        jax.jit(bytes_of, out_shardings=whole),
        gatherer(cohort_size, whole),
        stepper(algorithm, reject, whole),
    )


def stepper(algorithm: Algorithm, reject: bool, whole: Tree) -> Callable:
    """Returns the server's step.

    Args:
        algorithm: whose server.
        reject: leave out reports that are not sound.
        whole: the sharding of what it returns.

    Returns:
        server state (consumed), reports [K, ...] in cohort order, weights [K], round,
        raw key -> server state, reports without uploads, whether all numbers of the
        state are finite.
    """

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=whole)
    def step(server, reports, weights, round, key):
        if reject:
            weights = jnp.where(reports.sound, weights, 0)
        counts = weights > 0

        def only_who_counts(leaf):  # a weight of zero does not stop a NaN
            rows = counts.reshape((-1,) + (1,) * (leaf.ndim - 1))
            return jnp.where(rows, leaf, jnp.zeros((), leaf.dtype))

        uploads = jax.tree.map(only_who_counts, reports.upload)
        key = rng.wrap(key)
        new = algorithm.server.update(server, uploads, Cohort(weights, round, key))
        new = tree.where(counts.any(), new, server)  # nobody: nothing changes
        finite = [
            jnp.isfinite(leaf).all()
            for leaf in jax.tree.leaves(new)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        reports = reports._replace(upload=None)
        return new, reports, jnp.stack([jnp.bool_(True), *finite]).all()

    return step


def gatherer(cohort_size: int, whole: Tree) -> Callable:
    """Returns what collects the reports of a cohort, wave by wave.

    Gathered before they are summed up: the order of a sum is the cohort's.

    Args:
        cohort_size: K.
        whole: the sharding of what it returns.

    Returns:
        reports [K, ...] so far (consumed; None at first), places [R] in them, past the
        end for nobody, a wave's reports [R, ...], there whole too -> reports [K, ...].
    """

    @functools.partial(jax.jit, out_shardings=whole)
    def first(places, report):
        empty = lambda leaf: jnp.zeros((cohort_size, *leaf.shape[1:]), leaf.dtype)
        return tree.put(jax.tree.map(empty, report), places, report)

    add = jax.jit(tree.put, donate_argnums=0, out_shardings=whole)

    def gather(reports, places, report):
        if reports is None:
            return first(places, report)
        return add(reports, places, report)

    return gather
