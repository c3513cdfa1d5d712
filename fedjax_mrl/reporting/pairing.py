"""Two methods beside each other: differences by repetition and by client, and tests."""

import itertools
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fedjax_mrl.reporting.grouping import Method, Setting
from fedjax_mrl.reporting.record import Run

# Pairs that Wilcoxon's test needs to give a p-value below 0.05 at all.
FEWEST_RANKED = 6


class Pair(NamedTuple):
    """What one method has over another.

    Attributes:
        first: the one.
        second: the other, which is subtracted.
        by_repetition: differences of the clients' mean accuracy [R], in the last round
            that both runs of a repetition evaluated.
        by_client: differences of every client [N'], each a mean over the repetitions
            in which both runs tested it.
        rounds: those in which they were taken, from the first to the last.
    """

    first: str
    second: str
    by_repetition: np.ndarray
    by_client: np.ndarray
    rounds: tuple[int, int]


def pairs(setting: Setting) -> list[Pair]:
    """All pairs of methods that have a repetition in common.

    Standalone is subtracted where it is one of the two, and those pairs come first;
    else the method that was named later.
    """
    methods = setting.methods
    alone = [m for m in methods if m.algorithm == "standalone"]
    others = [m for m in methods if m.algorithm != "standalone"]
    both = [(m, s) for s in alone for m in others]
    both += itertools.combinations(others, 2)
    both += itertools.combinations(alone, 2)
    made = [pair(first, second) for first, second in both]
    return [each for each in made if each is not None]


def pair(first: Method, second: Method) -> Pair | None:
    """Two methods beside each other; None if they have no repetition in common."""
    theirs = {run.repetition: run for run in second.runs}
    common = [
        (run, theirs[run.repetition], _common_round(run, theirs[run.repetition]))
        for run in first.runs
        if run.repetition in theirs
    ]
    common = [each for each in common if each[2]]
    if not common:
        return None
    rounds = [number for *_, number in common]
    return Pair(
        first.name,
        second.name,
        np.array([a.curve[t] - b.curve[t] for a, b, t in common]),
        _by_client(common),
        (min(rounds), max(rounds)),
    )


def _common_round(first: Run, second: Run) -> int:
    """The last round that both evaluated; 0 if there is none."""
    return max(first.curve.keys() & second.curve.keys(), default=0)


def _by_client(common: Sequence[tuple[Run, Run, int]]) -> np.ndarray:
    """Differences of every client, means over repetitions.

    Another data split makes other clients: each is one of its own.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for first, second, number in common:
        ours, theirs = first.at(number), second.at(number)
        for client in sorted(ours.keys() & theirs.keys()):
            place = first.config.data_seed, client
            found.setdefault(place, []).append(ours[client] - theirs[client])
    return np.array([np.mean(values) for values in found.values()])


def student(differences: np.ndarray) -> float | None:
    """The p-value of the paired t-test; None of fewer than two, or of equal ones."""
    if differences.size < 2 or np.ptp(differences) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nearly equal differences
        return float(stats.ttest_1samp(differences, 0.0).pvalue)


def wilcoxon(differences: np.ndarray) -> float | None:
    """The p-value of Wilcoxon's signed-rank test; None if there are too few.

    Differences of zero say nothing and are left out.
    """
    rounded = np.round(differences, 9)  # so that equal accuracies are ties
    found = rounded[rounded != 0]
    if found.size < FEWEST_RANKED:
        return None
    return float(stats.wilcoxon(found).pvalue)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for being several, by Holm's method; None stays."""
    known = [place for place, value in enumerate(values) if value is not None]
    adjusted: list[float | None] = [None] * len(values)
    largest = 0.0
    ascending = sorted(known, key=lambda place: values[place] or 0.0)
    for rank, place in enumerate(ascending):
        largest = max(largest, (len(known) - rank) * (values[place] or 0.0))
        adjusted[place] = min(1.0, largest)
    return adjusted
