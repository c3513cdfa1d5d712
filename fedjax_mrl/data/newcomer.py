"""The data of a client that comes to networks which others trained."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl.data import checks, own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.data.error import DatasetError


class Named(NamedTuple):
    """Arrays (x, y, x_test, y_test), unchecked, with names of their classes."""

    label_names: Sequence[str]
    arrays: Sequence[Any]


def check(
    data: Dataset, given: Dataset | Named | Sequence, augmentation: str
) -> Dataset:
    """Checks the data of a client that comes to networks trained on a data set.

    Args:
        data: what they were trained on; its preparation and classes are the client's.
        given: a data set, or its arrays (x, y, x_test, y_test), of which the last two
            may be left out or None. It may lack classes.
        augmentation: what training did.

    Raises:
        DatasetError: for examples of another shape or type, other classes, or names of
            classes that are others.
    """
    if isinstance(given, Dataset):
        arrays = (given.x_train, given.y_train, given.x_test, given.y_test)
        given = Named(given.label_names, arrays)
    if isinstance(given, Named):
        _require_names(data, given.label_names)
        given = given.arrays
    try:
        x, y, x_test, y_test = given if len(given) != 2 else (*given, None, None)
    except (TypeError, ValueError):
        raise DatasetError(
            "data must be a Dataset, as fm.arrays makes one, or four arrays (x, y, "
            f"x_test, y_test); got {type(given).__name__}."
        ) from None
    if (x_test is None) != (y_test is None):
        raise DatasetError(
            "x_test and y_test belong together, but one of them is missing; give both, "
            "or neither to have a test part drawn."
        )
    parts = {"train": (x, y)}
    if y_test is not None and np.size(y_test):
        parts["test"] = (x_test, y_test)
    nothing = data.x_train[:0], data.y_train[:0]
    data = data._replace(x_test=nothing[0], y_test=nothing[1], clients=None)
    made: dict[str, Any] = {}
    for part, (examples, labels) in parts.items():
        try:
            found, _ = own.like(data, examples, augmentation)
        except DatasetError as error:
            raise DatasetError(f"{error} (x of the {part} part.)") from None
        numbers = checks.labels(labels, f"y_{part}", len(found))
        _require_known(numbers, f"y_{part}", data.num_classes)
        made[f"x_{part}"], made[f"y_{part}"] = found, numbers
    return data._replace(name="newcomer", **made)


def _require_known(y: np.ndarray, what: str, num_classes: int) -> None:
    """Refuses classes that nobody in the federation has learnt."""
    low, high = int(y.min(initial=0)), int(y.max(initial=0))
    if low < 0 or high >= num_classes:
        raise DatasetError(
            f"{what} must lie in 0..{num_classes - 1}, the classes of the federation, "
            f"but spans {low}..{high}; leave out examples of other classes."
        )


def _require_names(data: Dataset, names: Sequence[str]) -> None:
    """Refuses names of classes that are others than the federation's."""
    same = tuple(names) == data.label_names[: len(names)]
    if not same and (len(names) > data.num_classes or not _plain(names)):
        raise DatasetError(
            f"label_names must be those of the federation, "
            f"{', '.join(data.label_names)}; got {', '.join(names)}. Number the "
            "classes alike."
        )


def _plain(names: Sequence[str]) -> bool:
    """Whether names of classes are numbers, as of data without names."""
    return tuple(names) == tuple(map(str, range(len(names))))
