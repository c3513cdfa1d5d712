"""The server's part of a round: its programs, and where they are computed."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, Sharding

from fedjax_mrl import rng, sharding, tree
from fedjax_mrl.protocol import Algorithm, Cohort, Tree
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation import gathering, privatising
from fedjax_mrl.simulation.gathering import Gatherer
from fedjax_mrl.simulation.settings import RoundConfig


class ServerPrograms(NamedTuple):
    """The server's functions, compiled.

    Attributes:
        broadcasts: server states of J trials -> their broadcasts, [J, ...].
        broadcast_bytes: server state -> [] bytes of one broadcast.
        gatherer: of the reports that the step takes.
        step: see `stepper`, and `privatising.stepper` with differential privacy; takes
            the state from every device and returns what it does to every device.
        purposes: of the keys that the step takes, in this order.
        always: whether it is due even where nobody reports.
    """

    broadcasts: Callable[[Sequence[Tree]], Tree]
    broadcast_bytes: Callable[[Tree], jax.Array]
    gatherer: Gatherer
    step: Callable[..., tuple[Tree, Tree, jax.Array]]
    purposes: tuple[Purpose, ...] = (Purpose.SERVER_UPDATE,)
    always: bool = False


def make(
    algorithm: Algorithm, cohort_size: int, config: RoundConfig, mesh: Mesh
) -> ServerPrograms:
    """Builds the server's programs.

    Args:
        algorithm: whose server.
        cohort_size: K.
        config: which reports are left out, and what is made private.
        mesh: devices, every one of which has the server's state between rounds.
    """
    server, whole = algorithm.server, sharding.everywhere(mesh)
    bytes_of = server.broadcast_bytes or (
        lambda state: jnp.float32(tree.num_bytes(server.broadcast(state)))
    )

    @functools.partial(jax.jit, out_shardings=whole)
    def broadcasts(servers):
        sent = [server.broadcast(state) for state in servers]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *sent)

    reject, mechanism = config.reject_nonfinite, config.mechanism
    gatherer = gathering.make(cohort_size, reject, mesh)
    made = ServerPrograms(
        broadcasts,
        jax.jit(bytes_of, out_shardings=whole),
        gatherer,
        _moving(stepper(algorithm, reject, gatherer.place), gatherer.place, whole),
    )
    if mechanism is None:
        return made
    private = privatising.stepper(algorithm, mechanism, reject, gatherer.place)
    return made._replace(
        step=_moving(private, gatherer.place, whole),
        purposes=(Purpose.SERVER_UPDATE, Purpose.PRIVACY),
        always=True,
    )


def _moving(step: Callable, place: Sharding, whole: Sharding) -> Callable:
    """The step, with the state fetched from every device and sent to every device."""
    if place == whole:
        return step

    def moving(server, *rest):
        return jax.device_put(step(jax.device_put(server, place), *rest), whole)

    return moving


def stepper(algorithm: Algorithm, reject: bool, place: Sharding | None) -> Callable:
    """Returns the server's step.

    Args:
        algorithm: whose server.
        reject: leave out reports that are not sound.
        place: where it is computed; None is wherever its arguments are.

    Returns:
        server state (consumed), reports [K, ...] in cohort order, with zeros for
        uploads that do not count (`gathering`), weights [K], round, raw key -> server
        state, reports without uploads, whether all numbers of the state are finite.
    """

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=place)
    def step(server, reports, weights, round, key):
        if reject:
            weights = jnp.where(reports.sound, weights, 0)
        cohort = Cohort(weights, round, rng.wrap(key))
        new = algorithm.server.update(server, reports.upload, cohort)
        new = tree.where((weights > 0).any(), new, server)  # nobody: nothing changes
        return new, reports._replace(upload=None), tree.all_finite(new)

    return step
