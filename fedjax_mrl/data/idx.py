"""Reads idx files, the format of MNIST and its relatives, gzipped or not."""

import gzip
import math
from pathlib import Path

import numpy as np

from fedjax_mrl.data.dataset import Arrays, DatasetError, DatasetSpec, border, damaged
from fedjax_mrl.data.official import Parser

_STEMS = tuple(
    f"{part}-{kind}"
    for part in ("train", "t10k")
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
FILES = (" and ".join(f"{stem}.gz" for stem in _STEMS),)


def idx(folders: tuple[str, ...], first_labels: tuple[int, ...]) -> Parser:
    """Returns the parser of the four idx files, gzipped or not.

    Args:
        folders: well-known subfolders; the folder itself is tried last.
        first_labels: how the training labels begin. MNIST and its relatives have the
            same file names and sizes, so only this tells them apart.
    """

    def parse(spec: DatasetSpec, source: Path) -> Arrays | None:
        for folder in (*(source / name for name in folders), source):
            paths = [_idx_path(folder, stem) for stem in _STEMS]
            found = [path for path in paths if path]
            if not found:
                continue
            if len(found) < len(paths):
                lost = [s for s, path in zip(_STEMS, paths, strict=True) if not path]
                expected = f"the complete release with {', '.join(_STEMS)} (.gz or not)"
                raise damaged(folder, expected, f"{', '.join(lost)} missing")
            size = spec.image_shape[:2]
            counts = (spec.num_train, spec.num_train, spec.num_test, spec.num_test)
            shapes = [(n, *size) if i % 2 == 0 else (n,) for i, n in enumerate(counts)]
            x, y, x_test, y_test = map(_idx, found, shapes)
            begin = tuple(map(int, y[: len(first_labels)]))
            if begin != first_labels[: len(begin)]:
                raise DatasetError(
                    f"{found[1]} must be the labels of {spec.name}, which begin with "
                    f"{first_labels}, but they begin with {begin}; other data sets "
                    "have files of the same names, so keep each in its own folder."
                )
            return Arrays(x[..., None], y, x_test[..., None], y_test)
        return None

    return parse


def _idx_path(folder: Path, stem: str) -> Path | None:
    # The gzipped file first: it has a checksum.
    for name in (stem, stem.replace("-idx", ".idx")):
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                return path
    return None


def _idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    expected = f"an idx file of uint8 {list(shape)}"
    size = math.prod(shape)
    opened = gzip.open if path.suffix == ".gz" else open
    with border(path, expected), opened(path, "rb") as stream:
        header = stream.read(4 + 4 * len(shape))
        contents = stream.read(size + 1)
    wanted = bytes([0, 0, 8, len(shape)]) + np.asarray(shape, ">u4").tobytes()
    if header != wanted:
        raise damaged(
            path, expected, f"it begins with {header.hex()}, not {wanted.hex()}"
        )
    if len(contents) != size:
        found = "more" if len(contents) > size else len(contents)
        raise damaged(path, expected, f"{found} bytes follow the header, not {size}")
    return np.frombuffer(contents, np.uint8).reshape(shape)
