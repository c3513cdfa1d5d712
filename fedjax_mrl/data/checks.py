"""Checks of images and labels, wherever they come from.

Where the meaning is certain an array is converted: lists, any whole numbers, labels in
a column, grey images without the axis of channels. Everything else is refused with a
sentence that says what must hold, what was given, and the line that converts it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_mrl.data.error import DatasetError

RAW = "raw"  # the augmentation of images that are prepared already
_MOST_CHANNELS = 4  # that an image has in front when channels come first


def images(x: object, what: str, *, raw: bool = False) -> np.ndarray:
    """Checks images [n, H, W, C], or grey ones [n, H, W].

    Args:
        x: an array, or what NumPy makes one of.
        what: their name, for messages.
        raw: whether they are prepared already, so float and not uint8.

    Returns:
        uint8 [n, H, W, C], or float32 if raw.

    Raises:
        DatasetError: for another shape or type, no image, or a value that is not
            finite.
    """
    x = _array(x, what)
    if x.ndim == 3:
        x = x[..., None]
    kind = "float32" if raw else "uint8"
    name = what.split()[0]
    if x.ndim != 4 and x.dtype.kind in "USOT":
        raise DatasetError(
            f"{what} must be numbers, but is {_of(x)}, which is text; a column of "
            "words becomes one of 0 and 1 for each word, and features are "
            "floating-point numbers [n, F]."
        )
    if x.ndim != 4:
        raise DatasetError(
            f"{what} must be {kind} [n, H, W, C], but is {_of(x)}; give one image "
            'after another, channels last, or say kind="features" or kind="tokens".'
        )
    if not x.size:
        raise DatasetError(
            f"{what} must hold at least one image, but is {_of(x)}; give images."
        )
    if x.shape[1] <= _MOST_CHANNELS < min(x.shape[2:]):
        raise DatasetError(
            f"{what} must be {kind} [n, H, W, C], channels last, but is {_of(x)}, "
            f"which looks like channels first; convert it: {name} = "
            f"{name}.transpose(0, 2, 3, 1)."
        )
    return np.ascontiguousarray((_floats if raw else _pixels)(x, what, name))


def features(x: object, what: str) -> np.ndarray:
    """Checks features [n, ...]: finite numbers, which networks get as they are.

    Returns:
        float32 [n, ...].

    Raises:
        DatasetError: for another type, no example, or a value that is not finite.
    """
    x = _array(x, what)
    if x.dtype.kind not in "fiub" or x.ndim < 2 or not x.size:
        raise DatasetError(
            f"{what} must be numbers [n, ...], the features of one example after "
            f"another, but is {_of(x)}; give float32 [n, F] for instance."
        )
    x = x if x.dtype.kind == "f" else x.astype(np.float32)
    return np.ascontiguousarray(_floats(x, what, what.split()[0]))


def tokens(x: object, what: str) -> np.ndarray:
    """Checks sequences of tokens [n, T]: whole numbers from 0, all of one length.

    Returns:
        int32 [n, T].

    Raises:
        DatasetError: for another type, no example, or a number out of range.
    """
    x = _array(x, what)
    if x.dtype.kind not in "iu" or x.ndim < 2 or not x.size:
        raise DatasetError(
            f"{what} must be whole numbers [n, T], one sequence after another, but is "
            f"{_of(x)}; number the tokens and fill short sequences up to one length."
        )
    low, high = int(x.min()), int(x.max())
    if low < 0 or high >= 2**31:
        raise DatasetError(
            f"{what} must be numbers of tokens from 0, but spans {low}..{high}; number "
            "the padding as well."
        )
    return np.ascontiguousarray(x, dtype=np.int32)


def labels(y: object, what: str, count: int) -> np.ndarray:
    """Checks labels [n], or a column [n, 1]; their range is checked later.

    Args:
        y: an array, or what NumPy makes one of.
        what: their name, for messages.
        count: n, the number of examples.

    Returns:
        int32 [n].

    Raises:
        DatasetError: for another number of labels, or a type that names no classes.
    """
    if y is None:
        raise DatasetError(
            f"{what} must be integers [{count}], one an example; it is None."
        )
    y = _whole_objects(_array(y, what))
    name = what.split()[0]
    must = f"{what} must be integers [{count}], one an example, but is {_of(y)}"
    other = _not_numbers(y)
    if other:
        raise DatasetError(f"{must}, {other}; give the number of a class, from 0.")
    if y.dtype.kind in "USOT":
        raise DatasetError(
            f"{must}, which is text; number the classes of all examples together: "
            "label_names, y = np.unique(y, return_inverse=True)."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        raise DatasetError(
            f"{must}; if that is one column a class (one-hot), convert it: {name} = "
            f"{name}.argmax(axis=1)."
        )
    if y.dtype.kind == "f":
        whole = np.isfinite(y).all() and (y == np.round(y)).all()
        raise DatasetError(
            f"{must}; "
            + (
                f"its values are whole, convert it: {name} = {name}.astype(np.int32)."
                if whole
                else "its values are no classes. Give a class a number from 0."
            )
        )
    if y.dtype.kind not in "iub" or y.shape != (count,):
        raise DatasetError(
            f"{must}; give labels and images in the same order and number."
        )
    if y.size and (int(y.min()) < -(2**31) or int(y.max()) >= 2**31):
        raise DatasetError(f"{must} up to {y.max()}; number the classes from 0.")
    return np.ascontiguousarray(y, dtype=np.int32)


def within(y: np.ndarray, what: str, num_classes: int, of: str, hint: str) -> None:
    """Refuses labels that are not in 0..L - 1.

    Args:
        y: labels [n].
        what: their name, for messages.
        num_classes: L.
        of: whose classes these are, for messages.
        hint: what else to do about it.
    """
    low, high = (int(y.min()), int(y.max())) if y.size else (0, 0)
    if low >= 0 and high < num_classes:
        return
    name = what.split()[0]
    fits = low <= high - num_classes + 1 if low > 0 else high - low < num_classes
    shift = f", as in {name} = {shifted(name, low)}" if low and fits else ""
    raise DatasetError(
        f"{what} must lie in 0..{num_classes - 1}, the classes of {of}, but spans "
        f"{low}..{high}; number the classes from 0{shift}{hint}."
    )


def shifted(name: str, low: int) -> str:
    """The expression that makes 0 of the lowest label."""
    return f"{name} {'-' if low > 0 else '+'} {abs(low)}"


def label_names(names: object) -> tuple[str, ...]:
    """Checks the names of the classes, at least two."""
    listed = isinstance(names, Sequence | np.ndarray) and np.ndim(names) > 0
    if isinstance(names, (str, bytes)) or not listed:
        raise DatasetError(
            f"label_names must be a list of names, one a class; got {names!r}."
        )
    if len(names) < 2:
        raise DatasetError(
            f"There must be at least two classes, but label_names has {len(names)}; "
            "give one name a class."
        )
    return tuple(str(name) for name in names)


def moments(
    mean: Any, std: Any, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Checks a mean and a standard deviation for each channel, of pixel / 255."""
    checked = []
    for what, values in (("mean", mean), ("std", std)):
        try:
            values = tuple(float(value) for value in np.ravel(values))
        except (TypeError, ValueError):
            raise DatasetError(
                f"{what} must be numbers, one a channel; got {values!r}."
            ) from None
        if len(values) != channels:
            raise DatasetError(
                f"{what} must have one value for each of the {channels} channels of "
                f"the images, but has {len(values)}: {values}; give {channels}."
            )
        if not all(math.isfinite(value) and abs(value) <= 1 for value in values):
            raise DatasetError(
                f"{what} is that of pixel / 255, so at most 1, but is {values}; divide "
                "it by 255 if it is of pixels from 0 to 255."
            )
        checked.append(values)
    if not all(value > 0 for value in checked[1]):
        raise DatasetError(f"std must be positive, but is {checked[1]}.")
    return checked[0], checked[1]


