"""A test part for data that come without one: drawn from the training examples."""

import math

import numpy as np

from fedjax_mrl import rng
from fedjax_mrl.data import own
from fedjax_mrl.data.dataset import Clients, Dataset
from fedjax_mrl.data.error import DatasetError

FRACTION = 0.2  # unless the user says otherwise
_AT_ONCE = 256  # examples that are moved


def draw(
    data: Dataset, fraction: float | None, seed: int, *, in_place: bool = False
) -> Dataset:
    """Keeps some training examples for testing.

    Where the data name clients, each gives the fraction of its own examples, else each
    class does: rounded, at least one of two and never all. Examples of a class that
    would have none left for training stay there.

    Args:
        data: without test examples.
        fraction: above 0 and below 1; None is `FRACTION`.
        seed: the data seed.
        in_place: whether the array of the examples may be overwritten, which saves the
            memory of a second one.

    Returns:
        The data with both parts, and a note that says so; the mean and deviation of
        images are those of the training part, unless they were given.

    Raises:
        DatasetError: for another fraction, or if no example can be spared.
    """
    share = FRACTION if fraction is None else fraction
    if not 0 < share < 1:
        raise DatasetError(
            f"--test-fraction must be above 0 and below 1; got {share:g}."
        )
    tested = _chosen(data, share, seed)
    number = int(tested.sum())
    if not number:
        raise DatasetError(
            f"{data.name} has no test part, and none of its {tested.size} examples can "
            "be spared for one; give x_test and y_test."
        )
    whose = "class" if data.clients is None else "client"
    note = (
        f"{data.name} has no test part: {number} of its {tested.size} examples, "
        f"{share:.3g} of every {whose}'s, are kept for testing (--test-fraction; drawn "
        "by --data-seed)."
    )
    x_test = data.x_train[tested]  # before its examples are overwritten
    x = data.x_train
    made = data._replace(
        x_train=_moved_up(x, ~tested) if in_place else x[~tested],
        y_train=data.y_train[~tested],
        x_test=x_test,
        y_test=data.y_train[tested],
        clients=_parted(data.clients, tested),
        test_drawn=True,
        notes=(*data.notes, note),
    )
    if data.kind != "images" or data.mean:
        return made
    mean, std = own.moments_of(made.x_train)
    return made._replace(mean=mean, std=std)


def _moved_up(x: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The examples that are kept, in order, at the beginning of the same array."""
    positions = np.flatnonzero(kept)
    for start in range(0, positions.size, _AT_ONCE):
        some = positions[start : start + _AT_ONCE]
        x[start : start + some.size] = x[some]  # they come from there or further on
    return x[: positions.size]


def _chosen(data: Dataset, share: float, seed: int) -> np.ndarray:
    """Which examples [n] are for testing."""
    groups = data.y_train if data.clients is None else data.clients.train
    tested = np.zeros(groups.size, bool)
    for number, members in enumerate(_members(groups)):
        most = max(members.size - 1, 0)
        count = min(most, max(1, math.floor(members.size * share + 0.5)))
        order = rng.host(seed, rng.Purpose.TEST_PART, number).permutation(members)
        tested[order[:count]] = True
    return tested & np.isin(data.y_train, data.y_train[~tested])


def _parted(clients: Clients | None, tested: np.ndarray) -> Clients | None:
    """The clients of both parts."""
    if clients is None:
        return None
    return clients._replace(train=clients.train[~tested], test=clients.train[tested])


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """Positions of the members of each group, numbered from 0."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.cumsum(np.bincount(groups))[:-1])
