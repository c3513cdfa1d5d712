"""The type of a partition, and its error."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class PartitionError(ValueError):
    """A partition that cannot be made, or a file that holds none."""


class Partition(NamedTuple):
    """The images of every client.

    Attributes:
        train: of each client, int32 positions into the training images, sorted.
        test: of each client, int32 positions into the test images, sorted.
    """

    train: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]


class Owners(NamedTuple):
    """Whose each image is, where the data name their clients.

    Attributes:
        number: of clients.
        train: int32 [n], the client of each training image, from 0.
        test: int32 [m], of each test image, or None for one common test set.
    """

    number: int
    train: np.ndarray
    test: np.ndarray | None


def some(values: Iterable) -> str:
    """The first ten, for messages."""
    listed = [str(value) for value in values]
    return ", ".join(listed[:10]) + (", ..." if len(listed) > 10 else "")
