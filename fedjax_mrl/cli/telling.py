"""How a command tells of its rounds: printed, drawn, or given to writers."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fedjax_mrl import references
from fedjax_mrl.cli.command import UsageError

if TYPE_CHECKING:
    from fedjax_mrl.runs.writers import Writer, Writers


class Telling(NamedTuple):
    """Where a command's rounds are told of.

    Attributes:
        quiet: whether nothing is printed but what went wrong.
        verbose: whether every group and client is told of on stderr.
        make: returns new writers, for one run.
        again: the command that goes on after a stop; by default `resume` of the run.
    """

    quiet: bool
    verbose: bool = False
    make: "Callable[[], Writers | None]" = lambda: None
    again: str | None = None


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --verbose and --writer."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="tell of every round, group and client on stderr, with times",
    )
    parser.add_argument(
        "--writer",
        metavar="FILE.py:NAME",
        action="append",
        default=[],
        help="a class, or function without arguments, that makes a writer, see "
        "docs/logging.md; repeatable",
    )


def read(args: argparse.Namespace) -> Telling:
    """Reads --quiet, --verbose and --writer; the first run's writers are made.

    Raises:
        ValueError: for a reference that leads to nothing that makes a writer.
    """
    functions = []
    for text in args.writer:
        if not references.is_reference(text):
            raise UsageError(
                "--writer takes FILE.py:NAME or package.module:NAME, as in "
                f"mine.py:WandbWriter; got {text!r}."
            )
        found = references.load(text)
        if not callable(found):
            raise UsageError(
                f"--writer {text} must name a class, or a function without arguments, "
                f"that makes a writer for each run; got {found!r}."
            )
        functions.append(found)
    ready = [_make(functions)]  # those of the first run: a mistake is answered now
    make = lambda: ready.pop() if ready else _make(functions)
    return Telling(args.quiet, args.verbose, make)


def _make(functions: "Sequence[Callable[[], Writer]]") -> "Writers":
    """New writers.

    Raises:
        UsageError: if one cannot be made.
    """
    from fedjax_mrl.runs.writers import Writers

    made = []
    for function in functions:
        try:
            made.append(function())
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            name = getattr(function, "__name__", function)
            raise UsageError(
                f"--writer: {name}() failed: {type(error).__name__}: {reason}"
            ) from error
    return Writers(made, lambda text: print(f"fedjax-mrl: {text}", file=sys.stderr))
