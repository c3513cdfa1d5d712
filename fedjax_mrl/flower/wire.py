"""Messages and stored states as bytes: named arrays and a few plain fields.

The form is that of safetensors, which holds nothing that could be run. Equal packets
are equal bytes. Rows of a table that are zero bit by bit, such as the prototypes of
classes that nobody has, are left out and put back.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fedjax_mrl.flower.error import Refused

Field = None | bool | int | float | str | list | dict
_FORMAT = 1
_KEY = "fedjax_mrl"  # the only one: several have no order in safetensors
# Types that NumPy does not know by themselves, to the whole numbers that carry them.
_CARRIED = {"bfloat16": "uint16"}


class Packet(NamedTuple):
    """One message, or one stored state."""

    fields: Mapping[str, Field]  # what JSON has
    arrays: Mapping[str, np.ndarray]


class Size(NamedTuple):
    """How many bytes of a packet are numbers of arrays, and how many say what it is."""

    arrays: int
    envelope: int


def encode(packet: Packet) -> bytes:
    """The bytes of a packet."""
    import safetensors.numpy

    carried: dict[str, str] = {}
    rows: dict[str, list] = {}
    sent: dict[str, np.ndarray] = {}
    for name, given in packet.arrays.items():
        array = np.ascontiguousarray(given).reshape(np.shape(given))
        if array.dtype.name in _CARRIED:
            carried[name] = array.dtype.name
            array = array.view(_CARRIED[array.dtype.name])
        kept = _rows(array)
        if kept is not None:
            rows[name] = [len(array), kept.tolist()]
            array = array[kept]
        sent[name] = array
    told = {
        "format": _FORMAT,
        "fields": dict(packet.fields),
        "carried": carried,
        "rows": rows,
    }
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return safetensors.numpy.save(sent, metadata={_KEY: text})


def decode(data: bytes) -> Packet:
    """The packet of some bytes, whoever sent them.

    Raises:
        Refused: if they are none.
    """
    import safetensors
    import safetensors.numpy

    try:
        arrays = safetensors.numpy.load(data)
        told = json.loads(_metadata(data)[_KEY])
        if told["format"] != _FORMAT:
            raise Refused(
                f"The message is of format {told['format']!r}, but this version reads "
                f"{_FORMAT}; install the same fedjax_mrl everywhere."
            )
        for name, (number, kept) in told["rows"].items():
            whole = np.zeros((number, *arrays[name].shape[1:]), arrays[name].dtype)
            whole[np.asarray(kept, np.int64)] = arrays[name]
            arrays[name] = whole
        for name, kind in told["carried"].items():
            if kind not in _CARRIED or arrays[name].dtype != _CARRIED[kind]:
                raise Refused(f"{name} cannot be of type {kind!r}.")
            arrays[name] = arrays[name].view(_dtype(kind))
        return Packet(dict(told["fields"]), arrays)
    except Refused:
        raise
    except (
        safetensors.SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        MemoryError,
        RecursionError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise Refused(
            f"The message cannot be read ({type(error).__name__}: {reason})."
        ) from None


def size(data: bytes) -> Size:
    """How many bytes of a packet are what."""
    header = 8 + int.from_bytes(data[:8], "little")
    return Size(len(data) - header, header)


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def _rows(array: np.ndarray) -> np.ndarray | None:
    """The rows [R] of a table that are not all zero bits; None if all are sent."""
    if array.ndim < 2 or not array.size:
        return None
    bits = array.reshape(len(array), -1).view(np.uint8)
    kept = bits.any(axis=1)
    return None if kept.all() else np.flatnonzero(kept)


def _dtype(name: str) -> np.dtype:
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name))
