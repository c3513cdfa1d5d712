"""Participants that fail to report, or finish a part of their steps.

Drawn on the host by (seed, round, client) and turned into smaller trip counts and
weights of zero, so that no fault causes a recompilation.
"""

import numpy as np

from fedjax_mrl import rng
from fedjax_mrl.rng import Purpose


def completed(
    seed: int, round: int, cohort: np.ndarray, *, dropout: float, straggler: float
) -> np.ndarray:
    """The share of its local steps that each participant completes.

    Args:
        seed: the run's seed.
        round: counted from 1.
        cohort: ids [K].
        dropout: probability that a participant fails to report; it completes 0.
        straggler: probability that one that reports is slow; it completes a share
            that is uniform in (0, 1).

    Returns:
        [K] float; 1 for a participant without a fault.
    """
    share = np.ones(cohort.size)
    if not dropout and not straggler:
        return share
    for place, client in enumerate(cohort):
        draw = rng.host(seed, Purpose.FAULTS, round, int(client))
        fails, slow, completes = draw.random(3)
        if fails < dropout:
            share[place] = 0.0
        elif slow < straggler:
            share[place] = completes
    return share


def cut(schedule: np.ndarray, share: float) -> np.ndarray:
    """The first steps [S', B] of a schedule [S, B]: a share of them, at least one."""
    return schedule[: max(1, int(np.ceil(len(schedule) * share)))]
