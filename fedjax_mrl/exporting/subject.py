"""Whose model is exported: a client that takes part, or one that came later."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.exporting import description as descriptions
from fedjax_mrl.exporting.description import Choice
from fedjax_mrl.protocol import Algorithm, Array, Tree
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import State, read_clients

if TYPE_CHECKING:
    from fedjax_mrl.personalized import Personalized
    from fedjax_mrl.trained import Trained


_PATH = (str, os.PathLike)


class Subject(NamedTuple):
    """A client, and what its model consists of.

    Attributes:
        federation: that it belongs to.
        state: of the federation, of which the model is.
        choice: who, and how it infers.
        group: the client's.
        networks: gives its private state, and a shared part.
        digest: gives that of the state.
        data: what its examples are like.
        ask: examples [B, ...] as stored -> logits [B, L].
        lowered: a lowering of convolutions -> the method and groups with it.
        newcomer: how it was trained, if it came later.
    """

    federation: "Trained"
    state: State
    choice: Choice
    group: Group
    networks: Callable[[], tuple[Tree, Tree]]
    digest: Callable[[], str]
    data: Dataset
    ask: Callable[[Array], np.ndarray]
    lowered: Callable[[str], tuple[Algorithm, list[Group]]]
    newcomer: dict[str, Any] | None = None


def participant(federation: "Trained", choice: Choice) -> Subject:
    """A client that takes part.

    Args:
        federation: with a `state`.
        choice: of whom, as `description.choose` checked it.
    """
    state = federation.state
    assert state is not None

    def ask(x: Array) -> np.ndarray:
        _, head, point = choice
        return federation.predict(x, choice.client, head=head, point=point, state=state)

    return Subject(
        federation,
        state,
        choice,
        descriptions.group_of(federation.groups, choice.client),
        lambda: _networks(federation, state, choice),
        lambda: federation.digester()(state)[0],
        federation.dataset,
        ask,
        federation.pieces.assembler.lowered,
    )


def newcomer(come: "Personalized", client: int, head: str) -> Subject:
    """A client that came later, as it was trained.

    Args:
        come: those that came.
        client: one of them.
        head: how it infers.
    """
    asked = come.asked
    told = {
        "shared": asked.shared,
        "epochs": int(asked.epochs),
        "learning_rate": come.learning_rate,
        "examples": come.num_train(client),
        "data": os.fspath(asked.data) if isinstance(asked.data, _PATH) else None,
    }
    return Subject(
        come.federation,
        come.state,
        Choice(client, head, "local"),
        come.group_of(client),
        lambda: come.states[client],
        lambda: come.digest,
        come.data,
        lambda x: come.predict(x, client, head=head),
        come.lowered,
        told,
    )


def _networks(federation: "Trained", state: State, choice: Choice) -> tuple[Tree, Tree]:
    """The client's private state, and the shared part at the chosen point."""
    some = np.array([choice.client])
    read = read_clients(state, federation.groups, some, federation.store)
    private, shared = read[choice.client]
    return private, shared if choice.point == "local" else federation.broadcast(state)
