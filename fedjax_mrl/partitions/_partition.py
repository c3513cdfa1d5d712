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


def some(values: Iterable) -> str:
    """The first ten, for messages."""
    listed = [str(value) for value in values]
    return ", ".join(listed[:10]) + (", ..." if len(listed) > 10 else "")
