"""The runs of a comparison: several algorithms and seeds on one data split."""

import collections
import csv
import dataclasses
import itertools
import json
import pathlib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import algorithms, references
from fedjax_mrl.algorithms import Method
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.runs import effective, grid_columns, resuming, summary
from fedjax_mrl.runs import grid as grids

COLUMNS = (
    "algorithm",
    "seed",
    "learning_rate",
    "head",
    "last",
    "last10",
    "best",
    "best_round",
    "bytes_down",
    "bytes_up",
    "flops",
    "seconds",
    "rounds",
    "target",
    "rounds_to_target",
    "status",
    "worst",
    "p10",
    "clients_gaining",
    "worst_gain",
)


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


def swept(runs: Iterable[Run]) -> list[str]:
    """The columns in which runs of a comparison differ, as their folders say."""
    return sorted({c for run in runs for c in grid_columns.said_in(run.path.name)})


def in_order(runs: Iterable[Run], columns: Sequence[str] = ()) -> list[Run]:
    """Runs as tables list them, whichever command they came from.

    Args:
        runs: in any order.
        columns: of swept options; numbers ascend, before texts.
    """

    def key(run: Run) -> tuple[Any, ...]:
        values = [effective.value(run.config, column) for column in columns]
        return (
            references.short(run.config.algorithm),
            run.config.learning_rate,
            *((isinstance(value, str), value) for value in values),
            run.config.seed,
        )

    return sorted(runs, key=key)


def finished(run: Run) -> bool:
    """Whether the run was completed earlier under the same configuration."""
    played = rounds_played(run.path)
    return played == run.config.rounds and begun(run)


def rounds_played(path: pathlib.Path) -> int | None:
    """Rounds of a run that ended, by itself or diverged; None of any other."""
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        return int(summary["rounds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begun(run: Run) -> bool:
    """Whether the run was begun earlier under the same configuration.

    Also by an earlier version, which may have had fewer settings, also under other
    settings that change no number (`FREE`), and also with fewer rounds on the same
    schedules, so that it can go on.
    """
    try:
        text = (run.path / "config.json").read_text(encoding="utf-8")
        old = RunConfig.from_json(text)
    except (OSError, ValueError):
        return False
    return old.rounds <= run.config.rounds and on_one_course(old, run.config)


def on_one_course(old: RunConfig, new: RunConfig) -> bool:
    """Whether the rounds of two configurations are the same as far as both have them.

    They may differ in the number of rounds, if their schedules are of one length.
    """
    same = resuming.schedule_length(old) == resuming.schedule_length(new)
    return same and not differing(old, new, ("rounds",))


# Settings that a run of a comparison may have otherwise: they change no table.
FREE = tuple(
    key
    for key in resuming.FREE
    if key not in ("rounds", "schedule_rounds", "eval_every")
)


def differing(
    old: RunConfig, new: RunConfig, but: Sequence[str] = ()
) -> dict[str, tuple[object, object]]:
    """The settings in which two configurations differ, with both values.

    Those that change no table (`FREE`) are left out, and those in `but`. A default
    that one says and the other leaves out is no difference.
    """
    values = {name: (getattr(old, name), getattr(new, name)) for name in vars(old)}
    values["set"] = dict(old.set), dict(new.set)
    if resuming.schedule_length(old) == resuming.schedule_length(new):
        values.pop("schedule_rounds")  # said in two ways
    if effective.options(old) == effective.options(new):
        del values["set"], values["shared_dim"]
    return {
        name: pair
        for name, pair in values.items()
        if name not in but
        and pair[0] != pair[1]
        and not (name in FREE and resuming.may_differ(name, *pair))
    }


def row(
    run: Run, target: float | None, status: str = "done", columns: Sequence[str] = ()
) -> dict[str, Any]:
    """One row of comparison.csv; the numbers of a run that is not done are empty."""
    values: dict[str, Any] = dict.fromkeys(with_columns(columns), "")
    values |= identity(run.config, columns)
    values |= {"status": status, "target": "" if target is None else target}
    if status != "done":
        return values
    found = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    headline = found["headline"] or {}
    values |= {key: headline[key] for key in COLUMNS if key in headline}
    values |= {key: found[key] for key in COLUMNS if key in found}
    if target is not None:
        curve = read_curve(run)
        values["rounds_to_target"] = next((r for r, a in curve if a >= target), "")
    return values


def identity(config: RunConfig, columns: Sequence[str] = ()) -> dict[str, Any]:
    """The cells of a row that say which run it is."""
    return {
        "algorithm": references.short(config.algorithm),
        "seed": config.seed,
        "learning_rate": config.learning_rate,
        **{column: effective.value(config, column) for column in columns},
    }


def with_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of comparison.csv, with those of swept options."""
    return (*COLUMNS[:3], *columns, *COLUMNS[3:])


def read_curve(run: Run) -> list[tuple[int, float]]:
    """Rounds and headline accuracies of a finished run."""
    found = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    if not found["headline"]:
        return []
    with (run.path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return summary.headline_curve(rows, found["headline"]["head"])
