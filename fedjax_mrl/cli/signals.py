"""Signals that ask a run to stop: the first does, a second Ctrl-C ends it at once."""

import contextlib
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable

# What terminals and batch systems send before they kill: Ctrl-C and LSF's bkill (INT),
# a closed session (HUP), Slurm, PBS and containers (TERM), Grid Engine's warnings and
# Slurm's --signal (USR1, USR2), LSF's run limit (USR2), a limit of CPU time (XCPU).
SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
# What `signal.getsignal` gives.
Handler = Callable[[int, types.FrameType | None], object] | int | None
AGAIN = 0.5  # seconds; launchers pass Ctrl-C on, so that it arrives twice at once


class Stop:
    """Remembers a signal. Use as a context manager; call it to ask.

    Taken are signals that would end the process. One that is ignored (`nohup`, a
    shell's background job) stays ignored, and one for which the surrounding program has
    a handler is left to it, except that Ctrl-C asks to stop and calls the handler too.
    Outside the main thread Python can take no signal: there it remembers none.

    A thread reads signals from a pipe, since the main thread may be inside a compiled
    program for long, where Python runs no handler.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._interrupted: float | None = None  # when Ctrl-C came first
        self._before: dict[int, Handler] = {}
        self._taken = False

    def __call__(self) -> int | None:
        """The number of the signal that asked to stop, or None."""
        return self._asked

    def __enter__(self) -> "Stop":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._taken = True
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in SIGNALS:
            handler = _handler(number, signal.getsignal(number))
            if handler is not None:
                self._before[number] = signal.signal(number, handler)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._taken:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._write)

    def _watch(self) -> None:
        while byte := os.read(self._read, 1):
            if self._wakeup != -1:
                _pass_on(self._wakeup, byte)
            if byte[0] in self._before:
                self._take(byte[0])
        os.close(self._read)

    def _take(self, number: int) -> None:
        now = time.monotonic()
        first, self._asked = self._asked is None, self._asked or number
        if number != signal.SIGINT:
            if first:
                _tell(
                    f"{signal.Signals(number).name}: finishing this round and saving."
                )
        elif self._interrupted is None:
            self._interrupted = now
            _tell(
                "SIGINT: finishing this round and saving; press Ctrl-C again to stop "
                "at once."
            )
        elif now - self._interrupted > AGAIN:
            # Nothing is half-written: files are renamed when they are complete.
            os._exit(128 + signal.SIGINT)


def own() -> None:
    """Answers Ctrl-C in a process of this program's own also while JAX is imported."""
    here = threading.current_thread() is threading.main_thread()
    if here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    spec = getattr(sys.modules.get("jax"), "__spec__", None)
    if getattr(spec, "_initializing", False):
        # Its libraries abort with a core dump if an exception reaches them then.
        _tell("Interrupted.")
        os._exit(128 + number)
    signal.default_int_handler(number, frame)


def _handler(number: int, current: Handler) -> Handler:
    """The handler of a signal while a run is played; None leaves the one there is."""
    if current in (signal.SIG_DFL, signal.default_int_handler, _interrupt):
        return lambda *_: None
    if number == signal.SIGINT and callable(current):  # as of asyncio.run
        return current
    return None


def _pass_on(descriptor: int, byte: bytes) -> None:
    """Gives a signal's number to who waited for signals before, as asyncio does."""
    with contextlib.suppress(OSError):  # full or gone
        os.write(descriptor, byte)


def _tell(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a terminal that was closed
        print(f"fedjax-mrl: {text}", file=sys.stderr, flush=True)
