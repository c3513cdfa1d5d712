"""The types of a data set: its arrays, its description, and the check of the two.

Types and checks only. Nothing here reads a file; `fedjax_mrl.datasets` holds one
`DatasetSpec` a data set, and the modules beside this one fill in the arrays.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_mrl.data import checks
from fedjax_mrl.data.error import DatasetError as DatasetError


def damaged(path: Path | str, expected: str, found: str) -> DatasetError:
    """Words the error of a file that is not what it should be."""
    return DatasetError(
        f"{path} must be {expected}, but is not: {found}. The file may be damaged or "
        "incomplete; fetch it again, or give another folder."
    )


@contextlib.contextmanager
def border(path: Path | str, expected: str) -> Iterator[None]:
    """Turns whatever a decoder raises on damaged input into a `DatasetError`."""
    try:
        yield
    except DatasetError:
        raise
    # Zip, zlib, gzip, tar, pickle, PNG and NumPy document no closed list of what
    # damage makes them raise, and to the user it is all one thing.
    except Exception as error:
        raise damaged(path, expected, f"{type(error).__name__}: {error}") from error


class Arrays(NamedTuple):
    """Images and labels as a reader found them, before they are checked.

    Attributes:
        x_train: uint8 [n, H, W, C].
        y_train: integers [n].
        x_test: uint8 [m, H, W, C].
        y_test: integers [m].
        label_names: one name a class, or None where the source has none.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    label_names: tuple[str, ...] | None = None


class Clients(NamedTuple):
    """Whose each example is, where data name their clients.

    Attributes:
        names: of the clients in order, numbers by size and text by its characters.
        train: int32 [n], for each training example a position in `names`.
        test: int32 [m], for each test example, or None for one common test set.
    """

    names: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray | None


class Dataset(NamedTuple):
    """A data set in memory, in the order of its official release.

    Attributes:
        name: as `fedjax_mrl.datasets.names` lists it.
        x_train: by `kind` uint8 images [n, H, W, C], float32 features [n, ...] or int32
            tokens [n, ...]; float32 images where augmentation is "raw".
        y_train: int32 [n], in `0..num_classes - 1`.
        x_test: [m, ...], of the same shape and type; without examples where a test part
            is still to be drawn from the training examples, see `drawn_test.draw`.
        y_test: int32 [m].
        label_names: one name a class.
        mean: a channel's mean of pixel / 255; () for features and tokens, and until
            the test part is drawn.
        std: a channel's standard deviation of pixel / 255, likewise.
        augmentation: what training does by default, "none" or "flip_erase_crop";
            "raw" hands inputs to the networks as they are.
        kind: "images", "features" or "tokens".
        clients: whose each example is; None where nobody said.
        test_drawn: whether the test part was drawn from the training examples.
        notes: sentences on what was decided for the user, who is told.
        measured: what nobody gave and was taken from everybody's examples, such as
            "mean and std"; differential privacy does not cover it.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    label_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str
    kind: str = "images"
    clients: Clients | None = None
    test_drawn: bool = False
    notes: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    def sha256(self) -> str:
        """Checksum of examples, labels and clients: tells when a file has changed."""
        sha = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            sha.update(f"{array.dtype} {array.shape}\n".encode())
            sha.update(np.ascontiguousarray(array).data)
        if self.clients is not None:
            sha.update(f"{self.clients.names}\n".encode("utf-8", "surrogateescape"))
            for numbers in self.clients[1:]:
                sha.update(b"none" if numbers is None else numbers.tobytes())
        return sha.hexdigest()


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """The description of a data set, which a file of `fedjax_mrl/datasets/` exports.

    Attributes:
        name: the name users write; also the name of the npz, `<name>.npz`.
        description: one line for lists.
        image_shape: (H, W, C).
        label_names: one name a class, in the order of the label numbers.
        mean: a channel's mean of pixel / 255.
        std: a channel's standard deviation of pixel / 255.
        num_train: number of training images.
        num_test: number of test images.
        augmentation: "none" or "flip_erase_crop", the default of training.
        embedded: returns the arrays where they come with an installed package.
        tfds_name: `name:version` of the TFDS data set; "" means `<name>:1.0.0`.
        official: given this specification and a folder, reads the official files;
            None where there are none, `DatasetError` where they are damaged.
        files: what the official files are called, for messages.
    """

    name: str
    description: str
    image_shape: tuple[int, int, int]
    label_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_train: int
    num_test: int
    augmentation: str = "none"
    embedded: Callable[[], Arrays] | None = None
    tfds_name: str = ""
    official: "Callable[[DatasetSpec, Path], Arrays | None] | None" = None
    files: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def builder(self) -> tuple[str, str]:
        """Name and version of the TFDS data set."""
        name, _, version = (self.tfds_name or self.name).partition(":")
        return name, version or "1.0.0"


def checksum(dataset: Dataset | Arrays) -> str:
    """Returns the SHA-256 over shapes, dtypes and bytes of the four arrays, in hex."""
    digest = hashlib.sha256()
    for field in ("x_train", "y_train", "x_test", "y_test"):
        array = np.ascontiguousarray(getattr(dataset, field))
        digest.update(f"{field} {array.dtype.str} {array.shape};".encode())
        digest.update(array.data)
    return digest.hexdigest()


def build(spec: DatasetSpec, arrays: Arrays, origin: str) -> Dataset:
    """Checks arrays against their specification.

    Args:
        spec: what the data set must look like.
        arrays: what a reader found.
        origin: where it was found, for messages.

    Returns:
        The data set; labels int32, names from the arrays where they have them.

    Raises:
        DatasetError: for another dtype, shape, number of images, or a label out of
            range.
    """
    x = _images(spec, arrays.x_train, f"x_train of {origin}", spec.num_train)
    y = _labels(spec, arrays.y_train, f"y_train of {origin}", len(x))
    x_test = _images(spec, arrays.x_test, f"x_test of {origin}", spec.num_test)
    y_test = _labels(spec, arrays.y_test, f"y_test of {origin}", len(x_test))
    names = arrays.label_names or spec.label_names
    if len(names) != spec.num_classes:
        raise DatasetError(
            f"label_names of {origin} must name the {spec.num_classes} classes of "
            f"{spec.name}, but there are {len(names)}; leave them out or correct them."
        )
    return Dataset(
        name=spec.name,
        x_train=x,
        y_train=y,
        x_test=x_test,
        y_test=y_test,
        label_names=tuple(names),
        mean=spec.mean,
        std=spec.std,
        augmentation=spec.augmentation,
    )


def _images(spec: DatasetSpec, x: np.ndarray, what: str, expected: int) -> np.ndarray:
    x = checks.images(x, what)
    wanted = (expected, *spec.image_shape)
    if x.shape != wanted:
        raise DatasetError(
            f"{what} must be uint8 {list(wanted)} (0..255, channels last), but is "
            f"{x.dtype} {list(x.shape)}; convert it, or give the files of {spec.name}."
        )
    return x


def _labels(spec: DatasetSpec, y: np.ndarray, what: str, expected: int) -> np.ndarray:
    y = checks.labels(y, what, expected)
    hint = ", or fetch the file again if it should be the official one"
    checks.within(y, what, spec.num_classes, spec.name, hint)
    return y
