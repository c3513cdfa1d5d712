"""Advice for a run that does not fit into memory: the flag that makes it fit."""

from collections.abc import Iterator

from fedjax_mrl import stores
from fedjax_mrl.planning import memory
from fedjax_mrl.planning.memory import Memory
from fedjax_mrl.planning.planner import Compiled, Planner
from fedjax_mrl.planning.subject import Subject
from fedjax_mrl.simulation import batches
from fedjax_mrl.simulation.settings import RoundConfig

_GIB = 2**30
_SMALLEST_BATCH = 8  # that is advised


def refusal(
    planner: Planner,
    peak: Memory,
    programs: list[Compiled],
    process: int,
    limit: int,
) -> str:
    """Says that a run does not fit, and the flag with which it would.

    Args:
        planner: of the federation.
        peak: its memory.
        programs: of all groups.
        process: bytes of the process.
        limit: bytes that there are.
    """
    where = "of memory" if peak.shares_host else "of memory on each device"
    text = (
        f"The run must fit into {limit / _GIB:.2f} GiB {where}, but needs about "
        f"{peak.peak / _GIB:.2f} GiB at its peak. "
    )
    for flags, config in _smaller(planner.federation):
        # Whether it fits even without working memory is known without compiling.
        idle = planner.uncompiled(programs, config)
        if memory.at_peak(planner, config, idle, process).peak > limit:
            continue
        again = planner.recompile(programs, config)
        smaller = memory.at_peak(planner, config, again, process)
        if smaller.peak <= limit:
            return f"{text}Give {flags}: {smaller.peak / _GIB:.2f} GiB."
    limited = {**peak.host, **peak.device} if peak.shares_host else peak.device
    largest, _ = max(limited.items(), key=lambda item: item[1])
    return (
        f"{text}No --client-store, --chunk, --batch-size or --participation makes "
        f"it fit; most of it is {largest}. Use a machine with more memory, or "
        "smaller --models."
    )


def _smaller(federation: Subject) -> Iterator[tuple[str, RoundConfig]]:
    """Configurations that need less: those that change no number first."""
    config, number = federation.round_config, len(federation.train)
    kind = stores.resolve(config.client_store, federation.mesh)
    kinds = stores.KINDS
    later = [k for k in ("host", "disk") if kinds.index(k) > kinds.index(kind)]
    for kind in later:
        yield f"--client-store {kind}", config._replace(client_store=kind)
    if config.chunk != 1:
        chunk = (config.chunk or config.cohort_size) // 2
        while chunk:
            yield f"--chunk {chunk}", config._replace(chunk=chunk, chunks={})
            chunk //= 2
    smallest = config
    batch = batches.fitting(config.batch_size, federation.train) // 2
    while batch >= _SMALLEST_BATCH:
        smallest = config._replace(batch_size=batch)
        yield f"--batch-size {batch}", smallest
        batch //= 2
    size = config.cohort_size // 2
    while size:
        words = f"--participation {size / number:.6g}"
        yield words, config._replace(cohort_size=size)
        size //= 2
    kind = (later or [kind])[-1]
    last = smallest._replace(client_store=kind, chunk=1, chunks={}, cohort_size=1)
    yield (
        f"--client-store {kind} --chunk 1 --batch-size {last.batch_size} "
        f"--participation {1 / number:.6g}",
        last,
    )
