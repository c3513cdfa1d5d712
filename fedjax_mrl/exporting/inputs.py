"""Files of examples for a model: images, or arrays."""

import pathlib
from collections.abc import Iterable

import numpy as np

from fedjax_mrl import array_files
from fedjax_mrl.data import image_files, own
from fedjax_mrl.data.dataset import DatasetError
from fedjax_mrl.exporting.description import Description
from fedjax_mrl.exporting.error import ExportError

_ARRAYS = (".npy", ".npz")
_NAMES = ("x", "x_test")  # of the array in an npz file of several


def read(
    files: Iterable[pathlib.Path], description: Description, *, resize: bool = False
) -> tuple[list[str], np.ndarray]:
    """Reads examples as a model takes them.

    Args:
        files: images that Pillow reads; npy files, or npz files with one array or one
            that is called x or x_test, of one example or several.
        description: of the model.
        resize: bring images of another size to the model's.

    Returns:
        A name for each example, and the examples [B, ...].

    Raises:
        ValueError: for the first file that cannot be used.
    """
    names: list[str] = []
    parts: list[np.ndarray] = []
    stored = description.stored
    for file in files:
        if file.suffix.lower() in _ARRAYS:
            try:
                x, single = own.like(stored, _array(file), stored.augmentation)
            except DatasetError as error:
                raise DatasetError(f"{file}: {error}") from None
            places = [""] if single else [f"[{i}]" for i in range(len(x))]
            names += [f"{file}{place}" for place in places]
            parts.append(x)
        else:
            _require_images(file, description)
            image = image_files.example(file, description.shape, resize=resize)
            names.append(str(file))
            parts.append(image[None])
    return names, np.concatenate(parts)


def _require_images(file: pathlib.Path, description: Description) -> None:
    """Refuses image files for a model that takes none."""
    if description.kind != "images" or description.raw:
        what = "images that are prepared already" if description.raw else None
        raise ExportError(
            f"The model takes {what or description.kind} "
            f"{list(description.shape)} of {description.dtype} and no image files; "
            f"give them in an npy or npz file instead of {file}."
        )


def _array(file: pathlib.Path) -> np.ndarray:
    """The array of a file."""
    try:
        with array_files.reading(ExportError):
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            with found:
                return found[_wanted(file, found.files)]
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(f"Cannot read {file}: {reason}.") from None
    except array_files.DamagedError as error:
        raise ExportError(f"{file} must be a file of arrays: {error}.") from None


def _wanted(file: pathlib.Path, named: list[str]) -> str:
    """The name of the one array in an npz file that is meant."""
    wanted = [name for name in _NAMES if name in named]
    if len(named) != 1 and not wanted:
        raise ExportError(
            f"{file} must hold one array, or one that is called x; it has "
            f"{', '.join(named[:6]) or 'none'}."
        )
    return (wanted or named)[0]
