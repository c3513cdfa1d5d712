"""Toy data sets: the shape of the real ones, a few images each."""

import dataclasses
import gzip

import numpy as np
import pytest

from fedjax_mrl import datasets
from fedjax_mrl.data.dataset import Arrays


def _arrays(spec):
    rng = np.random.default_rng(0)

    def split(num):
        x = rng.integers(0, 256, (num, *spec.image_shape), dtype=np.uint8)
        return x, rng.integers(0, spec.num_classes, num).astype(np.uint8)

    return Arrays(*split(spec.num_train), *split(spec.num_test))


@pytest.fixture(scope="session")
def toy():
    """A data set by name with 20 training and 6 test images: (spec, arrays)."""

    def make(name):
        spec = dataclasses.replace(datasets.get(name), num_train=20, num_test=6)
        return spec, _arrays(spec)

    return make


@pytest.fixture(scope="session")
def as_binary():
    """Encodes images and labels as the binary version of CIFAR."""

    def encode(x, y, label_bytes=1):
        labels = np.zeros((len(x), label_bytes), np.uint8)
        labels[:, -1] = y
        pixels = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return np.concatenate([labels, pixels], axis=1).tobytes()

    return encode


@pytest.fixture(scope="session")
def write_cifar10(as_binary):
    """Writes the six binary files of CIFAR-10 into a folder."""

    def write(folder, arrays):
        folder.mkdir(parents=True, exist_ok=True)
        x, y = np.split(arrays.x_train, 5), np.split(arrays.y_train, 5)
        for i in range(5):
            path = folder / f"data_batch_{i + 1}.bin"
            path.write_bytes(as_binary(x[i], y[i]))
        contents = as_binary(arrays.x_test, arrays.y_test)
        (folder / "test_batch.bin").write_bytes(contents)

    return write


@pytest.fixture(scope="session")
def write_idx():
    """Writes the four idx files of the MNIST family into a folder."""

    def write(folder, arrays, zipped=True):
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "train-images-idx3-ubyte": arrays.x_train[..., 0],
            "train-labels-idx1-ubyte": arrays.y_train,
            "t10k-images-idx3-ubyte": arrays.x_test[..., 0],
            "t10k-labels-idx1-ubyte": arrays.y_test,
        }
        for name, array in files.items():
            contents = bytes([0, 0, 8, array.ndim])
            contents += np.asarray(array.shape, ">u4").tobytes() + array.tobytes()
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(contents, mtime=0))
            else:
                (folder / name).write_bytes(contents)

    return write


@pytest.fixture(scope="session")
def assert_same():
    """Asserts that arrays or data sets hold the same images and labels."""

    def check(found, expected):
        for field in ("x_train", "y_train", "x_test", "y_test"):
            np.testing.assert_array_equal(
                getattr(found, field), getattr(expected, field), field
            )

    return check
