"""SIGINT and SIGTERM: the first asks a run to stop, a second SIGINT ends it at once."""

import os
import signal
import sys
import threading
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Remembers a signal. Use as a context manager; call it to ask.

    A thread reads signals from a pipe, since the main thread may be inside a compiled
    program for long, where Python runs no handler.
    """

    def __init__(self) -> None:
        self._asked: int | None = None

    def __call__(self) -> int | None:
        """The number of the signal that asked to stop, or None."""
        return self._asked

    def __enter__(self) -> "Stop":
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before: list[Any] = [
            signal.signal(number, lambda *_: None) for number in SIGNALS
        ]
        self._wakeup = signal.set_wakeup_fd(self._write)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in zip(SIGNALS, self._before, strict=True):
            signal.signal(number, handler)
        os.close(self._write)

    def _watch(self) -> None:
        while byte := os.read(self._read, 1):
            if self._asked is None:
                self._asked = byte[0]
                name = signal.Signals(byte[0]).name
                print(
                    f"fedjax-mrl: {name}: finishing this round and saving; press "
                    "Ctrl-C again to stop at once.",
                    file=sys.stderr,
                    flush=True,
                )
            elif byte[0] == signal.SIGINT:
                # Nothing is half-written: files are renamed when they are complete.
                os._exit(128 + signal.SIGINT)
        os.close(self._read)
