"""Which client has which architecture."""

from typing import NamedTuple

import numpy as np

from fedjax_mrl.protocol import Model


class Group(NamedTuple):
    """The clients that share one architecture; one compiled program serves them."""

    name: str
    model: Model
    clients: np.ndarray  # ids, ascending, int32 [N_g]


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
