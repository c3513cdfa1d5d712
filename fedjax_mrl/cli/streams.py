"""Standard streams that may be closed, full, or unable to show every letter."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

# What `sys.unraisablehook` is.
Hook = Callable[["sys.UnraisableHookArgs"], None]
# The reader went away (`| head`), or the terminal was closed.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


class Lenient:
    """A text stream around another one, whose errors never end a training.

    Letters that the encoding lacks are escaped, and text that cannot be written is
    dropped. In all else it is the other stream.

    Attributes:
        error: the first one, None while there was none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        reconfigure = getattr(stream, "reconfigure", None)  # not all kinds have it
        if reconfigure and stream.errors in ("strict", "surrogateescape"):
            with contextlib.suppress(ValueError):  # it was closed
                reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Writes the text, or drops it after an error."""
        if self.error is None:
            with self._watched():
                self._stream.write(fitting(text, self._stream.encoding))
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, unless an error came before."""
        if self.error is None:
            with self._watched():
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            _discard(self._stream)


def fitting(text: str, encoding: str | None) -> str:
    """The text, with +- for the plus-minus sign where an encoding lacks it."""
    try:
        "±".encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return text.replace("±", "+-")
    return text


def own() -> None:
    """Makes the streams of this process such that no output can end it.

    For a process that is this program's own; another program's streams are its own.
    """
    for descriptor in range(3):
        # A file that is opened later would take a closed one's number, and whatever a
        # library prints would end in that file.
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        setattr(sys, name, Lenient(stream))
    sys.unraisablehook = _without_late_writers(sys.unraisablehook)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Drops what libraries below Python write to stderr meanwhile."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _without_late_writers(tell: Hook) -> Hook:
    """Drops what threads say that still write when their checkpoint has failed.

    The failure itself was raised and is told; each of them would add a traceback.
    """

    def hook(error: "sys.UnraisableHookArgs") -> None:
        if "Event loop is closed" not in str(error.exc_value):
            tell(error)

    return hook


def status(code: int) -> int:
    """The exit status of this process, with all its output written.

    1 if some of it was lost for another reason than that nobody reads it.
    """
    out = sys.stdout
    if not isinstance(out, Lenient):
        return code
    out.flush()
    if out.error is not None and out.error.errno not in GONE:
        print(
            f"fedjax-mrl: The output cannot be written: {out.error.strerror}.",
            file=sys.stderr,
        )
        code = code or 1
    sys.stderr.flush()
    return code


def _discard(stream: TextIO) -> None:
    """Throws away what a stream holds back, so that no one tries it again at exit."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = stream.fileno()
        kept, nothing = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nothing, descriptor)
            stream.flush()
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)
            os.close(nothing)
