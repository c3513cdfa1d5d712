"""Official files in every published form, and whatever may have happened to them."""

import dataclasses
import gzip
import io
import pickle  # noqa: TID251  (writes what the restricted reader must read or refuse)
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_mrl.data import official
from fedjax_mrl.data.dataset import DatasetError, build

# --- How the Python version of CIFAR is written: by Python 2, with protocol 2.


def python2_batch(x, y, label_key="labels"):
    """Writes opcode by opcode what Python 2's cPickle wrote for CIFAR."""

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode("latin1")

    def number(value):
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    rows = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    data = rows.tobytes()
    names = b"".join(text(f"image_{i}.png") + b"r" + struct.pack("<I", 20 + i)
                     for i in range(len(x)))  # fmt: skip
    return b"".join(
        [
            b"\x80\x02}q\x01(",
            text("batch_label") + b"q\x02" + text("training batch 1 of 5") + b"q\x03",
            text(label_key) + b"q\x04]q\x05(" + b"".join(map(number, y)) + b"e",
            text("data") + b"q\x06",
            b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08",
            b"K\x00\x85" + text("b") + b"\x87Rq\x09(K\x01",
            number(rows.shape[0]) + number(rows.shape[1]) + b"\x86",
            b"cnumpy\ndtype\nq\x0a" + text("u1") + b"K\x00K\x01\x87Rq\x0b",
            b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<I", len(data)) + data + b"tb",
            text("filenames") + b"q\x0c]q\x0d(" + names + b"eu.",
        ]
    )


def python3_batch(x, y, label_key="labels", order="C"):
    """Writes the batch again with Python 3, as some copies of it are."""
    rows = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    data = np.asarray(rows, order=order)
    return pickle.dumps({"data": data, label_key: [int(i) for i in y]}, protocol=2)


def write_python(folder, arrays, encode=python2_batch):
    folder.mkdir(parents=True, exist_ok=True)
    x, y = np.split(arrays.x_train, 5), np.split(arrays.y_train, 5)
    for i in range(5):
        (folder / f"data_batch_{i + 1}").write_bytes(encode(x[i], y[i]))
    (folder / "test_batch").write_bytes(encode(arrays.x_test, arrays.y_test))


def pack(archive, folder, base):
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, f"{base}/{path.name}")


def write_npz(path, arrays, **more):
    stored = {k: v for k, v in arrays._asdict().items() if v is not None}
    np.savez_compressed(path, **stored, **more)


# --- Every form gives the same arrays.


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar10_binary_is_read_from_the_folder_or_its_parent(
    tmp_path, toy, write_cifar10, assert_same, below
):
    spec, arrays = toy("cifar10")
    write_cifar10(tmp_path / below, arrays)
    assert_same(official.read(spec, tmp_path), arrays)


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize("encode", [python2_batch, python3_batch])
def test_cifar10_python_is_read_whoever_wrote_it(
    tmp_path, toy, assert_same, below, encode
):
    spec, arrays = toy("cifar10")
    write_python(tmp_path / below, arrays, encode)
    assert_same(official.read(spec, tmp_path), arrays)


def test_a_python_batch_in_fortran_order_is_the_same_batch(tmp_path, toy, assert_same):
    spec, arrays = toy("cifar10")
    write_python(tmp_path, arrays, lambda x, y: python3_batch(x, y, order="F"))
    assert_same(official.read(spec, tmp_path), arrays)


def test_the_python2_stand_in_is_what_an_ordinary_unpickler_reads(toy):
    _, arrays = toy("cifar10")
    batch = pickle.loads(python2_batch(arrays.x_test, arrays.y_test), encoding="latin1")
    rows = arrays.x_test.transpose(0, 3, 1, 2).reshape(6, -1)
    np.testing.assert_array_equal(batch["data"], rows)
    assert batch["labels"] == arrays.y_test.tolist()


def test_cifar100_takes_the_fine_labels(tmp_path, toy, as_binary, assert_same):
    spec, arrays = toy("cifar100")
    parts = {"train": arrays[:2], "test": arrays[2:4]}
    for part, (x, y) in parts.items():
        (tmp_path / f"{part}.bin").write_bytes(as_binary(x, y, label_bytes=2))
    assert_same(official.read(spec, tmp_path), arrays)
    folder = tmp_path / "below" / "cifar-100-python"
    folder.mkdir(parents=True)
    for part, (x, y) in parts.items():
        (folder / part).write_bytes(python2_batch(x, y, "fine_labels"))
    assert_same(official.read(spec, folder.parent), arrays)


