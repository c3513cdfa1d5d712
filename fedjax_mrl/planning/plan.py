"""What a run will need, before it runs: traffic, arithmetic, memory and time.

Trains nothing. Memory of a group's program is what the compiler says of it; the rest
is counted from shapes. Only the calibration computes, a few steps of each program.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_mrl import numerics, stores, tree
from fedjax_mrl.federation import Federation
from fedjax_mrl.planning import host_memory, timing
from fedjax_mrl.planning import memory as footprint
from fedjax_mrl.planning.memory import Memory, Program
from fedjax_mrl.simulation import batches, shapes
from fedjax_mrl.simulation.group_program import GroupProgram
from fedjax_mrl.simulation.settings import RoundConfig

GIB = 2**30
_SMALLEST_BATCH = 8  # that is advised


class DoesNotFit(ValueError):
    """More memory than there is; says which flag would help."""


class GroupPlan(NamedTuple):
    """What one architecture asks for.

    Attributes:
        name: of the architecture.
        clients: N_g.
        private: parameters of a client's private state.
        shared: parameters of the shared part, of which each client keeps a copy.
        client_bytes: of both.
        working_bytes: that the training program needs for itself on each device.
        seconds: of a client's visit, mean; None without calibration.
    """

    name: str
    clients: int
    private: int
    shared: int
    client_bytes: int
    working_bytes: int
    seconds: float | None = None


class Plan(NamedTuple):
    """What `make` finds.

    Attributes:
        groups: by architecture.
        cohort_size: K.
        down, up: bytes of a round.
        at_most: whether the algorithm compresses, so that the bytes are a limit.
        flops: of a round, expected.
        memory: at the peak.
        limit: bytes that there are; None if unknown.
        seconds: of a round's training; None without calibration.
    """

    groups: list[GroupPlan]
    cohort_size: int
    down: int
    up: int
    at_most: bool
    flops: float
    memory: Memory
    limit: int | None
    seconds: float | None


def make(
    federation: Federation, *, limit: int | None = None, calibrate: bool = True
) -> Plan:
    """Plans a run.

    Args:
        federation: what is to be run. Its states are never made.
        limit: bytes of memory, of the host for CPUs, else of each device; by default
            what this machine has (`available`).
        calibrate: also compute a few local steps of every group, for the time.

    Raises:
        DoesNotFit: if the peak is above the limit; nothing has been computed then.
    """
    limit = available(federation) if limit is None else limit
    with numerics.fixed(federation.config.precision):
        workshop = _Workshop(federation)
        programs = workshop.programs(federation.round_config)
        # With all programs compiled: compiling takes more than their own size.
        process = host_memory.resident()
        memory = workshop.memory(federation.round_config, programs, process)
        if limit is not None and memory.peak > limit:
            raise DoesNotFit(workshop.refusal(memory, programs, process, limit))
        groups = [_group(program) for program in programs]
        seconds = None
        if calibrate:
            groups, seconds = _calibrated(workshop, programs, groups)
    cohort_size = federation.round_config.cohort_size
    return Plan(
        groups,
        cohort_size,
        cohort_size * tree.num_bytes(workshop.broadcast),
        cohort_size * tree.num_bytes(programs[0].upload),
        federation.algorithm.server.broadcast_bytes is not None,
        cohort_size * float(federation.flops().mean()),
        memory,
        limit,
        seconds,
    )


def available(federation: Federation) -> int | None:
    """Bytes that a run can have here; None if nobody knows.

    Of a CPU, what the system has free for this process and it holds already; otherwise
    the memory of a device.
    """
    device = federation.mesh.devices.flat[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    free = host_memory.free()
    return None if free is None else free + host_memory.resident()


@numerics.fixed()
def trials_that_fit(federation: Federation) -> int:
    """How many trials can well be played at once, at least one.

    The states of one are counted three times, as a checkpoint and a round hold copies,
    and half of the memory is left for everything else.
    """
    limit = available(federation)
    if limit is None:
        return 1
    found = [
        (group.clients.size, shapes.of(federation.algorithm, group.model))
        for group in federation.groups
    ]
    sizes = [number * tree.num_bytes(of.held) for number, of in found]
    if federation.mesh.devices.flat[0].platform != "cpu":
        limit *= federation.mesh.size
    return max(1, limit // 2 // (3 * sum(sizes)))


class _Workshop:
    """Compiles the programs of a federation, also under other settings."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        of = shapes.of(federation.algorithm, federation.groups[0].model)
        self._key, self.server, self.broadcast = of.key, of.server, of.broadcast

    def part(self, group: Any, config: RoundConfig) -> GroupProgram:
        """The group's part, as a round would make it."""
        return timing.program_of(self.federation, group, config)

    def program(self, group: Any, config: RoundConfig) -> Program:
        """The group's program, compiled."""
        part = self.part(group, config)
        held = shapes.of(self.federation.algorithm, group.model).held
        stacked = lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype)
        common = timing.trial_inputs(jax.tree.map(stacked, self.broadcast))
        stats, reports = part.compile(held, common)
        working = 0 if stats is None else stats.temp_size_in_bytes
        one = lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype)
        upload = jax.tree.map(one, reports.upload)
        return Program(part, held, upload, working)

    def programs(self, config: RoundConfig) -> list[Program]:
        """One for each group."""
        self._compile_starts()
        return [self.program(group, config) for group in self.federation.groups]

    def _compile_starts(self) -> None:
        """Compiles what draws first weights, for what that takes of the process."""
        algorithm = self.federation.algorithm
        clients = [algorithm.client(g.model) for g in self.federation.groups]
        self._starts = [
            jax.jit(one.init).lower(self._key).compile()
            for one in (algorithm.server, *clients)
        ]

    def again(self, programs: list[Program], config: RoundConfig) -> list[Program]:
        """The programs under other settings, of which only the largest is compiled."""
        found = [
            old._replace(part=self.part(old.part.group, config)) for old in programs
        ]
        old = self.federation.round_config
        same = (config.batch_size, config.chunk) == (old.batch_size, old.chunk)
        if same and config.chunk:
            # What a program needs depends on how many members it computes at once.
            return found
        largest = max(programs, key=lambda program: program.working_bytes)
        new = self.program(largest.part.group, config)
        return [program._replace(working_bytes=new.working_bytes) for program in found]

    def memory(
        self, config: RoundConfig, programs: list[Program], process: int
    ) -> Memory:
        """Bytes at the peak, under a configuration."""
        return footprint.of(self.federation, config, programs, self.server, process)

    def refusal(
        self, memory: Memory, programs: list[Program], process: int, limit: int
    ) -> str:
        """Says that it does not fit, and what would."""
        where = "of memory" if memory.one else "of memory on each device"
        text = (
            f"The run must fit into {limit / GIB:.2f} GiB {where}, but needs about "
            f"{memory.peak / GIB:.2f} GiB at its peak. "
        )
        for flags, config in self._smaller():
            # Whether it fits even without working memory is known without compiling.
            idle = [
                program._replace(
                    part=self.part(program.part.group, config), working_bytes=0
                )
                for program in programs
            ]
            if self.memory(config, idle, process).peak > limit:
                continue
            found = self.memory(config, self.again(programs, config), process)
            if found.peak <= limit:
                return f"{text}Give {flags}: {found.peak / GIB:.2f} GiB."
        most = max({**memory.host, **memory.device}.items(), key=lambda item: item[1])
        return (
            f"{text}No --client-store, --chunk, --batch-size or --participation makes "
            f"it fit; most of it is {most[0]}. Use a machine with more memory, or "
            "smaller --models."
        )

    def _smaller(self) -> Iterator[tuple[str, RoundConfig]]:
        """Configurations that need less: those that change no number first."""
        config = self.federation.round_config
        number = self.federation.config.num_clients
        kind = stores.resolve(config.client_store, self.federation.mesh)
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
        batch = batches.fitting(config.batch_size, self.federation.train) // 2
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


