"""One client on its node: answers the server's messages, and keeps its state in files.

What it does is a function of the message and of the version that the message names, so
that a message that comes twice, or after the node was killed, has the same answer.
"""

import pathlib
import re
from typing import Any

from fedjax_mrl import packing
from fedjax_mrl.engines import ClientEngine
from fedjax_mrl.federation import Federation
from fedjax_mrl.flower import identity, messages, shapes, wire
from fedjax_mrl.flower.error import Refused
from fedjax_mrl.flower.kinds import FINISH, HELLO, TRAIN
from fedjax_mrl.flower.messages import Order
from fedjax_mrl.flower.versions import Version, Versions
from fedjax_mrl.flower.wire import Packet


class Node:
    """A node with one client.

    Args:
        federation: built of the same options as the server's.
        client: its number.
        folder: where its states lie.

    Attributes:
        engine: the client.
        heads: the ways in which it infers.
    """

    def __init__(
        self, federation: Federation, client: int, folder: pathlib.Path
    ) -> None:
        self.engine: ClientEngine = federation.client(client)
        self.heads = federation.algorithm.heads
        self._options = identity.options(federation.config)
        self._folder = folder
        self._broadcast = shapes.broadcast(federation)
        self._first = self.engine.init()

    def answer(self, data: bytes) -> bytes:
        """Answers one message; a message that does not fit is answered too."""
        try:
            packet = wire.decode(data)
            kind = packet.fields.get("kind")
            if kind == HELLO:
                return self._introduce(packet)
            if kind == TRAIN:
                return self._train(packet)
            if kind == FINISH:
                return self._finish(packet)
            raise Refused(f"There is no message {kind!r}.")
        except Refused as error:
            return messages.refusal(str(error))

    def versions(self, run: str) -> Versions:
        """The files of a federation; each has a folder of its own.

        Raises:
            Refused: for a name that no server gives.
        """
        if not re.fullmatch(r"[0-9a-f]{16}", run):
            raise Refused(f"{run!r} names no federation.")
        return Versions(self._folder / run / f"client-{self.engine.id}")

    def _introduce(self, packet: Packet) -> bytes:
        given = packet.fields.get("options")
        if not isinstance(given, dict):
            raise Refused("The server does not say what it runs.")
        different = identity.differences(self._options, given)
        if different:
            listed = "; ".join(different[:5])
            raise Refused(f"The federation is configured otherwise: {listed}.")
        engine = self.engine
        return messages.introduction(
            messages.Hello(engine.id, engine.architecture, engine.num_train)
        )

    def _train(self, packet: Packet) -> bytes:
        given, broadcast = self._order(packet)
        if given.base.round >= given.round:
            raise Refused(
                f"Round {given.round} is over: its base is after round "
                f"{given.base.round}."
            )
        versions = self.versions(given.run)
        before = self._read(versions, given.base)
        versions.keep((*given.keep, given.base))
        after, report = self.engine.update(broadcast, before, given.round)
        versions.write(Version(given.round), packing.pack(after))
        return messages.report(self.engine.id, given.round, report)

    def _finish(self, packet: Packet) -> bytes:
        given, broadcast = self._order(packet)
        versions = self.versions(given.run)
        before = self._read(versions, given.base)
        after = self.engine.finish(broadcast, before, given.round, sound=given.sound)
        versions.write(Version(given.round, True), packing.pack(after))
        return messages.finished(self.engine.id, given.round)

    def _order(self, packet: Packet) -> tuple[Order, Any]:
        given = messages.read_order(packet)
        try:
            return given, packing.unpack(packet.arrays, self._broadcast)
        except ValueError as error:
            raise Refused(f"The broadcast does not fit: {error}") from None

    def _read(self, versions: Versions, version: Version) -> Any:
        """The state of a version; the one before the first round is computed."""
        if version.round == 0:
            return self._first
        try:
            return packing.unpack(versions.read(version).arrays, self._first)
        except Refused:
            raise
        except ValueError as error:
            raise Refused(f"The stored state does not fit: {error}") from None

    def state(self, run: str, version: Version) -> tuple[Any, Any]:
        """The client's state of a version, for `ClientEngine.predict` and the like.

        Raises:
            Refused: if it is not there.
        """
        return self._read(self.versions(run), version)

    def runs(self) -> list[str]:
        """The federations that this client has states of, the newest last."""
        found = self._folder.glob(f"*/client-{self.engine.id}/round-*.safetensors")
        last = {path.parts[-3]: path.stat().st_mtime for path in sorted(found)}
        return sorted(last, key=lambda run: last[run])

    def accuracies(self, run: str, version: Version) -> dict[str, float]:
        """The share of the client's test examples that it classifies right, by head.

        Raises:
            Refused: if the version is not there.
            ValueError: for a client without test examples.
        """
        state, data = self.state(run, version), self.engine.data
        if not len(data.y_test):
            raise ValueError(f"Client {self.engine.id} has no test examples.")
        answers = {
            head: self.engine.predict(state, data.x_test, head=head).argmax(axis=-1)
            for head in self.heads
        }
        return {head: float((y == data.y_test).mean()) for head, y in answers.items()}
