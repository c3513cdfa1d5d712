"""Prepared TFDS data sets: written, read back, replaced and fetched."""

import dataclasses
import functools
import hashlib
import http.server
import json
import shutil
import sys
import threading
import types

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_mrl import datasets
from fedjax_mrl.data import download, prepared, records, tfds_package
from fedjax_mrl.data.dataset import DatasetError, DatasetSpec, build


def write_npz(folder, name, arrays):
    folder.mkdir(parents=True, exist_ok=True)
    stored = {k: v for k, v in arrays._asdict().items() if v is not None}
    np.savez(folder / f"{name}.npz", **stored)
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory, toy):
    """A prepared toy CIFAR-10: (spec, arrays, folder of TFDS)."""
    spec, arrays = toy("cifar10")
    root = tmp_path_factory.mktemp("imported")
    write_npz(root / "source", "cifar10", arrays)
    prepared.import_dataset(spec, root / "source", root / "tfds")
    return spec, arrays, root / "tfds"


# --- Written and read.


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_what_is_imported_reads_back_the_same(tmp_path, toy, assert_same, name):
    spec, arrays = toy(name)
    source = write_npz(tmp_path / "source", name, arrays)
    folder = prepared.import_dataset(spec, source, tmp_path / "tfds")
    assert folder == tmp_path / "tfds" / name / spec.builder[1]
    found = datasets.load_spec(spec, tmp_path / "tfds")
    assert_same(found, arrays)
    assert found.label_names == spec.label_names


def test_images_of_any_size_and_number_of_channels_survive(tmp_path, assert_same):
    rng = np.random.default_rng(0)
    for channels in (1, 2, 3, 4):
        shape = (5, 9, channels)
        half = (0.5,) * channels
        spec = DatasetSpec("odd", "toy", shape, ("a", "b"), half, half, 4, 2)
        x = rng.integers(0, 256, (6, *shape), dtype=np.uint8)
        y = np.arange(6) % 2
        arrays = build(spec, types.SimpleNamespace(
            x_train=x[:4], y_train=y[:4], x_test=x[4:], y_test=y[4:], label_names=None
        ), "here")  # fmt: skip
        root = tmp_path / str(channels)
        root.mkdir()
        fields = ("x_train", "y_train", "x_test", "y_test")
        np.savez(root / "odd.npz", **{key: getattr(arrays, key) for key in fields})
        prepared.import_dataset(spec, root, root)
        assert (root / "odd" / "1.0.0").is_dir()
        assert_same(prepared.read(spec, root), arrays)


def test_plain_tfds_reads_what_is_imported(imported):
    import tensorflow_datasets as tfds

    spec, arrays, data_dir = imported
    folder = data_dir / "cifar10" / "3.0.2"
    for builder in (
        tfds.builder_from_directory(folder),
        tfds.builder("cifar10", data_dir=data_dir),
    ):
        source = builder.as_data_source("test")
        assert len(source) == len(arrays.y_test)
        for i, example in enumerate(source):
            np.testing.assert_array_equal(example["image"], arrays.x_test[i])
            assert example["label"] == arrays.y_test[i]
            assert example["id"] == f"test_{i:05d}".encode()
        assert tuple(builder.info.features["label"].names) == spec.label_names
    assert "tensorflow" not in sys.modules


def test_nothing_is_printed_logged_or_left_behind(tmp_path, toy, capfd, caplog):
    spec, arrays = toy("cifar10")
    source = write_npz(tmp_path / "source", "cifar10", arrays)
    prepared.import_dataset(spec, source, tmp_path / "tfds")
    datasets.load_spec(spec, tmp_path / "tfds")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert [p.name for p in (tmp_path / "tfds").iterdir()] == ["cifar10"]


