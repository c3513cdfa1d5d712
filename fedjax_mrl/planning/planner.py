"""Compiles the programs of a federation for a plan, also under other settings."""

import math
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fedjax_mrl import tree
from fedjax_mrl.planning import timing
from fedjax_mrl.planning.subject import Subject
from fedjax_mrl.protocol import Tree
from fedjax_mrl.simulation import shapes
from fedjax_mrl.simulation.group_program import GroupProgram
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig


class Account(NamedTuple):
    """The compiler's account of a program, on each device.

    A compiler counts what is inside of a loop once. None where it says nothing.

    Attributes:
        seconds: that compiling took here.
        working_bytes: that the program needs for itself.
        code_bytes: of the program.
        flops: that it computes.
        bytes_accessed: of the device's memory.
        model_seconds: that the compiler thinks it takes, as far as it knows its parts.
        unmodelled: parts of it that the compiler has no time for.
    """

    seconds: float
    working_bytes: int = 0
    code_bytes: int = 0
    flops: float | None = None
    bytes_accessed: float | None = None
    model_seconds: float | None = None
    unmodelled: int = 0


class Compiled(NamedTuple):
    """A group's training program, compiled, and the shapes it works with.

    Attributes:
        program: of the round.
        pair: shapes of one member's private state and shared copy.
        upload: shapes of one member's upload.
        account: the compiler's.
    """

    program: GroupProgram
    pair: Tree
    upload: Tree
    account: Account

    @property
    def working_bytes(self) -> int:
        """Bytes that the program needs for itself on each device."""
        return self.account.working_bytes

    @property
    def client_bytes(self) -> int:
        """Bytes of a client's private state and shared copy."""
        return tree.num_bytes(self.pair)


class Planner:
    """Compiles the programs of a federation, also under other settings.

    Attributes:
        federation: what is to be run.
        server: shapes of the server's state.
        broadcast: shapes of a broadcast.
    """

    def __init__(self, federation: Subject) -> None:
        self.federation = federation
        known = shapes.of(federation.algorithm, federation.groups[0].model)
        self.server, self.broadcast = known.server, known.broadcast
        self._key = known.key

    def program(self, group: Group, config: RoundConfig) -> GroupProgram:
        """The group's program, as a round would make it."""
        return timing.program_of(self.federation, group, config)

    def compile(self, group: Group, config: RoundConfig) -> Compiled:
        """The group's program, compiled."""
        program = self.program(group, config)
        pair = shapes.of(self.federation.algorithm, group.model).pair
        stacked = lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype)
        inputs = timing.trial_inputs(jax.tree.map(stacked, self.broadcast))
        start = time.perf_counter()
        lowered = program.lower(pair, inputs)
        try:
            account = _account(program.compile(lowered), time.perf_counter() - start)
        except jax.errors.JaxRuntimeError as error:
            working = _wanted(str(error))
            if working is None:
                raise
            account = Account(time.perf_counter() - start, working)
        of_one = lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype)
        upload = jax.tree.map(of_one, lowered.out_info[1].upload)
        return Compiled(program, pair, upload, account)

    def uncompiled_like(
        self, made: Compiled, group: Group, config: RoundConfig
    ) -> Compiled:
        """Another group's program, with the needs of one that was compiled."""
        pair = shapes.of(self.federation.algorithm, group.model).pair
        return made._replace(program=self.program(group, config), pair=pair)

    def compile_all(
        self, config: RoundConfig, done: Callable[[], object] = lambda: None
    ) -> list[Compiled]:
        """The programs of all groups, compiled; `done` is called after each."""
        found = []
        for group in self.federation.groups:
            found.append(self.compile(group, config))
            done()
        return found

    def compile_starts(self) -> None:
        """Compiles what draws first weights, for what that takes of the process."""
        algorithm = self.federation.algorithm
        clients = [algorithm.client(g.model) for g in self.federation.groups]
        self._starts = [
            jax.jit(owner.init).lower(self._key).compile()
            for owner in (algorithm.server, *clients)
        ]

    def uncompiled(
        self, programs: list[Compiled], config: RoundConfig, working_bytes: int = 0
    ) -> list[Compiled]:
        """The programs under other settings, with so much working memory each."""
        return [
            old._replace(
                program=self.program(old.program.group, config),
                account=old.account._replace(working_bytes=working_bytes),
            )
            for old in programs
        ]

    def recompile(
        self, programs: list[Compiled], config: RoundConfig
    ) -> list[Compiled]:
        """The programs under other settings, of which only the largest is compiled."""
        now = self.federation.round_config
        same = (config.batch_size, config.chunk) == (now.batch_size, now.chunk)
        if same and config.chunk:
            # A program's need depends on how many members it computes at once.
            return [
                old._replace(program=self.program(old.program.group, config))
                for old in programs
            ]
        largest = max(programs, key=lambda compiled: compiled.working_bytes)
        new = self.compile(largest.program.group, config)
        return self.uncompiled(programs, config, new.working_bytes)


def _account(executable: jax.stages.Compiled, seconds: float) -> Account:
    """The compiler's account of what it made."""
    memory: Any = executable.memory_analysis()
    cost: Any = executable.cost_analysis() or {}
    return Account(
        seconds,
        0 if memory is None else memory.temp_size_in_bytes,
        0 if memory is None else memory.generated_code_size_in_bytes,
        cost.get("flops"),
        cost.get("bytes accessed"),
        *_modelled(cost.get("optimal_seconds", -1.0)),
    )


def _modelled(total: float) -> tuple[float | None, int]:
    """Seconds of the parts that a compiler knows, and the number of others.

    Args:
        total: the sum over all parts, where one that it does not know counts -1. What
            it knows of a step is far below a second.
    """
    unknown = max(0, math.ceil(-total))
    return (total + unknown) or None, unknown


def _wanted(said: str) -> int | None:
    """Bytes that a program needs that a compiler refused for it; None if it did not.

    The most that it speaks of: it also says how much there is.
    """
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    sizes = re.findall(r"(\d+(?:\.\d+)?)([KMGT])\b", said)
    if "RESOURCE_EXHAUSTED" not in said or not sizes:
        return None
    return int(max(float(number) * units[unit] for number, unit in sizes))
