"""Signals that schedulers and terminals send, and training outside the main thread."""

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fedjax_mrl.cli import signals
from fedjax_mrl.cli.main import main
from fedjax_mrl.runs import runner
from fedjax_mrl.runs.directory import RunDirectory
from tests.helpers import HEEDING, ROOT

TINY = ["--algorithm", "standalone", "--models", "mlp", "--shared-model", "mlp"]
TINY += ["--num-clients", "4", "--participation", "0.5", "--partition", "iid"]
TINY += ["--feature-dim", "8", "--devices", "1", "--quiet"]
OTHERS = [number for number in signals.SIGNALS if number != signal.SIGINT]


@pytest.fixture
def handlers():
    """Gives every signal its usual handler, and looks whether it has it at the end."""
    usual = {number: signal.SIG_DFL for number in OTHERS}
    usual[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, usual[number]) for number in usual}
    yield usual
    found = {number: signal.getsignal(number) for number in usual}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert found == usual
    assert signal.set_wakeup_fd(-1) == -1


def asked(stop, seconds=5):
    deadline = time.monotonic() + seconds
    while stop() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return stop()


@pytest.mark.parametrize("number", OTHERS)
def test_every_signal_before_a_kill_asks_to_stop_and_says_what_fits(
    number, handlers, capfd
):
    with signals.Stop() as stop:
        assert stop() is None
        os.kill(os.getpid(), number)
        assert asked(stop) == number
        os.kill(os.getpid(), signal.SIGTERM)  # what follows changes nothing
        os.kill(os.getpid(), signal.SIGWINCH)
        time.sleep(0.1)
        assert stop() == number
    told = capfd.readouterr().err
    assert told == (
        f"fedjax-mrl: {signal.Signals(number).name}: finishing this round and saving.\n"
    )


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_what_is_ignored_stays_ignored(number, handlers):
    signal.signal(number, signal.SIG_IGN)
    other = next(n for n in OTHERS if n != number)
    with signals.Stop() as stop:
        assert signal.getsignal(number) is signal.SIG_IGN
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), other)
        assert asked(stop) == other
    assert signal.signal(number, handlers[number]) is signal.SIG_IGN


def test_a_handler_of_the_surrounding_program_is_left_to_it(handlers):
    called = []
    own = lambda number, frame: called.append(number)
    for number in (signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, own)
    with signals.Stop() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.1)
        assert called == [signal.SIGUSR2] and stop() is None
        os.kill(os.getpid(), signal.SIGINT)
        assert asked(stop) == signal.SIGINT
        assert called == [signal.SIGUSR2, signal.SIGINT]
    for number in (signal.SIGUSR2, signal.SIGINT):
        assert signal.signal(number, handlers[number]) is own


def test_who_waited_for_signals_before_still_hears_of_them(handlers):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    with signals.Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked(stop) == signal.SIGTERM
        assert os.read(reading, 1) == bytes([signal.SIGTERM])
    assert signal.set_wakeup_fd(-1) == writing
    os.close(reading)
    os.close(writing)


RAISE = """
import os, signal, sys, time
from fedjax_mrl.cli import signals
with signals.Stop() as stop:
    for word in sys.argv[1:]:
        if word == "wait":
            time.sleep(0.7)
        else:
            os.kill(os.getpid(), getattr(signal, word))
            time.sleep(0.1)
    sys.exit(178 + stop())
"""


def test_only_a_second_ctrl_c_of_a_person_ends_at_once():
    run = lambda *words: subprocess.run(
        [sys.executable, "-c", HEEDING, "-c", RAISE, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    twice = run("SIGINT", "SIGINT")  # a launcher passed it on
    assert twice.returncode == 180 and twice.stderr.count("again to stop at once") == 1
    assert run("SIGINT", "wait", "SIGINT", "wait").returncode == 130
    assert run("SIGTERM", "wait", "SIGINT").returncode == 193


def test_ctrl_c_while_jax_is_imported_ends_without_a_core_dump(tmp_path):
    """Its libraries cannot pass an exception on; one that could stands for them."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    print('aborted')\n    os.abort()\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", HEEDING, "-m", "fedjax_mrl", "run"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 130 and process.stdout == ""
    assert process.stderr == "fedjax-mrl: Interrupted.\n"


def in_thread(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def in_pool(call):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def in_asyncio(call):
    return asyncio.run(asyncio.to_thread(call))


def test_training_works_outside_the_main_thread(tmp_path, handlers):
    run = str(tmp_path / "run")
    argv = ["run", *TINY, "--rounds", "1", "--out", run]
    again = lambda rounds: ["resume", run, "--rounds", rounds, "--quiet"]
    assert in_thread(lambda: main(argv)) == 0
    assert in_pool(lambda: main(again("2"))) == 0
    assert in_asyncio(lambda: main(again("3"))) == 0
    assert len(RunDirectory(run).rows("rounds.csv")) == 3


def test_a_failure_in_a_thread_leaves_no_lock(tmp_path, monkeypatch):
    class Broken(RuntimeError):
        pass

    def breaks(*args):
        raise Broken

    run = tmp_path / "run"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(runner, "prepare", breaks)
            argv = ["run", *TINY, "--rounds", "1", "--out", str(run)]
            future = pool.submit(main, argv)
            # The error is kept, and with it all that its frames hold.
            assert isinstance(future.exception(), Broken)
            RunDirectory.open(run).lock()
        assert pool.submit(main, ["resume", str(run), "--quiet"]).result() == 0
        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "cut", breaks)
            again = pool.submit(main, ["resume", str(run), "--rounds", "2", "--quiet"])
            assert isinstance(again.exception(), Broken)
            RunDirectory.open(run).lock()
