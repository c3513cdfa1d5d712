"""Student's interval for the mean of a few repetitions."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
ALL_EQUAL = "all equal"  # said instead of an interval


def all_equal(values: Sequence[float] | np.ndarray) -> bool:
    """Whether a sample of several has no spread, so that nothing follows from it.

    Example:
        >>> all_equal([0.5, 0.5]), all_equal([0.5, 0.6]), all_equal([0.5])
        (True, False, False)
    """
    return len(values) > 1 and float(np.ptp(np.round(values, 9))) == 0


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