def _group(program: Program) -> GroupPlan:
    state, shared = program.held
    return GroupPlan(
        program.part.group.name,
        program.part.group.clients.size,
        tree.num_parameters(state),
        tree.num_parameters(shared),
        program.client_bytes,
        program.working_bytes,
    )


def _calibrated(
    workshop: _Workshop, programs: list[Program], groups: list[GroupPlan]
) -> tuple[list[GroupPlan], float]:
    """The groups with their visits' time, and the seconds of a round's training.

    Visits are spread evenly over the devices, except that a round is not shorter than
    its longest visit.
    """
    federation, config = workshop.federation, workshop.federation.round_config
    devices, total, longest = federation.mesh.size, 0.0, 0.0
    batch = batches.fitting(config.batch_size, federation.train)
    timed = []
    for program, group in zip(programs, groups, strict=True):
        once, step, together = timing.measure(
            federation, program.part, program.held, workshop.broadcast
        )
        sizes = [federation.train[c].size for c in program.part.group.clients]
        steps = [batches.num_steps(size, batch, config.epochs) for size in sizes]
        # A chunk works until its longest member is done.
        typical = float(np.mean(steps) if together == 1 else np.max(steps))
        seconds = (once + typical * step) / together
        members = config.cohort_size * group.clients / federation.config.num_clients
        total += members * seconds / devices
        longest = max(longest, seconds * together)
        timed.append(group._replace(seconds=seconds))
    return timed, max(total, longest)
