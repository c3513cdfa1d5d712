"""Handwritten digits of scikit-learn, the data set that needs no file.

1,797 grey images of 8 x 8 pixels with values 0..16, the test part of the UCI "Optical
Recognition of Handwritten Digits". Each pixel becomes a block of 4 x 4, each value
`v * 255 // 16`, and the grey channel is repeated three times, so that networks for
CIFAR run unchanged. Real data, and far easier than CIFAR-10.

The split is fixed: of each class, in the order of the file, every fifth image is a test
image, the others are for training. No randomness; each class is split 80 / 20.

Reference: Alpaydin and Kaynak, 1998, https://doi.org/10.24432/C50P49
"""

import gzip
import importlib.util
import pathlib

import numpy as np

from fedjax_mrl.data.dataset import Arrays, DatasetSpec

__all__ = ["digits"]


def _load() -> Arrays:
    grey, labels = _read()
    values = grey.reshape(-1, 8, 8).astype(np.uint16) * 255 // 16
    images = values.astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    images = np.repeat(images[..., None], 3, axis=-1)  # [1797, 32, 32, 3]
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return Arrays(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def _read() -> tuple[np.ndarray, np.ndarray]:
    """The images [1797, 64] and their labels [1797], as scikit-learn gives them.

    From the file in its folder: importing it takes longer than all that a short run
    does before its first round.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        file = pathlib.Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                rows = np.loadtxt(lines, delimiter=",")
            return rows[:, :-1], rows[:, -1].astype(int)
    # Another version may have it elsewhere, and it may be in an archive.
    from sklearn import datasets

    grey, labels = datasets.load_digits(return_X_y=True)
    return np.asarray(grey), np.asarray(labels)


digits = DatasetSpec(
    name="digits",
    description="1,797 handwritten digits, 8x8 brought to 32x32x3, embedded",
    image_shape=(32, 32, 3),
    label_names=tuple("0123456789"),
    mean=(0.3043, 0.3043, 0.3043),
    std=(0.3761, 0.3761, 0.3761),
    num_train=1442,
    num_test=355,
    embedded=_load,
)
