"""LEAF's layout: DIR/train/*.json and DIR/test/*.json, which hold examples by user.

A file has `users`, `num_samples` and `user_data`, for each user lists x and y. In x is

- numbers: grey images, if they are n * n (n at least 8) multiples of 1 / 255 from 0 to
  1 as in FEMNIST, which are the pixels that they were made from; else features;
- texts of one length, each with one character as y, as in Shakespeare: tokens, numbered
  by `CHARACTERS`, or if there are others by the characters that occur, in their order.

Reference:
    Caldas et al., "LEAF: A Benchmark for Federated Settings",
    https://arxiv.org/abs/1812.01097.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_mrl.data import own
from fedjax_mrl.data.dataset import Dataset, damaged
from fedjax_mrl.data.error import DatasetError

# Of LEAF's Shakespeare; the position is the token, and the class.
CHARACTERS = (
    "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
)
_MOST = 2**20  # number of a class
_SMALLEST = 8  # side of an image
_NAMES = {"\n": "newline", " ": "space", "\t": "tab", "\r": "return"}


class _Examples(NamedTuple):
    """Of one user: x [n, ...] and y [n]; of texts the numbers of their characters."""

    x: np.ndarray
    y: np.ndarray
    text: bool


_Users = dict[str, _Examples]


def is_one(folder: Path) -> bool:
    """Whether a folder has LEAF's layout, or a part of it."""
    return any(any((folder / part).glob("*.json")) for part in ("train", "test"))


def read(folder: Path, name: str) -> Dataset:
    """Reads all files of both parts.

    Args:
        folder: with `is_one`.
        name: for tables and messages.

    Returns:
        The examples with their users as clients. Without files in DIR/test the test
        part is drawn later.

    Raises:
        DatasetError: for files of another form, or a user who has test examples only.
    """
    parts = _parts(folder)
    _require_alike(parts, folder)
    lost = sorted({*parts[-1]} - {*parts[0]})
    if lost:
        raise DatasetError(
            f"Every user must have training examples, but {len(lost)} in {folder}/test "
            f"have none in {folder}/train, as {lost[0]!r}; let LEAF split by sample "
            "(-t sample), not by user, or remove them."
        )
    every = [examples for part in parts for examples in part.values()]
    text = every[0].text
    table = _table(every) if text else ""
    pixels = not text and all(examples.x.dtype == np.uint8 for examples in every)
    kind = "tokens" if text else "images" if pixels else "features"
    if text:
        names = [_NAMES.get(character, character) for character in table]
    else:
        names = _numbers(every, folder)
    arrays: list[np.ndarray | None] = []
    ids: list[np.ndarray | None] = []
    for part in parts:
        owners = sorted(part)
        sizes = [len(part[user].y) for user in owners]
        ids.append(np.repeat(np.array(owners), sizes))
        arrays += _joined(part, owners, kind, table)
    arrays += [None] * (4 - len(arrays))
    ids += [None] * (2 - len(ids))
    x, y, *test = arrays
    assert x is not None and y is not None
    return own.arrays(
        x,
        y,
        *test,
        clients=ids[0],
        clients_test=ids[1],
        name=name,
        kind=kind,
        label_names=names,
    )


def _parts(folder: Path) -> list[_Users]:
    """The users of the training part, and of the test part if there is one."""
    if not any((folder / "train").glob("*.json")):
        raise DatasetError(
            f"{folder}/train must hold LEAF's files for training, *.json, but holds "
            f"none, although {folder}/test does; put both parts in one folder."
        )
    parts = [_part(folder / "train")]
    if any((folder / "test").glob("*.json")):
        parts.append(_part(folder / "test"))
    return parts


def _numbers(every: list[_Examples], folder: Path) -> list[str]:
    """Names of classes that are numbers."""
    highest = max(int(examples.y.max(initial=0)) for examples in every)
    if not highest:
        raise DatasetError(
            f"There must be at least two classes, but all y in {folder} are 0; number "
            "the classes from 0."
        )
    return [str(number) for number in range(highest + 1)]


def _part(folder: Path) -> _Users:
    """The users of all files in a folder."""
    users: _Users = {}
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            text = file.read_bytes()
            if not text.strip():
                raise DatasetError(
                    f"{file} must hold JSON, but is empty; make it again, or remove it."
                )
            content = json.loads(text)
        except OSError as error:
            raise DatasetError(f"Cannot read {file}: {error.strerror}.") from None
        except DatasetError:
            raise
        except (ValueError, RecursionError) as error:
            raise damaged(file, "JSON", str(error)) from None
        for user, examples in _users(content, file):
            if user in users:
                where = f"in {files[user]} and {file}"
                if files[user] == file:
                    where = f"twice in {file}"
                raise DatasetError(
                    "A user's examples must be in one place, but those of "
                    f"{user!r} are {where}; remove one of them."
                )
            users[user], files[user] = examples, file
    return users


def _users(content: object, file: Path) -> list[tuple[str, _Examples]]:
    """The users of one file."""
    listed = content.get("users") if isinstance(content, Mapping) else None
    data = content.get("user_data") if isinstance(content, Mapping) else None
    if not isinstance(listed, list) or not isinstance(data, Mapping) or not listed:
        raise DatasetError(
            f"{file} must be of LEAF's form, with users, num_samples and user_data "
            "{user: {x, y}}, but has not these; give the folder that LEAF's "
            "preprocess.sh makes, with train and test in it."
        )
    found = []
    for user in map(str, listed):
        x, y = _lists(data.get(user), user, file)
        if x:
            found.append((user, _examples(x, y, f"{file} of the user {user!r}")))
    return found


