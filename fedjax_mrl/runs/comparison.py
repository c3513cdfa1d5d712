"""Several algorithms and seeds on one data split, and their common tables."""

import csv
import dataclasses
import io
import itertools
import json
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fedjax_mrl import algorithms
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.runs import pictures, resuming
from fedjax_mrl.runs.directory import RunDirectory

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
)


class Run(NamedTuple):
    """One cell of the comparison."""

    config: RunConfig
    path: pathlib.Path


def plan(
    base: RunConfig,
    names: Sequence[str],
    seeds: Sequence[int],
    out: pathlib.Path,
    rates: Sequence[float] = (),
) -> list[Run]:
    """Configurations of all runs; an algorithm's trials follow one another.

    Options that only some algorithms have go to those: `shared_dim`, and settings
    that read `NAME.OPTION` with an algorithm's name in place of `algorithm`.

    Args:
        base: everything but algorithm and seed; the data split is the same for all.
        names: algorithms.
        seeds: of initial weights and training.
        out: folder of the comparison; each run lies in `<name>-<seed>` below it, of
            several learning rates in `<name>-<seed>-lr<rate>`.
        rates: learning rates; none is that of `base`.

    Raises:
        ValueError: for an unknown algorithm or setting.
    """
    options = {option for name in names for option in algorithms.hyperparameters(name)}
    for key, _ in base.set:
        prefix, _, option = key.partition(".")
        if prefix == "server":
            continue
        if prefix not in ("algorithm", *names) or option not in options:
            raise ConfigError(
                "A key of --set must read algorithm.OPTION, or the name of a compared "
                f"algorithm in its place, with an option that it has; got {key!r}. "
                f"Options: {', '.join(sorted(options))}."
            )
    runs = []
    rates = list(dict.fromkeys(rates)) or [base.learning_rate]
    seeds = list(dict.fromkeys(seeds))
    for name in dict.fromkeys(names):
        for rate, seed in itertools.product(rates, seeds):
            config = configured(base, name, seed, rate)
            runs.append(Run(config, out / folder(config, several=len(rates) > 1)))
    return runs


def configured(base: RunConfig, name: str, seed: int, rate: float) -> RunConfig:
    """The configuration of one run of a comparison, see `plan`."""
    known = algorithms.hyperparameters(name)
    settings = {}
    for key, value in base.set:
        prefix, _, option = key.partition(".")
        if prefix == "server":
            settings[key] = value
        elif prefix == name or (prefix == "algorithm" and option in known):
            settings[f"algorithm.{option}"] = value
    return dataclasses.replace(
        base,
        algorithm=name,
        seed=seed,
        learning_rate=rate,
        set=tuple(settings.items()),
        shared_dim=base.shared_dim if "shared_dim" in known else None,
    )


def folder(config: RunConfig, *, several: bool) -> str:
    """Name of a run's folder, with the learning rate if there are `several`."""
    rate = f"{config.learning_rate:g}"
    if float(rate) != config.learning_rate:
        rate = repr(config.learning_rate)  # two close ones have two folders
    return f"{config.algorithm}-{config.seed}" + (f"-lr{rate}" if several else "")


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

    Also by an earlier version, which may have had fewer settings, and also under other
    settings that change no number (`FREE`).
    """
    try:
        text = (run.path / "config.json").read_text(encoding="utf-8")
        return not differing(RunConfig.from_json(text), run.config)
    except (OSError, ValueError):
        return False


# Settings that a run of a comparison may have otherwise: they change no table.
FREE = tuple(
    key
    for key in resuming.FREE
    if key not in ("rounds", "schedule_rounds", "eval_every")
)


def differing(
    old: RunConfig, new: RunConfig, but: Sequence[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Settings in which two configurations differ that are to have equal tables."""
    values = {name: (getattr(old, name), getattr(new, name)) for name in vars(old)}
    values["set"] = dict(old.set), dict(new.set)
    return {
        name: pair
        for name, pair in values.items()
        if name not in but
        and pair[0] != pair[1]
        and not (name in FREE and resuming.may_differ(name, *pair))
    }


def row(run: Run, target: float | None, status: str = "done") -> dict[str, Any]:
    """One line of comparison.csv; a failed run has empty numbers."""
    values: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    values |= {
        "algorithm": run.config.algorithm,
        "seed": run.config.seed,
        "learning_rate": run.config.learning_rate,
        "status": status,
        "target": "" if target is None else target,
    }
    if status != "done":
        return values
    summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    headline = summary["headline"] or {}
    values |= {key: headline[key] for key in COLUMNS if key in headline}
    values |= {key: summary[key] for key in COLUMNS if key in summary}
    if target is not None:
        curve = read_curve(run)
        values["rounds_to_target"] = next((r for r, a in curve if a >= target), "")
    return values