@pytest.mark.parametrize("form", ["binary", "python"])
def test_an_archive_is_read_without_unpacking_it(
    tmp_path, toy, write_cifar10, assert_same, form
):
    spec, arrays = toy("cifar10")
    base = {"binary": "cifar-10-batches-bin", "python": "cifar-10-batches-py"}[form]
    write = {"binary": write_cifar10, "python": write_python}[form]
    write(tmp_path / "unpacked" / base, arrays)
    home = tmp_path / "home"
    home.mkdir()
    archive = home / f"cifar-10-{form}.tar.gz"
    pack(archive, tmp_path / "unpacked" / base, base)
    assert_same(official.read(spec, home), arrays)
    assert_same(official.read(spec, archive), arrays)
    assert list(home.iterdir()) == [archive]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_gzipped_or_not(
    tmp_path, toy, write_idx, assert_same, name, zipped
):
    spec, arrays = begun(toy(name))
    write_idx(tmp_path, arrays, zipped)
    assert_same(official.read(spec, tmp_path), arrays)


def test_idx_files_are_found_where_torchvision_puts_them(
    tmp_path, toy, write_idx, assert_same
):
    for name, folder in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")):
        spec, arrays = begun(toy(name))
        write_idx(tmp_path / folder / "raw", arrays, zipped=False)
        assert_same(official.read(spec, tmp_path), arrays)


def test_mnist_is_not_taken_for_fashion_mnist(tmp_path, toy, write_idx):
    spec, _ = toy("fashion_mnist")
    write_idx(tmp_path, begun(toy("mnist"))[1])
    with pytest.raises(DatasetError, match="must be the labels of fashion_mnist"):
        official.read(spec, tmp_path)


def test_an_npz_may_have_any_name_when_it_is_named(tmp_path, toy, assert_same):
    spec, arrays = toy("cifar10")
    path = tmp_path / "mine.npz"
    write_npz(path, arrays, label_names=np.array(list("abcdefghij")))
    found = official.read(spec, path)
    assert_same(found, arrays)
    assert found.label_names == tuple("abcdefghij")
    assert official.read(spec, tmp_path) is None


def test_an_npz_may_lack_the_grey_axis_and_have_column_labels(
    tmp_path, toy, assert_same
):
    spec, arrays = toy("mnist")
    flat = arrays._replace(
        x_train=arrays.x_train[..., 0], y_test=arrays.y_test[:, None]
    )
    write_npz(tmp_path / "mnist.npz", flat)
    assert_same(official.read(spec, tmp_path), arrays)


# --- Whatever is wrong is said of the file that is wrong.


def test_a_folder_that_does_not_exist_is_said_to_be_missing(tmp_path, toy):
    spec, _ = toy("cifar10")
    with pytest.raises(DatasetError, match="must exist, but there is no"):
        official.read(spec, tmp_path / "none")


def test_an_incomplete_release_names_the_missing_files(
    tmp_path, toy, write_cifar10, write_idx
):
    spec, arrays = toy("cifar10")
    write_cifar10(tmp_path / "a", arrays)
    (tmp_path / "a" / "data_batch_3.bin").unlink()
    with pytest.raises(DatasetError, match=r"not: data_batch_3\.bin missing"):
        official.read(spec, tmp_path / "a")
    pack(tmp_path / "cifar-10-binary.tar.gz", tmp_path / "a", "cifar-10-batches-bin")
    with pytest.raises(DatasetError, match=r"tar\.gz .*not: data_batch_3\.bin missing"):
        official.read(spec, tmp_path)
    spec, arrays = begun(toy("mnist"))
    write_idx(tmp_path / "b", arrays)
    (tmp_path / "b" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match="not: t10k-labels-idx1-ubyte missing"):
        official.read(spec, tmp_path / "b")


def test_a_truncated_binary_file_is_named_with_its_sizes(tmp_path, toy, write_cifar10):
    spec, arrays = toy("cifar10")
    write_cifar10(tmp_path, arrays)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-3073])
    # 4 records of 1 + 32 * 32 * 3 bytes, one of which is gone.
    match = (
        r"data_batch_2\.bin must be 4 records of 3073 bytes, 12292 .* has 9219 bytes"
    )
    with pytest.raises(DatasetError, match=match):
        official.read(spec, tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda b: b[:-1], "4704 bytes|bytes follow the header, not 4704"),
        (lambda b: b + b"x", "more bytes follow the header"),
        (lambda b: b[:3], "it begins with 000008,"),
        (lambda b: b"\0\0\x0d" + b[3:], "it begins with 00000d03"),
        (lambda b: b.replace(b"\0\0\0\x1c", b"\0\0\0\x20"), "begins with .*00000020"),
    ],
)
def test_a_wrong_idx_file_is_named_with_what_it_holds(
    tmp_path, toy, write_idx, change, match
):
    spec, arrays = begun(toy("mnist"))
    write_idx(tmp_path, arrays, zipped=False)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DatasetError, match=match) as caught:
        official.read(spec, tmp_path)
    assert f"{path} must be an idx file of uint8 [6, 28, 28]" in str(caught.value)


