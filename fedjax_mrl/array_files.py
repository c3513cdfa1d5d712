"""Files of arrays as NumPy writes them, npz and npy: one error for all damage."""

import contextlib
from collections.abc import Iterator


class DamagedError(ValueError):
    """What is read is no file of arrays, or a damaged one; says what was met."""


@contextlib.contextmanager
def reading(*passing: type[Exception]) -> Iterator[None]:
    """Turns whatever damage to a file of arrays raises into a `DamagedError`.

    NumPy, zipfile and zlib document no closed list of what that is: to the user it is
    all one thing.

    Args:
        *passing: exceptions of the caller's own, which stay as they are, as `OSError`
            does: a file that cannot be read may be sound.
    """
    try:
        yield
    except (OSError, *passing):
        raise
    except Exception as error:
        raise DamagedError(str(error) or type(error).__name__) from error