def _array(values: object, what: str) -> np.ndarray:
    if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
        raise DatasetError(
            f"{what} must be known for every example, but has "
            f"{int(np.ma.getmaskarray(values).sum())} masked values, whose mask would "
            "be lost; remove these examples from images and labels."
        )
    try:
        return np.asarray(values)
    except Exception as error:  # ragged lists, and whatever other libraries' arrays do
        reason = " ".join(str(error).split())[:150]
        raise DatasetError(
            f"{what} must be an array, but NumPy cannot make one of it ({reason}); "
            "give an array on the host, all of its rows of one shape."
        ) from None


def _whole_objects(y: np.ndarray) -> np.ndarray:
    """Whole numbers that are Python's, as of a pandas column, as NumPy's."""
    whole = lambda value: isinstance(value, (int, np.integer))
    if y.dtype.kind != "O" or not all(map(whole, y.flat)):
        return y
    try:
        return y.astype(np.int64)
    except OverflowError:
        return y.astype(np.float64)  # refused, with what it spans


def _not_numbers(y: np.ndarray) -> str:
    """Says what values are that are neither real numbers nor text; else empty."""
    if y.dtype.kind == "c":
        return "complex numbers"
    if y.dtype.kind in "Mm":
        return "dates or times"
    if y.dtype.kind != "O":
        return ""
    kinds = {type(value).__name__ for value in y.flat}
    return "" if kinds <= {"str", "str_"} else f"of {', '.join(sorted(kinds)[:5])}"


def _of(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _first(bad: np.ndarray) -> str:
    """The position of the first that is True, as an index of the array."""
    place = np.unravel_index(int(bad.argmax()), bad.shape)
    return str(list(map(int, place)))


def _floats(x: np.ndarray, what: str, name: str) -> np.ndarray:
    if x.dtype.kind != "f":
        raise DatasetError(
            f"{what} must be float32 to be used as it is (augmentation {RAW!r}), but "
            f"is {_of(x)}; without it uint8 images are normalised."
        )
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if bad.any():
        raise DatasetError(
            f"{what} must be finite, but {int(bad.sum())} of them hold NaN or "
            f"infinity, the first at {_first(~np.isfinite(x))}; mend or remove them."
        )
    return x


def _pixels(x: np.ndarray, what: str, name: str) -> np.ndarray:
    if x.dtype == np.uint8:
        return x
    must = f"{what} must be uint8 [n, H, W, C] (0..255, channels last), but is {_of(x)}"
    if x.dtype.kind == "b":
        raise DatasetError(
            f"{must}; convert it: {name} = 255 * {name}.astype(np.uint8)."
        )
    if x.dtype.kind not in "iuf":
        raise DatasetError(f"{must}; give pixels from 0 to 255.")
    low, high = x.min(), x.max()
    if x.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise DatasetError(
                f"{must} from {low} to {high}; bring it to 0..255 and convert it: "
                f"{name}.astype(np.uint8)."
            )
        return x.astype(np.uint8)
    raw = f'give augmentation="{RAW}" for images that are prepared already'
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DatasetError(f"{must} with values that are not finite; mend them.")
    spans = f"{must} from {low:g} to {high:g}"
    if low < 0 or high > 255:
        raise DatasetError(f"{spans}; undo its normalisation, or {raw}.")
    scale = "255 * " if high <= 1 else ""
    line = f"{name} = np.round({scale}{name}).astype(np.uint8)"
    raise DatasetError(f"{spans}; convert it: {line}, or {raw}.")
