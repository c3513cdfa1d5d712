"""A lock that keeps two processes from writing into one run directory."""

import errno
import fcntl
import os
import pathlib
import weakref

from fedjax_mrl.runs.error import BusyError, RunDirectoryError

_NAME = ".lock"
# The answers of a file system without locks; EBADF is that of some over networks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)


class Lock:
    """The lock of a folder; not held when it is made.

    It ends with this object, and so with this process, however that ends.

    Args:
        folder: which exists when the lock is taken.

    Attributes:
        unprotected: why other processes cannot be kept out; None if they are.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._close: weakref.finalize | None = None
        self.unprotected: str | None = None

    def acquire(self, *, wait: bool = False) -> None:
        """Keeps other processes out.

        On a file system without locks it does not, and `unprotected` says so.

        Args:
            wait: whether to wait for another process that has the lock.

        Raises:
            RunDirectoryError: if another process has the lock, or there can be none.
        """
        try:
            descriptor = os.open(self._folder / _NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunDirectoryError(
                f"Cannot write the run directory {str(self._folder)!r}: "
                f"{error.strerror}."
            ) from None
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            self.release()
            raise BusyError(
                f"Another process is writing {self._folder}. Wait for it, stop it, or "
                "choose another --out."
            ) from None
        except OSError as error:
            self.release()
            if error.errno not in _NO_LOCKS:
                raise RunDirectoryError(
                    f"Cannot lock the run directory {str(self._folder)!r}: "
                    f"{error.strerror}."
                ) from None
            self.unprotected = (
                f"The file system of {self._folder} has no locks ({error.strerror}): "
                "nothing keeps a second process from writing there, so start none."
            )

    def release(self) -> None:
        """Lets other processes write; does nothing if the lock is not held."""
        if self._close is not None:
            self._close()
            self._close = None
