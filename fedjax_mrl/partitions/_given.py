"""A split that the user made, in any usual form, brought to a `Partition`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_mrl.partitions._checks import check_given
from fedjax_mrl.partitions._partition import Partition, PartitionError, some

_FORMS = (
    "give a pair (train, test) of lists with one array of positions a client, or "
    "only the training parts"
)
_LARGEST = 2**31


def given(
    text: str, split: object, num_clients: int, num_train: int, num_test: int
) -> Partition:
    """Takes a split that the user made, in any usual form, and checks it.

    Test parts may overlap, and be one common set; only training parts may not.

    Args:
        text: what to call it in messages.
        split: as of `normalise`.
        num_clients: N.
        num_train: n, of the training images.
        num_test: m, of the test images.

    Raises:
        PartitionError: for what is no split, or does not fit the images and clients.

    Example:
        >>> given("mine", {0: [5, 2], 1: [3]}, num_clients=2, num_train=6, num_test=2)
        ... # doctest: +NORMALIZE_WHITESPACE
        Partition(train=(array([2, 5], dtype=int32), array([3], dtype=int32)),
            test=(array([0, 1], dtype=int32), array([0, 1], dtype=int32)))
    """
    partition = normalise(split, num_clients, num_test)
    check_given(text, partition, num_clients, num_train, num_test)
    return partition


def normalise(given: Any, num_clients: int, num_test: int) -> Partition:
    """Brings a split to sorted int32 positions; ranges are checked later.

    Args:
        given: a `Partition` or pair (train, test), or only the training parts. Parts
            are a list, tuple or dict (client -> positions, from 0) with positions of
            any integer type and in any order. As test, one array of positions is for
            all clients alike, and None, or nothing, is all test images.
        num_clients: N.
        num_test: of the test images.

    Raises:
        PartitionError: for another form, type or number of clients.
    """
    train, test = given, None
    if _is_pair(given):
        train, test = given
    train = _parts(train, "train", num_clients)
    if test is None:
        test = np.arange(num_test)
    if _is_vector(test):
        # One array, not N copies.
        test = (_positions(test, "the common test part"),) * num_clients
    else:
        test = _parts(test, "test", num_clients)
    return Partition(train, test)


def _is_pair(given: Any) -> bool:
    """Whether it has a training and a test half, and is not two clients' parts."""
    if isinstance(given, Partition):
        return True
    if not isinstance(given, Sequence) or len(given) != 2:
        return False
    # One client's part holds numbers, a half holds parts.
    return isinstance(given[0], Mapping) or (
        _is_list(given[0]) and any(_is_list(part) for part in given[0])
    )


def _is_list(value: Any) -> bool:
    if isinstance(value, (str, bytes)):
        return False
    return isinstance(value, Collection) or np.ndim(value) > 0


def _is_vector(value: Any) -> bool:
    return (
        _is_list(value)
        and not isinstance(value, Mapping)
        and not any(_is_list(entry) for entry in value)
    )


def _parts(parts: Any, what: str, num_clients: int) -> tuple[np.ndarray, ...]:
    if isinstance(parts, Mapping):
        parts = _by_client(parts, what, num_clients)
    if not _is_list(parts) or isinstance(parts, (set, frozenset)):
        raise PartitionError(
            f"The {what} parts of a split must be a list or a dict with positions of "
            f"each client; got {type(parts).__name__}. To make one, {_FORMS}."
        )
    if len(parts) != num_clients:
        raise PartitionError(
            f"A partition must have one {what} part a client, but the given split "
            f"has {len(parts)} for {num_clients} clients."
        )
    return tuple(
        _positions(part, f"the {what} part of client {client}")
        for client, part in enumerate(parts)
    )


def _by_client(parts: Mapping, what: str, num_clients: int) -> list[Any]:
    """The parts of a dict in the order of its clients."""
    wanted = range(num_clients)
    if set(parts) != set(wanted):
        raise PartitionError(
            f"A dict of {what} parts must have the keys 0 to {num_clients - 1}, one "
            f"for each of the {num_clients} clients, but has {some(map(repr, parts))}; "
            "number the clients from 0 (JSON makes text of numbers: "
            "{int(k): v for k, v in parts.items()})."
        )
    return [parts[client] for client in wanted]


def _positions(part: Any, what: str) -> np.ndarray:
    """One client's part: int32, sorted."""
    if isinstance(part, (set, frozenset)):
        part = sorted(part)
    try:
        positions = np.asarray(part)
    except Exception:  # ragged lists, and whatever other libraries' arrays do
        positions = np.zeros((), object)
    if not positions.size and positions.ndim == 1:
        return np.zeros(0, np.int32)
    must = f"Positions must be whole numbers in a list, but {what}"
    if positions.ndim != 1:
        raise PartitionError(f"{must} has the shape {list(positions.shape)}; {_FORMS}.")
    if positions.dtype.kind == "b":
        raise PartitionError(
            f"{must} is a mask of true and false; give np.flatnonzero(mask)."
        )
    if positions.dtype.kind not in "iu":
        raise PartitionError(
            f"{must} is of {positions.dtype}; convert it, as by np.asarray(part, "
            "np.int64)."
        )
    if not -_LARGEST <= int(positions.min()) <= int(positions.max()) < _LARGEST:
        # The range is checked with the others'; here only what int32 cannot hold.
        raise PartitionError(
            f"{must} reaches from {positions.min()} to {positions.max()}; give "
            "positions of images, from 0."
        )
    return np.sort(positions).astype(np.int32)
