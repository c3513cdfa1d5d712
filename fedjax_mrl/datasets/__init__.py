"""The data sets, one file each.

A file exports a `DatasetSpec` named as the data set, listed in its `__all__`; lying in
this folder is what makes it available.
"""

import os
from pathlib import Path

from fedjax_mrl import discovery, paths, references
from fedjax_mrl.data import folders, npz, official, prepared
from fedjax_mrl.data.dataset import Dataset, DatasetError, DatasetSpec, build
from fedjax_mrl.data.error import MissingError

# How data of the user's own are named, and what they are.
FORMS = {
    "FILE.npz": "your arrays: x, y and if you have them x_test, y_test, clients",
    "DIR": "your images, DIR/CLASS/IMAGE or DIR/train/CLASS/IMAGE and DIR/test",
    "LEAF": "a folder in LEAF's layout, LEAF/train/*.json and LEAF/test/*.json",
}


def names() -> tuple[str, ...]:
    """Returns the names of all data sets, sorted."""
    return tuple(discovery.find(__name__))


def get(name: str) -> DatasetSpec:
    """Returns the description of a data set.

    Raises:
        ValueError: for an unknown name, with the nearest valid one.
    """
    return discovery.get(__name__, name, "dataset")


def default_data_dir() -> Path:
    """Returns the folder of TFDS: `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Raises:
        PathError: if the variable is no path of this machine.
    """
    given = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return paths.local(given, "$TFDS_DATA_DIR")


def _found(name: str) -> str:
    """Says what lies at a path that is no data set."""
    if not os.path.isfile(name):
        return "there is no folder of that name here."
    return (
        f"{name} is a file of another kind. A table goes into an npz file by "
        "np.savez('FILE.npz', x=x, y=y), see docs/own_data.md."
    )


def load(
    name: str, data_dir: str | Path | None = None, image_size: int | None = None
) -> Dataset:
    """Loads a data set into memory.

    Looks for, in this order: arrays embedded in an installed package; a prepared TFDS
    data set under `data_dir`; official files or `<name>.npz` in `data_dir`. The order
    of the images is the official one in each case. Needs no network, and
    tensorflow_datasets only for the second.

    Args:
        name: one of `names()`, or the path of an npz file or a folder, see `FORMS`.
        data_dir: where to look; `default_data_dir()` if None.
        image_size: side in pixels that images of a folder are brought to.

    Returns:
        Images uint8 [n, H, W, C] and labels int32 [n] of both parts.

    Raises:
        ValueError: for an unknown name.
        MissingError: if the data are not there.
        DatasetError: if they are damaged, or of another shape.
    """
    if not references.is_data_path(name):
        known = names()
        if name not in known:
            raise ValueError(
                f"{discovery.unknown('dataset', name, known)} Or give the path of your "
                f"own data: {', '.join(FORMS)}; {_found(name)}"
            )
    elif not name.endswith(".npz"):
        return folders.read(name, image_size)
    if image_size is not None:
        raise DatasetError(
            f"--image-size is for a folder of images; {name} is none. Leave it out."
        )
    if name.endswith(".npz"):
        return npz.read(name)
    return load_spec(get(name), data_dir)


def load_spec(spec: DatasetSpec, data_dir: str | Path | None = None) -> Dataset:
    """Loads the data set that `spec` describes, listed or not; see `load`."""
    if spec.embedded:
        return build(spec, spec.embedded(), f"the embedded {spec.name}")
    try:
        folder = (
            default_data_dir()
            if data_dir is None
            else paths.local(data_dir, f"The folder of {spec.name}")
        )
    except paths.PathError as error:
        raise DatasetError(str(error)) from None
    try:
        arrays = prepared.read(spec, folder)
    except DatasetError:
        # Official files serve as well where the prepared data set cannot be read, as
        # without tensorflow_datasets or in the TFRecord format.
        arrays = official.read(spec, folder)
        if arrays is None:
            raise
    if arrays is None and folder.exists():
        arrays = official.read(spec, folder)
    if arrays is None:
        command = f"fedjax-mrl data import {spec.name}"
        raise MissingError(
            f"The data set {spec.name} must lie in {folder}, but is not there. Put "
            f"{official.offers(spec)} there, or run `{command} --from DIR` with "
            f"the folder that has it, or `{command} --download` with a network."
        )
    return build(spec, arrays, str(folder))
