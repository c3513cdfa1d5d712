"""The measures of a cell: means and spreads over seeds, and paired differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_mrl.runs import student

MEASURES = ("last", "last10", "best")


def mean(trials: Sequence[dict[str, Any]], key: str) -> float:
    """The mean over seeds of a measure, in [0, 1]."""
    return float(np.mean([line[key] for line in trials]))


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds of accuracies, in per cent."""
    text = f"{100 * np.mean(values):.2f}"
    if len(values) < 2:
        return text
    return f"{text} ± {100 * np.std(values, ddof=1):.2f}"


def difference(rows: Sequence[dict], alone: Sequence[dict]) -> str:
    """Mean difference of last accuracies paired by seed, and its 95% interval.

    Args:
        rows: of comparison.csv, of one algorithm.
        alone: those of Standalone.

    Returns:
        Percentage points, as "+1.25 [-2.47, +4.98]"; "-" without a pair. Of seeds that
        all differ by the same there is no interval, as "+1.25 [all equal]".
    """
    by_seed = {line["seed"]: line["last"] for line in alone}
    paired = {line["seed"]: line["last"] for line in rows if line["seed"] in by_seed}
    if not paired or rows[0]["algorithm"] == "standalone":
        return "-"
    found = [100 * last - 100 * by_seed[seed] for seed, last in paired.items()]
    text = f"{np.mean(found):+.2f}"
    if student.all_equal(found):
        return f"{text} [{student.ALL_EQUAL}]"
    interval = student.interval(found)
    return text if interval is None else "{} [{:+.2f}, {:+.2f}]".format(text, *interval)
