"""Reads the files in which data sets are published, with NumPy alone.

The CIFAR releases (binary and Python version, unpacked or as tar.gz) and a plain npz;
idx files have a module of their own. Whatever is wrong with a file ends in a
`DatasetError` that names it. No file can run code: see `_Unpickler`.
"""

import gzip
import io
import math
import pickle  # noqa: TID251  (the format of the CIFAR release; see _Unpickler)
import pickletools
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl.data.dataset import Arrays, DatasetError, DatasetSpec, border, damaged

# One split of a release: images uint8 [n, H, W, C], labels integers [n].
Split = tuple[np.ndarray, np.ndarray]
# Decodes one file: contents, where they come from, shape (n, H, W, C) of its images.
Decoder = Callable[[bytes, str, tuple[int, ...]], Split]
Parser = Callable[[DatasetSpec, Path], Arrays | None]


class Batches(NamedTuple):
    """One layout in which CIFAR is published: equally long files of images.

    Attributes:
        folder: what the archive unpacks to.
        archive: name of the tar.gz.
        train: names of the files with the training images, in order.
        test: names of the files with the test images, in order.
        decode: decodes one of the files.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    decode: Decoder


def read(spec: DatasetSpec, source: Path) -> Arrays | None:
    """Reads official files or `<name>.npz`.

    Args:
        spec: the data set to look for.
        source: the folder that holds the files or their well-known subfolder, or one
            of the files itself (an archive or an npz of any name).

    Returns:
        The arrays in the order of the files, not yet checked against `spec`; None if
        there are no such files.

    Raises:
        DatasetError: if `source` does not exist or a file is damaged or incomplete.
    """
    if not source.exists():
        raise DatasetError(
            f"The folder of {spec.name} must exist, but there is no {source}; create "
            f"it and put {offers(spec)} there."
        )
    try:
        if spec.official and (arrays := spec.official(spec, source)):
            return arrays
        path = source if source.is_file() else source / f"{spec.name}.npz"
        return _npz(path) if path.suffix == ".npz" and path.is_file() else None
    except OSError as error:
        raise damaged(
            source, f"a readable source of {spec.name}", str(error)
        ) from error


def missing(spec: DatasetSpec, source: Path) -> DatasetError:
    """Words the error of a source in which `read` found nothing."""
    return DatasetError(
        f"{source} must hold the files of {spec.name}, but has none of them; put "
        f"there {offers(spec)}."
    )


def offers(spec: DatasetSpec) -> str:
    """Words what a folder may hold for `read` to find `spec` there."""
    npz = f"{spec.name}.npz (arrays x_train, y_train, x_test, y_test)"
    return " or ".join((*spec.files, npz))


def cifar(*layouts: Batches) -> Parser:
    """Returns the parser of a CIFAR release in any of `layouts`."""

    def parse(spec: DatasetSpec, source: Path) -> Arrays | None:
        for layout in layouts:
            if arrays := _batches(spec, source, layout):
                return arrays
        return None

    return parse


def binary(label_bytes: int) -> Decoder:
    """Decodes records of label bytes, of which the last counts, and channels."""

    def decode(contents: bytes, origin: str, shape: tuple[int, ...]) -> Split:
        record = label_bytes + math.prod(shape[1:])
        if len(contents) != shape[0] * record:
            expected = (
                f"{shape[0]} records of {record} bytes, {shape[0] * record} bytes"
            )
            raise damaged(origin, expected, f"it has {len(contents)} bytes")
        rows = np.frombuffer(contents, np.uint8).reshape(-1, record)
        return _channels_last(rows[:, label_bytes:], shape), rows[:, label_bytes - 1]

    return decode


def pickled(label_key: str) -> Decoder:
    """Decodes the Python version: a dict with `data` [n, C x H x W] and the labels."""

    def decode(contents: bytes, origin: str, shape: tuple[int, ...]) -> Split:
        wanted = (shape[0], math.prod(shape[1:]))
        expected = f"a Python batch of CIFAR with data {wanted} and {label_key}"
        with border(origin, expected):
            batch = {_text(k): v for k, v in _unpickle(contents, origin).items()}
            data, labels = batch["data"].value, np.asarray(batch[label_key])
        if data.shape != wanted or labels.shape != wanted[:1]:
            found = f"data {data.shape}, {label_key} {labels.shape}"
            raise damaged(origin, expected, found)
        return _channels_last(data, shape), labels

    return decode


def _channels_last(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    num, height, width, channels = shape
    return rows.reshape(num, channels, height, width).transpose(0, 2, 3, 1)


def _batches(spec: DatasetSpec, source: Path, layout: Batches) -> Arrays | None:
    files = _collect(source, layout)
    if files is None:
        return None
    splits = []
    for names, total in ((layout.train, spec.num_train), (layout.test, spec.num_test)):
        shape = (total // len(names), *spec.image_shape)
        parts = [layout.decode(*files[name], shape) for name in names]
        splits += [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    return Arrays(*splits)


def _collect(source: Path, layout: Batches) -> dict[str, tuple[bytes, str]] | None:
    """Maps each file of `sharding` to its contents and where they come from."""
    names = (*layout.train, *layout.test)
    for folder in (source / layout.folder, source):
        if any((folder / name).is_file() for name in names):
            if lost := [name for name in names if not (folder / name).is_file()]:
                expected = f"the complete release with {', '.join(names)}"
                raise damaged(folder, expected, f"{', '.join(lost)} missing")
            paths = {name: folder / name for name in names}
            return {name: (p.read_bytes(), str(p)) for name, p in paths.items()}
    archive = source if source.name == layout.archive else source / layout.archive
    if not archive.is_file():
        return None
    found = {}
    expected = f"the tar.gz of the release with {', '.join(names)}"
    with (
        border(archive, expected),
        gzip.open(archive) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        # In memory and in one pass: no member decides where something is written.
        for member in tar:
            name = Path(member.name).name
            if name in names and (contents := tar.extractfile(member)):
                found[name] = (contents.read(), f"{archive}: {member.name}")
        while stream.read(1 << 20):  # gzip compares its checksum only at the end
            pass
    if lost := [name for name in names if name not in found]:
        raise damaged(archive, expected, f"{', '.join(lost)} missing")
    return found


class _Array:
    """Stands for `numpy.ndarray` in a pickle, so that NumPy's own code never runs."""

    value = np.zeros((0, 0), np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, _, fortran, data = state
        data = data if isinstance(data, bytes) else data.encode("latin1")
        order = "F" if fortran else "C"
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order=order)


