"""Refuses settings of several runs before the first of them trains."""

import dataclasses
from collections.abc import Iterable

from fedjax_mrl import algorithms, discovery, numerics, partitions, references
from fedjax_mrl.building import pieces, splits
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
    its run, which says so and stops no other. One of the user's own is held to the
    protocol here, by shapes.

    Args:
        configs: of the runs, known to be sound (`require_known`).
        data: what they train on.
        values: what was given as a value.

    Raises:
        ValueError: for the first run whose method refuses its hyper-parameters, where
            it would take the models with those of another run or its own defaults, or
            whose own method breaks the protocol.
    """
    values = Values() if values is None else values
    fit: set[str] = set()
    unfit: list[tuple[str, ValueError]] = []
    for config in _distinct(configs):
        named = pieces.look_up(config, values)
        by_default = named._replace(options={})
        error = _error(config, named, data, values)
        if error is None or _error(config, by_default, data, values) is None:
            fit.add(config.algorithm)
        if error is None:
            _require_fit(config, named, data, values)
        else:
            unfit.append((config.algorithm, error))
    for name, error in unfit:
        if name in fit:
            raise ConfigError(f"{references.short(name)}: {error}")


def require_a_split(
    configs: Iterable[RunConfig], data: Dataset, values: Values | None = None
) -> None:
    """Refuses runs of which none can split the data, once and not run by run.

    Where some can, the others say in their turn that they cannot.

    Args:
        configs: of the runs.
        data: what they train on.
        values: what was given as a value.

    Raises:
        ValueError: of the first run, if there is a split for none.
    """
    given = None if values is None else values.partition
    refused: ValueError | None = None
    for config in _distinct(configs):
        try:
            splits.split(splits.counted(config, data), data, given)
        except ValueError as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


def _error(
    config: RunConfig, named: pieces.Named, data: Dataset, values: Values
) -> ValueError | None:
    """What is wrong with a run; None if method and clients can be built."""
    try:
        _build(config, named, data, values)
    except ValueError as error:
        return error
    return None


def _build(
    config: RunConfig, named: pieces.Named, data: Dataset, values: Values
) -> None:
    """Builds the method, and its client with the model of each group."""
    made = pieces.assembler(config, named, data, values.tasks)
    algorithm, groups = made.assemble()
    for group in groups:
        algorithm.client(group.model)


def _require_fit(
    config: RunConfig, named: pieces.Named, data: Dataset, values: Values
) -> None:
    """Holds a method of the user's own to the protocol."""
    made = pieces.assembler(config, named, data, values.tasks)
    if made.is_own:
        made.require_fit(*made.assemble())


def _distinct(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """The configurations that differ in more than the seed."""
    return list(dict.fromkeys(dataclasses.replace(each, seed=0) for each in configs))
