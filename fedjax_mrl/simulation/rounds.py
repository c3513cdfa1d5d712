"""One federated round, and the state that goes from round to round.

Knows algorithms, models and data only as values of `protocol`.
"""

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import sharding, stores
from fedjax_mrl.protocol import Algorithm, Examples
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation import aggregation, batches
from fedjax_mrl.simulation.aggregation import ServerPrograms
from fedjax_mrl.simulation.cohorts import Trial, Turn, Turns
from fedjax_mrl.simulation.group_program import Common, Part, Settings, Wave
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.stores import PADDING_ROW, Store


class State(NamedTuple):
    """All that a checkpoint holds. No keys: they follow from seed and round."""

    round: int  # rounds played
    server: Any
    # group -> private states, and the shared part as each client last held it; what a
    # store made of stacks [N_g, ...]
    clients: dict[str, tuple[Any, Any]]


class ConsumedError(RuntimeError):
    """A state that a round has consumed; the message says which one to use."""


def require_live(*states: State) -> None:
    """Refuses states that a round has consumed, and one that is given twice.

    Raises:
        ConsumedError: on every store, before anything is computed.
    """
    seen: set[int] = set()
    for state in states:
        held = jax.tree.leaves(state.clients)
        if any(leaf.is_deleted() for leaf in held if hasattr(leaf, "is_deleted")):
            raise ConsumedError(
                f"The state after round {state.round} is gone: the next round was "
                "played from it, which consumes it. Use the newest state instead: the "
                "one that this round returned, or `federation.state` in a loop over "
                "`rounds()`."
            )
        if seen & set(map(id, held)):
            raise ConsumedError(
                f"Every trial consumes a state of its own, but the one after round "
                f"{state.round} is given twice. Make one for each with `init()`."
            )
        seen.update(map(id, held))


class RoundConfig(NamedTuple):
    """How rounds are played.

    Attributes:
        seed: of sampling, shuffling and augmentation.
        cohort_size: K, participants a round.
        epochs: E, local passes over a participant's data.
        batch_size: B.
        init_seed: of initial weights; None is `seed`.
        sweep_batch_size: of passes that train nothing.
        chunk: members of a group computed at once (`mapping.over_members`); 0 is
            those of a usual cohort.
        chunks: of groups by name, where it is another.
        same_start: all clients of an architecture begin with equal weights, as in
            the authors' code.
        client_store: where states lie between rounds (`stores.KINDS`).
        dropout: probability that a participant fails to report: its visit is lost.
        straggler: probability that one completes only a part of its steps.
        reject_nonfinite: leave a participant out of the aggregate, and let it keep
            its state, if anything of its visit is not finite.
        max_upload_norm: with `reject_nonfinite`, also if its upload's norm is
            larger; 0 is no limit.
    """

    seed: int
    cohort_size: int
    epochs: int
    batch_size: int
    init_seed: int | None = None
    sweep_batch_size: int = 128
    chunk: int = 1
    chunks: Mapping[str, int] = types.MappingProxyType({})
    same_start: bool = True
    client_store: str = "device"
    dropout: float = 0.0
    straggler: float = 0.0
    reject_nonfinite: bool = False
    max_upload_norm: float = 0.0


