"""Clients that come to a trained federation: their accuracy before, after and alone."""

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from fedjax_mrl import discovery, numerics, sharding, stores
from fedjax_mrl.building import from_config, splits, visit_flops
from fedjax_mrl.building.assembling import Assembler
from fedjax_mrl.config import MOST_EPOCHS, ConfigError, RunConfig
from fedjax_mrl.data import drawn_test, newcomer, npz
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.data.error import DatasetError
from fedjax_mrl.personalized import MODES, Asked, Come, Personalized
from fedjax_mrl.protocol import Algorithm, Examples
from fedjax_mrl.simulation import batches, joining, prediction
from fedjax_mrl.simulation.cohorts import Trial
from fedjax_mrl.simulation.evaluation import EvaluationSet
from fedjax_mrl.simulation.joining import Joined, Newcomers, Start
from fedjax_mrl.simulation.population import Population
from fedjax_mrl.simulation.state import State, require_live

if TYPE_CHECKING:
    from fedjax_mrl.trained import Trained


def prepare(federation: "Trained", asked: Asked) -> "Come":
    """Finds out who comes, and checks that they can; trains nothing.

    Args:
        federation: that they come to.
        asked: as of `Federation.personalize`.

    Raises:
        ValueError: for what cannot be.
    """
    _require_sound(asked)
    with numerics.fixed(federation.config.precision):
        if asked.data is None:
            come = _held_out(federation, asked)
        elif asked.clients is None:
            come = _from_outside(federation, asked)
        else:
            raise ConfigError(
                "Give clients or data, not both: data are of a new client."
            )
        programs = {
            group.name: prediction.program(come.algorithm, group, come.prepare)
            for group in come.groups
        }
        return come._replace(trains_shared=_trains_shared(come), programs=programs)


def play(federation: "Trained", state: State, come: "Come") -> Personalized:
    """Trains those who come. Nothing of the federation changes.

    Args:
        federation: that they were prepared for.
        state: of it.
        come: as `prepare` found.

    Raises:
        Diverged: if a network of one became non-finite.
        ConsumedError: if another round was played from the state.
    """
    require_live(state)
    with numerics.fixed(federation.config.precision):
        start = _start(federation, state, come.asked)
        joined = _join(federation, come, come.algorithm, start)
        alone = start._replace(broadcast=())
        lonely = _join(federation, come, come.alone, alone)
    return Personalized(
        state.round,
        come.asked,
        come.algorithm.heads,
        tuple(sorted(joined.states)),
        come.trains_shared,
        joined.states,
        federation,
        state,
        come,
        joined.before,
        joined.after,
        lonely.after,
    )


def _require_sound(asked: Asked) -> None:
    whole = isinstance(asked.epochs, (int, np.integer))
    whole = whole and not isinstance(asked.epochs, bool)
    if not whole or not 1 <= asked.epochs <= MOST_EPOCHS:
        raise ConfigError(
            f"epochs must be a whole number, at least 1 and at most {MOST_EPOCHS}; got "
            f"{asked.epochs!r}."
        )
    if asked.shared not in MODES:
        raise ConfigError(
            discovery.unknown("way to treat the shared part", str(asked.shared), MODES)
        )
    rate = asked.learning_rate
    number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
    if rate is not None and (not number or not 0 <= rate < math.inf):
        raise ConfigError(
            f"learning_rate must be a number, at least 0, or None; got {rate!r}."
        )
    if asked.data is None and asked.model is not None:
        raise ConfigError(
            "model is for a client with data of its own; held-out clients have the "
            "models of the configuration. Give data as well, or leave model out."
        )


def _held_out(federation: "Trained", asked: Asked) -> Come:
    """The clients that the configuration holds out, or some of them."""
    pieces, held = federation.pieces, federation.pieces.held_out
    first, number = len(federation.train), federation.config.num_clients
    wanted = _wanted(asked.clients, first, number)
    groups = [
        group._replace(clients=np.intersect1d(group.clients, wanted))
        for group in held.groups
    ]
    population = Population(
        [group for group in groups if group.clients.size],
        federation.examples,
        held.train,
        held.holdout,
    )
    names = [group.name for group in (*pieces.groups, *held.groups)]
    test = federation.test._replace(positions=pieces.partition.test)
    newcomers = Newcomers(population, _places(names), test)
    # As for all that are held out, so that a choice of some changes nothing.
    batch = batches.fitting(federation.config.batch_size, held.train[first:])
    lowered = pieces.assembler.lowered_newcomers
    come = functools.partial(Come, asked, newcomers, lowered)
    return _with(federation, pieces.assembler, come, federation.dataset, batch)


def _wanted(clients: Sequence[int] | None, first: int, number: int) -> np.ndarray:
    """The numbers of clients that were asked for, all held out by default."""
    if first == number:
        raise ConfigError(
            "No client was held out, so none can be brought in: train with "
            "--held-out-clients (held_out_clients=2), or give the data of a new client "
            "with --data FILE.npz (data=...)."
        )
    if clients is None:
        return np.arange(first, number)
    given = np.atleast_1d(np.asarray(clients))
    whole = given.ndim == 1 and given.size and np.issubdtype(given.dtype, np.integer)
    if not whole or np.unique(given).size < given.size:
        raise ConfigError(
            f"clients must be different whole numbers, at least one; got {clients!r}."
        )
    for client in given.tolist():
        if 0 <= client < first:
            raise ConfigError(
                f"client {client} took part in the rounds and is trained already; the "
                f"clients that were held out are {_span(first, number)}."
            )
        if not first <= client < number:
            raise ConfigError(
                f"There is no client {client}; the clients that were held out are "
                f"{_span(first, number)}."
            )
    return given


