"""Clients that come after the rounds: each trains by itself from the newest broadcast.

They are played as a round of their own, by the programs of a round, with a server that
learns nothing from them.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_mrl import rng, sharding
from fedjax_mrl.learning import freezing
from fedjax_mrl.protocol import Algorithm, Client, Model, Server, Tree, Visit
from fedjax_mrl.rng import Purpose
from fedjax_mrl.simulation import (
    aggregation,
    batches,
    divergence,
    evaluation,
    initialization,
    phases,
    shapes,
)
from fedjax_mrl.simulation.cohorts import RoundPlan, Sampler, Trial
from fedjax_mrl.simulation.evaluation import EvaluationSet, Scores
from fedjax_mrl.simulation.group_program import GroupProgram
from fedjax_mrl.simulation.phases import Aggregated, Pieces
from fedjax_mrl.simulation.population import Population
from fedjax_mrl.simulation.settings import RoundConfig, settings_of
from fedjax_mrl.simulation.state import Played, State, read_clients
from fedjax_mrl.simulation.visit import Report
from fedjax_mrl.stores import Store


class Newcomers(NamedTuple):
    """The clients that come, and what they have.

    Attributes:
        population: their groups; what each trains on, by its number.
        places: of groups by name, among those of the federation, by which networks
            start alike.
        test: their test examples, likewise by number.
    """

    population: Population
    places: Mapping[str, int]
    test: EvaluationSet

    @property
    def ids(self) -> np.ndarray:
        """Their numbers, ascending."""
        return np.sort(np.concatenate([g.clients for g in self.population.groups]))


class Start(NamedTuple):
    """What newcomers begin with.

    Attributes:
        broadcast: of the server, as it is now.
        round: rounds that were played.
        trial: seed, and the learning rate of their training.
    """

    broadcast: Tree
    round: int
    trial: Trial


class Joined(NamedTuple):
    """What became of newcomers.

    Attributes:
        before: scores when they hold the broadcast and are untrained.
        after: scores after their training; of both, point `local` counts.
        states: private state and copy of the shared part on the host, by number.
    """

    before: Scores
    after: Scores
    states: dict[int, tuple[Tree, Tree]]


def alone(algorithm: Algorithm, *, frozen: bool) -> Algorithm:
    """The method for clients that train by themselves; its server holds a broadcast.

    What a method does after the server's step, it does with the client's own copy of
    the shared part.

    Args:
        algorithm: the method.
        frozen: whether what was received stays as it is, bit for bit.
    """

    def client(model: Model) -> Client:
        made = algorithm.client(model)

        def update(broadcast, state, visit, key):
            if frozen:
                visit = visit._replace(frozen=broadcast)
            out = made.update(broadcast, state, visit, key)
            if made.finish is not None:
                after = rng.named(key, "finish")
                finished = made.finish(out.shared, out.state, visit, after)
                out = out._replace(state=finished)
            return out._replace(upload=(), upload_bytes=None)

        return Client(made.init, update, made.predict)

    server = Server(
        algorithm.server.init,
        broadcast=lambda state: state,
        update=lambda state, uploads, cohort: state,
    )
    return Algorithm(server, client, algorithm.heads)


def trains_shared(
    algorithm: Algorithm, apart: Algorithm, model: Model, visit: Visit
) -> bool:
    """Whether a visit of the method may change the shared part; traces one.

    Args:
        algorithm: the method.
        apart: what `alone` made of it.
        model: of the client.
        visit: shapes suffice.
    """
    of, found = shapes.of(algorithm, model), []

    def trace(broadcast, private, visit, key):
        out = apart.client(model).update(broadcast, private, visit, key)
        found.append(not freezing.same(out.shared, broadcast))
        return out.state

    with jax.numpy_dtype_promotion("standard"):
        jax.eval_shape(trace, of.broadcast, of.private, visit, of.key)
    return found[0]


def join(
    algorithm: Algorithm,
    newcomers: Newcomers,
    start: Start,
    config: RoundConfig,
    store: Store,
) -> Joined:
    """Makes, tests, trains and tests newcomers.

    Args:
        algorithm: what `alone` made.
        newcomers: who they are.
        start: what they begin with.
        config: its epochs and batch size are those of their training, and its cohort
            size is how many are trained at once.
        store: where their states lie meanwhile; nothing else is in it.

    Raises:
        Diverged: if a network or a loss of one became non-finite.
    """
    groups = newcomers.population.groups
    clients_of = initialization.make_clients(
        algorithm, groups, config, store, newcomers.places
    )
    seed = start.trial.seed if config.init_seed is None else config.init_seed
    clients = clients_of(seed, jax.device_get(start.broadcast))
    server = jax.device_put(start.broadcast, sharding.everywhere(store.mesh))
    state = State(start.round, server, clients)
    evaluate = evaluation.make(
        algorithm, groups, newcomers.test, chunks=config.chunks, store=store
    )
    before = evaluate(state)
    pieces = _pieces(algorithm, newcomers, start.trial.seed, config, store)
    for plan in _plans(newcomers.ids, start, config.cohort_size):
        trained, (report,) = phases.train(
            pieces, [plan], [state], purpose=Purpose.PERSONALIZATION
        )
        _require_finite(plan, report)
        unchanged = Aggregated(state.server, report, jnp.bool_(True))
        (state,) = phases.store(pieces, [plan], [state], trained, [unchanged])
    states = read_clients(state, groups, newcomers.ids, store)
    return Joined(before, evaluate(state), states)


def _plans(ids: np.ndarray, start: Start, size: int) -> Iterator[RoundPlan]:
    """Plans of the next round, with a few of the newcomers each."""
    for first in range(0, ids.size, size):
        few = ids[first : first + size]
        yield RoundPlan(start.trial, start.round + 1, few, few, np.ones(few.size))


def _pieces(
    algorithm: Algorithm,
    newcomers: Newcomers,
    seed: int,
    config: RoundConfig,
    store: Store,
) -> Pieces:
    """What plays the newcomers' round."""
    population, number = newcomers.population, newcomers.ids.size

    def schedule(round: int, client: int) -> np.ndarray:
        draw = rng.host(seed, Purpose.PERSONALIZATION, round, client)
        train = population.train[client]
        return batches.shuffled(draw, train, config.epochs, config.batch_size)

    settings = lambda group: settings_of(
        config, store.mesh, config.batch_size, number, group.name
    )
    nobody = np.zeros(0, np.int64)
    sampler = Sampler(
        population.train, config, sample=lambda round: nobody, schedule=schedule
    )
    return Pieces(
        programs=[
            GroupProgram(algorithm, group, population, settings(group))
            for group in population.groups
        ],
        sampler=sampler,
        server=aggregation.make(
            algorithm,
            config.cohort_size,
            config._replace(reject_nonfinite=False, mechanism=None),
            store.mesh,
        ),
        store=store,
        weights=np.ones(len(population.train), np.float32),
        cohort_size=config.cohort_size,
        num_trials=1,
    )


def _require_finite(plan: RoundPlan, report: Report) -> None:
    """Refuses networks that are no numbers.

    Raises:
        Diverged: and says whose.
    """
    none = np.zeros(())
    played = Played(
        cohort=plan.cohort,
        reported=plan.reported,
        stragglers=0,
        metrics=report.metrics,
        finite=report.finite,
        sound=report.sound,
        server_finite=np.ones(()),
        bytes_up=report.bytes_up,
        bytes_down=none,
    )
    bad = divergence.unsound(played.fetch())
    if bad:
        listed = "; ".join(f"{owner}: {name}" for owner, name in bad[:10])
        raise divergence.Diverged(
            f"Personalization diverged: no longer finite are {listed}. Give a lower "
            "learning rate."
        )
