"""The folder of a report: written as a whole or not at all."""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping

from fedjax_mrl import paths
from fedjax_mrl.reporting.error import ReportError

MARK = "report.json"  # which files of the folder are the report's, with checksums
PAGE = "report.html"
_FORMAT = "fedjax_mrl report"


def check(given: str | os.PathLike, *, overwrite: bool) -> pathlib.Path:
    """The folder that a report can be written to; touches nothing.

    Raises:
        ReportError: if there is something that is not to be replaced.
        PathError: if it names nothing of this machine.
    """
    path = paths.local(given, "The folder of a report", paths.RESERVED)
    try:
        path = path.resolve()
        inside = sorted(os.listdir(path)) if path.exists() else []
    except NotADirectoryError:
        raise ReportError(
            f"{path} is a file, or lies below one; choose another folder."
        ) from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReportError(f"Cannot look into {path}: {reason}.") from None
    if MARK in inside and not overwrite:
        raise ReportError(
            f"{path} holds a report already. Choose another folder, or give "
            "--overwrite (overwrite=True) to replace it."
        )
    if inside and MARK not in inside:
        raise ReportError(
            f"{path} holds other files ({', '.join(inside[:3])}) and no report. Choose "
            "a folder that is new or empty."
        )
    return path


def write(path: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Writes a report, or leaves everything as it was.

    The files are written beside the folder, which then takes its name. Of a report
    that is there its own files go; others in the folder stay.

    Args:
        path: as `check` returned it.
        files: name to content; a name may lie in a folder, as figures/a.png.

    Raises:
        ReportError: if a file in the folder that is not the report's is in the way.
        OSError: if they cannot be written.
    """
    missing = [each for each in path.parents if not each.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, files)
    except BaseException:
        for each in missing:  # which are empty, the innermost first
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


def _write(path: pathlib.Path, files: Mapping[str, bytes]) -> None:
    made = _new_folder(path.parent)
    try:
        sums = {
            name: hashlib.sha256(content).hexdigest() for name, content in files.items()
        }
        mark = json.dumps({"format": _FORMAT, "files": sums}, indent=2) + "\n"
        for name, content in {**files, MARK: mark.encode()}.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            with (made / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _take_place(made, path)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _take_place(made: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a new folder the name of an old one, whose other files it takes over."""
    if not path.exists() or not os.listdir(path):
        os.rename(made, path)  # also in place of an empty folder
        return
    others = _others(path)
    for name in others:
        if os.path.lexists(made / name):
            raise ReportError(
                f"{path / name} is no file of the report that is there and is in the "
                "way of the new one. Move it, or choose another folder."
            )
    old = _new_folder(path.parent)
    os.rename(path, old)
    try:
        os.rename(made, path)
    except OSError:
        os.rename(old, path)
        raise
    for name in others:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(old / name, path / name)
    shutil.rmtree(old, ignore_errors=True)


def _others(path: pathlib.Path) -> list[pathlib.Path]:
    """The files in the folder of a report that it did not write, below the folder."""
    try:
        own = {MARK, *json.loads((path / MARK).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        own = {MARK}
    found = []
    for folder, folders, names in os.walk(path):
        here = pathlib.Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        found += [(here / name).relative_to(path) for name in (*names, *links)]
    return sorted(name for name in found if name.as_posix() not in own)


def _new_folder(parent: pathlib.Path) -> pathlib.Path:
    """An empty folder of a name that nobody else has."""
    path = parent / f".report-{secrets.token_hex(8)}"
    path.mkdir()
    return path
