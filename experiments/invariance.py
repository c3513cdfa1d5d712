"""Plays every algorithm under several layouts and compares the digests of all rounds.

    .venv/bin/python -m experiments.invariance [--algorithms a,b] [--models mlp]

Runs on eight devices of the host; other processes are started to compare numbers of
threads and of processes. Prints a table for docs/reproducibility.md.
"""

import argparse
import contextlib
import copy
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

from fedjax_mrl import algorithms
from fedjax_mrl.config import RunConfig, build
from fedjax_mrl.federation import Federation
from fedjax_mrl.runs import resuming, runner
from fedjax_mrl.runs.directory import RunDirectory

ROUNDS = 3
BASE = {
    "num_clients": 5,
    "participation": 0.6,
    "partition": "iid",
    "feature_dim": 16,
    "learning_rate": 0.05,
    "rounds": ROUNDS,
    "eval_every": 2,
    "devices": 1,
}
LAYOUTS = {
    "again": {},
    "2 devices": {"devices": 2},
    "4 devices": {"devices": 4},
    "8 devices": {"devices": 8},
    "host store": {"client_store": "host"},
    "host store, 2 devices": {"client_store": "host", "devices": 2},
}
THREADS = (1, 2, 3, 8)
ONE_ARCHITECTURE = ("fedavg", "fedprox")


def configuration(algorithm: str, models: str, **options: object) -> RunConfig:
    """A small federation; FedAvg and FedProx get one architecture."""
    names = models.split(",")[:1] if algorithm in ONE_ARCHITECTURE else models
    shared = names[0] if algorithm in ONE_ARCHITECTURE else models.split(",")[-1]
    width = {"shared_dim": 8} if algorithm.startswith("fedmrl") else {}
    known = {"algorithm": algorithm, "models": names, "shared_model": shared}
    return build(BASE | known | width | options)


def digests(folder: pathlib.Path) -> list[str]:
    """The digest of every round of a run."""
    return [row["digest"] for row in RunDirectory.open(folder).rows("rounds.csv")]


def play(config: RunConfig) -> list[str]:
    """Plays a federation that is compiled anew, without files or evaluation."""
    federation = Federation(config)
    state, digester, found = federation.init(), federation.digester(), []
    digester(state)
    for _ in range(ROUNDS):
        state, played = federation.play(state)
        digester.touch(played.cohort)
        found.append(digester(state)[0])
    return found


def record(federation: Federation, folder: pathlib.Path) -> list[str]:
    """Runs from the beginning to the end, with files, evaluation and checkpoints."""
    directory = RunDirectory.create(folder, config=federation.config.to_json())
    runner.run(federation, directory)
    directory.unlock()
    return digests(folder)


def interrupted(federation: Federation, folder: pathlib.Path, after: int) -> list[str]:
    """Stops after a round as a signal would, and goes on from the checkpoint."""
    directory = RunDirectory.create(folder, config=federation.config.to_json())
    calls = iter(range(1, ROUNDS + 1))
    with contextlib.suppress(runner.Interrupted):
        stop = lambda: 15 if next(calls) == after else None
        runner.run(federation, directory, stop=stop)
    state = resuming.restore(federation, directory, warn=print)
    assert state is not None and state.round == after
    directory.cut(after, federation.config.eval_every)
    runner.run(federation, directory, state=state)
    directory.unlock()
    return digests(folder)


def command(config: RunConfig, folder: pathlib.Path) -> list[str]:
    """The words that run a federation in another process."""
    text = folder.with_suffix(".yaml")
    text.write_text(config.to_json())  # JSON is YAML
    words = [sys.executable, "-m", "fedjax_mrl", "run", "--config", str(text)]
    return [*words, "--out", str(folder), "--quiet"]


def with_threads(config: RunConfig, folder: pathlib.Path, number: int) -> list[str]:
    """Runs in a process of so many threads and one device."""
    environment = {"JAX_NUM_CPU_DEVICES": "1", "NPROC": str(number)}
    subprocess.run(
        command(config, folder),
        env=os.environ | environment,
        check=True,
        timeout=600,
    )
    return digests(folder)


def two_processes(config: RunConfig, folder: pathlib.Path) -> list[str]:
    """Runs in two processes of one device each, joined by jax.distributed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [*command(config, folder), "--devices", "0"]
    words += ["--distributed", f"localhost:{port}", "--num-processes", "2"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    started = [
        subprocess.Popen([*words, "--process-id", str(number)], env=environment)
        for number in (0, 1)
    ]
    assert [process.wait(timeout=600) for process in started] == [0, 0]
    return digests(folder)


def compare(algorithm: str, models: str, folder: pathlib.Path) -> dict[str, bool]:
    """Whether the digests of all rounds are equal, by layout."""
    make = lambda **options: configuration(algorithm, models, **options)
    base = Federation(make())
    expected = record(base, folder / "base")
    assert len(set(expected)) == ROUNDS and all(expected)
    equal = {
        name: play(make(**options)) == expected for name, options in LAYOUTS.items()
    }
    often = copy.copy(base)
    often.config = make(eval_every=1, checkpoint_every=1)
    found = record(often, folder / "often")
    equal["other evaluation and checkpoints"] = found == expected
    for after in range(1, ROUNDS):
        found = interrupted(base, folder / f"after{after}", after)
        equal[f"stopped after round {after}"] = found == expected
    for number in THREADS:
        found = with_threads(make(), folder / f"threads{number}", number)
        equal[f"{number} threads"] = found == expected
    equal["2 processes"] = two_processes(make(), folder / "processes") == expected
    return equal


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algorithms", default=",".join(algorithms.names()))
    parser.add_argument("--models", default="mlp", help="the last one is shared")
    return parser.parse_args(words)


def main() -> None:
    """Prints the table; exits with 1 if any digest differs."""
    args = arguments()
    found = {}
    for name in args.algorithms.split(","):
        folder = pathlib.Path(tempfile.mkdtemp())
        try:
            found[name] = compare(name, args.models, folder)
        finally:
            shutil.rmtree(folder)
        differing = [layout for layout, same in found[name].items() if not same]
        print(f"{name}: {differing or 'all equal'}", file=sys.stderr, flush=True)
    print("| " + " | ".join(["", *found]) + " |")
    print("| --- |" + " --- |" * len(found))
    for layout in next(iter(found.values())):
        cells = ["equal" if of[layout] else "DIFFERENT" for of in found.values()]
        print(f"| {layout} | " + " | ".join(cells) + " |")
    sys.exit(not all(all(of.values()) for of in found.values()))


if __name__ == "__main__":
    main()
