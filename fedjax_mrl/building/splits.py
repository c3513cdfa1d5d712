"""Which examples every client has, and which of them it keeps out of training."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_mrl import partitions, rng
from fedjax_mrl.config import NATURAL, ConfigError, RunConfig
from fedjax_mrl.data.dataset import Clients, Dataset
from fedjax_mrl.partitions import Owners, Partition, PartitionError, natural

FEW_TESTS = 5  # with fewer the user is warned


def counted(config: RunConfig, data: Dataset) -> RunConfig:
    """The configuration with the number of its clients, also where the data say it.

    Raises:
        PartitionError: if the data are to name the clients and do not.
    """
    if config.num_clients:
        return config
    if data.clients is None:
        raise PartitionError(natural.UNNAMED)
    return dataclasses.replace(config, num_clients=len(data.clients.names))


def split(config: RunConfig, data: Dataset, given: object = None) -> Partition:
    """The images of every client: those given, or what the configuration says.

    Positions are in the data set as it was loaded, also where the configuration limits
    how many images are used.

    Raises:
        PartitionError: if there is no such split of these images.
        ConfigError: for a limit where the split is given.
    """
    seed, number = config.data_seed, config.num_clients
    train, test = _kept(config, data)
    labels = data.y_train, data.y_test
    if given is not None:
        made = partitions.given("the given split", given, number, *map(len, labels))
    elif config.partition.startswith("file:"):
        made = partitions.make(config.partition, *labels, number, seed)
    else:
        labels = data.y_train[train], data.y_test[test]
        owners = _owners(data.clients, train, test)
        try:
            made = partitions.make(config.partition, *labels, number, seed, owners)
        except PartitionError as error:
            hint = f" {_named(data.clients)}" if _unused(config, data) else ""
            raise PartitionError(f"{error}{hint}") from None
        # A common test part is one array, not N copies.
        parts = {id(part): test[part] for part in made.test}
        return Partition(
            tuple(train[part] for part in made.train),
            tuple(parts[id(part)] for part in made.test),
        )
    _require_within("train", made.train, train, len(data.y_train))
    _require_within("test", made.test, test, len(data.y_test))
    return made


def notes(config: RunConfig, data: Dataset, given: object = None) -> list[str]:
    """Sentences on clients that the data name, where they are not all of the split."""
    if data.clients is None or given is not None:
        return []
    found, wanted = len(data.clients.names), config.num_clients
    if _unused(config, data):
        return [f"{_named(data.clients)} Now they are split by {config.partition}."]
    if config.partition == NATURAL and wanted < found:
        first, last = data.clients.names[0], data.clients.names[wanted - 1]
        return [
            f"Of the {found} clients that the data name the first {wanted} take part, "
            f"{first} to {last}; --num-clients {found} takes all."
        ]
    return []


def require_tests(made: Partition, number: int) -> None:
    """Refuses a split in which no client that takes part can be tested.

    Args:
        made: the split.
        number: of the clients that take part, the first ones.

    Raises:
        PartitionError: if all test examples are of clients that are held out.
    """
    if not any(part.size for part in made.test[:number]):
        raise PartitionError(
            "Some client that takes part must have a test example, but those of this "
            f"split are all of the {len(made.test) - number} clients that are held "
            "out. Hold out fewer, or give others test examples."
        )


def small_tests(made: Partition, number: int, names: Sequence[str]) -> list[str]:
    """A sentence on clients that have very few test examples, if there are any.

    One without test examples is in no mean, and so no cause for doubt.

    Args:
        made: the split.
        number: of the clients that take part, the first ones.
        names: of the clients, if the data name them.
    """
    sizes = [part.size for part in made.test[:number]]
    few = [client for client, size in enumerate(sizes) if 0 < size < FEW_TESTS]
    if not few:
        return []
    fewest = min(few, key=sizes.__getitem__)
    name = f" ({names[fewest]})" if names else ""
    return [
        f"{len(few)} of {number} clients have fewer than {FEW_TESTS} test examples, "
        f"client {fewest}{name} {sizes[fewest]}, so that accuracies of "
        "single clients say little: use more test examples or fewer clients."
    ]


def client_names(config: RunConfig, data: Dataset) -> tuple[str, ...]:
    """The names of the clients by number, if the data name them."""
    if data.clients is None or config.partition != NATURAL:
        return ()
    return data.clients.names[: config.num_clients]


def _unused(config: RunConfig, data: Dataset) -> bool:
    """Whether the data name clients and the split pays no heed to it."""
    other = config.partition != NATURAL and not config.partition.startswith("file:")
    return data.clients is not None and other


def _named(clients: Clients | None) -> str:
    number = 0 if clients is None else len(clients.names)
    return (
        f"The data name the client of every example: --partition natural takes these "
        f"{number} as clients."
    )


def _kept(config: RunConfig, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training and test images that are used.

    Where the clients are those of the data, limits are of the examples of those that
    take part.
    """
    owners: tuple[Any, Any] = (None, None)
    if config.partition == NATURAL and data.clients is not None:
        owners = data.clients.train, data.clients.test
    labels = data.y_train, data.y_test
    limits = config.limit_train, config.limit_test
    kept = []
    for part, y, limit, whose in zip(
        ("train", "test"), labels, limits, owners, strict=True
    ):
        if limit is None or whose is None:
            kept.append(partitions.subset(part, y, limit, config.data_seed))
            continue
        there = np.flatnonzero(whose < config.num_clients).astype(np.int32)
        chosen = partitions.subset(part, y[there], limit, config.data_seed)
        kept.append(there[chosen])
    return kept[0], kept[1]


def _owners(
    clients: Clients | None, train: np.ndarray, test: np.ndarray
) -> Owners | None:
    """Whose the images that are used are."""
    if clients is None:
        return None
    owners_test = None if clients.test is None else clients.test[test]
    return Owners(len(clients.names), clients.train[train], owners_test)


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
