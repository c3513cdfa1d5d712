"""One federated round, and the state that goes from round to round.

Knows algorithms, models and data only as values of `protocol`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import batches, faults, layout, rng, stores, tree
from fedjax_mrl.population import Group
from fedjax_mrl.protocol import Algorithm, Cohort, Examples
from fedjax_mrl.rng import Purpose
from fedjax_mrl.stores import Store
from fedjax_mrl.visits import Part, Settings


class State(NamedTuple):
    """All that a checkpoint holds. No keys: they follow from seed and round."""

    round: int  # rounds played
    server: Any
    clients: dict[str, Any]  # group -> private states, stacked [N_g, ...]
    copies: dict[str, Any]  # group -> the shared part as each client last held it


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
            all of them.
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

    cohort: np.ndarray  # [K] client ids that were sampled
    reported: np.ndarray  # [R <= K] those that did not drop out
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


def cohort(seed: int, round: int, *, num_clients: int, cohort_size: int) -> np.ndarray:
    """Draws the participants of a round: [K] ids, ascending, all equally likely."""
    draw = rng.host(seed, Purpose.COHORT, round)
    return np.sort(draw.choice(num_clients, cohort_size, replace=False))


def init(algorithm: Algorithm, groups: Sequence[Group], config: RoundConfig) -> State:
    """Returns the state before the first round; see `make_init`."""
    return make_init(algorithm, groups, config)()


def make_init(
    algorithm: Algorithm,
    groups: Sequence[Group],
    config: RoundConfig,
    mesh: Mesh | None = None,
    store: Store | None = None,
) -> Callable[..., State]:
    """Returns `init`, from a seed (default: the configuration's) to the first state.

    Compiled once for all seeds.
    """
    mesh = mesh or layout.mesh(1)
    store = store or stores.make(config.client_store, mesh)

    # They run once: on a CPU, optimising them takes three times as long as they do.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 1} if on_cpu else None
    compiled = functools.partial(jax.jit, compiler_options=options)

    def first(key):
        server = algorithm.server.init(jax.random.wrap_key_data(key))
        return server, algorithm.server.broadcast(server)

    def clients_of(group):
        one = algorithm.client(group.model).init
        return compiled(
            lambda base, origin: one(
                jax.random.fold_in(jax.random.wrap_key_data(base), origin)
            )
        )

    init_server = compiled(first)
    init_group = {group.name: clients_of(group) for group in groups}

    def init(seed: int | None = None) -> State:
        if seed is None:
            seed = config.seed if config.init_seed is None else config.init_seed
        started = init_server(rng.data(rng.key(seed, Purpose.SERVER_INIT)))
        server, broadcast = jax.device_get(started)
        base = rng.data(rng.key(seed, Purpose.CLIENT_INIT, int(config.same_start)))
        clients, copies = {}, {}
        for place, group in enumerate(groups):
            name, number = group.name, group.clients.size
            fresh = _fresh(init_group[name], base, group.clients)
            if config.same_start:
                alike = jax.device_get(init_group[name](base, np.uint32(place)))
                fresh = functools.partial(_repeat, alike)
            clients[name] = store.begin(f"{name}/private", number, fresh)
            copies[name] = store.begin(
                f"{name}/shared", number, functools.partial(_repeat, broadcast)
            )
        return State(
            0, jax.device_put(server, layout.everywhere(mesh)), clients, copies
        )

    return init


def _repeat(alike: Any, rows: np.ndarray) -> Any:
    """The same state for all rows: [R, ...]."""
    return jax.tree.map(
        lambda leaf: np.broadcast_to(leaf, (len(rows), *np.shape(leaf))), alike
    )


def _fresh(init: Callable, base: np.ndarray, clients: np.ndarray) -> Callable:
    """The first states of rows, each from its client's own key."""

    def fresh(rows):
        made = [jax.device_get(init(base, np.uint32(clients[row]))) for row in rows]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *made)

    return fresh


