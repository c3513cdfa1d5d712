"""Clients that came to a trained federation, and what became of them."""

import dataclasses
import functools
import os
import pathlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl import numerics
from fedjax_mrl.data import own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.exporting import description as descriptions
from fedjax_mrl.exporting import subject, writing
from fedjax_mrl.history import frame
from fedjax_mrl.protocol import Algorithm, Tree
from fedjax_mrl.results import Row
from fedjax_mrl.simulation import prediction
from fedjax_mrl.simulation.evaluation import Scores
from fedjax_mrl.simulation.joining import Newcomers
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import ConsumedError, State, named, require_live

if TYPE_CHECKING:
    import pandas

    from fedjax_mrl.trained import Trained


MODES = ("fine-tuned", "frozen")
EPOCHS = 10  # of a newcomer by default


class Asked(NamedTuple):
    """What is asked for; see `Federation.personalize`."""

    clients: Sequence[int] | None = None
    epochs: int = EPOCHS
    shared: str = MODES[0]
    learning_rate: float | None = None
    data: Any = None
    model: Any = None


class Come(NamedTuple):
    """Newcomers, and the methods that they are trained by.

    Attributes:
        asked: how they are trained.
        newcomers: who they are.
        algorithm: the federation's method, built for their models.
        alone: training without it.
        data: theirs.
        augmentation: what training does with it.
        prepare: of test examples.
        batch_size: B.
        lowered: a lowering of convolutions -> the method, and newcomers' groups.
        trains_shared: whether training moves the shared part, unless it is frozen.
        programs: name of a group -> its inference.
    """

    asked: Asked
    newcomers: Newcomers
    lowered: Callable[[str], tuple[Algorithm, list[Group]]]
    algorithm: Algorithm
    alone: Algorithm
    data: Dataset
    augmentation: str
    prepare: Any
    batch_size: int
    trains_shared: bool = True
    programs: Mapping[str, Callable] = types.MappingProxyType({})

    def group_of(self, client: int) -> Group:
        """The group of a newcomer."""
        return descriptions.group_of(self.groups, client)

    @property
    def groups(self) -> Sequence[Group]:
        """Theirs."""
        return self.newcomers.population.groups

    def ask(
        self, client: int, networks: tuple[Tree, Tree], x: ArrayLike, head: str
    ) -> np.ndarray:
        """Logits of new examples from what a newcomer became."""
        prediction.require_known("head", head, self.algorithm.heads)
        x, single = own.like(self.data, x, self.augmentation)
        private, shared = networks
        program = self.programs[self.group_of(client).name]
        ask = functools.partial(program, shared, private, head=head)
        logits = prediction.in_blocks(ask, x)
        return logits[0] if single else logits


