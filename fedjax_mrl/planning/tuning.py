"""Finds out by timing how each group is computed fastest here."""

import math
from collections.abc import Callable
from typing import NamedTuple

from fedjax_mrl import numerics
from fedjax_mrl.federation import Federation
from fedjax_mrl.ops import backend
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
    federation: Federation, report: Callable[[Timed], None] = lambda newest: None
) -> list[Timed]:
    """Times every strategy that might suit, for every architecture.

    Args:
        federation: what is to be run; its states are never made.
        report: is told of each when it was timed.
    """
    config = federation.config
    timed: list[Timed] = []
    for strategy in strategies.candidates(
        config.lowering, config.chunk, backend.current()
    ):
        names = [group.name for group in federation.groups]
        words = strategies.write(dict.fromkeys(names, strategy))
        other = federation.with_settings(strategies=words)
        for group in other.groups:
            known = shapes.of(other.algorithm, group.model)
            program = timing.program_of(other, group, other.round_config)
            best = min(
                (t.seconds for t in timed if t.architecture == group.name),
                default=math.inf,
            )
            pace = timing.measure(other, program, known.pair, known.broadcast, 2 * best)
            timed.append(Timed(group.name, strategy, pace.step / pace.together))
            report(timed[-1])
    return timed


def choose(timed: list[Timed]) -> dict[str, Strategy]:
    """The fastest strategy of each architecture.

    The first one that was timed is the default and stays unless another is clearly
    faster, so that noise decides nothing.
    """
    chosen = {}
    for name in dict.fromkeys(candidate.architecture for candidate in timed):
        candidates = [c for c in timed if c.architecture == name]
        default = candidates[0]
        best = min(candidates, key=lambda candidate: candidate.seconds)
        worth = best.seconds < _WORTH * default.seconds
        chosen[name] = (best if worth else default).strategy
    return chosen
