"""What a plan asks of a federation, and one for devices that are only described."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import numerics, programs, sharding
from fedjax_mrl.building import pieces
from fedjax_mrl.building.values import Values
from fedjax_mrl.config import RunConfig
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.ops import backend
from fedjax_mrl.protocol import Algorithm
from fedjax_mrl.simulation.population import Group, Population
from fedjax_mrl.simulation.settings import RoundConfig


class Subject(Protocol):
    """What is planned; a `Federation` is one."""

    config: RunConfig
    mesh: Mesh

    @property
    def dataset(self) -> Dataset: ...

    @property
    def train(self) -> Sequence[np.ndarray]: ...

    @property
    def groups(self) -> Sequence[Group]: ...

    @property
    def algorithm(self) -> Algorithm: ...

    @property
    def population(self) -> Population: ...

    @property
    def round_config(self) -> RoundConfig: ...


class Elsewhere(pieces.Resolved):
    """A federation on devices that are only described; it cannot be played.

    Everything that follows from the platform (lowerings, chunks, how images are
    stored) is as on those devices.

    Args:
        config: what to run there.
        mesh: the devices.
        values: what was given as a value.

    Raises:
        ValueError: as `Federation`.
    """

    @numerics.fixed()
    def __init__(
        self, config: RunConfig, mesh: Mesh, values: Values | None = None
    ) -> None:
        self.mesh = mesh
        platform = mesh.devices.flat[0].platform
        with backend.traced_for(platform):
            self.pieces = pieces.resolve(config, values or Values())
        self.config = self.pieces.config
        data = self.dataset
        examples = programs.stored_for(platform, data.x_train, data.y_train)
        shapes = sharding.shapes(examples, sharding.everywhere(mesh))
        found = self.pieces
        self.population = Population(found.groups, shapes, found.train, found.holdout)
