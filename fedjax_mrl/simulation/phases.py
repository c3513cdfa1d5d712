"""The phases of a round after it is planned: train, aggregate, store.

Several trials go through them at once; each argument has a list of one value a trial.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_mrl.protocol import Tree
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation.aggregation import ServerPrograms
from fedjax_mrl.simulation.cohorts import RoundPlan, Sampler
from fedjax_mrl.simulation.dealing import Wave
from fedjax_mrl.simulation.group_program import GroupProgram, TrialInputs
from fedjax_mrl.simulation.state import State
from fedjax_mrl.simulation.visit import Report
from fedjax_mrl.stores import PADDING_ROW, Store


class Pieces(NamedTuple):
    """The pieces that play the rounds of one federation."""

    programs: list[GroupProgram]  # of each group
    sampler: Sampler
    server: ServerPrograms
    store: Store
    weights: np.ndarray  # [N] float32, training samples
    cohort_size: int  # K, the most there can be
    num_trials: int  # J


class Visits(NamedTuple):
    """The visits of a group's participants, before and after them.

    Attributes:
        group: its name.
        plans: of every trial.
        present: trial, as its place in `plans`, and id of each participant.
        losses: the mean training loss of each [len(present)]; None before.
    """

    group: str
    plans: Sequence[RoundPlan]
    present: Sequence[tuple[int, int]]
    losses: np.ndarray | None = None


Watch = Callable[[Visits], None]


class Trained(NamedTuple):
    """The members of a wave after their training."""

    program: GroupProgram
    wave: Wave
    pairs: tuple[Tree, Tree]  # private states and shared copies [R, ...]
    sound: jax.Array  # [R] bool


class Aggregated(NamedTuple):
    """The server of a trial after its step."""

    server: Tree  # its new state
    report: Report  # of the cohort [K], without uploads
    finite: jax.Array  # [] bool, the new state


def train(
    pieces: Pieces,
    plans: Sequence[RoundPlan],
    states: Sequence[State],
    watch: Watch | None = None,
    purpose: Purpose = Purpose.CLIENT_UPDATE,
) -> tuple[list[Trained], list[Report]]:
    """Lets the participants train, group by group and wave by wave.

    Args:
        pieces: of the federation.
        plans: of each trial's round.
        states: of each trial.
        purpose: of the participants' keys.
        watch: is told when a group with participants begins, and when it is done; only
            for this is anything waited for.

    Returns:
        Every wave after it, and for each trial the reports [K, ...] in cohort order,
        whatever groups, waves and devices are. A cohort smaller than K is padded by
        members of weight zero.
    """
    servers = [state.server for state in states]
    inputs = _trial_inputs(pieces, plans, servers, purpose)
    trained: list[Trained] = []
    gathering = _Gathering(pieces, plans)
    schedule = lambda trial, client: pieces.sampler.minibatches(plans[trial], client)
    busy = np.zeros(pieces.store.mesh.size)
    for program in pieces.programs:
        group = program.group
        present = [
            (trial, int(client))
            for trial, plan in enumerate(plans)
            for client in np.intersect1d(group.clients, plan.reported)
        ]
        waves, busy = program.waves(present, schedule, busy)
        handles = [state.clients[group.name] for state in states]
        if watch is not None and present:
            watch(Visits(group.name, plans, present))
        losses = []
        for wave in waves:
            before = pieces.store.take(handles, wave.trial, wave.rows)
            pairs, report = program.train(before, inputs, wave.members)
            trained.append(Trained(program, wave, pairs, report.sound))
            losses.append(report.metrics["total"])
            gathering.add(wave, report)
            del before, report
        if watch is not None and present:
            watch(_ended(group.name, plans, waves, losses))
    if pieces.sampler.foresees:  # while the devices work
        for plan, state in zip(plans, states, strict=True):
            _prefetch(pieces, plan, state)
    return trained, gathering.done()


class _Gathering:
    """Gathers the reports of every trial, one wave behind.

    Gathering may wait for a wave to be done. Then the devices have the next one.
    """

    def __init__(self, pieces: Pieces, plans: Sequence[RoundPlan]) -> None:
        self._pieces, self._plans = pieces, plans
        self._reports: list[Any] = [None] * len(plans)
        self._waiting: list[tuple[Wave, Report]] = []

    def add(self, wave: Wave, report: Report) -> None:
        """Takes the reports [R, ...] of a wave that has just begun."""
        self._gather()
        self._waiting.append((wave, report))

    def done(self) -> list[Report]:
        """For each trial its reports [K, ...]."""
        self._gather()
        return [self._pieces.server.gatherer.done(each) for each in self._reports]

    def _gather(self) -> None:
        gatherer = self._pieces.server.gatherer
        while self._waiting:
            wave, report = self._waiting.pop()
            places = _places_in_cohorts(wave, self._plans, wave.rows.size)
            weights = np.zeros(wave.rows.size, np.float32)
            clients = [client for _, client in wave.present]
            weights[wave.places] = self._pieces.weights[clients]
            self._reports = [
                gatherer.add(so_far, at, weights > 0, report)
                for so_far, at in zip(self._reports, places, strict=True)
            ]


def _ended(
    name: str,
    plans: Sequence[RoundPlan],
    waves: Sequence[Wave],
    losses: Sequence[jax.Array],
) -> Visits:
    """What is told of a group that is done: its members and their losses."""
    found = [np.asarray(of)[w.places] for w, of in zip(waves, losses, strict=True)]
    members = [member for wave in waves for member in wave.present]
    return Visits(name, plans, members, np.concatenate(found))


def aggregate(
    pieces: Pieces,
    plans: Sequence[RoundPlan],
    states: Sequence[State],
    reports: Sequence[Report],
) -> list[Aggregated]:
    """Lets every trial's server work on the reports of its cohort."""
    aggregated = []
    for plan, state, report in zip(plans, states, reports, strict=True):
        weights = np.zeros(pieces.cohort_size, np.float32)
        weights[: plan.reported.size] = pieces.weights[plan.reported]
        keys = [plan.key(purpose) for purpose in pieces.server.purposes]
        stepped = pieces.server.step(
            state.server, report, weights, np.int32(plan.round), *keys
        )
        aggregated.append(Aggregated(*stepped))
    return aggregated


