"""All clients of a federation: their architectures and their training examples."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_mrl.protocol import Examples, Model


class Group(NamedTuple):
    """The clients that share architecture and task; one compiled program serves them.

    A task is a way to label the same images: `labels` maps a class of the data set
    to a class of the task, and the model has as many classes as the task.
    """

    name: str
    model: Model
    clients: np.ndarray  # ids, ascending, int32 [N_g]
    labels: np.ndarray | None = None  # int32 [L]; None keeps the data set's classes

    def relabel(self, examples: Examples) -> Examples:
        """The examples as the group's task labels them."""
        if self.labels is None:
            return examples
        return examples._replace(y=jnp.asarray(self.labels, jnp.int32)[examples.y])


class Population(NamedTuple):
    """All clients, and the examples that they train on.

    Attributes:
        groups: the clients of each architecture; together they are all clients.
        examples: the training images of all.
        train: for each client, the positions it trains on.
        holdout: for each client, positions kept out of training; empty if none are.
    """

    groups: Sequence[Group]
    examples: Examples
    train: Sequence[np.ndarray]
    holdout: Sequence[np.ndarray] = ()


def part(groups: Sequence[Group], number: int) -> tuple[list[Group], list[Group]]:
    """Parts groups into the clients below a number and those from it on.

    Groups keep their order; those that have no client left are left out.
    """

    def among(wanted: Callable[[np.ndarray], np.ndarray]) -> list[Group]:
        parts = [g._replace(clients=g.clients[wanted(g.clients)]) for g in groups]
        return [group for group in parts if group.clients.size]

    return among(lambda ids: ids < number), among(lambda ids: ids >= number)


def assign(num_clients: int, models: list[Model]) -> list[Group]:
    """Gives client k the model k mod len(models) and groups clients by model.

    Args:
        num_clients: N, at least 1.
        models: one for each place of the cycle; equal names are one architecture.

    Returns:
        Groups in order of first appearance; those that got no client are left out.

    Raises:
        ValueError: for no clients or no models.
    """
    if num_clients < 1 or not models:
        raise ValueError(
            "A federation needs at least one client and one model; got "
            f"{num_clients} clients and {len(models)} models."
        )
    ids = np.arange(num_clients, dtype=np.int32)
    names = [models[i % len(models)].name for i in ids]
    by_name = {model.name: model for model in reversed(models)}
    return [
        Group(name, by_name[name], ids[[n == name for n in names]])
        for name in dict.fromkeys(names)
    ]
