"""Counts the memory of a run at its largest moment, from shapes.

A round is a row of moments; the memory of each is let go before the next. But a C
library gives only large blocks back to the system; memory that was ever used in smaller
ones stays with the process. So on a CPU the largest moment counts for large blocks, and
for small ones the most that each purpose ever had.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from fedjax_mrl import stores
from fedjax_mrl.planning.planner import Compiled, Planner
from fedjax_mrl.planning.subject import Subject
from fedjax_mrl.protocol import Tree
from fedjax_mrl.simulation import gathering
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.stores import disk

# From here on blocks are given back: the largest threshold that glibc's malloc adapts
# itself to (mallopt(3), DEFAULT_MMAP_THRESHOLD_MAX of 64-bit systems).
_GIVEN_BACK = 2**25


class Memory(NamedTuple):
    """Bytes at the peak of a run, by their purpose.

    Attributes:
        moment: of a round, at which the peak is.
        host: in the memory of the host.
        device: on each device.
        num_devices: D.
        shares_host: devices are CPUs, whose memory is the host's.
    """

    moment: str
    host: dict[str, int]
    device: dict[str, int]
    num_devices: int
    shares_host: bool

    @property
    def peak(self) -> int:
        """Of the memory that limits: a device's, or of a CPU the host's in all."""
        device = sum(self.device.values())
        if not self.shares_host:
            return device
        return sum(self.host.values()) + self.num_devices * device


# Purpose -> bytes in small and in large blocks [2].
_Place = dict[str, np.ndarray]


class _Moment(NamedTuple):
    """A moment of a run."""

    name: str
    host: _Place
    device: _Place  # each


class _Run(NamedTuple):
    """The run whose memory is counted; attributes as the arguments of `at_peak`."""

    planner: Planner
    config: RoundConfig
    programs: Sequence[Compiled]

    @property
    def federation(self) -> Subject:
        return self.planner.federation

    @property
    def num_devices(self) -> int:
        return self.federation.mesh.size

    @property
    def shares_host(self) -> bool:
        return self.federation.mesh.devices.flat[0].platform == "cpu"

    @property
    def store(self) -> str:
        return stores.resolve(self.config.client_store, self.federation.mesh)

    @property
    def clients(self) -> list[int]:
        """N_g of each group."""
        return [compiled.program.group.clients.size for compiled in self.programs]

    @property
    def places(self) -> list[int]:
        """R of each group's program."""
        return [compiled.program.places for compiled in self.programs]

    def on_each(self, rows: Iterable[int]) -> list[int]:
        """Rows on one device, of so many on all."""
        return [-(-number // self.num_devices) for number in rows]

    def pairs(self, rows: Sequence[int]) -> list[np.ndarray]:
        """Of each group, a stack of so many states and copies."""
        return [
            _stack(compiled.pair, number)
            for compiled, number in zip(self.programs, rows, strict=True)
        ]


def at_peak(
    planner: Planner,
    config: RoundConfig,
    programs: Sequence[Compiled],
    process: int,
) -> Memory:
    """Memory at the largest moment.

    Args:
        planner: of the federation that is to be run.
        config: how its rounds are played.
        programs: of all groups, under that configuration.
        process: bytes of the process, with the images and all programs in it.
    """
    run = _Run(planner, config, programs)
    moments = _moments(run, process)
    _, hosts, devices = zip(*moments, strict=True)
    memories = [
        Memory(
            name,
            _bytes(host, hosts if run.shares_host else [host]),
            _bytes(device, devices if run.shares_host else [device]),
            run.num_devices,
            run.shares_host,
        )
        for name, host, device in moments
    ]
    return max(memories, key=lambda memory: memory.peak)


def _bytes(place: _Place, known: Sequence[_Place]) -> dict[str, int]:
    """By purpose: large blocks of a place, and the most small ones that it knew."""
    purposes = dict.fromkeys(purpose for other in known for purpose in other)
    return {
        purpose: int(
            _at(place, purpose)[1] + max(_at(other, purpose)[0] for other in known)
        )
        for purpose in purposes
    }


def _at(place: _Place, purpose: str) -> np.ndarray:
    return place.get(purpose, _live(0))


def _blocks(*sizes: int) -> np.ndarray:
    """Bytes in small and in large blocks [2]."""
    large = sum(size for size in sizes if size >= _GIVEN_BACK)
    return np.array([sum(sizes) - large, large], np.int64)


def _live(size: int) -> np.ndarray:
    """Bytes that are in use at a moment, and need no others' place after it."""
    return np.array([0, size], np.int64)


def _stack(value: Tree, rows: int) -> np.ndarray:
    """Of a stack of so many, a block for each leaf."""
    return _blocks(
        *(rows * leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(value))
    )


def _moments(run: _Run, process: int) -> list[_Moment]:
    """All moments that may be the largest."""
    config = run.federation.config
    rounds = config.rounds
    before = _on_host(run, process, max(0, rounds - 1))
    after = _on_host(run, process, rounds)
    saved = _saved(run)
    # May be written while a round goes on. It also stands for what tests and digests
    # leave behind, whose programs are not compiled here.
    if rounds > config.checkpoint_every:
        before["checkpoint"] = after["checkpoint"] = saved
    on_device = _on_device(run)
    # Rows are gathered on the host first; a CPU may use these as they are, and then
    # has to put what it computes elsewhere. They come back by the host, too.
    cohort = sum(run.pairs(run.places), _live(0))
    copied = {"cohort's states": _live(0) if run.store == "device" else cohort}
    computed = sum(run.pairs(run.on_each(run.places)), _live(0))
    at_work = on_device | {"cohort's states": computed}
    uploads = _uploads(run, copied)
    shown, shown_on_each = _shown(run)
    collected = on_device | {"cohort's states": _collected(run)}
    return [
        *(
            _Moment(name, before | host, at_work | device)
            for name, host, device in uploads
        ),
        _Moment("storing states", after | copied, at_work),
        _Moment(
            "testing",
            after | {"cohort's states": shown},
            on_device | {"cohort's states": shown_on_each},
        ),
        # It is written as it was collected, without another copy.
        _Moment("saving", after | {"checkpoint": saved}, collected),
    ]


def _on_host(run: _Run, process: int, rounds: int) -> _Place:
    """Always on the host, after so many rounds."""
    images = _images(run)
    # A measurement of the process has the images in it already.
    measured = images * (1 + run.num_devices if run.shares_host else 1)
    return {
        "process, compiled programs": _live(max(0, process - measured)),
        "images": _live(images),
        "client states": _live(_kept(run, rounds)),
    }


def _images(run: _Run) -> int:
    data = run.federation.dataset
    return data.x_train.nbytes + data.x_test.nbytes


def _kept(run: _Run, rounds: int) -> int:
    """Bytes of states that the store keeps in memory, of clients that took part."""
    number, size = len(run.federation.train), run.config.cohort_size
    if run.store == "host":
        share = min(1.0, size * rounds / number)
        pairs = zip(run.programs, run.clients, strict=True)
        return sum(int(n * share) * compiled.client_bytes for compiled, n in pairs)
    if run.store == "disk" and rounds:
        written = sum(
            min(disk.WAITING, compiled.program.places) * compiled.client_bytes
            for compiled in run.programs
        )
        # Whom the next round needs and this one did not is read meanwhile.
        cohort = sum(run.pairs(run.places), _live(0)).sum()
        return written + int(cohort * (1 - size / number))
    return 0


def _on_device(run: _Run) -> _Place:
    """Always on each device."""
    states = sum(run.pairs(run.on_each(run.clients)), _live(0))
    always = {
        "images": _live(_images(run)),
        "client states": states if run.store == "device" else _live(0),
        "server": 2 * _stack(run.planner.server, 1),  # before and after
    }
    if not run.shares_host:  # those of a CPU are in the process
        code = sum(compiled.account.code_bytes for compiled in run.programs)
        always["compiled programs"] = _live(code)
    return always


def _saved(run: _Run) -> np.ndarray:
    """The arrays of a checkpoint."""
    saved = _stack(run.planner.server, 1)
    if run.store == "disk":
        return saved
    return saved + sum(run.pairs(run.clients), _live(0))


def _collected(run: _Run) -> np.ndarray:
    """The largest stack of states, which every device has on its way to the host."""
    if run.store != "device":
        return _live(0)
    stacks = [
        _stack(part, number)
        for compiled, number in zip(run.programs, run.clients, strict=True)
        for part in compiled.pair
    ]
    return max(stacks, key=np.sum)


def _uploads(run: _Run, copied: _Place) -> list[_Moment]:
    """What is there besides: training, gathering uploads, at the server's step.

    Args:
        run: whose.
        copied: what is on the host while they train.
    """
    stacks = lambda rows: [
        _stack(compiled.upload, number)
        for compiled, number in zip(run.programs, rows, strict=True)
    ]
    sent = max(stacks(run.on_each(run.places)), key=np.sum)
    most = run.config.most(len(run.federation.train))
    every = _stack(run.programs[0].upload, most)
    # Those that groups before have sent stay meanwhile.
    earlier = every if len(run.programs) > 1 else _live(0)
    work = _blocks(max(compiled.working_bytes for compiled in run.programs))
    server = 3 * _stack(run.planner.server, 1)
    train, gather, serve = "training", "gathering uploads", "the server's step"
    if gathering.in_memory(run.federation.mesh):  # once, in the memory of the host
        held, begun = {"uploads": every}, {"uploads": sent}
        return [
            _Moment(
                train, copied | {"uploads": earlier}, begun | {"working memory": work}
            ),
            _Moment(gather, held, begun),
            _Moment(serve, held, {"server": server}),
        ]
    wave = max(stacks(run.places), key=np.sum)
    training = {"uploads": sent + earlier, "working memory": work}
    return [
        _Moment(train, copied, training),
        # A wave's uploads on every device, once more without those that do not
        # count, then in order with all others'.
        _Moment(gather, {}, {"uploads": 2 * wave + every}),
        _Moment(serve, {}, {"uploads": every, "server": server}),
    ]


def _shown(run: _Run) -> tuple[np.ndarray, np.ndarray]:
    """States that tests look at, on the host and on each device: of two blocks."""
    if run.store == "device":
        return _live(0), _live(0)
    mesh = run.federation.mesh
    rows = [stores.block_size(run.store, mesh, number) for number in run.clients]
    sizes = zip(run.pairs(rows), run.pairs(run.on_each(rows)), strict=True)
    blocks = [
        size
        for size, number, at_once in zip(sizes, run.clients, rows, strict=True)
        for _ in range(min(2, -(-number // at_once)))
    ]
    largest = sorted(blocks, key=lambda block: block[0].sum())[-2:]
    on_host, on_each = zip(*largest, strict=True)
    return sum(on_host, _live(0)), sum(on_each, _live(0))
