"""The folder of an exported model: written as a whole or not at all, and checked.

`model.json` names the other files with their checksums, so that damage is noticed.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

from fedjax_mrl import paths
from fedjax_mrl.exporting.error import ExportError

DESCRIPTION = "model.json"
PROGRAM = "model.jax"
ARRAYS = "model.safetensors"
TORCH = "torch_state_dict.safetensors"
FILES = (DESCRIPTION, PROGRAM, ARRAYS, TORCH)
_FORMAT = "fedjax_mrl model"
_VERSION = 1


def check(given: str | os.PathLike, *, overwrite: bool) -> pathlib.Path:
    """The folder that a model can be written to; touches nothing.

    Raises:
        ExportError: if there is something that is not to be replaced.
        PathError: if it names nothing of this machine.
    """
    path = paths.local(given, "The folder of a model", paths.RESERVED)
    try:
        path = path.resolve()
        there = path.exists()
        inside = sorted(os.listdir(path)) if there else []
    except NotADirectoryError:
        raise ExportError(
            f"{path} is a file, or lies below one; choose another folder."
        ) from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"Cannot look into {path}: {reason}.") from None
    if DESCRIPTION in inside and not overwrite:
        raise ExportError(
            f"{path} holds an exported model already. Choose another folder, or give "
            "--overwrite (overwrite=True) to replace it."
        )
    if inside and DESCRIPTION not in inside:
        raise ExportError(
            f"{path} holds other files ({', '.join(inside[:3])}) and no exported "
            "model. Choose a folder that is new or empty."
        )
    return path


def write(
    path: pathlib.Path, description: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
    """Writes a model, or leaves everything as it was.

    The files are written beside the folder, which then takes its name. Of a model that
    is there those files are replaced that an export writes.

    Args:
        path: as `check` returned it.
        description: JSON values.
        files: name to content.

    Raises:
        OSError: if they cannot be written.
    """
    missing = [each for each in path.parents if not each.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, description, files)
    except BaseException:
        for each in missing:  # which are empty, the innermost first
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


def _write(
    path: pathlib.Path, description: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
    """Does what `write` does, below a folder that exists."""
    made = _new_folder(path.parent)
    try:
        listed = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        }
        whole = {"format": _FORMAT, "format_version": _VERSION}
        whole |= {**description, "files": listed}
        text = json.dumps(whole, indent=2, allow_nan=False) + "\n"
        for name, content in {**files, DESCRIPTION: text.encode()}.items():
            with (made / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _take_place(made, path)
    finally:
        shutil.rmtree(made, ignore_errors=True)  # what is left: nothing, or the old


def _take_place(made: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a new folder the name of an old one, whose other files it takes over.

    For a moment the old one is called otherwise. If the process is killed then, the
    next export to that folder finds it.
    """
    old = path.parent / f".export-old-{path.name}"
    if old.exists():  # of a process that was killed
        _take_over(old, path) if path.exists() else os.rename(old, path)
    if not path.exists() or not os.listdir(path):
        os.rename(made, path)  # also in place of an empty folder
        return
    os.rename(path, old)
    try:
        os.rename(made, path)
    except OSError:
        os.rename(old, path)
        raise
    _take_over(old, path)


def _take_over(old: pathlib.Path, path: pathlib.Path) -> None:
    """Moves what no export writes from a model's old folder to its new one."""
    for name in os.listdir(old):
        if name not in FILES and not (path / name).exists():
            os.rename(old / name, path / name)
    shutil.rmtree(old, ignore_errors=True)


def write_file(path: pathlib.Path, text: str) -> None:
    """Writes a file, or leaves everything as it was.

    Raises:
        OSError: if it cannot be written.
    """
    beside = path.parent / f".export-{secrets.token_hex(8)}"
    try:
        with beside.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _new_folder(parent: pathlib.Path) -> pathlib.Path:
    """An empty folder of a name that nobody else has."""
    path = parent / f".export-{secrets.token_hex(8)}"
    path.mkdir()
    return path


def read(given: str | os.PathLike) -> tuple[pathlib.Path, dict[str, Any]]:
    """The folder of a model, and its description.

    Raises:
        ExportError: if there is no model, or its description is damaged.
    """
    path = paths.local(given, "The folder of a model")
    file = path / DESCRIPTION
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(_no_model(path)) from None
    except OSError as error:
        raise ExportError(f"Cannot read {file}: {error.strerror}.") from None
    except ValueError:
        raise ExportError(
            f"{file} is damaged: it is no JSON. Export the model again."
        ) from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ExportError(f"{file} does not describe a model of fedjax_mrl.")
    if found.get("format_version") != _VERSION:
        raise ExportError(
            f"{file} has format_version {found.get('format_version')!r}, and this "
            f"version of fedjax_mrl reads {_VERSION}; export the model again."
        )
    return path, found


def content(path: pathlib.Path, description: Mapping[str, Any], name: str) -> bytes:
    """The bytes of one of a model's files.

    Raises:
        ExportError: if it was not exported, is missing or has changed since.
    """
    listed = description.get("files", {})
    if name not in listed:
        raise ExportError(
            f"{path} was exported without {name}; it has "
            f"{', '.join(listed) or 'no files'}. Export it again with that format."
        )
    try:
        found = (path / name).read_bytes()
    except OSError as error:
        raise ExportError(f"Cannot read {path / name}: {error.strerror}.") from None
    if hashlib.sha256(found).hexdigest() != listed[name].get("sha256"):
        raise ExportError(
            f"{path / name} is damaged or was changed (its checksum differs from that "
            f"of {DESCRIPTION}). Export the model again."
        )
    return found


def _no_model(path: pathlib.Path) -> str:
    if path.name in FILES:
        return f"{path} is a part of a model; give the folder {path.parent}."
    what = f"holds no {DESCRIPTION}" if path.is_dir() else "is no folder"
    inside: list[str] = []
    with contextlib.suppress(OSError):
        inside = sorted(each.parent.name for each in path.glob(f"*/{DESCRIPTION}"))
    hint = f" Is it {path / inside[0]}?" if inside else ""
    return (
        f"{path} is no exported model: it {what}. Give the folder that `fedjax-mrl "
        f"export` wrote.{hint}"
    )
