"""The folder of a report: written as a whole or not at all."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

from fedjax_mrl import whole_folder
from fedjax_mrl.reporting.error import ReportError

MARK = "report.json"  # which files of the folder are the report's, with checksums
PAGE = "report.html"
_FORMAT = "fedjax_mrl report"


def _own(path: pathlib.Path) -> frozenset[str]:
    """The files of a report, as it says itself."""
    try:
        listed = json.loads((path / MARK).read_text(encoding="utf-8"))["files"]
        return frozenset({MARK, *listed})
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset({MARK})


_REPORT = whole_folder.Kind(
    "a", "report", "The folder of a report", "report", MARK, ReportError, _own
)


def check(given: str | os.PathLike, *, overwrite: bool) -> pathlib.Path:
    """The folder that a report can be written to; touches nothing.

    Raises:
        ReportError: if there is something that is not to be replaced.
        PathError: if it names nothing of this machine.
    """
    return whole_folder.check(_REPORT, given, overwrite=overwrite)


def write(
    path: pathlib.Path, files: Mapping[str, bytes], *, overwrite: bool = False
) -> None:
    """Writes a report, or leaves everything as it was.

    Args:
        path: as `check` returned it.
        files: name to content; a name may lie in a folder, as figures/a.png.
        overwrite: replace the report that is there.

    Raises:
        ReportError: if a file in the folder that is not the report's is in the way; as
            `check`, for what has come there since.
        OSError: if they cannot be written.
    """
    sums = {name: hashlib.sha256(each).hexdigest() for name, each in files.items()}
    mark = json.dumps({"format": _FORMAT, "files": sums}, indent=2) + "\n"
    files = {**files, MARK: mark.encode()}
    whole_folder.write(_REPORT, path, files, overwrite=overwrite)
