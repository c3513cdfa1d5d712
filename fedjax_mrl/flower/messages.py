"""The messages between server and node: which there are, and what each has.

    hello    server: the options of the federation      node: client, architecture
    train    server: round, base, keep; the broadcast   node: its report; the upload
    finish   server: round, base, sound; the broadcast  node: that it is done

`base` is the version of the client's state that the round begins with, and `keep` are
the versions that the server may ask for again. An answer may be an error instead.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl import packing
from fedjax_mrl.flower import wire
from fedjax_mrl.flower.error import Refused
from fedjax_mrl.flower.kinds import FINISH, HELLO, TRAIN
from fedjax_mrl.flower.versions import Version
from fedjax_mrl.flower.wire import Field, Packet
from fedjax_mrl.simulation.visit import Report


class Order(NamedTuple):
    """What the server asks of a client in a round."""

    kind: str  # TRAIN or FINISH
    run: str  # which federation, whatever its options
    round: int
    base: Version  # of the client's state
    keep: tuple[Version, ...]  # what the server may ask for again
    sound: bool = True  # whether the report was accepted, for FINISH


class Hello(NamedTuple):
    """What a node says of its client."""

    client: int
    architecture: str
    num_train: int


def hello(options: Mapping[str, Any]) -> bytes:
    """Asks a node which client it has, for a federation of these options."""
    return wire.encode(Packet({"kind": HELLO, "options": dict(options)}, {}))


def order(given: Order, broadcast: Mapping[str, np.ndarray]) -> bytes:
    """Asks a client for its part of a round."""
    fields: dict[str, Field] = dict(given._asdict())
    fields["base"] = list(given.base)
    fields["keep"] = [list(version) for version in given.keep]
    return wire.encode(Packet(fields, broadcast))


def read_order(packet: Packet) -> Order:
    """Reads what `order` wrote.

    Raises:
        Refused: if it is none.
    """
    fields: dict[str, Any] = dict(packet.fields)
    try:
        base = _version(fields.pop("base"))
        keep = tuple(map(_version, fields.pop("keep")))
        fields["round"], fields["run"] = int(fields["round"]), str(fields["run"])
        return Order(base=base, keep=keep, **fields)
    except (TypeError, KeyError, ValueError):
        raise Refused("The order cannot be read; is its server another one?") from None


def _version(given: Any) -> Version:
    round, finished = given
    return Version(int(round), bool(finished))


def introduction(given: Hello) -> bytes:
    """The answer to `hello`."""
    return wire.encode(Packet({"kind": HELLO, **given._asdict()}, {}))


def read_introduction(data: bytes) -> Hello:
    """Reads what `introduction` wrote.

    Raises:
        Refused: if it is none, or an error.
    """
    fields: dict[str, Any] = dict(_answer(data, HELLO).fields)
    try:
        return Hello(
            int(fields["client"]), str(fields["architecture"]), int(fields["num_train"])
        )
    except (TypeError, KeyError, ValueError):
        raise Refused("It does not say which client it has.") from None


def report(client: int, round: int, given: Report) -> bytes:
    """A client's report: the upload as arrays, everything else as fields."""
    fields: dict[str, Field] = {
        "kind": TRAIN,
        "client": client,
        "round": round,
        "bytes_up": float(given.bytes_up),
        "sound": bool(given.sound),
        "finite": {name: bool(flag) for name, flag in given.finite.items()},
        "metrics": {name: _number(value) for name, value in given.metrics.items()},
    }
    return wire.encode(Packet(fields, packing.pack(given.upload)))


def read_report(data: bytes, client: int, round: int, like: Report) -> Report:
    """Reads what `report` wrote, and holds it against what it must be.

    Args:
        data: the answer.
        client: that was asked.
        round: likewise.
        like: shapes and types of a report.

    Raises:
        Refused: for another client or round, for arrays of other names, shapes or
            types, and for an error.
    """
    packet = _answer(data, TRAIN)
    fields: dict[str, Any] = dict(packet.fields)
    if fields.get("client") != client:
        raise Refused(f"it answers as client {fields.get('client')!r}.")
    if fields.get("round") != round:
        raise Refused(f"its report is of round {fields.get('round')!r}, which is over.")
    try:
        upload = packing.unpack(packet.arrays, like.upload)
    except ValueError as error:
        raise Refused(f"its upload does not fit: {error}") from None
    try:
        return Report(
            bytes_up=_scalar(fields["bytes_up"], like.bytes_up),
            finite=_scalars(fields["finite"], like.finite),
            metrics=_scalars(fields["metrics"], like.metrics),
            sound=_scalar(fields["sound"], like.sound),
            upload=upload,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"its report lacks something: {error}.") from None


def finished(client: int, round: int) -> bytes:
    """The answer to an order to finish."""
    return wire.encode(Packet({"kind": FINISH, "client": client, "round": round}, {}))


def read_finished(data: bytes, client: int, round: int) -> None:
    """Reads what `finished` wrote.

    Raises:
        Refused: for another client or round, and for an error.
    """
    fields = _answer(data, FINISH).fields
    if (fields.get("client"), fields.get("round")) != (client, round):
        raise Refused("it answers for another client or round.")


def refusal(reason: str) -> bytes:
    """The answer of a node that refuses."""
    return wire.encode(Packet({"kind": "error", "reason": reason}, {}))


def _answer(data: bytes, kind: str) -> Packet:
    """The packet of an answer, which is of that kind."""
    packet = wire.decode(data)
    if packet.fields.get("kind") == "error":
        raise Refused(str(packet.fields.get("reason")))
    if packet.fields.get("kind") != kind:
        raise Refused(f"its answer is {packet.fields.get('kind')!r}, not {kind!r}.")
    return packet


def _number(value: Any) -> float | None:
    """A number as JSON has it; None for one that is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None


def _scalar(value: Any, like: Any) -> Any:
    value = np.nan if value is None else value
    if isinstance(value, str | list | dict):
        raise ValueError(f"a number is {value!r}")
    return np.asarray(value, like.dtype)


def _scalars(values: Any, like: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _scalar(values[name], leaf) for name, leaf in like.items()}
