"""Plans a run for devices that are only described: what their compiler says of it.

Nothing is computed, and nothing here is measured but the compiler's own time.
"""

from collections.abc import Callable
from typing import NamedTuple

from fedjax_mrl import numerics
from fedjax_mrl.ops import backend
from fedjax_mrl.planning import advice, memory
from fedjax_mrl.planning.memory import Memory
from fedjax_mrl.planning.plan import DoesNotFit
from fedjax_mrl.planning.planner import Account, Compiled, Planner
from fedjax_mrl.planning.subject import Elsewhere


class GroupAccount(NamedTuple):
    """The training program of one architecture.

    Attributes:
        name: of the architecture.
        clients: N_g.
        together: clients that a device computes at once.
        account: the compiler's of the program.
    """

    name: str
    clients: int
    together: int
    account: Account


class Afar(NamedTuple):
    """The needs of a run on devices that are not here.

    Attributes:
        groups: by architecture.
        memory: at the peak. Of the host it has the arrays of the run only, not what
            the process has besides.
        limit: bytes of memory on each device.
    """

    groups: list[GroupAccount]
    memory: Memory
    limit: int


def make(
    planned: Elsewhere, limit: int, *, done: Callable[[], object] = lambda: None
) -> Afar:
    """Compiles the training programs of all groups, and counts the memory.

    Args:
        planned: what is to be run.
        limit: bytes of memory on each device.
        done: called when a group was compiled.

    Raises:
        DoesNotFit: if a device's peak is above the limit.
    """
    config, process = planned.round_config, 0  # that of the other host is not known
    platform = planned.mesh.devices.flat[0].platform
    with numerics.fixed(planned.config.precision), backend.traced_for(platform):
        planner = Planner(planned)
        programs = planner.compile_all(config, done)
        peak = memory.at_peak(planner, config, programs, process)
        if peak.peak > limit:
            raise DoesNotFit(advice.refusal(planner, peak, programs, process, limit))
    return Afar([_group(compiled) for compiled in programs], peak, limit)


def _group(compiled: Compiled) -> GroupAccount:
    program = compiled.program
    return GroupAccount(
        program.group.name,
        program.group.clients.size,
        program.chunk,
        compiled.account,
    )
