"""Runs that the folder of a comparison holds already: which stay, which are in the way.

A folder is for one configuration. Its runs may differ in algorithm, seed and learning
rate; all of them are in its tables, whichever command they came from.
"""

import csv
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fedjax_mrl import references
from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import comparison
from fedjax_mrl.runs.comparison import Run
from fedjax_mrl.runs.directory import FILES, FOLDERS, RunDirectory, RunDirectoryError

# Algorithm, seed and learning rate of a run, as comparison.csv has them.
Key = tuple[str, str, str]


class Held(NamedTuple):
    """A run that is in the folder."""

    path: pathlib.Path
    config: RunConfig | None  # None: config.json is missing or damaged
    problem: str  # why it does not belong to this comparison; empty if it does


class Place(NamedTuple):
    """The folders of a command's runs, and the other runs of its tables.

    Attributes:
        runs: of the command, each with its folder.
        others: earlier ones of the same configuration that it does not name.
        replaced: folders of runs that are in the way and may be replaced.
        left_out: folders of other runs, which stay and are in no table.
    """

    runs: list[Run]
    others: list[Run]
    replaced: set[pathlib.Path]
    left_out: list[pathlib.Path]


def find(
    out: pathlib.Path,
    base: RunConfig,
    runs: Sequence[Run],
    *,
    rates: bool,
    overwrite: bool,
    data_sha256: str,
) -> Place:
    """Looks where the runs of a command may go; touches nothing.

    Args:
        out: folder of the comparison; need not exist.
        base: the command's configuration.
        runs: the command's runs, as `comparison.plan` lists them.
        rates: whether the command lists learning rates, so that another one than in
            the folder is no mistake.
        overwrite: whether runs that are in the way may be replaced.
        data_sha256: checksum of the images.

    Raises:
        RunDirectoryError: if the folder is or holds an ordinary run, or without
            `overwrite` results of another configuration.
    """
    named = {run.config.algorithm for run in runs}
    held = _held(out, base, named, data_sha256)
    belonging = [
        Run(run.config, run.path) for run in held if run.config and not run.problem
    ]
    placed = [_place(run, belonging, rates=rates) for run in runs]
    problems = {run.path: run.problem for run in held if run.problem}
    for run in placed:
        there = next((other for other in belonging if other.path == run.path), None)
        if there is not None and not comparison.begun(run):
            problems[run.path] = _words(there.config, run.config)
        elif there is None and run.path not in problems and _files(run.path):
            problems[run.path] = "it holds a run without a readable config.json"
    if problems and not overwrite:
        path, problem = next(iter(problems.items()))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RunDirectoryError(
            f"{path}{more} holds other results: {problem}. Choose another --out, or "
            "give --overwrite to replace the runs that are in the way. (--algorithms, "
            "--seeds and --learning-rates add runs to a comparison.)"
        )
    paths = {run.path for run in placed}
    return Place(
        placed,
        [run for run in belonging if run.path not in paths],
        {path for path in problems if path in paths},
        [path for path in problems if path not in paths],
    )


def earlier(out: pathlib.Path) -> dict[Key, dict[str, str]]:
    """Rows of the comparison.csv that is there, by algorithm, seed and rate."""
    try:
        with (out / "comparison.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {_key(row): row for row in rows}
    except (OSError, ValueError, KeyError, csv.Error):
        return {}


def target(before: Mapping[Key, Mapping[str, str]]) -> float | None:
    """The accuracy that an earlier command of the folder asked to be reached."""
    try:
        targets = {row["target"] for row in before.values() if row["target"]}
        return float(targets.pop()) if len(targets) == 1 else None
    except (KeyError, ValueError):
        return None


def status(run: Run, before: Mapping[Key, Mapping[str, str]]) -> str:
    """The status of a run that a command does not name: "done", or a sentence."""
    if comparison.finished(run):
        return "done"
    name = references.short(run.config.algorithm)
    key = name, str(run.config.seed), str(run.config.learning_rate)
    known = (before.get(key) or {}).get("status") or "done"
    if known != "done":
        return known
    played = comparison.rounds_played(run.path)
    if played is None:
        return f"not finished; `fedjax-mrl resume {run.path}` goes on"
    return f"ended after round {played} of {run.config.rounds}"


def _held(
    out: pathlib.Path, base: RunConfig, named: set[str], data_sha256: str
) -> list[Held]:
    """The runs in the folder, by name."""
    try:
        if not out.exists():
            return []
        ordinary = _files(out)
        folders = sorted(path for path in out.iterdir() if path.is_dir())
    except OSError as error:
        raise RunDirectoryError(
            f"Cannot look into {out}: {error.strerror}. Choose another --out."
        ) from None
    if ordinary:
        raise RunDirectoryError(
            f"{out} holds a run ({', '.join(ordinary[:3])}), not a comparison. Choose "
            "another --out."
        )
    runs = []
    for path in folders:
        if (path / "config.json").is_file():
            runs.append(_look(path, base, named, data_sha256))
    return runs


def _look(
    path: pathlib.Path, base: RunConfig, named: set[str], data_sha256: str
) -> Held:
    try:
        config = RunConfig.from_json((path / "config.json").read_text("utf-8"))
        trial = config.algorithm, config.seed, config.learning_rate
        expected = comparison.configured(base, *trial)
    except (OSError, ValueError) as error:
        return Held(path, None, f"its config.json cannot be read ({error})")
    names = [comparison.folder(config, several=several) for several in (False, True)]
    if path.name not in (*names, f"{names[0]}-lr{config.learning_rate:g}"):
        raise RunDirectoryError(
            f"{path} is a run of its own, not one of a comparison. Choose an --out for "
            "the comparison alone."
        )
    # Which options another algorithm was given, this command does not say.
    ignored = () if config.algorithm in named else ("set", "shared_dim")
    problem = _words(config, expected, ignored)
    if not problem and ignored:
        pairs = [
            {k: v for k, v in c.set if k.startswith("server.")}
            for c in (config, expected)
        ]
        problem = "" if pairs[0] == pairs[1] else f"set: {pairs[0]} -> {pairs[1]}"
    if not problem and _sha256(path) not in (None, data_sha256):
        problem = "its images are not those of now (their checksum differs)"
    return Held(path, config, problem)


def _place(run: Run, belonging: Sequence[Run], *, rates: bool) -> Run:
    """The run in the folder that has it, or in its own; another rate beside it."""
    for other in belonging:
        if not comparison.differing(other.config, run.config):
            return run._replace(path=other.path)
    there = next((other for other in belonging if other.path == run.path), None)
    if rates and there is not None:
        only = set(comparison.differing(there.config, run.config)) == {"learning_rate"}
        if only:
            name = comparison.folder(run.config, several=True)
            return run._replace(path=run.path.parent / name)
    return run


def _words(old: RunConfig, new: RunConfig, but: Sequence[str] = ()) -> str:
    pairs = comparison.differing(old, new, but)
    return "; ".join(f"{key}: {a!r} -> {b!r}" for key, (a, b) in pairs.items())


def _files(path: pathlib.Path) -> list[str]:
    return [name for name in (*FILES, *FOLDERS) if (path / name).exists()]


def _sha256(path: pathlib.Path) -> str | None:
    """Checksum of the images of a run; None if it is not known."""
    try:
        return json.loads(RunDirectory(path).read_text("environment.json")).get(
            "data_sha256"
        )
    except (OSError, ValueError, AttributeError):
        return None


def _key(row: dict[str, str]) -> Key:
    return row["algorithm"], row["seed"], row["learning_rate"]
