"""The platform that programs are traced for: this machine's, or one that is not here.

Some operations are written in another way for a CPU than for an accelerator. They ask
`current`, so that a program can be compiled for a machine that is only described.
"""

import contextlib
from collections.abc import Iterator

import jax

# Only such a context makes JAX trace its own cached functions anew.
_elsewhere = jax.make_user_context(None) if hasattr(jax, "make_user_context") else None


def current() -> str:
    """JAX's name of the platform, "cpu" for instance."""
    named = None if _elsewhere is None else _elsewhere.value
    return jax.default_backend() if named is None else named


def compiling(platform: str) -> dict[str, float | str] | None:
    """Options of `jax.jit` for the large programs of a platform.

    A TPU's compiler searches long for the best tiles of each product. With the least
    effort FedMRL's program of CNN-1 compiles in 8 instead of 55 s of CPU time for a
    v5e, accesses no more bytes and takes no longer by the compiler's own model
    (docs/accelerators.md). From jax 0.11 on the option is a level of optimisation. Who
    has set JAX_EXEC_TIME_OPTIMIZATION_EFFORT or JAX_OPTIMIZATION_LEVEL is heeded.

    Args:
        platform: JAX's name of it, "cpu", "gpu" or "tpu".
    """
    if platform != "tpu":
        return None
    earlier = "jax_exec_time_optimization_effort"
    if hasattr(jax.config, earlier):
        said = getattr(jax.config, earlier)
        return None if said else {"exec_time_optimization_effort": -1.0}
    said = getattr(jax.config, "jax_optimization_level", "UNKNOWN")
    return {"optimization_level": "O1"} if said == "UNKNOWN" else None


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Whatever is resolved and traced inside is for that platform; in this thread.

    Args:
        platform: JAX's name of it, "cpu", "gpu" or "tpu".

    Raises:
        ValueError: if JAX is too old to tell such programs apart.
    """
    if _elsewhere is None:
        raise ValueError(
            "Programs for another machine need a jax that has make_user_context; "
            f"this is jax {jax.__version__}. Upgrade it."
        )
    with _elsewhere(platform):
        yield
