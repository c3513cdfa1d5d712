"""Several processes on this machine: same tables as one, and an end if one is lost."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from fedjax_mrl.cli.main import main
from fedjax_mrl.runs.directory import COLUMNS, RunDirectory
from tests.helpers import ROOT, clockless
from tests.networks import SMALL

ROUNDS = 4
TINY = ["--algorithm", "lg_fedavg", "--models", SMALL, "--shared-model", SMALL]
TINY += ["--num-clients", "5", "--participation", "0.4", "--partition", "iid"]
TINY += ["--feature-dim", "8", "--rounds", str(ROUNDS), "--checkpoint-every", "1"]
# Sums are compared bit for bit, so all are compiled alike, and fast.
ENVIRONMENT = os.environ | {
    "JAX_NUM_CPU_DEVICES": "1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PLATFORMS": "cpu",
}
BOUND = 60  # seconds until all must have ended; heartbeats end after 10


class Processes:
    """Starts one command in some processes, joined if they are several."""

    def __init__(self, logs, number, *words):
        words = [sys.executable, "-m", "fedjax_mrl", *map(str, words), "--quiet"]
        if number > 1:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                port = free.getsockname()[1]
            words += ["--distributed", f"localhost:{port}", "--heartbeat-timeout", "10"]
            words += ["--num-processes", str(number)]
        self.started, self._logs = [], []
        for place in range(number):
            own = ["--process-id", str(place)] if number > 1 else []
            self._logs.append(logs / f"{words[3]}-{number}-{place}.log")
            with self._logs[-1].open("w") as file:
                self.started.append(
                    subprocess.Popen(
                        [*words, *own], cwd=ROOT, env=ENVIRONMENT, stderr=file
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.started:  # only what a failing test left behind
            process.kill()
            process.wait()

    def wait(self, seconds=240):
        """The exit statuses; fails if one is late."""
        deadline = time.monotonic() + seconds
        return [p.wait(max(deadline - time.monotonic(), 0.1)) for p in self.started]

    def told(self, place):
        return self._logs[place].read_text(errors="replace")


def tables(folder):
    """All tables but for the clock."""
    run = RunDirectory.open(folder)
    return {name: [clockless(row) for row in run.rows(name)] for name in COLUMNS}


def wait_for_rounds(folder, number):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if len(RunDirectory(folder).rows("rounds.csv")) >= number:
                return
        time.sleep(0.02)
    raise AssertionError("no rounds")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Options of a run on few images from a file, which takes no scikit-learn."""
    draw, y = np.random.default_rng(0), np.arange(200) % 4
    x = draw.integers(0, 256, (200, 8, 8, 1), np.uint8)
    path = tmp_path_factory.mktemp("images") / "few.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    return [*TINY, "--dataset", str(path)]


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """The tables of a run in one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    with Processes(folder, 1, "run", *tiny, "--out", folder / "run") as run:
        assert run.wait() == [0], run.told(0)
    found = tables(folder / "run")
    assert len(found["rounds.csv"]) == ROUNDS
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_several_processes_leave_the_tables_of_one(number, alone, tiny, tmp_path):
    folder = tmp_path / "run"
    with Processes(tmp_path, number, "run", *tiny, "--out", folder) as run:
        assert run.wait() == [0] * number, run.told(0)
    assert tables(folder) == alone


def survivors_end(run, lost):
    """Kills one process without warning; the others end soon, with one message."""
    run.started[lost].send_signal(signal.SIGKILL)
    statuses = run.wait(BOUND)
    assert statuses[lost] == -signal.SIGKILL
    for place, status in enumerate(statuses):
        told = run.told(place)
        assert "Traceback" not in told
        if place != lost:
            # JAX itself aborts who has not left before it learns of the loss.
            assert status in (1, -signal.SIGABRT), told
            # One that is just saving says so; both name the line to go on with.
            words = "fedjax-mrl: Another of the", "fedjax-mrl: Writing failed: Cannot"
            assert status != 1 or sum(map(told.count, words)) == 1
    return statuses


@pytest.mark.slow
def test_without_one_the_others_end_and_fewer_go_on(alone, tiny, tmp_path):
    folder = tmp_path / "run"
    with Processes(tmp_path, 4, "run", *tiny, "--out", folder) as run:
        wait_for_rounds(folder, 2)
        assert survivors_end(run, 3)[0] == 1  # no file of process 0 is torn
        assert f"fedjax-mrl resume {folder}" in run.told(0)
    assert len(RunDirectory(folder).rows("rounds.csv")) < ROUNDS
    with Processes(tmp_path, 2, "resume", folder) as run:
        assert run.wait() == [0, 0], run.told(0)
    assert tables(folder) == alone


@pytest.mark.slow
def test_without_the_one_that_writes_the_other_ends_too(alone, tiny, tmp_path):
    folder = tmp_path / "run"
    with Processes(tmp_path, 2, "run", *tiny, "--out", folder) as run:
        wait_for_rounds(folder, 2)
        survivors_end(run, 0)
    assert len(RunDirectory(folder).rows("rounds.csv")) < ROUNDS
    with Processes(tmp_path, 1, "resume", folder) as run:
        assert run.wait() == [0], run.told(0)
    assert tables(folder) == alone


@pytest.mark.slow
def test_a_signal_to_one_stops_all_after_the_same_round(tiny, tmp_path):
    folder = tmp_path / "run"
    words = [*tiny, "--rounds", "100000", "--checkpoint-every", "100000"]
    with Processes(tmp_path, 2, "run", *words, "--out", folder) as run:
        wait_for_rounds(folder, 2)
        run.started[1].send_signal(signal.SIGTERM)
        statuses = run.wait(BOUND)
        assert statuses == [128 + signal.SIGTERM] * 2, run.told(0) + run.told(1)
    (saved,) = (folder / "checkpoints").iterdir()
    assert int(saved.name) == len(RunDirectory(folder).rows("rounds.csv"))


def test_processes_are_refused_alike_before_they_join(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    words = ["run", "--out", str(tmp_path), "--distributed", "localhost:1"]
    for place in ("0", "1"):
        given = ["--num-processes", "2", "--process-id", place]
        assert main([*words, *given]) == 2
        assert "already holds a run" in capsys.readouterr().err
