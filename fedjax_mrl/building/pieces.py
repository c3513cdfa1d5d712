"""A configuration resolved, once: the frozen pieces that a federation is made of."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl import algorithms, discovery
from fedjax_mrl.algorithms import Method
from fedjax_mrl.building import from_config, private, splits
from fedjax_mrl.building.assembling import Assembler
from fedjax_mrl.building.values import Tasks, Values
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.learning import schedules
from fedjax_mrl.models.own import Architecture
from fedjax_mrl.ops import backend, conv
from fedjax_mrl.partitions import Partition
from fedjax_mrl.privacy.account import Account
from fedjax_mrl.protocol import Algorithm, Setup
from fedjax_mrl.simulation import population, strategies
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.strategies import Strategy

# Of matrix products, as of `jax.default_matmul_precision`.
PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32")


class HeldOut(NamedTuple):
    """The clients that never take part.

    Attributes:
        groups: they by architecture and task; empty if there are none.
        train: of each client of the split, what it would train on.
        holdout: and what it would keep out of training.
    """

    groups: list[Group]
    train: list[np.ndarray]
    holdout: list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What a configuration says, in values; nothing of it is derived again.

    Attributes:
        config: the configuration, with the number of clients.
        dataset: the data, checked.
        partition: positions of every client's examples, also of those held out.
        train: of those, what each client that takes part trains on.
        holdout: and what it keeps out of training.
        held_out: the clients that never take part.
        strategies: how each group is computed, by its name.
        setup: what the algorithm is built from.
        algorithm: the method, built.
        groups: the clients that take part, by architecture and task.
        round_config: how rounds are played.
        decay: round -> factor of the learning rate.
        assembler: builds method and models again, for another lowering of
            convolutions or for clients that come later.
        account: of differential privacy; None without.
        noise: of differential privacy beside the signal; None where there is none.
        notes: sentences on what was decided for the user, who is told.
    """

    config: RunConfig
    dataset: Dataset
    partition: Partition
    train: list[np.ndarray]
    holdout: list[np.ndarray]
    held_out: HeldOut
    strategies: Mapping[str, Strategy]
    setup: Setup
    algorithm: Algorithm
    groups: list[Group]
    round_config: RoundConfig
    decay: Callable[[int], float]
    assembler: Assembler
    account: Account | None
    noise: private.Noise | None
    notes: tuple[str, ...]


class Resolved:
    """Something that was made of pieces, which it hands out by name.

    Attributes:
        config: the configuration; seed and learning rate may be of another trial.
        pieces: what it was resolved to.
    """

    config: RunConfig
    pieces: Pieces

    @property
    def dataset(self) -> Dataset:
        """The data."""
        return self.pieces.dataset

    @property
    def partition(self) -> Partition:
        """Positions of every client's examples."""
        return self.pieces.partition

    @property
    def train(self) -> list[np.ndarray]:
        """Positions of the examples that each client trains on."""
        return self.pieces.train

    @property
    def holdout(self) -> list[np.ndarray]:
        """Positions of those that it keeps out of training."""
        return self.pieces.holdout

    @property
    def groups(self) -> list[Group]:
        """The clients by architecture."""
        return self.pieces.groups

    @property
    def algorithm(self) -> Algorithm:
        """The method, built."""
        return self.pieces.algorithm

    @property
    def setup(self) -> Setup:
        """What the method was built from."""
        return self.pieces.setup

    @property
    def strategies(self) -> Mapping[str, Strategy]:
        """How each group is computed."""
        return self.pieces.strategies

    @property
    def privacy(self) -> Account | None:
        """What rounds cost in differential privacy, see docs/privacy.md; None without.

        `epsilon(rounds)` is one of its functions.
        """
        return self.pieces.account

    @property
    def round_config(self) -> RoundConfig:
        """How rounds are played."""
        return self.pieces.round_config._replace(seed=self.config.seed)


class Named(NamedTuple):
    """What a configuration names, looked up; no data were read.

    Attributes:
        method: constructor of the algorithm.
        options: its hyper-parameters.
        server: options of the server.
        architectures: by entry of `models` and `shared_model`.
        fallback: how an architecture is computed for which nothing is said.
        chosen: how each is, by its name.
    """

    method: Method
    options: Mapping[str, Any]
    server: Mapping[str, Any]
    architectures: Mapping[str, Architecture]
    fallback: Strategy
    chosen: Mapping[str, Strategy]