def _span(first: int, number: int) -> str:
    return str(first) if first == number - 1 else f"{first} to {number - 1}"


def _from_outside(federation: "Trained", asked: Asked) -> Come:
    """A client that is not in the federation's split, with data of its own."""
    config, pieces = federation.config, federation.pieces
    client = config.num_clients
    augmentation = from_config.augmentation(config, federation.dataset)
    try:
        data = newcomer.check(federation.dataset, _read(asked.data), augmentation)
    except DatasetError as error:
        if not isinstance(asked.data, (str, os.PathLike)):
            raise
        raise DatasetError(f"{os.fspath(asked.data)}: {error}") from None
    data = _tested(data, config)
    assembler, group = pieces.assembler.newcomer(client, asked.model)
    some = np.arange(len(data.y_train), dtype=np.int32)
    (train,), (holdout,) = splits.hold_out(
        [some], federation.algorithm.holdout, config.data_seed, client
    )
    nothing = [np.zeros(0, np.int32)] * client
    positions = np.arange(len(data.y_test), dtype=np.int32)
    whole = sharding.everywhere(federation.mesh)
    population = Population(
        [group],
        jax.device_put(Examples(data.x_train, data.y_train), whole),
        [*nothing, train],
        [*nothing, holdout],
    )
    test = EvaluationSet(
        Examples(data.x_test, data.y_test),
        [*nothing, positions],
        federation.setup.prepare.test,
    )
    held = pieces.held_out.groups
    names = [each.name for each in (*pieces.groups, *held, group)]
    newcomers = Newcomers(population, _places(names), test)
    batch = batches.fitting(config.batch_size, [train])
    come = functools.partial(Come, asked, newcomers, assembler.lowered_newcomers)
    return _with(federation, assembler, come, data, batch)


def _read(data: Any) -> Any:
    """Data as they were given, or those of the npz file that was named."""
    if not isinstance(data, (str, os.PathLike)):
        return data
    held = npz.arrays_of(os.fspath(data))
    owners = np.unique(held.get("clients", np.zeros(1)))
    if owners.size > 1:
        raise DatasetError(
            f"A newcomer's file has the examples of one client, but `clients` names "
            f"{owners.size}. Write those of one into a file of its own."
        )
    arrays = [held.get(name) for name in (*npz.NEEDED, *npz.TEST)]
    if "label_names" not in held:
        return arrays
    names = tuple(map(str, np.atleast_1d(held["label_names"])))
    return newcomer.Named(names, arrays)


def _tested(data: Dataset, config: RunConfig) -> Dataset:
    """A newcomer's data with a test part, and a note if that had to be drawn.

    Raises:
        DatasetError: if there is none and no example can be spared for one.
    """
    data = data._replace(notes=())
    if len(data.y_test):
        return data
    drawn = drawn_test.draw(data, config.test_fraction, config.data_seed)
    number, whole = len(drawn.y_test), len(data.y_train)
    note = (
        f"The newcomer's data have no test part: {number} of {whole} examples are kept "
        "for testing, drawn class by class by the run's data seed. Give x_test and "
        "y_test to choose them yourself."
    )
    return drawn._replace(notes=(note,))


def _places(names: Sequence[str]) -> dict[str, int]:
    """The place of each group by its name, in the order of first appearance."""
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _with(
    federation: "Trained",
    assembler: Assembler,
    come: Callable[..., Come],
    data: Dataset,
    batch_size: int,
) -> Come:
    """Newcomers with the methods that they are trained by."""
    return come(
        assembler.build(assembler.method, assembler.options),
        assembler.build("standalone", {}),
        data,
        from_config.augmentation(federation.config, federation.dataset),
        federation.setup.prepare.test,
        batch_size,
    )


def _start(federation: "Trained", state: State, asked: Asked) -> Start:
    """What all newcomers begin with."""
    rate = asked.learning_rate
    trial = Trial(
        federation.trial.seed,
        federation.config.learning_rate if rate is None else float(rate),
    )
    return Start(federation.broadcast(state), state.round, trial)


def _join(
    federation: "Trained",
    come: Come,
    algorithm: Algorithm,
    start: Start,
) -> Joined:
    asked = come.asked
    apart = joining.alone(algorithm, frozen=asked.shared == "frozen")
    config = federation.round_config._replace(
        epochs=int(asked.epochs),
        batch_size=come.batch_size,
        cohort_size=min(come.newcomers.ids.size, federation.config.cohort_size),
    )
    kind = "host" if federation.store.through_host else "device"
    store = stores.make(kind, federation.mesh)
    return joining.join(apart, come.newcomers, start, config, store)


def _trains_shared(come: Come) -> bool:
    """Whether training moves the shared part, unless it is frozen.

    Raises:
        ConfigError: for a method whose clients move it although it is frozen.
    """
    visit = visit_flops.one_step_visit(come.data, 2, 2)
    groups = come.groups

    def moves(frozen: bool) -> bool:
        apart = joining.alone(come.algorithm, frozen=frozen)
        return any(
            joining.trains_shared(come.algorithm, apart, group.model, visit)
            for group in groups
        )

    if come.asked.shared == "frozen" and moves(frozen=True):
        raise ConfigError(
            "The shared part of this method cannot be frozen: its clients change it "
            "otherwise than by local.train from the very arrays that they received. "
            "Give shared='fine-tuned'."
        )
    return moves(frozen=False)
