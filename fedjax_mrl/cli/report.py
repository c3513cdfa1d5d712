"""`fedjax-mrl report`: tables, figures and one page to read, from finished runs."""

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from fedjax_mrl.cli import options
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fedjax_mrl.reporting.writing import Options

__all__ = ["report"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="directories of earlier runs, comparisons, and folders of these",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="report",
        help="folder for the report, a new one (report); it appears complete or not "
        "at all",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies now")
    parser.add_argument(
        "--client",
        metavar="K",
        help="whose representations are drawn, from 0 (the first with test examples)",
    )
    parser.add_argument(
        "--targets",
        metavar="0.5,0.6,...",
        help="accuracies until which costs are listed (some that were reached)",
    )
    parser.add_argument(
        "--no-checkpoints",
        action="store_true",
        help="load no trained networks: without accuracy at every width and "
        "representations, and quicker",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the report that is in --out"
    )
    options.add_programs(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        asked = _options(args)
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from fedjax_mrl.reporting import folder, writing

        folder.check(args.out, overwrite=args.overwrite)  # before runs are read
        try:
            made = writing.report(
                args.runs, args.out, overwrite=args.overwrite, **asked
            )
        except OSError as error:
            reason = error.strerror or error
            print(
                f"fedjax-mrl: Cannot write the report to {args.out}: {reason}. Nothing "
                "was written.",
                file=sys.stderr,
            )
            return 1
    for path, why in made.left_out.items():
        print(f"fedjax-mrl: {path} is left out: {why}.", file=sys.stderr)
    for path, why in made.damaged.items():
        print(f"fedjax-mrl: {path} is damaged: {why}.", file=sys.stderr)
    figures = sum(name.endswith(".png") for name in made.files)
    tables = sum(name.endswith(".csv") for name in made.files)
    print(f"Written to {args.out}: report.html, {figures} figures, {tables} tables")
    return 0


def _options(args: argparse.Namespace) -> "Options":
    """What the words of the command ask for.

    Raises:
        UsageError: for a number that is none.
    """
    words = [word for word in (args.targets or "").split(",") if word.strip()]
    try:
        targets = tuple(float(word) for word in words)
    except ValueError:
        raise UsageError(
            f"--targets takes accuracies, as in 0.5,0.6; got {args.targets!r}."
        ) from None
    try:
        client = None if args.client is None else int(args.client)
    except ValueError:
        raise UsageError(
            f"--client takes a client's number, as 0; got {args.client!r}."
        ) from None
    return {
        "data_dir": args.data_dir,
        "client": client,
        "targets": targets,
        "use_checkpoints": not args.no_checkpoints,
    }


report = Command(
    "tables, figures and one page to read, from earlier runs", _configure, _execute
)