def look_up(config: RunConfig, values: Values) -> Named:
    """Finds what a configuration names.

    Raises:
        ValueError: for a name that there is not, or a value that no data could make
            good.
    """
    _check(config)
    method = algorithms.get(values.algorithms.get(config.algorithm, config.algorithm))
    options = from_config.algorithm_options(config, method)
    server = from_config.server_options(config)
    architectures = from_config.architectures(config, values)
    own = [architectures[name].name for name in config.models]
    fallback = strategies.default(config.lowering, config.chunk, backend.current())
    known = strategies.parse(config.strategies, own)
    chosen = {name: known.get(name, fallback) for name in own}
    schedules.decay(config.learning_rate_decay, config.rounds)
    return Named(method, options, server, architectures, fallback, chosen)


def assembler(
    config: RunConfig, named: Named, data: Dataset, tasks: Tasks | None
) -> Assembler:
    """What builds method and models for these data."""
    sample = from_config.sample(data)
    width = from_config.feature_dim(config, named.architectures, sample)
    return Assembler(
        config,
        named.method,
        named.options,
        named.architectures,
        data,
        width,
        tasks,
        named.chosen,
        named.fallback,
    )


def resolve(config: RunConfig, values: Values) -> Pieces:
    """Makes the pieces, for the platform that is traced for (`ops.backend`).

    Raises:
        ValueError: for anything in the configuration that cannot be run; also its
            subclasses `ConfigError`, `DatasetError` and `PartitionError`.
    """
    named = look_up(config, values)  # before data are read
    data = from_config.data(config, values.dataset)
    private.require_given(config, data)
    config = splits.counted(config, data)
    _check_numbers(config)
    partition = splits.split(config, data, values.partition)
    splits.require_tests(partition, config.num_training_clients)
    made = assembler(config, named, data, values.tasks)
    algorithm, everyone = made.assemble()
    setup = made.setup(named.fallback.lowering)
    made.require_tasks(algorithm)
    made.require_fit(algorithm, everyone)
    spent = private.account(config, algorithm)
    noise = private.noise(config, algorithm, everyone[0], data)
    groups, later = population.part(everyone, config.num_training_clients)
    parts = splits.hold_out(partition.train, algorithm.holdout, config.data_seed)
    train, holdout = (part[: config.num_training_clients] for part in parts)
    each = from_config.by_group(named.chosen, values.tasks)
    names = splits.client_names(config, data)
    notes = (
        *data.notes,
        *splits.notes(config, data, values.partition),
        *splits.small_tests(partition, config.num_training_clients, names),
        *private.notes(config, noise),
    )
    return Pieces(
        config,
        data,
        partition,
        train,
        holdout,
        HeldOut(later, *parts),
        each,
        setup,
        algorithm,
        groups,
        from_config.round_config(config, named.server, each, named.fallback),
        schedules.decay(config.learning_rate_decay, setup.num_rounds),
        made,
        spent,
        noise,
        notes,
    )


def _check(config: RunConfig) -> None:
    """Refuses settings that no data set could make good."""
    conv.resolve(config.lowering)
    if config.precision not in PRECISIONS:
        raise ConfigError(discovery.unknown("precision", config.precision, PRECISIONS))
    private.check(config)
    if config.num_clients:  # else the data say it
        _check_numbers(config)


def _check_numbers(config: RunConfig) -> None:
    """Refuses a number of clients of which nobody would take part."""
    number = config.num_training_clients
    if number < 1:
        raise ConfigError(
            f"--held-out-clients must leave at least one of the {config.num_clients} "
            f"clients to train; got {config.held_out_clients}. Hold out at most "
            f"{config.num_clients - 1}, or raise --num-clients."
        )
    if config.cohort_size < 1:
        raise ConfigError(
            f"--participation {config.participation:g} of {number} "
            "clients selects nobody; it must select at least one: raise it to "
            f"{1 / number:g} or more."
        )
