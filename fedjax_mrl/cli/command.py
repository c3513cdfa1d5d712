"""The type of a command, and a parser that answers mistakes in one line."""

import argparse
import difflib
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from fedjax_mrl import paths

# Metavars of options and arguments whose values are paths.
PATHS = ("DIR", "FILE", "PATH", "RUN", "MODEL", "IMAGE")


class UsageError(ValueError):
    """Wrong use of the command line."""


class Command(NamedTuple):
    """One subcommand: its help text, its arguments, and the function that runs it."""

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises instead of exiting and names the nearest word.

    Values of options whose metavar is one of `PATHS` are paths of this machine, with
    a leading `~` replaced; others are refused.

    Attributes:
        commands: the parsers of its subcommands by name.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.commands: dict[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[0].upper()}{message[1:]}. See {self.prog} --help.")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        choices = list(action.choices or [])
        if choices and value not in choices:
            near = difflib.get_close_matches(str(value), map(str, choices), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"There is no {action.metavar or action.dest} {value!r}.{hint} Valid: "
                f"{', '.join(map(str, choices))}."
            )

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if action.metavar not in PATHS:
            return super()._get_value(action, arg_string)
        name = action.option_strings[0] if action.option_strings else action.metavar
        try:
            below = paths.RESERVED if action.metavar == "DIR" else 0
            return str(paths.local(arg_string, name, below))
        except paths.PathError as error:
            raise UsageError(str(error)) from None

    def refuse_unknown(self, words: list[str]) -> None:
        """Raises a `UsageError` if there are words that no option takes."""
        if not words:
            return
        word = words[0].partition("=")[0]
        if not word.startswith("-"):
            raise UsageError(f"Unexpected {word!r}. See {self.prog} --help.")
        valid = [option for option in self._option_string_actions if len(option) > 2]
        near = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"There is no option {word}.{hint} See {self.prog} --help.")
