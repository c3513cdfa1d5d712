"""Bytes to the worker of a node and back, by a Unix socket of its owner alone.

A message is its length in eight bytes, then itself. Nothing here needs JAX.
"""

import contextlib
import os
import pathlib
import socket
import stat
import struct
from collections.abc import Callable

from fedjax_mrl.flower.error import FlowerError, Refused

_LENGTH = struct.Struct(">Q")
_LARGEST = 2**40  # bytes of a message
_AT_ONCE = 2**16  # bytes that are sent with the length
LONGEST = 100  # bytes of a path; the system's limit is 107


def ask(path: str, data: bytes, timeout: float | None = None) -> bytes:
    """Sends a message to the worker and returns its answer.

    Raises:
        FlowerError: if nobody answers.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            _send(connection, data)
            return _receive(connection)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error or "it ended"
        raise FlowerError(
            f"The worker of this node does not answer at {path}: {reason}. Start it: "
            "fedjax-mrl flower worker."
        ) from None


def listen(path: pathlib.Path) -> socket.socket:
    """A socket that only this user can reach, in a folder that only they can enter.

    Raises:
        FlowerError: if it cannot be made, or another worker listens there.
    """
    if len(os.fsencode(path)) > LONGEST:
        raise FlowerError(
            f"The path of a socket may have {LONGEST} bytes, but {path} has "
            f"{len(os.fsencode(path))}; give a shorter --socket."
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_own(path.parent)
        _clear(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen()
        return made
    except OSError as error:
        raise FlowerError(
            f"Cannot listen at {path}: {error.strerror or error}. Give another "
            "--socket."
        ) from None


def serve(
    listening: socket.socket,
    answer: Callable[[bytes], bytes],
    stop: Callable[[], object] = lambda: None,
) -> None:
    """Answers messages, one after another, until `stop` says something.

    A connection that ends early, or sends what is no message, disturbs no other.
    """
    listening.settimeout(0.5)
    while stop() is None:
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        with connection, contextlib.suppress(OSError, EOFError, Refused):
            connection.settimeout(60)
            data = _receive(connection)
            _send(connection, answer(data))


def _clear(path: pathlib.Path) -> None:
    """Removes the socket of a worker that is gone."""
    if not path.is_socket():
        return  # binding fails where there is something else
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise FlowerError(f"Another worker listens at {path}; stop it first.")


def _require_own(folder: pathlib.Path) -> None:
    status = folder.stat()
    others = stat.S_IRWXG | stat.S_IRWXO
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & others:
        raise FlowerError(
            f"The folder of the socket, {folder}, must be its owner's alone: chmod 700 "
            "it, or give another --socket."
        )


def _send(connection: socket.socket, data: bytes) -> None:
    # With what follows: who has read the length of an empty message may be gone.
    connection.sendall(_LENGTH.pack(len(data)) + data[:_AT_ONCE])
    if len(data) > _AT_ONCE:
        connection.sendall(memoryview(data)[_AT_ONCE:])


def _receive(connection: socket.socket) -> bytes:
    """One message.

    Raises:
        EOFError: if the connection ends before.
        Refused: for a length that none has.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _LARGEST:
        raise Refused(f"A message of {length} bytes.")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, number: int) -> bytes:
    parts = []
    while number:
        part = connection.recv(min(number, 2**20))
        if not part:
            raise EOFError("it ended")
        parts.append(part)
        number -= len(part)
    return b"".join(parts)
