"""Shapes of what crosses the network, without computing any of it."""

from typing import Any

import jax

from fedjax_mrl import numerics
from fedjax_mrl.building import visit_flops
from fedjax_mrl.federation import Federation
from fedjax_mrl.simulation import settings, shapes, visit
from fedjax_mrl.simulation.visit import Report


def broadcast(federation: Federation) -> Any:
    """Shapes of a broadcast, as `jax.ShapeDtypeStruct`."""
    with numerics.fixed(federation.config.precision):
        return shapes.of_server(federation.algorithm)[2]


def report(federation: Federation) -> Report:
    """Shapes of a report, which is the same for every architecture."""
    group = federation.groups[0]
    config = federation.round_config
    batch = config.batch_size
    made = settings.settings_of(
        config, federation.mesh, batch, len(federation.train), group.name
    )
    once = visit.train(federation.algorithm.client(group.model), made)
    given = visit_flops.one_step_visit(federation.dataset, batch, batch)
    with (
        numerics.fixed(federation.config.precision),
        jax.numpy_dtype_promotion("standard"),
    ):
        of = shapes.of(federation.algorithm, group.model)
        return jax.eval_shape(once, of.broadcast, of.pair, given, of.key)[1]
