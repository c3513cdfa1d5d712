"""The flags of a run, made from the fields of `RunConfig`."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from fedjax_mrl import config
from fedjax_mrl.cli import defects
from fedjax_mrl.cli.command import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --preset, --config and one flag for every field of `RunConfig`."""
    group = parser.add_argument_group("configuration (default < preset < file < flag)")
    group.add_argument("--preset", metavar="NAME", help="named configuration")
    group.add_argument("--config", metavar="FILE", help="YAML file of these options")
    for name, field in config.fields().items():
        flag = "--" + name.replace("_", "-")
        default = field.default
        if name == "set":
            group.add_argument(
                flag,
                action="append",
                default=None,
                metavar="algorithm.NAME=VALUE",
                help=field.metadata["help"],
            )
            continue
        shown = ",".join(default) if isinstance(default, tuple) else default
        suffix = "" if shown in (None, "") else f" (default {shown})"
        group.add_argument(
            flag,
            default=None,
            metavar=field.metadata.get("metavar", "VALUE"),
            help=(field.metadata["help"] + suffix).replace("%", "%%"),
        )


def add_programs(parser: argparse.ArgumentParser) -> None:
    """Adds --no-compilation-cache."""
    parser.add_argument(
        "--no-compilation-cache",
        action="store_true",
        help="neither load compiled programs of earlier commands nor keep new ones",
    )


def heed_programs(args: argparse.Namespace) -> None:
    """Tells JAX of --no-compilation-cache, before it is imported or after."""
    if not getattr(args, "no_compilation_cache", False):
        return
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if "jax" in sys.modules:
        import jax

        jax.config.update("jax_enable_compilation_cache", False)


def layers(args: argparse.Namespace) -> list[Mapping[str, Any]]:
    """The layers of options that were given, weakest first."""
    given: list[Mapping[str, Any]] = []
    if args.preset is not None:
        given.append(config.read_preset(args.preset))
    if args.config is not None:
        given.append(config.read_yaml(args.config))
    flags = {
        name: getattr(args, name)
        for name in config.fields()
        if name != "set" and getattr(args, name) is not None
    }
    if args.set:
        flags["set"] = dict(config.parse_setting(text) for text in args.set)
    return [*given, flags]


def resolve(args: argparse.Namespace) -> config.RunConfig:
    """The configuration that the flags, the file and the preset make."""
    source = args.config or "the configuration"
    return config.build(*layers(args), source=source)


@contextlib.contextmanager
def mistakes_are_usage_errors() -> Iterator[None]:
    """Turns a ValueError of the build phase into one message and exit status 2.

    Only what checks the user's input runs inside. A ValueError that is no answer to it
    (`defects.foreseen`) is a defect, with exit status 1; other errors of ours stay.
    """
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        if not defects.foreseen(error):
            raise defects.Defect(error) from error
        raise UsageError(str(error)) from error
