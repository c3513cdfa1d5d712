"""Compiles the programs of a federation for a plan, also under other settings."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fedjax_mrl import tree
from fedjax_mrl.federation import Federation
from fedjax_mrl.planning import timing
from fedjax_mrl.simulation import shapes
from fedjax_mrl.simulation.group_program import GroupProgram
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig


class Compiled(NamedTuple):
    """A group's training program, compiled, and the shapes it works with.

    Attributes:
        program: of the round.
        pair: shapes of one member's private state and shared copy.
        upload: shapes of one member's upload.
        working_bytes: that the program needs for itself on each device.
    """

    program: GroupProgram
    pair: Any
    upload: Any
    working_bytes: int

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

    def __init__(self, federation: Federation) -> None:
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
        stats, reports = program.compile(pair, inputs)
        working = 0 if stats is None else stats.temp_size_in_bytes
        of_one = lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype)
        return Compiled(program, pair, jax.tree.map(of_one, reports.upload), working)

    def compile_all(
        self, config: RoundConfig, done: Callable[[], object] = lambda: None
    ) -> list[Compiled]:
        """The programs of all groups, compiled; `done` is called after each."""
        self._compile_starts()
        found = []
        for group in self.federation.groups:
            found.append(self.compile(group, config))
            done()
        return found

    def _compile_starts(self) -> None:
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
                working_bytes=working_bytes,
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
