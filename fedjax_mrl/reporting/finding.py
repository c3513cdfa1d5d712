"""Looks for run directories in the folders that a user names."""

import os
import pathlib
from collections.abc import Iterable, Iterator

from fedjax_mrl import paths
from fedjax_mrl.reporting.error import ReportError

_DEPTH = 4  # folders below the one that is named


def find(given: Iterable[str | os.PathLike]) -> list[pathlib.Path]:
    """The run directories that are, or lie in, some folders; each once, in order.

    Args:
        given: run directories, comparisons, and folders that hold such.

    Raises:
        ReportError: if one of them is no folder or holds no run.
        PathError: for what is no path of this machine.
    """
    found: dict[pathlib.Path, pathlib.Path] = {}
    for each in given:
        folder = paths.local(each, "A run directory")
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise ReportError(
                f"{folder} {what}. Give the --out folder of an earlier `fedjax-mrl "
                "run` or `fedjax-mrl compare`, or a folder that holds such."
            )
        try:
            below = list(_below(folder, _DEPTH))
        except OSError as error:
            raise ReportError(f"Cannot look into {folder}: {error.strerror}.") from None
        if not below:
            raise ReportError(
                f"{folder} holds no run (no config.json in it or in its folders). "
                "Give the --out folder of an earlier `fedjax-mrl run` or `fedjax-mrl "
                "compare`."
            )
        for path in below:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _below(folder: pathlib.Path, depth: int) -> Iterator[pathlib.Path]:
    """The folder if it is a run, else those in it that are; by name."""
    if (folder / "config.json").is_file():
        yield folder
    elif depth:
        for path in sorted(path for path in folder.iterdir() if path.is_dir()):
            yield from _below(path, depth - 1)
