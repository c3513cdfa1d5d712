"""The clients that the data themselves name, such as writers, patients or devices.

Client k is the k-th of the ids, whole numbers in order of size and text in that of its
characters. It trains on its own examples, and is tested on its own test examples if the
data say whose those are, else on all of them.
"""

import itertools

import numpy as np

from fedjax_mrl.partitions import Partition, PartitionError
from fedjax_mrl.partitions._partition import Owners, some

__all__ = ["natural"]

UNNAMED = (
    "The partition 'natural' needs data that name the client of every example, but "
    "these do not; give the array clients (fm.arrays, npz), folders of LEAF, or "
    "another partition."
)


def natural(
    y_train: np.ndarray,
    y_test: np.ndarray,
    num_clients: int,
    argument: float | None,
    rng: np.random.Generator,
    owners: Owners | None,
) -> Partition:
    """Gives every client the examples that are its own in the data.

    Args:
        y_train: labels of the training images [n]; not looked at.
        y_test: labels of the test images [m]; only their number counts.
        num_clients: N, at most as many as the data name; fewer are the first ones.
        argument: must be None.
        rng: not used.
        owners: whose each image is.

    Raises:
        PartitionError: if the data name no clients, or fewer.
    """
    del y_train, rng
    if argument is not None:
        raise PartitionError(
            f"The partition 'natural' takes no argument, but it is {argument:g}; "
            "write 'natural'."
        )
    if owners is None:
        raise PartitionError(UNNAMED)
    if num_clients > owners.number:
        raise PartitionError(
            f"The data name {owners.number} clients, so 'natural' has no more; got "
            f"--num-clients {num_clients}. Give --num-clients {owners.number}, or less "
            "for the first of them."
        )
    train = _parts(owners.train, num_clients)
    empty = [number for number, part in enumerate(train) if not part.size]
    if empty:
        raise PartitionError(
            f"Every client must have a training image, but {some(empty)} have none "
            "left; raise --limit-train, or use fewer clients."
        )
    if owners.test is None:
        common = np.arange(y_test.size, dtype=np.int32)
        return Partition(train, (common,) * num_clients)
    test = _parts(owners.test, num_clients)
    if not any(part.size for part in test):
        raise PartitionError(
            f"Some client must have a test image, but none of the first {num_clients} "
            "has one; use more clients, or raise --limit-test."
        )
    return Partition(train, test)


def _parts(numbers: np.ndarray, num_clients: int) -> tuple[np.ndarray, ...]:
    """Positions of each of the first clients, in order."""
    order = np.argsort(numbers, kind="stable").astype(np.int32)
    ends = np.searchsorted(numbers[order], np.arange(num_clients + 1))
    return tuple(order[a:b] for a, b in itertools.pairwise(ends))
