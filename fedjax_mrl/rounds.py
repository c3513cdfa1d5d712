"""One federated round, and the state that goes from round to round.

Knows algorithms, models and data only as values of `protocol`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_mrl import batches, mapping, rng, tree
from fedjax_mrl.population import Group
from fedjax_mrl.protocol import (
    Algorithm,
    Batches,
    Client,
    Cohort,
    Examples,
    Visit,
)
from fedjax_mrl.rng import Purpose


class State(NamedTuple):
    """All that a checkpoint holds. No keys: they follow from seed and round."""

    round: int  # rounds played
    server: Any
    clients: dict[str, Any]  # group -> private states, stacked [N_g, ...]
    copies: dict[str, Any]  # group -> the shared part as each client last held it


class RoundConfig(NamedTuple):
    """How rounds are played.

    Attributes:
        seed: of initial weights, sampling, shuffling and augmentation.
        cohort_size: K, participants a round.
        epochs: E, local passes over a participant's data.
        batch_size: B.
        sweep_batch_size: of passes that train nothing.
        chunk: members of a group computed at once (`mapping.over_members`); 0 is
            all of them.
        same_start: all clients of an architecture begin with equal weights, as in
            the authors' code.
    """

    seed: int
    cohort_size: int
    epochs: int
    batch_size: int
    sweep_batch_size: int = 128
    chunk: int = 1
    same_start: bool = True


class Played(NamedTuple):
    """What one round reports, in cohort order."""

    cohort: np.ndarray  # [K] client ids, ascending
    metrics: dict[str, np.ndarray]  # [K] each, mean over the local steps
    finite: dict[str, np.ndarray]  # network -> [K] bool
    bytes_up: np.ndarray  # [K]
    bytes_down: jax.Array  # [] for each participant


def cohort(seed: int, round: int, *, num_clients: int, cohort_size: int) -> np.ndarray:
    """Draws the participants of a round: [K] ids, ascending, all equally likely."""
    draw = rng.host(seed, Purpose.COHORT, round)
    return np.sort(draw.choice(num_clients, cohort_size, replace=False))


def init(algorithm: Algorithm, groups: Sequence[Group], config: RoundConfig) -> State:
    """Returns the state before the first round; see `make_init`."""
    return make_init(algorithm, groups, config)()


def make_init(
    algorithm: Algorithm, groups: Sequence[Group], config: RoundConfig
) -> Callable[..., State]:
    """Returns `init`, from a seed (default: the configuration's) to the first state.

    Compiled once for all seeds.
    """
    init_server = jax.jit(algorithm.server.init)
    init_group = {
        group.name: jax.jit(
            functools.partial(jax.lax.map, algorithm.client(group.model).init)
        )
        for group in groups
    }

    def init(seed: int | None = None) -> State:
        seed = config.seed if seed is None else seed
        server = init_server(rng.key(seed, Purpose.SERVER_INIT))
        broadcast = algorithm.server.broadcast(server)
        base = rng.key(seed, Purpose.CLIENT_INIT, int(config.same_start))
        clients, copies = {}, {}
        for place, group in enumerate(groups):
            same = np.full_like(group.clients, place)
            origin = same if config.same_start else group.clients
            keys = rng.client_keys(base, jnp.asarray(origin, jnp.uint32))
            clients[group.name] = init_group[group.name](keys)
            copies[group.name] = jax.tree.map(
                lambda leaf, n=group.clients.size: jnp.repeat(leaf[None], n, axis=0),
                broadcast,
            )
        return State(0, server, clients, copies)

    return init


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
) -> Callable[..., tuple[State, Played]]:
    """Returns `play`, which takes the state through one round.

    Args:
        algorithm: what to run.
        groups: the clients of each architecture; together they are all clients.
        examples: the training images, on the device.
        train: for each client, the positions it trains on.
        config: cohort, epochs, batches, seed.
        holdout: for each client, positions kept out of training.
        sample: round -> ids of its participants, ascending, at most K; by default
            K of them, all clients equally likely (`cohort`).
        schedule: round, client -> its minibatches [S, B], -1 for no example; by
            default shuffled local epochs (`batches.local_epochs`).

    Returns:
        A function from a state and a seed (default: the configuration's) to the next
        state and what the round reports. It consumes the state it is given
        (donation). Each group's program is traced once, whatever cohort and seed.

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
    holdout = holdout or [np.zeros(0, np.int32)] * num_clients
    weights = np.array([part.size for part in train], np.float32)
    parts = [
        _Part(algorithm, group, examples, train, holdout, config) for group in groups
    ]

    @functools.partial(jax.jit, donate_argnums=0)
    def server_step(server, uploads, order, weights, round, key):
        uploads = tree.take(tree.concatenate(uploads), order)
        return algorithm.server.update(server, uploads, Cohort(weights, round, key))

    broadcast_of = jax.jit(algorithm.server.broadcast)
    broadcast_bytes = algorithm.server.broadcast_bytes

    def play(state: State, seed: int | None = None) -> tuple[State, Played]:
        seed = config.seed if seed is None else seed
        round = int(state.round) + 1
        if sample is None:
            members = cohort(
                seed, round, num_clients=num_clients, cohort_size=config.cohort_size
            )
        else:
            members = sample(round)
        plan = schedule or functools.partial(
            batches.local_epochs,
            train,
            seed=seed,
            epochs=config.epochs,
            batch_size=config.batch_size,
        )
        # Keys are arguments of the programs, so that one program serves all seeds.
        keys = {
            purpose: rng.key(seed, purpose, round)
            for purpose in (
                Purpose.CLIENT_UPDATE,
                Purpose.CLIENT_FINISH,
                Purpose.SERVER_UPDATE,
            )
        }
        broadcast = broadcast_of(state.server)
        down = (
            jnp.float32(tree.num_bytes(broadcast))
            if broadcast_bytes is None
            else broadcast_bytes(state.server)
        )
        clients, copies, outputs, given, where = {}, {}, [], [], {}
        for part in parts:
            name = part.group.name
            present, arguments = part.arguments(members, round, plan)
            (clients[name], copies[name]), output = part.step(
                (state.clients[name], state.copies[name]),
                broadcast,
                part.examples,
                keys[Purpose.CLIENT_UPDATE],
                *arguments,
            )
            start = sum(p.rows for p in parts[: len(outputs)])
            where.update({c: start + i for i, c in enumerate(present)})
            outputs.append(output)
            given.append(arguments)

        # From here on members stand in cohort order, whatever their groups.
        # A cohort smaller than K is padded by members of weight zero.
        order = np.zeros(config.cohort_size, np.int32)
        order[: members.size] = [where[c] for c in members]
        shares = np.zeros(config.cohort_size, np.float32)
        shares[: members.size] = weights[members]
        uploads = [output.pop("upload") for output in outputs]
        server = server_step(
            state.server,
            uploads,
            order,
            shares,
            np.int32(round),
            keys[Purpose.SERVER_UPDATE],
        )
        outputs = jax.device_get(outputs)
        reported = jax.tree.map(
            lambda *leaves: np.concatenate(leaves)[order[: members.size]], *outputs
        )
        if parts[0].finish is not None:
            fresh = broadcast_of(server)
            for part, arguments in zip(parts, given, strict=True):
                clients[part.group.name] = part.finish(
                    clients[part.group.name],
                    fresh,
                    part.examples,
                    keys[Purpose.CLIENT_FINISH],
                    *arguments,
                )
        return State(round, server, clients, copies), Played(
            members, reported["metrics"], reported["finite"], reported["bytes"], down
        )

    return play


class _Part:
    """One group's share of a round: its compiled programs and their arguments."""

    def __init__(self, algorithm, group, examples, train, holdout, config):
        self.group = group
        self.examples = group.relabel(examples)
        self._config = config
        self._train = train
        most = min(group.clients.size, config.cohort_size)
        self._chunk = min(config.chunk or most, most)
        self.rows = -(-most // self._chunk) * self._chunk
        self._max_steps = batches.num_steps(
            max(train[c].size for c in group.clients), config.batch_size, config.epochs
        )
        own = [train[c] for c in group.clients]
        kept = [holdout[c] for c in group.clients]
        self._tables = jax.device_put(
            (
                batches.in_order(own, config.sweep_batch_size),
                batches.in_order(kept, config.sweep_batch_size),
            )
        )
        client = algorithm.client(group.model)
        self.step = _client_step(client, self._chunk)
        self.finish = (
            None if client.finish is None else _finish_step(client, self._chunk)
        )

    def arguments(
        self, cohort: np.ndarray, round: int, schedule: Callable
    ) -> tuple[np.ndarray, tuple]:
        """The group's members of a cohort, and the arrays its programs take."""
        config, group = self._config, self.group
        present = np.intersect1d(group.clients, cohort)
        # Members with similar work share a chunk, so that none waits for another.
        sizes = np.array([self._train[c].size for c in present])
        present = present[np.argsort(-sizes, kind="stable")]
        rows = np.full(self.rows, group.clients.size, np.int32)
        rows[: present.size] = np.searchsorted(group.clients, present)
        ids = np.zeros(self.rows, np.uint32)
        ids[: present.size] = present
        index = np.full((self.rows, self._max_steps, config.batch_size), -1, np.int32)
        steps = np.zeros(self.rows, np.int32)
        for i, client in enumerate(present):
            rows_of_client = schedule(round, int(client))
            steps[i] = len(rows_of_client)
            index[i, : steps[i]] = rows_of_client
        schedule = Batches(index, steps)
        count = np.int32(present.size)
        return present, (rows, ids, schedule, self._tables, count, np.int32(round))


def _visit(examples, tables, row, schedule, round) -> Visit:
    sweep, holdout = tree.take(tables, row)
    return Visit(examples, schedule, sweep, holdout, round)


def _client_step(client: Client, chunk: int) -> Callable:
    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        stack, broadcast, examples, base, rows, ids, schedule, tables, count, round
    ):
        def one(held, member):
            state, _ = held
            row, id_, plan = member
            visit = _visit(examples, tables, row, Batches(*plan), round)
            out = client.update(broadcast, state, visit, jax.random.fold_in(base, id_))
            steps = jnp.maximum(plan.steps, 1)
            sent = out.upload_bytes
            if sent is None:
                sent = jnp.float32(tree.num_bytes(out.upload))
            report = {
                "upload": out.upload,
                "metrics": {
                    name: trace.sum() / steps.astype(trace.dtype)
                    for name, trace in out.metrics.items()
                },
                "finite": _finite({"shared": out.shared, "state": out.state}),
                "bytes": sent,
            }
            return (out.state, out.shared), report

        members = (rows, ids, schedule)
        return mapping.over_members(one, stack, rows, members, count, chunk)

    return step


def _finish_step(client: Client, chunk: int) -> Callable:
    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        stack, broadcast, examples, base, rows, ids, schedule, tables, count, round
    ):
        def one(state, member):
            row, id_, plan = member
            visit = _visit(examples, tables, row, Batches(*plan), round)
            key = jax.random.fold_in(base, id_)
            return client.finish(broadcast, state, visit, key), ()

        members = (rows, ids, schedule)
        return mapping.over_members(one, stack, rows, members, count, chunk)[0]

    return step


def _finite(held: dict[str, Any]) -> dict[str, jax.Array]:
    """Whether every number is finite: one flag for each part of each value."""
    flags = {}
    for name, value in held.items():
        named = hasattr(value, "_fields") and name == "state"
        parts = value._asdict() if named else {name: value}
        for part, leaves in parts.items():
            floating = [
                leaf
                for leaf in jax.tree.leaves(leaves)
                if jnp.issubdtype(leaf.dtype, jnp.floating)
            ]
            if floating:
                # A sum of squares is finite unless a number is not (or is absurd).
                flags[part] = jnp.isfinite(tree.squared_norm(floating))
    return flags
