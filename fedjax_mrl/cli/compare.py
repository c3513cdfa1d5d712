"""`fedjax-mrl compare`: several algorithms, seeds, settings on the same data split."""

import argparse
import functools
import logging
import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from fedjax_mrl import references
from fedjax_mrl.cli import options, signals, stored, telling, trials
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.data.dataset import Dataset
    from fedjax_mrl.runs.comparison_folder import Place
    from fedjax_mrl.runs.grid import Grid

__all__ = ["compare"]

T = TypeVar("T", int, float)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--algorithms", metavar="A,B,...", required=True, help="algorithms to compare"
    )
    parser.add_argument(
        "--seeds", metavar="0,1,...", default=None, help="seeds (default 0)"
    )
    parser.add_argument(
        "--learning-rates",
        metavar="0.1,0.01,...",
        help="learning rates to compare as well (default: the one of --learning-rate)",
    )
    parser.add_argument(
        "--grid",
        metavar="NAME=V1,V2,...",
        action="append",
        default=[],
        help="values of any option of the configuration, or of a hyper-parameter as "
        "--set names it; repeatable, all combinations are played. Values that hold "
        "commas are parted by semicolons, as in 'models=mlp;cnn1,cnn2'",
    )
    parser.add_argument(
        "--together",
        metavar="N",
        default="0",
        help="seeds and learning rates of an algorithm that are played at once; 0 is "
        "as many as memory holds well (default 0)",
    )
    parser.add_argument(
        "--target", metavar="ACCURACY", help="also report the rounds to reach it"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="runs/compare",
        help="folder of the comparison (runs/compare); the runs of one configuration "
        "that it holds stay and are in its tables; with more --rounds they go on",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace runs of another configuration that are in the way",
    )
    parser.add_argument("--quiet", action="store_true", help="print only the table")
    telling.add(parser)
    options.add(parser)
    options.add_programs(parser)


class _Asked(NamedTuple):
    """The words of the command after they were read.

    Attributes:
        base: everything but algorithm, seed and what is swept.
        names: algorithms.
        seeds: of training.
        grid: swept options and their values, the learning rate among them.
        together: trials that are played at once; 0 is as many as memory holds well.
        target: accuracy whose first round is reported, None if none is.
        out: folder of the comparison.
    """

    base: "RunConfig"
    names: list[str]
    seeds: list[int]
    grid: "Grid"
    together: int
    target: float | None
    out: pathlib.Path


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        asked = _on_schedules(_read(args), quiet=args.quiet)
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from fedjax_mrl.building import from_config, splits
        from fedjax_mrl.cli import console, devices
        from fedjax_mrl.runs import comparison

        devices.provide(asked.base)
        devices.require()
        told = telling.read(args)
        dataset = from_config.data(asked.base)
        if not asked.base.num_clients:  # as many as the data name
            base = splits.counted(asked.base, dataset)
            asked = _on_schedules(asked._replace(base=base), quiet=args.quiet)
        place = _find(asked, dataset, overwrite=args.overwrite)
    notes = [*dataset.notes, *splits.notes(asked.base, dataset)]
    if asked.base.privacy is not None and len(place.runs) > 1:
        notes.append(
            f"All {len(place.runs)} runs are on the same clients, also those that "
            "differ in the seed alone, so what they cost in privacy adds up: every "
            "epsilon below is of one run."
        )
    if not args.quiet:
        console.tell(*notes)
    for path, why in place.left_out.items():
        print(f"fedjax-mrl: {path} {why}", file=sys.stderr)
    with signals.Stop() as stop:
        playing = trials.Trials(place, dataset, asked.together, stop, told)
        playing.noted.update(notes)
        for runs in comparison.of_one_program(place.runs):
            playing.play(runs)
            if playing.status > 128:  # a signal; the same command goes on from here
                return playing.status
        return max(playing.status, _write(asked, place, playing.ends))


def _read(args: argparse.Namespace) -> _Asked:
    """Reads the words of the command.

    Raises:
        UsageError: for a number that is none, or a choice that `compare` lacks.
    """
    base = options.resolve(args)
    if base.client_store == "disk":
        raise UsageError(
            "--client-store disk belongs to one run; compare takes auto, device or "
            "host. Play runs that need the disk one by one with `fedjax-mrl run`."
        )
    grid = _grid(args)
    seeds = grid.pop("seed", ["0"])
    asked = _Asked(
        base=base,
        names=[
            references.absolute(name.strip()) for name in args.algorithms.split(",")
        ],
        seeds=[_number(int, "--seeds", word) for word in seeds],
        grid=grid,
        together=_number(int, "--together", args.together),
        target=None if args.target is None else _target(args.target),
        out=pathlib.Path(args.out),
    )
    if asked.together < 0:
        raise UsageError(f"--together must be at least 0; got {asked.together}.")
    return asked