def test_an_npz_without_an_array_says_which(tmp_path, toy):
    spec, arrays = toy("cifar10")
    np.savez(tmp_path / "cifar10.npz", x_train=arrays.x_train, y_test=arrays.y_test)
    with pytest.raises(DatasetError, match="not: y_train, x_test missing"):
        official.read(spec, tmp_path)


def test_an_npz_with_python_objects_is_refused(tmp_path, toy):
    spec, arrays = toy("cifar10")
    objects = np.array([Bomb(tmp_path)] * 20, dtype=object)
    np.savez(tmp_path / "cifar10.npz", **arrays._replace(y_train=objects)._asdict())
    with pytest.raises(DatasetError, match=r"cifar10\.npz must be an npz"):
        official.read(spec, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_an_unreadable_file_is_an_error_of_the_data(tmp_path, toy, write_cifar10):
    spec, arrays = toy("cifar10")
    write_cifar10(tmp_path, arrays)

    def refuse(spec, source):
        raise PermissionError(13, "Permission denied")

    locked = dataclasses.replace(spec, official=refuse)
    with pytest.raises(DatasetError, match="Permission denied"):
        official.read(locked, tmp_path)


# --- A pickle cannot run code.


class Bomb:
    """Unpickles to a call that leaves a file behind."""

    def __init__(self, folder):
        self.command = f"open({str(folder / 'executed')!r}, 'w').close()"

    def __reduce__(self):
        return exec, (self.command,)


def bombs(folder):
    bomb = Bomb(folder)
    command = bomb.command.encode()
    return {
        "instead of the batch": pickle.dumps(bomb, protocol=2),
        "as data": pickle.dumps({"data": bomb, "labels": [1]}, protocol=2),
        "as a key of protocol 4": pickle.dumps({"labels": bomb}, protocol=4),
        "by INST": b"(S'" + command.replace(b"'", b'"') + b"'\ni__builtin__\nexec\n.",
        "by a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tobytes\x93.",
        "by a neighbour": b"\x80\x02cnumpy\nload\nU\x01x\x85R.",
    }


@pytest.mark.parametrize("kind", bombs(type("P", (), {"__truediv__": lambda *_: ""})()))
def test_a_pickle_that_calls_anything_is_refused_and_not_executed(tmp_path, toy, kind):
    spec, arrays = toy("cifar10")
    write_python(tmp_path, arrays)
    contents = bombs(tmp_path)[kind]
    (tmp_path / "data_batch_4").write_bytes(contents)
    with pytest.raises(DatasetError, match=r"data_batch_4 must be .*it asks for "):
        official.read(spec, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_the_bombs_do_go_off_in_an_ordinary_unpickler(tmp_path):
    pickle.loads(bombs(tmp_path)["instead of the batch"])
    assert (tmp_path / "executed").exists()


def test_a_pickle_cannot_ask_for_gigabytes_of_memo(tmp_path, toy):
    spec, arrays = toy("cifar10")
    write_python(tmp_path, arrays)
    (tmp_path / "test_batch").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(
        DatasetError, match=r"test_batch must be .*memo index 2147483647"
    ):
        official.read(spec, tmp_path)


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ({"labels": [0] * 4}, "KeyError: 'data'"),
        ({"data": np.zeros((4, 3072), np.uint8)}, "KeyError: 'labels'"),
        ({"data": np.zeros((4, 3072), np.float32), "labels": [0] * 4}, "not f4"),
        ({"data": np.zeros((4, 3071), np.uint8), "labels": [0] * 4}, r"\(4, 3071\)"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [0] * 3}, r"labels \(3,\)"),
        ({"data": b"x", "labels": [0] * 4}, "AttributeError"),
        ([1, 2], "AttributeError"),
    ],
)
def test_a_pickle_of_something_else_says_what_it_is(tmp_path, toy, batch, match):
    spec, arrays = toy("cifar10")
    write_python(tmp_path, arrays)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DatasetError, match=f"data_batch_1 must be .*{match}"):
        official.read(spec, tmp_path)


# --- Random damage: correct arrays or a DatasetError, and nothing else.