class Played(NamedTuple):
    """What one round reports. Until `fetch`, arrays may still be on their way.

    They are in the order of `reported`, and up to then [K], padded.
    """

    cohort: np.ndarray  # [K] client ids that were sampled, ascending
    reported: np.ndarray  # [R <= K] those that did not drop out, ascending
    stragglers: int  # of them, how many completed only a part
    metrics: dict[str, jax.Array]  # [R] each, mean over the local steps
    finite: dict[str, jax.Array]  # network -> [R] bool
    sound: jax.Array  # [R] bool, all of them finite
    server_finite: jax.Array  # [] bool
    bytes_up: jax.Array  # [R]
    bytes_down: jax.Array  # [] for each of the cohort

    def fetch(self) -> "Played":
        """The same on the host, without padding; waits for the devices."""
        size = self.reported.size
        arrays = self.metrics, self.finite, self.sound, self.bytes_up
        metrics, finite, sound, sent = jax.tree.map(
            lambda leaf: leaf[:size], jax.device_get(arrays)
        )
        return self._replace(
            metrics=metrics,
            finite=finite,
            sound=sound,
            server_finite=np.asarray(self.server_finite),
            bytes_up=sent,
            bytes_down=np.asarray(self.bytes_down),
        )

    @property
    def rejected(self) -> int:
        """How many reported something that is not finite or too large; if fetched."""
        return int((~self.sound).sum())


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
        parts=[
            Part(
                algorithm,
                group,
                examples,
                train,
                holdout,
                settings(group.name, num_trials),
            )
            for group in groups
        ],
        turns=Turns(
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
        weights=np.array([part.size for part in train], np.float32),
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

    parts: list[Part]  # the programs of each group
    turns: Turns
    server: ServerPrograms
    store: Store
    weights: np.ndarray  # [N] float32, training samples
    cohort_size: int  # K
    num_trials: int  # J
    mesh: Mesh
    foreseen: bool  # whether the next round's cohort may be drawn before it


class _Worked(NamedTuple):
    """What a wave of a group did."""

    part: Part
    wave: Wave
    after: tuple[Any, Any]  # private states and shared copies [R, ...]
    sound: jax.Array  # [R] bool


class _Stepped(NamedTuple):
    """What the server of a trial did."""

    server: Any  # its new state
    report: dict[str, Any]  # of the cohort, without uploads
    finite: jax.Array  # [] bool, the new state


def _play(
    pieces: _Pieces, trials: Sequence[Trial], states: Sequence[State]
) -> list[tuple[State, Played]]:
    """Plays one round of each trial: plan, train, aggregate, store."""
    require_live(*states)
    now = _plan(pieces, trials, states)
    down = [pieces.server.broadcast_bytes(state.server) for state in states]
    worked, reports = _train(pieces, now, states)
    stepped = _aggregate(pieces, now, states, reports)
    del reports  # the uploads of a cohort are gone before its states are copied
    after = _store(pieces, now, states, worked, stepped)
    return [
        (
            state,
            Played(
                turn.members,
                turn.reported,
                int((turn.share < 1).sum()),
                step.report["metrics"],
                step.report["finite"],
                step.report["sound"],
                step.finite,
                step.report["bytes"],
                sent,
            ),
        )
        for state, turn, step, sent in zip(after, now, stepped, down, strict=True)
    ]


def _plan(
    pieces: _Pieces, trials: Sequence[Trial], states: Sequence[State]
) -> list[Turn]:
    """Who takes part in the next round of each trial, and who fails in it."""
    return [
        pieces.turns.of(trial, int(state.round) + 1)
        for trial, state in zip(trials, states, strict=True)
    ]


def _train(
    pieces: _Pieces, now: Sequence[Turn], states: Sequence[State]
) -> tuple[list[_Worked], list[Any]]:
    """Lets the participants train, group by group and wave by wave.

    Returns:
        The work of every wave, and for each trial the reports [K, ...] in cohort order,
        whatever groups, waves and devices are. A cohort smaller than K is padded by
        members of weight zero.
    """
    whole = sharding.everywhere(pieces.mesh)
    servers = [state.server for state in states]
    common = _common(pieces, now, servers, Purpose.CLIENT_UPDATE)
    worked: list[_Worked] = []
    reports: list[Any] = [None] * len(now)
    plan = lambda number, client: pieces.turns.plan(now[number], client)
    busy = np.zeros(pieces.mesh.size)
    for part in pieces.parts:
        present = [
            (number, int(client))
            for number, turn in enumerate(now)
            for client in np.intersect1d(part.group.clients, turn.reported)
        ]
        waves, busy = part.waves(present, plan, busy)
        held = [state.clients[part.group.name] for state in states]
        for wave in waves:
            taken = pieces.store.take(held, wave.trial, wave.rows)
            after, report = part.step(taken, common, wave.members)
            worked.append(_Worked(part, wave, after, report["sound"]))
            places = _in_cohorts(wave, now, part.places)
            # To every device first: within a program that takes longer on a CPU.
            report = jax.device_put(report, whole)
            reports = [
                pieces.server.gather(*given, report)
                for given in zip(reports, places, strict=True)
            ]
            del report
    return worked, reports


def _aggregate(
    pieces: _Pieces,
    now: Sequence[Turn],
    states: Sequence[State],
    reports: Sequence[Any],
) -> list[_Stepped]:
    """Lets every trial's server work on the reports of its cohort."""
    stepped = []
    for turn, state, report in zip(now, states, reports, strict=True):
        counts = np.zeros(pieces.cohort_size, np.float32)
        counts[: turn.reported.size] = pieces.weights[turn.reported]
        key = turn.key(Purpose.SERVER_UPDATE)
        found = pieces.server.step(
            state.server, report, counts, np.int32(turn.round), key
        )
        stepped.append(_Stepped(*found))
    return stepped


def _store(
    pieces: _Pieces,
    now: Sequence[Turn],
    states: Sequence[State],
    worked: Sequence[_Worked],
    stepped: Sequence[_Stepped],
) -> list[State]:
    """Keeps what the participants became, after their part once the server is done."""
    servers = [step.server for step in stepped]
    if pieces.foreseen:
        for turn, state in zip(now, states, strict=True):
            _fetch_ahead(pieces, turn, state)
    if pieces.store.through_host:
        jax.block_until_ready(servers)  # so that nothing waits for the uploads
    if pieces.parts[0].finishes:
        common = _common(pieces, now, servers, Purpose.CLIENT_FINISH)
    clients = [dict(state.clients) for state in states]
    for part, wave, (private, shared), sound in worked:
        name = part.group.name
        if part.finishes:
            private = part.finish(private, common, wave.members, sound)
        before = [of_trial[name] for of_trial in clients]
        after = pieces.store.put(before, wave.trial, wave.rows, (private, shared))
        for of_trial, pair in zip(clients, after, strict=True):
            of_trial[name] = pair
    return [
        State(turn.round, server, of_trial)
        for turn, server, of_trial in zip(now, servers, clients, strict=True)
    ]


def _common(
    pieces: _Pieces, now: Sequence[Turn], servers: Sequence[Any], purpose: Purpose
) -> Common:
    """What the members of each trial have in common, filled up to J trials.

    Keys are arguments of the programs, so that one program serves all seeds.
    """
    missing = pieces.num_trials - len(now)
    every = lambda values: [*values, *values[:1] * missing]
    rates = [turn.trial.learning_rate for turn in every(now)]
    real = jax.dtypes.canonicalize_dtype(float)
    return Common(
        pieces.server.broadcasts(every(servers)),
        np.array([turn.round for turn in every(now)], np.int32),
        np.stack([turn.key(purpose) for turn in every(now)]),
        None if None in rates else np.array(rates, real),
    )


def _in_cohorts(wave: Wave, now: Sequence[Turn], places: int) -> np.ndarray:
    """Where each of a wave's places stands in the cohort of each trial: [J, R]."""
    to = np.full((len(now), places), PADDING_ROW, np.int32)
    for (number, client), place in zip(wave.present, wave.places, strict=True):
        to[number, place] = np.searchsorted(now[number].reported, client)
    return to


def _fetch_ahead(pieces: _Pieces, turn: Turn, state: State) -> None:
    """While the devices work, fetches whom the trial's next round needs."""
    soon = np.setdiff1d(pieces.turns.next_cohort(turn), turn.reported)
    for part in pieces.parts:
        clients = part.group.clients
        rows = np.searchsorted(clients, np.intersect1d(clients, soon))
        pieces.store.prefetch(state.clients[part.group.name], rows)


def settings_of(
    config: RoundConfig,
    mesh: Mesh,
    batch_size: int,
    num_clients: int,
    group: str,
    trials: int = 1,
) -> Settings:
    """What a group's programs are made with; B may be below the configuration's."""
    return Settings(
        mesh,
        batch_size,
        config.epochs,
        config.sweep_batch_size,
        config.chunks.get(group, config.chunk),
        config.cohort_size,
        num_clients,
        config.reject_nonfinite,
        config.max_upload_norm if config.reject_nonfinite else 0.0,
        trials,
    )


def read_clients(
    state: State, groups: Sequence[Group], clients: np.ndarray, store: Store
) -> dict[int, tuple[Any, Any]]:
    """Private state and shared copy of some clients, on the host, by id."""
    found = {}
    for group in groups:
        own = np.intersect1d(group.clients, clients)
        if own.size:
            rows = np.searchsorted(group.clients, own).astype(np.int32)
            read = store.read(state.clients[group.name], rows)
            for i, client in enumerate(own.tolist()):
                found[client] = jax.tree.map(lambda leaf, i=i: leaf[i], read)
    return found
