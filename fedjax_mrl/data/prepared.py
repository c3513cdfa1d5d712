"""Prepared TFDS data sets: reads and writes them, without TensorFlow.

What is written is an ordinary TFDS data set, `<data_dir>/<name>/<version>/` in the
array_record format under the official name, version and feature names, which plain
`tfds.builder_from_directory(...).as_data_source()` reads as well.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_mrl import paths
from fedjax_mrl.data import official, records, tfds_package
from fedjax_mrl.data.dataset import (
    Arrays,
    Dataset,
    DatasetError,
    DatasetSpec,
    border,
    build,
    checksum,
    damaged,
)

_BLOCK = 1000  # records read at once


def find(spec: DatasetSpec, data_dir: Path) -> Path | None:
    """Returns the folder of the prepared data set, the official version first."""
    name, version = spec.builder
    versions = {
        p.parent.name: p.parent for p in data_dir.glob(f"{name}/*/dataset_info.json")
    }
    if version in versions or not versions:
        return versions.get(version)
    return versions[
        max(versions, key=lambda v: [part.zfill(9) for part in v.split(".")])
    ]


def read(spec: DatasetSpec, data_dir: Path) -> Arrays | None:
    """Reads a prepared data set.

    The official order is restored where TFDS has shuffled while preparing, so that a
    partition by position is the same whichever way the data came.

    Args:
        spec: the data set to look for.
        data_dir: the folder of TFDS, which holds `<name>/<version>`.

    Returns:
        The arrays, not yet checked against `spec`; None if there is no such folder.

    Raises:
        DatasetError: if it is damaged, in another format, or tensorflow_datasets is
            not installed.
    """
    folder = find(spec, data_dir)
    return None if folder is None else _read(spec, folder)


def _read(spec: DatasetSpec, folder: Path) -> Arrays:
    tfds = tfds_package.load()
    again = f"`fedjax-mrl data import {spec.name} --from DIR --overwrite`"
    with (
        tfds_package.quiet(),
        border(folder, "a prepared TFDS data set"),
        paths.plain(folder) as way,
    ):
        builder = tfds.builder_from_directory(way)
        if builder.info.file_format.value != "array_record":
            raise DatasetError(
                f"{folder} must be in the array_record format to be read without "
                f"TensorFlow, but is {builder.info.file_format.value}; give another "
                f"--data-dir, or replace it from the official files: {again}."
            )
        splits = [_split(tfds, builder, spec, part) for part in ("train", "test")]
        names = builder.info.features["label"].names
    return Arrays(*splits[0], *splits[1], tuple(names) if names else None)


def import_dataset(
    spec: DatasetSpec, source: Path, data_dir: Path, *, overwrite: bool = False
) -> Path:
    """Turns official files or an npz into a prepared TFDS data set.

    Args:
        spec: which data set.
        source: folder (or archive, or npz) with its files; see `official.read`.
        data_dir: the folder of TFDS; made if absent.
        overwrite: whether to replace one that is there with other contents.

    Returns:
        The folder of the prepared data set; complete, or absent after an error.

    Raises:
        DatasetError: if there are no files or damaged ones, if other contents are in
            place, if the data set needs no import, or nothing can be written.
    """
    if spec.embedded:
        raise DatasetError(
            f"Only data sets that are not embedded are imported, but {spec.name} is; "
            f"use it as it is: --dataset {spec.name}."
        )
    arrays = official.read(spec, source)
    if arrays is None:
        raise official.missing(spec, source)
    dataset = build(spec, arrays, str(source))
    target = data_dir.joinpath(*spec.builder)
    if target.exists():
        if _holds(spec, target, dataset):
            return target
        if not overwrite:
            raise DatasetError(
                f"{target} must not be there yet or hold the same data, but holds "
                "other data or none that can be read; give another --data-dir, or "
                "--overwrite to replace it."
            )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # Prepared beside its place and moved at the end: never half there.
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".import-") as work:
            made = _write(spec, dataset, Path(work))
            if not _holds(spec, made, dataset):
                raise damaged(made, "what was imported", "it reads back differently")
            _move(made, target, Path(work) / "replaced")
    except OSError as error:
        raise DatasetError(
            f"{data_dir} must be writable and have room for {spec.name}, but: {error}; "
            "make room, or give another --data-dir."
        ) from error
    return target


def _move(made: Path, target: Path, aside: Path) -> None:
    """Puts `made` in the place of `target`, or leaves `target` as it was."""
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        target.rename(aside)
    try:
        made.rename(target)
    except BaseException:
        if aside.exists():
            aside.rename(target)
        raise


def _holds(spec: DatasetSpec, folder: Path, dataset: Dataset) -> bool:
    """Says whether what is prepared in `folder` has the contents of `dataset`."""
    try:
        prepared = build(spec, _read(spec, folder), str(folder))
    except DatasetError:
        return False
    return checksum(prepared) == checksum(dataset)


def _split(tfds: Any, builder: Any, spec: DatasetSpec, part: str) -> official.Split:
    """Reads one split: images uint8 [n, H, W, C] and labels int64 [n]."""
    # Pillow decodes here, and not TFDS, which would warn and ask for OpenCV.
    skip = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(part, decoders=skip)
    x = np.zeros((len(source), *spec.image_shape), np.uint8)
    y = np.zeros(len(source), np.int64)
    ids: list[bytes] = []
    for start in range(0, len(source), _BLOCK):
        block = range(start, min(start + _BLOCK, len(source)))
        for i, example in zip(block, source.__getitems__(list(block)), strict=True):
            x[i] = records.decode(example["image"], spec.image_shape)
            y[i] = example["label"]
            ids += [example["id"]] if "id" in example else []
    order = np.arange(len(source))
    if ids:
        order = records.order_by_id(ids)
    elif not builder.info.disable_shuffling:
        order = records.order_by_hash(part, len(source))
    return x[order], y[order]


def _write(spec: DatasetSpec, dataset: Dataset, data_dir: Path) -> Path:
    """Prepares `dataset` in `data_dir` and returns the folder of its version."""
    tfds = tfds_package.load()
    with tfds_package.quiet(), paths.plain(data_dir) as way:
        builder = records.builder(tfds, spec, dataset)(
            data_dir=os.fspath(way), file_format="array_record"
        )
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=config)
    return data_dir / Path(builder.data_dir).relative_to(way)
