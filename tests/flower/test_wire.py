"""Packets: every type comes back bit by bit, and no bytes do harm."""

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("safetensors")

from fedjax_mrl.flower import wire
from fedjax_mrl.flower.error import Refused
from fedjax_mrl.flower.versions import Version, Versions
from fedjax_mrl.flower.wire import Packet

odd = np.array([0x7FC1, 0x8000, 0xFF80, 1], np.uint16)  # a NaN, -0, -inf, the smallest
ARRAYS = {
    "bfloat16": odd.view(ml_dtypes.bfloat16),
    "table/bfloat16": np.stack([odd * 0, odd]).view(ml_dtypes.bfloat16),
    "float32": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
    "rows": np.array([[0, 0], [0, -0.0], [1, 2], [0, 0]], np.float32),
    "zeros": np.zeros((3, 2, 2), np.float32),
    "none": np.zeros((0, 4), np.int32),
    "number": np.asarray(np.float32(3)),
    "flag": np.array(True),
    "counts": np.arange(5),
    "bytes": np.arange(3, dtype=np.uint8)[::-1],
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}


def test_packets_come_back_bit_by_bit_and_equal_ones_are_equal_bytes():
    fields = {"a": 1, "b": [True, None, "é"], "c": {"d": 0.1}}
    data = wire.encode(Packet(fields, ARRAYS))
    assert data == wire.encode(Packet(fields, dict(reversed(ARRAYS.items()))))
    back = wire.decode(data)
    assert back.fields == fields and back.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        found = back.arrays[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape), name
        assert found.tobytes() == array.tobytes(), name
    whole = sum(array.nbytes for array in ARRAYS.values())
    zeros = 2 * 8 + ARRAYS["zeros"].nbytes + 4 * 2  # rows, zeros, of the table
    assert wire.size(data).arrays == whole - zeros
    assert sum(wire.size(data)) == len(data)


def test_bytes_that_are_no_packet_are_refused_whatever_they_are():
    data = wire.encode(Packet({"kind": "x"}, ARRAYS))
    draw = np.random.default_rng(0)
    for _ in range(300):
        wrong = bytearray(data)
        for place in draw.integers(0, len(data), 3):
            wrong[place] = draw.integers(256)
        try:
            wire.decode(bytes(wrong[: draw.integers(len(data)) + 1]))
        except Refused:
            continue
    for noise in (b"", b"\0" * 8, b"\x80" * 20, b"\x02\0\0\0\0\0\0\0{}"):
        with pytest.raises(Refused):
            wire.decode(noise)


def test_versions_are_whole_private_files_and_late_orders_remove_none(tmp_path):
    versions = Versions(tmp_path / "v")
    for round in (1, 2, 3):
        versions.write(Version(round), {"x": np.full(3, round)}, note="n")
    versions.write(Version(3, True), {"x": np.zeros(3)})
    assert (tmp_path / "v").stat().st_mode & 0o777 == 0o700
    versions.keep([Version(0)])  # of an order that was late
    assert len(versions.known()) == 4
    versions.keep([Version(2), Version(3, True)])
    assert versions.known() == [Version(2), Version(3, True)]
    assert versions.read(Version(2)).fields["note"] == "n"
    with pytest.raises(Refused, match="not on this node, which has those after"):
        versions.read(Version(1))
    (tmp_path / "v" / ".round-00000009.safetensors.tmp").write_bytes(b"half")
    assert versions.known()[-1] == Version(3, True)
