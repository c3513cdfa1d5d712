"""Data sets of the user's own arrays: images, features or tokens."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl.data import checks, client_ids
from fedjax_mrl.data.dataset import Dataset, DatasetError


def arrays(
    x: ArrayLike,
    y: ArrayLike,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    *,
    clients: ArrayLike | None = None,
    clients_test: ArrayLike | None = None,
    name: str = "arrays",
    label_names: Sequence[str] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    augmentation: str | None = None,
    kind: str | None = None,
) -> Dataset:
    """Makes a data set of images, features or tokens in memory.

    Args:
        x: training examples. Images: uint8 [n, H, W, C] with pixels from 0 to 255, or
            grey [n, H, W]. Features: floats [n, F] or [n, T, F], used as they are, in
            float32. Tokens: whole numbers [n, T] from 0, to be embedded.
        y: their classes, integers [n] from 0.
        x_test, y_test: test examples; without them some are drawn (`drawn_test.draw`).
        clients: whose each example is, for `partition="natural"`: numbers or text [n].
        clients_test: likewise; without it all clients are tested on all of `x_test`.
        name: for tables and files.
        label_names: one name a class; by default numbers that all occur in `y`.
        mean, std: of each channel of pixel / 255; by default those of `x`.
        augmentation: of images: "none", the default; "flip_erase_crop", as for CIFAR;
            or "raw" for float images [n, H, W, C] that are prepared already.
        kind: "images", "features" or "tokens"; by default told by type and axes.

    Returns:
        A data set, which `Federation(dataset=...)` takes.

    Raises:
        DatasetError: for arrays that cannot be used.

    Example:
        >>> import numpy as np, fedjax_mrl as fm
        >>> x, y = np.arange(60 * 8 * 8).reshape(60, 8, 8) % 256, np.arange(60) % 3
        >>> data = fm.arrays(x, y, x[:30], y[:30], label_names=["cat", "dog", "owl"])
        >>> data.x_train.shape, data.num_classes
        ((60, 8, 8, 1), 3)
    """
    kind = _kind(x, augmentation) if kind is None else kind
    augmentation = augmentation_of(kind, augmentation)
    raw = augmentation == checks.RAW
    x = _examples(x, "x_train", kind, raw=raw)
    y = checks.labels(y, "y_train", len(x))
    x_test, y_test = _test_part(x, y, x_test, y_test, kind, raw=raw)
    names = _names(label_names, y, y_test)
    later = mean is std is None and not (raw or len(x_test))
    known = kind == "images" and not later  # else by the part that is trained on
    moments = _moments_or(x, mean, std, raw=raw) if known else ((), ())
    owned = client_ids.number(clients, clients_test, len(y), len(y_test))
    made = Dataset(
        str(name), x, y, x_test, y_test, names, *moments, augmentation, kind, owned
    )
    return check(_noted(made, label_names, mean, std), augmentation)


def _noted(made: Dataset, *given: object) -> Dataset:
    """Notes what was `Dataset.measured`: of names, mean and std, those not given."""
    names, mean, std = (value is not None for value in given)
    needed = made.kind == "images" and made.augmentation != checks.RAW
    missing = () if names else ("label_names",)
    if needed and not (mean and std):
        missing += ("mean and std",)
    return made._replace(measured=missing)


def _test_part(
    x: np.ndarray,
    y: np.ndarray,
    x_test: object,
    y_test: object,
    kind: str,
    *,
    raw: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The test examples and their classes, checked; none where none are given."""
    if x_test is None and y_test is None:
        return x[:0], y[:0]
    if x_test is None or y_test is None:
        given, missing = (
            ("y_test", "x_test") if x_test is None else ("x_test", "y_test")
        )
        raise DatasetError(
            f"x_test and y_test belong together, but there is {given} and no "
            f"{missing}; give both, or neither to have a test part drawn."
        )
    x_test = _examples(x_test, "x_test", kind, raw=raw)
    return x_test, checks.labels(y_test, "y_test", len(x_test))


