"""Folders that are written as a whole or not at all, and replaced only if asked."""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fedjax_mrl import paths


class Kind(NamedTuple):
    """A kind of folder.

    Attributes:
        article, noun: what one holds, as "a" and "report".
        title: how messages call the option that names it.
        hidden: the word in the names of folders that are not finished.
        mark: the file that every one has.
        error: of what is refused, made from a sentence.
        own: a folder -> names below it, with "/", of the files that this kind wrote.
    """

    article: str
    noun: str
    title: str
    hidden: str
    mark: str
    error: Callable[[str], Exception]
    own: Callable[[pathlib.Path], frozenset[str]]


def check(
    kind: Kind, given: str | os.PathLike[str], *, overwrite: bool
) -> pathlib.Path:
    """The folder that can be written to; touches nothing.

    Raises:
        PathError: if it names nothing of this machine. `kind.error`: if there is
            something that is not to be replaced.
    """
    path = paths.local(given, kind.title, paths.RESERVED)
    try:
        path = path.resolve()
        inside = sorted(os.listdir(path))
    except FileNotFoundError:
        inside = []
    except NotADirectoryError:
        raise kind.error(
            f"{path} is a file, or lies below one; choose another folder."
        ) from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise kind.error(f"Cannot look into {path}: {reason}.") from None
    if kind.mark in inside and not overwrite:
        raise kind.error(
            f"{path} holds {kind.article} {kind.noun} already. Choose another folder, "
            "or give --overwrite (overwrite=True) to replace it."
        )
    if inside and kind.mark not in inside:
        raise kind.error(
            f"{path} holds other files ({', '.join(inside[:3])}) and no {kind.noun}. "
            "Choose a folder that is new or empty."
        )
    return path


def write(
    kind: Kind,
    path: pathlib.Path,
    files: Mapping[str, bytes],
    *,
    overwrite: bool = False,
) -> None:
    """Writes a folder, or leaves everything as it was.

    The files are written beside the folder, which then takes its name. Of a folder that
    is there its own files go; others stay, and who may read it.

    Args:
        kind: of folder.
        path: as `check` returned it.
        files: name to content; a name may lie in a folder, as figures/a.png.
        overwrite: replace what is there, as `check` was told.

    Raises:
        OSError: if they cannot be written. `kind.error`: if somebody's own file is in
            the way of a new one, or another process has written there since `check`.
    """
    missing = [each for each in path.parents if not each.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(kind, path, files, overwrite)
    except BaseException:
        for each in missing:  # which are empty, the innermost first
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


def _write(
    kind: Kind, path: pathlib.Path, files: Mapping[str, bytes], overwrite: bool
) -> None:
    """Does what `write` does, below a folder that exists."""
    made = path.parent / f".{kind.hidden}-{secrets.token_hex(8)}"
    made.mkdir()
    try:
        if path.is_dir():
            shutil.copymode(path, made)
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            with (made / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _take_place(kind, made, path, overwrite)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _take_place(
    kind: Kind, made: pathlib.Path, path: pathlib.Path, overwrite: bool
) -> None:
    """Gives a new folder the name of an old one, whose other files it takes over.

    For a moment the old one is called otherwise. If the process is killed then, the
    next one that writes to that folder finds it.
    """
    old = path.parent / f".{kind.hidden}-old-{path.name}"
    if old.exists():  # of a process that was killed
        _take_over(kind, old, path) if path.exists() else os.rename(old, path)
    check(kind, path, overwrite=overwrite)  # what others wrote there meanwhile
    if not overwrite or not path.exists() or not os.listdir(path):
        os.rename(made, path)  # also in place of an empty folder, but of no other
        return
    for name in _others(kind, path):
        if os.path.lexists(made / name):
            raise kind.error(
                f"{path / name} is no file of the {kind.noun} that is there and is in "
                "the way of the new one. Move it, or choose another folder."
            )
    os.rename(path, old)
    try:
        os.rename(made, path)
    except OSError:
        os.rename(old, path)
        raise
    _take_over(kind, old, path)


def _take_over(kind: Kind, old: pathlib.Path, path: pathlib.Path) -> None:
    """Moves what this kind did not write from the old folder to the new one."""
    for name in _others(kind, old):
        if not os.path.lexists(path / name):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(old / name, path / name)
    shutil.rmtree(old, ignore_errors=True)


def _others(kind: Kind, path: pathlib.Path) -> list[pathlib.Path]:
    """The files below a folder that its kind did not write, and links to folders."""
    own = kind.own(path)
    found = []
    for folder, folders, names in os.walk(path):
        here = pathlib.Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        found += [(here / name).relative_to(path) for name in (*names, *links)]
    return sorted(name for name in found if name.as_posix() not in own)