# The official builders shuffle; CIFAR has names by which to undo it, MNIST has not.
@pytest.mark.parametrize("ids", [True, False])
def test_the_official_order_is_restored_where_tfds_shuffled(
    tmp_path, toy, assert_same, ids
):
    import tensorflow_datasets as tfds

    spec, arrays = toy("cifar10")

    class Shuffled(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "cifar10"
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
                **({"id": tfds.features.Text()} if ids else {}),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {part: self._generate_examples(part) for part in ("train", "test")}

        def _generate_examples(self, part):
            x, y = getattr(arrays, f"x_{part}"), getattr(arrays, f"y_{part}")
            for i in range(len(x)):
                named = {"id": f"{part}_{i:05d}"} if ids else {}
                yield i, {"image": records.encode(x[i]), "label": int(y[i]), **named}

    with tfds_package.quiet():
        builder = Shuffled(data_dir=str(tmp_path), file_format="array_record")
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
        stored = [example["label"] for example in builder.as_data_source("train")]
    assert stored != arrays.y_train.tolist()  # shuffled indeed
    assert_same(prepared.read(spec, tmp_path), arrays)


def test_the_official_version_is_preferred_and_the_newest_otherwise(tmp_path, toy):
    spec, _ = toy("cifar10")
    assert prepared.find(spec, tmp_path) is None
    for version, expected in (
        ("2.0.0", "2.0.0"),
        ("10.0.0", "10.0.0"),
        ("9.0.0", "10.0.0"),
        ("3.0.2", "3.0.2"),
    ):
        folder = tmp_path / "cifar10" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").touch()
        assert prepared.find(spec, tmp_path).name == expected


def test_load_prefers_a_prepared_dataset_to_official_files(
    imported, tmp_path, assert_same
):
    spec, arrays, data_dir = imported
    shutil.copytree(data_dir, tmp_path / "both")
    other = arrays._replace(y_train=np.zeros_like(arrays.y_train))
    write_npz(tmp_path / "both", "cifar10", other)
    assert_same(datasets.load_spec(spec, tmp_path / "both"), arrays)
    # ... and falls back to them where the prepared one cannot be read.
    change_info(tmp_path / "both", fileFormat="tfrecord")
    assert_same(datasets.load_spec(spec, tmp_path / "both"), other)


# --- Replaced or not.


def test_importing_the_same_again_changes_nothing(imported, tmp_path):
    spec, arrays, data_dir = imported
    before = {p: p.stat().st_mtime_ns for p in data_dir.rglob("*")}
    source = write_npz(tmp_path, "cifar10", arrays)
    prepared.import_dataset(spec, source, data_dir)
    prepared.import_dataset(spec, source, data_dir, overwrite=True)
    assert {p: p.stat().st_mtime_ns for p in data_dir.rglob("*")} == before


def test_other_contents_are_replaced_only_when_told(imported, tmp_path, assert_same):
    spec, arrays, data_dir = imported
    home = tmp_path / "tfds"
    shutil.copytree(data_dir, home)
    other = arrays._replace(x_train=255 - arrays.x_train)
    source = write_npz(tmp_path / "source", "cifar10", other)
    with pytest.raises(DatasetError, match=r"3\.0\.2 must not be there.*--overwrite"):
        prepared.import_dataset(spec, source, home)
    assert_same(prepared.read(spec, home), arrays)
    prepared.import_dataset(spec, source, home, overwrite=True)
    assert_same(prepared.read(spec, home), other)
    assert [p.name for p in home.iterdir()] == ["cifar10"]


def test_an_import_that_fails_leaves_the_old_one(
    imported, tmp_path, monkeypatch, assert_same
):
    spec, arrays, data_dir = imported
    home = tmp_path / "tfds"
    shutil.copytree(data_dir, home)
    other = arrays._replace(x_train=255 - arrays.x_train)
    source = write_npz(tmp_path / "source", "cifar10", other)
    rename = type(home).rename

    def full(path, target):
        if ".import-" in str(path) and path.name == "3.0.2":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(type(home), "rename", full)
    with pytest.raises(DatasetError, match="No space left"):
        prepared.import_dataset(spec, source, home, overwrite=True)
    monkeypatch.undo()
    assert_same(prepared.read(spec, home), arrays)
    assert [p.name for p in home.iterdir()] == ["cifar10"]


def test_an_import_that_is_interrupted_leaves_nothing(tmp_path, toy, monkeypatch):
    spec, arrays = toy("cifar10")
    source = write_npz(tmp_path / "source", "cifar10", arrays)
    encode, count = records.encode, iter(range(10))

    def interrupted(pixels):
        if next(count) == 9:
            raise KeyboardInterrupt
        return encode(pixels)

    monkeypatch.setattr(records, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared.import_dataset(spec, source, tmp_path / "tfds")
    assert not list((tmp_path / "tfds").iterdir())


def test_an_import_that_reads_back_differently_is_not_kept(tmp_path, toy, monkeypatch):
    spec, arrays = toy("cifar10")
    source = write_npz(tmp_path / "source", "cifar10", arrays)
    encode = records.encode
    monkeypatch.setattr(records, "encode", lambda pixels: encode(pixels // 2))
    with pytest.raises(DatasetError, match="reads back differently"):
        prepared.import_dataset(spec, source, tmp_path / "tfds")
    assert not list((tmp_path / "tfds").iterdir())


def test_an_import_from_an_empty_folder_says_what_to_put_there(tmp_path, toy):
    spec, _ = toy("mnist")
    with pytest.raises(
        DatasetError, match=r"put there train-images-idx3-ubyte\.gz and"
    ):
        prepared.import_dataset(spec, tmp_path, tmp_path / "tfds")
    assert not (tmp_path / "tfds").exists()


def test_an_embedded_dataset_needs_no_import(tmp_path):
    with pytest.raises(DatasetError, match="use it as it is: --dataset digits"):
        prepared.import_dataset(datasets.get("digits"), tmp_path, tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path, toy):
    spec, arrays = toy("cifar10")
    source = write_npz(tmp_path / "source", "cifar10", arrays)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"file must be writable and have room"):
        prepared.import_dataset(spec, source, tmp_path / "file")


# --- Damaged or unreadable.


def change_info(data_dir, **changes):
    path = data_dir / "cifar10" / "3.0.2" / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_another_format_is_refused_with_the_way_out(imported, tmp_path):
    spec, _, data_dir = imported
    shutil.copytree(data_dir, tmp_path / "tfds")
    change_info(tmp_path / "tfds", fileFormat="tfrecord")
    with pytest.raises(
        DatasetError, match=r"array_record format.*but is tfrecord.*data i"
    ):
        datasets.load_spec(spec, tmp_path / "tfds")


def test_without_tfds_a_prepared_dataset_says_so(imported, monkeypatch):
    spec, _, data_dir = imported
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DatasetError, match="pip install tensorflow-datasets"):
        datasets.load_spec(spec, data_dir)


def test_a_missing_shard_or_description_is_an_error_of_the_data(imported, tmp_path):
    spec, _, data_dir = imported
    names = [p.name for p in (data_dir / "cifar10" / "3.0.2").iterdir()]
    assert len(names) == 5  # two shards, dataset_info, features, label names
    for name in names:
        home = tmp_path / name
        shutil.copytree(data_dir, home)
        (home / "cifar10" / "3.0.2" / name).unlink()
        if name == "label.labels.txt":  # then the names of the description serve
            assert datasets.load_spec(spec, home).num_classes == 10
        else:
            with pytest.raises(DatasetError):
                datasets.load_spec(spec, home)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_records_give_correct_arrays_or_an_error(imported, assert_same, data):
    spec, arrays, data_dir = imported
    (path,) = data_dir.rglob("*train.array_record*")
    original = path.read_bytes()
    contents = bytearray(original)
    where = data.draw(st.integers(0, len(original) - 1))
    contents[where] ^= data.draw(st.integers(1, 255))
    damaged = bytes(contents) if data.draw(st.booleans()) else original[:where]
    try:
        path.write_bytes(damaged)
        found = datasets.load_spec(spec, data_dir)
    except DatasetError as error:
        assert "cifar10" in str(error)
    else:
        assert_same(found, arrays)
    finally:
        path.write_bytes(original)


# --- Fetched.


@pytest.fixture
def server(tmp_path, toy, write_idx, monkeypatch):
    """Serves a toy MNIST and tells TFDS its checksums: (spec, arrays, files)."""
    import tensorflow_datasets as tfds

    spec, arrays = toy("mnist")
    labels = arrays.y_train.copy()
    labels[:10] = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4)  # as the official ones begin
    arrays = arrays._replace(y_train=labels)
    files = tmp_path / "files"
    write_idx(files, arrays)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(files))
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    infos = {
        f"http://127.0.0.1:{http_server.server_port}/{path.name}": (
            tfds.core.download.checksums.UrlInfo(
                size=path.stat().st_size,
                checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
                filename=path.name,
            )
        )
        for path in files.iterdir()
    }
    monkeypatch.setattr(
        tfds, "builder_cls", lambda name: types.SimpleNamespace(url_infos=infos)
    )
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    yield spec, arrays, files
    http_server.shutdown()
    http_server.server_close()