KINDS = ("images", "features", "tokens")


def _kind(x: ArrayLike, augmentation: str | None) -> str:
    """The kind of examples, told by their type and number of axes."""
    try:
        array = np.asarray(x)
    except Exception:
        return "images"  # refused there with a reason
    if augmentation is not None or array.ndim not in (2, 3):
        return "images"
    if array.dtype.kind in "iu" and array.ndim == 2 and array.dtype != np.uint8:
        return "tokens"  # uint8 may be images that were flattened
    return "features" if array.dtype.kind == "f" else "images"


def augmentation_of(kind: str, given: str | None) -> str:
    """Says what training does with examples; features and tokens have no choice.

    Raises:
        DatasetError: for an augmentation that is for images alone.
    """
    if kind not in KINDS:
        raise DatasetError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    if kind == "images":
        return given or "none"
    if given not in (None, "none", checks.RAW):
        raise DatasetError(
            f"augmentation {given!r} is for images; leave it out for {kind}, or give "
            'kind="images".'
        )
    return checks.RAW


def _examples(x: object, what: str, kind: str, *, raw: bool) -> np.ndarray:
    """Checks examples of a kind."""
    if kind == "images":
        return checks.images(x, what, raw=raw)
    return (checks.features if kind == "features" else checks.tokens)(x, what)


def check(given: Dataset, augmentation: str) -> Dataset:
    """Checks a data set that somebody made.

    Args:
        given: its arrays may be anything that `arrays` takes.
        augmentation: what training will do; "raw" needs inputs that are prepared.

    Returns:
        The same with arrays of the types that `Dataset` documents.

    Raises:
        DatasetError: as `checks.images` and `checks.labels`; for labels out of range,
            too few names or classes, parts of other shapes, an unusable mean or std.
    """
    if given.kind != "images":
        augmentation = augmentation_of(given.kind, augmentation)
    raw = augmentation == checks.RAW
    x = _examples(given.x_train, "x_train", given.kind, raw=raw)
    y = checks.labels(given.y_train, "y_train", len(x))
    untested = not np.size(given.y_test) and not np.size(given.x_test)
    parts = (None, None) if untested else (given.x_test, given.y_test)
    x_test, y_test = _test_part(x, y, *parts, given.kind, raw=raw)
    if x.shape[1:] != x_test.shape[1:]:
        raise DatasetError(
            f"x_test must have {given.kind} of the shape of x_train, "
            f"{list(x.shape[1:])}, but they are {list(x_test.shape[1:])}; bring them "
            "to one size."
        )
    names = checks.label_names(given.label_names)
    highest = int(max(y.max(), y_test.max(initial=0)))
    if y.min() == 0 and highest >= len(names):
        raise DatasetError(
            f"label_names must name all classes, but has {len(names)} names and the "
            f"labels go up to {highest}; name all {highest + 1} classes from 0 on."
        )
    classes = f"the {len(names)} label_names"
    checks.within(y, "y_train", len(names), classes, "")
    checks.within(y_test, "y_test", len(names), classes, "")
    made = given._replace(
        x_train=x, y_train=y, x_test=x_test, y_test=y_test, label_names=names
    )
    if given.kind != "images" or (untested and not raw and not given.mean):
        return made
    mean, std = checks.moments(given.mean, given.std, x.shape[-1])
    return made._replace(mean=mean, std=std)