def _grid(args: argparse.Namespace) -> dict[str, list[str]]:
    """The swept options with their values as words, seeds and learning rates too."""
    from fedjax_mrl.runs import grid as grids

    grid = grids.parse(args.grid)
    for flag, name in (("--seeds", "seed"), ("--learning-rates", "learning_rate")):
        text = getattr(args, flag[2:].replace("-", "_"))
        if text is None:
            continue
        words = text.split(",")
        if name in grid:
            raise UsageError(f"Give {flag} or --grid {name}=..., not both.")
        if name == "learning_rate":
            for word in words:
                _number(float, flag, word)
        grid[name] = words
    return grid


def _on_schedules(asked: _Asked, *, quiet: bool) -> _Asked:
    """What is asked, its grid read, on the schedules of runs that it goes on with."""
    from fedjax_mrl.runs import comparison, comparison_folder
    from fedjax_mrl.runs import grid as grids

    names = set(asked.names)
    grid = grids.check(asked.grid, comparison.hyperparameters(asked.names))
    asked = asked._replace(grid=grid)
    base = comparison_folder.on_their_schedules(
        asked.out, asked.base, names, asked.grid
    )
    if base != asked.base and not quiet:
        print(
            f"Schedules stay those of {base.schedule_rounds} rounds, with which the "
            f"runs in {asked.out} began.",
            flush=True,
        )
    return asked._replace(base=base)


def _find(asked: _Asked, dataset: "Dataset", *, overwrite: bool) -> "Place":
    """Where the runs go, in a folder that may hold earlier ones; touches nothing."""
    from fedjax_mrl.building import ahead
    from fedjax_mrl.runs import comparison, comparison_folder
    from fedjax_mrl.runs import grid as grids

    runs = comparison.plan(asked.base, asked.names, asked.seeds, asked.out, asked.grid)
    if asked.grid:
        ahead.require_known(run.config for run in runs)
        grids.require_one_test_part(asked.grid, drawn=dataset.test_drawn)
    ahead.require_built((run.config for run in runs), dataset)
    ahead.require_a_split((run.config for run in runs), dataset)
    return comparison_folder.find(
        asked.out,
        asked.base,
        runs,
        swept=asked.grid,
        overwrite=overwrite,
        data_sha256=dataset.sha256(),
    )


def _write(asked: _Asked, place: "Place", ends: dict[pathlib.Path, str]) -> int:
    """Writes and prints the tables of all runs; returns the exit status.

    Args:
        asked: the words of the command.
        place: its runs, and earlier ones of the folder.
        ends: what became of each of its runs, by path.
    """
    from fedjax_mrl.cli import console
    from fedjax_mrl.runs import (
        comparison_earlier,
        comparison_gains,
        comparison_rows,
        comparison_writing,
    )
    from fedjax_mrl.runs.directory import RunDirectory, RunDirectoryError

    before = comparison_earlier.rows(asked.out)
    target = asked.target
    if target is None:
        target = comparison_earlier.target(before)
    earlier = {run.path: comparison_earlier.status(run, before) for run in place.others}
    runs = [*place.runs, *place.others]
    columns = comparison_rows.swept(runs)
    runs = comparison_rows.in_order(runs, columns)
    ends = {**ends, **earlier}
    rows = [comparison_rows.row(run, target, ends[run.path], columns) for run in runs]
    directories = [RunDirectory(run.path) for run in runs]
    read = functools.cache(stored.rows)
    for line, directory in zip(rows, directories, strict=True):
        if line["status"] == "done":
            read(directory, "metrics.csv")  # tells of damage
    clients = [functools.partial(read, each, "clients.csv") for each in directories]
    try:
        comparison_gains.add(rows, clients, columns)
        table = comparison_writing.write(asked.out, runs, rows)
    except (OSError, RunDirectoryError) as error:
        return console.unwritten(f"The tables in {asked.out}", error)
    print(table, end="")
    console.show(f"Written to {asked.out}")
    return 0


def _target(word: str) -> float:
    from fedjax_mrl.runs import summary

    found = _number(float, "--target", word)
    summary.require_targets([found])
    return found


def _number(kind: Callable[[str], T], flag: str, word: str) -> T:
    try:
        return kind(word)
    except ValueError:
        raise UsageError(f"{flag} takes numbers; got {word!r}.") from None


compare = Command(
    "several algorithms, seeds and settings on one data split", _configure, _execute
)
