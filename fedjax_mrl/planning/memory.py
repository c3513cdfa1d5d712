"""How much memory a run holds at its largest moment, counted from shapes.

A round is a row of moments, and what one of them needs is let go before the next. But
a C library gives only large blocks back to the system; what was ever used in smaller
ones stays with the process. So on a CPU the largest moment counts for large blocks, and
for small ones the most that each purpose ever had.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_mrl import stores, tree
from fedjax_mrl.federation import Federation
from fedjax_mrl.simulation.group_program import GroupProgram
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.stores import disk

# From here on blocks are given back: the largest threshold that glibc's malloc adapts
# itself to (mallopt(3), DEFAULT_MMAP_THRESHOLD_MAX of 64-bit systems).
_GIVEN_BACK = 2**25


class Memory(NamedTuple):
    """Bytes at the peak of a run, by what they are for.

    Attributes:
        moment: of a round, at which it is.
        host: in the memory of the host.
        device: on each device.
        num_devices: D.
        one: devices are CPUs, whose memory is the host's.
    """

    moment: str
    host: dict[str, int]
    device: dict[str, int]
    num_devices: int
    one: bool

    @property
    def peak(self) -> int:
        """Of the memory that limits: a device's, or of a CPU the host's in all."""
        device = sum(self.device.values())
        return (
            sum(self.host.values()) + self.num_devices * device if self.one else device
        )


class Program(NamedTuple):
    """A group's training program.

    Attributes:
        part: of the round.
        held: shapes of what one member brings, its state and its copy.
        upload: shapes of what one member sends.
        working_bytes: that the program needs for itself on each device.
    """

    part: GroupProgram
    held: Any
    upload: Any
    working_bytes: int

    @property
    def client_bytes(self) -> int:
        return tree.num_bytes(self.held)


def of(
    federation: Federation,
    config: RoundConfig,
    programs: Sequence[Program],
    server: Any,
    process: int,
) -> Memory:
    """Memory at the largest moment.

    Args:
        federation: what is to be run.
        config: how its rounds are played.
        programs: of all groups, under that configuration.
        server: shapes of the server's state.
        process: bytes of the process, with the images and all programs in it.
    """
    mesh = federation.mesh
    one = mesh.devices.flat[0].platform == "cpu"
    moments = _moments(federation, config, programs, server, process)
    _, hosts, devices = zip(*moments, strict=True)
    memories = [
        Memory(
            name,
            _bytes(host, hosts if one else [host]),
            _bytes(device, devices if one else [device]),
            mesh.size,
            one,
        )
        for name, host, device in moments
    ]
    return max(memories, key=lambda memory: memory.peak)


def _bytes(
    place: dict[str, np.ndarray], known: Sequence[dict[str, np.ndarray]]
) -> dict[str, int]:
    """By purpose: large blocks of a place, and the most small ones that it knew."""
    purposes = dict.fromkeys(what for other in known for what in other)
    return {
        what: int(_at(place, what)[1] + max(_at(other, what)[0] for other in known))
        for what in purposes
    }


def _at(place: dict[str, np.ndarray], what: str) -> np.ndarray:
    return place.get(what, np.zeros(2, np.int64))


def _blocks(*sizes: int) -> np.ndarray:
    """Bytes in small and in large blocks [2]."""
    large = sum(size for size in sizes if size >= _GIVEN_BACK)
    return np.array([sum(sizes) - large, large], np.int64)


def _live(size: int) -> np.ndarray:
    """Bytes that are in use at a moment, and need no others' place after it."""
    return np.array([0, size], np.int64)


def _stack(value: Any, rows: int) -> np.ndarray:
    """Of a stack of so many, a block for each leaf."""
    return _blocks(
        *(rows * leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(value))
    )