def test_a_download_is_verified_imported_and_silent(
    server, tmp_path, assert_same, capfd
):
    spec, arrays, _ = server
    folder = download.import_dataset(spec, tmp_path / "tfds")
    assert folder == tmp_path / "tfds" / "mnist" / "3.0.1"
    assert_same(datasets.load_spec(spec, tmp_path / "tfds"), arrays)
    assert capfd.readouterr() == ("", "")


def test_a_download_with_another_checksum_is_refused(server, tmp_path):
    spec, _, files = server
    path = files / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(DatasetError, match="wrong checksum"):
        download.import_dataset(spec, tmp_path / "tfds")
    assert not (tmp_path / "tfds" / "mnist").exists()


def test_without_a_network_a_download_gives_one_clear_message(tmp_path, monkeypatch):
    def unreachable(url, **options):
        assert options["timeout"], "must not wait for ever"
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "get", unreachable)
    with pytest.raises(DatasetError) as caught:
        download.import_dataset(datasets.get("cifar10"), tmp_path)
    message = str(caught.value)
    assert message.startswith("Downloading cifar10 needs a network, but https://")
    assert "cifar-10-binary.tar.gz" in message
    assert "`fedjax-mrl data import cifar10 --from DIR`" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_tfds_knows_files_that_the_parsers_know(name):
    import tensorflow_datasets as tfds

    spec = datasets.get(name)
    known = tfds.builder_cls(spec.builder[0])
    assert str(known.VERSION) == spec.builder[1]
    assert known.url_infos
    for info in known.url_infos.values():
        assert any(info.filename in files for files in spec.files)


def test_a_dataset_that_tfds_does_not_know_cannot_be_downloaded(tmp_path, toy):
    spec, _ = toy("cifar10")
    mine = dataclasses.replace(spec, name="mine", tfds_name="", files=())
    with pytest.raises(
        DatasetError, match=r"mine is not one; fetch mine\.npz yourself"
    ):
        download.import_dataset(mine, tmp_path)


def test_an_image_is_brought_to_the_channels_of_its_dataset():
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5, 1)
    colour = records.decode(records.encode(grey), (4, 5, 3))
    np.testing.assert_array_equal(colour, grey.repeat(3, axis=-1))
    # As many pixels, and yet another image.
    with pytest.raises(ValueError, match=r"is \[4, 5\], not \[5, 4\]"):
        records.decode(records.encode(grey), (5, 4, 1))
