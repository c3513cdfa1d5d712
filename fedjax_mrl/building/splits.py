"""Which examples every client has, and which of them it keeps out of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_mrl import partitions, rng
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.partitions import Partition


def split(config: RunConfig, data: Dataset, given: Any = None) -> Partition:
    """The images of every client: those given, or what the configuration says.

    Positions are in the data set as it was loaded, also where the configuration limits
    how many images are used.

    Raises:
        PartitionError: if there is no such split of these images.
        ConfigError: for a limit where the split is given.
    """
    seed, number = config.data_seed, config.num_clients
    train = partitions.subset("train", data.y_train, config.limit_train, seed)
    test = partitions.subset("test", data.y_test, config.limit_test, seed)
    labels = data.y_train, data.y_test
    if given is not None:
        made = partitions.given("the given split", given, number, *map(len, labels))
    elif config.partition.startswith("file:"):
        made = partitions.make(config.partition, *labels, number, seed)
    else:
        labels = data.y_train[train], data.y_test[test]
        made = partitions.make(config.partition, *labels, number, seed)
        return Partition(
            tuple(train[part] for part in made.train),
            tuple(test[part] for part in made.test),
        )
    _require_within("train", made.train, train, len(data.y_train))
    _require_within("test", made.test, test, len(data.y_test))
    return made


def _require_within(
    name: str, parts: Sequence[np.ndarray], kept: np.ndarray, number: int
) -> None:
    """Refuses limits beside a given split, unless it is that of a run with them."""
    inside = np.zeros(number, bool)
    inside[kept] = True
    if not all(inside[part].all() for part in parts):
        raise ConfigError(
            f"A given split says which {name} images are used; got --limit-{name} "
            f"{kept.size} as well. Leave that out."
        )


def hold_out(
    train: Sequence[np.ndarray], fraction: float, seed: int, first: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Splits every client's training part in what it trains on and what it keeps out.

    Args:
        train: positions by client.
        fraction: of each part to keep out; 0 keeps out nothing, else at least one
            example of a client that has two.
        seed: the data seed.
        first: the number of the first of these clients.
    """
    kept: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for client, part in enumerate(train, first):
        draw = rng.host(seed, rng.Purpose.SPLIT, 0, client)
        wanted = round(part.size * fraction)
        count = max(1, wanted) if fraction and part.size > 1 else 0
        chosen = np.sort(draw.permutation(part.size)[:count])
        kept.append(part[chosen])
        rest.append(np.delete(part, chosen))
    return rest, kept
