"""Bytes in Flower's records, and back: one array, so that few objects travel."""

from typing import TYPE_CHECKING

from fedjax_mrl.flower.error import Refused

if TYPE_CHECKING:
    from flwr.app import RecordDict

_NAME = "fedjax_mrl"
_KIND = "safetensors"


def wrap(data: bytes) -> "RecordDict":
    """A record of these bytes."""
    from flwr.app import Array, ArrayRecord, RecordDict

    array = Array("uint8", (len(data),), _KIND, data)
    return RecordDict({_NAME: ArrayRecord({_NAME: array})})


def unwrap(record: "RecordDict") -> bytes:
    """The bytes of a record.

    Raises:
        Refused: if it has none.
    """
    try:
        array = record.array_records[_NAME][_NAME]
    except KeyError:
        raise Refused("The message is none of fedjax_mrl.") from None
    if array.stype != _KIND:
        raise Refused(f"The message is {array.stype!r}, not {_KIND!r}.")
    return array.data
