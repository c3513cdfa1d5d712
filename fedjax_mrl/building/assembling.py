"""Puts method and models together, for any lowering and for clients that come later."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import algorithms, discovery, references
from fedjax_mrl.algorithms import Method
from fedjax_mrl.building import contract, from_config
from fedjax_mrl.config import RunConfig
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.models import own
from fedjax_mrl.models.own import Architecture
from fedjax_mrl.protocol import Algorithm, Setup
from fedjax_mrl.simulation import population
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.strategies import Strategy


class Assembler(NamedTuple):
    """Builds the method and the clients' models of a configuration.

    Attributes:
        config: of the federation.
        method: its constructor.
        options: its hyper-parameters.
        architectures: by entry of `models` and `shared_model`.
        data: what is trained on.
        width: D, of the private models' representations.
        tasks: as of `Federation`.
        chosen: how each architecture is computed, by its name.
        fallback: how others would be.
    """

    config: RunConfig
    method: Method
    options: Mapping[str, Any]
    architectures: Mapping[str, Architecture]
    data: Dataset
    width: int
    tasks: Mapping[str, Sequence[int]] | None
    chosen: Mapping[str, Strategy]
    fallback: Strategy

    @property
    def is_own(self) -> bool:
        """Whether the method is the user's own."""
        return self.config.algorithm not in algorithms.names()

    def setup(self, lowering: str, data: Dataset | None = None) -> Setup:
        """What a method is built from; of other data than the federation's if given."""
        shared = self.architectures[self.config.shared_model]
        data = self.data if data is None else data
        return from_config.setup(self.config, data, shared, self.width, lowering)

    def build(self, method: Method | str, options: Mapping[str, Any]) -> Algorithm:
        """A method for the models of this assembler."""
        each = from_config.by_group(self.chosen, self.tasks)
        return from_config.algorithm(algorithms.get(method), options, self.setup, each)

    def assemble(self) -> tuple[Algorithm, list[Group]]:
        """The method, and all clients by architecture and task, also those held out."""
        of = from_config.sample(self.data)
        groups = from_config.groups(
            self.config, self.architectures, of, self.chosen, self.tasks
        )
        return self.build(self.method, self.options), groups

    def lowered(self, lowering: str) -> tuple[Algorithm, list[Group]]:
        """Method and clients that take part, with convolutions computed one way."""
        return self._lowered(lowering, 0)

    def lowered_newcomers(self, lowering: str) -> tuple[Algorithm, list[Group]]:
        """The same with the clients that do not take part."""
        return self._lowered(lowering, 1)

    def _lowered(self, lowering: str, part: int) -> tuple[Algorithm, list[Group]]:
        alike = dict.fromkeys(self.chosen, Strategy(lowering, 1))
        algorithm, everyone = self._replace(chosen=alike).assemble()
        number = self.config.num_training_clients
        return algorithm, population.part(everyone, number)[part]

    def newcomer(self, client: int, model: Any = None) -> "tuple[Assembler, Group]":
        """What a client that is not in the federation is built by, and its group.

        Args:
            client: its number, from N on.
            model: its architecture, as an entry of `Federation(models=...)`; None is
                the one that is its turn.

        Raises:
            ValueError: if there is no such model, or the method cannot work with it.
        """
        known, models = dict(self.architectures), self.config.models
        if model is not None:
            models = (model,) if isinstance(model, str) else ("the newcomer's",)
        config = dataclasses.replace(
            self.config, models=models, num_clients=client + 1, held_out_clients=1
        )
        models = config.models  # which has the paths of own files in full
        if models[0] not in known:
            found = own.architecture(models[0] if isinstance(model, str) else model)
            taken = {other.name for other in known.values()}
            name = discovery.unused(found.name, taken)
            known[models[0]] = found._replace(name=name)
        names = [known[entry].name for entry in models]
        later = self._replace(
            config=config,
            architectures=known,
            chosen={name: self.chosen.get(name, self.fallback) for name in names},
        )
        algorithm, everyone = later.assemble()
        (group,) = population.part(everyone, client)[1]
        later.require_fit(algorithm, [group])
        return later, group

    def require_fit(self, algorithm: Algorithm, groups: Sequence[Group]) -> None:
        """Refuses a method that cannot work with a model; looks closely at own ones.

        Raises:
            ValueError: as `Algorithm.client` and `contract.require`.
        """
        setup = self.setup(self.fallback.lowering)
        for group in groups:
            algorithm.client(group.model)
            if self.is_own:
                name = references.short(self.config.algorithm)
                contract.require(name, algorithm, group.model, self.data, setup)

    def require_tasks(self, algorithm: Algorithm) -> None:
        """Refuses tasks of clients' own where what travels is about classes.

        Raises:
            ConfigError: as `contract.require_no_class_travels`.
        """
        if self.tasks is None or len(self.tasks) < 2:
            return
        more = self.data._replace(label_names=(*self.data.label_names, "one more"))
        setup = self.setup(self.fallback.lowering, more)
        wider = algorithms.build(self.method, setup, **self.options)
        contract.require_no_class_travels(self.config.algorithm, algorithm, wider)
