"""`fedjax-mrl verify`: play a run again and compare digests round by round."""

import argparse
import atexit
import pathlib
import shutil
import sys
import tempfile

from fedjax_mrl.cli import options, stored
from fedjax_mrl.cli.command import Command, UsageError

__all__ = ["verify"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of an earlier run")
    parser.add_argument("--rounds", metavar="N", help="the first N rounds (all)")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies now")
    parser.add_argument("--devices", metavar="N", help="on N devices")
    parser.add_argument("--client-store", metavar="KIND", help="device, host or disk")
    parser.add_argument("--quiet", action="store_true", help="print only the verdict")
    options.add_programs(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        from fedjax_mrl.runs.directory import RunDirectory

        directory = RunDirectory.open(args.run)
        config = stored.configuration(
            directory,
            data_dir=args.data_dir,
            devices=args.devices,
            client_store=args.client_store,
        )
        rounds = config.rounds if args.rounds is None else _whole(args.rounds)
        # Nothing of the run is changed. Removed when no thread writes any more.
        folder = pathlib.Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        federation = stored.federation(directory, config, client_folder=folder)
        from fedjax_mrl.cli import console
        from fedjax_mrl.runs import verification

    with console.bar("verify", rounds, "round", quiet=args.quiet) as bar:

        def report(round: int, equal: bool) -> None:
            bar.update(round - bar.n)
            if not args.quiet:
                bar.write(f"round {round}: {'equal' if equal else 'DIFFERENT'}")
                sys.stdout.flush()

        verdict = verification.verify(federation, directory, rounds, report)
    for change in verdict.environment:
        print(f"environment: {change}")
    if verdict.difference is None:
        if not verdict.rounds:
            print(f"{directory.path} holds no digest to compare with.")
            return 1
        print(f"{verdict.rounds} rounds are equal, bit for bit.")
        if verdict.lost:
            print(
                "Not compared, since rounds.csv has no line of them that can be read: "
                f"{', '.join(map(str, verdict.lost))}."
            )
        return 1 if verdict.lost else 0
    print(f"The first difference lies in {verdict.difference}.")
    if verdict.since > 1:
        print(
            f"Rounds from {verdict.since} on were recorded in another environment than "
            "the rounds before."
        )
    if verdict.environment:
        print("The environment differs (see above), which may explain it.")
    else:
        print("The environment is the same, which does not explain it.")
    return 1


def _whole(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise UsageError(f"--rounds takes a whole number, at least 1; got {word!r}.")
    return int(word)


verify = Command(
    "play a run again and compare digests round by round", _configure, _execute
)
