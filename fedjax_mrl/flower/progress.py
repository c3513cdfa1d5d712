"""The server's folder: its state after every round, and the tables of its rounds."""

import csv
import json
import pathlib
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import packing, whole_file
from fedjax_mrl.flower import identity
from fedjax_mrl.flower.error import FlowerError, Refused
from fedjax_mrl.flower.versions import Version, Versions
from fedjax_mrl.flower.wire import Packet
from fedjax_mrl.runs import tables
from fedjax_mrl.runs.lock import Lock

ROUNDS, DIGESTS, WIRE = "rounds.csv", "digests.csv", "wire.csv"
WIRE_COLUMNS = ("round", "client", "kind", "direction", "bytes", "envelope")
_KEPT = 2  # checkpoints
_IDENTITY = "federation.json"


class Progress(NamedTuple):
    """The server after a round; all that it needs to go on.

    Attributes:
        round: rounds played.
        server: its state.
        accepted: the newest version of each client's state that counted.
        earlier: the same as of the round before.
        unfinished: clients that have yet to be told of this round's end, and whether
            their report counted.
    """

    round: int
    server: Any
    accepted: Mapping[int, Version]
    earlier: Mapping[int, Version]
    unfinished: Mapping[int, bool]

    def base(self, client: int) -> Version:
        """The version that a client's next round begins with."""
        return self.accepted.get(client, Version())

    def keep(self, client: int) -> tuple[Version, ...]:
        """The versions that may be asked for, also after an older checkpoint."""
        both = {self.base(client), self.earlier.get(client, Version())}
        return tuple(sorted(both))


class Folder:
    """The server's folder.

    Args:
        path: where; made if it is not there.
        options: of the federation, see `identity.options`.

    Attributes:
        run: names this federation to the nodes, whatever its options.

    Raises:
        FlowerError: if another federation lies there.
        RunDirectoryError: if another process writes there, or it cannot be written.
    """

    def __init__(self, path: pathlib.Path, options: Mapping[str, Any]) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = Lock(path)
        self._lock.acquire()
        self.run = self._identify(dict(options))
        self._checkpoints = Versions(path / "checkpoints")

    def close(self) -> None:
        """Lets other processes write there."""
        self._lock.release()

    def _identify(self, options: dict[str, Any]) -> str:
        file = self.path / _IDENTITY
        if not file.exists():
            run = secrets.token_hex(8)
            text = json.dumps({"run": run, "options": options}, indent=2)
            whole_file.write(file, f"{text}\n".encode(), private=True)
            return run
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            run, before = str(known["run"]), dict(known["options"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FlowerError(f"{file} cannot be read: {error}.") from None
        different = identity.differences(before, options)
        if different:
            raise FlowerError(
                f"{self.path} holds another federation ({'; '.join(different[:3])}). "
                "Give another folder."
            )
        return run

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint; the two newest stay.

        Raises:
            OSError: if it cannot be written.
        """
        named = lambda known: {str(client): list(v) for client, v in known.items()}
        version = Version(progress.round)
        self._checkpoints.write(
            version,
            packing.pack(progress.server),
            accepted=named(progress.accepted),
            earlier=named(progress.earlier),
            unfinished={str(c): flag for c, flag in progress.unfinished.items()},
        )
        self._checkpoints.keep(self._checkpoints.known()[-_KEPT:])

    def newest(self, like: Any) -> tuple[Progress | None, list[str]]:
        """The newest checkpoint that can be read; None if there is none.

        Args:
            like: shapes of the server's state.

        Returns:
            It, and a sentence for each that is damaged.

        Raises:
            FlowerError: if there are some and none can be read.
        """
        damaged: list[str] = []
        known = self._checkpoints.known()
        for version in reversed(known):
            try:
                packet = self._checkpoints.read(version)
                return _progress(version.round, packet, like), damaged
            except (Refused, ValueError, KeyError, TypeError) as error:
                damaged.append(f"The checkpoint of round {version.round}: {error}")
        if known:
            raise FlowerError(" ".join(damaged))
        return None, damaged

    def cut(self, round: int) -> None:
        """Cuts the tables back to what they held after a round."""
        for name in (ROUNDS, DIGESTS):
            path = self.path / name
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            kept = tables.up_to(name, tables.parse(name, text), round, 1)
            whole_file.write(path, kept.encode(), private=True)
        path = self.path / WIRE
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        whole = [line for line in lines if re.fullmatch(r"\d+(,[^,]+){5}", line)]
        kept = [line for line in whole if int(line.split(",")[0]) <= round]
        text = "\n".join([",".join(WIRE_COLUMNS), *kept]) + "\n"
        whole_file.write(path, text.encode(), private=True)

    def append(self, name: str, rows: Sequence[tables.Row]) -> None:
        """Adds lines to a table."""
        if name != WIRE:
            tables.append(self.path / name, rows)
            return
        with (self.path / WIRE).open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([row[column] for column in WIRE_COLUMNS] for row in rows)


def _progress(round: int, packet: Packet, like: Any) -> Progress:
    fields: dict[str, Any] = dict(packet.fields)
    named = lambda known: {int(client): Version(*v) for client, v in known.items()}
    return Progress(
        round,
        packing.unpack(packet.arrays, like),
        named(fields["accepted"]),
        named(fields["earlier"]),
        {int(c): bool(flag) for c, flag in fields["unfinished"].items()},
    )
