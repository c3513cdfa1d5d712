"""One federated round, and the state that goes from round to round.

Knows algorithms, models and data only as values of `protocol`.
"""

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import sharding, stores, tree
from fedjax_mrl.protocol import Algorithm, Examples
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation import aggregation, batches
from fedjax_mrl.simulation.cohorts import Trial, Turns
from fedjax_mrl.simulation.group_program import Common, Part, Settings, Wave
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.stores import NOWHERE, Store


class State(NamedTuple):
    """All that a checkpoint holds. No keys: they follow from seed and round."""

    round: int  # rounds played
    server: Any
    clients: dict[str, Any]  # group -> private states, stacked [N_g, ...]
    copies: dict[str, Any]  # group -> the shared part as each client last held it


class ConsumedError(RuntimeError):
    """A state that a round has consumed; the message says which one to use."""


def require_live(*states: State) -> None:
    """Refuses states that a round has consumed, and one that is given twice.

    Raises:
        ConsumedError: on every store, before anything is computed.
    """
    seen: set[int] = set()
    for state in states:
        held = jax.tree.leaves((state.clients, state.copies))
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
    store = store or stores.make(config.client_store, mesh)
    batch_size = config.batch_size
    if schedule is None:
        batch_size = batches.fitting(batch_size, train)
    holdout = holdout or [np.zeros(0, np.int32)] * num_clients
    weights = np.array([part.size for part in train], np.float32)
    examples = jax.device_put(examples, whole)
    parts = []
    for group in groups:
        settings = settings_of(
            config, mesh, batch_size, num_clients, group.name, num_trials
        )
        parts.append(Part(algorithm, group, examples, train, holdout, settings))
    turns = Turns(
        train,
        cohort_size=config.cohort_size,
        epochs=config.epochs,
        batch_size=batch_size,
        dropout=config.dropout,
        straggler=config.straggler,
        sample=sample,
        schedule=schedule,
    )
    finishes = parts[0].finishes
    server_step = aggregation.make(algorithm, config.reject_nonfinite, whole)
    gather = aggregation.gatherer(config.cohort_size, whole)
    bytes_of = algorithm.server.broadcast_bytes or (
        lambda state: jnp.float32(tree.num_bytes(algorithm.server.broadcast(state)))
    )
    broadcast_bytes = jax.jit(bytes_of, out_shardings=whole)

    @functools.partial(jax.jit, out_shardings=whole)
    def broadcasts_of(servers):
        sent = [algorithm.server.broadcast(server) for server in servers]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *sent)

    def common_of(now, servers, purpose):
        # Keys are arguments of the programs, so that one program serves all seeds.
        every = lambda values: [*values, *values[:1] * (num_trials - len(values))]
        rates = [turn.trial.learning_rate for turn in every(now)]
        real = jax.dtypes.canonicalize_dtype(float)
        return Common(
            broadcasts_of(every(servers)),
            np.array([turn.round for turn in every(now)], np.int32),
            np.stack([turn.key(purpose) for turn in every(now)]),
            None if None in rates else np.array(rates, real),
        )

    def fetch_ahead(turn, state):
        """While the devices work, fetches whom the trial's next round needs."""
        soon = np.setdiff1d(turns.next_cohort(turn), turn.reported)
        for group in groups:
            rows = np.searchsorted(group.clients, np.intersect1d(group.clients, soon))
            store.ahead((state.clients[group.name], state.copies[group.name]), rows)

    def play(trials, states):
        active = [number for number, state in enumerate(states) if state is not None]
        if not active:
            return [None] * len(states)
        some = ([given[number] for number in active] for given in (trials, states))
        results = dict(zip(active, together(*some), strict=True))
        return [results.get(number) for number in range(len(states))]

    def together(trials, states):
        require_live(*states)
        now = [
            turns.of(trial, int(state.round) + 1)
            for trial, state in zip(trials, states, strict=True)
        ]
        servers = [state.server for state in states]
        common = common_of(now, servers, Purpose.CLIENT_UPDATE)
        down = [broadcast_bytes(server) for server in servers]
        worked: list[_Worked] = []
        # By trial: reports in cohort order, whatever groups, waves and devices are. A
        # cohort smaller than K is padded by members of weight zero.
        reports: list[Any] = [None] * len(now)
        orders = [
            {client: place for place, client in enumerate(one.reported.tolist())}
            for one in now
        ]
        busy = np.zeros(mesh.size)
        for part in parts:
            name, own = part.group.name, part.group.clients
            present = [
                (number, int(client))
                for number, one in enumerate(now)
                for client in np.intersect1d(own, one.reported)
            ]
            waves, busy = part.waves(
                present, lambda number, client: turns.plan(now[number], client), busy
            )
            held = [(state.clients[name], state.copies[name]) for state in states]
            for wave in waves:
                taken = store.take(held, wave.trial, wave.rows)
                after, report = part.step(taken, common, wave.members)
                worked.append(_Worked(part, wave, after, report["sound"]))
                to = np.full((len(now), part.places), NOWHERE, np.int32)
                for (number, client), place in zip(
                    wave.present, wave.places, strict=True
                ):
                    to[number, place] = orders[number][client]
                # To every device first: within a program that takes longer on a CPU.
                report = jax.device_put(report, whole)
                reports = [
                    gather(*given, report) for given in zip(reports, to, strict=True)
                ]
                del report

        stepped = []
        for one, server, report in zip(now, servers, reports, strict=True):
            counts = np.zeros(config.cohort_size, np.float32)
            counts[: one.reported.size] = weights[one.reported]
            key = one.key(Purpose.SERVER_UPDATE)
            stepped.append(
                server_step(server, report, counts, np.int32(one.round), key)
            )
        servers = [server for server, _, _ in stepped]
        del reports, report
        if sample is None:
            for one, state in zip(now, states, strict=True):
                fetch_ahead(one, state)
        if store.through_host:
            # The uploads of a cohort are gone before copies of its states are made.
            jax.block_until_ready(servers)
        if finishes:
            common = common_of(now, servers, Purpose.CLIENT_FINISH)
        clients = [dict(state.clients) for state in states]
        copies = [dict(state.copies) for state in states]
        for part, wave, (private, copy), sound in worked:
            name = part.group.name
            if finishes:
                private = part.finish(private, common, wave.members, sound)
            held = [(a[name], b[name]) for a, b in zip(clients, copies, strict=True)]
            held = store.put(held, wave.trial, wave.rows, (private, copy))
            for number, (a, b) in enumerate(held):
                clients[number][name], copies[number][name] = a, b
        return [
            (
                State(one.round, server, clients[number], copies[number]),
                Played(
                    one.members,
                    one.reported,
                    int((one.share < 1).sum()),
                    report["metrics"],
                    report["finite"],
                    report["sound"],
                    finite,
                    report["bytes"],
                    down[number],
                ),
            )
            for number, (one, (server, report, finite)) in enumerate(
                zip(now, stepped, strict=True)
            )
        ]

    return play


class _Worked(NamedTuple):
    """What a wave of a group did."""

    part: Part
    wave: Wave
    after: tuple[Any, Any]  # private states and copies [R, ...]
    sound: jax.Array  # [R] bool


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
    """Private states and copies of some clients, on the host, by id."""
    found = {}
    for group in groups:
        own = np.intersect1d(group.clients, clients)
        if own.size:
            rows = np.searchsorted(group.clients, own).astype(np.int32)
            held = state.clients[group.name], state.copies[group.name]
            read = store.read(held, rows)
            for i, client in enumerate(own.tolist()):
                found[client] = jax.tree.map(lambda leaf, i=i: leaf[i], read)
    return found
