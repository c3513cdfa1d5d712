"""`fedjax-mrl run`: train one federation."""

import argparse
import logging

from fedjax_mrl.cli import devices, options
from fedjax_mrl.cli.command import Command

__all__ = ["run"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="run directory (runs/<name>)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run that is in --out"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    devices.add(parser)
    options.add(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        config = options.resolve(args)
        # JAX is imported only here: mistakes above are answered at once.
        logging.getLogger("absl").setLevel(logging.ERROR)
        from fedjax_mrl.cli import training
        from fedjax_mrl.federation import Federation
        from fedjax_mrl.rundir import Follower, RunDirectory

        out = args.out or f"runs/{config.algorithm}-{config.dataset}-{config.seed}"
        devices.provide(config)
        # Before they join, so that all processes are refused alike.
        RunDirectory.check(out, overwrite=args.overwrite)
        first = devices.join(args)
        federation = Federation(config, client_folder=RunDirectory(out).clients)
        if first:
            directory = RunDirectory.create(
                out, config=config.to_json(), overwrite=args.overwrite
            )
        else:
            directory = Follower(out)
    label = f"{config.algorithm} on {config.dataset}"
    return training.finish(federation, directory, label, quiet=args.quiet or not first)


run = Command("train one federation", _configure, devices.ends_for_all(_execute))
