"""`fedjax-mrl run`: train one federation."""

import argparse
import logging

from fedjax_mrl.cli import options
from fedjax_mrl.cli.command import Command

__all__ = ["run"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="run directory (runs/<name>)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run that is in --out"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    options.add(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        config = options.resolve(args)
        # JAX is imported only here: mistakes above are answered at once.
        logging.getLogger("absl").setLevel(logging.ERROR)
        from fedjax_mrl.cli import console
        from fedjax_mrl.federation import Federation
        from fedjax_mrl.rundir import RunDirectory

        out = args.out or f"runs/{config.algorithm}-{config.dataset}-{config.seed}"
        RunDirectory.check(out, overwrite=args.overwrite)
        federation = Federation(config)
        directory = RunDirectory.create(out, overwrite=args.overwrite)
    from fedjax_mrl import runner
    from fedjax_mrl.cli.main import fail

    label = f"{config.algorithm} on {config.dataset}"
    try:
        with console.Progress(label, config.rounds, quiet=args.quiet) as progress:
            outcome = runner.run(federation, directory, progress)
    except runner.Diverged as error:
        return fail(error, 3)
    if not args.quiet:
        if outcome.scores is not None:
            console.show(
                console.accuracy_table(
                    f"{label}, round {config.rounds}: mean test accuracy of clients",
                    federation.groups,
                    federation.algorithm.heads,
                    outcome.scores,
                )
            )
        traffic = outcome.summary["bytes_down"] + outcome.summary["bytes_up"]
        console.show(
            f"{outcome.summary['seconds']:.1f} s, {traffic / 1e6:.1f} MB sent, "
            f"digest {(outcome.summary['digest'] or '-')[:16]}",
            f"Written to {directory.path}",
        )
    return 0


run = Command("train one federation", _configure, _execute)
