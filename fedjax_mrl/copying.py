"""Large arrays on the host: looked at row by row, made for JAX, copied on all cores."""

import concurrent.futures
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_ALIGNMENT = 64  # bytes; an array that begins so is used by a CPU as it is
_WORTH_THREADS = 2**23  # bytes to copy, about a millisecond's work


def rows(array: Any) -> list[np.ndarray]:
    """The rows of an array [R, ...], to look at.

    One that is split over devices is not joined for it, and one on a CPU not copied.

    Args:
        array: of NumPy, or of JAX and all of it in this process.
    """
    shards = getattr(array, "addressable_shards", None)
    if shards is None or array.is_fully_replicated:
        return list(np.asarray(array))
    in_order = sorted(shards, key=lambda shard: shard.index[0].start or 0)
    return [row for shard in in_order for row in np.asarray(shard.data)]


def zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that `jax.device_put` to a CPU does not copy.

    Once put it must stay as it is.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


def on_all_cores(copy: Callable[..., Any], size: int, *arguments: Sequence) -> list:
    """Calls `copy` with one argument of each sequence after another, like `map`.

    Args:
        copy: copies arrays of NumPy, which is done outside of the interpreter's lock.
        size: bytes that are copied in all.
        *arguments: of the calls.
    """
    jobs = list(zip(*arguments, strict=True))
    number = os.cpu_count() or 1 if size >= _WORTH_THREADS else 1
    found: list = [None] * len(jobs)

    def work(first: int) -> None:
        for job in range(first, len(jobs), number):
            found[job] = copy(*jobs[job])

    if number == 1:
        work(0)
    else:  # one task for each thread, as a task for each job would take longer
        with concurrent.futures.ThreadPoolExecutor(number) as threads:
            list(threads.map(work, range(number)))
    return found
