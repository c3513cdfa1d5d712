"""JAX's settings that enter the numbers of a run, the same for whoever calls.

A setting of the surrounding program (an environment variable, a notebook's
`jax.config.update`) would give equal configurations other results.
"""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def fixed(precision: str = "default") -> Iterator[None]:
    """Computes as a program that has set nothing; a context manager, or a decorator.

    Single precision, random numbers that do not depend on how arrays are split, and
    matrix products as the configuration says. In this thread and inside only.

    Args:
        precision: of matrix products, as of `jax.default_matmul_precision`.

    Raises:
        ValueError: if JAX is told to compile nothing.
    """
    if jax.config.jax_disable_jit:  # pyrefly: ignore[missing-attribute]
        raise ValueError(
            "JAX is told to compile nothing (JAX_DISABLE_JIT, jax.disable_jit), which "
            "federations cannot do without: a round would take hours. Unset it."
        )
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        jax.default_matmul_precision(precision),
    ):
        yield
