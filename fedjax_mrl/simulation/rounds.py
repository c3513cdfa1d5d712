"""One federated round: plan, train, aggregate, store.

Knows algorithms, models and data only as values of `protocol`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fedjax_mrl import sharding, stores
from fedjax_mrl.protocol import Algorithm, Examples
from fedjax_mrl.simulation import aggregation, phases
from fedjax_mrl.simulation.cohorts import RoundPlan, Sampler, Trial
from fedjax_mrl.simulation.group_program import GroupProgram
from fedjax_mrl.simulation.phases import Aggregated, Pieces
from fedjax_mrl.simulation.population import Group, Population
from fedjax_mrl.simulation.settings import RoundConfig, settings_of
from fedjax_mrl.simulation.state import Played, State, require_live
from fedjax_mrl.stores import Store


def make(
    algorithm: Algorithm,
    groups: Sequence[Group],
    examples: Examples,
    train: Sequence[np.ndarray],
    config: RoundConfig,
    *,
    holdout: Sequence[np.ndarray] = (),
    **choices: Any,
) -> Callable[..., tuple[State, Played]]:
    """Returns `play` for one trial on one device: a short way to `player`.

    Args:
        algorithm: what to run.
        groups: all clients, by architecture.
        examples: the training images.
        train: for each client, the positions it trains on.
        config: cohort, epochs, batches, seed.
        holdout: for each client, positions kept out of training; empty if none are.
        **choices: `sample` and `schedule` of `Sampler`.

    Returns:
        A function from a state and a seed (default: the configuration's) to the next
        state and the round's report.

    Raises:
        ValueError: as `player`.
    """
    population = Population(groups, examples, train, holdout)
    sampler = Sampler(train, config, **choices)
    play_trials = player(algorithm, population, config, sampler=sampler)

    def play(state: State, seed: int | None = None) -> tuple[State, Played]:
        (result,) = play_trials([Trial(config.seed if seed is None else seed)], [state])
        return result

    return play


def player(
    algorithm: Algorithm,
    population: Population,
    config: RoundConfig,
    *,
    store: Store | None = None,
    sampler: Sampler | None = None,
    num_trials: int = 1,
) -> Callable[[Sequence[Trial], Sequence[State | None]], list[Any]]:
    """Returns `play`, which takes the states of several trials through one round each.

    The clients of all trials are members of the same programs: one more batched axis,
    of which each member knows its own place only. A single run is one trial.

    Args:
        algorithm: what to run.
        population: the clients and their training examples.
        config: cohort, epochs, batches; its seed is not used.
        store: where states lie between rounds; by default as configured, on the first
            device.
        sampler: draws cohorts and minibatches; by default as configured.
        num_trials: J, how many are played at once.

    Returns:
        A function from J trials and their states, in any rounds, to their next states
        and the reports of their rounds, `(State, Played)` each. A trial without a state
        is left out and has None. It consumes the states it is given (donation), and
        with a store on the devices returns before they are done. Each group's program
        is traced once, whatever cohorts, trials and rounds.

    Raises:
        ValueError: if the cohort is empty or larger than the federation, or if
            the algorithm cannot work with a model.
    """
    num_clients = len(population.train)
    if not 1 <= config.cohort_size <= num_clients:
        raise ValueError(
            f"A round needs between 1 and {num_clients} participants; got "
            f"{config.cohort_size}. Change the participation."
        )
    store = store or stores.make(config.client_store, sharding.mesh(1))
    sampler = sampler or Sampler(population.train, config)
    pieces = assemble(algorithm, population, config, store, sampler, num_trials)
    return player_of(pieces)


def player_of(
    pieces: Pieces,
) -> Callable[..., list[Any]]:
    """Returns `play` of `player`, of pieces that are assembled already.

    Beside trials and states `play` takes `watch` of `phases.train`, and `reached`,
    which is told of the end of each part of the round: its name, "local" or "server",
    and the arrays that it makes, which may still be computed.
    """

    def play(trials, states, *, reached=_pass, watch=None):
        active = [number for number, state in enumerate(states) if state is not None]
        if not active:
            return [None] * len(states)
        select = lambda values: [values[number] for number in active]
        results = _play(pieces, select(trials), select(states), reached, watch)
        by_number = dict(zip(active, results, strict=True))
        return [by_number.get(number) for number in range(len(states))]

    return play


def assemble(
    algorithm: Algorithm,
    population: Population,
    config: RoundConfig,
    store: Store,
    sampler: Sampler,
    num_trials: int,
) -> Pieces:
    """Makes the pieces that `player` plays with; its docstring has the arguments."""
    whole = sharding.everywhere(store.mesh)
    examples = jax.device_put(population.examples, whole)  # once for all groups
    population = population._replace(examples=examples)
    num_clients = len(population.train)
    most = config.most(num_clients)
    settings = lambda group: settings_of(
        config, store.mesh, sampler.batch_size, num_clients, group.name, num_trials
    )
    return Pieces(
        programs=[
            GroupProgram(algorithm, group, population, settings(group))
            for group in population.groups
        ],
        sampler=sampler,
        server=aggregation.make(algorithm, most, config, store.mesh),
        store=store,
        weights=np.array(
            [positions.size for positions in population.train], np.float32
        ),
        cohort_size=most,
        num_trials=num_trials,
    )


def _pass(part: str, values: Any) -> None:
    """Takes no notice of the end of a part."""


def _play(
    pieces: Pieces,
    trials: Sequence[Trial],
    states: Sequence[State],
    reached: Callable[[str, Any], None],
    watch: phases.Watch | None,
) -> list[tuple[State, Played]]:
    """Plays one round of each trial: plan, train, aggregate, store."""
    require_live(*states)
    plans = [
        pieces.sampler.plan(trial, int(state.round) + 1)
        for trial, state in zip(trials, states, strict=True)
    ]
    bytes_down = [pieces.server.broadcast_bytes(state.server) for state in states]
    trained, reports = phases.train(pieces, plans, states, watch=watch)
    reached("local", (trained, reports))
    aggregated = phases.aggregate(pieces, plans, states, reports)
    del reports  # the uploads of a cohort are gone before its states are copied
    new_states = phases.store(pieces, plans, states, trained, aggregated)
    reached("server", [(state.server, state.clients) for state in new_states])
    played = map(_played, plans, aggregated, bytes_down)
    return list(zip(new_states, played, strict=True))


def _played(plan: RoundPlan, aggregated: Aggregated, bytes_down: jax.Array) -> Played:
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