def store(
    pieces: Pieces,
    plans: Sequence[RoundPlan],
    states: Sequence[State],
    trained: Sequence[Trained],
    aggregated: Sequence[Aggregated],
) -> list[State]:
    """Puts the participants back, after they finished with the server's new state."""
    servers = [trial.server for trial in aggregated]
    if pieces.store.through_host:
        jax.block_until_ready(servers)  # so that nothing waits for the uploads
    inputs = None
    if pieces.programs[0].finishes:
        inputs = _trial_inputs(pieces, plans, servers, Purpose.CLIENT_FINISH)
    clients = [dict(state.clients) for state in states]
    for program, wave, (private, shared), sound in trained:
        name = program.group.name
        if inputs is not None:
            private = program.finish(private, inputs, wave.members, sound)
        before = [handles[name] for handles in clients]
        after = pieces.store.put(before, wave.trial, wave.rows, (private, shared))
        for handles, handle in zip(clients, after, strict=True):
            handles[name] = handle
    return [
        State(plan.round, server, handles)
        for plan, server, handles in zip(plans, servers, clients, strict=True)
    ]


def _trial_inputs(
    pieces: Pieces,
    plans: Sequence[RoundPlan],
    servers: Sequence[Tree],
    purpose: Purpose,
) -> TrialInputs:
    """The inputs of each trial's members, filled up to J trials.

    Keys are arguments of the programs, so that one program serves all seeds.
    """
    missing = pieces.num_trials - len(plans)
    fill = lambda values: [*values, *values[:1] * missing]
    return inputs_of(pieces.server.broadcasts(fill(servers)), fill(plans), purpose)


def inputs_of(
    broadcasts: Tree, plans: Sequence[RoundPlan], purpose: Purpose
) -> TrialInputs:
    """The inputs of the members of J trials, from their broadcasts [J, ...]."""
    rates = [plan.trial.learning_rate for plan in plans]
    real = jax.dtypes.canonicalize_dtype(float)
    return TrialInputs(
        broadcast=broadcasts,
        round=np.array([plan.round for plan in plans], np.int32),
        key=np.stack([plan.key(purpose) for plan in plans]),
        learning_rate=None if None in rates else np.array(rates, real),
    )


def _places_in_cohorts(
    wave: Wave, plans: Sequence[RoundPlan], places: int
) -> np.ndarray:
    """Where each of a wave's places stands in the cohort of each trial: [J, R]."""
    to = np.full((len(plans), places), PADDING_ROW, np.int32)
    for (trial, client), place in zip(wave.present, wave.places, strict=True):
        to[trial, place] = np.searchsorted(plans[trial].reported, client)
    return to


def _prefetch(pieces: Pieces, plan: RoundPlan, state: State) -> None:
    """While the devices work, begins to read whom the trial's next round needs."""
    soon = np.setdiff1d(pieces.sampler.next_cohort(plan), plan.reported)
    for program in pieces.programs:
        clients = program.group.clients
        rows = np.searchsorted(clients, np.intersect1d(clients, soon))
        pieces.store.prefetch(state.clients[program.group.name], rows)
