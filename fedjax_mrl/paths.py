"""Paths as users write them: read, checked, and made fit for other libraries.

Every path that a user gives, as an option, in a YAML file or in Python, goes through
`local`. A path with unusual characters is used as it is; libraries that take some of
them for patterns get the same folder under a `plain` name.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

# Bytes that are left for what is written below a folder; the longest is a checkpoint
# that is being written, in a run of a comparison.
RESERVED = 256
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # no drive letter
_UNUSUAL = re.compile(r"[][*?\\:\ud800-\udfff]")
_DESCRIPTORS = pathlib.Path("/proc/self/fd")


class PathError(ValueError):
    """A path that cannot be used; the message says what to do."""


def local(
    given: str | os.PathLike, what: str = "The path", below: int = 0
) -> pathlib.Path:
    """The file or folder of this machine that a user names; need not exist.

    A leading `~` or `~user` is a home; every other character stands for itself. What
    is returned may be given again, as text too, and names the same file.

    Args:
        given: as the user wrote it.
        what: names it, at the start of a message, as in "--out".
        below: bytes to leave for names below it, as of `RESERVED`.

    Raises:
        TypeError: for what is neither text nor a path.
        PathError: for nothing, an address as of a bucket, the home of nobody, what no
            file can be named, or a name that is longer than the file system takes.
    """
    try:
        text = os.fspath(given)
    except TypeError:
        raise TypeError(
            f"{what} must be text or a pathlib.Path; got {given!r}."
        ) from None
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if not text:
        raise PathError(f"{what} must name a file or folder; it is empty.")
    address = _ADDRESS.match(text)
    if address:
        raise PathError(
            f"{what} must be on a file system of this machine, not {text[:200]!r}: "
            f"nothing is read from or written to {address[1]}: addresses. Give a local "
            "folder and copy it afterwards, or a bucket's mount point (gcsfuse, "
            f"s3fs). For a folder of that very name write {'./' + text[:200]!r} here."
        )
    _refuse_characters(text, what)
    path = pathlib.Path(text)
    try:
        path = path.expanduser() if text.startswith("~") else path
    except RuntimeError:
        raise PathError(
            f"{what} names a home that is not known: {text[:200]!r}. Give its whole "
            "path, or ./~ for a file whose name begins so."
        ) from None
    _refuse_length(path, what, below)
    # pathlib drops the ./ that was the way around these readings.
    read_otherwise = _ADDRESS.match(str(path)) or str(path).startswith("~")
    return path.absolute() if read_otherwise else path


def _refuse_characters(text: str, what: str) -> None:
    if "\0" in text:
        raise PathError(f"{what} must be without a null byte; got {text[:200]!r}.")
    try:
        text.encode("utf-8")
        os.fsencode(text)
    except UnicodeEncodeError:
        raise PathError(
            f"{what} must be text in the encoding of this system; {text[:200]!r} "
            "is not. Rename the folder, or set LANG=C.UTF-8."
        ) from None


def _refuse_length(path: pathlib.Path, what: str, below: int) -> None:
    longest = max((os.fsencode(part) for part in path.parts), key=len, default=b"")
    limit, whole = _limits(path)
    if len(longest) > limit:
        raise PathError(
            f"{what} must have names of at most {limit} bytes (File name too long): "
            f"{os.fsdecode(longest)[:40]!r}... has {len(longest)}."
        )
    try:
        length = len(os.fsencode(path.resolve()))
    except (OSError, RuntimeError) as error:  # links that lead in a circle
        reason = getattr(error, "strerror", None) or error
        raise PathError(f"{what} cannot be followed: {reason}.") from None
    if length > whole - below:
        raise PathError(
            f"{what} must be at most {whole - below} bytes long with all folders "
            f"above it; {str(path)[:40]!r}... has {length}."
        )


def _limits(path: pathlib.Path) -> tuple[int, int]:
    """Bytes of a name and of a whole path, where `path` is or would be."""
    for folder in (path, *path.parents):
        try:
            name = os.pathconf(folder, "PC_NAME_MAX")
            return name, os.pathconf(folder, "PC_PATH_MAX")
        except (OSError, ValueError):
            continue  # not there yet
    return 255, 4096


def unusual(folder: pathlib.Path) -> bool:
    """Whether other libraries need another way to a folder, see `plain`.

    Raises:
        PathError: if they do and this system has none.
    """
    whole = str(folder.resolve())
    if not _UNUSUAL.search(whole):
        return False
    if not _DESCRIPTORS.is_dir():
        raise PathError(
            "Without /proc the path of a folder must be without [ ] * ? : and "
            f"backslashes; it is {whole!r}. Choose another folder."
        )
    return True


@contextlib.contextmanager
def plain(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to an existing folder without [ ] * ? : and backslashes.

    Orbax looks for the parts of a checkpoint by a pattern that has the whole path in
    it: below a folder `a[b]` it finds none, and goes on; below `a*b` it finds those of
    other folders too. TFDS does alike. So a folder of such a name is opened and reached
    by its descriptor: all that is written lands in the folder itself, by the same
    calls. The path is valid in this process, as long as the context lasts.

    Raises:
        PathError: as `unusual`.
        OSError: if the folder cannot be opened.
    """
    whole = folder.resolve()
    if not unusual(folder):
        yield whole
        return
    descriptor = os.open(whole, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _DESCRIPTORS / str(descriptor)
    finally:
        os.close(descriptor)
