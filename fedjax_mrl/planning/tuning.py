"""Finds out by timing how each group is computed fastest here."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax

from fedjax_mrl import numerics
from fedjax_mrl.federation import Federation
from fedjax_mrl.planning import timing
from fedjax_mrl.simulation import shapes, strategies
from fedjax_mrl.simulation.strategies import Strategy

_WORTH = 0.97  # another strategy than the default must be so much faster


class Timed(NamedTuple):
    """A group under one strategy."""

    architecture: str
    strategy: Strategy
    seconds: float  # of a local step of one member


@numerics.fixed()
def measure(
    federation: Federation, report: Callable[[Timed], None] = lambda timed: None
) -> list[Timed]:
    """Times every strategy that might suit, for every architecture.

    Args:
        federation: what is to be run; its states are never made.
        report: is told of each as it is found.
    """
    config = federation.config
    found = []
    for strategy in strategies.candidates(
        config.lowering, config.chunk, jax.default_backend()
    ):
        words = strategies.write(dict.fromkeys(config.models, strategy))
        other = Federation(
            dataclasses.replace(config, strategies=words),
            dataset=federation.dataset,
            partition=federation.partition,
            client_folder="unused",
        )
        for group in other.groups:
            of = shapes.of(other.algorithm, group.model)
            part = timing.program_of(other, group, other.round_config)
            best = min(
                (t.seconds for t in found if t.architecture == group.name),
                default=math.inf,
            )
            pace = timing.measure(other, part, of.held, of.broadcast, 2 * best)
            found.append(Timed(group.name, strategy, pace.step / pace.together))
            report(found[-1])
    return found


def choose(found: list[Timed]) -> dict[str, Strategy]:
    """The fastest strategy of each architecture.

    The first one that was timed is the default and stays unless another is clearly
    faster, so that noise decides nothing.
    """
    chosen = {}
    for name in dict.fromkeys(timed.architecture for timed in found):
        own = [timed for timed in found if timed.architecture == name]
        best = min(own, key=lambda timed: timed.seconds)
        worth = best.seconds < _WORTH * own[0].seconds
        chosen[name] = (best if worth else own[0]).strategy
    return chosen