def _lists(given: object, user: str, file: Path) -> tuple[list, list]:
    """The examples x and classes y of one user.

    Raises:
        DatasetError: if there are none, or not lists of one length.
    """
    end = "the file may be incomplete, make it again."
    if not isinstance(given, Mapping):
        raise DatasetError(
            f"user_data in {file} must have x and y for every user, but has not for "
            f"{user!r}, whom users names; {end}"
        )
    for name in ("x", "y"):
        if not isinstance(given.get(name), list):
            kind = type(given[name]).__name__ if name in given else "missing"
            raise DatasetError(
                f"{name} of the user {user!r} in {file} must be a list, but is {kind}; "
                f"{end}"
            )
    x, y = given["x"], given["y"]
    if len(x) != len(y):
        raise DatasetError(
            f"The user {user!r} in {file} must have as many x as y, but has {len(x)} x "
            f"and {len(y)} y; {end}"
        )
    return x, y


def _examples(x: list, y: list, where: str) -> _Examples:
    """The examples of one user."""
    if all(isinstance(value, str) for value in x):
        lengths = {len(value) for value in x}
        single = all(isinstance(value, str) and len(value) == 1 for value in y)
        if len(lengths) > 1 or not single or not x[0]:
            raise DatasetError(
                f"Texts x in {where} must have one length and a character each as y, "
                "as in Shakespeare, but have not; make numbers of them, and give these "
                "in an npz with x, y and clients."
            )
        codes = np.array([[ord(letter) for letter in value] for value in x], np.int32)
        return _Examples(codes, np.array([ord(value) for value in y], np.int32), True)
    try:
        values, labels = np.asarray(x, np.float64), np.asarray(y, np.float64)
    except (TypeError, ValueError, OverflowError):
        values = labels = np.zeros(0)
    if values.ndim != 2 or labels.ndim != 1 or (labels != np.round(labels)).any():
        raise DatasetError(
            f"x in {where} must be numbers, one list an example, with the number of a "
            "class as y, or texts of one length, but is not (lists of texts, as of "
            "Sent140, and names of files have no such form); make numbers of it, and "
            "give these in an npz with x, y and clients."
        )
    if not (values.size and np.abs(values).max() <= np.finfo(np.float32).max):
        raise DatasetError(
            f"x in {where} must be finite numbers, at least one an example, but some "
            "are none, missing or too large; mend or remove these examples."
        )
    if labels.min() < 0 or labels.max() > _MOST:
        wrong = labels[(labels < 0) | (labels > _MOST)][0]
        raise DatasetError(
            f"y in {where} must be the numbers of classes from 0, but holds "
            f"{wrong:g}; number the classes from 0 without gaps."
        )
    return _Examples(_pixels(values), labels.astype(np.int32), False)


def _pixels(values: np.ndarray) -> np.ndarray:
    """Grey images as uint8 [n, H, H, 1] if values [n, F] are that, else float32."""
    side = math.isqrt(values.shape[1])
    scaled = np.round(255 * values)
    square = side * side == values.shape[1] and side >= _SMALLEST
    if (
        square
        and np.isfinite(values).all()
        and values.min() >= 0
        and values.max() <= 1
        and np.abs(255 * values - scaled).max() < 1e-3
    ):
        return scaled.astype(np.uint8).reshape(-1, side, side, 1)
    return values.astype(np.float32)


def _require_alike(parts: list[_Users], folder: Path) -> None:
    """Refuses users whose examples are of different forms."""
    if not parts[0]:
        raise DatasetError(f"{folder}/train must hold examples, but holds none.")
    kinds: dict[tuple[bool, int], str] = {}
    for part, name in zip(parts, ("train", "test"), strict=False):
        for user, examples in part.items():
            size = math.prod(examples.x.shape[1:])
            kinds.setdefault((examples.text, size), f"{user!r} in {name}")
    if len(kinds) > 1:
        (one, first), (other, second), *_ = kinds.items()
        word = lambda kind: f"{kind[1]} {'characters' if kind[0] else 'numbers'}"
        raise DatasetError(
            f"All examples must be of one form and length, but in {folder} those of "
            f"{first} have {word(one)} and those of {second} {word(other)}; bring them "
            "to one."
        )


def _table(every: list[_Examples]) -> str:
    """The characters that are numbered, in order."""
    codes = [np.unique(array) for each in every for array in (each.x, each.y)]
    found = "".join(map(chr, np.unique(np.concatenate(codes)).tolist()))
    return CHARACTERS if {*found} <= {*CHARACTERS} else found


def _joined(
    part: _Users, owners: list[str], kind: str, table: str
) -> tuple[np.ndarray, np.ndarray]:
    """All examples of a part in one array, user by user; the part loses them."""
    y = np.concatenate([part[user].y for user in owners])
    shape = part[owners[0]].x.shape[1:]
    if kind == "features":
        shape = (math.prod(shape),)
    types = {"images": np.uint8, "features": np.float32, "tokens": np.int32}
    x = np.empty((y.size, *shape), types[kind])
    codes = np.array([ord(character) for character in table], np.int32)
    order = np.argsort(codes)
    number = lambda given: order[np.searchsorted(codes[order], given)]
    start = 0
    for user in owners:
        own = part.pop(user).x
        if kind == "tokens":
            own = number(own)
        elif kind == "features" and own.dtype == np.uint8:
            own = (own.astype(np.float64) / 255).reshape(len(own), -1)
        x[start : start + len(own)] = own
        start += len(own)
    return x, number(y).astype(np.int32) if table else y
