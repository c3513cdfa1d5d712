"""Image files by class: in DIR/CLASS, or in DIR/train/CLASS and DIR/test/CLASS."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_mrl.data import image_files, own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.data.error import DatasetError

TRAIN, TESTS = "train", ("test", "val", "valid", "validation")
FORM = (
    "a folder for each class with images in it (DIR/CLASS/IMAGE), or these below "
    "DIR/train and DIR/test"
)
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")  # what systems leave; not told


class _Part(NamedTuple):
    """The image files of one part and their classes, in order."""

    files: list[Path]
    classes: list[str]


def read(folder: Path, name: str, image_size: int | None) -> Dataset:
    """Reads the images below a folder, of which each lies in the folder of its class.

    Classes are in the order of their names, numbers by size. With DIR/train and no
    DIR/test (or else val, valid, validation) the test part is drawn later.

    Args:
        folder: DIR.
        name: for tables and messages.
        image_size: N to bring all images to N x N pixels; None needs one size.

    Returns:
        Grey images if all files are grey, else RGB; the names of the folders as
        `label_names`.

    Raises:
        DatasetError: if there are no classes or images, or a file is damaged or of
            another size.
    """
    left_out: list[Path] = []
    parts = _parts(folder, left_out)
    names = _in_order({*parts[0].classes})
    extra = _in_order({*parts[1].classes} - {*names}) if len(parts) > 1 else []
    if extra:
        raise DatasetError(
            f"Every class must have training images, but {folder} has none of the "
            f"class {extra[0]!r}, which has test images; add some, or remove these."
        )
    shape = _shape([file for part in parts for file in part.files], image_size)
    number = {label: position for position, label in enumerate(names)}
    arrays = []
    for part in parts:
        arrays.append(_pixels(part.files, shape, resize=image_size is not None))
        arrays.append(np.array([number[label] for label in part.classes], np.int32))
    labels = [os.fsencode(label).decode("utf-8", "replace") for label in names]
    made = own.arrays(*arrays, name=name, label_names=labels)
    if not left_out:
        return made
    return made._replace(
        notes=(
            f"Not read, since no image of {', '.join(image_files.ENDINGS)} in the "
            f"folder of a class: {len(left_out)} in {folder}, as {left_out[0]}.",
        )
    )


def _parts(folder: Path, left_out: list[Path]) -> list[_Part]:
    """The files of the training part, and of the test part if there is one."""
    folders, files = _entries(folder)
    by_name = {entry.name: entry for entry in folders}
    train = by_name.get(TRAIN)
    if train is None or not _entries(train)[0]:
        return [_classes(folder, left_out)]
    test = next((by_name[name] for name in TESTS if name in by_name), None)
    used = [train] if test is None else [train, test]
    left_out += [entry for entry in (*folders, *files) if entry not in used]
    return [_classes(part, left_out) for part in used]


def _classes(folder: Path, left_out: list[Path]) -> _Part:
    """The images in the folders of one part; notes what is none."""
    folders, files = _entries(folder)
    left_out += files
    if not folders:
        raise DatasetError(
            f"{folder} must hold {FORM}, but has no folder in it; make one a class. "
            "For a data set that `fedjax-mrl list` names give --dataset NAME "
            "--data-dir DIR."
        )
    part = _Part([], [])
    for label in folders:
        found = 0
        for file in _walk(label, set()):
            if file.suffix.lower() in image_files.ENDINGS and not _odd(file):
                part.files.append(file)
                found += 1
            else:
                left_out.append(file)
        if not found:
            leaf = label.name in ("train", "test")
            hint = " (For LEAF's layout train must hold its .json files.)" * leaf
            raise DatasetError(
                f"Every folder in {folder} is taken for a class, but {label} holds no "
                f"image ({', '.join(image_files.ENDINGS)}); remove it, or give the "
                f"folder of the classes.{hint}"
            )
        part.classes.extend([label.name] * found)
    return part


def _odd(file: Path) -> bool:
    """Whether it is a pipe or a device, whose reading may not end."""
    return file.exists() and not file.is_file()


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The visible files below a folder in order; each folder once, links included."""
    there = folder.stat()
    if (there.st_dev, there.st_ino) in seen:
        return
    seen.add((there.st_dev, there.st_ino))
    folders, files = _entries(folder)
    yield from files
    for entry in folders:
        yield from _walk(entry, seen)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The visible folders and files of a folder, each sorted by name."""
    try:
        found = [folder / name for name in sorted(os.listdir(folder))]
    except OSError as error:
        raise DatasetError(f"Cannot read {folder}: {error.strerror}.") from None
    seen = [
        path
        for path in found
        if not path.name.startswith(".") and path.name.lower() not in _LITTER
    ]
    folders = [path for path in seen if path.is_dir()]
    return folders, [path for path in seen if not path.is_dir()]


def _in_order(names: set[str]) -> list[str]:
    """Names of classes in order: numbers by size, others by their characters."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _shape(files: Sequence[Path], image_size: int | None) -> tuple[int, int, int]:
    """The one shape [H, W, C] of all images.

    Raises:
        DatasetError: if sizes differ.
    """
    first, grey = image_files.header(files[0]), True
    for file in files:
        found = image_files.header(file)
        grey = grey and found.grey
        if image_size is None and found[:2] != first[:2]:
            raise DatasetError(
                f"All images must have one size, but {files[0]} is {first.height} x "
                f"{first.width} and {file} {found.height} x {found.width} (height x "
                "width); give --image-size N to bring all to N x N pixels."
            )
    size = first[:2] if image_size is None else (image_size, image_size)
    return (*size, 1 if grey else 3)


def _pixels(
    files: Sequence[Path], shape: tuple[int, int, int], *, resize: bool
) -> np.ndarray:
    """The pixels of all files, uint8 [n, H, W, C], in one array from the beginning."""
    wanted = len(files) * int(np.prod(shape, dtype=object))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > memory:
        raise DatasetError(
            f"{len(files)} images of {shape[0]} x {shape[1]} pixels take "
            f"{wanted / 2**30:.1f} GiB, but this machine has {memory / 2**30:.1f}; "
            "give a smaller --image-size, or fewer images."
        )
    images = np.empty((len(files), *shape), np.uint8)
    for file, into in zip(files, images, strict=True):
        image_files.read(file, into, resize=resize)
    return images
