"""What must hold of every partition, and of one whose test parts may overlap."""

from collections.abc import Sequence

import numpy as np

from fedjax_mrl.partitions._partition import Partition, PartitionError, some


def check(
    text: str, partition: Partition, num_clients: int, num_train: int, num_test: int
) -> None:
    """Checks a partition, of whatever scheme, against what `make` promises.

    Raises:
        PartitionError: for positions that are out of range, not sorted or given
            twice, another number of clients, or one without training images.
    """
    _check_numbers(text, partition, num_clients)
    for part, num in zip(Partition._fields, (num_train, num_test), strict=True):
        arrays = getattr(partition, part)
        if any(a.dtype != np.int32 or (np.diff(a) < 0).any() for a in arrays):
            raise PartitionError(
                f"Positions must be int32 and sorted, but the {part} parts of "
                f"{text!r} are not."
            )
        _check_range(text, part, arrays, num)
        _check_disjoint(text, part, arrays)
    _check_everyone_trains(text, partition)


def check_given(
    text: str, partition: Partition, num_clients: int, num_train: int, num_test: int
) -> None:
    """Checks a partition whose test parts may overlap."""
    _check_numbers(text, partition, num_clients)
    for part, num in zip(Partition._fields, (num_train, num_test), strict=True):
        _check_range(text, part, getattr(partition, part), num)
    _check_disjoint(text, "train", partition.train)
    # Equal parts are one object: of a common test part only one is looked at.
    for part in {id(part): part for part in partition.test}.values():
        _check_disjoint(text, "test", [part])
    if not any(part.size for part in partition.test):
        raise PartitionError(
            f"Some client must have a test image, but in {text!r} none has one; give "
            "test parts, or None for all test images."
        )
    _check_everyone_trains(text, partition)


def _check_numbers(text: str, partition: Partition, num_clients: int) -> None:
    for part, arrays in partition._asdict().items():
        if len(arrays) != num_clients:
            raise PartitionError(
                f"A partition must have one {part} part a client, but {text!r} has "
                f"{len(arrays)} for {num_clients} clients."
            )


def _check_range(text: str, part: str, arrays: Sequence[np.ndarray], num: int) -> None:
    low = min((int(a.min()) for a in arrays if a.size), default=0)
    high = max((int(a.max()) for a in arrays if a.size), default=0)
    if low < 0 or high >= num:
        raise PartitionError(
            f"Positions must be in [0, {num}), but the {part} parts of {text!r} "
            f"reach from {low} to {high}."
        )


def _check_disjoint(text: str, part: str, arrays: Sequence[np.ndarray]) -> None:
    position, count = np.unique(np.concatenate(arrays), return_counts=True)
    if (count > 1).any():
        raise PartitionError(
            f"No image may occur twice, but in the {part} parts of {text!r} "
            f"{_counted('position', position[count > 1], 'does', 'do')}."
        )


def _check_everyone_trains(text: str, partition: Partition) -> None:
    empty = [client for client, part in enumerate(partition.train) if not part.size]
    if empty:
        raise PartitionError(
            "Every client must have a training image, but with "
            f"{text!r} {_counted('client', empty, 'has', 'have')} none; use fewer "
            "clients."
        )


def _counted(noun: str, values: Sequence | np.ndarray, one: str, more: str) -> str:
    """A noun with its numbers and the verb that agrees with it."""
    several = len(values) > 1
    return f"the {noun}{'s' * several} {some(values)} {more if several else one}"
