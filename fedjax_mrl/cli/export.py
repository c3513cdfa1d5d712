"""`fedjax-mrl export`: one client's personal model as files for other programs."""

import argparse
import contextlib
import shlex
import sys
from typing import TYPE_CHECKING

from fedjax_mrl.cli import options, stored
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation

__all__ = ["export"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of an earlier run")
    parser.add_argument("--client", metavar="K", help="whose model, from 0")
    parser.add_argument("--out", metavar="DIR", help="folder for the model, a new one")
    parser.add_argument(
        "--format",
        metavar="NAMES",
        help="jax, safetensors, torch: one or several with commas (jax,safetensors)",
    )
    add_choice(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the model that is in --out"
    )
    options.add_programs(parser)


def add_choice(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Adds the flags that say how a client infers."""
    parser.add_argument(
        "--head", metavar="NAME", help="inference mode (the headline's)"
    )
    parser.add_argument(
        "--point",
        metavar="NAME",
        help="local: with the shared part as the client last held it; global: with the "
        "newest aggregate (local)",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies now")


def trained(path: str, data_dir: str | None) -> "Federation":
    """The federation of a run with its newest state; warns of damaged checkpoints."""
    from fedjax_mrl.runs.directory import RunDirectory

    directory = RunDirectory.open(path)
    config = stored.configuration(directory, data_dir=data_dir)
    federation = stored.federation(directory, config)
    federation.state = stored.newest(federation, directory)
    return federation


def client_number(word: str | None) -> int | None:
    """The number that --client was given; None if it was not given."""
    if word is None:
        return None
    with contextlib.suppress(ValueError):
        return int(word)
    raise UsageError(f"--client takes a client's number, as 0; got {word!r}.")


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        if args.out is None:
            raise UsageError("Say where to write the model: --out DIR.")
        client = client_number(args.client)
        from fedjax_mrl.exporting import description, folder, subject, writing

        writing.require_formats(args.format)  # before the run is built
        folder.check(args.out, overwrite=args.overwrite)
        federation = trained(args.run, args.data_dir)
        choice = description.choose(
            federation, client, args.head, args.point or "local"
        )
        try:
            made = writing.export(
                subject.participant(federation, choice),
                args.out,
                formats=args.format,
                overwrite=args.overwrite,
                run=args.run,
            )
        except OSError as error:
            reason = error.strerror or error
            print(
                f"fedjax-mrl: Cannot write the model to {args.out}: {reason}. Nothing "
                "was written.",
                file=sys.stderr,
            )
            return 1
    assert federation.state is not None
    print(
        f"Client {choice.client}, head {choice.head}, round {federation.state.round} "
        f"written to {args.out}:"
    )
    for file in sorted(made.iterdir()):
        if file.name in folder.FILES:
            print(f"  {file.name:31} {file.stat().st_size:>12,} bytes")
    if (made / folder.PROGRAM).exists():
        print(f"Ask it with: fedjax-mrl predict {shlex.quote(args.out)} FILE...")
    return 0


export = Command(
    "a client's personal model: jax.export, safetensors, PyTorch state_dict",
    _configure,
    _execute,
)