def damage(original):
    """Returns a strategy of truncated, overwritten, cut and padded copies."""
    place = st.integers(0, len(original) - 1)
    # Headers are at either end, and most of what is between is pixels.
    near = st.one_of(
        place, st.integers(0, 200), st.integers(len(original) - 400, len(original) - 1)
    )
    near = near.filter(lambda i: 0 <= i < len(original))

    def overwrite(changes):
        contents = bytearray(original)
        for where, value in changes:
            contents[where] = value
        return bytes(contents)

    return st.one_of(
        near.map(lambda i: original[:i]),
        st.lists(st.tuples(near, st.integers(0, 255)), min_size=1, max_size=4).map(
            overwrite
        ),
        st.tuples(near, near).map(lambda c: original[: min(c)] + original[max(c) :]),
        st.tuples(near, st.binary(min_size=1, max_size=9)).map(
            lambda c: original[: c[0]] + c[1] + original[c[0] :]
        ),
    )


@pytest.fixture(scope="module", params=[
    "data_batch_1.bin", "data_batch_1", "t10k-labels-idx1-ubyte",
    "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "mnist.npz",
    "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz",
])  # fmt: skip
def release(request, tmp_path_factory, toy, write_cifar10, write_idx):
    """A complete release and the file of it to damage: (spec, arrays, path)."""
    folder = tmp_path_factory.mktemp("release")
    name = request.param
    spec, arrays = begun(toy("mnist")) if "idx" in name else toy("cifar10")
    if name == "mnist.npz":
        spec, arrays = toy("mnist")
        write_npz(folder / name, arrays, label_names=np.array(list("0123456789")))
    elif "idx" in name:
        write_idx(folder, arrays, name.endswith(".gz"))
    elif name.endswith("binary.tar.gz"):
        write_cifar10(folder / "unpacked", arrays)
        pack(folder / name, folder / "unpacked", "cifar-10-batches-bin")
    elif name.endswith("python.tar.gz"):
        write_python(folder / "unpacked", arrays)
        pack(folder / name, folder / "unpacked", "cifar-10-batches-py")
    elif name.endswith(".bin"):
        write_cifar10(folder, arrays)
    else:
        write_python(folder, arrays)
    return spec, arrays, folder / name


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_damage_gives_correct_arrays_or_a_clear_error(release, assert_same, data):
    spec, arrays, path = release
    original = path.read_bytes()
    damaged = data.draw(damage(original))
    try:
        path.write_bytes(damaged)
        found = build(spec, official.read(spec, path.parent), "here")
    except DatasetError as error:
        assert path.name in str(error) or "of here must" in str(error)
    else:
        # Files with a checksum cannot be wrong unnoticed. In the others a pixel or a
        # label may be another, which nothing in the format can tell.
        if path.suffix in (".gz", ".npz"):
            assert_same(found, arrays)
        assert found.x_train.shape == arrays.x_train.shape
        assert set(found.y_train) <= set(range(spec.num_classes))
    finally:
        path.write_bytes(original)


def test_a_gzip_with_a_wrong_checksum_is_refused(tmp_path, toy, write_idx):
    spec, arrays = begun(toy("mnist"))
    write_idx(tmp_path, arrays)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    contents = bytearray(path.read_bytes())
    contents[-8] ^= 1  # the first byte of the CRC-32
    path.write_bytes(contents)
    with pytest.raises(DatasetError, match=r"train-images.*CRC check failed"):
        official.read(spec, tmp_path)


def test_an_archive_with_a_wrong_checksum_is_refused(tmp_path, toy, write_cifar10):
    spec, arrays = toy("cifar10")
    write_cifar10(tmp_path / "unpacked", arrays)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    pack(archive, tmp_path / "unpacked", "cifar-10-batches-bin")
    plain = bytearray(gzip.decompress(archive.read_bytes()))
    stream = io.BytesIO(gzip.compress(bytes(plain)))
    contents = bytearray(stream.getvalue())
    contents[-8] ^= 1
    archive.write_bytes(contents)
    with pytest.raises(DatasetError, match=r"binary\.tar\.gz.*CRC check failed"):
        official.read(spec, tmp_path)


def test_an_npz_whose_header_lies_about_the_type_is_refused(tmp_path, toy):
    spec, arrays = toy("cifar10")
    wide = arrays._replace(y_train=arrays.y_train.astype("<i8"))
    stored = {k: v for k, v in wide._asdict().items() if v is not None}
    path = tmp_path / "cifar10.npz"
    np.savez(path, **stored)
    # Half of the bytes are enough for int32, so NumPy alone would not reach the
    # checksum and would give labels 0 in every second place.
    path.write_bytes(path.read_bytes().replace(b"'<i8'", b"'<i4'"))
    with pytest.raises(DatasetError, match=r"checksum of y_train\.npy does not fit"):
        official.read(spec, tmp_path)


def begun(pair):
    """Lets the training labels begin as the official ones do."""
    spec, arrays = pair
    first = {
        "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
        "fashion_mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    }[spec.name]
    labels = arrays.y_train.copy()
    labels[:10] = first
    return spec, arrays._replace(y_train=labels)
