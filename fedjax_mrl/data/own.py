"""Data sets of the user's own arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fedjax_mrl.data import checks
from fedjax_mrl.data.dataset import Dataset, DatasetError


def arrays(
    x: ArrayLike,
    y: ArrayLike,
    x_test: ArrayLike,
    y_test: ArrayLike,
    *,
    name: str = "arrays",
    label_names: Sequence[str] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    augmentation: str = "none",
) -> Dataset:
    """Makes a data set of images and labels in memory.

    Everything that a user may say of own images is a parameter; all but the arrays
    have a default.

    Args:
        x: training images, uint8 [n, H, W, C] with pixels from 0 to 255, or grey
            [n, H, W]. With `augmentation="raw"` any floats, which networks get as they
            are, in float32.
        y: their classes, integers [n] from 0.
        x_test: test images, of the same size.
        y_test: their classes.
        name: for tables and files.
        label_names: one name a class; by default their numbers, and then every number
            must occur in `y`.
        mean: of each channel, of pixel / 255; by default that of `x`.
        std: the standard deviation, likewise.
        augmentation: "none"; "flip_erase_crop", as for CIFAR; or "raw" for images that
            are prepared already.

    Returns:
        A data set, which `Federation(dataset=...)` takes.

    Raises:
        DatasetError: for arrays that cannot be used; the message says what to do.

    Example:
        >>> import numpy as np
        >>> import fedjax_mrl as fm
        >>> x, y = np.arange(60 * 8 * 8).reshape(60, 8, 8) % 256, np.arange(60) % 3
        >>> data = fm.arrays(x, y, x[:30], y[:30], label_names=["cat", "dog", "owl"])
        >>> data.x_train.shape, data.num_classes
        ((60, 8, 8, 1), 3)
    """
    raw = augmentation == checks.RAW
    x = checks.images(x, "x_train", raw=raw)
    y = checks.labels(y, "y_train", len(x))
    x_test = checks.images(x_test, "x_test", raw=raw)
    y_test = checks.labels(y_test, "y_test", len(x_test))
    if label_names is None:
        names = _numbers(y, y_test)
    else:
        names = checks.label_names(label_names)
    moments = _moments_or(x, mean, std, raw=raw)
    made = Dataset(str(name), x, y, x_test, y_test, names, *moments, augmentation)
    return check(made, augmentation)


def check(given: Dataset, augmentation: str) -> Dataset:
    """Checks a data set that somebody made.

    Args:
        given: its arrays may be anything that `images` and `labels` take.
        augmentation: what training will do; "raw" needs images that are prepared.

    Returns:
        The same with arrays of the types that `Dataset` documents.

    Raises:
        DatasetError: as `checks.images` and `checks.labels`; for labels out of range,
            too few names or classes, parts of other shapes, an unusable mean or std.
    """
    parts = {}
    raw = augmentation == checks.RAW
    for part in ("train", "test"):
        x = checks.images(getattr(given, f"x_{part}"), f"x_{part}", raw=raw)
        y = checks.labels(getattr(given, f"y_{part}"), f"y_{part}", len(x))
        parts |= {f"x_{part}": x, f"y_{part}": y}
    shape, test_shape = parts["x_train"].shape[1:], parts["x_test"].shape[1:]
    if shape != test_shape:
        raise DatasetError(
            f"x_test must have images of the shape of x_train, {list(shape)}, but they "
            f"are {list(test_shape)}; bring them to one size."
        )
    names = checks.label_names(given.label_names)
    highest = int(max(parts["y_train"].max(), parts["y_test"].max()))
    if parts["y_train"].min() == 0 and highest >= len(names):
        raise DatasetError(
            f"label_names must name all classes, but has {len(names)} names and the "
            f"labels go up to {highest}; name all {highest + 1} classes from 0 on."
        )
    classes = f"the {len(names)} label_names"
    for part in ("train", "test"):
        checks.within(parts[f"y_{part}"], f"y_{part}", len(names), classes, "")
    mean, std = checks.moments(given.mean, given.std, shape[-1])
    return given._replace(**parts, label_names=names, mean=mean, std=std)


def like(data: Dataset, x: ArrayLike, augmentation: str) -> tuple[np.ndarray, bool]:
    """Checks new images for networks that were trained on a data set.

    Args:
        data: what they were trained on.
        x: images as those of `data` are stored, [B, H, W, C] or one [H, W, C]; grey
            ones may lack C.
        augmentation: what training did.

    Returns:
        Images [B, H, W, C] of the data set's type, and whether it was a single one.

    Raises:
        DatasetError: for images of another shape or type.
    """
    shape = data.x_train.shape[1:]
    grey = shape[:-1] if shape[-1] == 1 else None
    given = np.shape(x) if not hasattr(x, "shape") else tuple(x.shape)
    single = given in (shape, grey)
    x = checks.images([x] if single else x, "x", raw=augmentation == checks.RAW)
    if x.shape[1:] != shape:
        raise DatasetError(
            f"x must be images {list(shape)} like the training images, one or [B, "
            f"{', '.join(map(str, shape))}], but is {list(given)}; bring them to this "
            "size and number of channels."
        )
    return x, single


def _numbers(y: np.ndarray, y_test: np.ndarray) -> tuple[str, ...]:
    """Names of the classes that occur: 0, 1, ... without a gap."""
    low, high = int(y.min()), int(y.max())
    missing = np.setdiff1d(np.arange(min(high, y.size) + 1), y)
    if low < 0 or missing.size:
        lost = f" and lacks {_some(missing)}" if missing.size else ""
        shift = f", as in y = y - {low}, y_test = y_test - {low}" if low else ""
        raise DatasetError(
            "Classes must be numbered 0, 1, 2 and so on, but y_train spans "
            f"{low}..{high}{lost}; number them from 0 without gaps{shift}, or give "
            "label_names, one a class, if some have no training image."
        )
    extra = np.setdiff1d(y_test, y)
    if extra.size:
        raise DatasetError(
            "Every class of y_test must have a training image, but the classes "
            f"{_some(extra)} have none; leave their test images out, or number both "
            "parts alike."
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
        default = ((0.0,) * channels, (1.0,) * channels) if raw else _moments(x)
        mean, std = (
            default[0] if mean is None else mean,
            default[1] if std is None else std,
        )
    each = lambda value: (value,) * channels if np.ndim(value) == 0 else value
    return checks.moments(each(mean), each(std), channels)


def _moments(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of pixel / 255; 1 if constant."""
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in np.moveaxis(x, -1, 0):
        share = np.bincount(channel.ravel(), minlength=256) / channel.size
        center = float(share @ values)
        mean.append(center)
        std.append(float(np.sqrt(share @ (values - center) ** 2)) or 1.0)
    return tuple(mean), tuple(std)
