"""First states: the server's, and every client's by group."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from fedjax_mrl import rng, sharding, stores
from fedjax_mrl.protocol import Algorithm, Tree
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.state import State
from fedjax_mrl.stores import Store


def init(algorithm: Algorithm, groups: Sequence[Group], config: RoundConfig) -> State:
    """Returns the state before the first round; see `make_init`."""
    return make_init(algorithm, groups, config)()


def make_init(
    algorithm: Algorithm,
    groups: Sequence[Group],
    config: RoundConfig,
    store: Store | None = None,
) -> Callable[..., State]:
    """Returns `init`, from a seed (default: the configuration's) to the first state.

    Compiled once for all seeds.
    """
    store = store or stores.make(config.client_store, sharding.mesh(1))
    mesh = store.mesh
    clients_of = make_clients(algorithm, groups, config, store)

    def first(key):
        server = algorithm.server.init(rng.wrap(key))
        return server, algorithm.server.broadcast(server)

    init_server = _compiled(first, store)

    def init(seed: int | None = None) -> State:
        if seed is None:
            seed = config.seed if config.init_seed is None else config.init_seed
        started = init_server(rng.data(rng.key(seed, Purpose.SERVER_INIT)))
        server, broadcast = jax.device_get(started)
        clients = clients_of(seed, broadcast)
        return State(0, jax.device_put(server, sharding.everywhere(mesh)), clients)

    return init


def make_clients(
    algorithm: Algorithm,
    groups: Sequence[Group],
    config: RoundConfig,
    store: Store,
    places: Mapping[str, int] | None = None,
) -> Callable[[int, Tree], dict[str, tuple[Tree, Tree]]]:
    """Returns what makes the clients' part of a first state.

    Args:
        algorithm: whose clients.
        groups: they by architecture.
        config: whether all of a group start alike.
        store: where states will lie.
        places: of groups by name, which tell apart what starts alike; by default their
            order.

    Returns:
        A function of a seed and a broadcast, which all hold at first.
    """

    def init_of(group):
        init_client = algorithm.client(group.model).init
        start = lambda base, origin: init_client(
            jax.random.fold_in(rng.wrap(base), origin)
        )
        return _compiled(start, store)

    init_group = {group.name: init_of(group) for group in groups}
    if places is None:
        places = {group.name: place for place, group in enumerate(groups)}

    def clients_of(seed: int, broadcast: Tree) -> dict[str, tuple[Tree, Tree]]:
        base = rng.data(rng.key(seed, Purpose.CLIENT_INIT, int(config.same_start)))
        clients = {}
        for group in groups:
            name, number = group.name, group.clients.size
            fresh = _fresh(init_group[name], base, group.clients)
            if config.same_start:
                alike = jax.device_get(init_group[name](base, np.uint32(places[name])))
                fresh = functools.partial(_repeat, alike)
            held = functools.partial(_repeat, broadcast)
            clients[name] = (
                store.create(f"{name}/private", number, fresh),
                store.create(f"{name}/shared", number, held),
            )
        return clients

    return clients_of


def _compiled(function: Callable, store: Store) -> Callable:
    """Compiles what runs once: on a CPU, optimising it takes three times as long."""
    on_cpu = store.mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 1} if on_cpu else None
    return jax.jit(function, compiler_options=options)


def _repeat(alike: Tree, rows: np.ndarray) -> Tree:
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
