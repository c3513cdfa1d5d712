"""The rivals of `rivals` as contenders. Runs in a worker; needs PyTorch."""

import concurrent.futures
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from experiments.benchmarks import bench, floors
from experiments.benchmarks.rivals import Loop

Setup = tuple[Callable[[], float], dict[str, Any]]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def steps(*, number: int, side_by_side: bool = False, **options: Any) -> Setup:
    """Seconds of one local step of all clients, on images that are prepared already.

    Args:
        number: of steps in a repetition.
        side_by_side: a thread a core, each with one core and its share of the clients;
            otherwise one client after another, each with all cores.
        **options: as of `_loop`.
    """
    loop, facts = _loop(**options)
    shares, pool = [range(len(loop.clients))], None
    if side_by_side:
        cores = options["cores"]
        shares = [range(core, len(loop.clients), cores) for core in range(cores)]
        pool = concurrent.futures.ThreadPoolExecutor(
            cores, initializer=torch.set_num_threads, initargs=(1,)
        )

    def measure() -> float:
        started = time.perf_counter()
        if pool is None:
            loop.steps(number)
        else:
            list(pool.map(functools.partial(loop.steps, number), shares))
        return (time.perf_counter() - started) / number

    measure()
    return measure, facts


def rounds(
    *, epochs: int = 1, cohort: int | None = None, test: bool = True, **options: Any
) -> Setup:
    """Seconds of a round: local epochs, test of the participants, aggregation."""
    loop, facts = _loop(**options)

    def measure() -> float:
        started = time.perf_counter()
        loop.round(epochs=epochs, cohort=cohort, test=test)
        return time.perf_counter() - started

    measure()
    return measure, facts


def products(*, size: int, cores: int) -> Setup:
    """Seconds for one floating point operation: two matrix products on all cores."""
    torch.set_num_threads(cores)
    a = torch.randn(size, size)
    return floors.per_operation(lambda: (a @ a) @ a, size)


def _loop(
    *,
    dataset: str,
    data_dir: str | None,
    split: dict[str, int],
    cores: int,
    batch_size: int,
    authors: bool = False,
) -> tuple[Loop, dict[str, Any]]:
    """The loop, with the memory format that is faster here and now.

    The authors' script has no such choice: contiguous.
    """
    torch.set_num_threads(cores)
    data = bench.load(dataset, data_dir)
    loop = Loop(
        data.x_train,
        data.y_train,
        data.x_test,
        data.y_test,
        *bench.positions(data, **split),
        batch_size=batch_size,
        authors=authors,
    )
    sizes = [sum(p.numel() for n in c.networks for p in n) for c in loop.clients]
    facts: dict[str, Any] = {"parameters": sum(sizes)}
    if not authors:
        times = {name: _short_run(loop, kind) for name, kind in FORMATS.items()}
        facts["format"] = min(times, key=times.get)
        loop.use(FORMATS[facts["format"]])
    return loop, facts


def _short_run(loop: Loop, kind: torch.memory_format) -> float:
    """Median seconds of two local steps of the first clients, one an architecture."""
    loop.use(kind)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        loop.steps(2, clients=range(min(5, len(loop.clients))))
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
