"""A whole deployment on one machine: Flower's SuperLink, nodes with workers, a run.

For trying an app out and for tests. Every process has a group of its own, which is
ended as a whole, so that nothing stays behind.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fedjax_mrl.flower import keys
from fedjax_mrl.flower.error import FlowerError

_PATIENCE = 120.0  # seconds that a process has to begin
_GRACE = 15.0  # seconds to end after SIGTERM
_LINK = "loopback"
_TWICE = ("DEBUG:", "INFO:", "ERROR:")  # lines that Flower's own logger says too
# Nobody is told of the use of Flower, and what waits is asked often.
_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
    "PYTHONUNBUFFERED": "1",
}


class Process(NamedTuple):
    """A process with a group of its own, and the file that it writes to."""

    handle: subprocess.Popen
    log: pathlib.Path

    def text(self) -> str:
        """What it wrote up to now."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self, *, at_once: bool = False) -> None:
        """Ends it and all that it started; asks first unless `at_once`."""
        if not at_once:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.handle.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.handle.wait(_GRACE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.handle.pid, signal.SIGKILL)
        self.handle.wait()


class Loopback:
    """A deployment of an app on this machine; a context manager that ends all of it.

    Args:
        app: the app's folder.
        clients: how many nodes may be started.
        folder: for keys, states and logs; new or empty.
    """

    def __init__(self, app: pathlib.Path, clients: int, folder: pathlib.Path) -> None:
        self.app, self.folder = app.absolute(), folder.absolute()
        self._processes: list[Process] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keys = self.folder / "keys"
        keys.create(self._keys, ["localhost", "127.0.0.1"], clients)
        self._ports = _free_ports(1 + clients)
        home = self.folder / "flwr"
        home.mkdir()
        address = f"127.0.0.1:{self._ports[0]}"
        self._address = address
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_LINK}"\n\n[superlink.{_LINK}]\n'
            f"address = {json.dumps(address)}\n"
            f"root-certificates = {json.dumps(str(self._keys / 'ca.pem'))}\n",
            encoding="utf-8",
        )
        here = str(pathlib.Path(sys.executable).parent)
        self._environment = {
            **os.environ,
            **_ENVIRONMENT,
            "FLWR_HOME": str(home),
            "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def __enter__(self) -> "Loopback":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.end(at_once=True)  # states are whole files
        # Flower begins some in groups of their own, which end soon after their parent.
        end = time.monotonic() + _GRACE
        while (left := self.left()) and time.monotonic() < end:
            for number in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.1)

    def left(self) -> list[int]:
        """The processes of this deployment that live, whoever began them.

        They are known by their environment, which names its folder.
        """
        mark = f"FLWR_HOME={self._environment['FLWR_HOME']}".encode()
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def start_link(self) -> Process:
        """Starts the SuperLink, with TLS and authentication of nodes.

        Raises:
            FlowerError: if it does not begin.
        """
        file = lambda name: str(self._keys / name)
        made = self._start(
            "superlink",
            [
                "flower-superlink",
                *("--ssl-ca-certfile", file("ca.pem")),
                *("--ssl-certfile", file("server.pem")),
                *("--ssl-keyfile", file("server.key")),
                *("--port", str(self._ports[0]), "--host", "127.0.0.1"),
                "--enable-supernode-auth",
                "--disable-runtime-dependency-installation",
                *("--database", str(self.folder / "superlink.db")),
            ],
        )
        _await(made, "begin", lambda: _listens(self._ports[0]))
        return made

    def register(self, client: int) -> None:
        """Registers the key of a client's node, by the client's name.

        Raises:
            FlowerError: if it cannot be registered.
        """
        key = str(self._keys / f"client-{client}.pub")
        name = f"client-{client}"
        self.flwr(["supernode", "register", key, _LINK, "--name", name])

    def start_worker(self, client: int) -> Process:
        """Starts the worker of a client, and does not wait for it."""
        return self._start(
            f"worker-{client}",
            [
                *(sys.executable, "-m", "fedjax_mrl", "flower", "worker"),
                *(str(self.app), "--client", str(client)),
                *("--state", str(self.state(client))),
                *("--socket", str(self.socket(client))),
            ],
        )

    def start_node(self, client: int) -> Process:
        """Starts the SuperNode of a client, and does not wait for it."""
        return self._start(
            f"node-{client}",
            [
                *("flower-supernode", "--superlink", self._address),
                *("--root-certificates", str(self._keys / "ca.pem")),
                "--auth-supernode-private-key",
                str(self._keys / f"client-{client}.key"),
                *("--port", str(self._ports[1 + client]), "--host", "127.0.0.1"),
                *("--node-config", f'socket="{self.socket(client)}"'),
            ],
        )

    def start_run(self) -> Process:
        """Starts a run of the app; it ends with the run."""
        words = ["flwr", "run", str(self.app), _LINK, "--stream"]
        return self._start("run", words)

    def flwr(self, words: Sequence[str]) -> str:
        """What a command of Flower's says.

        Raises:
            FlowerError: if it fails.
        """
        answer = subprocess.run(
            ["flwr", *words],
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        if answer.returncode:
            said = (answer.stderr or answer.stdout).strip()[-500:]
            raise FlowerError(f"flwr {' '.join(words[:2])} failed: {said}")
        return answer.stdout

    def state(self, client: int) -> pathlib.Path:
        """The folder of a client's private state."""
        return self.folder / f"state-{client}"

    def socket(self, client: int) -> pathlib.Path:
        """The socket of a client's worker."""
        return self.state(client) / "run" / "socket"

    def await_worker(self, client: int, process: Process) -> None:
        """Waits until a worker answers.

        Raises:
            FlowerError: if it ends, or does not begin.
        """
        _await(process, "begin", self.socket(client).is_socket)

    def _start(self, name: str, words: Sequence[str]) -> Process:
        log = self.folder / f"{name}.log"
        with log.open("ab") as file:
            handle = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self.folder,
                start_new_session=True,
            )
        made = Process(handle, log)
        self._processes.append(made)
        return made


def play(
    there: Loopback,
    clients: int,
    tell: Callable[[str], object],
    stop: Callable[[], object],
) -> int:
    """Starts everything and plays the app's federation to its end.

    Args:
        there: the deployment.
        clients: number of nodes.
        tell: is told what begins, and of every round.
        stop: says something when it should end early.

    Returns:
        The exit status: 0, or 1 if the federation did not come to its end.

    Raises:
        FlowerError: if something does not begin.
    """
    tell(f"{clients} workers begin; logs are in {there.folder}")
    workers = {client: there.start_worker(client) for client in range(clients)}
    there.start_link()
    for client in workers:
        there.register(client)
    for client, process in workers.items():
        there.await_worker(client, process)
        there.start_node(client)
    run = there.start_run()
    told = 0
    while stop() is None:
        ended = run.handle.poll() is not None
        text = run.text()
        for line in text[told : text.rfind("\n") + 1].splitlines():
            if not line.startswith(_TWICE):
                tell(line)
        told = text.rfind("\n") + 1
        if ended:
            return 0 if "Done: " in text else 1
        time.sleep(0.2)
    return 1


def _await(process: Process, what: str, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not ready():
        if process.handle.poll() is not None or time.monotonic() > end:
            raise FlowerError(
                f"{process.log.stem} did not {what}; {process.log} ends with: "
                f"{process.text().strip()[-800:]}"
            )
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody uses at the moment."""
    with contextlib.ExitStack() as opened:
        probes = [opened.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
