"""Contenders in long-lived processes of their own, timed one at a time and in turn.

Thread pools and settings of one library do not reach the others, and whatever else
slows the machine down for a while hits all contenders alike: A B C A B C, not A A B B.
"""

import importlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from unittest import mock

# Not handed on from the caller's environment: the command line sets them itself.
_OWN = ("JAX_NUM_CPU_DEVICES", "NPROC")


class Contender(NamedTuple):
    """Who is timed.

    Attributes:
        setup: `module:function` below this package. Called once in the worker with
            the options; returns a function without arguments that carries out one
            repetition and returns its cost (seconds, say), and a dict of facts.
        options: keyword arguments of `setup`.
        worker: contenders with the same name share a process; "" is an own one.
        fresh: a new process for every repetition.
    """

    setup: str
    options: dict[str, Any]
    worker: str = ""
    fresh: bool = False


class WorkerError(RuntimeError):
    """A contender failed; the message is its traceback."""


class _Worker:
    """A process that sets contenders up and carries out repetitions when told to."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        kept = {name: v for name, v in os.environ.items() if name not in _OWN}
        with mock.patch.dict(os.environ, kept, clear=True):
            self._process.start()
        theirs.close()

    def ask(self, *message: Any) -> Any:
        """Sends a message and waits for what it gives."""
        try:
            self._connection.send(message)
            done, answer = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            raise WorkerError(f"A worker ended with status {code}.") from None
        if not done:
            raise WorkerError(answer)
        return answer

    def close(self) -> None:
        """Lets the process end by itself."""
        self._connection.close()
        self._process.join()


def _serve(connection: Connection) -> None:
    ready = {}
    while True:
        try:
            kind, name, *rest = connection.recv()
        except EOFError:
            return
        try:
            if kind == "setup":
                module, _, function = rest[0].partition(":")
                made = importlib.import_module(f"{__package__}.{module}")
                ready[name], facts = getattr(made, function)(**rest[1])
                connection.send((True, facts))
            else:
                connection.send((True, ready[name]()))
        except Exception:
            connection.send((False, traceback.format_exc()))


def in_turn(
    contenders: Mapping[str, Contender], repeats: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
    """Times the contenders, each once, and that `repeats` times.

    Returns:
        By contender, the costs [repeats] and the facts of its set-up.

    Raises:
        WorkerError: if a contender fails.
    """
    workers: dict[str, _Worker] = {}
    costs: dict[str, list[float]] = {name: [] for name in contenders}
    facts: dict[str, dict[str, Any]] = {}

    def begin(name: str) -> None:
        setup, options, worker, _ = contenders[name]
        key = worker or name
        if key not in workers:
            workers[key] = _Worker()
        facts[name] = workers[key].ask("setup", name, setup, options)

    try:
        for name, contender in contenders.items():
            if not contender.fresh:
                _say(f"setting up {name}")
                begin(name)
        for repeat in range(repeats):
            for name, contender in contenders.items():
                key = contender.worker or name
                if contender.fresh:
                    begin(name)
                costs[name].append(workers[key].ask("measure", name))
                _say(f"{repeat + 1} of {repeats}: {name} {costs[name][-1]:.4g}")
                if contender.fresh:
                    workers.pop(key).close()
    finally:
        for worker in workers.values():
            worker.close()
    return costs, facts


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