@dataclasses.dataclass(frozen=True, eq=False)
class Personalized:
    """Clients that came to a federation after its rounds.

    Attributes:
        round: rounds that the federation had played.
        asked: how they were trained.
        heads: inference modes; the first one is the headline.
        clients: their numbers, ascending.
        trains_shared: whether the method's clients train what is shared; if not, both
            ways of `shared` are the same.
        states: what each became, (private state, copy of the shared part), on the host.
        federation: that they came to.
        state: of the federation then.
    """

    round: int
    asked: Asked
    heads: tuple[str, ...]
    clients: tuple[int, ...]
    trains_shared: bool
    states: dict[int, tuple[Tree, Tree]]
    federation: "Trained"
    state: State
    _come: Come
    _before: Scores
    _after: Scores
    _alone: Scores

    @property
    def trained(self) -> bool:
        """Whether anything could be trained: not where all is shared, and frozen."""
        private = any(jax.tree.leaves(own) for own, _ in self.states.values())
        return self.asked.shared != "frozen" or private

    def rows(self) -> list[Row]:
        """One row for each client and inference mode.

        `before` is the accuracy with the shared part as it was received and private
        parts untrained, `after` that after training, and `alone` that of the same
        architecture trained without the federation for as long from the same weights,
        in its only mode; `gain` is after - alone. None without test examples.
        """
        return [
            self._row(client, h, head)
            for client in self.clients
            for h, head in enumerate(self.heads)
        ]

    def frame(self) -> "pandas.DataFrame":
        """`rows` as a pandas DataFrame.

        Raises:
            ImportError: without pandas; says how to get it.
        """
        return frame(self.rows())

    def mean(self, head: str | None = None) -> Row:
        """The mean over clients with test examples, by default of the headline.

        Raises:
            ValueError: for another head.
        """
        head = self.heads[0] if head is None else head
        prediction.require_known("head", head, self.heads)
        found = [row for row in self.rows() if row["head"] == head and row["num_test"]]
        columns = ("before", "after", "alone", "gain")
        if not found:
            return dict.fromkeys(columns)
        return {name: float(np.mean([row[name] for row in found])) for name in columns}

    def networks(self, client: int) -> dict[str, Tree]:
        """What a client holds, as `Federation.networks`.

        Raises:
            ValueError: for one that did not come.
        """
        return named(*self.states[self._known(client)])

    def predict(
        self, x: ArrayLike, client: int, *, head: str | None = None
    ) -> np.ndarray:
        """What a client that came says of new examples, as `Federation.predict`.

        Raises:
            ValueError: for examples that do not fit, a client that did not come, or an
                unknown head.
        """
        networks = self.states[self._known(client)]
        with numerics.fixed(self.federation.config.precision):
            return self._come.ask(client, networks, x, head or self.heads[0])

    def export(
        self,
        path: str | os.PathLike,
        client: int,
        *,
        head: str | None = None,
        formats: str | Iterable[str] | None = None,
        overwrite: bool = False,
    ) -> pathlib.Path:
        """Writes the model of a client that came, as `Federation.export`.

        Args:
            path: the folder, new or empty; `fm.load_model` reads it.
            client: its number.
            head: the inference mode; by default the first one.
            formats: some of "jax", "safetensors" and "torch"; by default the first two.
            overwrite: replace the model that is there.

        Returns:
            The folder.

        Raises:
            ValueError: for a client that did not come, or what cannot be exported.
            ConsumedError: if the federation has played on since: the digest of the
                round that they came to can no longer be told.
            OSError: if it cannot be written; then nothing is.
        """
        try:
            require_live(self.state)
        except ConsumedError:
            raise ConsumedError(
                "The federation has played on since these clients came. Export them "
                "before, or call personalize() again."
            ) from None
        head = self.heads[0] if head is None else head
        prediction.require_known("head", head, self.heads)
        model = subject.newcomer(self, self._known(client), head)
        return writing.export(model, path, formats=formats, overwrite=overwrite)

    @functools.cached_property
    def digest(self) -> str:
        """Of the federation's state then, hashed once for all who came."""
        return self.federation.digester()(self.state)[0]

    @property
    def learning_rate(self) -> float:
        """That they were trained at."""
        rate = self.asked.learning_rate
        return float(self.federation.config.learning_rate if rate is None else rate)

    def num_train(self, client: int) -> int:
        """How many examples a client that came trained with."""
        return int(self._come.newcomers.population.train[client].size)

    @property
    def data(self) -> Dataset:
        """Theirs."""
        return self._come.data

    @property
    def lowered(self) -> Callable[[str], tuple[Algorithm, list[Group]]]:
        """A lowering of convolutions -> the method, and their groups."""
        return self._come.lowered

    def group_of(self, client: int) -> Group:
        """The group of a client that came."""
        return self._come.group_of(client)

    def __repr__(self) -> str:
        mean = self.mean()
        text = f"Personalized({len(self.clients)} clients, {self.asked.shared} for "
        text += f"{self.asked.epochs} epochs after round {self.round}"
        if mean["after"] is None:
            return f"{text}; without test examples)"
        cells = (f"{name} {mean[name]:.4f}" for name in ("before", "after", "alone"))
        return f"{text}; mean accuracy ({self.heads[0]}) {', '.join(cells)})"

    def _known(self, client: int) -> int:
        if not prediction.is_whole(client) or client not in self.states:
            listed = ", ".join(map(str, self.clients))
            raise ValueError(f"client must be one that came: {listed}; got {client!r}.")
        return int(client)

    def _row(self, client: int, h: int, head: str) -> Row:
        tested = int(self._after.num_test[client])
        accuracy = lambda scores, h: float(scores.accuracy[0, h, client])
        before = after = lonely = gain = None
        if tested:
            before, after = accuracy(self._before, h), accuracy(self._after, h)
            lonely = accuracy(self._alone, 0)
            gain = after - lonely
        return {
            "client": client,
            "architecture": self.group_of(client).name,
            "head": head,
            "num_train": self.num_train(client),
            "num_test": tested,
            "before": before,
            "after": after,
            "alone": lonely,
            "gain": gain,
        }
