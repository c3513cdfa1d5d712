"""What `fedjax-mrl reproduce` refuses of its folder, before the first cell."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fedjax_mrl import paths
from fedjax_mrl.cli.command import UsageError

if TYPE_CHECKING:
    from fedjax_mrl.reproducing.parts import Finder, Part
    from fedjax_mrl.runs.comparison import Run

_NOTHING = "Nothing was run or written."


def read(given: str | None, preset: str) -> pathlib.Path:
    """The folder of a table, as --out says; need not exist.

    Raises:
        PathError: for what can be no folder.
    """
    whole = f"runs/reproduce/{preset}" if given is None else given
    return paths.local(whole, "--out", paths.RESERVED)


def require(out: pathlib.Path, parts: "Sequence[Part]", find: "Finder") -> None:
    """Looks whether a table and its runs can lie in a folder; touches nothing.

    Args:
        out: the folder.
        parts: all settings of the table.
        find: says how far a run has come.

    Raises:
        UsageError: for a file, a folder that cannot be written, or one that holds
            something else, or runs of another configuration.
        RunDirectoryError: for a run in the place of a setting.
    """
    scales = dict.fromkeys(part.folder.parent for part in parts)
    for folder in (out, *scales):
        _require_free(folder)
    for part in parts:
        _require_writable(part.folder)
        require_runs(part, find)


def _require_free(folder: pathlib.Path) -> None:
    """Refuses a folder that holds what is none of a table's."""
    from fedjax_mrl.reporting import folder as reports

    marks = {
        "config.json": "a run",
        "comparison.csv": "a comparison",
        reports.MARK: "a report",
    }
    for mark, kind in marks.items():
        if (folder / mark).exists():
            raise UsageError(
                f"{folder} holds {kind} ({mark}), not the table of a preset. "
                f"{_NOTHING} Give another --out."
            )


def _require_writable(folder: pathlib.Path) -> None:
    """Refuses a folder that cannot be made, or cannot be written to."""
    for each in (folder, *folder.parents):
        if os.path.lexists(each):
            break
    if not each.is_dir():
        reason = "is a file, not a folder"
    elif not os.access(each, os.W_OK | os.X_OK):
        reason = "cannot be written to"
    else:
        return
    raise UsageError(f"{each} {reason}. {_NOTHING} Give another --out.")


def require_runs(part: "Part", find: "Finder", data_sha256: str | None = None) -> None:
    """Looks whether the runs that a setting still lacks can lie in its folder.

    Args:
        part: the setting.
        find: says how far a run has come.
        data_sha256: checksum of its data; None to look at configurations alone.

    Raises:
        UsageError: if runs of another configuration are there.
    """
    from fedjax_mrl.runs import comparison_folder
    from fedjax_mrl.runs.error import InTheWay

    runs = [run for run in part.runs if find(run).path is None]
    if not runs:
        return
    try:
        comparison_folder.find(
            part.folder,
            part.base,
            runs,
            swept=part.swept,
            overwrite=False,
            data_sha256=data_sha256,
        )
    except InTheWay as error:
        (path, problem), *others = error.problems.items()
        more = f" (and {len(others)} more)" if others else ""
        problem = _rounds(path, runs) or problem
        pairs = " (there -> now)" if " -> " in problem else ""
        raise UsageError(
            f"{path}{more} holds other results than {part.name} of this preset{pairs}: "
            f"{problem}. {_NOTHING} Give another --out, or move {part.folder} away."
        ) from None


def _rounds(path: pathlib.Path, runs: "Iterable[Run]") -> str:
    """How many rounds more a run has that is in the way for these alone, or ""."""
    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.runs import course

    for run in runs:
        try:
            old = RunConfig.from_json((path / "config.json").read_text("utf-8"))
        except (OSError, ValueError):
            return ""
        longer = old.rounds > run.config.rounds
        if run.path == path and longer and course.same(old, run.config):
            return f"rounds: {old.rounds} -> {run.config.rounds}"
    return ""
