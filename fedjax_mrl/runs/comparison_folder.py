"""Runs that the folder of a comparison holds already: which stay, which are in the way.

A folder is for one configuration. Its runs may differ in algorithm, seed, learning
rate and what was swept; all of them are in its tables, whichever command they came
from.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import (
    checksums,
    comparison,
    course,
    effective,
    grid_columns,
    resuming,
)
from fedjax_mrl.runs.comparison import Run
from fedjax_mrl.runs.directory import FILES, FOLDERS, RunDirectory, RunDirectoryError
from fedjax_mrl.runs.error import InTheWay


class Held(NamedTuple):
    """A run that is in the folder."""

    path: pathlib.Path
    config: RunConfig | None  # None: config.json is missing or damaged
    problem: str  # why it does not belong to this comparison; empty if it does


class _Command(NamedTuple):
    """The command that a folder is looked at for."""

    base: RunConfig
    named: set[str]  # its algorithms
    swept: Collection[str]  # options of which it lists values


class Place(NamedTuple):
    """The folders of a command's runs, and the other runs of its tables.

    Attributes:
        runs: of the command, each with its folder.
        others: earlier ones of the same configuration that it does not name.
        replaced: folders of runs that are in the way and may be replaced.
        left_out: folders of runs that stay and are in no table, and why.
    """

    runs: list[Run]
    others: list[Run]
    replaced: set[pathlib.Path]
    left_out: dict[pathlib.Path, str]


def find(
    out: pathlib.Path,
    base: RunConfig,
    runs: Sequence[Run],
    *,
    swept: Collection[str],
    overwrite: bool,
    data_sha256: str | None,
) -> Place:
    """Looks where the runs of a command may go; touches nothing.

    Args:
        out: folder of the comparison; need not exist.
        base: the command's configuration.
        runs: the command's runs, as `comparison.plan` lists them.
        swept: options of which the command lists values, so that another one than in
            the folder is no mistake.
        overwrite: whether runs that are in the way may be replaced.
        data_sha256: checksum of the images; None to look at configurations alone.

    Raises:
        InTheWay: without `overwrite`, if the folder holds results of another
            configuration.
        RunDirectoryError: if the folder is or holds an ordinary run.
        PathError: if a run cannot be written to its folder.
    """
    named = {run.config.algorithm for run in runs}
    held = _held(out, _Command(base, named, swept), data_sha256)
    belonging = [
        Run(run.config, run.path) for run in held if run.config and not run.problem
    ]
    placed = [_place(run, belonging, swept) for run in runs]
    problems = {run.path: run.problem for run in held if run.problem}
    for run in placed:
        there = next((other for other in belonging if other.path == run.path), None)
        if there is not None and not course.begun(run):
            problems[run.path] = _in_the_way(there.config, run.config)
        elif there is None and run.path not in problems and _files(run.path):
            problems[run.path] = "it holds a run without a readable config.json"
    if problems and not overwrite:
        raise InTheWay(_refusal(problems), problems)
    for run in placed:
        if not course.begun(run):
            RunDirectory.check(run.path, overwrite=run.path in problems)
    paths = {run.path for run in placed}
    others = [run for run in belonging if run.path not in paths]
    left_out = {path: _ANOTHER for path in problems if path not in paths}
    left_out |= _of_no_table(placed, others, base.rounds)
    return Place(
        placed,
        [run for run in others if run.path not in left_out],
        {path for path in problems if path in paths},
        left_out,
    )


def on_their_schedules(
    out: pathlib.Path, base: RunConfig, named: set[str], swept: Collection[str] = ()
) -> RunConfig:
    """The command's configuration, on the schedules of the runs that it goes on with.

    More rounds than the runs of a folder have are added to these as `resume` adds them:
    schedules stay as the runs began them.

    Args:
        out: folder of the comparison; need not exist.
        base: the command's configuration.
        named: its algorithms.
        swept: options of which it lists values.
    """
    if base.schedule_rounds is not None:
        return base
    lengths = set()
    but = ("rounds", "schedule_rounds")
    try:
        for path in _folders(out):
            config, expected = _read(path, base, swept)
            free = () if config.algorithm in named else effective.SETTINGS
            if not course.differing(config, expected, (*but, *free)):
                lengths.add(resuming.schedule_length(config))
    except (OSError, ValueError):
        return base  # refused by `find` with a reason
    length = lengths.pop() if len(lengths) == 1 else 0
    if not 0 < length < base.rounds:
        return base
    return dataclasses.replace(base, schedule_rounds=length)


def _held(out: pathlib.Path, command: _Command, data_sha256: str | None) -> list[Held]:
    """The runs in the folder, by name."""
    try:
        if not out.exists():
            return []
        ordinary = _files(out)
        folders = list(_folders(out))
    except OSError as error:
        raise RunDirectoryError(
            f"Cannot look into {out}: {error.strerror}. Choose another --out."
        ) from None
    if ordinary:
        raise RunDirectoryError(
            f"{out} holds a run ({', '.join(ordinary[:3])}), not a comparison. Choose "
            "another --out."
        )
    return [_look(path, command, data_sha256) for path in folders]


def _folders(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folders in a comparison's that hold a run, by name."""
    if out.exists():
        for path in sorted(path for path in out.iterdir() if path.is_dir()):
            if (path / "config.json").is_file():
                yield path


