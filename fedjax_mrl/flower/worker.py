"""The worker of a node: programs, data and the client, asked by a socket."""

import pathlib
import socket
import time
from collections.abc import Callable

from fedjax_mrl.federation import Federation
from fedjax_mrl.flower import messages, sockets, wire
from fedjax_mrl.flower.error import FlowerError
from fedjax_mrl.flower.node import Node
from fedjax_mrl.runs.lock import Lock


class Worker:
    """Answers the messages of one client's node until it is told to stop.

    Args:
        federation: built of the app's configuration.
        client: its number.
        folder: where its states lie; no other worker may use it.
        path: of the socket.
        tell: is told in a sentence of every message.

    Raises:
        FlowerError: if the socket cannot be made.
        RunDirectoryError: if another worker has the folder.
    """

    def __init__(
        self,
        federation: Federation,
        client: int,
        folder: pathlib.Path,
        path: pathlib.Path,
        tell: Callable[[str], object],
    ) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FlowerError(
                f"Cannot make the folder {folder}: {error.strerror}."
            ) from None
        self._lock = Lock(folder)
        self._lock.acquire()
        self._node = Node(federation, client, folder)
        self._path, self._tell = path, tell
        self._listening: socket.socket = sockets.listen(path)

    def run(self, stop: Callable[[], object]) -> None:
        """Answers until `stop` says something, then removes the socket."""
        try:
            sockets.serve(self._listening, self._answer, stop)
        finally:
            self._listening.close()
            self._path.unlink(missing_ok=True)
            self._lock.release()

    def _answer(self, data: bytes) -> bytes:
        """Answers a message, whatever happens; tells of it."""
        started = time.monotonic()
        try:
            answer = self._node.answer(data)
        except Exception as error:  # the server is told no more than that
            self._tell(f"Failed: {type(error).__name__}: {error}")
            return messages.refusal(
                f"The worker failed ({type(error).__name__}); its log says why."
            )
        told = wire.decode(answer).fields
        words = [
            str(told[name]) for name in ("kind", "round", "reason") if name in told
        ]
        self._tell(f"{' '.join(words)}, {time.monotonic() - started:.2f} s")
        return answer
