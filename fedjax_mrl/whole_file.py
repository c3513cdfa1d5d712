"""Files that are written as a whole or not at all, whatever happens meanwhile."""

import contextlib
import errno
import os
import pathlib
import secrets

# What file systems answer that cannot flush a folder; those that can say EIO.
_UNABLE = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


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
