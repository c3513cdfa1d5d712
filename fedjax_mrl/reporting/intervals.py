"""Intervals for means: Student's over repetitions, the bootstrap's over clients."""

from collections.abc import Sequence

import numpy as np

from fedjax_mrl.runs.student import ALL_EQUAL, LEVEL, all_equal
from fedjax_mrl.runs.student import interval as student

__all__ = [
    "ALL_EQUAL",
    "FEWEST",
    "LEVEL",
    "RESAMPLES",
    "Interval",
    "all_equal",
    "bootstrap",
    "spread",
    "student",
]

RESAMPLES = 10_000
FEWEST = 5  # values that the bootstrap needs: of fewer its intervals are far too narrow
_SEED = 20240531  # of every interval, so that a report made again is the same
_BLOCK = 2_000_000  # numbers drawn at once

Interval = tuple[float, float]


def spread(values: Sequence[float] | np.ndarray) -> float | None:
    """The standard deviation of a sample (n - 1); None of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def bootstrap(values: Sequence[float] | np.ndarray) -> Interval | None:
    """The percentile bootstrap's 95% interval for the mean of a sample.

    The values are drawn with replacement 10,000 times from a seed that is always the
    same. None of fewer than five values.
    """
    sample = np.asarray(values, float)
    if sample.size < FEWEST:
        return None
    draw = np.random.default_rng(_SEED)
    at_once = max(1, _BLOCK // sample.size)
    means = []
    for start in range(0, RESAMPLES, at_once):
        number = min(at_once, RESAMPLES - start)
        chosen = draw.integers(sample.size, size=(number, sample.size))
        means.append(sample[chosen].mean(axis=1))
    tails = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [tails, 1 - tails])
    return float(low), float(high)