def like(data: Dataset, x: ArrayLike, augmentation: str) -> tuple[np.ndarray, bool]:
    """Checks new examples for networks that were trained on a data set.

    Args:
        data: what they were trained on.
        x: examples as those of `data` are stored, [B, ...] or a single one; grey images
            [H, W, 1] may lack the last axis.
        augmentation: what training did.

    Returns:
        Examples [B, ...] of the data set's type, and whether it was a single one.

    Raises:
        DatasetError: for examples of another shape or type.
    """
    shape, images = data.x_train.shape[1:], data.kind == "images"
    grey = shape[:-1] if images and shape[-1] == 1 else None
    given = np.shape(x) if not hasattr(x, "shape") else tuple(x.shape)
    single = given in (shape, grey)
    wanted_axes = images and len(given) in (3, 4)
    if not single and given[1:] != shape and not wanted_axes:
        raise _unlike(data, given)
    several = _examples(
        [x] if single else x, "x", data.kind, raw=augmentation == checks.RAW
    )
    if several.shape[1:] != shape:
        raise _unlike(data, given)
    return several, single


def _unlike(data: Dataset, given: tuple[int, ...]) -> DatasetError:
    shape = data.x_train.shape[1:]
    end = "size and number of channels" if data.kind == "images" else "shape"
    return DatasetError(
        f"x must be {data.kind} {list(shape)} like the training {data.kind}, one or "
        f"several [B, {', '.join(map(str, shape))}], but is {list(given)}; bring them "
        f"to this {end}."
    )


def _names(
    given: Sequence[str] | None, y: np.ndarray, y_test: np.ndarray
) -> tuple[str, ...]:
    """The names of the classes: those given, or numbers."""
    return _numbers(y, y_test) if given is None else checks.label_names(given)


def _numbers(y: np.ndarray, y_test: np.ndarray) -> tuple[str, ...]:
    """Names of the classes that occur: 0, 1, ... without a gap."""
    low, high = int(y.min()), int(y.max())
    missing = np.setdiff1d(np.arange(min(high, y.size) + 1), y)
    if low < 0 or missing.size:
        lost = f" and lacks {_some(missing)}" if missing.size else ""
        moved = [f"{name} = {checks.shifted(name, low)}" for name in ("y", "y_test")]
        shift = f", as in {', '.join(moved)}" if low else ""
        raise DatasetError(
            "Classes must be numbered 0, 1, 2 and so on, but y_train spans "
            f"{low}..{high}{lost}; number them from 0 without gaps{shift}, or give "
            "label_names, one a class, if some have no training image."
        )
    if high == 0:
        raise DatasetError(
            "There must be at least two classes, but all of y_train are of the class "
            "0; give examples of another one."
        )
    extra = np.setdiff1d(y_test, y)
    if extra.size:
        several = f"the classes {_some(extra)} have"
        which = several if extra.size > 1 else f"the class {extra[0]} has"
        raise DatasetError(
            f"Every class of y_test must have a training image, but {which} none; "
            "leave their test images out, or number both parts alike."
        )
    return tuple(map(str, range(high + 1)))


def _some(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:10])) + (", ..." if values.size > 10 else "")


def _moments_or(
    x: np.ndarray,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    *,
    raw: bool,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation that were given, for each channel, or those of images.

    Args:
        x: images [n, H, W, C].
        mean: one number, one a channel, or None for that of `x`.
        std: likewise.
        raw: whether the images are used as they are, so that theirs are 0 and 1.
    """
    channels = x.shape[-1]
    if mean is None or std is None:
        default = ((0.0,) * channels, (1.0,) * channels) if raw else moments_of(x)
        mean, std = (
            default[0] if mean is None else mean,
            default[1] if std is None else std,
        )
    each = lambda value: (value,) * channels if np.ndim(value) == 0 else value
    return checks.moments(each(mean), each(std), channels)


def moments_of(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of pixel / 255; 1 if constant."""
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in np.moveaxis(x, -1, 0):
        counts = np.zeros(256, np.int64)
        for image in channel:  # one by one: counting takes eight times its memory
            counts += np.bincount(image.ravel(), minlength=256)
        share = counts / channel.size
        center = float(share @ values)
        mean.append(center)
        std.append(float(np.sqrt(share @ (values - center) ** 2)) or 1.0)
    return tuple(mean), tuple(std)
