"""Files that are written as a whole or not at all, whatever happens meanwhile."""

import contextlib
import errno
import os
import pathlib
import secrets
from collections.abc import Callable

# What file systems answer that cannot flush a folder; those that can say EIO.
_UNABLE = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def check(
    path: pathlib.Path,
    option: str,
    error: Callable[[str], Exception],
    *,
    overwrite: bool,
) -> None:
    """Refuses a place where a file could not be written; touches nothing.

    Args:
        path: of the file.
        option: of the command line that names it, as "--out".
        error: of what is refused, made from a sentence.
        overwrite: whether a file that is there may be replaced.

    Raises:
        `error`: if something is there and is not to be replaced, or the folder is
            missing.
    """
    if path.is_dir():
        raise error(f"{path} is a folder; give a file, as {path}/x.csv.")
    if not path.parent.is_dir():
        raise error(
            f"The folder {path.parent} does not exist; make it, or give another "
            f"{option}."
        )
    if os.path.lexists(path) and not overwrite:
        raise error(
            f"{path} is there already. Give --overwrite to replace it, or another "
            f"{option}."
        )


def write(
    path: pathlib.Path, data: bytes, *, private: bool = False, alone: bool = True
) -> None:
    """Writes a file, or leaves what was there; on return it is on the disk.

    Args:
        path: of the file, in a folder that exists.
        data: all of it.
        private: whether its owner alone may read it.
        alone: whether no other process writes the file at the same time, as under a
            lock. What a killed process leaves behind is then overwritten by the next.

    Raises:
        OSError: if it cannot be written.
    """
    hidden = f".{path.name}.tmp" if alone else f".unfinished-{secrets.token_hex(8)}"
    temporary = path.with_name(hidden)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    descriptor = os.open(temporary, flags, 0o600 if private else 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _flush(path.parent)


def _flush(folder: pathlib.Path) -> None:
    """Brings the names in a folder to the disk, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
