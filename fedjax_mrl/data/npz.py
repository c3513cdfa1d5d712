"""Data sets of the user's own in an npz file."""

import zipfile
from typing import Any

import numpy as np

from fedjax_mrl import paths
from fedjax_mrl.data import own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.data.error import DatasetError

NEEDED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("label_names", "mean", "std", "augmentation", "kind")


def read(file: str) -> Dataset:
    """Reads a file as `numpy.savez(file, x_train=..., y_train=..., ...)` writes it.

    Args:
        file: path of the npz. It holds `x_train`, `y_train`, `x_test` and `y_test`, and
            may hold what `own.arrays` takes besides: `label_names`, `mean`, `std`,
            `augmentation`, `kind`.

    Returns:
        The data set; its name is the path.

    Raises:
        DatasetError: if it cannot be read, lacks an array, or `own.arrays` refuses one.
    """
    held = arrays_of(file)
    options: dict[str, Any] = {name: held[name] for name in OPTIONAL if name in held}
    for name in ("augmentation", "kind"):
        if name in options:
            options[name] = str(options[name])
    return own.arrays(*(held[name] for name in NEEDED), name=file, **options)


def arrays_of(file: str) -> dict[str, np.ndarray]:
    """The arrays of a file by name, unchecked; those of `NEEDED` are there.

    Raises:
        DatasetError: if it cannot be read, or lacks an array.
    """
    path = paths.local(file, "The data set")
    try:
        with np.load(path, allow_pickle=False) as found:
            held = {name: found[name] for name in found.files}
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(f"Cannot read the data set {file}: {reason}.") from None
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise DatasetError(
            f"{file} must be an npz file of arrays, as np.savez writes it: {error}."
        ) from None
    missing = [name for name in NEEDED if name not in held]
    if missing:
        raise DatasetError(
            f"{file} must hold {', '.join(NEEDED)}, but lacks {', '.join(missing)}; it "
            f"has {', '.join(held) or 'nothing'}."
        )
    return held
