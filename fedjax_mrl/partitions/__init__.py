"""Partitions, which say who has which images: labels in, positions out.

Each file exports one scheme, `(y_train, y_test, num_clients, argument, rng) ->
Partition`, and lying in this folder makes it available under its name. A scheme
draws from the given generator alone, and gives every client a test part with the
law and the shares of its training part. One that has a parameter `owners` besides
takes the clients as the data name them, whatever their classes.
"""

import inspect
import io
import os
import re
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from fedjax_mrl import discovery, paths, rng, whole_file
from fedjax_mrl.partitions._given import normalise
from fedjax_mrl.partitions._partition import Owners as Owners
from fedjax_mrl.partitions._partition import Partition, PartitionError, some
from fedjax_mrl.partitions._subset import subset as subset

_EXAMPLES = "for example 'class:2', 'dirichlet:0.1', 'iid' or 'quantity:1.0'"


# (y_train, y_test, num_clients, argument, rng), and of some `owners`.
Scheme = Callable[..., Partition]


def names() -> tuple[str, ...]:
    """Names of the schemes, sorted."""
    return tuple(discovery.find(__name__))


def get(name: str) -> Scheme:
    """Returns the scheme called `name`.

    Raises:
        PartitionError: for an unknown name, with the nearest valid one.
    """
    if name not in names():
        raise PartitionError(discovery.unknown("partition", name, names()))
    return discovery.get(__name__, name, "partition")


def make(
    text: str,
    y_train: np.ndarray,
    y_test: np.ndarray,
    num_clients: int,
    seed: int,
    owners: Owners | None = None,
) -> Partition:
    """Parses a partition such as "class:2", makes it and checks it.

    Args:
        text: `name` or `name:argument`; or `file:PATH`, the partition.npz of an
            earlier run.
        y_train: labels of the training images [n], integers.
        y_test: labels of the test images [m], integers, none that training lacks.
        num_clients: N, at most n and at most m.
        seed: the run's seed; with the other arguments it decides the partition.
        owners: whose each image is, for the partition "natural".

    Returns:
        A partition in which every client has a training image and no image occurs
        twice, save those of one common test set.

    Raises:
        PartitionError: for a text, an argument, labels or a number of clients of
            which no partition can be made.

    Example:
        >>> labels = np.repeat(np.arange(10), 100)
        >>> partition = make("class:2", labels, labels, num_clients=10, seed=0)
        >>> [np.unique(labels[part]).size for part in partition.train]
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    if text.startswith("file:"):
        partition = load(text.removeprefix("file:"))
        return given(text, partition, num_clients, len(y_train), len(y_test))
    name, argument = _parse(text)
    scheme = get(name)
    y_train, y_test = _labels("y_train", y_train), _labels("y_test", y_test)
    if num_clients < 1:
        raise PartitionError(f"num_clients must be at least 1, but is {num_clients}.")
    generator = rng.host(seed, rng.Purpose.PARTITION)
    if "owners" in inspect.signature(scheme).parameters:
        made = scheme(y_train, y_test, num_clients, argument, generator, owners=owners)
        _check_given(text, made, num_clients, y_train.size, y_test.size)
        return made
    _require_enough(y_train, y_test, num_clients)
    partition = scheme(y_train, y_test, num_clients, argument, generator)
    check(text, partition, num_clients, y_train.size, y_test.size)
    return partition


def _require_enough(y_train: np.ndarray, y_test: np.ndarray, num_clients: int) -> None:
    """Refuses images that no scheme could deal out."""
    extra = np.setdiff1d(y_test, y_train)
    if extra.size:
        raise PartitionError(
            "Every class of the test images must occur among the training images, "
            f"but {some(extra)} do not; leave those test images out."
        )
    for part, y in (("training", y_train), ("test", y_test)):
        if num_clients > y.size:
            raise PartitionError(
                f"Every client needs a sample of its own, but there are {num_clients} "
                f"clients and only {y.size} {part} images; use fewer clients."
            )


def save(
    path: str | os.PathLike, partition: Partition, clients: Sequence[str] = ()
) -> None:
    """Writes `partition` to the npz file `path`, which never is there half written.

    Args:
        path: of the file.
        partition: positions of every client.
        clients: the names of the clients by their number, if they have any.
    """
    path = paths.local(path, "The partition")
    arrays = {"clients": np.array(clients)} if clients else {}
    for part, positions in partition._asdict().items():
        arrays[part] = np.concatenate([*positions, np.zeros(0, np.int32)])
        arrays[f"{part}_offsets"] = np.cumsum([0, *(p.size for p in positions)])
    file = io.BytesIO()
    np.savez(file, **arrays)  # pyrefly: ignore[bad-argument-type]
    whole_file.write(path, file.getvalue(), alone=False)


def load(path: str | os.PathLike) -> Partition:
    """Reads what `save` wrote.

    Raises:
        PartitionError: if there is no such file or it holds something else.
    """
    try:
        path = paths.local(path, "The partition")
    except paths.PathError as error:
        raise PartitionError(str(error)) from None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            parts = {
                part: tuple(np.split(arrays[part], arrays[f"{part}_offsets"][1:])[:-1])
                for part in Partition._fields
            }
    except OSError as error:
        raise PartitionError(
            f"The partition {os.fspath(path)} must be a readable file, but: "
            f"{error.strerror}."
        ) from error
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise PartitionError(
            f"{os.fspath(path)} must be a file that `partitions.save` wrote, but it "
            "holds something else; make the partition anew."
        ) from error
    return Partition(**parts)


def _parse(text: str) -> tuple[str, float | None]:
    match = re.fullmatch(r"([^\W\d]\w*)(?::(\S+))?", text)
    if not match:
        raise PartitionError(
            f"A partition must be a name or name:argument, {_EXAMPLES}, "
            f"but it is {text!r}."
        )
    name, argument = match.groups()
    if argument is None:
        return name, None
    try:
        return name, float(argument)
    except ValueError:
        raise PartitionError(
            f"The argument of a partition must be a number, {_EXAMPLES}, "
            f"but that of {text!r} is {argument!r}."
        ) from None


def _labels(what: str, y: np.ndarray) -> np.ndarray:
    y = np.asarray(y)
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise PartitionError(
            f"{what} must be a vector of integer labels, but it has the shape "
            f"{y.shape} and the dtype {y.dtype}."
        )
    return y


def given(
    text: str, split: object, num_clients: int, num_train: int, num_test: int
) -> Partition:
    """Takes a split that the user made, in any usual form, and checks it.

    Test parts may overlap, and be one common set; only training parts may not.

    Args:
        text: what to call it in messages.
        split: as of `_given.normalise`.
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
    _check_given(text, partition, num_clients, num_train, num_test)
    return partition


def _check_given(
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
