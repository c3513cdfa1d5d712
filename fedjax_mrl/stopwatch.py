"""Seconds that the parts of rounds take. The only clock of a federation."""

import time
from collections.abc import Mapping
from typing import NamedTuple

import jax

from fedjax_mrl.results import Seconds


class Lap(NamedTuple):
    """A moment, and what was spent in each part up to it, in seconds."""

    moment: float
    spent: Mapping[str, float]


class Stopwatch:
    """Adds up seconds by part, of all trials that share a federation's programs."""

    def __init__(self) -> None:
        self._spent = dict.fromkeys(Seconds._fields[1:], 0.0)
        self._moment = time.perf_counter()

    def lap(self) -> Lap:
        """This moment; the next part begins here."""
        self._moment = time.perf_counter()
        return Lap(self._moment, dict(self._spent))

    def reached(self, part: str, values: object) -> None:
        """Ends a part once the arrays that it makes are there; the next begins."""
        jax.block_until_ready(values)
        now = time.perf_counter()
        self._spent[part] += now - self._moment
        self._moment = now

    def since(self, lap: Lap, sharing: int = 1) -> Seconds:
        """Seconds since then, divided among the trials that shared them."""
        spent = {
            part: (seconds - lap.spent[part]) / sharing
            for part, seconds in self._spent.items()
        }
        return Seconds((time.perf_counter() - lap.moment) / sharing, **spent)