def _read(
    path: pathlib.Path, base: RunConfig, swept: Collection[str]
) -> tuple[RunConfig, RunConfig]:
    """The configuration of a run, and what it would be in a command's comparison."""
    config = RunConfig.from_json((path / "config.json").read_text("utf-8"))
    columns = {*grid_columns.of(swept), *grid_columns.said_in(path.name)}
    own = config.algorithm, config.seed, config.learning_rate
    return config, comparison.configured(
        grid_columns.adopt(base, config, columns), *own
    )


def _look(path: pathlib.Path, command: _Command, data_sha256: str | None) -> Held:
    base, named, swept = command
    try:
        config, expected = _read(path, base, swept)
    except (OSError, ValueError) as error:
        return Held(path, None, f"its config.json cannot be read ({error})")
    columns = grid_columns.said_in(path.name)
    names = [
        comparison.folder(config, several=several, columns=columns)
        for several in (False, True)
    ]
    if path.name not in (*names, f"{names[0]}-lr{config.learning_rate:g}"):
        raise RunDirectoryError(
            f"{path} is a run of its own, not one of a comparison. Choose an --out for "
            "the comparison alone."
        )
    # Which options another algorithm was given, this command does not say.
    ignored = () if config.algorithm in named else effective.SETTINGS
    lengths = {resuming.schedule_length(c) for c in (config, expected)}
    rounds = ("rounds",) * (len(lengths) == 1)  # one goes on where another ends
    problem = _words(config, expected, (*ignored, *rounds))
    if not problem and ignored:
        pairs = [
            {k: v for k, v in c.set if k.startswith("server.")}
            for c in (config, expected)
        ]
        problem = "" if pairs[0] == pairs[1] else f"set: {pairs[0]} -> {pairs[1]}"
    sums = checksums.recorded(RunDirectory(path))
    if not problem and not checksums.same_data(sums, data_sha256):
        problem = "its images are not those of now (their checksum differs)"
    changed = None if problem else checksums.changed_code(sums, config)
    if changed is not None:
        problem = f"the file of {changed} has changed since (its checksum differs)"
    return Held(path, config, problem)


def _place(run: Run, belonging: Sequence[Run], swept: Collection[str]) -> Run:
    """The run in the folder that has it, or in its own; another rate beside it.

    What the folder's run leaves at defaults stays so, since checkpoints say as much.
    """
    for other in sorted(belonging, key=lambda other: other.path != run.path):
        if course.same(other.config, run.config):
            return Run(effective.as_said(run.config, other.config), other.path)
    there = next((other for other in belonging if other.path == run.path), None)
    if "learning_rate" in swept and there is not None:
        differing = course.differing(there.config, run.config, ("rounds",))
        if set(differing) == {"learning_rate"}:
            columns = grid_columns.said_in(run.path.name)
            name = comparison.folder(run.config, several=True, columns=columns)
            return run._replace(path=run.path.parent / name)
    return run


def _of_no_table(
    placed: Sequence[Run], others: Sequence[Run], rounds: int
) -> dict[pathlib.Path, str]:
    """Folders of runs that are not for the tables, of a command's rounds, and why.

    They have another number of rounds, or what another folder in the tables has too.
    """
    found: dict[pathlib.Path, str] = {}
    known = list(placed)
    for run in others:
        if run.config.rounds != rounds:
            found[run.path] = _of_other_rounds(run.config.rounds, rounds)
            continue
        same = (o for o in known if course.same(o.config, run.config))
        double = next(same, None)
        if double is None:
            known.append(run)
        else:
            found[run.path] = f"has the settings of {double.path}; it is in no table."
    return found


def _refusal(problems: Mapping[pathlib.Path, str]) -> str:
    path, problem = next(iter(problems.items()))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return (
        f"{path}{more} holds other results: {problem}. Choose another --out, or "
        "give --overwrite to replace the runs that are in the way. (--algorithms, "
        "--seeds, --learning-rates and --grid add runs to a comparison.)"
    )


def _in_the_way(old: RunConfig, new: RunConfig) -> str:
    """Why a run that a command names cannot be taken or gone on with."""
    if course.same(old, new):
        return (
            f"it has gone on to {old.rounds} rounds, more than {new.rounds}; --rounds "
            f"{old.rounds} takes it as it is, and goes on with the others"
        )
    return _words(old, new)


_ANOTHER = "is of another configuration; it stays and is in no table."


def _of_other_rounds(there: int, asked: int) -> str:
    do = (
        f"--rounds {there} takes it in, and goes on with the others"
        if there > asked
        else "name its algorithm and seed to go on with it"
    )
    return f"is of {there} rounds, not {asked}; it stays and is in no table ({do})."


def _words(old: RunConfig, new: RunConfig, but: Sequence[str] = ()) -> str:
    pairs = course.differing(old, new, but)
    return "; ".join(f"{key}: {a!r} -> {b!r}" for key, (a, b) in pairs.items())


def _files(path: pathlib.Path) -> list[str]:
    return [name for name in (*FILES, *FOLDERS) if (path / name).exists()]
