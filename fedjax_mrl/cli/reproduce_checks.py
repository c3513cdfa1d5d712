"""What `fedjax-mrl reproduce` refuses before the first cell, and its own words."""

import argparse
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedjax_mrl import paths, references
from fedjax_mrl.cli.command import UsageError

if TYPE_CHECKING:
    from fedjax_mrl.reproducing.parts import Part


def require_data_named(file: str, parts: "Iterable[Part]") -> None:
    """Looks whether the data that settings name can be there; loads nothing.

    Args:
        file: how messages call the preset's file.
        parts: the settings.

    Raises:
        UsageError: for an unknown data set, or a folder that does not exist.
    """
    from fedjax_mrl import datasets, discovery

    known = datasets.names()
    for part in parts:
        config = part.base
        own = references.is_data_path(config.dataset)
        if not own and config.dataset not in known:
            unknown = discovery.unknown("dataset", config.dataset, known)
            raise UsageError(f"{file}: dataset of {part.name}: {unknown}")
        where = config.dataset if own else config.data_dir
        if where is not None and not paths.local(where, "The data").exists():
            raise UsageError(
                f"{file}: the data of {part.name} are to be read from {where}, but "
                "there is no such file or folder. Give the one that holds them, as "
                "--data-dir DIR."
            )


def words(args: argparse.Namespace) -> str:
    """The command with every option that was given, as a shell takes it.

    The scale is always said: it is what a table is of.
    """
    found = ["fedjax-mrl", "reproduce", args.reproduction, "--scale", args.scale]
    for name in ("out", "data_dir", "devices", "only", "limit", "writer"):
        given = getattr(args, name)
        values = given if isinstance(given, list) else [given] * (given is not None)
        for value in values:
            found += ["--" + name.replace("_", "-"), str(value)]
    for name in ("quiet", "verbose", "no_compilation_cache"):
        if getattr(args, name):
            found.append("--" + name.replace("_", "-"))
    return shlex.join(found)
