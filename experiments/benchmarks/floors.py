"""What the machine can do at best: products and copies, on all cores."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Setup = tuple[Callable[[], float], dict[str, Any]]


def products(size: int) -> Setup:
    """Seconds for one floating point operation: two float32 products, NumPy's BLAS."""
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    return per_operation(lambda: (a @ a) @ a, size)


def per_operation(two_products: Callable[[], Any], size: int) -> Setup:
    """Seconds for one floating point operation of two square products, all done."""

    def measure() -> float:
        started = time.perf_counter()
        two_products()
        return (time.perf_counter() - started) / (4 * size**3)

    measure()
    return measure, {}


def copies(size: int, cores: int) -> Setup:
    """Seconds for one byte that is read or written: every core copies `size` bytes."""
    source = [np.ones(size, np.uint8) for _ in range(cores)]
    target = [np.zeros(size, np.uint8) for _ in range(cores)]
    pool = ThreadPoolExecutor(cores)

    def measure() -> float:
        started = time.perf_counter()
        list(pool.map(np.copyto, target, source))  # lets go of Python's lock
        return (time.perf_counter() - started) / (2 * size * cores)

    measure()
    return measure, {}
