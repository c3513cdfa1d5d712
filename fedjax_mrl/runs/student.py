"""Student's interval for the mean of a few repetitions."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """Student's 95% interval for the mean of a sample; None of a single value.

    Of differences of pairs it is that of the paired test. Of equal values it is a
    point.
    """
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return mean - reach, mean + reach
