"""Refuses settings of several runs before the first of them trains."""

import dataclasses
from collections.abc import Iterable

from fedjax_mrl import algorithms, discovery, numerics, partitions, references
from fedjax_mrl.building import pieces
from fedjax_mrl.building.values import Values
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data.dataset import Dataset


def require_known(configs: Iterable[RunConfig], values: Values | None = None) -> None:
    """Looks whether what configurations name exists and has the right type.

    Args:
        configs: of the runs.
        values: what was given as a value.

    Raises:
        ValueError: for the first name or value that cannot be used.
    """
    values = Values() if values is None else values
    for config in _distinct(configs):
        named = pieces.look_up(config, values)
        known = algorithms.hyperparameters(named.method)
        for option in named.options:
            if option not in known:
                kind = f"hyper-parameter of {references.short(config.algorithm)}"
                raise ConfigError(discovery.unknown(kind, option, known))
        if values.partition is None and not config.partition.startswith("file:"):
            partitions.get(config.partition.partition(":")[0])


@numerics.fixed()
def require_built(
    configs: Iterable[RunConfig], data: Dataset, values: Values | None = None
) -> None:
    """Builds method and models of every run, so that no wrong value waits to be met.

    A method that cannot work with the models at all, as FedAvg with several, is left to
    its run, which says so and stops no other.

    Args:
        configs: of the runs, known to be sound (`require_known`).
        data: what they train on.
        values: what was given as a value.

    Raises:
        ValueError: for the first hyper-parameter that its method refuses, also with
            models that it takes under other values.
    """
    values = Values() if values is None else values
    fit: set[str] = set()
    unfit: list[tuple[str, ValueError]] = []
    for config in _distinct(configs):
        named = pieces.look_up(config, values)
        made = pieces.assembler(config, named, data, values.tasks)
        try:
            algorithm, groups = made.assemble()
        except ValueError as error:
            raise _of(config.algorithm, error) from None
        try:
            for group in groups:
                algorithm.client(group.model)
        except ValueError as error:
            unfit.append((config.algorithm, error))
        else:
            fit.add(config.algorithm)
    for name, error in unfit:
        if name in fit:
            raise _of(name, error)


def _distinct(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """The configurations that differ in more than the seed."""
    return list(dict.fromkeys(dataclasses.replace(each, seed=0) for each in configs))


def _of(algorithm: str, error: ValueError) -> ConfigError:
    return ConfigError(f"{references.short(algorithm)}: {error}")
