"""Entry point: finds the commands, parses, and turns errors into exit statuses."""

import argparse
import sys
from collections.abc import Sequence

from fedjax_mrl import discovery
from fedjax_mrl.cli import completion, defects, options, signals, streams
from fedjax_mrl.cli.command import Command, Parser, UsageError


def commands() -> dict[str, Command]:
    """All commands by name."""
    return discovery.find("fedjax_mrl.cli")


def parser() -> Parser:
    """The parser of the command line, with every command below it."""
    made = Parser(
        prog="fedjax-mrl",
        description="Federated learning where every client has its own model.",
    )
    made.add_argument("--version", action="store_true", help="print the version")
    completion.add(made)
    choices = made.add_subparsers(dest="command", metavar="command")
    for name, command in commands().items():
        below = choices.add_parser(name, help=command.help, description=command.help)
        command.configure(below)
        made.commands[name] = below
    return made


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads a command line; `command` is None where no command is named.

    Raises:
        UsageError: for an unknown command or option, with the nearest valid one.
    """
    reader = parser()
    args, unknown = reader.parse_known_args(argv)
    if args.command is not None:
        reader.commands[args.command].refuse_unknown(unknown)
    elif not (args.version or args.print_completion):
        reader.print_help()
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0 done; 1 something outside failed, or a defect; 2 wrong use or configuration; 3 a
    run that diverged; 128 and its number after a signal.

    Args:
        argv: words; None takes those of the process, whose streams are then its own.
    """
    if argv is not None:
        return _run(argv)
    try:
        streams.own()
        signals.own()
        return streams.status(_run(sys.argv[1:]))
    except SystemExit as end:  # --help
        sys.exit(streams.status(int(end.code or 0)))


def _run(argv: Sequence[str]) -> int:
    try:
        args = parse(argv)
        if args.version:
            from fedjax_mrl import __version__

            print(f"fedjax-mrl {__version__}")
            return 0
        if args.command is None and args.print_completion:
            print(completion.script(parser(), args.print_completion))
            return 0
        if args.command is None:
            return 2
        options.heed_programs(args)
        return commands()[args.command].execute(args)
    except UsageError as error:
        return fail(error, 2)
    except defects.Defect as defect:
        defects.show(defect)
        return fail(defect, 1)
    except MemoryError as error:
        reason = str(error).rstrip(".") or "it is used up"
        return fail(
            f"The memory is not enough: {reason}. `fedjax-mrl plan` says how much a "
            "run takes, and of what.",
            1,
        )
    except KeyboardInterrupt:
        return fail("Interrupted.", 130)
    except BrokenPipeError:  # the reader of another program's stream went away
        return 0


def fail(reason: object, status: int) -> int:
    """Prints one message to stderr and returns the exit status."""
    print(f"fedjax-mrl: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