def _moments(
    federation: Federation,
    config: RoundConfig,
    programs: Sequence[Program],
    server: Any,
    process: int,
) -> list[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Name, what is on the host, what is on a device."""
    mesh, data = federation.mesh, federation.dataset
    store = stores.resolve(config.client_store, mesh)
    number, rounds = federation.config.num_clients, federation.config.rounds
    size = config.cohort_size
    one = mesh.devices.flat[0].platform == "cpu"
    per_device = lambda rows: -(-rows // mesh.size)
    none = np.zeros(2, np.int64)
    clients = [p.part.group.clients.size for p in programs]
    every = list(zip(programs, clients, strict=True))

    images = data.x_train.nbytes + data.x_test.nbytes
    # What is measured of the process holds the images already.
    held_images = images * (1 + mesh.size if one else 1)
    process = max(0, process - held_images)
    states = sum((_stack(p.held, per_device(n)) for p, n in every), none)
    cohort = sum((_stack(p.held, p.part.places) for p in programs), none)
    computed = sum((_stack(p.held, per_device(p.part.places)) for p in programs), none)
    # Rows are gathered on the host first; a CPU may use these as they are, and then
    # has to put what it computes elsewhere. They come back by the host, too.
    copied = none if store == "device" else cohort
    on_host = {
        "process, compiled programs": _live(process),
        "images": _live(images),
    }
    on_device = {
        "images": _live(images),
        "client states": states if store == "device" else none,
        "server": 2 * _stack(server, 1),  # before and after
    }

    written = sum(min(disk.WAITING, p.part.places) * p.client_bytes for p in programs)
    # Whom the next round needs and this one did not is read meanwhile.
    ahead = int(cohort.sum() * (1 - size / number))

    def kept(rounds):  # on the host; only of clients that took part
        share = min(1.0, size * rounds / number)
        of = {
            "host": sum(int(n * share) * p.client_bytes for p, n in every),
            "disk": written + ahead if rounds else 0,
        }
        return {"client states": _live(of.get(store, 0))}

    saved = _stack(server, 1)
    if store != "disk":
        saved = saved + sum((_stack(p.held, n) for p, n in every), none)
    before, after = on_host | kept(max(0, rounds - 1)), on_host | kept(rounds)
    # May be written while a round goes on. It also stands for what tests and digests
    # leave behind, whose programs are not compiled here.
    if rounds > 1:
        before["checkpoint"] = after["checkpoint"] = saved
    copies = {"cohort's states": copied}

    wave = max((_stack(p.upload, p.part.places) for p in programs), key=np.sum)
    own = max(
        (_stack(p.upload, per_device(p.part.places)) for p in programs), key=np.sum
    )
    uploads = _stack(programs[0].upload, size)
    working = max(program.working_bytes for program in programs)
    at_work = on_device | {"cohort's states": computed}
    training = {
        # Those that groups before have sent stay meanwhile.
        "uploads": own + (uploads if len(programs) > 1 else none),
        "working memory": _blocks(working),
    }
    # A wave's uploads on every device, then in order with all others'.
    gathering = {"uploads": wave + uploads}
    # Those that count are copied once more.
    serving = {"uploads": 2 * uploads, "server": 3 * _stack(server, 1)}
    shown, shown_on_each = none, none
    if store != "device":
        rows = [stores.block_size(store, mesh, n) for n in clients]
        found = [
            (_stack(p.held, n), _stack(p.held, per_device(n)))
            for p, n in zip(programs, rows, strict=True)
        ]
        shown, shown_on_each = max(found, key=lambda pair: pair[0].sum())
    return [
        ("training", before | copies, at_work | training),
        ("gathering uploads", before, at_work | gathering),
        ("the server's step", before, at_work | serving),
        ("storing states", after | copies, at_work),
        (
            "testing",
            after | {"cohort's states": shown},
            on_device | {"cohort's states": shown_on_each},
        ),
        # The state's copy, and the one that orbax writes.
        ("saving", after | {"checkpoint": 2 * saved}, on_device),
    ]
