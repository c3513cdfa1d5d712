"""`fedjax-mrl resume`: go on from the last complete checkpoint."""

import argparse
import sys
from typing import TYPE_CHECKING

from fedjax_mrl.cli import devices, options, stored, telling
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.runs.directory import RunDirectory

__all__ = ["resume"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of an earlier run")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    telling.add(parser)
    devices.add(parser)
    options.add(parser)
    options.add_programs(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        from fedjax_mrl.runs.directory import Follower, RunDirectory

        directory = RunDirectory.open(args.run)
        config = _config(directory, args)
        devices.provide(config)
        first = devices.join(args)
        devices.require()
        if not first:
            directory = Follower(directory.path)
        directory.lock()
    try:
        return _go_on(args, directory, config, first)
    finally:
        directory.unlock()


def _go_on(
    args: argparse.Namespace,
    directory: "RunDirectory",
    config: "RunConfig",
    first: bool,
) -> int:
    """Plays the rounds that are missing in a directory that is locked."""
    with options.mistakes_are_usage_errors():
        told = telling.read(args) if first else telling.Telling(quiet=True)
        federation = stored.federation(directory, config, unfinished=True)
        from fedjax_mrl.runs import resuming

        def warn(text: str) -> None:
            if first:
                print(f"fedjax-mrl: {text}", file=sys.stderr)

        state = resuming.restore(federation, directory, warn)
    label = f"{config.title}"
    round = 0 if state is None else state.round
    if state is None:
        warn(stored.NOTHING_SAVED)
    if round > config.rounds:
        raise UsageError(
            f"{directory.path} already has {round} rounds; --rounds must be at least "
            f"as many, got {config.rounds}."
        )
    done = (directory.path / "summary.json").exists() and round == config.rounds
    if done:
        if not args.quiet:
            print(
                f"{directory.path} is complete after {round} rounds; --rounds N plays "
                "more."
            )
        return 0
    elsewhere = stored.moved(directory, round)
    if elsewhere:
        warn(elsewhere)
    directory.cut(round, config.eval_every)
    if first and state is not None and not args.quiet:
        print(f"Going on after round {round} of {config.rounds}.", flush=True)
    from fedjax_mrl.cli import training

    return training.finish(federation, directory, label, told, state)


def _config(directory: "RunDirectory", args: argparse.Namespace) -> "RunConfig":
    """The run's configuration, with what may change taken from the flags."""
    from fedjax_mrl import config as configs
    from fedjax_mrl.runs.resuming import FREE, may_differ, on_its_schedules

    old = stored.configuration(directory)
    known = {name: getattr(old, name) for name in configs.fields()}
    new = configs.build(known, *options.layers(args))
    differing = [
        name
        for name in configs.fields()
        if not may_differ(name, getattr(old, name), getattr(new, name))
    ]
    if differing:
        listed = "; ".join(
            f"{name}: {getattr(old, name)!r} -> {getattr(new, name)!r}"
            for name in differing
        )
        raise UsageError(
            f"A run goes on with its own configuration, but these differ: {listed}. "
            "Leave them out, or begin a new run. Only these may differ: "
            f"{', '.join(FREE)}."
        )
    return on_its_schedules(new, old)


resume = Command(
    "go on from the last complete checkpoint",
    _configure,
    devices.ends_for_all(_execute),
)
