"""Ids of clients, one an example: checked, put in order and numbered."""

import numpy as np

from fedjax_mrl.data.dataset import Clients
from fedjax_mrl.data.error import DatasetError

_SHOWN = 5  # ids that a message names


def number(
    train: object, test: object, num_train: int, num_test: int
) -> Clients | None:
    """Numbers the clients by the order of their ids.

    Whole numbers are put in order by size, text by its characters.

    Args:
        train: the id of each training example, whole numbers or text [n]; or None.
        test: of each test example, likewise; None for one common test set.
        num_train: n.
        num_test: m.

    Returns:
        The clients; None if there are no ids.

    Raises:
        DatasetError: for ids of another type or number, and for a client that has test
            examples only.

    Example:
        >>> number(["b", "a", "b"], None, 3, 2)
        Clients(names=('a', 'b'), train=array([1, 0, 1], dtype=int32), test=None)
    """
    if train is None:
        if test is not None:
            raise DatasetError(
                "clients_test needs clients, of the training examples; give both."
            )
        return None
    ids = _ids(train, "clients", "training", num_train)
    found, numbers = np.unique(ids, return_inverse=True)
    names = tuple(map(str, found.tolist()))
    numbers = numbers.astype(np.int32)
    if test is None:
        return Clients(names, numbers, None)
    ids_test = _ids(test, "clients_test", "test", num_test)
    if (ids.dtype.kind == "U") != (ids_test.dtype.kind == "U"):
        raise DatasetError(
            "clients and clients_test must be both whole numbers or both text, but are "
            f"{ids.dtype} and {ids_test.dtype}; convert one of them."
        )
    extra = np.setdiff1d(ids_test, found)
    if extra.size:
        shown = ", ".join(repr(value) for value in extra[:_SHOWN].tolist())
        more = ", ..." if extra.size > _SHOWN else ""
        raise DatasetError(
            f"Every client must have a training example, but {extra.size} of "
            f"clients_test have none in clients: {shown}{more}; leave their test "
            "examples out, or give them training examples."
        )
    return Clients(names, numbers, np.searchsorted(found, ids_test).astype(np.int32))


def _ids(given: object, what: str, part: str, count: int) -> np.ndarray:
    """Ids as an array of whole numbers or of text [count]."""
    must = f"{what} must be an id for each of the {count} {part} examples"
    try:
        ids = np.asarray(given)
    except Exception:  # ragged lists, and whatever other libraries' arrays do
        raise DatasetError(f"{must}; NumPy cannot make an array of it.") from None
    if ids.ndim == 2 and ids.shape[1] == 1:
        ids = ids[:, 0]
    if ids.shape != (count,):
        raise DatasetError(
            f"{must}, [{count}], but has the shape {list(ids.shape)}; give them in the "
            "order of the examples."
        )
    kinds = {type(value) for value in ids.flat} if ids.dtype.kind == "O" else set()
    if kinds and (kinds <= {str, np.str_} or all(_whole(kind) for kind in kinds)):
        ids = np.asarray(ids.tolist())
    if ids.dtype.kind == "S":
        try:
            ids = np.char.decode(ids, "utf-8")
        except UnicodeDecodeError:
            raise DatasetError(f"{must}; its bytes are no UTF-8 text.") from None
    if ids.dtype.kind == "T":
        ids = np.asarray(ids.tolist(), dtype=np.str_)
    if ids.dtype.kind not in "iuU":
        named = ", ".join(sorted(kind.__name__ for kind in kinds)) or str(ids.dtype)
        raise DatasetError(
            f"{must}, whole numbers or text, but is of {named}; convert it, as by "
            f"{what}.astype(str)."
        )
    return ids


def _whole(kind: type) -> bool:
    return issubclass(kind, (int, np.integer)) and kind is not bool
