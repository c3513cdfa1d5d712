"""The clients of a cell beside the same clients under another method."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_mrl.reproducing import results
from fedjax_mrl.reproducing.preset import Preset
from fedjax_mrl.runs import fairness
from fedjax_mrl.runs.fairness import Gains

if TYPE_CHECKING:
    from fedjax_mrl.reproducing.table import Cell

# Seeds of the split, of the training and of the initial weights; -1 is the training's.
Repeat = tuple[int, int, int]


def share(preset: Preset, cell: "Cell", found: "Sequence[Cell]") -> Any:
    """The share of clients, in per cent, that do better than under another method.

    Taken in each repeat, and then averaged over repeats, as in comparison.md.
    """
    shares = [float((each.gain > 0).mean()) for _, each in gains(preset, cell, found)]
    return round(100 * float(np.mean(shares)), 1) if shares else ""


def differences(preset: Preset, cell: "Cell", found: "Sequence[Cell]") -> list[float]:
    """Accuracy of every client minus that under the method `preset.versus`.

    Each is a mean over the repeats on one split; another split makes other clients.
    """
    of: dict[tuple[int, int], list[float]] = {}
    for (split, *_), each in gains(preset, cell, found):
        for client, gain in zip(each.clients, each.gain, strict=True):
            of.setdefault((split, int(client)), []).append(float(gain))
    return [float(np.mean(values)) for values in of.values()]


def gains(
    preset: Preset, cell: "Cell", found: "Sequence[Cell]"
) -> list[tuple[Repeat, Gains]]:
    """The clients of each repeat beside the same repeat of `preset.versus`.

    Empty for that method itself, and where no repeat of both is done.
    """
    if cell.algorithm == preset.versus or not cell.results:
        return []
    for other in found:
        same = other.setting == cell.setting and other.algorithm == preset.versus
        options = dict(cell.options)
        if (
            same
            and other.results
            and all(
                value in ("", options.get(column)) for column, value in other.options
            )
        ):
            return _paired(cell, other)
    return []


def _paired(cell: "Cell", other: "Cell") -> list[tuple[Repeat, Gains]]:
    made = []
    for repeat in cell.paths.keys() & other.paths.keys():
        own = results.clients(cell.paths[repeat], cell.rounds, cell.head)
        theirs = results.clients(other.paths[repeat], other.rounds, other.head)
        gain = fairness.gains(own, theirs)
        if gain is not None:
            made.append((repeat, gain))
    return sorted(made, key=lambda pair: pair[0])
