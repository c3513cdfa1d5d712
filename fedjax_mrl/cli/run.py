"""`fedjax-mrl run`: train one federation."""

import argparse
import dataclasses
import logging
from typing import TYPE_CHECKING

from fedjax_mrl.cli import devices, options, telling
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.federation import Federation

__all__ = ["run"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="run directory (runs/<name>)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run that is in --out"
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="first time the ways to compute each architecture, and keep the fastest "
        "in config.json; takes about as long to compile as several runs do",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    telling.add(parser)
    devices.add(parser)
    options.add(parser)
    options.add_programs(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        config = options.resolve(args)
        # JAX is imported only here: mistakes above are answered at once.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from fedjax_mrl.cli import console, training
        from fedjax_mrl.federation import Federation
        from fedjax_mrl.runs.directory import Follower, RunDirectory

        out = args.out or f"runs/{config.short_name}-{config.seed}"
        devices.provide(config)
        # Before they join, so that all processes are refused alike.
        RunDirectory.check(out, overwrite=args.overwrite)
        first = devices.join(args)
        devices.require()
        told = telling.read(args)
        federation = Federation(config, client_folder=RunDirectory(out).clients)
        if args.tune:
            config = _tuned(federation, quiet=args.quiet)
            federation = Federation(
                config,
                dataset=federation.dataset,
                client_folder=RunDirectory(out).clients,
            )
        if first:
            directory = RunDirectory.create(
                out, config=federation.config.to_json(), overwrite=args.overwrite
            )
        else:
            directory = Follower(out)
    quiet = args.quiet or not first
    if not quiet:
        console.tell(*federation.pieces.notes)
    label = f"{config.title}"
    told = told if first else telling.Telling(quiet=True)
    return training.finish(federation, directory, label, told)


def _tuned(federation: "Federation", *, quiet: bool) -> "RunConfig":
    """The configuration with the strategies that are fastest here."""
    import jax

    from fedjax_mrl.planning import tuning
    from fedjax_mrl.simulation import strategies

    if jax.process_count() > 1:
        raise UsageError(
            "--tune times one process; tune a short run, then give what it found: "
            "--strategies, from its config.json."
        )

    def report(timed: tuning.Timed) -> None:
        if not quiet:
            text = f"{timed.architecture} by {timed.strategy}"
            print(f"{text}: {timed.seconds:.3g} s a step", flush=True)

    chosen = tuning.choose(tuning.measure(federation, report))
    words = strategies.write(chosen)
    if not quiet:
        print(f"Kept: {', '.join(words)}", flush=True)
    return dataclasses.replace(federation.config, strategies=words)


run = Command("train one federation", _configure, devices.ends_for_all(_execute))
