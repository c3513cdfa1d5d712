"""One federated round: plan, train, aggregate, store.

Knows algorithms, models and data only as values of `protocol`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import sharding, stores
from fedjax_mrl.protocol import Algorithm, Examples
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation import aggregation, batches
from fedjax_mrl.simulation.aggregation import ServerPrograms
from fedjax_mrl.simulation.cohorts import RoundPlan, Sampler, Trial
from fedjax_mrl.simulation.dealing import Wave
from fedjax_mrl.simulation.group_program import GroupProgram, TrialInputs
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig, settings_of
from fedjax_mrl.simulation.state import Played, State, require_live
from fedjax_mrl.simulation.visit import Report
from fedjax_mrl.stores import PADDING_ROW, Store


def make(
    algorithm: Algorithm,
    groups: Sequence[Group],
    examples: Examples,
    train: Sequence[np.ndarray],
    config: RoundConfig,
    **options: Any,
) -> Callable[..., tuple[State, Played]]:
    """Returns `play`, which takes one federation's state through one round.

    Args:
        algorithm: what to run.
        groups: the clients of each architecture; together they are all clients.
        examples: the training images.
        train: for each client, the positions it trains on.
        config: cohort, epochs, batches, seed.
        **options: as of `make_together`.

    Returns:
        A function from a state and a seed (default: the configuration's) to the next
        state and what the round reports; see `make_together`.

    Raises:
        ValueError: as `make_together`.
    """
    together = make_together(algorithm, groups, examples, train, config, **options)

    def play(state: State, seed: int | None = None) -> tuple[State, Played]:
        (result,) = together([Trial(config.seed if seed is None else seed)], [state])
        return result

    return play


def make_together(
    algorithm: Algorithm,
    groups: Sequence[Group],
    examples: Examples,
    train: Sequence[np.ndarray],
    config: RoundConfig,
    *,
    num_trials: int = 1,
    holdout: Sequence[np.ndarray] | None = None,
    sample: Callable[[int], np.ndarray] | None = None,
    schedule: Callable[[int, int], np.ndarray] | None = None,
    mesh: Mesh | None = None,
    store: Store | None = None,
) -> Callable[[Sequence[Trial], Sequence[State | None]], list[Any]]:
    """Returns `play`, which takes the states of several trials through one round each.

    The clients of all trials are members of the same programs: one more batched axis,
    of which each member knows its own place only.

    Args:
        algorithm: what to run.
        groups: the clients of each architecture; together they are all clients.
        examples: the training images.
        train: for each client, the positions it trains on.
        config: cohort, epochs, batches; its seed is not used.
        num_trials: J, how many are played at once.
        holdout: for each client, positions kept out of training.
        sample: round -> ids of its participants, at most K, in any order
            (`cohorts.in_order`); by default K of them, all clients equally likely
            (`cohorts.cohort`).
        schedule: round, client -> its minibatches [S, B], -1 for no example; by
            default shuffled local epochs (`batches.local_epochs`).
        mesh: devices that the clients are split over; by default the first one.
        store: where states lie between rounds; by default as configured.

    Returns:
        A function from J trials and their states, in any rounds, to their next states
        and what their rounds report, `(State, Played)` each. A trial without a state is
        left out and has None. It consumes the states it is given (donation), and with
        a store on the devices returns before they are done. Each group's program is
        traced once, whatever cohorts, trials and rounds.

    Raises:
        ValueError: if the cohort is empty or larger than the federation, or if
            the algorithm cannot work with a model.
    """
    num_clients = len(train)
    if not 1 <= config.cohort_size <= num_clients:
        raise ValueError(
            f"A round needs between 1 and {num_clients} participants; got "
            f"{config.cohort_size}. Change the participation."
        )
    mesh = mesh or sharding.mesh(1)
    whole = sharding.everywhere(mesh)
    batch_size = config.batch_size
    if schedule is None:
        batch_size = batches.fitting(batch_size, train)
    holdout = holdout or [np.zeros(0, np.int32)] * num_clients
    examples = jax.device_put(examples, whole)
    settings = functools.partial(settings_of, config, mesh, batch_size, num_clients)
    pieces = _Pieces(
        programs=[
            GroupProgram(
                algorithm,
                group,
                examples,
                train,
                holdout,
                settings(group.name, num_trials),
            )
            for group in groups
        ],
        sampler=Sampler(
            train,
            cohort_size=config.cohort_size,
            epochs=config.epochs,
            batch_size=batch_size,
            dropout=config.dropout,
            straggler=config.straggler,
            sample=sample,
            schedule=schedule,
        ),
        server=aggregation.make(
            algorithm, config.cohort_size, config.reject_nonfinite, whole
        ),
        store=store or stores.make(config.client_store, mesh),
        weights=np.array([positions.size for positions in train], np.float32),
        cohort_size=config.cohort_size,
        num_trials=num_trials,
        mesh=mesh,
        foreseen=sample is None,
    )

    def play(trials, states):
        active = [number for number, state in enumerate(states) if state is not None]
        if not active:
            return [None] * len(states)
        some = ([given[number] for number in active] for given in (trials, states))
        results = dict(zip(active, _play(pieces, *some), strict=True))
        return [results.get(number) for number in range(len(states))]

    return play


class _Pieces(NamedTuple):
    """The pieces that play the rounds of one federation."""

    programs: list[GroupProgram]  # of each group
    sampler: Sampler
    server: ServerPrograms
    store: Store
    weights: np.ndarray  # [N] float32, training samples
    cohort_size: int  # K
    num_trials: int  # J
    mesh: Mesh
    foreseen: bool  # whether the next round's cohort may be drawn before it


class _Trained(NamedTuple):
    """The members of a wave after their training."""

    program: GroupProgram
    wave: Wave
    pairs: tuple[Any, Any]  # private states and shared copies [R, ...]
    sound: jax.Array  # [R] bool


class _Aggregated(NamedTuple):
    """The server of a trial after its step."""

    server: Any  # its new state
    report: Report  # of the cohort [K], without uploads
    finite: jax.Array  # [] bool, the new state


def _play(
    pieces: _Pieces, trials: Sequence[Trial], states: Sequence[State]
) -> list[tuple[State, Played]]:
    """Plays one round of each trial: plan, train, aggregate, store."""
    require_live(*states)
    plans = [
        pieces.sampler.plan(trial, int(state.round) + 1)
        for trial, state in zip(trials, states, strict=True)
    ]
    bytes_down = [pieces.server.broadcast_bytes(state.server) for state in states]
    trained, reports = _train(pieces, plans, states)
    aggregated = _aggregate(pieces, plans, states, reports)
    del reports  # the uploads of a cohort are gone before its states are copied
    new_states = _store(pieces, plans, states, trained, aggregated)
    played = map(_played, plans, aggregated, bytes_down)
    return list(zip(new_states, played, strict=True))


def _played(plan: RoundPlan, aggregated: _Aggregated, bytes_down: jax.Array) -> Played:
    """The report of one trial's round."""
    report = aggregated.report
    return Played(
        cohort=plan.cohort,
        reported=plan.reported,
        stragglers=int((plan.share < 1).sum()),
        metrics=report.metrics,
        finite=report.finite,
        sound=report.sound,
        server_finite=aggregated.finite,
        bytes_up=report.bytes_up,
        bytes_down=bytes_down,
    )


def _train(
    pieces: _Pieces, plans: Sequence[RoundPlan], states: Sequence[State]
) -> tuple[list[_Trained], list[Report]]:
    """Lets the participants train, group by group and wave by wave.

    Returns:
        Every wave after it, and for each trial the reports [K, ...] in cohort order,
        whatever groups, waves and devices are. A cohort smaller than K is padded by
        members of weight zero.
    """
    whole = sharding.everywhere(pieces.mesh)
    servers = [state.server for state in states]
    inputs = _trial_inputs(pieces, plans, servers, Purpose.CLIENT_UPDATE)
    trained: list[_Trained] = []
    reports: list[Any] = [None] * len(plans)
    schedule = lambda trial, client: pieces.sampler.minibatches(plans[trial], client)
    busy = np.zeros(pieces.mesh.size)
    for program in pieces.programs:
        group = program.group
        present = [
            (trial, int(client))
            for trial, plan in enumerate(plans)
            for client in np.intersect1d(group.clients, plan.reported)
        ]
        waves, busy = program.waves(present, schedule, busy)
        handles = [state.clients[group.name] for state in states]
        for wave in waves:
            before = pieces.store.take(handles, wave.trial, wave.rows)
            pairs, report = program.train(before, inputs, wave.members)
            trained.append(_Trained(program, wave, pairs, report.sound))
            places = _places_in_cohorts(wave, plans, program.places)
            # To every device first: within a program that takes longer on a CPU.
            report = jax.device_put(report, whole)
            reports = [
                pieces.server.gather(so_far, at, report)
                for so_far, at in zip(reports, places, strict=True)
            ]
            del before, report
    return trained, reports


def _aggregate(
    pieces: _Pieces,
    plans: Sequence[RoundPlan],
    states: Sequence[State],
    reports: Sequence[Report],
) -> list[_Aggregated]:
    """Lets every trial's server work on the reports of its cohort."""
    aggregated = []
    for plan, state, report in zip(plans, states, reports, strict=True):
        weights = np.zeros(pieces.cohort_size, np.float32)
        weights[: plan.reported.size] = pieces.weights[plan.reported]
        key = plan.key(Purpose.SERVER_UPDATE)
        stepped = pieces.server.step(
            state.server, report, weights, np.int32(plan.round), key
        )
        aggregated.append(_Aggregated(*stepped))
    return aggregated


def _store(
    pieces: _Pieces,
    plans: Sequence[RoundPlan],
    states: Sequence[State],
    trained: Sequence[_Trained],
    aggregated: Sequence[_Aggregated],
) -> list[State]:
    """Puts the participants back, after they finished with the server's new state."""
    servers = [trial.server for trial in aggregated]
    if pieces.foreseen:
        for plan, state in zip(plans, states, strict=True):
            _prefetch(pieces, plan, state)
    if pieces.store.through_host:
        jax.block_until_ready(servers)  # so that nothing waits for the uploads
    if pieces.programs[0].finishes:
        inputs = _trial_inputs(pieces, plans, servers, Purpose.CLIENT_FINISH)
    clients = [dict(state.clients) for state in states]
    for program, wave, (private, shared), sound in trained:
        name = program.group.name
        if program.finishes:
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
    pieces: _Pieces,
    plans: Sequence[RoundPlan],
    servers: Sequence[Any],
    purpose: Purpose,
) -> TrialInputs:
    """The inputs of each trial's members, filled up to J trials.

    Keys are arguments of the programs, so that one program serves all seeds.
    """
    missing = pieces.num_trials - len(plans)
    fill = lambda values: [*values, *values[:1] * missing]
    plans, servers = fill(plans), fill(servers)
    rates = [plan.trial.learning_rate for plan in plans]
    real = jax.dtypes.canonicalize_dtype(float)
    return TrialInputs(
        broadcast=pieces.server.broadcasts(servers),
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


def _prefetch(pieces: _Pieces, plan: RoundPlan, state: State) -> None:
    """While the devices work, begins to read whom the trial's next round needs."""
    soon = np.setdiff1d(pieces.sampler.next_cohort(plan), plan.reported)
    for program in pieces.programs:
        clients = program.group.clients
        rows = np.searchsorted(clients, np.intersect1d(clients, soon))
        pieces.store.prefetch(state.clients[program.group.name], rows)
