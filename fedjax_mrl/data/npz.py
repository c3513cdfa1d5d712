"""Data sets of the user's own in an npz file."""

import zipfile
from typing import Any

import numpy as np

from fedjax_mrl import array_files, paths
from fedjax_mrl.data import own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.data.error import DatasetError

NEEDED = ("x_train", "y_train")
TEST = ("x_test", "y_test")
OPTIONAL = (
    "clients",
    "clients_test",
    "label_names",
    "mean",
    "std",
    "augmentation",
    "kind",
)


def read(file: str) -> Dataset:
    """Reads a file as `numpy.savez(file, x_train=..., y_train=..., ...)` writes it.

    Args:
        file: path of the npz. It holds `x_train` and `y_train` (or `x` and `y`), and
            may hold what `own.arrays` takes besides: `x_test` and `y_test`, `clients`,
            `clients_test`, `label_names`, `mean`, `std`, `augmentation`, `kind`.

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
    train = [held[name] for name in NEEDED]
    test = [held.get(name) for name in TEST]
    made = own.arrays(*train, *test, name=file, **options)
    unknown = [name for name in held if name not in (*NEEDED, *TEST, *OPTIONAL)]
    if not unknown:
        return made
    note = f"Of {file} these arrays have no meaning here: {', '.join(unknown)}."
    return made._replace(notes=(note,))


def _array(found: Any, name: str, file: str) -> np.ndarray:
    """One array of a file.

    Raises:
        DatasetError: if it holds Python objects, which only a pickle could bring back.
    """
    try:
        return found[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise DatasetError(
            f"{name} in {file} holds Python objects, as a column of text from pandas "
            f"does, which are not read; save {name}.astype(str), or numbers."
        ) from None


def arrays_of(file: str) -> dict[str, np.ndarray]:
    """The arrays of a file by name, unchecked; those of `NEEDED` are there.

    Raises:
        DatasetError: if it cannot be read, or lacks an array.
    """
    path = paths.local(file, "The data set")
    try:
        if not zipfile.is_zipfile(path) and path.is_file():
            raise DatasetError(
                f"{file} must be an npz file of arrays, as np.savez writes it, but is "
                "a file of another kind."
            )
        with (
            array_files.reading(DatasetError),
            np.load(path, allow_pickle=False) as found,
        ):
            held = {name: _array(found, name, file) for name in found.files}
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(f"Cannot read the data set {file}: {reason}.") from None
    except array_files.DamagedError as error:
        raise DatasetError(
            f"{file} must be an npz file of arrays, as np.savez writes it: {error}."
        ) from None
    for short, name in zip(("x", "y"), NEEDED, strict=True):
        if short in held and name not in held:
            held[name] = held.pop(short)
    if any(name not in held for name in NEEDED):
        names = (*NEEDED, *TEST)
        missing = [name for name in names if name not in held]
        raise DatasetError(
            f"{file} must hold {', '.join(names)} (the last two may be left out), but "
            f"lacks {', '.join(missing)}; it has {', '.join(held) or 'nothing'}."
        )
    return held
