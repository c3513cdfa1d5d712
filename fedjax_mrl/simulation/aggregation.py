"""The server's part of a round: its programs, the same on every device."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_mrl import rng, tree
from fedjax_mrl.protocol import Algorithm, Cohort, Tree
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation import privatising
from fedjax_mrl.simulation.settings import RoundConfig


class ServerPrograms(NamedTuple):
    """The server's functions, compiled.

    Attributes:
        broadcasts: server states of J trials -> their broadcasts, [J, ...].
        broadcast_bytes: server state -> [] bytes of one broadcast.
        gather: see `gatherer`.
        step: see `stepper`, and `privatising.stepper` with differential privacy.
        purposes: of the keys that the step takes, in this order.
        always: whether it is due even where nobody reports.
    """

    broadcasts: Callable[[Sequence[Tree]], Tree]
    broadcast_bytes: Callable[[Tree], jax.Array]
    gather: Callable[[Tree, Tree, Tree], Tree]
    step: Callable[..., tuple[Tree, Tree, jax.Array]]
    purposes: tuple[Purpose, ...] = (Purpose.SERVER_UPDATE,)
    always: bool = False


def make(
    algorithm: Algorithm, cohort_size: int, config: RoundConfig, whole: Tree
) -> ServerPrograms:
    """Builds the server's programs.

    Args:
        algorithm: whose server.
        cohort_size: K.
        config: which reports are left out, and what is made private.
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

    reject, mechanism = config.reject_nonfinite, config.mechanism
    made = ServerPrograms(
        broadcasts,
        jax.jit(bytes_of, out_shardings=whole),
        gatherer(cohort_size, whole),
        stepper(algorithm, reject, whole),
    )
    if mechanism is None:
        return made
    return made._replace(
        step=privatising.stepper(algorithm, mechanism, reject, whole),
        purposes=(Purpose.SERVER_UPDATE, Purpose.PRIVACY),
        always=True,
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
        return new, reports._replace(upload=None), tree.all_finite(new)

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
