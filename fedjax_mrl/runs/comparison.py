"""The runs of a comparison: several algorithms and seeds on one data split."""

import collections
import dataclasses
import itertools
import pathlib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import algorithms, references
from fedjax_mrl.algorithms import Method
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.runs import grid as grids
from fedjax_mrl.runs import grid_columns


class Run(NamedTuple):
    """One run of the comparison: its configuration and its folder."""

    config: RunConfig
    path: pathlib.Path


def plan(
    base: RunConfig,
    names: Sequence[str],
    seeds: Sequence[int],
    out: pathlib.Path,
    grid: grids.Grid = types.MappingProxyType({}),
    methods: Mapping[str, Method] = types.MappingProxyType({}),
) -> list[Run]:
    """Configurations of all runs; an algorithm's trials follow one another.

    Options that only some algorithms have go to those: `shared_dim`, and settings
    that read `NAME.OPTION` with an algorithm's name in place of `algorithm`. So an
    algorithm that lacks a swept option has one run for all of its values.

    Args:
        base: everything but algorithm and seed; but for swept options of
            `grid_columns.SPLIT` the data split is the same for all.
        names: algorithms.
        seeds: of initial weights and training.
        out: folder of the comparison; each run lies in `<name>-<seed>` below it, of
            several learning rates in `<name>-<seed>-lr<rate>`, and what else is swept
            follows, as in `-momentum=0.5`.
        grid: swept options and their values, see `grid.check`; without
            "learning_rate" all have the one of `base`.
        methods: those of `names` that are the user's own functions.

    Raises:
        ValueError: for an unknown algorithm or setting, or two of one name.
    """
    hyper = hyperparameters(names, methods)
    _require_known_settings(base, hyper)
    axes = dict(grids.check(grid, hyper))
    rates = axes.pop("learning_rate", (base.learning_rate,))
    columns = grid_columns.of(axes)
    seeds = list(dict.fromkeys(seeds))
    runs: dict[RunConfig, Run] = {}
    for name, cell in itertools.product(hyper, grids.cells(axes)):
        filled = grid_columns.apply(base, cell)
        for rate, seed in itertools.product(rates, seeds):
            config = configured(filled, name, seed, rate, hyper[name])
            path = out / folder(config, several=len(rates) > 1, columns=columns)
            runs.setdefault(config, Run(config, path))
    paths = collections.Counter(run.path for run in runs.values())
    double = [path.name for path, number in paths.items() if number > 1]
    if double:
        raise ConfigError(
            "Two of the grid's values are named alike, so that both runs would lie in "
            f"{double[0]}; give them names that differ in letters or digits."
        )
    return list(runs.values())


def of_one_program(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Runs one after another that differ in nothing but seed and learning rate."""
    plain = lambda run: dataclasses.replace(run.config, seed=0, learning_rate=0.0)
    for _, found in itertools.groupby(runs, plain):
        yield list(found)


def hyperparameters(
    names: Sequence[str], methods: Mapping[str, Method] = types.MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """The hyper-parameters of each algorithm with their defaults.

    Raises:
        ValueError: for an unknown algorithm, or two of one name.
    """
    hyper = {n: algorithms.hyperparameters(methods.get(n, n)) for n in names}
    if len(set(map(references.short, hyper))) < len(hyper):
        raise ConfigError(
            f"Algorithms to compare need different names; got {', '.join(hyper)}."
        )
    return hyper


def _require_known_settings(
    base: RunConfig, hyper: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuses keys of `set` that no compared algorithm has."""
    options = {option for known in hyper.values() for option in known}
    for key, _ in base.set:
        prefix, _, option = key.partition(".")
        if prefix == "server":
            continue
        named = prefix in ("algorithm", *map(references.short, hyper))
        if not named or option not in options:
            raise ConfigError(
                "A key of --set must read algorithm.OPTION, or the name of a compared "
                f"algorithm in its place, with an option that it has; got {key!r}. "
                f"Options: {', '.join(sorted(options))}."
            )


def configured(
    base: RunConfig,
    name: str,
    seed: int,
    rate: float,
    known: Iterable[str] | None = None,
) -> RunConfig:
    """The configuration of one run of a comparison, see `plan`.

    `known` are the hyper-parameters of the algorithm; by default found by its name.
    """
    known = algorithms.hyperparameters(name) if known is None else known
    short = references.short(name)
    settings = {}
    for key, value in base.set:
        prefix, _, option = key.partition(".")
        if prefix == "server":
            settings[key] = value
        elif prefix == short or (prefix == "algorithm" and option in known):
            settings[f"algorithm.{option}"] = value
    return dataclasses.replace(
        base,
        algorithm=name,
        seed=seed,
        learning_rate=rate,
        set=tuple(settings.items()),
        shared_dim=base.shared_dim if "shared_dim" in known else None,
    )


def folder(config: RunConfig, *, several: bool, columns: Iterable[str] = ()) -> str:
    """Name of a run's folder.

    Args:
        config: of the run.
        several: whether it says the learning rate.
        columns: what else it says, see `grid_columns.of`.
    """
    name = references.short(config.algorithm)
    rate = f"-lr{grid_columns.text(config.learning_rate)}" if several else ""
    return f"{name}-{config.seed}{rate}{grid_columns.suffix(config, columns)}"
