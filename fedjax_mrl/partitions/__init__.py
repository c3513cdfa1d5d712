"""Partitions, which say who has which images: labels in, positions out.

Each file exports one scheme, `(y_train, y_test, num_clients, argument, rng) ->
Partition`, and lying in this folder makes it available under its name. A scheme
draws from the given generator alone, and gives every client a test part with the
law and the shares of its training part. One that has a parameter `owners` besides
takes the clients as the data name them, whatever their classes.
"""

import inspect
import re
from collections.abc import Callable

import numpy as np

from fedjax_mrl import discovery, rng
from fedjax_mrl.partitions._checks import check, check_given
from fedjax_mrl.partitions._file import load as load
from fedjax_mrl.partitions._file import save as save
from fedjax_mrl.partitions._given import given as given
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
        check_given(text, made, num_clients, y_train.size, y_test.size)
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
