"""Damaged files of arrays are refused with their path, whatever the damage raises."""

import io
import re
import struct
import types

import numpy as np
import pytest

from fedjax_mrl import partitions
from fedjax_mrl.data import npz
from fedjax_mrl.data.error import DatasetError
from fedjax_mrl.exporting import inputs
from fedjax_mrl.exporting.error import ExportError
from fedjax_mrl.partitions import PartitionError

STORED = types.SimpleNamespace(augmentation="raw")  # no file gets as far as to need it
READERS = {
    "data": (npz.arrays_of, DatasetError),
    "inputs": (
        lambda file: inputs.read([file], types.SimpleNamespace(stored=STORED)),
        ExportError,
    ),
    "partition": (partitions.load, PartitionError),
}


def places(data, mark):
    """Where each header of a zip begins."""
    return [found.start() for found in re.finditer(re.escape(mark), data)]


def everywhere(local, central, value):
    """Sets a byte of every header of a zip, in both places."""

    def change(data):
        for mark, place in ((b"PK\3\4", local), (b"PK\1\2", central)):
            for begin in places(data, mark):
                data[begin + place] = value
        return data

    return change


def flipped(data):
    """Flips some bytes of every array of a zip."""
    for begin in places(data, b"PK\3\4"):
        name, extra = struct.unpack_from("<HH", data, begin + 26)
        begin += 30 + name + extra
        data[begin : begin + 20] = bytes(byte ^ 0xFF for byte in data[begin:][:20])
    return data


# What each raises on its own is beside it.
DAMAGE = {
    "compressed": (np.savez_compressed, flipped),  # zlib.error
    "encrypted": (np.savez, everywhere(6, 8, 1)),  # RuntimeError
    "unknown compression": (np.savez, everywhere(8, 10, 99)),  # NotImplementedError
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_damage_raises_is_one_sentence(damage, reader, tmp_path):
    save, change = DAMAGE[damage]
    read, error = READERS[reader]
    names = ("x", "y", "train", "train_offsets", "test", "test_offsets")
    file = io.BytesIO()
    save(file, **dict.fromkeys(names, np.arange(60)))
    path = tmp_path / "a.npz"
    path.write_bytes(change(bytearray(file.getvalue())))
    with pytest.raises(error, match=r"a\.npz must be a"):
        read(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"'shape'", b"'''    "),  # tokenize.TokenError
        (b"(60,), }" + b" " * 11, b"(6" + b"0" * 13 + b",)} "),  # MemoryError
    ],
)
def test_a_damaged_npy_is_one_sentence(old, new, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(60))
    sound = path.read_bytes()
    assert old in sound and len(old) == len(new)
    path.write_bytes(sound.replace(old, new))
    read, error = READERS["inputs"]
    with pytest.raises(error, match=r"a\.npy must be a file of arrays"):
        read(path)


def test_a_partition_with_one_offset_is_refused(tmp_path):
    arrays = dict.fromkeys(("train", "test", "test_offsets"), np.arange(3))
    np.savez(tmp_path / "a.npz", train_offsets=np.array(3), **arrays)
    with pytest.raises(PartitionError, match="holds something else"):
        partitions.load(tmp_path / "a.npz")
