"""This package as a contender. Runs in a worker, set up as the command line does it."""

import csv
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import bench, floors

Setup = tuple[Callable[[], float], dict[str, Any]]


def rounds(
    split: dict[str, int],
    config: dict[str, Any],
    per: int = 1,
    evaluate: bool = False,
    facts: bool = False,
) -> Setup:
    """Seconds of a round.

    Args:
        split: see `bench.positions`.
        config: options of the federation.
        per: the seconds are divided by this, the local steps of a round, say.
        evaluate: every client is tested too: all heads, before and after aggregation.
        facts: also give FLOPs and parameters, `per` and of all clients.
    """
    federation = _federation(split, config)
    state = federation.init()

    def measure() -> float:
        nonlocal state
        started = time.perf_counter()
        state = _play(federation, state)
        if evaluate:
            federation.evaluate(state)
        return (time.perf_counter() - started) / per

    measure()  # compiles
    measure()  # arrays lie where they stay
    if not facts:
        return measure, {}
    flops = float(federation.flops().sum()) / per
    sizes = _parameters(federation)
    total = sum(sizes[group.name] * group.clients.size for group in federation.groups)
    return measure, {"flops": flops, "parameters": total}


def together(
    split: dict[str, int], config: dict[str, Any], trials: int, at_once: bool
) -> Setup:
    """Seconds of a round of several seeds, played at once or one after another."""
    federation = _federation(split, config)
    variants = [federation.with_trial(seed=seed) for seed in range(trials)]
    states = [variant.init() for variant in variants]

    def measure() -> float:
        nonlocal states
        started = time.perf_counter()
        if at_once:
            found = federation.play_together([v.trial for v in variants], states)
            for _, played in found:
                played.fetch()
            states = [state for state, _ in found]
            _wait(states)
        else:
            states = [_play(v, s) for v, s in zip(variants, states, strict=True)]
        return time.perf_counter() - started

    measure()
    measure()
    return measure, {}


def compiling(split: dict[str, int], config: dict[str, Any]) -> Setup:
    """Seconds that the first round of a new process takes longer than its second."""

    def measure() -> float:
        federation = _federation(split, config)
        state, times = federation.init(), []
        for _ in range(2):
            started = time.perf_counter()
            state = _play(federation, state)
            times.append(time.perf_counter() - started)
        return times[0] - times[1]

    return measure, {}


def memory(split: dict[str, int], config: dict[str, Any], number: int = 3) -> Setup:
    """Bytes of memory that a run needs at most, and those of one client's state."""
    federation = _federation(split, config)
    sizes = _parameters(federation).values()

    def measure() -> float:
        state = federation.init()
        for _ in range(number):
            state = _play(federation, state)
            federation.evaluate(state)
        return peak()

    return measure, {"bytes_per_client": 4 * statistics.mean(sizes)}


def peak() -> float:
    """The largest resident set of this process so far, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024)


def command(split: dict[str, int], config: dict[str, Any], processes: int) -> Setup:
    """Median seconds of a round of `fedjax-mrl run`, by its rounds.csv.

    Without the first round, which compiles, and the last one, which is evaluated.
    Several processes have one device each.
    """
    from fedjax_mrl import partitions
    from fedjax_mrl.config import build

    data = bench.load(config["dataset"], config["data_dir"])
    partition = partitions.Partition(*bench.positions(data, **split))

    def measure() -> float:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            partitions.save(folder / "split.npz", partition)
            made = build(config, {"partition": f"file:{folder / 'split.npz'}"})
            (folder / "config.yaml").write_text(made.to_json())  # JSON is YAML
            words = [sys.executable, "-m", "fedjax_mrl", "run", "--quiet"]
            words += ["--config", str(folder / "config.yaml")]
            words += ["--out", str(folder / "run")]
            _run_together(words, processes)
            with (folder / "run" / "rounds.csv").open() as file:
                found = [float(row["seconds"]) for row in csv.DictReader(file)]
            return statistics.median(found[1:-1])

    return measure, {}


def _run_together(words: list[str], processes: int) -> None:
    environment = dict(os.environ)
    if processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        words = [*words, "--distributed", f"localhost:{port}"]
        words += ["--num-processes", str(processes)]
        environment["JAX_NUM_CPU_DEVICES"] = "1"
    each = [
        [*words, "--process-id", str(i)] if processes > 1 else words
        for i in range(processes)
    ]
    started = [subprocess.Popen(line, env=environment) for line in each]
    status = [process.wait() for process in started]
    if any(status):
        raise RuntimeError(f"The command ended with status {status}: {words}")


def products(size: int) -> Setup:
    """Seconds for one floating point operation: two matrix products on all cores."""
    import jax

    from fedjax_mrl.cli import devices
    from fedjax_mrl.config import RunConfig

    devices.provide(RunConfig(devices=1))
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a, b: a @ b)
    return floors.per_operation(
        lambda: product(product(a, a), a).block_until_ready(), size
    )


def _federation(split: dict[str, int], config: dict[str, Any]) -> Any:
    from fedjax_mrl.cli import devices
    from fedjax_mrl.config import build

    made = build(config)
    devices.provide(made)  # before JAX is used
    import fedjax_mrl as fm
    from fedjax_mrl.partitions import Partition

    data = bench.load(made.dataset, made.data_dir)
    partition = Partition(*bench.positions(data, **split))
    return fm.Federation(made, dataset=data, partition=partition)


def _play(federation: Any, state: Any) -> Any:
    """The next state, when all of it is there."""
    state, played = federation.play(state)
    played.fetch()
    _wait([state])
    return state


def _wait(states: list[Any]) -> None:
    import jax

    jax.block_until_ready([(s.server, s.clients) for s in states])


def _parameters(federation: Any) -> dict[str, int]:
    """By architecture, the parameters of all networks that a client trains."""
    from fedjax_mrl import tree
    from fedjax_mrl.simulation import shapes

    result = {}
    for group in federation.groups:
        of = shapes.of(federation.algorithm, group.model)
        result[group.name] = tree.num_parameters((of.broadcast, of.private))
    return result
