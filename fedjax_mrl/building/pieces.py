"""A configuration resolved, once: the frozen pieces that a federation is made of."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from fedjax_mrl import algorithms, discovery, references
from fedjax_mrl.building import contract, from_config, splits
from fedjax_mrl.building.values import Values
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.learning import schedules
from fedjax_mrl.ops import conv
from fedjax_mrl.partitions import Partition
from fedjax_mrl.protocol import Algorithm, Setup
from fedjax_mrl.simulation import strategies
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.strategies import Strategy

# Of matrix products, as of `jax.default_matmul_precision`.
PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32")


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What a configuration says, in values; nothing of it is derived again.

    Attributes:
        dataset: the data, checked.
        partition: positions of every client's examples.
        train: of those, what each client trains on.
        holdout: and what it keeps out of training.
        strategies: how each group is computed, by its name.
        setup: what the algorithm is built from.
        algorithm: the method, built.
        groups: the clients by architecture and task.
        round_config: how rounds are played.
        decay: round -> factor of the learning rate.
        lowered: lowering of convolutions -> algorithm and groups computed that way.
        notes: sentences on what was decided for the user, who is told.
    """

    dataset: Dataset
    partition: Partition
    train: list[np.ndarray]
    holdout: list[np.ndarray]
    strategies: Mapping[str, Strategy]
    setup: Setup
    algorithm: Algorithm
    groups: list[Group]
    round_config: RoundConfig
    decay: Callable[[int], float]
    lowered: Callable[[str], tuple[Algorithm, list[Group]]]
    notes: tuple[str, ...]


def resolve(config: RunConfig, values: Values) -> Pieces:
    """Makes the pieces.

    Raises:
        ValueError: for anything in the configuration that cannot be run; also its
            subclasses `ConfigError`, `DatasetError` and `PartitionError`.
    """
    _check(config)
    method = algorithms.get(values.algorithms.get(config.algorithm, config.algorithm))
    options = from_config.algorithm_options(config, method)  # before data are read
    server = from_config.server_options(config)
    architectures = from_config.architectures(config, values)
    data = from_config.data(config, values.dataset)
    partition = splits.split(config, data, values.partition)
    own = [architectures[name].name for name in config.models]
    fallback = strategies.default(config.lowering, config.chunk, jax.default_backend())
    known = strategies.parse(config.strategies, own)
    chosen = {name: known.get(name, fallback) for name in own}
    sample = from_config.sample(data)
    width = from_config.feature_dim(config, architectures, sample)
    shared = architectures[config.shared_model]
    tasks = values.tasks

    def setup(lowering: str, data: Dataset = data) -> Setup:
        return from_config.setup(config, data, shared, width, lowering)

    def assemble(chosen: Mapping[str, Strategy]) -> tuple[Algorithm, list[Group]]:
        groups = from_config.groups(config, architectures, sample, chosen, tasks)
        each = from_config.by_group(chosen, tasks)
        return from_config.algorithm(method, options, setup, each), groups

    def lowered(lowering: str) -> tuple[Algorithm, list[Group]]:
        return assemble(dict.fromkeys(own, Strategy(lowering, 1)))

    algorithm, groups = assemble(chosen)
    made = setup(fallback.lowering)
    if tasks is not None and len(tasks) > 1:
        more = data._replace(label_names=(*data.label_names, "one more"))
        wider = algorithms.build(method, setup(fallback.lowering, more), **options)
        contract.require_no_class_travels(config.algorithm, algorithm, wider)
    _require_fit(config, algorithm, groups, data, made)
    train, holdout = splits.hold_out(
        partition.train, algorithm.holdout, config.data_seed
    )
    each = from_config.by_group(chosen, tasks)
    return Pieces(
        data,
        partition,
        train,
        holdout,
        each,
        made,
        algorithm,
        groups,
        from_config.round_config(config, server, each, fallback),
        schedules.decay(config.learning_rate_decay, made.num_rounds),
        lowered,
        (*data.notes, *splits.notes(config, data, values.partition)),
    )


def _require_fit(
    config: RunConfig,
    algorithm: Algorithm,
    groups: list[Group],
    data: Dataset,
    setup: Setup,
) -> None:
    """Refuses a method that cannot work with a model; looks closely at own ones."""
    for group in groups:
        algorithm.client(group.model)
        if config.algorithm not in algorithms.names():
            name = references.short(config.algorithm)
            contract.require(name, algorithm, group.model, data, setup)


def _check(config: RunConfig) -> None:
    """Refuses settings that no data set could make good."""
    conv.resolve(config.lowering)
    if config.precision not in PRECISIONS:
        raise ConfigError(discovery.unknown("precision", config.precision, PRECISIONS))
    if config.cohort_size < 1:
        raise ConfigError(
            f"--participation {config.participation:g} of {config.num_clients} "
            "clients selects nobody; it must select at least one: raise it to "
            f"{1 / config.num_clients:g} or more."
        )
