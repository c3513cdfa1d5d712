"""A client's private state in files of its node, one version for each round.

A round's version is written beside that of the round before. Older ones go when the
server says which it may still ask for, so that whoever is killed, node or server, the
state that the next round begins with is there.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from fedjax_mrl import whole_file
from fedjax_mrl.flower import wire
from fedjax_mrl.flower.error import Refused
from fedjax_mrl.flower.wire import Field, Packet

_NAME = re.compile(r"round-(\d{8})(-finished)?\.safetensors")


class Version(NamedTuple):
    """A state of a client: after a round, or before the first one."""

    round: int = 0
    finished: bool = False  # also what a method asks after the server's update


class Versions:
    """The versions of one client in one federation.

    Args:
        folder: for these files alone; made if it is not there, for its owner only.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def known(self) -> list[Version]:
        """The versions that there are, the oldest first."""
        found = map(_NAME.fullmatch, os.listdir(self.folder))
        return sorted(Version(int(one[1]), one[2] is not None) for one in found if one)

    def write(
        self, version: Version, arrays: Mapping[str, np.ndarray], **told: Field
    ) -> None:
        """Writes one whole, or leaves what was there.

        Args:
            version: which.
            arrays: its state.
            **told: what else it holds.

        Raises:
            OSError: if it cannot be written.
        """
        fields = {**told, "version": list(version), "sha256": checksum(arrays)}
        data = wire.encode(Packet(fields, arrays))
        whole_file.write(self._path(version), data, private=True)

    def read(self, version: Version) -> Packet:
        """Reads one.

        Raises:
            Refused: if it is not there, or damaged.
        """
        path = self._path(version)
        try:
            packet = wire.decode(path.read_bytes())
        except FileNotFoundError:
            raise Refused(
                f"The state after round {version.round} is not on this node, which has "
                f"{_listed(self.known())}; was its folder changed?"
            ) from None
        except (OSError, Refused) as error:
            raise Refused(f"{path.name} cannot be read: {error}") from None
        if packet.fields.get("sha256") != checksum(packet.arrays):
            raise Refused(f"{path.name} is damaged: its checksum is another.")
        return packet

    def keep(self, versions: Iterable[Version]) -> None:
        """Removes versions that are older than the newest of these, but for these.

        Newer ones stay: an order that was late names none of them.
        """
        kept = set(versions)
        newest = max(kept, default=Version())
        for version in set(self.known()) - kept:
            if version < newest:
                self._path(version).unlink(missing_ok=True)

    def _path(self, version: Version) -> pathlib.Path:
        end = "-finished" if version.finished else ""
        return self.folder / f"round-{version.round:08d}{end}.safetensors"


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays, whatever their order."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype} {arrays[name].shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _listed(versions: list[Version]) -> str:
    rounds = ", ".join(str(version.round) for version in versions)
    return f"those after round {rounds}" if rounds else "none"