class _Uint8:
    """Stands for `numpy.dtype` in a pickle; there is only uint8 in these files."""

    def __init__(self, code: str | bytes, align: int, copy: int) -> None:
        if _text(code) not in ("u1", "|u1"):
            raise DatasetError(f"the images must be uint8, not {_text(code)}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Ignores byte order, alignment and fields, which a byte does not have."""


class _Unpickler(pickle.Unpickler):
    """Reads what a CIFAR batch contains, and nothing else.

    The Python version of CIFAR is a pickle, and a pickle may name any function for the
    reader to call. This one knows four names, none of which is the real thing: three
    rebuild a uint8 array, the fourth is how Python 3 writes bytes for Python 2. No
    other module of the library may import pickle.
    """

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return lambda *_: _Array()
            case "numpy", "ndarray":
                return _Array
            case "numpy", "dtype":
                return _Uint8
            case "_codecs", "encode":
                return lambda text, _: text.encode("latin1")
        raise DatasetError(f"it asks for {module}.{name}, which no CIFAR file does")


def _unpickle(contents: bytes, origin: str) -> dict[Any, Any]:
    """Unpickles a dict of lists, texts and uint8 arrays (as `_Array`)."""
    expected = "a Python batch of CIFAR"
    # A memo index is a table size to the unpickler: a damaged one takes gigabytes. An
    # honest one counts what was remembered so far.
    for count, (opcode, argument, _) in enumerate(pickletools.genops(contents)):
        if opcode.name.endswith("PUT") and (argument is None or argument > count):
            raise damaged(origin, expected, f"memo index {argument}")
    try:
        return _Unpickler(io.BytesIO(contents), encoding="bytes").load()
    except DatasetError as error:
        raise damaged(origin, expected, str(error)) from error


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _npz(path: Path) -> Arrays:
    keys = ("x_train", "y_train", "x_test", "y_test")
    expected = f"an npz with the arrays {', '.join(keys)}"
    with (
        border(path, expected),
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as stored,
    ):
        if lost := [key for key in keys if key not in stored]:
            raise damaged(path, expected, f"{', '.join(lost)} missing")
        # NumPy reads what a header announces, which may end before the checksum.
        if broken := stored.zip.testzip():
            raise damaged(path, expected, f"the checksum of {broken} does not fit")
        arrays = {key: stored[key] for key in keys}
        names = None
        if "label_names" in stored:
            names = tuple(map(_text, np.ravel(stored["label_names"]).tolist()))
    # Two usual shapes with an axis too few or too many: grey images, column labels.
    for key in keys:
        array = arrays[key]
        if key.startswith("x") and array.ndim == 3:
            arrays[key] = array[..., None]
        elif key.startswith("y") and array.ndim == 2 and array.shape[1] == 1:
            arrays[key] = array[:, 0]
    return Arrays(**arrays, label_names=names)
