"""The folder of an exported model: written as a whole or not at all, and checked.

`model.json` names the other files with their checksums, so that damage is noticed.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from fedjax_mrl import paths, whole_folder
from fedjax_mrl.exporting.error import ExportError

DESCRIPTION = "model.json"
PROGRAM = "model.jax"
ARRAYS = "model.safetensors"
TORCH = "torch_state_dict.safetensors"
FILES = (DESCRIPTION, PROGRAM, ARRAYS, TORCH)
_FORMAT = "fedjax_mrl model"
_VERSION = 1


_MODEL = whole_folder.Kind(
    "an",
    "exported model",
    "The folder of a model",
    "export",
    DESCRIPTION,
    ExportError,
    lambda path: frozenset(FILES),
)


def check(given: str | os.PathLike, *, overwrite: bool) -> pathlib.Path:
    """The folder that a model can be written to; touches nothing.

    Raises:
        ExportError: if there is something that is not to be replaced.
        PathError: if it names nothing of this machine.
    """
    return whole_folder.check(_MODEL, given, overwrite=overwrite)


def write(
    path: pathlib.Path,
    description: Mapping[str, Any],
    files: Mapping[str, bytes],
    *,
    overwrite: bool = False,
) -> None:
    """Writes a model, or leaves everything as it was.

    Args:
        path: as `check` returned it.
        description: JSON values.
        files: name to content.
        overwrite: replace the model that is there.

    Raises:
        ExportError: as `check`, for what has come there since.
        OSError: if they cannot be written.
    """
    listed = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
    whole = {"format": _FORMAT, "format_version": _VERSION}
    whole |= {**description, "files": listed}
    text = json.dumps(whole, indent=2, allow_nan=False) + "\n"
    files = {**files, DESCRIPTION: text.encode()}
    whole_folder.write(_MODEL, path, files, overwrite=overwrite)


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
    except (ValueError, RecursionError):
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
    files = found.get("files", {})
    named = isinstance(files, dict)
    if not named or not all(isinstance(each, dict) for each in files.values()):
        raise ExportError(
            f"{file} is damaged: its files must be names with a checksum each. Export "
            "the model again."
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
    if path.is_file():
        what += "; the model comes first, then what it is asked"
    inside: list[str] = []
    with contextlib.suppress(OSError):
        inside = sorted(each.parent.name for each in path.glob(f"*/{DESCRIPTION}"))
    hint = f" Is it {path / inside[0]}?" if inside else ""
    return (
        f"{path} is no exported model: it {what}. Give the folder that `fedjax-mrl "
        f"export` wrote.{hint}"
    )