def make(
    algorithm: Algorithm,
    groups: Sequence[Group],
    examples: Examples,
    train: Sequence[np.ndarray],
    config: RoundConfig,
    *,
    holdout: Sequence[np.ndarray] | None = None,
    sample: Callable[[int], np.ndarray] | None = None,
    schedule: Callable[[int, int], np.ndarray] | None = None,
    mesh: Mesh | None = None,
    store: Store | None = None,
) -> Callable[..., tuple[State, Played]]:
    """Returns `play`, which takes the state through one round.

    Args:
        algorithm: what to run.
        groups: the clients of each architecture; together they are all clients.
        examples: the training images.
        train: for each client, the positions it trains on.
        config: cohort, epochs, batches, seed.
        holdout: for each client, positions kept out of training.
        sample: round -> ids of its participants, at most K; by default K of them,
            all clients equally likely (`cohort`).
        schedule: round, client -> its minibatches [S, B], -1 for no example; by
            default shuffled local epochs (`batches.local_epochs`).
        mesh: devices that the clients are split over; by default the first one.
        store: where states lie between rounds; by default as configured.

    Returns:
        A function from a state and a seed (default: the configuration's) to the next
        state and what the round reports. It consumes the state it is given
        (donation), and returns before the devices are done. Each group's program is
        traced once, whatever cohort and seed.

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
    mesh = mesh or layout.mesh(1)
    whole = layout.everywhere(mesh)
    store = store or stores.make(config.client_store, mesh)
    batch_size = config.batch_size
    if schedule is None:
        batch_size = batches.fitting(batch_size, train)
    holdout = holdout or [np.zeros(0, np.int32)] * num_clients
    weights = np.array([part.size for part in train], np.float32)
    examples = jax.device_put(examples, whole)
    settings = settings_of(config, mesh, batch_size)
    parts = [
        Part(algorithm, group, examples, train, holdout, settings) for group in groups
    ]
    offsets = np.cumsum([0, *(part.places for part in parts)])
    finishes = parts[0].finishes
    broadcast_of = jax.jit(algorithm.server.broadcast, out_shardings=whole)
    server_step = _server_step(algorithm, config.reject_nonfinite, whole)
    bytes_of = algorithm.server.broadcast_bytes or (
        lambda state: jnp.float32(tree.num_bytes(algorithm.server.broadcast(state)))
    )
    broadcast_bytes = jax.jit(bytes_of, out_shardings=whole)

    def drawn(seed, round):
        if sample is not None:
            return sample(round)
        return cohort(
            seed, round, num_clients=num_clients, cohort_size=config.cohort_size
        )

    def play(state: State, seed: int | None = None) -> tuple[State, Played]:
        seed = config.seed if seed is None else seed
        round = int(state.round) + 1
        members = drawn(seed, round)
        share = faults.completed(
            seed,
            round,
            members,
            dropout=config.dropout,
            straggler=config.straggler,
        )
        reported, share = members[share > 0], share[share > 0]
        share_of = dict(zip(reported.tolist(), share, strict=True))
        order = schedule or functools.partial(
            batches.local_epochs,
            train,
            seed=seed,
            epochs=config.epochs,
            batch_size=batch_size,
        )
        plan = lambda client: faults.cut(order(round, client), share_of[client])
        # Keys are arguments of the programs, so that one program serves all seeds.
        key = lambda purpose: rng.data(rng.key(seed, purpose, round))
        broadcast = broadcast_of(state.server)
        down = broadcast_bytes(state.server)
        update_key = key(Purpose.CLIENT_UPDATE)
        held, reports, given, where = [], [], [], {}
        busy = np.zeros(mesh.size)
        for part, offset in zip(parts, offsets, strict=False):
            name, present = (
                part.group.name,
                np.intersect1d(part.group.clients, reported),
            )
            places, rows, arguments, busy = part.members(present, plan, busy)
            taken = store.take((state.clients[name], state.copies[name]), rows)
            after, report = part.step(taken, broadcast, arguments, round, update_key)
            held.append(after)
            reports.append(report)
            given.append((rows, arguments))
            where.update(zip(present.tolist(), places + offset, strict=True))

        # From here on members stand in cohort order, whatever their groups and
        # devices. A cohort smaller than K is padded by members of weight zero.
        at = np.zeros(config.cohort_size, np.int32)
        at[: reported.size] = [where[client] for client in reported.tolist()]
        counts = np.zeros(config.cohort_size, np.float32)
        counts[: reported.size] = weights[reported]
        server, report, server_finite = server_step(
            state.server,
            # Gathered before they are summed up: the order of the sum is the cohort's.
            jax.device_put(reports, whole),
            at,
            counts,
            np.int32(round),
            key(Purpose.SERVER_UPDATE),
        )
        fresh = broadcast_of(server) if finishes else None
        if sample is None:  # while the devices work, fetch whom the next round needs
            soon = drawn(seed, round + 1)
            for group in groups:
                own = np.intersect1d(group.clients, np.setdiff1d(soon, reported))
                rows = np.searchsorted(group.clients, own)
                store.ahead((state.clients[group.name], state.copies[group.name]), rows)
        clients, copies = dict(state.clients), dict(state.copies)
        for part, (states, copy), (rows, arguments) in zip(
            parts, held, given, strict=True
        ):
            name = part.group.name
            if finishes:
                finish_key = key(Purpose.CLIENT_FINISH)
                states = part.finish(states, fresh, arguments, round, finish_key)
            clients[name], copies[name] = store.put(
                (clients[name], copies[name]), rows, (states, copy)
            )
        return State(round, server, clients, copies), Played(
            members,
            reported,
            int((share < 1).sum()),
            report["metrics"],
            report["finite"],
            report["sound"],
            server_finite,
            report["bytes"],
            down,
        )

    return play


def settings_of(config: RoundConfig, mesh: Mesh, batch_size: int) -> Settings:
    """What the groups' programs are made with; B may be below the configuration's."""
    return Settings(
        mesh,
        batch_size,
        config.epochs,
        config.sweep_batch_size,
        config.chunk,
        config.cohort_size,
        config.reject_nonfinite,
        config.max_upload_norm if config.reject_nonfinite else 0.0,
    )


def _server_step(algorithm: Algorithm, reject: bool, whole: Any) -> Callable:
    """The aggregation of a round: one program, the same on every device."""

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=whole)
    def step(server, reports, order, weights, round, key):
        reports = tree.take(tree.concatenate(reports), order)
        if reject:
            weights = jnp.where(reports["sound"], weights, 0)
        counts = weights > 0

        def only_who_counts(leaf):  # a weight of zero does not stop a NaN
            rows = counts.reshape((-1,) + (1,) * (leaf.ndim - 1))
            return jnp.where(rows, leaf, jnp.zeros((), leaf.dtype))

        uploads = jax.tree.map(only_who_counts, reports.pop("upload"))
        key = jax.random.wrap_key_data(key, impl=rng.IMPLEMENTATION)
        new = algorithm.server.update(server, uploads, Cohort(weights, round, key))
        new = tree.where(counts.any(), new, server)  # nobody: nothing changes
        finite = [
            jnp.isfinite(leaf).all()
            for leaf in jax.tree.leaves(new)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        return new, reports, jnp.stack([jnp.bool_(True), *finite]).all()

    return step


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