def read_curve(run: Run) -> list[tuple[int, float]]:
    """Rounds and headline accuracies of a finished run."""
    summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    headline = summary["headline"]
    with (run.path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [
            (int(line["round"]), float(line["mean_accuracy"]))
            for line in csv.DictReader(file)
            if headline
            and (line["point"], line["head"]) == (headline["point"], headline["head"])
        ]


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """comparison.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(rows: Sequence[dict[str, Any]], clients: int) -> str:
    """comparison.md: mean and sd over seeds, best marked, difference to Standalone.

    The difference is paired by seed; its 95% confidence interval is Student's.

    Args:
        rows: of comparison.csv.
        clients: participants a round, to state the traffic of one.
    """
    done = [line for line in rows if line["status"] == "done" and line["last"] != ""]
    several = len({line["learning_rate"] for line in rows}) > 1
    names = list(dict.fromkeys(_trialled(line) for line in done))
    of = {name: [line for line in done if _trialled(line) == name] for name in names}
    measures = ("last", "last10", "best")
    means = {
        (name, key): float(np.mean([line[key] for line in of[name]]))
        for name in names
        for key in measures
    }
    top = {key: max((means[n, key] for n in names), default=0.0) for key in measures}
    lines = [
        f"| algorithm | {'learning rate | ' * several}head | last | last 10 | best | "
        "difference to Standalone | MB a client and round | TFLOP | s | seeds |",
        "| --- |" + " --- |" * (9 + several),
    ]
    for name in names:
        found = of[name]
        algorithm, rate = name
        cells = [algorithm, *[f"{rate:g}"] * several, str(found[0]["head"])]
        for key in measures:
            text = spread([line[key] for line in found])
            best = means[name, key] >= top[key]
            cells.append(f"**{text}**" if best else text)
        cells.append(difference(found, of.get(("standalone", rate), [])))
        traffic = np.mean(
            [
                (line["bytes_down"] + line["bytes_up"])
                / max(1, line["rounds"])
                / clients
                for line in found
            ]
        )
        cells += [
            f"{traffic / 1e6:.3f}",
            f"{np.mean([line['flops'] for line in found]) / 1e12:.2f}",
            f"{np.median([line['seconds'] for line in found]):.0f}",
            str(len(found)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    failed = [line for line in rows if line["status"] != "done"]
    for line in failed:
        which = f"seed {line['seed']}"
        which += f", learning rate {line['learning_rate']:g}" if several else ""
        lines.append(f"\n{line['algorithm']}, {which}: {line['status']}")
    return "\n".join(lines) + "\n"


def draw(path: pathlib.Path, runs: Sequence[Run]) -> None:
    """curves.png: headline accuracy over rounds, mean and range over seeds."""
    figure = pictures.empty(8, 5)
    axes = figure.subplots()
    for name, curves in _curves(runs):
        length = min(len(curve) for curve in curves)
        rounds = [number for number, _ in curves[0][:length]]
        values = np.array([[a for _, a in curve[:length]] for curve in curves])
        (line,) = axes.plot(rounds, values.mean(axis=0), label=name)
        axes.fill_between(
            rounds,
            values.min(axis=0),
            values.max(axis=0),
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )
    axes.set_xlabel("round")
    axes.set_ylabel("mean test accuracy of clients, before aggregation")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small", ncols=2)
    figure.savefig(path)


def _curves(runs: Sequence[Run]) -> Iterator[tuple[str, list[list[tuple[int, float]]]]]:
    done = [run for run in runs if finished(run)]
    several = len({run.config.learning_rate for run in done}) > 1
    key = lambda run: (run.config.algorithm, run.config.learning_rate)
    for algorithm, rate in dict.fromkeys(map(key, done)):
        curves = [read_curve(run) for run in done if key(run) == (algorithm, rate)]
        if all(curves):
            yield algorithm + (f", {rate:g}" if several else ""), curves


def _trialled(line: dict[str, Any]) -> tuple[str, float]:
    """What a row of the table is of: the runs that differ in their seed only."""
    return line["algorithm"], line["learning_rate"]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds of accuracies, in per cent."""
    text = f"{100 * np.mean(values):.2f}"
    if len(values) < 2:
        return text
    return f"{text} ± {100 * np.std(values, ddof=1):.2f}"


def difference(found: Sequence[dict], alone: Sequence[dict]) -> str:
    """Mean difference of last accuracies paired by seed, and its 95% interval.

    Args:
        found: rows of comparison.csv of one algorithm.
        alone: those of Standalone.

    Returns:
        Percentage points, as "+1.25 [-2.47, +4.98]"; "-" without a pair.
    """
    by_seed = {line["seed"]: line["last"] for line in alone}
    own = {line["seed"]: line["last"] for line in found if line["seed"] in by_seed}
    if not own or found[0]["algorithm"] == "standalone":
        return "-"
    pairs = [(100 * last, 100 * by_seed[seed]) for seed, last in own.items()]
    text = f"{np.mean([a - b for a, b in pairs]):+.2f}"
    if len(pairs) < 2:
        return text
    with warnings.catch_warnings():  # equal differences: the interval is a point
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = stats.ttest_rel(*zip(*pairs, strict=True)).confidence_interval()
    return f"{text} [{low:+.2f}, {high:+.2f}]"


def write(directory: pathlib.Path, runs: Sequence[Run], rows: list[dict]) -> str:
    """Writes comparison.csv, comparison.md and curves.png; returns the table.

    Raises:
        OSError: if they cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)  # every run may have been refused
    folder = RunDirectory(directory)
    config = runs[0].config
    table = to_markdown(rows, config.cohort_size)
    folder.lock(wait=True)  # another comparison of the folder may end at the same time
    try:
        folder.write_text("comparison.csv", to_csv(rows))
        folder.write_text("comparison.md", table)
        draw(directory / "curves.png", runs)
    finally:
        folder.unlock()
    return table
