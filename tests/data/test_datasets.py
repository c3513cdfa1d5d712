"""The list of data sets, what they say of themselves, and where `load` looks."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedjax_mrl import datasets
from fedjax_mrl.data.dataset import Arrays, DatasetError, build, checksum

ROOT = Path(__file__).parents[2]
REAL_CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10"
AUGMENTATIONS = ("none", "flip_erase_crop")


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def test_the_promised_datasets_are_listed():
    promised = {"digits", "cifar10", "cifar100", "mnist", "fashion_mnist"}
    assert promised <= set(datasets.names())


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'cifar10'"):
        datasets.get("cifar-10")


@pytest.mark.parametrize("name", datasets.names())
def test_a_description_is_consistent(name):
    spec = datasets.get(name)
    channels = spec.image_shape[-1]
    assert spec.name == name
    assert len(spec.mean) == len(spec.std) == channels
    assert all(0 < value < 1 for value in (*spec.mean, *spec.std))
    assert len(set(spec.label_names)) == spec.num_classes >= 2
    assert spec.augmentation in AUGMENTATIONS
    assert spec.description
    assert spec.embedded or (spec.official and spec.files)


def test_a_new_file_is_all_that_a_new_dataset_needs(tmp_path, toy):
    _, arrays = toy("mnist")
    package = tmp_path / "extra"
    package.mkdir()
    (package / "squares.py").write_text(
        "from fedjax_mrl.data.dataset import DatasetSpec\n"
        "__all__ = ['squares']\n"
        "squares = DatasetSpec('squares', 'toy', (28, 28, 1), tuple('0123456789'),\n"
        "                      (0.5,), (0.5,), num_train=20, num_test=6)\n"
    )
    np.savez(tmp_path / "squares.npz", **without_names(arrays))
    program = (
        "from fedjax_mrl import datasets\n"
        f"datasets.__path__.append({str(package)!r})\n"
        f"print(datasets.load('squares', {str(tmp_path)!r}).x_train.shape)\n"
    )
    assert run(program) == "(20, 28, 28, 1)"


def test_digits_look_like_cifar(digits):
    assert digits.x_train.shape[1:] == (32, 32, 3)
    assert len(digits.x_train) + len(digits.x_test) == 1797
    assert (digits.x_train.dtype, digits.y_train.dtype) == (np.uint8, np.int32)
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 255)


def test_digits_are_split_80_to_20_in_each_class(digits):
    train, test = np.bincount(digits.y_train), np.bincount(digits.y_test)
    # Every fifth image of a class, so the integer part of a fifth of it.
    np.testing.assert_array_equal(test, (train + test) // 5)


def test_digits_keep_every_image_of_scikit_learn_once(digits):
    from sklearn.datasets import load_digits

    original, labels = load_digits(return_X_y=True)
    x = np.concatenate([digits.x_train, digits.x_test])
    y = np.concatenate([digits.y_train, digits.y_test])
    assert (x == x[..., :1]).all()  # grey
    small = x[:, ::4, ::4, 0]
    assert (x[..., 0] == small.repeat(4, axis=1).repeat(4, axis=2)).all()  # blocks
    # The values 0..16 map one to one, so the rows can be compared as multisets.
    rows = np.column_stack([original * 255 // 16, labels])
    found = np.column_stack([small.reshape(-1, 64), y])
    assert sorted(map(tuple, found)) == sorted(map(tuple, rows))


def test_digits_are_the_same_every_time(digits):
    np.random.seed(1)  # noqa: NPY002  (the global state must not matter)
    assert checksum(datasets.load("digits")) == checksum(digits)


def test_digits_are_described_by_their_own_mean_and_deviation(digits):
    pixels = digits.x_train / 255.0
    np.testing.assert_allclose(digits.mean, pixels.mean((0, 1, 2)), atol=5e-5)
    np.testing.assert_allclose(digits.std, pixels.std((0, 1, 2)), atol=5e-5)


def test_the_checksum_sees_bytes_shapes_and_dtypes(digits):
    other = digits.x_train.copy()
    other[0, 0, 0, 0] += 1
    variants = [
        digits,
        digits._replace(x_train=other),
        digits._replace(x_train=digits.x_train.reshape(-1, 16, 64, 3)),
        digits._replace(y_train=digits.y_train.astype(np.uint32)),
        digits._replace(x_train=digits.x_test, x_test=digits.x_train),
    ]
    assert len({checksum(variant) for variant in variants}) == len(variants)


def test_the_checksum_does_not_see_the_layout_in_memory(digits):
    fortran = np.asfortranarray(digits.x_test)
    assert checksum(digits._replace(x_test=fortran)) == checksum(digits)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        (
            "x_train",
            lambda x: x[1:],
            r"x_train of here must be uint8 \[20, 32, 32, 3\]",
        ),
        ("x_train", lambda x: x / 255, "but is float64"),
        (
            "x_test",
            lambda x: x.transpose(0, 3, 1, 2),
            r"channels last.*\[6, 3, 32, 32\]",
        ),
        ("y_train", lambda y: y[1:], r"y_train of here must be integers \[20\]"),
        ("y_test", lambda y: y + 0.5, "y_test of here must be integers"),
        ("y_test", lambda y: y.astype(int) - 10, r"must lie in 0\.\.9.*spans -"),
        ("y_test", lambda y: y + 10, "number the classes from 0"),
        ("label_names", lambda _: ("cat", "dog"), "must name the 10 classes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(toy, field, value, match):
    spec, arrays = toy("cifar10")
    wrong = arrays._replace(**{field: value(getattr(arrays, field))})
    with pytest.raises(DatasetError, match=match):
        build(spec, wrong, "here")


def test_load_finds_official_files_before_an_npz(
    tmp_path, toy, write_cifar10, assert_same
):
    spec, arrays = toy("cifar10")
    other = Arrays(*(np.zeros_like(a) for a in arrays[:4]))
    np.savez(tmp_path / "cifar10.npz", **without_names(other))
    assert_same(datasets.load_spec(spec, tmp_path), other)
    write_cifar10(tmp_path / "cifar-10-batches-bin", arrays)
    assert_same(datasets.load_spec(spec, str(tmp_path)), arrays)


def test_load_looks_where_the_environment_says(tmp_path, toy, monkeypatch, assert_same):
    spec, arrays = toy("cifar10")
    np.savez(tmp_path / "cifar10.npz", **without_names(arrays))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert_same(datasets.load_spec(spec), arrays)
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert datasets.default_data_dir() == Path.home() / "tensorflow_datasets"


@pytest.mark.parametrize("exists", [True, False])
def test_absent_data_are_answered_with_files_and_commands(tmp_path, exists):
    folder = tmp_path if exists else tmp_path / "none"
    with pytest.raises(DatasetError) as caught:
        datasets.load("cifar10", folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "cifar-10-binary.tar.gz" in message
    assert "cifar10.npz (arrays x_train, y_train, x_test, y_test)" in message
    assert "`fedjax-mrl data import cifar10 --from DIR`" in message
    assert "`fedjax-mrl data import cifar10 --download`" in message


def test_files_are_read_without_importing_tfds(tmp_path, toy, write_cifar10):
    _, arrays = toy("cifar10")
    write_cifar10(tmp_path, arrays)
    program = (
        "import dataclasses, sys\n"
        "sys.modules['tensorflow_datasets'] = None  # as if not installed\n"
        "from fedjax_mrl import datasets\n"
        "spec = datasets.get('cifar10')\n"
        "spec = dataclasses.replace(spec, num_train=20, num_test=6)\n"
        f"print(len(datasets.load_spec(spec, {str(tmp_path)!r}).x_train))\n"
    )
    assert run(program) == "20"


def test_listing_imports_neither_tfds_nor_scikit_learn():
    program = (
        "import sys\n"
        "from fedjax_mrl import datasets\n"
        "datasets.names()\n"
        "heavy = {'tensorflow_datasets', 'tensorflow', 'sklearn', 'requests'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert run(program) == "[]"


@pytest.mark.skipif(not REAL_CIFAR10.is_dir(), reason="the real CIFAR-10 is not here")
def test_the_real_cifar10_is_read_bit_by_bit(tmp_path, write_cifar10):
    images = pytest.importorskip("PIL.Image")
    # The mosaics hold 25 x 40 images each; the first test mosaic is enough here.
    mosaic = np.asarray(images.open(REAL_CIFAR10 / "test_00.webp").convert("RGB"))
    tiles = mosaic.reshape(25, 32, 40, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    labels = np.load(REAL_CIFAR10 / "labels.npz")
    y = labels["y_test"][:1000]
    write_cifar10(tmp_path, Arrays(tiles, y, tiles, y))
    spec = datasets.get("cifar10")
    small = dataclasses.replace(spec, num_train=1000, num_test=1000)
    found = datasets.load_spec(small, tmp_path)
    digest = hashlib.sha256(found.x_test.tobytes()).hexdigest()
    assert digest == hashlib.sha256(np.ascontiguousarray(tiles).tobytes()).hexdigest()
    assert tuple(labels["label_names"]) == spec.label_names
    # The first test images of CIFAR-10 are known to show a cat and two ships.
    assert [spec.label_names[i] for i in found.y_test[:3]] == ["cat", "ship", "ship"]


def without_names(arrays):
    return {k: v for k, v in arrays._asdict().items() if k != "label_names"}


def run(program):
    """Runs a program in a fresh interpreter; returns what it prints."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
