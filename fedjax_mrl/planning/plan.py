"""Plans a run before it runs: its traffic, arithmetic, memory and time.

Trains nothing. The compiler says how much memory a group's program needs; the rest
is counted from shapes. Only the calibration computes, a few steps of each program.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedjax_mrl import numerics, tree
from fedjax_mrl.federation import Federation
from fedjax_mrl.planning import advice, host_memory, memory, timing
from fedjax_mrl.planning.memory import Memory
from fedjax_mrl.planning.planner import Compiled, Planner
from fedjax_mrl.simulation import batches, shapes


class DoesNotFit(ValueError):
    """More memory than there is; says which flag would help."""


class GroupPlan(NamedTuple):
    """The needs of one architecture.

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
    """The needs of a run.

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
    federation: Federation,
    *,
    limit: int | None = None,
    calibrate: bool = True,
    done: Callable[[], object] = lambda: None,
) -> Plan:
    """Plans a run.

    Args:
        federation: what is to be run. Its states are never made.
        limit: bytes of memory, of the host for CPUs, else of each device; by default
            those of this machine (`available`).
        calibrate: also compute a few local steps of every group, for the time.
        done: called when a group was compiled, and when one was timed.

    Raises:
        DoesNotFit: if the peak is above the limit; nothing has been computed then.
    """
    limit = available(federation) if limit is None else limit
    with numerics.fixed(federation.config.precision):
        planner = Planner(federation)
        planner.compile_starts()
        programs = planner.compile_all(federation.round_config, done)
        # With all programs compiled: compiling takes more than their own size.
        process = host_memory.resident()
        peak = memory.at_peak(planner, federation.round_config, programs, process)
        if limit is not None and peak.peak > limit:
            raise DoesNotFit(advice.refusal(planner, peak, programs, process, limit))
        groups = [_group(compiled) for compiled in programs]
        seconds = None
        if calibrate:
            groups, seconds = _calibrated(planner, programs, groups, done)
    cohort_size = federation.round_config.cohort_size
    return Plan(
        groups=groups,
        cohort_size=cohort_size,
        down=cohort_size * tree.num_bytes(planner.broadcast),
        up=cohort_size * tree.num_bytes(programs[0].upload),
        at_most=federation.algorithm.server.broadcast_bytes is not None,
        flops=cohort_size * float(federation.flops().mean()),
        memory=peak,
        limit=limit,
        seconds=seconds,
    )


def available(federation: Federation) -> int | None:
    """Bytes that a run can have here; None if nobody knows.

    Of a CPU, those that the system has free for this process and those that it holds
    already; otherwise the memory of a device.
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
    states = sum(
        group.clients.size
        * tree.num_bytes(shapes.of(federation.algorithm, group.model).pair)
        for group in federation.groups
    )
    if federation.mesh.devices.flat[0].platform != "cpu":
        limit *= federation.mesh.size
    return max(1, limit // 2 // (3 * states))


def _group(compiled: Compiled) -> GroupPlan:
    private, shared = compiled.pair
    return GroupPlan(
        compiled.program.group.name,
        compiled.program.group.clients.size,
        tree.num_parameters(private),
        tree.num_parameters(shared),
        compiled.client_bytes,
        compiled.working_bytes,
    )


def _calibrated(
    planner: Planner,
    programs: list[Compiled],
    groups: list[GroupPlan],
    done: Callable[[], object],
) -> tuple[list[GroupPlan], float]:
    """The groups with their visits' time, and the seconds of a round's training.

    Visits are spread evenly over the devices, except that a round is not shorter than
    its longest visit.
    """
    federation, config = planner.federation, planner.federation.round_config
    devices, total, longest = federation.mesh.size, 0.0, 0.0
    batch = batches.fitting(config.batch_size, federation.train)
    timed = []
    for compiled, group in zip(programs, groups, strict=True):
        once, step, together = timing.measure(
            federation, compiled.program, compiled.pair, planner.broadcast
        )
        clients = compiled.program.group.clients
        sizes = [federation.train[client].size for client in clients]
        steps = [batches.num_steps(size, batch, config.epochs) for size in sizes]
        # A chunk works until its longest member is done.
        typical = float(np.mean(steps) if together == 1 else np.max(steps))
        seconds = (once + typical * step) / together
        members = config.cohort_size * group.clients / len(federation.train)
        total += members * seconds / devices
        longest = max(longest, seconds * together)
        timed.append(group._replace(seconds=seconds))
        done()
    return timed, max(total, longest)
