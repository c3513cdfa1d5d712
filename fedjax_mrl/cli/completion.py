"""`fedjax-mrl --print-completion SHELL`: a script that completes commands.

The package shtab writes it from the parser. Here the parser is only asked what it has,
so options whose values are names get these as choices.
"""

import argparse
from collections.abc import Sequence

from fedjax_mrl import missing
from fedjax_mrl.cli.command import PATHS, Parser, UsageError

SHELLS = ("bash", "zsh", "tcsh")


def script(parser: Parser, shell: str) -> str:
    """The script for a shell.

    Args:
        parser: of the whole command line; it is changed and must not read any words.
        shell: one of `SHELLS`.

    Raises:
        UsageError: without shtab.
    """
    try:
        import shtab
    except ImportError:
        raise UsageError(missing.sentence("--print-completion", "shtab")) from None
    names = _names()
    for command in parser.commands.values():
        for action in command._actions:
            if action.dest in names:
                action.choices = names[action.dest]
            elif action.metavar in PATHS:
                folder = action.metavar in ("DIR", "RUN")
                kind = shtab.DIRECTORY if folder else shtab.FILE
                action.complete = kind  # pyrefly: ignore[missing-attribute]
    return shtab.complete(parser, shell=shell)


def _names() -> dict[str, Sequence[str]]:
    """The values of options that are names; of lists, those of an entry."""
    from fedjax_mrl import algorithms, config, datasets, models, partitions
    from fedjax_mrl.reproducing import preset

    networks = models.names()
    return {
        "algorithm": algorithms.names(),
        "algorithms": algorithms.names(),
        "dataset": datasets.names(),
        "models": networks,
        "shared_model": networks,
        "partition": partitions.names(),
        "preset": list(config.presets()),
        "reproduction": preset.names(),
    }


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the option to the command line's own parser."""
    parser.add_argument(
        "--print-completion",
        metavar="SHELL",
        choices=SHELLS,
        help=f"print a script that completes commands: {', '.join(SHELLS)}",
    )
