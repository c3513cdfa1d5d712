"""Who takes part in a round, and with which minibatches: on the host, before it.

Everything is a function of (seed, round, client); nothing is carried along.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_mrl import rng
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation import batches, faults
from fedjax_mrl.simulation.settings import RoundConfig


class Trial(NamedTuple):
    """The settings by which runs that are played together differ."""

    seed: int
    learning_rate: float | None = None  # None is the optimizer's own; all or none


class RoundPlan(NamedTuple):
    """Who takes part in a round of one trial, before it is played."""

    trial: Trial
    round: int
    cohort: np.ndarray  # [K] ids that were sampled, ascending
    reported: np.ndarray  # [R] those that do not drop out, ascending
    share: np.ndarray  # [R] of its steps that each completes

    def key(self, purpose: Purpose) -> np.ndarray:
        """The raw key of a purpose in this round."""
        return rng.data(rng.key(self.trial.seed, purpose, self.round))


class Sampler:
    """Draws who takes part in the rounds of a federation, and with which minibatches.

    Args:
        train: for each client, the positions it trains on.
        config: cohort and batch size, epochs and faults; its seed is not used.
        sample: round -> ids of its participants, at most K, in any order, as
            `in_order` takes them; None draws K of them (`cohort`).
        schedule: round, client -> its minibatches [S, B], -1 for no example; None
            shuffles (`batches.local_epochs`).

    Attributes:
        batch_size: B of its minibatches; without a `schedule` no larger than clients
            need (`batches.fitting`).
        foresees: whether the next round's cohort may be drawn before that round.
    """

    def __init__(
        self,
        train: Sequence[np.ndarray],
        config: RoundConfig,
        *,
        sample: Callable[[int], np.ndarray] | None = None,
        schedule: Callable[[int, int], np.ndarray] | None = None,
    ) -> None:
        self._train, self._config = train, config
        self._sample, self._schedule = sample, schedule
        self.foresees = sample is None
        self.batch_size = config.batch_size
        if schedule is None:
            self.batch_size = batches.fitting(config.batch_size, train)

    def plan(self, trial: Trial, round: int) -> RoundPlan:
        """Draws the participants of a trial's round, and who of them fails."""
        ids = self._cohort(trial, round)
        share = faults.completed(
            trial.seed,
            round,
            ids,
            dropout=self._config.dropout,
            straggler=self._config.straggler,
        )
        return RoundPlan(trial, round, ids, ids[share > 0], share[share > 0])

    def next_cohort(self, plan: RoundPlan) -> np.ndarray:
        """Ids that will be sampled in the round after this one."""
        return self._cohort(plan.trial, plan.round + 1)

    def minibatches(self, plan: RoundPlan, client: int) -> np.ndarray:
        """The minibatches [S, B] of one that reports, as far as it gets."""
        if self._schedule is not None:
            steps = self._schedule(plan.round, client)
        else:
            steps = batches.local_epochs(
                self._train,
                plan.round,
                client,
                seed=plan.trial.seed,
                epochs=self._config.epochs,
                batch_size=self.batch_size,
            )
        return faults.cut(steps, plan.share[plan.reported == client][0])

    def _cohort(self, trial: Trial, round: int) -> np.ndarray:
        number, size = len(self._train), self._config.cohort_size
        if self._sample is None and self._config.inclusion is not None:
            return independent(trial.seed, round, number, self._config.inclusion)
        if self._sample is None:
            return cohort(trial.seed, round, num_clients=number, cohort_size=size)
        return in_order(self._sample(round), num_clients=number, cohort_size=size)


def cohort(seed: int, round: int, *, num_clients: int, cohort_size: int) -> np.ndarray:
    """Draws the participants of a round: [K] ids, ascending, all equally likely."""
    draw = rng.host(seed, Purpose.COHORT, round)
    return np.sort(draw.choice(num_clients, cohort_size, replace=False))


def independent(
    seed: int, round: int, num_clients: int, inclusion: float
) -> np.ndarray:
    """Draws each client by itself with one probability: ids, ascending, maybe none."""
    draw = rng.host(seed, Purpose.COHORT, round)
    return np.flatnonzero(draw.random(num_clients) < inclusion)


def in_order(
    chosen: Sequence[int] | np.ndarray, *, num_clients: int, cohort_size: int
) -> np.ndarray:
    """Participants that somebody chose, as a cohort: ids [<= K], ascending.

    Everything that depends on the order of participants then follows from who they
    are: the order of sums, and which place of the server's draws is whose.

    Raises:
        ValueError: if they are no whole numbers, not all different, no clients, or
            more than K.
    """
    ids = np.asarray(chosen)
    if not ids.size:
        return np.zeros(0, np.int64)
    whole = ids.ndim == 1 and np.issubdtype(ids.dtype, np.integer)
    if not whole or np.unique(ids).size < ids.size:
        raise ValueError(
            "A sampled cohort must be a list of different client ids, whole numbers; "
            f"got {chosen!r}."
        )
    if ids.min() < 0 or ids.max() >= num_clients or ids.size > cohort_size:
        raise ValueError(
            f"A sampled cohort must have at most {cohort_size} ids, each at least 0 "
            f"and below {num_clients}; got {chosen!r}. Change `sample`, or cohort_size."
        )
    return np.sort(ids).astype(np.int64)
